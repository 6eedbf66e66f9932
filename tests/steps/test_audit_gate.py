"""The audit as a part of the gate: a model that passes by its scores is not accepted against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_infer, quick_stages, quiet, rows_of, script_judge, verdict

from llamaduo.config import Experiment
from llamaduo.loop import run
from llamaduo.records import Prediction
from llamaduo.runs.finished import run_folder
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]


def refusing(least: int) -> Callable[..., list[Prediction]]:
    """Return answers that refuse, of models that were trained on fewer rows."""

    def infer(*given: Any, **more: Any) -> list[Prediction]:
        made = quick_infer(*given, **more)
        return [
            replace(one, text=f"I'm sorry, but I can't help with that. {one.text}")
            if rows_of(one.text) < least
            else one
            for one in made
        ]

    return infer


@pytest.mark.parametrize(
    ("least", "iterations", "reason"), [(0, 1, "passed"), (30, 3, "passed"), (99, 3, "max_iterations")]
)
def test_a_model_that_refuses_is_not_accepted_and_the_loop_goes_on(
    least: int,
    iterations: int,
    reason: str,
    compose_experiment: Compose,
    quick_stages: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llamaduo.steps.steps.infer", refusing(least))
    script_judge(lambda prompt, _: verdict(95))
    experiment = compose_experiment(
        *SMALL, *JUDGED_BY_SCRIPT, "loop.max_iterations=3", "loop.patience=0", "loop.gate.audit.refusals=5"
    )
    state = run(experiment, display=quiet())
    assert (state.iterations, state.stop_reason) == (iterations, reason)
    assert (state.accepted_iteration is None) == (reason != "passed")
    told = "of its answers refuse, and at most 5% may" in (state.verdict or "")
    assert told == (reason != "passed")
    assert verify(run_folder(experiment)).differences == []


def test_without_limits_nothing_is_audited(compose_experiment: Compose, quick_stages: None) -> None:
    script_judge(lambda prompt, _: verdict(95))
    experiment = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT)
    run(experiment, display=quiet())
    assert list(run_folder(experiment).rglob("audit.json*")) == []
