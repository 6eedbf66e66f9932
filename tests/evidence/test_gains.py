"""Gains between iterations of which not all answers were judged: over the prompts that were judged in both."""

from __future__ import annotations

import math

import pytest
from sample_records import iteration

from llamaduo.config import Loop
from llamaduo.evidence.stop import Scores, best, gained, least_gained, stop_reason
from llamaduo.runs.state import Iteration


def table(**scores: float) -> dict[str, dict[tuple[str, int], float]]:
    return {name: {(prompt, 0): value for prompt, value in scores.items()} for name in ("similarity", "precision")}


def test_only_prompts_judged_in_both_count() -> None:
    easy_first = table(a=90.0, b=80.0)
    whole = table(a=92.0, b=82.0, c=10.0, d=20.0)
    assert gained(whole, easy_first) == pytest.approx(2)
    assert gained(easy_first, whole) == pytest.approx(-2)


def test_a_score_that_no_judge_gives_is_left_out() -> None:
    assert gained(table(a=90.0) | {"precision": {}}, table(a=80.0) | {"precision": {}}) == pytest.approx(10)
    assert gained(table(a=90.0), table(b=10.0)) == 0


def test_best_and_plateau_go_by_the_gain_that_is_given() -> None:
    history = [iteration(number, similarity=mean, precision=mean) for number, mean in enumerate((80, 50, 51, 51.5))]
    worth = [10, 50, 60, 70]

    def gain(later: Iteration, earlier: Iteration) -> float:
        return worth[later.iteration] - worth[earlier.iteration]

    assert (best(history), best(history, gain)) == (0, 3)
    loop = Loop(max_iterations=9, patience=2)
    assert stop_reason(history, loop, 0.1) == "plateau"
    assert stop_reason(history, loop, 0.1, gain) is None


def test_a_plateau_is_ruled_out_only_by_gains_that_are_sure() -> None:
    """Few prompts are judged, and one of them is lucky: the rest has to be asked before the run goes on."""
    before = table(a=80.0, b=80.0, c=80.0, d=80.0)
    lucky, sure = table(a=80.0, b=80.0, c=80.0, d=100.0), table(a=85.0, b=84.0, c=86.0, d=85.0)
    assert gained(lucky, before) == pytest.approx(5)
    assert least_gained(lucky, before) < 2 < least_gained(sure, before) < gained(sure, before)
    assert least_gained(table(a=99.0), table(a=1.0)) == -math.inf
    history = [iteration(number, similarity=80.0, precision=80.0) for number in range(3)]
    loop = Loop(max_iterations=9, patience=2)
    for latest, expected in ((lucky, "plateau"), (sure, None)):
        scores = [before, before, latest]

        def gain(later: Iteration, earlier: Iteration, scores: list[Scores] = scores) -> float:
            return gained(scores[later.iteration], scores[earlier.iteration])

        def least(later: Iteration, earlier: Iteration, scores: list[Scores] = scores) -> float:
            return least_gained(scores[later.iteration], scores[earlier.iteration])

        assert stop_reason(history, loop, 0.1, gain) is None
        assert stop_reason(history, loop, 0.1, gain, least) == expected


def test_the_earliest_of_equals_is_best() -> None:
    history = [iteration(number, similarity=mean, precision=mean) for number, mean in enumerate((50, 80, 80))]
    assert best(history) == 1
