"""The pocket tasks: every item can be solved by its own task and by no other, and grading knows the truth.

Nothing that a model answers is ever executed.
"""

from __future__ import annotations

import random
import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaduo.data.splits import place_of
from llamaduo.pocket.tasks import CATEGORIES, TASKS, make_pairs, recognise
from llamaduo.records import prompt_id

NAMES = list(TASKS)


def items(task: str, count: int = 500, seed: int = 7) -> list[tuple[str, str]]:
    return make_pairs(task, count, seed)


def test_the_tasks_carry_the_papers_names() -> None:
    assert NAMES == ["classification", "closed_qa", "summarization", "coding"]


@pytest.mark.parametrize("name", NAMES)
def test_every_item_can_be_solved_and_belongs_to_its_task_alone(name: str) -> None:
    for prompt, truth in items(name):
        found = recognise(prompt)
        assert found is not None
        assert (found[0].name, found[1]) == (name, truth)
        assert [task.name for task in TASKS.values() if task.solve(prompt) is not None] == [name]
        assert TASKS[name].correctness(truth, truth) == 1.0


@pytest.mark.parametrize("name", NAMES)
def test_the_truth_is_in_or_follows_from_the_prompt(name: str) -> None:
    for prompt, truth in items(name):
        if name == "classification":
            words = set(re.findall(r"\w+", prompt.partition("writes: ")[2]))
            assert [label for label, known in CATEGORIES.items() if words & set(known)] == [truth]
        elif name == "closed_qa":
            assert re.search(rf"\b{truth}\b", prompt.partition("\n\n")[0])
        elif name == "summarization":
            customer, city, good, problem, _ = re.findall(r"\w+", truth.replace(" wants", ""))
            assert all(re.search(rf"\b{word}\b", prompt) for word in (customer, city, good, problem))
        else:
            compile(truth, "truth", "exec")
            assert re.fullmatch(r"def (\w+)\(\w+(, \w+)?\): return \w+ [-+*/] \w+", truth)


def test_code_that_is_right_computes_what_was_asked() -> None:
    for prompt, truth in items("coding", 100):
        scope: dict[str, object] = {}
        exec(truth, scope)  # the truth is ours
        function = scope[re.findall(r"def (\w+)", truth)[0]]
        assert callable(function)
        found = re.search(r"returns (\w+) (plus|minus|times|divided by) (\w+)\.$", prompt)
        assert found is not None
        takes = re.findall(r"\((.*?)\)", truth)[0].split(", ")
        given_values = {name: number for number, name in zip((12.0, 4.0), takes, strict=False)}
        left, right = (given_values.get(text) or float(text) for text in found.group(1, 3))
        expected = {"plus": left + right, "minus": left - right, "times": left * right, "divided by": left / right}
        assert function(*given_values.values()) == expected[found[2]]


@pytest.mark.parametrize("name", NAMES)
def test_items_are_distinct_and_the_same_for_the_same_seed(name: str) -> None:
    first = items(name, 200)
    assert len({prompt_id(({"role": "user", "content": prompt},)) for prompt, _ in first}) == 200
    assert items(name, 200) == first
    assert items(name, 50) == first[:50]
    assert set(items(name, 200, seed=8)) != set(first)


@pytest.mark.parametrize("name", NAMES)
def test_items_spread_over_answers_and_splits(name: str) -> None:
    made = items(name)
    assert len({truth for _, truth in made}) >= (4 if name == "classification" else 200)
    share = sum(place_of(42, prompt_id(({"role": "user", "content": prompt},))) < 0.5 for prompt, _ in made) / len(made)
    assert 0.4 < share < 0.6


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_is_read_with_white_space_around_it_and_in_no_other_wording(name: str) -> None:
    for prompt, truth in items(name, 50):
        assert TASKS[name].solve(f"\n {prompt}\n") == truth
        assert recognise(f"{prompt} Please.") is None
        assert recognise(prompt[:-1]) is None
        assert recognise(prompt.upper()) is None


@given(st.text())
def test_any_other_text_is_no_item(text: str) -> None:
    assert recognise(text) is None


