"""Runs as their folders tell of them: configuration, environment, state and metrics; no answers yet.

    for run in read_runs(Path("results/main_table")): print(run.name, run.state.stop_reason)

Reads `config.yaml`, `environment.json`, `state.json`, `metrics.jsonl` and the iterations' `scorecard.json` with plain
parsers: some 3 ms a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llamaduo.config import Experiment, JudgeKind, plain
from llamaduo.errors import InputError, not_there
from llamaduo.files.folders import files_below
from llamaduo.files.regular import read_json
from llamaduo.runs import layout
from llamaduo.runs.folder import read_state, refuse_damaged
from llamaduo.runs.saved_config import read_config, typed
from llamaduo.runs.state import Iteration, RunState
from llamaduo.runs.tracking import read_metrics


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says."""

    folder: Path
    name: str
    """The folder's path below the one that was asked for, with `/`; its own name for a single run."""
    config: dict[str, Any]
    """The resolved configuration as it was saved; `experiment` is what to read it by."""
    environment: dict[str, Any]
    """Versions, revision, hardware and seeds; empty if the run never came so far."""
    state: RunState
    history: list[Iteration]
    """The lines of `metrics.jsonl`."""
    scored: dict[int, dict[str, int]]
    """By iteration and score: the answers that have the score. None for an iteration whose scorecard is missing."""

    @cached_property
    def experiment(self) -> Experiment:
        """What the configuration says, of an older run as far as it does."""
        return typed(Experiment, self.config)

    @property
    def chosen(self) -> Iteration | None:
        """The iteration that scored best at the gate, None if there is none yet."""
        best = self.state.best_iteration
        return self.history[best] if best is not None and best < len(self.history) else None

    @property
    def reported_place(self) -> Path | None:
        """Where the answers lie that the run is reported by: those of the test split, else of the chosen iteration."""
        chosen = self.chosen
        return layout.place(self.folder, layout.TEST if self.state.test else chosen.iteration) if chosen else None

    @property
    def judges(self) -> tuple[str, ...]:
        """Who judged: the panel's names, or the metrics of `judge=reference`."""
        judge = self.experiment.judge
        return tuple(judge.panel) if judge.kind is JudgeKind.service else ("chrf", "rouge_l")

    @property
    def split(self) -> str:
        """The split that the gate looks at, dev or test."""
        return str(plain(self.experiment.protocol.gate_split))


def read_runs(root: Path, *, compared: bool = True) -> list[RunRecord]:
    """Return the runs at or below a folder, by path, links followed; raises InputError if there is none.

    Also where a file of one isn't what was written, unless that is left to whoever compares all of it (`verify`).
    """
    if not root.is_dir():
        raise InputError(not_there(root, "folder"))
    found = [file.parent for file in files_below(root, layout.STATE) if (file.parent / layout.CONFIG).exists()]
    if not found:
        raise InputError(f"{root}: no run folder in it; a run has a {layout.CONFIG} and a {layout.STATE}.")
    return [_read_run(folder, root, compared=compared) for folder in found]


def read_tree(path: Path) -> dict[str, Any]:
    """Return the object in one JSON file of a run; raises InputError where it holds none."""
    try:
        tree = read_json(path)
    except (OSError, ValueError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path}: damaged ({type(error).__name__}: {told}); move its run elsewhere.") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: damaged ({type(tree).__name__} instead of an object); move its run elsewhere.")
    return tree


def told_seconds(artifact: Path) -> float:
    """Return the seconds that an artifact's marker tells of; raises InputError where it can't be read."""
    return float(read_tree(layout.marker(artifact)).get("seconds", 0.0))


def _read_run(folder: Path, root: Path, *, compared: bool) -> RunRecord:
    state = read_state(folder, compared=compared)
    if compared:
        refuse_damaged(folder)
    config = read_config(folder / layout.CONFIG)
    try:
        environment = folder / layout.ENVIRONMENT
        name = folder.name if folder == root else folder.relative_to(root).as_posix()
        record = RunRecord(
            folder,
            name,
            config,
            read_tree(environment) if environment.exists() else {},
            state,
            history := read_metrics(folder),
            _scored(folder, history),
        )
        if compared:
            _ = record.experiment  # which can't be made of what is no configuration
        return record
    except (ValueError, TypeError, AttributeError, LookupError, OSError, ArithmeticError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{folder}: damaged ({type(error).__name__}: {told}); move it elsewhere.") from error


def _scored(folder: Path, history: list[Iteration]) -> dict[int, dict[str, int]]:
    """Return by iteration and score how many answers have it, from the scorecards."""
    found = {}
    for line in history:
        path = layout.place(folder, line.iteration) / layout.SCORECARD
        if not path.exists():
            continue
        try:
            card = read_json(path)
            found[line.iteration] = {name: int(card[name]["n"]) for name in ("similarity", "precision")}
        except (ValueError, TypeError, LookupError, OSError, ArithmeticError, RecursionError) as error:
            raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); move the run elsewhere.") from error
    return found
