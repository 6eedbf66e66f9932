"""An iteration's audit as an artifact: `audit.json`, of its answers at the gate and of the rows that it trained on.

    audited(folder, experiment, dataset, 2)       the tree in `iterations/02/audit.json`, made if it isn't there

Reads the predictions of the iteration and of the one before, and the synthetic rows so far. Nothing is asked of a
service LLM.
"""

from __future__ import annotations

from typing import Any

from llamaduo.audit.report import FORMAT, of_answers, of_rows
from llamaduo.config import Experiment
from llamaduo.data.dataset import CoverageDataset
from llamaduo.records import Example, Prediction
from llamaduo.runs import layout
from llamaduo.runs.folder import Again, RunDir, read_rows
from llamaduo.steps.growth import volume


def audited(folder: RunDir, experiment: Experiment, dataset: CoverageDataset | None, number: int) -> dict[str, Any]:
    """Return an iteration's audit; without coverage data, that of its answers alone."""
    path = folder.iteration(number) / layout.AUDIT
    found: dict[str, Any] = folder.tree(path, lambda: _made(folder, experiment, dataset, number), Again.anew)
    return found


def _made(folder: RunDir, experiment: Experiment, dataset: CoverageDataset | None, number: int) -> dict[str, Any]:
    rows = synthetic_rows(folder, experiment, dataset, number) if dataset else []
    return {
        "format": FORMAT,
        "iteration": number,
        "split": experiment.protocol.gate_split.value,
        "answers": of_answers(_answers(folder, number), _answers(folder, number - 1) if number else ()),
        "rows": of_rows(rows, dataset.train) if dataset and rows else None,
    }


def _answers(folder: RunDir, number: int) -> list[Prediction]:
    return read_rows(layout.place(folder.path, number) / layout.PREDICTIONS, Prediction)


def synthetic_rows(folder: RunDir, experiment: Experiment, dataset: CoverageDataset, number: int) -> list[Example]:
    """Return the synthetic rows that an iteration trained on."""
    places = [layout.place(folder.path, where) / layout.SYNTHETIC for where in (layout.START, *range(number))]
    pool = [row for path in places if path.exists() for row in read_rows(path, Example)]
    return pool[: volume(experiment.loop.growth, len(dataset.train), number)]