@pytest.mark.parametrize("name", NAMES)
@given(answer=st.text())
def test_grading_any_answer_gives_a_share(name: str, answer: str) -> None:
    (_, truth), *_ = items(name, 1)
    assert 0.0 <= TASKS[name].correctness(truth, answer) <= 1.0


@pytest.mark.parametrize("name", NAMES)
def test_another_items_truth_is_not_fully_right(name: str) -> None:
    rng = random.Random(3)
    made = items(name, 100)
    for _, truth in made:
        other = rng.choice(made)[1]
        if other != truth:
            assert TASKS[name].correctness(truth, other) < 1.0


@pytest.mark.parametrize(
    ("name", "truth", "answer", "share"),
    [
        ("classification", "billing", " Billing.\n", 1.0),
        ("classification", "billing", "access", 0.0),
        ("classification", "billing", "billing or access", 0.0),
        ("classification", "billing", "", 0.0),
        ("closed_qa", "Taveno", "taveno", 1.0),
        ("closed_qa", "Taveno", "Tavena", 0.0),
        ("summarization", "Roma (Taveno): bako late, wants refund", "Roma (Taveno): bako late, wants refund", 1.0),
        ("summarization", "Roma (Taveno): bako late, wants refund", "Roma (Taveno): bako late, wants call", 5 / 6),
        ("summarization", "Roma (Taveno): bako late, wants refund", "Xo (Yu): zu wet, wants call", 1 / 6),
        ("summarization", "Roma (Taveno): bako late, wants refund", "Roma of Taveno wants a refund: bako late", 5 / 6),
        ("summarization", "Roma (Taveno): bako late, wants refund", "nothing", 0.0),
        ("coding", "def bako(rimu): return rimu + 3", "def bako(rimu):\n    return rimu + 3", 1.0),
        ("coding", "def bako(rimu): return rimu + 3", "def bako(rimu): return rimu - 3", 2 / 3),
        ("coding", "def bako(rimu): return rimu + 3", "def other(x): return x", 0.0),
        ("coding", "def bako(rimu): return rimu + 3", "def bako(rimu) return rimu + 3", 0.0),
        ("coding", "def bako(rimu): return rimu + 3", "x = 1\ndef bako(rimu): return rimu + 3", 0.0),
        ("coding", "def bako(rimu): return rimu + 3", "```python\ndef bako(rimu): return rimu + 3\n```", 0.0),
    ],
)
def test_grading(name: str, truth: str, answer: str, share: float) -> None:
    assert TASKS[name].correctness(truth, answer) == pytest.approx(share)


HOSTILE = [
    "import pathlib; pathlib.Path('owned').touch()",
    "__import__('pathlib').Path('owned').touch()",
    "def bako(rimu=__import__('pathlib').Path('owned').touch()): return rimu + 3",
    "@__import__('pathlib').Path('owned').touch\ndef bako(rimu): return rimu + 3",
    "def bako(rimu): return open('owned', 'w')",
    "class bako:\n    import pathlib\n    pathlib.Path('owned').touch()",
    "def bako(rimu): return rimu + 3\nbako(open('owned', 'w'))",
    "while True: pass",
    "raise SystemExit",
    "\0",
    "def bako(rimu): return " + "(" * 5000 + ")" * 5000,
    "def bako(rimu): return " + "9" * 10_000,
]


@pytest.mark.parametrize("answer", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_code_is_read_and_never_executed(answer: str) -> None:
    assert 0.0 <= TASKS["coding"].correctness("def bako(rimu): return rimu + 3", answer) <= 1.0
    assert not Path("owned").exists()


@pytest.mark.parametrize("body", [" + ".join(["rimu"] * 2000), "rimu" + ".x" * 2000, "rimu" + "()" * 2000])
def test_code_that_repeats_itself_without_end_is_wrong_and_no_error(body: str) -> None:
    truth = "def bako(rimu): return rimu + 3"
    assert TASKS["coding"].correctness(truth, f"def bako(rimu): return {body}") < 1.0


def test_reading_odd_code_warns_nobody() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TASKS["coding"].correctness("def bako(rimu): return rimu + 3", r'def bako(rimu): return "\d"')
    assert caught == []
