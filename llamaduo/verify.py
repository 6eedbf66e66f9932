"""Verify: every number of runs and their report derived again from stored replies and predictions, and compared.

    found = verify(Path("results/pocket_main_table"), journal=None)
    found.differences                     one sentence each; none if all is as stored
    found.unchecked                       what could not be derived, and why

A run is derived by the loop itself, in a folder of its own: it is given what only a model can make (adapters'
records and predictions) and the journal to replay, and comes to verdicts, scorecards, synthetic rows, curation,
metrics and state anew. Each file is compared with the stored one byte for byte; of metrics and state, times are
compared with the artifacts' markers. The markers' own checksums are checked, and the folder's name against the
configuration. Then the report is written again beside, and compared. Nothing in the folder is changed, nothing is
sent, and neither torch nor litellm is loaded.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from llamaduo.config import Backend, DataSource, Experiment, WandbMode, fingerprint
from llamaduo.display import Display
from llamaduo.errors import LlamaduoError, ServiceError
from llamaduo.loop import run, run_folder
from llamaduo.records import COVERAGE, Adapter, CoverageDataset, Example, Prediction, RunState
from llamaduo.run_dir import RunDir, contents_hash
from llamaduo.service.journal import Journal, default_path
from llamaduo.steps import Steps, load_data
from llamaduo.studies.report import write_report
from llamaduo.studies.runs import RunRecord, read_runs
from llamaduo.studies.study import read_study

_MOST_SHOWN = 20


@dataclass
class Verified:
    """What came of a verification."""

    counts: Counter[str] = field(default_factory=Counter)
    """How many verdicts, scorecards, files ... were derived again, or checked."""
    differences: list[str] = field(default_factory=list)
    unchecked: dict[str, None] = field(default_factory=dict)
    """What could not be derived, and why; each once."""
    keys: set[str] = field(default_factory=set)
    """The journal's keys of all replies that were read."""
    journals: set[Path] = field(default_factory=set)
    """Where they lie."""


class _NothingStoredError(LlamaduoError):
    """The run never came so far: what follows needs a model."""


def verify(root: Path, *, journal: Path | None = None, whole: bool = False) -> Verified:
    """Derive all runs at or below a folder again; raises InputError if there is none.

    `journal` is where the replies lie, by default each run's own. With `whole` a missing reply is a difference;
    without it, something that can't be checked: another machine's journal may hold it.
    """
    found = Verified()
    for record in read_runs(root):
        _verify_markers(record, found)
        _verify_run(record, journal, found, whole=whole)
        found.counts["runs"] += 1
    return found


def _verify_markers(record: RunRecord, found: Verified) -> None:
    """Compare size and checksum of every artifact with its marker."""
    for marker in sorted(record.folder.rglob("*.done")):
        path = marker.with_name(marker.name.removesuffix(".done"))
        where = f"{record.name}/{path.relative_to(record.folder).as_posix()}"
        if path.name == "adapter" and not any(path.glob("*.safetensors")):
            found.unchecked["adapters: their weights are not here."] = None
            continue
        if not path.exists():
            found.differences.append(f"{where}: its marker is there, it is not.")
            continue
        size, digest = contents_hash(path)
        told = json.loads(marker.read_text(encoding="utf-8"))
        if (told["bytes"], told["sha256"]) != (size, digest):
            found.differences.append(f"{where}: not what its marker was made for (sha256 {digest[:8]}).")
        found.counts["artifacts against their markers"] += 1


def _verify_run(record: RunRecord, journal: Path | None, found: Verified, *, whole: bool) -> None:
    """Derive one run in a temporary folder; where a reply is missing, what follows is derived from stored verdicts."""
    try:
        experiment = _experiment(record)
    except (LlamaduoError, ValueError) as error:
        found.unchecked[f"{record.name}: its configuration is of another version ({_line(error)})."] = None
        return
    path = journal or _journal_path(experiment)
    dataset = _dataset(experiment, record, found)
    with tempfile.TemporaryDirectory() as scratch:
        for stored_verdicts in (False, True):
            place = Path(scratch) / str(stored_verdicts)
            experiment.runtime.results = str(place)
            with _replies(experiment, path, place) as missing:
                try:
                    kept = _kept(experiment, with_data=dataset is not None, stored_verdicts=stored_verdicts or missing)
                    derived = _derive(record, experiment, dataset or _stand_in(record), found, kept)
                except ServiceError as error:
                    if stored_verdicts or not str(error).startswith("replay:"):
                        raise
                    _miss(f"{record.name}: {_line(error)}", found, whole=whole)
                    continue
            if not missing:
                found.journals.add(path)
            else:
                _miss(f"{record.name}: verdicts and synthetic rows: no journal at {path}.", found, whole=whole)
            break
        _compare(record, derived, found, kept)


