"""The verdict says what to do, with scores, intervals and n, and never claims more than was found."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from sample_records import gate_look, iteration
from test_scorecard import spoilt
from test_scorecard import verdict as judgement

from llamaduo.config import Experiment, Gate, GateRule, GateSplit
from llamaduo.evidence.scorecard import score
from llamaduo.evidence.verdict import Found, verdict
from llamaduo.records import GateLook, Judged, Prediction
from llamaduo.runs.state import Iteration


def judged(values: list[float], gate: dict[str, Any] | None = None, lost: int = 0, **fields: Any) -> Judged:
    """Return answers with these scores, the first of which can't be read."""
    predictions = [
        Prediction(f"p{n:02d}", 0, f"Prompt {n}", "billing", f"answer {n}", "stop", 3, 3, **fields)
        for n in range(len(values))
    ]
    verdicts = [
        spoilt(f"p{n:02d}") if n < lost else judgement(f"p{n:02d}", similarity=value, precision=value)
        for n, value in enumerate(values)
    ]
    return Judged(predictions, verdicts, score(verdicts, coverage_cut=70), GateLook(**gate) if gate else None)


def found(
    experiment: Experiment,
    history: list[Iteration],
    reason: str,
    best: int | None,
    *,
    gate: Judged | None = None,
    test: Judged | None = None,
    beside: dict[str, Any] | None = None,
) -> Found:
    at_gate = (gate or judged([95.0] * 50)) if best is not None else None
    return verdict(experiment, history, reason, best=best, judged=at_gate, test=test, beside=beside or {})


def test_switch_names_model_task_test_scores_limits_and_n(experiment: Experiment) -> None:
    experiment.task.name = "coding"
    test = judged([95.0] * 64, gate_look(95, 95))
    made = found(experiment, [iteration(0, 50, 50), iteration(1, 93, 95.04)], "passed", 1, test=test)
    assert made.headline == (
        "Switch: pocket_llama of iteration 1 (10 rows) takes over coding. On the test split, looked at once: "
        "similarity 95.0 [89.7, 95.3], precision 95.0 [89.7, 95.3] (64 prompts, 64 answers); lower limit of similarity "
        "93.0 against 90, precision 93.0 against 90: confirmed."
    )
    assert (made.decision, made.confirmation) == ("switch", "confirmed")


@pytest.mark.parametrize(
    ("mean", "decision", "said", "words"),
    [
        (91.0, "switch_with_fallback", "undecided", "Switch with a fallback: pocket_llama of iteration 0"),
        (80.0, "stay", "contradicted", "Don't switch: pocket_llama of iteration 0"),
    ],
)
def test_what_test_says_decides(mean: float, decision: str, said: str, words: str, experiment: Experiment) -> None:
    test = judged([mean] * 64, gate_look(mean, mean))
    made = found(experiment, [iteration(0, 95, 95)], "passed", 0, test=test)
    assert (made.decision, made.confirmation) == (decision, said)
    assert made.headline.startswith(words)
    assert made.headline.endswith(f"{said}.")


def test_a_mean_that_test_confirms_is_no_switch_without_a_fallback(experiment: Experiment) -> None:
    experiment.loop.gate.rule = GateRule.mean
    test = judged([95.0] * 64, gate_look(95, 95) | {"rule": "mean", "method": None, "error": None})
    assert found(experiment, [iteration(0, 95, 95)], "passed", 0, test=test).decision == "switch_with_fallback"


@pytest.mark.parametrize(("said", "decision"), [("undecided", "stay"), ("confirmed", "switch_with_fallback")])
def test_what_passed_by_an_assumption_has_to_be_confirmed(said: str, decision: str, experiment: Experiment) -> None:
    """Student's t alone would accept a model that is 6 points below the service LLM in up to 22 of 100 runs."""
    assumed = gate_look(95, 95) | {"method": "assumed", "rule": "service_llm"}
    mean = {"undecided": 91.0, "confirmed": 95.0}[said]
    test = judged([mean] * 64, gate_look(mean, mean) | {"method": "assumed", "rule": "service_llm"})
    made = found(experiment, [iteration(0, 95, 95, gate=assumed)], "passed", 0, test=test)
    assert (made.confirmation, made.decision) == (said, decision)
    assert "Student's t" in made.details[0]


def test_passed_and_not_tested_is_not_decided(experiment: Experiment) -> None:
    made = found(experiment, [iteration(0, 95, 95)], "passed", 0)
    assert made.decision == "stay"
    assert made.headline.startswith("Not decided: ")
    assert "loop.budget_usd" in made.headline


def test_the_papers_protocol_is_told_with_the_error_of_its_gate(experiment: Experiment) -> None:
    experiment.loop.gate = Gate(similarity=None, precision=90.0, rule=GateRule.mean)
    experiment.protocol.gate_split = GateSplit.test
    look = {"rule": "mean", "method": None, "error": None, "prompts": 16, "needed": {"precision": 90.0},
            "values": {"precision": 95.0}, "upper": {"precision": 95.0}, "judges": {}, "passed": True}  # fmt: skip
    made = found(experiment, [iteration(0, 93, 95, gate=look)], "passed", 0)
    assert made.decision == "switch_with_fallback"
    assert "mean of precision 95.0 against 90" in made.headline
    assert "A model that is truly at 89 passes it in about 44% of looks" in made.details[0]


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
    made = found(experiment, [iteration(0, 60, 70), iteration(1, 50, 60)], reason, 0)
    assert made.headline.startswith(
        "Don't switch: pocket_llama does not reach the gate of similarity 90 and precision 90 on classification"
    )
    assert f"and {why}." in made.headline
    assert "Best is iteration 0: similarity 60.0 [58.0, 62.0], precision 70.0 [68.0, 72.0]" in made.headline
    assert made.decision == "stay"


