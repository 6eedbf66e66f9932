"""What is said of removals, in a sentence."""

from __future__ import annotations

from sample_records import example

from llamaduo.curation.curate import Removal
from llamaduo.curation.notes import many_removed


def test_more_than_a_third_removed_is_said_with_examples() -> None:
    rows = [
        example(f"Classify this ticket, and think before you do: my {word} is not here {n}")
        for n, word in enumerate("abcdef")
    ]
    others = [example("a train row"), example("a dev row\nof two lines")]
    removed = [
        Removal(0, rows[0].prompt_id, "duplicate", others[0].prompt_id, 0.95),
        Removal(2, rows[2].prompt_id, "duplicate", rows[1].prompt_id, 1.0),
        Removal(3, rows[3].prompt_id, "contamination", others[1].prompt_id, 0.8182),
        Removal(4, rows[4].prompt_id, "duplicate", rows[1].prompt_id, 0.9),
    ]
    (note,) = many_removed(rows, removed, others)
    assert note.startswith(
        "curation removed 4 of this round's 6 rows. 3 like other rows: "
        "'Classify this ticket, and think before you do: my a is not here 0' matches 'a train row' (95%); "
    )
    assert note.count("matches") == 3
    assert "1 like dev or test: 'Classify this ticket, and think before you do: my d is not here 3' matches " in note
    assert "'a dev row of two lines' (82%)" in note


def test_a_third_is_not_worth_a_word() -> None:
    rows = [example(f"row {n}") for n in range(6)]
    removed = [Removal(n, rows[n].prompt_id, "duplicate", rows[5].prompt_id, 1.0) for n in range(2)]
    assert many_removed(rows, removed, []) == []
    assert many_removed([], [], []) == []


def test_of_a_long_prompt_the_end_is_shown() -> None:
    rows = [example(f"{'rule ' * 200}the ticket {n}") for n in range(2)]
    (note,) = many_removed(rows, [Removal(1, rows[1].prompt_id, "duplicate", rows[0].prompt_id, 1.0)], [])
    assert "rule the ticket 1' matches '..." in note
    assert len(note) < 500
