"""Curation: nothing like dev or test survives, one of a group of near-duplicates does, and all of it is logged.

The index finds exactly the pairs that comparing everything with everything finds.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import example

from llamaduo.config import Curation, DuplicateText
from llamaduo.records import Example
from llamaduo.stages.curate import Curated, Index, Removal, curate, words

CONFIG = Curation(duplicate_jaccard=0.9, contamination_jaccard=0.8)


def curated(
    new: list[Example],
    known: list[Example] | None = None,
    held_out: list[Example] | None = None,
    config: Curation = CONFIG,
) -> Curated:
    return curate(new, known=known or [], held_out=held_out or [], config=config)


def jaccard(one: str, other: str) -> float:
    a, b = words(one), words(other)
    return len(a & b) / len(a | b) if a | b else 0.0


def numbered(first: int, last: int) -> str:
    """Return a text of the words `w<first>` to `w<last>`, the last one not included."""
    return " ".join(f"w{n}" for n in range(first, last))


TEXTS = st.lists(
    st.lists(st.sampled_from("abcdefghijkl"), max_size=12).map(" ".join) | st.text(max_size=8), max_size=14
)
THRESHOLDS = st.sampled_from([1.0, 0.9, 0.8, 2 / 3, 0.5, 1 / 3, 0.25, 0.1, 0.01]) | st.floats(0.01, 1.0)


@given(TEXTS, st.lists(st.text(alphabet="abcdefghijkl ", max_size=20), max_size=4), THRESHOLDS)
@settings(max_examples=300)
def test_the_index_finds_exactly_what_brute_force_finds(texts: list[str], asked: list[str], threshold: float) -> None:
    index = Index([*texts, *asked], threshold)
    for text in texts:
        index.add(text)
    for text in [*texts, *asked]:
        expected = [(place, jaccard(text, other)) for place, other in enumerate(texts)]
        assert index.matches(text) == [
            (place, alike) for place, alike in expected if words(text) and alike >= threshold
        ]


@given(TEXTS, TEXTS, THRESHOLDS)
@settings(max_examples=100)
def test_the_index_is_exact_for_texts_it_was_not_told_of(texts: list[str], asked: list[str], threshold: float) -> None:
    index = Index([], threshold)
    for text in texts:
        index.add(text)
    for text in filter(words, asked):
        expected = [place for place, other in enumerate(texts) if jaccard(text, other) >= threshold]
        assert [place for place, _ in index.matches(text)] == expected


@given(TEXTS, TEXTS, TEXTS, st.sampled_from([0.9, 0.5]), st.sampled_from([0.8, 0.4]))
@settings(max_examples=100)
def test_curation_is_what_comparing_everything_gives(
    new: list[str], known: list[str], held_out: list[str], duplicate: float, contamination: float
) -> None:
    config = Curation(duplicate_jaccard=duplicate, contamination_jaccard=contamination)
    rows, seen, tests = ([example(text) for text in texts] for texts in (new, known, held_out))
    found = curated(rows, seen, tests, config)
    survivors: list[Example] = []
    for row in rows:
        clean = not any(jaccard(row.prompt, test.prompt) >= contamination for test in tests)
        compared = [*seen, *survivors]
        fresh = all(
            row.prompt_id != other.prompt_id
            and jaccard(f"{row.prompt}\n{row.response}", f"{other.prompt}\n{other.response}") < duplicate
            for other in compared
        )
        if clean and fresh:
            survivors.append(row)
    assert list(found.kept) == survivors
    assert len(found.kept) + len(found.removed) == len(rows)
    assert [removal.row for removal in found.removed] == sorted({removal.row for removal in found.removed})


def test_order_is_kept_and_the_first_of_a_group_survives() -> None:
    new = [example(text) for text in ("z one", numbered(0, 30), "a two", numbered(0, 29), numbered(1, 30), "m three")]
    found = curated(new)
    assert list(found.kept) == [new[0], new[1], new[2], new[5]]
    assert [(removal.row, removal.reason, removal.match) for removal in found.removed] == [
        (3, "duplicate", new[1].prompt_id),
        (4, "duplicate", new[1].prompt_id),
    ]


def test_a_removed_row_takes_no_other_with_it() -> None:
    config = Curation(duplicate_jaccard=0.75, contamination_jaccard=0.8)
    chain = [example(numbered(n, n + 12), "r") for n in range(4)]  # each one is like the next and like no other
    found = curated(chain, config=config)
    assert list(found.kept) == [chain[0], chain[2]]
    assert [removal.match for removal in found.removed] == [chain[0].prompt_id, chain[2].prompt_id]


def test_the_same_prompt_with_another_response_is_a_duplicate() -> None:
    known, new = example("the prompt", "one response"), example("the  prompt", "something quite different")
    assert curated([new], [known]).removed == (Removal(0, new.prompt_id, "duplicate", known.prompt_id, 1.0),)
    other = example("the prompt", "and a third")
    assert curated([new, other]).kept == (new,)


def test_rows_trained_on_already_are_not_taken_again() -> None:
    known = [example(numbered(0, 40), "same response")]
    found = curated([example(numbered(0, 39) + " new", "same response")], known)
    assert found.kept == ()
    assert found.removed[0].match == known[0].prompt_id
    assert found.removed[0].similarity == pytest.approx(41 / 43, abs=1e-4)


def test_contamination_is_by_prompt_whatever_the_response_says() -> None:
    held_out = [example("something else entirely"), example(numbered(0, 10), "the true response")]
    leak = example(numbered(0, 9), "nothing like the response of the test row at all")
    found = curated([leak], held_out=held_out)
    assert found.kept == ()
    assert found.removed == (Removal(0, leak.prompt_id, "contamination", held_out[1].prompt_id, 0.9),)


def test_the_closest_held_out_prompt_is_the_one_that_is_logged() -> None:
    held_out = [example(numbered(0, 9)), example(numbered(0, 10))]
    (removal,) = curated([example(numbered(0, 10))], held_out=held_out).removed
    assert (removal.match, removal.similarity) == (held_out[1].prompt_id, 1.0)


def test_just_below_a_threshold_survives_and_just_at_it_does_not() -> None:
    held_out = [example(numbered(0, 10))]
    assert curated([example(numbered(0, 8))], held_out=held_out).kept == ()  # 8 of 10 words
    assert len(curated([example(numbered(0, 7))], held_out=held_out).kept) == 1


def test_nothing_of_dev_or_test_survives_in_whatever_case_or_spacing() -> None:
    held_out = [
        example(f"Please fix the {thing} of order number {n}!") for n, thing in enumerate(("bill", "map", "door"))
    ]
    copies = [
        example(variant(e.prompt)) for e in held_out for variant in (str, str.upper, lambda t: t.replace(" ", "\n "))
    ]
    found = curated(copies, held_out=held_out)
    assert found.kept == ()
    assert {removal.reason for removal in found.removed} == {"contamination"}
    assert {removal.match for removal in found.removed} == {row.prompt_id for row in held_out}


def test_words_of_any_script_and_single_signs_count() -> None:
    assert words("Über-Straße, 日本 x+1") == {"über", "-", "strasse", ",", "日本", "x", "+", "1"}
    held_out = [example("東京 の 天気 は 晴れ です か")]
    assert curated([example("東京 の 天気 は 晴れ です か")], held_out=held_out).kept == ()


def test_the_paper_compares_responses_and_asks_rouge_l_to_confirm() -> None:
    config = Curation(DuplicateText.response, 0.9, 0.7, 0.8)
    first = example("first prompt", numbered(0, 20))
    same_words_reversed = example("second prompt", " ".join(reversed(numbered(0, 20).split())))
    same_words = example("third prompt", numbered(0, 20))
    found = curated([first, same_words_reversed, same_words], config=config)
    assert list(found.kept) == [first, same_words_reversed]
    assert found.removed == (Removal(2, same_words.prompt_id, "duplicate", first.prompt_id, 1.0),)
    without = Curation(DuplicateText.response, 0.9, None, 0.8)
    assert list(curated([first, same_words_reversed, same_words], config=without).kept) == [first]


def test_prompts_do_not_make_duplicates_where_responses_are_compared() -> None:
    config = Curation(DuplicateText.response, 0.9, None, 0.8)
    rows = [example(f"{numbered(0, 30)} {n}", f"response of its own {n}") for n in range(4)]
    assert len(curated(rows, config=config).kept) == 4


def test_nothing_new_is_nothing_removed() -> None:
    assert curated([], [example("a")], [example("b")]) == Curated((), ())
