"""The verdict names score, interval, n and rule, in one sentence or two, and never claims more than was found."""

from __future__ import annotations

from typing import Any

import pytest
from sample_records import iteration

from llamaduo.config import Experiment, Gate, GateRule, GateSplit
from llamaduo.evidence.verdict import verdict
from llamaduo.records import Estimate, Scorecard


def card(similarity: Estimate, precision: Estimate, answers: int = 96) -> Scorecard:
    return Scorecard(similarity, precision, 50.0, answers, 0, answers, 0, {}, 0.0, {})


TEST = card(Estimate(91.26, 89.04, 93.5, 96), Estimate(95.0, 93.0, 97.0, 96))


def test_passed_names_model_task_scores_intervals_rule_split_and_n(experiment: Experiment) -> None:
    experiment.task.name = "coding"
    found = verdict(experiment, [iteration(0, 50, 50), iteration(1, 93, 95.04)], "passed", 1, TEST)
    assert found == (
        "Passed: pocket_llama of iteration 1 (10 rows) takes over coding: similarity 93.0 [91.0, 95.0], "
        "precision 95.0 [93.0, 97.0]; the lower 95% limits reach the gate of similarity 90 and precision 90 "
        "(dev split, 100 answers). On the test split, looked at once: similarity 91.3 [89.0, 93.5], "
        "precision 95.0 [93.0, 97.0] (96 answers)."
    )


def test_the_mean_rule_and_the_gate_split_are_named(experiment: Experiment) -> None:
    experiment.loop.gate = Gate(similarity=None, precision=90.0, rule=GateRule.mean)
    experiment.protocol.gate_split = GateSplit.test
    found = verdict(experiment, [iteration(0, 93, 95)], "passed", 0, None)
    assert "the means reach the gate of precision 90 (test split, 100 answers)" in found
    assert "On the test split" not in found


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("max_iterations", "the last allowed iteration is done"),
        ("plateau", "more data stopped helping"),
        ("no_new_data", "there is no new data to train on"),
        ("budget", "the budget is spent"),
    ],
)
def test_not_passed_names_the_rule_and_the_best_iteration(reason: str, why: str, experiment: Experiment) -> None:
    found = verdict(experiment, [iteration(0, 60, 70), iteration(1, 50, 60)], reason, 0, None)
    assert found.startswith("Not passed: pocket_llama does not reach similarity 90 and precision 90 on classification")
    assert f"and {why}." in found
    assert "Best is iteration 0: similarity 60.0 [58.0, 62.0], precision 70.0 [68.0, 72.0]" in found
    assert "Passed" not in found


@pytest.mark.parametrize("reason", ["max_iterations", "plateau", "no_new_data", "budget"])
def test_no_iteration_is_no_verdict(reason: str, experiment: Experiment) -> None:
    found = verdict(experiment, [], reason, None, None)
    assert found.startswith("No verdict on pocket_llama for classification: ")
    assert found.endswith("before the first iteration was judged.")


def test_a_score_that_does_not_exist_is_said_not_to_exist(experiment: Experiment) -> None:
    found = verdict(experiment, [iteration(0, 95, None)], "max_iterations", 0, None)
    assert "precision not scored" in found
    assert "No precision exists to compare with the gate." in found
    both = verdict(experiment, [iteration(0, None, None)], "max_iterations", 0, None)
    assert "No similarity and no precision exists to compare with the gate." in both


def test_a_mean_without_limits_is_shown_without_them(experiment: Experiment) -> None:
    alone = iteration(0, 95, 96, similarity_low=None, similarity_high=None)
    experiment.loop.gate.rule = GateRule.mean
    found = verdict(experiment, [alone], "passed", 0, None)
    assert "similarity 95.0, precision 96.0 [94.0, 98.0]" in found


def test_missing_answers_are_named_with_their_cause(experiment: Experiment) -> None:
    found = verdict(experiment, [iteration(0, 95, 95, unanswered=40)], "max_iterations", 0, None)
    assert "40 of 100 answers are missing" in found
    assert "512 tokens of context" in found


def test_without_a_gate_nothing_is_passed_or_failed(experiment: Experiment) -> None:
    experiment.loop.gate = Gate(similarity=None, precision=None)
    found = verdict(experiment, [iteration(0, 50, 50), iteration(1, 60, 60)], "max_iterations", 1, None)
    assert found.startswith("Done: 2 volumes of pocket_llama on classification, no gate; best is iteration 1: ")
    assert "assed" not in found
    assert verdict(experiment, [iteration(0, 50, 50)], "max_iterations", 0, None).startswith("Done: 1 volume of pocket")


def test_without_a_gate_a_budget_that_ended_it_is_named(experiment: Experiment) -> None:
    experiment.loop.gate = Gate(similarity=None, precision=None)
    assert "budget" in verdict(experiment, [iteration(0, 50, 50)], "budget", 0, None)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ({"similarity": Estimate(None, None, None, 0), "precision": Estimate(None, None, None, 0)}, "not scored"),
        ({"similarity": Estimate(50.0, None, None, 1), "precision": Estimate(None, None, None, 0)}, "similarity 50.0"),
    ],
)
def test_the_test_split_is_reported_as_it_is(scores: dict[str, Any], expected: str, experiment: Experiment) -> None:
    found = verdict(experiment, [iteration()], "max_iterations", 0, card(**scores, answers=1))
    assert found.endswith(f"On the test split, looked at once: {expected} (1 answers).")


def test_a_verdict_is_one_line(experiment: Experiment) -> None:
    found = verdict(experiment, [iteration(0, 95, None, unanswered=4)], "plateau", 0, TEST)
    assert "\n" not in found
