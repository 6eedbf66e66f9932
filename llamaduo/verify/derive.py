"""Derive: a run anew, by the loop itself, from what only a model can make and the replies of a journal.

    with derived(record, journal=None, found=found) as (folder, kept): ...

`folder` is a temporary run folder; `kept` names the artifacts in it that are copies of the stored ones: adapters'
records and predictions, and more of them where there is no journal or no coverage data. Nothing of what is stored is
run: a derivation can't train, answers come from a journal alone, and an artifact that is missing is a difference.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from llamaduo.config import Beside, DataSource, Experiment, fingerprint
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import Account, CoverageDataset, without
from llamaduo.display import Display
from llamaduo.errors import BudgetError, InputError, LlamaduoError, ServiceError
from llamaduo.files.regular import read, read_json
from llamaduo.files.scratch import scratch_folder
from llamaduo.loop import run
from llamaduo.records import COVERAGE, Adapter, Example, Prediction, Verdict
from llamaduo.runs import layout
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import RunDir, mark_copy
from llamaduo.runs.identity import read_later
from llamaduo.runs.record import RunRecord
from llamaduo.runs.state import RunState
from llamaduo.service.access import journal_path
from llamaduo.service.journal import Journal
from llamaduo.stages.check import OF_TOOLS
from llamaduo.stages.infer import answering
from llamaduo.stages.weigh import RowLoss
from llamaduo.steps.steps import Steps
from llamaduo.verify.compare import Verified, taken_as_stored
from llamaduo.verify.stored_config import interpolations, isolate, stored_experiment, unopened

_MOST_ROWS = 10_000_000


class _NothingStoredError(LlamaduoError):
    """The run never came so far: what follows needs a model."""


Derived = tuple[Path, set[str]]
"""A derived run's folder, and the names of the artifacts in it that are copies."""


@contextlib.contextmanager
def derived(record: RunRecord, journal: Path | None, found: Verified, *, whole: bool) -> Iterator[Derived | None]:
    """Yield a run derived in a temporary folder, or None where that can't be done; `found` is told what is missing.

    `journal` is by default the one that the run names; with `whole` a reply that it lacks is a difference. Where one
    is missing, what follows is derived from the stored verdicts.
    """
    with scratch_folder() as scratch:
        try:
            made = _with_what_there_is(record, journal, found, scratch, whole=whole)
        except Exception as error:  # whatever a stranger's files lead to is a difference, never a fault of ours
            told = _line(error) if isinstance(error, LlamaduoError) else f"{type(error).__name__}: {_line(error)}"
            found.differences.append(f"{record.name}: nothing can be derived of it ({told}).")
            made = None
        yield made


def _with_what_there_is(
    record: RunRecord, journal: Path | None, found: Verified, scratch: Path, *, whole: bool
) -> Derived | None:
    experiment = _experiment(record, found, whole=whole)
    if experiment is None:
        return None
    path = journal or journal_path(experiment)
    dataset = _dataset(experiment, record, found, whole=whole)
    isolate(experiment)
    missing = not path.is_file()
    if missing:
        _miss(f"{record.name}: verdicts and synthetic rows: no journal at {path}.", found, whole=whole)
        path = scratch / "journal.sqlite"
        Journal(path).close()
    else:
        found.journals.add(path)
    experiment.service.journal = str(path)
    for stored_verdicts in (missing, True):
        experiment.runtime.results = str(scratch / f"{stored_verdicts}")
        kept = _kept(experiment, with_data=dataset is not None, stored_verdicts=stored_verdicts)
        try:
            return _derive(record, experiment, dataset or _stand_in(record), found, kept), kept
        except ServiceError as error:
            if stored_verdicts or not str(error).startswith("replay:"):
                raise
            _miss(f"{record.name}: {_line(error)}", found, whole=whole)
    raise AssertionError("with stored verdicts nothing is asked")


def _miss(text: str, found: Verified, *, whole: bool) -> None:
    if whole:
        found.differences.append(text)
    else:
        found.unchecked[text] = None


