"""The rows of a run as others may train on them: coverage and synthetic ones, each with where it comes from.

    given = rows_of(run)
    given.train[0].example, given.train[0].provenance      an Example; None for a row of coverage
    given.notes                                            what is not there, and why, a sentence each

Synthetic rows are those that curation left, whether an iteration was trained on them or not; `synthetic.jsonl` and
`provenance.jsonl` hold them. Coverage rows are read again from the run's data: where these are not what the run was
made with, or are gone, the rows go without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from llamaduo.config import Experiment, fingerprint
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import CoverageDataset
from llamaduo.errors import InputError, LlamaduoError
from llamaduo.records import COVERAGE, Example
from llamaduo.runs import layout
from llamaduo.runs.folder import read_rows
from llamaduo.runs.identity import read_later
from llamaduo.runs.record import RunRecord
from llamaduo.steps.growth import Provenance
from llamaduo.verify.stored_config import interpolations, stored_experiment, unopened


@dataclass(frozen=True)
class Row:
    """A row of the data set."""

    example: Example
    iteration: int
    """The iteration that it was made for; 0 of coverage."""
    provenance: Provenance | None = None
    """None of a row of coverage, and of synthetic rows of an earlier version."""

    @property
    def source(self) -> str:
        """`coverage` or `synthetic`."""
        return COVERAGE if self.example.generator == COVERAGE else "synthetic"

    @property
    def seeds(self) -> tuple[str, ...]:
        """The prompts of the rows that it was asked for with."""
        if self.provenance:
            return self.provenance.seeds
        return (self.example.seed_id,) if self.example.seed_id else ()


@dataclass(frozen=True)
class Rows:
    """What is exported of a run."""

    splits: dict[str, list[Row]]
    """`train`, and `dev` and `test` where they are asked for."""
    coverage: bool
    """Whether coverage rows could be had."""
    notes: tuple[str, ...] = field(default=())
    """What a reader should know, a sentence each."""

    def noted(self, note: str) -> Rows:
        """Return the same with one more thing to know."""
        return replace(self, notes=(*self.notes, note))

    @property
    def train(self) -> list[Row]:
        """The rows to train on."""
        return self.splits["train"]


def rows_of(run: RunRecord, *, held_out: bool = False) -> Rows:
    """Return a run's rows, with dev and test where `held_out`; raises InputError where there are none."""
    synthetic = list(_synthetic(run))
    notes: list[str] = []
    dataset: CoverageDataset | None = None
    try:
        dataset = _coverage(run)
    except LlamaduoError as error:
        told = " ".join(str(error).split())
        notes.append(f"Coverage rows are left out, since they can't be had as the run had them: {told}")
    if dataset and not run.experiment.loop.growth.include_coverage:
        notes.append("No row of coverage was trained on (loop.growth.include_coverage=false): they are left out.")
    coverage = bool(dataset and run.experiment.loop.growth.include_coverage)
    train = [Row(example, 0) for example in (dataset.train if dataset and coverage else ())]
    splits = {"train": [*train, *synthetic]}
    if held_out and dataset:
        splits |= {name: [Row(example, 0) for example in getattr(dataset, name)] for name in ("dev", "test")}
    if not splits["train"]:
        why = notes[0] if notes else "it has synthesised none, and trained on none of coverage."
        raise InputError(f"{run.folder}: there is no row to export. {why}")
    return Rows({name: rows for name, rows in splits.items() if rows}, coverage, tuple(notes))


def _synthetic(run: RunRecord) -> Iterator[Row]:
    """Yield the curated rows in the order of the pool."""
    for number in range(len(run.history) + 1):
        place = layout.place(run.folder, layout.before(number))
        path, told = place / layout.SYNTHETIC, place / layout.PROVENANCE
        examples = read_rows(path, Example) if path.exists() else []
        origins = read_rows(told, Provenance) if told.exists() else []
        if origins and [one.prompt_id for one in origins] != [one.prompt_id for one in examples]:
            raise InputError(f"{told}: not about the rows of {path.name}; move the run elsewhere.")
        for at, example in enumerate(examples):
            yield Row(example, number, origins[at] if origins else None)


def _coverage(run: RunRecord) -> CoverageDataset:
    """Return the coverage data that the run was made with; raises InputError where they are others by now."""
    if resolved := interpolations(run.config):
        raise InputError(f"its configuration is refused ({resolved}).")
    try:
        experiment: Experiment = stored_experiment(run)
    except LlamaduoError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"its configuration can't be used here ({error}).") from error
    dataset = load_coverage(experiment)
    made = fingerprint(unopened(experiment), read_later(experiment, run.folder))
    if f"-{made}" != run.folder.resolve().name[-9:]:
        raise InputError(
            f"the data, or the configuration, come to fingerprint {made} now, which the run's folder doesn't bear."
        )
    return dataset