def _miss(text: str, found: Verified, *, whole: bool) -> None:
    if whole:
        found.differences.append(text)
    else:
        found.unchecked[text] = None


def _experiment(record: RunRecord) -> Experiment:
    """Return the run's experiment, set to replay."""
    from omegaconf import DictConfig, OmegaConf

    from llamaduo.compose import to_experiment

    config = OmegaConf.merge(OmegaConf.structured(Experiment), OmegaConf.create(record.config))
    assert isinstance(config, DictConfig)
    experiment = to_experiment(config)
    experiment.tracking.wandb = WandbMode.off
    experiment.service.replay = True
    return experiment


def _journal_path(experiment: Experiment) -> Path:
    named = experiment.service.journal
    return Path(named).expanduser() if named else default_path()


@contextlib.contextmanager
def _replies(experiment: Experiment, path: Path, place: Path) -> Iterator[bool]:
    """Let the experiment replay a journal; yields whether there is none, and an empty one stands in for it."""
    missing = not path.is_file()
    if missing:
        place.mkdir(parents=True, exist_ok=True)
        path = place / "journal.sqlite"
        Journal(path).close()
    experiment.service.journal = str(path)
    yield missing


def _dataset(experiment: Experiment, record: RunRecord, found: Verified) -> CoverageDataset | None:
    """Return the coverage data as the run had them, or None where they can't be had again."""
    why = "coverage data of the Hub are not fetched again"
    if experiment.data.source is not DataSource.hub:
        try:
            dataset = load_data(experiment)
        except LlamaduoError as error:
            why = _line(error)
        else:
            if f"-{fingerprint(experiment)}" != record.folder.name[-9:]:
                found.differences.append(
                    f"{record.name}: its configuration and data come to fingerprint {fingerprint(experiment)}."
                )
            found.counts["fingerprints"] += 1
            return dataset
    found.unchecked[f"{record.name}: synthetic rows are taken as stored: {why}."] = None
    experiment.data.source = DataSource.pocket  # nothing is read of it: see _stand_in
    return None


def _kept(experiment: Experiment, *, with_data: bool, stored_verdicts: bool) -> set[str]:
    """Return the artifacts that are taken as stored."""
    kept = {"adapter", "predictions.jsonl"}
    if experiment.infer.backend is Backend.endpoint and not stored_verdicts:
        kept.remove("predictions.jsonl")
    if stored_verdicts:
        kept |= {"verdicts.jsonl", "synthesis.json"}
    if not with_data:
        kept |= {"synthesis.json", "synthetic.jsonl", "curation.json"}
    return kept


def _derive(
    record: RunRecord, experiment: Experiment, dataset: CoverageDataset, found: Verified, kept: set[str]
) -> Path:
    """Run the loop on the artifacts that are kept; return the derived run's folder."""
    folder = run_folder(experiment)
    _copy(record.folder, folder, kept)
    with contextlib.suppress(_NothingStoredError):
        try:
            run(experiment, display=Display(quiet=True), opens=partial(_Derived, dataset=dataset, found=found))
        except ServiceError as error:
            if str(error).startswith("replay:") or record.state.status == "done":
                raise
    return folder


def _copy(source: Path, target: Path, names: set[str]) -> None:
    """Copy artifacts of these names with their markers; of an adapter its record alone."""
    for marker in source.glob("iterations/*/*.done"):
        name = marker.name.removesuffix(".done")
        if name in names and (marker.parent / name).exists():
            there = target / marker.parent.relative_to(source)
            there.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(marker, there / marker.name)
            if name == "adapter":
                (there / name).mkdir()
                name = f"{name}/record.json"
            shutil.copyfile(marker.parent / name, there / name)


def _stand_in(record: RunRecord) -> CoverageDataset:
    """Return coverage data with the right number of training rows: what the loop needs to know of them.

    They are not looked at: synthetic rows are taken as stored, predictions hold their references.
    """
    first = record.folder / "iterations" / "00" / "adapter" / "record.json"
    trained = Adapter(**json.loads(first.read_text(encoding="utf-8"))) if first.exists() else None
    count = trained.train_rows - trained.synthetic_rows if trained else 0
    row = Example("0" * 16, ({"role": "user", "content": ""},), "", generator=COVERAGE)
    return CoverageDataset((row,) * count, (), ())


