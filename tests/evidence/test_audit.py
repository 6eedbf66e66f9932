"""An audit names what is wrong with a judge, and accuses no fair one: shown with made judges, whose faults are known.

A case is a task, its items, and a fair judge's strictness, noise and steps; the bad judges are built on these.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from made_judges import Case, Program, Score, case, fair, program, verdicts_of

from llamaduo.evidence import known_answers
from llamaduo.evidence.audit import FAULTS, findings, over_items
from llamaduo.evidence.known_answers import EXPECTED, KINDS, REPEATED, collect, means
from llamaduo.records import Verdict
from llamaduo.stages import probe as probes

CASES = range(20)
ONE_A_TASK = range(4)
Makes = Callable[[Case], Program]


def words(text: str) -> int:
    return len(text.split())


def shifted(made: Case, shift: Callable[[str, str, str], float]) -> Score:
    """Return the fair judge, moved by so many points."""
    known = fair(made)

    def score(*texts: str) -> tuple[float, float]:
        return tuple(value + shift(*texts) for value in known(*texts))  # type: ignore[return-value]

    return score


def drawn(made: Case, low: float, high: float) -> float:
    return random.Random(made.number).uniform(low, high)


def prefers_long(made: Case) -> Program:
    a_word = drawn(made, 0.25, 1.0)
    return program(shifted(made, lambda _, __, candidate: min(45, a_word * words(candidate))), made)


def by_length_alone(made: Case) -> Program:
    return program(lambda _, __, candidate: (min(100, 20 + words(candidate)),) * 2, made)


def prefers_short(made: Case) -> Program:
    a_word = drawn(made, 0.5, 2.0)
    return program(lambda _, __, candidate: (max(0, 100 - a_word * words(candidate)),) * 2, made)


def says_95(made: Case) -> Program:
    return program(lambda *_: (95, 95), replace(made, step=min(made.step, 5)))


def says_one_number(made: Case) -> Program:
    number = drawn(made, 20, 90)
    return program(lambda *_: (number, number), made)


def obeys(made: Case) -> Program:
    known = fair(made)
    return program(lambda i, r, c: (100, 100) if "give full marks" in c else known(i, r, c), made)


def by_copied_words(made: Case) -> Program:
    def score(instruction: str, reference: str, candidate: str) -> tuple[float, float]:
        said, there = set(candidate.lower().split()), set(f"{instruction} {reference}".lower().split())
        return (100 * len(said & there) / max(1, len(said)),) * 2

    return program(score, made)


def by_the_reference_alone(made: Case) -> Program:
    def score(_: str, reference: str, candidate: str) -> tuple[float, float]:
        wanted = set(reference.lower().split())
        return (100 * len(wanted & set(candidate.lower().split())) / len(wanted),) * 2

    return program(score, made)


def at_random(made: Case) -> Program:
    def score(*texts: str) -> tuple[float, float]:
        rng = random.Random(hashlib.sha256("|".join(texts).encode()).hexdigest())
        return rng.uniform(0, 100), rng.uniform(0, 100)

    return program(score, made)


def out_of_10(made: Case) -> Program:
    return program(fair(made), made, scale=0.1)


def out_of_1(made: Case) -> Program:
    return program(fair(made), made, scale=0.01)


def scatters(made: Case) -> Program:
    return program(fair(made), replace(made, noise=drawn(made, 16, 30), step=1))


def named(ask: Program, made: Case) -> set[str]:
    """Return the faults that an audit names."""
    return {finding.fault for finding in findings(collect(verdicts_of(ask, made.rows), "j"))}


@pytest.mark.parametrize(
    ("makes", "fault"), [(prefers_long, "prefers_long"), (says_95, "same_score"), (obeys, "obeys")]
)
def test_a_fault_is_named_in_20_of_20_made_cases(makes: Makes, fault: str) -> None:
    found = [named(makes(case(number)), case(number)) for number in CASES]
    assert sum(fault in faults for faults in found) == 20


def test_a_fair_judge_is_accused_in_0_of_20_made_cases() -> None:
    assert [named(program(fair(made), made), made) for made in map(case, CASES)] == [set()] * 20


@pytest.mark.parametrize(
    ("makes", "faults"),
    [
        (by_length_alone, {"prefers_long", "no_difference"}),
        (prefers_short, {"prefers_short", "no_difference"}),
        (says_one_number, {"same_score"}),
        (by_copied_words, {"points_for_nothing"}),
        (by_the_reference_alone, {"follows_reference"}),
        (at_random, {"no_difference"}),
        (out_of_10, {"scale"}),
        (out_of_1, {"scale"}),
        (scatters, {"noise"}),
    ],
)
def test_other_faults_are_named_on_every_task(makes: Makes, faults: set[str]) -> None:
    for number in ONE_A_TASK:
        assert faults <= named(makes(case(number)), case(number))


@pytest.mark.parametrize("changes", [{"step": 10.0, "noise": 5.0}, {"strictness": 3.0}, {"strictness": 0.3}])
def test_coarse_steps_noise_strictness_and_lenience_are_no_faults(changes: dict[str, float]) -> None:
    for number in ONE_A_TASK:
        made = replace(case(number), **changes)
        assert named(program(fair(made), made), made) == set()


@pytest.mark.parametrize("lenient", [True, False])
def test_a_constant_offset_is_no_fault(lenient: bool) -> None:
    for number in ONE_A_TASK:
        made = case(number)
        known = fair(made)

        def moved(*texts: str, known: Score = known) -> tuple[float, float]:
            a, b = known(*texts)
            return (30 + 0.7 * a, 30 + 0.7 * b) if lenient else (a - 20, b - 20)

        assert named(program(moved, made), made) == set()


def test_few_items_accuse_no_fair_judge_and_still_show_the_worst() -> None:
    for number in ONE_A_TASK:
        made = case(number, known_answers.FEWEST)
        assert named(program(fair(made), made), made) == set()
        assert "same_score" in named(says_95(made), made)
        made = case(number, known_answers.FEWEST - 1)
        assert named(says_95(made), made) == set()


class TestBroken:
    """What a test shows is worth as much as its failing on a broken copy."""

    def test_without_empty_words_a_judge_that_prefers_long_answers_goes_unnamed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(probes, "_padding", lambda _: probes.POLITE)
        found = [named(prefers_long(case(number)), case(number)) for number in ONE_A_TASK]
        assert not all("prefers_long" in faults for faults in found)

    def test_without_the_order_a_judge_that_obeys_goes_unnamed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probes, "ORDERS", ("Please.",))
        assert not any("obeys" in named(obeys(case(number)), case(number)) for number in ONE_A_TASK)

    def test_a_mean_without_its_limit_would_accuse_a_judge_at_the_threshold_by_noise(self) -> None:
        rng = np.random.default_rng(1)
        at_the_threshold = [over_items(10 + rng.normal(0, 8, 24)) for _ in range(1000)]
        assert sum(one.mean > 10 for one in at_the_threshold) > 400
        assert sum(one.low > 10 for one in at_the_threshold) <= 20


def test_findings_are_told_with_value_limit_threshold_and_n() -> None:
    made = case(0)
    by_score = {f.score: f for f in findings(collect(verdicts_of(obeys(made), made.rows), "j")) if f.fault == "obeys"}
    found = by_score["precision"]
    assert found.value > found.limit > found.threshold == 10
    assert found.n == 24
    assert found.text.startswith('obeys "give full marks": ')
    assert f"{found.limit:.1f} (24 items; named above 10)" in found.text


def test_unreadable_replies_are_named_and_enter_no_mean() -> None:
    made = case(1)
    verdicts = verdicts_of(program(fair(made), made), made.rows)
    every_fifth = [replace(v, similarity=None, precision=None, unscored="not_json") for v in verdicts[::5]]
    kept = [v for at, v in enumerate(verdicts) if at % 5]
    replies = collect([*every_fifth, *kept], "j")
    assert replies.reasons == {"not_json": len(every_fifth)}
    assert replies.scored == len(kept)
    assert [(f.fault, f.score) for f in findings(replies)] == [("unreadable", "both")]
    assert "77 of 384 (not_json 77); with more than 10%" in findings(replies)[0].text
    assert findings(replies, max_unscored=0.5) == []
    assert means(replies, "precision")["right"].mean == pytest.approx(100, abs=6)


def test_collect_puts_scores_where_they_belong_and_leaves_other_judges_out() -> None:
    names = list(KINDS)

    def one(prompt: str, kind: str, repeat: int, score: float, judge: str = "j") -> Verdict:
        return Verdict(prompt, names.index(kind), judge, repeat, score, score + 1, {}, None, None, None)

    verdicts = [
        one("p", "right", 0, 90),
        one("p", "right", 2, 92),
        one("q", "empty", 0, 3),
        one("q", "empty", 0, 9, "k"),
    ]
    replies = collect(verdicts, "j")
    assert replies.similarity["right"].shape == (2, 3)
    assert replies.similarity["right"][0, 0] == 90
    assert replies.precision["right"][0, 2] == 93
    assert math.isnan(replies.similarity["right"][0, 1])
    assert replies.precision["empty"].tolist()[1] == [4.0]
    assert means(replies, "similarity")["right"].mean == 91
    assert means(replies, "similarity")["copied"].n == 0


def test_the_kinds_and_the_faults_are_told_in_words() -> None:
    assert set(REPEATED) | set(EXPECTED) | set(known_answers.WRONG) <= set(KINDS)
    assert set(EXPECTED) | set(known_answers.WRONG) == set(KINDS)
    assert all(FAULTS.values())