def _experiment(record: RunRecord, found: Verified, *, whole: bool) -> Experiment | None:
    """Return the run's experiment, set to replay, or None where nothing can be derived of it."""
    if resolved := interpolations(record.config):
        found.differences.append(f"{record.name}: its configuration is refused ({resolved}).")
        return None
    try:
        if record.experiment.loop.gate.error is not None:
            return stored_experiment(record)
        _miss(f"{record.name}: made by an earlier version, whose limits and gate were others.", found, whole=whole)
        return None
    except (LlamaduoError, ValueError, LookupError, TypeError, AttributeError) as error:
        _miss(f"{record.name}: its configuration can't be used here ({_line(error)}).", found, whole=whole)
        return None


def _dataset(experiment: Experiment, record: RunRecord, found: Verified, *, whole: bool) -> CoverageDataset | None:
    """Return the coverage data as the run had them, or None where they can't be had again.

    A file is read only for a folder of runs: what an archive names is a path on somebody else's machine.
    """
    why = "coverage data of the Hub are not fetched again"
    if whole and (experiment.data.source is DataSource.file or experiment.data.unlabelled):
        why = "an archive's data file is not opened"
    elif experiment.data.source is not DataSource.hub:
        try:
            dataset = load_coverage(experiment)
        except LlamaduoError as error:
            why = _line(error)
        else:
            made = fingerprint(unopened(experiment), read_later(experiment, record.folder))
            if f"-{made}" != record.folder.name[-9:]:
                found.differences.append(f"{record.name}: its configuration and data come to fingerprint {made}.")
            found.counts["fingerprints"] += 1
            return dataset
    found.unchecked[f"{record.name}: synthetic rows are taken as stored: {why}."] = None
    return None


def _kept(experiment: Experiment, *, with_data: bool, stored_verdicts: bool) -> set[str]:
    """Return the artifacts that are taken as stored."""
    kept = {layout.ADAPTER, layout.PREDICTIONS, layout.LOSSES, layout.TRAIN_PREDICTIONS, layout.AUDIT}
    if experiment.infer.served and not stored_verdicts:
        kept.remove(layout.PREDICTIONS)
    if stored_verdicts:
        kept |= {layout.VERDICTS, layout.REST, layout.SYNTHESIS}
    if not with_data:
        kept |= {*layout.GROWN, layout.PROVENANCE}
    return kept


def _derive(
    record: RunRecord, experiment: Experiment, dataset: CoverageDataset, found: Verified, kept: set[str]
) -> Path:
    """Run the loop on the artifacts that are kept; return the derived run's folder."""
    folder = run_folder(experiment)
    _copy(record.folder, folder, kept)
    if experiment.privacy and (record.folder / layout.SECRET).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(record.folder / layout.SECRET, folder / layout.SECRET)
    with contextlib.suppress(_NothingStoredError):
        run(
            experiment,
            display=Display(quiet=True),
            opens=partial(_Derived, dataset=dataset, found=found, record=record),
        )
    return folder


def _copy(source: Path, target: Path, names: set[str]) -> None:
    """Copy artifacts of these names with their markers; of an adapter its record alone."""
    for path in layout.marked(source):
        if taken_as_stored(path, names) and path.exists():
            there = target / path.relative_to(source)
            copied = layout.RECORD if path.name == layout.ADAPTER else ""
            (there / copied).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path / copied, there / copied)
            mark_copy(there, path)


def _stand_in(record: RunRecord) -> CoverageDataset:
    """Return coverage data with the right number of training rows: what the loop needs to know of them.

    They are not looked at: synthetic rows are taken as stored, predictions hold their references.
    """
    first = layout.place(record.folder, 0) / layout.ADAPTER / layout.RECORD
    trained = Adapter(**read_json(first)) if first.exists() else None
    count = trained.train_rows - trained.synthetic_rows if trained else 0
    if not 0 <= count <= _MOST_ROWS:
        raise InputError(f"{first.relative_to(record.folder).as_posix()}: {count:,} coverage rows")
    row = Example("0" * 16, ({"role": "user", "content": ""},), "", generator=COVERAGE)
    return CoverageDataset((row,) * count, (), ())


