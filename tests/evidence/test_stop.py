"""Stop rules: each one ends the loop when, and only when, it says so; no score, no pass."""

from __future__ import annotations

import dataclasses

import pytest
from sample_records import iteration

from llamaduo.config import Growth, Loop
from llamaduo.evidence.stop import best, overall, passes, stop_reason
from llamaduo.runs.state import Iteration


def history(*means: float) -> list[Iteration]:
    return [iteration(number, mean, mean) for number, mean in enumerate(means)]


class TestPasses:
    @pytest.mark.parametrize(
        ("similarity", "precision", "expected"), [(92, 92, True), (91.9, 95, False), (95, None, False)]
    )
    def test_as_the_gate_saw_it(self, similarity: float, precision: float | None, expected: bool) -> None:
        assert passes(iteration(0, similarity, precision), 0.1) is expected

    def test_without_a_gate_nothing_passes(self) -> None:
        assert not passes(iteration(0, 100.0, 100.0, gate=None), 0.1)

    def test_too_many_missing_answers_block_it(self) -> None:
        good = {"similarity": 99.0, "precision": 99.0, "answers": 100}
        assert passes(iteration(0, **good, unanswered=10), 0.1)
        assert not passes(iteration(0, **good, unanswered=11), 0.1)
        assert not passes(iteration(0, **good, unanswered=1), 0.0)
        assert passes(iteration(0, **good, unanswered=100), 1.0)


class TestOverallAndBest:
    def test_overall_is_the_mean_of_the_scores_that_exist(self) -> None:
        assert overall(iteration(0, 70.0, 90.0)) == 80.0
        assert overall(iteration(0, 70.0, None)) == 70.0
        assert overall(iteration(0, None, 90.0)) == 90.0
        assert overall(iteration(0, None, None)) == 0.0

    def test_best_is_the_highest_and_the_earliest_of_equals(self) -> None:
        assert best(history(50, 80, 70)) == 1
        assert best(history(50, 80, 80)) == 1
        assert best(history(50)) == 0
        assert best([iteration(0, None, None), iteration(1, 1.0, None)]) == 1


class TestStopReason:
    def test_passed_comes_first(self) -> None:
        assert stop_reason(history(10, 95), Loop(max_iterations=2), 0.1) == "passed"

    def test_the_last_iteration_counts_and_no_earlier_one(self) -> None:
        assert stop_reason(history(95, 50), Loop(max_iterations=5), 0.1) is None

    def test_max_iterations(self) -> None:
        loop = Loop(max_iterations=3, patience=0)
        assert stop_reason(history(10, 20), loop, 0.1) is None
        assert stop_reason(history(10, 20, 30), loop, 0.1) == "max_iterations"

    @pytest.mark.parametrize(("max_iterations", "limit"), [(9, 2), (1, 1)])
    def test_fixed_volumes_end_the_loop_when_they_are_used_up(self, max_iterations: int, limit: int) -> None:
        loop = Loop(max_iterations=max_iterations, patience=0, growth=Growth(volumes=[100, 200]))
        assert stop_reason(history(*range(limit)), loop, 0.1) == "max_iterations"
        if limit > 1:
            assert stop_reason(history(*range(limit - 1)), loop, 0.1) is None

    @pytest.mark.parametrize(
        ("means", "expected"),
        [
            ((50,), None),
            ((50, 51), None),
            ((50, 51, 51.9), "plateau"),
            ((50, 51, 52), None),
            ((50, 52, 51), None),
            ((50, 40, 30), "plateau"),
            ((50, 60, 61, 61.5), "plateau"),
            ((50, 60, 61, 62), None),
            ((60, 50, 59, 61.9), "plateau"),
        ],
    )
    def test_plateau_is_patience_iterations_in_a_row_without_a_gain(
        self, means: tuple[float, ...], expected: str | None
    ) -> None:
        loop = Loop(max_iterations=99, patience=2, min_gain=2.0)
        assert stop_reason(history(*means), loop, 0.1) == expected

    def test_patience_0_never_ends_it(self) -> None:
        loop = Loop(max_iterations=99, patience=0, min_gain=50.0)
        assert stop_reason(history(*([50.0] * 20)), loop, 0.1) is None

    def test_a_gain_of_nothing_is_enough_when_nothing_is_asked_for(self) -> None:
        loop = Loop(max_iterations=99, patience=1, min_gain=0.0)
        assert stop_reason(history(50, 50), loop, 0.1) is None
        assert stop_reason(history(50, 49.9), loop, 0.1) == "plateau"

    def test_scores_that_do_not_exist_go_on_to_the_next_rule(self) -> None:
        blank = [iteration(number, None, None) for number in range(3)]
        loop = Loop(max_iterations=3, patience=0)
        assert stop_reason(blank[:2], loop, 0.1) is None
        assert stop_reason(blank, loop, 0.1) == "max_iterations"

    def test_missing_answers_block_passing_and_the_loop_goes_on(self) -> None:
        loop = Loop(max_iterations=5)
        short = dataclasses.replace(history(99)[0], unanswered=50)
        assert stop_reason([short], loop, 0.1) is None