class _Derived(Steps):
    """The steps of a run that is derived again: what needs a model is there, or ends it."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunDir,
        state: RunState,
        display: Display,
        *,
        dataset: CoverageDataset,
        found: Verified,
    ) -> None:
        super().__init__(experiment, folder, state, display, dataset)
        self._found = found

    def __exit__(self, *error: object) -> None:
        if self._service:
            self._found.keys |= self._service.asked
        super().__exit__(*error)

    def _make_sure(self) -> None:
        """Nothing is loaded, so nothing has to fit."""

    def train(self, number: int, rows: list[Example], start_from: Path | None) -> Adapter:
        """Return the stored record; raises where training never came to its end."""
        if self.experiment.train.enabled and not self.adapter(number).with_name("adapter.done").exists():
            raise _NothingStoredError(f"iteration {number} was not trained")
        return super().train(number, rows, start_from)

    def infer(self, where: int | str, examples: tuple[Example, ...], adapter: Path) -> list[Prediction]:
        """Return the stored answers; those of a server are derived from its replies."""
        stored = (
            adapter.parent.parent / (f"{where:02d}" if isinstance(where, int) else where) / "predictions.jsonl.done"
        )
        if not stored.exists() and self.experiment.infer.backend is not Backend.endpoint:
            raise _NothingStoredError(f"{where} was not answered")
        return super().infer(where, examples, adapter)


_COMPARED = {
    "verdicts.jsonl": "verdicts",
    "scorecard.json": "scorecards",
    "synthesis.json": "syntheses",
    "synthetic.jsonl": "synthetic rows",
    "curation.json": "curations",
    "predictions.jsonl": "predictions",
}


def _compare(record: RunRecord, derived: Path, found: Verified, kept: set[str]) -> None:
    """Compare every file of the derived folder with the stored one."""
    for path in sorted(derived.glob("iterations/*/*")):
        inside = path.relative_to(derived)
        stored, what = record.folder / inside, _COMPARED.get(path.name)
        if what is None or not stored.exists():
            continue
        rows = path.read_bytes().count(b"\n") if path.suffix == ".jsonl" else 1
        if path.name in kept:
            found.counts[f"{what} taken as stored"] += rows
            continue
        _compare_files(f"{record.name}/{inside.as_posix()}", stored, path, found)
        found.counts[what] += rows
    _compare_metrics(record, derived, found)
    _compare_state(record, derived, found)


def _compare_files(name: str, stored: Path, derived: Path, found: Verified) -> None:
    """Say where two text files first differ."""
    ours, theirs = stored.read_bytes(), derived.read_bytes()
    if ours == theirs:
        return
    pairs = zip(ours.splitlines(), theirs.splitlines(), strict=False)
    line = next((number for number, (a, b) in enumerate(pairs, 1) if a != b), None)
    if line is None:
        counts = f"{len(ours.splitlines())} lines stored, {len(theirs.splitlines())} derived"
        found.differences.append(f"{name}: {counts}.")
        return
    a, b = ours.splitlines()[line - 1].decode(errors="replace"), theirs.splitlines()[line - 1].decode(errors="replace")
    found.differences.append(f"{name}:{line}: {_first_difference(a, b)}.")


def _first_difference(stored: str, derived: str) -> str:
    """Return what two lines differ in: a field of JSON objects, or a piece of text."""
    try:
        a, b = json.loads(stored), json.loads(derived)
    except ValueError:
        a = b = None
    if isinstance(a, dict) and isinstance(b, dict):
        name = next((key for key in {**a, **b} if a.get(key) != b.get(key)), None)
        if name is not None:
            return f"{name} is stored as {_short(a.get(name))}, derived as {_short(b.get(name))}"
    at = next((i for i, (x, y) in enumerate(zip(stored, derived, strict=False)) if x != y), 0)
    start = max(0, at - 10)
    return f"stored {_short(stored[start:])}, derived {_short(derived[start:])}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _compare_metrics(record: RunRecord, derived: Path, found: Verified) -> None:
    """Compare the lines of metrics.jsonl; `seconds` with the sum of the stored markers."""
    path = derived / "metrics.jsonl"
    made = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    stored_path = record.folder / "metrics.jsonl"
    kept = stored_path.read_text(encoding="utf-8").splitlines() if stored_path.exists() else []
    if len(kept) != len(made):
        found.differences.append(f"{record.name}/metrics.jsonl: {len(kept)} iterations stored, {len(made)} derived.")
    for number, (text, line) in enumerate(zip(kept, made, strict=False)):
        stored = json.loads(text)
        line["seconds"] = _seconds(record.folder, number)
        if stored != line:
            difference = _first_difference(text, json.dumps(line))
            found.differences.append(f"{record.name}/metrics.jsonl:{number + 1}: {difference}.")
        found.counts["lines of metrics"] += 1


def _seconds(folder: Path, number: int) -> float:
    """Return what the markers say an iteration took, its data's synthesis included."""
    before = folder / "iterations" / (f"{number - 1:02d}" if number else "start")
    names = ("adapter", "predictions.jsonl", "verdicts.jsonl", "scorecard.json")
    grown = ("synthesis.json", "synthetic.jsonl", "curation.json")
    markers = [folder / "iterations" / f"{number:02d}" / f"{name}.done" for name in names]
    markers += [before / f"{name}.done" for name in grown]
    found = [json.loads(marker.read_text(encoding="utf-8")) for marker in markers if marker.exists()]
    return round(sum(float(marker["seconds"]) for marker in found), 3)