class _Derived(Steps):
    """The steps of a run that is derived again: where the stored one came to its end, this one does."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunDir,
        state: RunState,
        display: Display,
        *,
        dataset: CoverageDataset,
        found: Verified,
        record: RunRecord,
    ) -> None:
        self._stored = record.folder
        super().__init__(experiment, folder, state, display, dataset)
        self._found = found
        self._record = record

    def __exit__(self, *error: object) -> None:
        if self._service:
            self._found.keys |= self._service.asked
        super().__exit__(*error)

    def _make_sure(self) -> None:
        """Nothing is loaded, so nothing has to fit."""

    def _usable(self) -> CoverageDataset:
        """Return the data without what the stored run left out for its model's template, which is not here."""
        file = self._stored / layout.UNUSED
        listed = [json.loads(line) for line in read(file).decode().splitlines()] if file.exists() else []
        return without(self.dataset, {one["place"]: one["reason"] for one in listed if one["reason"] in OF_TOOLS})

    def _checked(self) -> Account | None:
        """Return the account of the data as they are read; what the model can't use of them takes a model to say."""
        return self.dataset.account

    def _outlook(self) -> list[str]:
        """Nothing is said of what lies behind."""
        return []

    def _end_without(self, where: int | str, name: str, *, needs_a_model: bool) -> None:
        """End the run as it ended if it never came to this artifact; what needs no model is derived if it was done."""
        if layout.marker(layout.place(self._record.folder, where) / name).exists():
            return
        place = layout.named(where)
        if self._record.state.stop_reason == "budget":
            raise BudgetError(f"{place}/{name} was not bought.")
        if needs_a_model or self._record.state.status != "done":
            raise _NothingStoredError(f"{place}/{name} was not made.")

    def _trained_to(self, folder: Path, number: int, rows: list[Example], origin: Path | None) -> Adapter:
        """Train nothing."""
        raise InputError(f"{layout.ITERATIONS}/{layout.named(number)}/{layout.ADAPTER} is missing, or its marker")

    def _answered(
        self, where: int | str, examples: tuple[Example, ...], adapter: Path | None, beside: Beside | None
    ) -> list[Prediction]:
        """Derive the answers of a server from its replies; let no model answer."""
        if not answering(self.experiment, beside).served:
            place = layout.named(where)
            raise InputError(f"{layout.ITERATIONS}/{place}/{layout.PREDICTIONS} is missing, or its marker")
        return super()._answered(where, examples, None, beside)

    def _weighed(self, number: int) -> list[RowLoss]:
        """Weigh nothing."""
        raise InputError(f"{layout.ITERATIONS}/{layout.named(number)}/{layout.LOSSES} is missing, or its marker")

    def audit_faults(self, number: int) -> list[str]:
        """Return what the stored audit has against a model; none is made."""
        if self.experiment.loop.gate.audit and not (self._folder.iteration(number) / layout.AUDIT).exists():
            raise InputError(f"{layout.ITERATIONS}/{layout.named(number)}/{layout.AUDIT} is missing, or its marker")
        return super().audit_faults(number)

    def train(self, number: int, rows: list[Example], start_from: Path | None) -> Adapter:
        """Return the stored record."""
        if self.experiment.train.enabled:
            self._end_without(number, layout.ADAPTER, needs_a_model=True)
        return super().train(number, rows, start_from)

    def infer(
        self, where: int | str, examples: tuple[Example, ...], adapter: Path | None, beside: Beside | None = None
    ) -> list[Prediction]:
        """Return the stored answers; those of a server are derived from its replies."""
        served = answering(self.experiment, beside).served
        self._end_without(where, layout.PREDICTIONS, needs_a_model=not served)
        return super().infer(where, examples, adapter, beside)

    def judge(self, where: int | str, predictions: list[Prediction]) -> list[Verdict]:
        """Derive the verdicts."""
        self._end_without(where, layout.VERDICTS, needs_a_model=False)
        return super().judge(where, predictions)

    def rest(self, number: int, predictions: Sequence[Prediction], verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Derive the verdicts on what was left out at first."""
        self._end_without(number, layout.REST, needs_a_model=False)
        return super().rest(number, predictions, verdicts)

    def grow(self, where: int | str, pool: list[Example], volume: int) -> list[Example]:
        """Derive the new rows."""
        if volume > len(pool) and self.experiment.synthesis.enabled:
            self._end_without(where, layout.SYNTHESIS, needs_a_model=False)
        return super().grow(where, pool, volume)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")
