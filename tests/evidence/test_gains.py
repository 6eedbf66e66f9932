"""Gains between iterations of which not all answers were judged: over the prompts that were judged in both."""

from __future__ import annotations

import pytest
from sample_records import iteration

from llamaduo.config import Loop
from llamaduo.evidence.stop import best, gained, stop_reason
from llamaduo.records import Iteration


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


def test_the_earliest_of_equals_is_best() -> None:
    history = [iteration(number, similarity=mean, precision=mean) for number, mean in enumerate((50, 80, 80))]
    assert best(history) == 1