def _compare_state(record: RunRecord, derived: Path, found: Verified) -> None:
    """Compare state.json; it may count more money than was of use: calls that brought nothing."""
    if record.state.status != "done":
        found.unchecked[f"{record.name}: not finished ({record.state.status}); compared as far as it came."] = None
        return
    stored = json.loads((record.folder / "state.json").read_text(encoding="utf-8"))
    made = json.loads((derived / "state.json").read_text(encoding="utf-8"))
    made["cost_usd"] = max(made["cost_usd"], stored["cost_usd"])
    if stored["stop_reason"] == "budget" and made["stop_reason"] != "budget":
        found.unchecked[f"{record.name}: stopped by its budget, which a replay doesn't spend."] = None
    elif stored != made:
        difference = _first_difference(json.dumps(stored), json.dumps(made))
        found.differences.append(f"{record.name}/state.json: {difference}.")
    found.counts["states"] += 1


def verify_report(folder: Path, beside: Path, found: Verified) -> None:
    """Write the report of the runs in `folder` anew, and compare it with the files of one that lies in `beside`."""
    if not (beside / "runs.csv").exists():
        found.unchecked[f"no report: llamaduo report {beside} writes one."] = None
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / folder.resolve().name
        write_report(read_study(folder), made)
        for path in sorted(made.rglob("*")):
            stored = beside / path.relative_to(made)
            if path.is_file() and stored.exists():
                _compare_report_file(path.relative_to(made).as_posix(), stored, path, found)


_DRAWN = {".svg", ".png"}


def _compare_report_file(name: str, stored: Path, derived: Path, found: Verified) -> None:
    """Compare a file of a report; a picture that differs may only be drawn by another version."""
    found.counts["files of the report"] += 1
    if derived.suffix == ".parquet":
        import pyarrow.parquet

        if not pyarrow.parquet.read_table(stored).equals(pyarrow.parquet.read_table(derived)):
            found.differences.append(f"{name}: its rows are not those of the runs.")
    elif derived.suffix not in _DRAWN and not _holds_pictures(derived):
        _compare_files(name, stored, derived, found)
    elif stored.read_bytes() != derived.read_bytes():
        found.unchecked[f"{name}: drawn by another version of matplotlib, or changed; its numbers are in the CSV."] = (
            None
        )


def _holds_pictures(path: Path) -> bool:
    return path.name == "report.html" and (path.parent / "figures").is_dir()


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def summary(found: Verified) -> list[str]:
    """Return what a person should read of a verification."""
    lines = [f"{count:,} {name}" for name, count in found.counts.items() if count]
    told = ["derived or checked: " + ", ".join(lines) + "."] if lines else []
    told += [f"not checked: {text}" for text in found.unchecked]
    told += [f"DIFFERENT: {text}" for text in found.differences[:_MOST_SHOWN]]
    if len(found.differences) > _MOST_SHOWN:
        told.append(f"... and {len(found.differences) - _MOST_SHOWN:,} more differences.")
    return told
