"""Few-shot pairs: those most like the prompt, never the prompt itself, and put before it in its own conversation."""

from __future__ import annotations

from sample_records import example

from llamaduo.data.shots import nearest, with_shots
from llamaduo.records import Example, prompt_id

POOL = [
    example("Sort a list of numbers in Python", "sorted(numbers)"),
    example("Write a poem about the sea", "The sea ..."),
    example("Reverse a list in Python", "numbers[::-1]"),
    example("Name the capital of France", "Paris"),
]


def test_the_pairs_that_share_rare_words_come_first() -> None:
    (found,) = nearest([example("How do I sort numbers in Python?", "")], POOL, 2)
    assert [pair.response for pair in found] == ["sorted(numbers)", "numbers[::-1]"]
    (found,) = nearest([example("What is France's capital?", "")], POOL, 1)
    assert [pair.response for pair in found] == ["Paris"]


def test_the_prompt_itself_is_never_shown_its_answer() -> None:
    (found,) = nearest([POOL[0]], POOL, 4)
    assert POOL[0] not in found
    assert len(found) == 3


def test_what_is_alike_in_nothing_comes_in_the_pools_order() -> None:
    (found,) = nearest([example("zzz", "")], POOL, 2)
    assert found == POOL[:2]
    assert nearest([POOL[1]], [], 2) == [[]]


def test_pairs_become_turns_behind_the_system_turn_the_most_alike_last() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Sort"})
    asked = Example(prompt_id(messages), messages, "reference")
    shown = with_shots(asked, [POOL[0], POOL[2]])
    assert [(turn["role"], turn["content"]) for turn in shown.messages] == [
        ("system", "Be brief."),
        ("user", "Reverse a list in Python"),
        ("assistant", "numbers[::-1]"),
        ("user", "Sort a list of numbers in Python"),
        ("assistant", "sorted(numbers)"),
        ("user", "Sort"),
    ]
    assert (shown.prompt_id, shown.response) == (asked.prompt_id, asked.response)
    assert with_shots(asked, []) == asked
