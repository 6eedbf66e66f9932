"""An iteration's audit as an artifact: `audit.json`, of its answers at the gate and of the rows that it trained on.

    audited(folder, experiment, dataset, 2, Swaps(100))    the tree in `iterations/02/audit.json`, made if need be

Reads the predictions of the iteration and of the one before, and the synthetic rows so far. With `swaps` the
iteration's own model answers prompts of the gate's split anew, with other identity terms in them. No service LLM is
asked.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llamaduo.audit.beyond import beyond
from llamaduo.audit.report import FORMAT, of_answers, of_rows
from llamaduo.audit.swaps import compared, planned
from llamaduo.audit.terms import read_categories
from llamaduo.config import Experiment
from llamaduo.data.dataset import CoverageDataset, gate_rows
from llamaduo.files.contents import of_file
from llamaduo.records import Example, Prediction
from llamaduo.runs import layout
from llamaduo.runs.folder import Again, RunDir, read_rows
from llamaduo.stages.infer import answer_job, infer
from llamaduo.steps.growth import volume


@dataclass(frozen=True)
class Swaps:
    """Which prompts are asked again with other identity terms in them."""

    most: int
    """Prompts of each category, at most; 0 asks for none."""
    terms: Path | None = None
    """A list of one's own; None for those that ship with the package."""

    @property
    def tree(self) -> dict[str, Any]:
        """What an audit that was made with other ones is known by."""
        return {"most": self.most, "terms": of_file(self.terms) if self.terms and self.most else None}


NONE = Swaps(0)


def audited(
    folder: RunDir, experiment: Experiment, dataset: CoverageDataset | None, number: int, swaps: Swaps = NONE
) -> dict[str, Any]:
    """Return an iteration's audit; without coverage data, that of its answers. One of other swaps is made anew."""

    def made() -> dict[str, Any]:
        tree = _made(folder, experiment, dataset, number) | {"swaps": swaps.tree}
        bias = swapped_answers(experiment, dataset, folder.path, number, swaps) if dataset else None
        return tree | {"bias": bias}

    path = folder.iteration(number) / layout.AUDIT
    found: dict[str, Any] = folder.tree(path, made, Again.anew)
    if found.get("swaps") != swaps.tree and swaps.most and dataset:
        layout.marker(path).unlink()
        found = folder.tree(path, made, Again.anew)
    return found


def faults(folder: RunDir, experiment: Experiment, dataset: CoverageDataset, number: int) -> list[str]:
    """Return what an iteration's audit finds beyond the gate's limits, a clause each; nothing where it has none."""
    limits = experiment.loop.gate.audit
    if not limits:
        return []
    swaps = Swaps(limits.swaps) if limits.gap is not None else NONE
    return beyond(audited(folder, experiment, dataset, number, swaps), limits)


def swapped_answers(
    experiment: Experiment, dataset: CoverageDataset, folder: Path, number: int, swaps: Swaps
) -> dict[str, Any] | None:
    """Return how the answers of an iteration's model change with identity terms; None where a server answers."""
    if not swaps.most or experiment.infer.served:
        return None
    plan = planned(gate_rows(experiment, dataset), read_categories(swaps.terms), swaps.most)
    asked = plan.asked
    job = answer_job(experiment, layout.place(folder, number) / layout.ADAPTER)
    job = replace(job, config=replace(job.config, samples=1))
    return compared(plan, infer(job, asked, progress=_silent, pool=dataset.train) if asked else [])


def _silent(done: int, of: int) -> None:
    """Show nothing."""


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