@pytest.mark.parametrize("reason", ["max_iterations", "plateau", "no_new_data", "budget"])
def test_no_iteration_is_no_verdict(reason: str, experiment: Experiment) -> None:
    made = found(experiment, [], reason, None)
    assert made.headline.startswith("No verdict on pocket_llama for classification: ")
    assert made.headline.endswith("before the first iteration was judged.")
    assert made.decision is None


def test_a_score_that_does_not_exist_is_said_not_to_exist(experiment: Experiment) -> None:
    made = found(experiment, [iteration(0, 95, None)], "max_iterations", 0).headline
    assert "precision not scored" in made
    assert "No precision exists to compare with the gate." in made
    both = found(experiment, [iteration(0, None, None)], "max_iterations", 0).headline
    assert "No similarity and no precision exists to compare with the gate." in both


def test_missing_answers_are_named_with_their_cause(experiment: Experiment) -> None:
    made = found(experiment, [iteration(0, 95, 95, unanswered=40)], "max_iterations", 0).headline
    assert "40 of 100 answers are missing" in made
    assert "512 tokens of context" in made


def test_scored_of_asked_is_told(experiment: Experiment) -> None:
    test = judged([95.0] * 64, gate_look(95, 95), lost=5)
    made = found(experiment, [iteration(0, 95, 95)], "passed", 0, test=test)
    assert "59 prompts, 64 answers, 59 of 64 verdicts scored" in made.headline


def test_without_a_gate_nothing_is_passed_or_failed(experiment: Experiment) -> None:
    experiment.loop.gate = Gate(similarity=None, precision=None)
    made = found(experiment, [iteration(0, 50, 50), iteration(1, 60, 60)], "max_iterations", 1)
    assert made.headline.startswith("Done: 2 volumes of pocket_llama on classification, no gate; best is iteration 1: ")
    assert made.decision is None
    alone = found(experiment, [iteration(0, 50, 50)], "budget", 0).headline
    assert alone.startswith("Done: 1 volume of pocket")
    assert "budget" in alone


def test_a_verdict_is_one_line(experiment: Experiment) -> None:
    made = found(experiment, [iteration(0, 95, None, unanswered=4)], "plateau", 0, test=judged([95.0] * 64))
    assert not [text for text in (made.headline, *made.details) if "\n" in text]


class TestDetails:
    def test_the_gate_is_told_with_its_level_and_its_looks(self, experiment: Experiment) -> None:
        told = found(
            experiment, [iteration(0, 95, 95)], "passed", 0, test=judged([95.0] * 64, gate_look(95, 95))
        ).details
        assert told[0] == (
            "The gate (dev split, 50 prompts): lower limit of similarity 93.0 against 90, precision 93.0 against 90, "
            "every missing answer counted as 0. Such a limit is too high in at most 0.01 of looks, and there are 5 "
            "looks at most."
        )

    def test_five_failing_examples_the_lowest_first_one_a_prompt(self, experiment: Experiment) -> None:
        test = judged([float(n) for n in range(64)], gate_look(60, 60))
        made = found(experiment, [iteration(0, 95, 95)], "passed", 0, test=test)
        told = [text for text in made.details if "Failing" in text]
        assert len(told) == 5
        assert told[0] == 'Failing, precision 0: "Prompt 0" -> "answer 0", reference "billing".'

    def test_where_nothing_fails_that_is_said(self, experiment: Experiment) -> None:
        told = found(
            experiment, [iteration(0, 95, 95)], "passed", 0, test=judged([95.0] * 64, gate_look(95, 95))
        ).details
        assert "No answer to the test split has a precision below 70." in told

    def test_a_weak_slice_is_told_where_it_is_surely_below_the_whole(self, experiment: Experiment) -> None:
        values = [99.0] * 50 + [10.0] * 14
        test = judged(values, gate_look(80, 80))
        refunds = [dataclasses.replace(p, reference="refund") for p in test.predictions[50:]]
        test = dataclasses.replace(test, predictions=[*test.predictions[:50], *refunds])
        (weak,) = [t for t in found(experiment, [iteration(0, 95, 95)], "passed", 0, test=test).details if "Weak" in t]
        assert weak.startswith('Weak slice: reference "refund": precision 10.0 [')
        assert "(14 prompts, 14 answers, test split)" in weak

    def test_what_went_wrong_since_the_base_model(self, experiment: Experiment) -> None:
        base = judged([95.0] * 20 + [10.0] * 44)
        test = judged([10.0] * 3 + [95.0] * 61, gate_look(91, 91))
        beside = {"base": base.verdicts}
        told = found(experiment, [iteration(0, 95, 95)], "passed", 0, test=test, beside=beside).details
        assert any(
            "3 of 20 prompts that were right went wrong, and 44 of 44 that were wrong came right" in t for t in told
        )

    @pytest.mark.parametrize(
        ("history", "values", "helps"),
        [
            ([(60, 60), (85, 85)], [60.0] * 64, "more rows: the last step, to 10 rows, brought +25.0 points"),
            ([(60, 60), (60.5, 60.5)], [60.0] * 64, "another or a larger local model, or a higher rank: the last step"),
            ([(60, 60), (91, 91)], [91.0] * 50, "more prompts: "),
        ],
    )
    def test_what_would_help_most(
        self, history: list[tuple[float, float]], values: list[float], helps: str, experiment: Experiment
    ) -> None:
        lines = [iteration(n, s, p) for n, (s, p) in enumerate(history)]
        made = found(experiment, lines, "max_iterations", len(lines) - 1, gate=judged(values))
        assert made.details[-1].startswith(f"Most likely to help: {helps}")
