"""Before anything is trained: how many prompts a gate needs, and what a model needs with those there are."""

from __future__ import annotations

import pytest
from scipy.stats import gamma

from llamaduo.config import Experiment, GateAgainst, GateMethod, GateRule
from llamaduo.evidence.reach import mean_needed, mean_rule_error, outlook, power_at_equality, refusal


def test_too_few_prompts_are_refused_with_the_number_needed(experiment: Experiment) -> None:
    told = refusal(experiment, 2, 64) or ""
    assert "the dev split has 2 prompts: 44 are needed to pass a gate of 90 at up to 5 looks" in told
    assert "data.dev_rows to 44" in told
    assert refusal(experiment, 43, 64)
    assert refusal(experiment, 44, 64) is None


def test_one_look_needs_29(experiment: Experiment) -> None:
    experiment.synthesis.enabled = False
    assert refusal(experiment, 28, 64)
    assert refusal(experiment, 29, 64) is None


def test_where_no_limit_is_looked_at_nothing_is_refused(experiment: Experiment) -> None:
    experiment.loop.gate.rule = GateRule.mean
    assert refusal(experiment, 2, 64) is None
    assert outlook(experiment, 2, 2) == []
    experiment.loop.gate.rule = GateRule.lower
    experiment.loop.gate.similarity = experiment.loop.gate.precision = None
    assert refusal(experiment, 1, 64) is None


def test_the_outlook_names_what_a_model_needs(experiment: Experiment) -> None:
    experiment.synthesis.enabled = False
    (told,) = outlook(experiment, 32, 64)
    assert "with 32 prompts a model passes whose every answer scores 98.9" in told
    assert "with 64, a mean of about 94.9" in told


def test_a_test_split_that_can_not_confirm_is_told(experiment: Experiment) -> None:
    assert "it can contradict, but 29 are needed to confirm" in outlook(experiment, 64, 16)[1]
    assert len(outlook(experiment, 64, 29)) == 1


def test_more_prompts_need_a_lower_mean() -> None:
    found = [mean_needed(90, 0.05, prompts) for prompts in (32, 64, 128, 512)]
    assert found == sorted(found, reverse=True)
    assert 90 < found[-1] < 92


def test_against_the_service_llm_the_margin_and_the_power_are_told(experiment: Experiment) -> None:
    experiment.loop.gate.against = GateAgainst.service_llm
    (told,) = outlook(experiment, 64, 64)
    assert "a guaranteed limit shows a margin of 7.4" in told
    assert "100 prompts would show 5" in told
    assert "Student's t" in told
    assert "guaranteed 3%, assumed 95%" in told
    experiment.loop.gate.method = GateMethod.guaranteed
    assert "needs 90 to compare" in (refusal(experiment, 64, 64) or "")
    assert refusal(experiment, 90, 64) is None


def test_a_wide_margin_needs_fewer_prompts(experiment: Experiment) -> None:
    """margin=20: a guaranteed limit shows it with fewer prompts than Student's t is asked with."""
    experiment.loop.gate.against, experiment.loop.gate.margin = GateAgainst.service_llm, 20.0
    assert refusal(experiment, 30, 64) is None
    assert refusal(experiment, 15, 64)


def test_few_prompts_are_refused_whatever_is_assumed(experiment: Experiment) -> None:
    experiment.loop.gate.against = GateAgainst.service_llm
    assert "needs 45" in (refusal(experiment, 2, 64) or "")


def test_a_test_split_that_could_never_confirm_an_assumption_is_refused(experiment: Experiment) -> None:
    experiment.loop.gate.against = GateAgainst.service_llm
    assert "the test split has 16 prompts" in (refusal(experiment, 64, 16) or "")
    assert refusal(experiment, 64, 45) is None
    assert refusal(experiment, 128, 16) is None
    experiment.loop.gate.against = GateAgainst.threshold
    assert refusal(experiment, 64, 16) is None


def test_power_grows_with_prompts() -> None:
    guaranteed = [power_at_equality(5, 0.05, prompts, GateMethod.guaranteed) for prompts in (32, 64, 100, 256)]
    assumed = [power_at_equality(5, 0.05, prompts, GateMethod.assumed) for prompts in (32, 64, 100, 256)]
    assert guaranteed == sorted(guaranteed)
    assert all(a >= g for a, g in zip(assumed, guaranteed, strict=True))
    assert guaranteed[0] < 0.05 < 0.9 < guaranteed[2]


def test_a_gate_of_means_is_wrong_in_44_of_100_looks_with_16_prompts() -> None:
    assert mean_rule_error(90, 16) == pytest.approx(0.44, abs=0.01)
    short = gamma.rvs((11 / 15) ** 2, scale=15**2 / 11, size=(20_000, 16), random_state=1).mean(1)
    assert mean_rule_error(90, 16) == pytest.approx((short <= 10).mean(), abs=0.02)
    assert mean_rule_error(100, 16) is None
