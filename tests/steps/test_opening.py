"""What is opened for a run: nothing of the process is changed by it."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable

import pytest
from fakes import quiet

from llamaduo.config import Experiment
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import RunDir
from llamaduo.runs.state import RunState
from llamaduo.steps.steps import Steps


def test_constructing_the_steps_changes_no_variable_logger_or_warning_filter(
    compose_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings() -> tuple[object, ...]:
        return dict(os.environ), [logging.getLogger(name).level for name in names]

    names = ("transformers", "peft", "httpx", "datasets", "absl")
    experiment = compose_experiment()
    with RunDir(run_folder(experiment)) as folder:
        with Steps(experiment, folder, RunState(), quiet()):
            pass  # libraries are loaded, which settles more
        monkeypatch.delenv("GOMP_SPINCOUNT")
        for name in names:
            monkeypatch.setattr(logging.getLogger(name), "level", logging.INFO)
        before, filters = settings(), list(warnings.filters)
        with Steps(experiment, folder, RunState(), quiet()):
            assert settings() == before
            assert warnings.filters == filters
