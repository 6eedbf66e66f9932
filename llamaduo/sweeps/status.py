"""Where a study stands: which runs are done, running, waiting, failed or interrupted; cost, and the time left.

    found = status("results/runs")     reads grid.json, state.json, metrics.jsonl, markers and locks; writes nothing

A run is `running` if its lock is held: on this machine that is looked up in /proc, without touching the lock; of
another machine it can't be known, so its last sign of life is told. Until a run has a state, the note of the process
that has begun it stands for the lock. A run that nobody works on and that has no end is `interrupted`. `waiting` are
the cells of the plan that were never begun. Where the newest sweep of the same configuration asks for neither, they
are `left over`, unless the sweep that has planned them still lives on this machine; nobody waits for them, and the time
left leaves them out. No model, and nothing heavy, is loaded.

The time left is estimated from finished runs: the median seconds of those with the same model and task, else of the
same model, else of all; less what the run has behind it, spread over as many runs as are going on now.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.config import Experiment
from llamaduo.errors import InputError, not_there
from llamaduo.files.regular import read
from llamaduo.runs import layout
from llamaduo.runs.folder import read_state, refuse_damaged
from llamaduo.runs.layout import is_run
from llamaduo.runs.lock import at_work, holder
from llamaduo.runs.saved_config import plain_yaml, typed
from llamaduo.runs.swept_keys import told_apart
from llamaduo.studies.factors import apart
from llamaduo.sweeps.plan import FAILED, PlannedRun, read_grid, read_note

if TYPE_CHECKING:
    pass

DONE, RUNNING, WAITING, INTERRUPTED, LEFT_OVER = "done", "running", "waiting", "interrupted", "left over"
_STAGES = ((layout.ADAPTER, "train"), (layout.PREDICTIONS, "infer"), (layout.VERDICTS, "judge"))
_BASES = ("same model and task", "same model", "whole study")


@dataclass(frozen=True)
class RunStatus:
    """Where one run stands."""

    run: str
    """Name of its folder."""
    study: str
    task: str
    local_model: str
    status: str
    """`done`, `running`, `waiting`, `failed`, `interrupted` or `left over`."""
    stop_reason: str | None
    """The rule that stopped a run that is done."""
    iterations: int
    """Iterations that are complete."""
    stage: str | None
    """What is being done now, as far as the markers tell: train, infer, judge, synthesize or the test split."""
    where: str | None
    """Process and machine of a run that is going on."""
    error: str | None
    cost_usd: float
    """Price of the replies used by complete iterations."""
    seconds: float
    """Wall time of complete iterations and of the test split."""
    seconds_left: float | None = None
    """Estimated; null where no finished run says anything, zero for a run that is done."""
    basis: str | None = None
    """Which finished runs the estimate comes from."""
    swept: dict[str, str] = field(default_factory=dict)
    """What its sweep has set otherwise than for others."""


@dataclass(frozen=True)
class Status:
    """Where the runs below a folder stand."""

    folder: str
    cells: tuple[RunStatus, ...]
    counts: dict[str, int]
    cost_usd: float
    """Sum over runs: a reply that several runs share, as the same synthesis, was paid once and counts in each."""
    seconds: float
    """Wall time of all iterations together."""
    seconds_left: float | None
    """Until all runs are through that go on, wait or were broken off; null if it can't be estimated."""
    at_once: int
    """How many runs the estimate takes to go on side by side."""
    basis: str
    """What the estimate rests on, in words."""


def status(directory: str) -> Status:
    """Return where the runs at or below a folder stand; raises InputError if there is none."""
    root = Path(directory)
    if not root.is_dir():
        raise InputError(not_there(root, "folder"))
    cells = _with_time_left([replace(_cell(*run), swept=values) for run, values in _swept(list(_runs(root)))])
    if not cells:
        raise InputError(f"{root}: no run folder and no grid.json in it; see runtime.results and study.")
    at_once = max(1, sum(cell.status == RUNNING for cell in cells))
    left, basis = _time_left(cells, at_once)
    return Status(
        folder=str(root),
        cells=tuple(cells),
        counts=dict(Counter(cell.status for cell in cells)),
        cost_usd=round(sum(cell.cost_usd for cell in cells), 10),
        seconds=round(sum(cell.seconds for cell in cells), 3),
        seconds_left=left,
        at_once=at_once,
        basis=basis,
    )


# reading


def _runs(root: Path) -> Iterator[tuple[Path, PlannedRun | None]]:
    """Yield every run's folder, planned ones first and in the plan's order, each with its line of the plan."""
    if is_run(root):
        planned = {cell.run: cell for cell in read_grid(root.parent)}
        yield root, planned.get(root.name)
        return
    met: set[str] = set()
    for study in _studies(root, met):
        planned = {cell.run: cell for cell in read_grid(study)}
        for name, cell in planned.items():
            met.add(os.path.realpath(study / name))
            yield study / name, cell
        for folder in _folders(study):
            if is_run(folder) and _first_met(folder, met):
                yield folder, None


def _first_met(folder: Path, met: set[str]) -> bool:
    """Tell whether a folder was not met before, by another link to it."""
    real = os.path.realpath(folder)
    new = real not in met
    met.add(real)
    return new


_Run = tuple[Path, PlannedRun | None]


def _swept(runs: Sequence[_Run]) -> list[tuple[_Run, dict[str, str]]]:
    """Return each run with the values of the keys that its study's sweeps have set differently."""
    by_study: dict[Path, list[_Run]] = {}
    for folder, planned in runs:
        by_study.setdefault(folder.parent, []).append((folder, planned))
    return [pair for group in by_study.values() for pair in zip(group, _apart(group), strict=True)]


def _apart(runs: Sequence[_Run]) -> list[dict[str, str]]:
    """Return of each run of a study what tells it apart: what sweeps have set, else what its configuration says."""
    swept = told_apart([cell.overrides if cell else [] for _, cell in runs])
    alike = [(folder.name[:-9], *values.values()) for (folder, _), values in zip(runs, swept, strict=True)]
    if len(set(alike)) == len(runs):
        return swept
    others = apart([_config(folder) for folder, _ in runs], alike)
    return [values | other for values, other in zip(swept, others, strict=True)]


def _studies(folder: Path, met: set[str]) -> Iterator[Path]:
    """Yield every folder at or below one that has a plan, or runs right in it."""
    if not _first_met(folder, met):
        return
    children = _folders(folder)
    runs = {child.name for child in children if is_run(child)}
    if runs or (folder / "grid.json").exists():
        yield folder
    for child in children:
        if child.name not in runs and not (child / layout.ITERATIONS).is_dir():
            yield from _studies(child, met)


def _folders(folder: Path) -> list[Path]:
    """Return the folders in one, those behind symbolic links last."""
    with os.scandir(folder) as found:
        folders = sorted(
            (entry.is_symlink(), entry.path)
            for entry in found
            if os.path.isdir(entry.path) and not entry.name.startswith(".")
        )
    return [Path(path) for _, path in folders]


def _cell(folder: Path, planned: PlannedRun | None) -> RunStatus:
    task, model = (planned.task, planned.local_model) if planned else _named(folder)
    nothing = RunStatus(folder.name, folder.parent.name, task, model, WAITING, None, 0, None, None, None, 0.0, 0.0)
    found = _begun(folder, nothing) if is_run(folder) else _noted(folder, nothing)
    if planned and planned.left_over and found.status in (WAITING, INTERRUPTED) and not at_work(planned.sweep):
        return replace(found, status=LEFT_OVER)
    return found


def _begun(folder: Path, nothing: RunStatus) -> RunStatus:
    """Return where a run with a state stands; raises RunFolderError where what that is read from is damaged."""
    state = read_state(folder)
    refuse_damaged(folder, artifacts=False)
    who = None if state.status == DONE and state.stop_reason != "budget" else holder(folder)
    now = RUNNING if who else {"running": INTERRUPTED}.get(state.status, state.status)
    return replace(
        nothing,
        status=now,
        stop_reason=state.stop_reason if now == DONE else None,
        iterations=state.iterations,
        stage=_stage(folder, state.iterations) if now in (RUNNING, INTERRUPTED) else None,
        where=who,
        error=state.error if now == FAILED else None,
        cost_usd=state.cost_usd,
        seconds=_seconds(folder),
    )


def _noted(folder: Path, nothing: RunStatus) -> RunStatus:
    """Return where a cell without a state stands: what the note of its last attempt says."""
    note = read_note(folder)
    if note is None:
        return nothing
    if note.result == FAILED:
        return replace(nothing, status=FAILED, error=note.error)
    who = f"pid {note.pid} on {note.host}"
    if note.result == RUNNING and at_work(who):
        return replace(nothing, status=RUNNING, stage="start", where=who)
    return nothing


def _named(folder: Path) -> tuple[str, str]:
    """Return task and local model of a run without a plan, from its configuration."""
    try:
        found = typed(Experiment, _config(folder))
    except (TypeError, ValueError):
        return "", ""
    return str(found.task.name or ""), str(found.local_model.name or "")


def _config(folder: Path) -> dict[str, Any]:
    """Return a run's configuration; an empty one of a run that is only just beginning, or that has been damaged."""
    from yaml import YAMLError

    try:
        found = plain_yaml(folder / layout.CONFIG)
    except (OSError, ValueError, YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _stage(folder: Path, iteration: int) -> str:
    """Return the first stage of an iteration whose artifact has no marker; the test split comes after all of them."""
    if layout.place(folder, layout.TEST).is_dir():
        return "test split"
    here = layout.place(folder, iteration)
    if iteration and not here.is_dir():
        return "synthesize"
    if not here.is_dir() and not layout.marker(layout.place(folder, layout.START) / layout.SYNTHETIC).exists():
        return "start"
    return next((stage for name, stage in _STAGES if not layout.marker(here / name).exists()), "score")


def _seconds(folder: Path) -> float:
    """Return the wall time of a run's complete iterations, and of its test split."""
    total = 0.0
    try:
        for line in read(folder / layout.METRICS).decode().splitlines():
            total += float(json.loads(line)["seconds"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        pass
    test = layout.place(folder, layout.TEST)
    return round(total + layout.seconds(test / layout.PREDICTIONS, test / layout.VERDICTS), 3)


# estimating


def _with_time_left(cells: Sequence[RunStatus]) -> list[RunStatus]:
    """Fill in how long each run will still take, by the finished runs that are most like it."""
    finished: dict[tuple[str, ...], list[float]] = {}
    for cell in cells:
        if cell.status == DONE and cell.seconds:
            for kind in _kinds(cell):
                finished.setdefault(kind, []).append(cell.seconds)
    medians = {kind: statistics.median(seconds) for kind, seconds in finished.items()}
    return [_estimated(cell, medians) for cell in cells]


def _kinds(cell: RunStatus) -> tuple[tuple[str, ...], ...]:
    return (cell.study, cell.local_model, cell.task), (cell.study, cell.local_model), (cell.study,)


def _estimated(cell: RunStatus, medians: dict[tuple[str, ...], float]) -> RunStatus:
    if cell.status == DONE:
        return replace(cell, seconds_left=0.0)
    for kind, basis in zip(_kinds(cell), _BASES, strict=True):
        if kind in medians:
            return replace(cell, seconds_left=round(max(0.0, medians[kind] - cell.seconds), 3), basis=basis)
    return cell


def _time_left(cells: Sequence[RunStatus], at_once: int) -> tuple[float | None, str]:
    """Return the seconds that the study will still take, and what that rests on."""
    open_cells = [cell for cell in cells if cell.status in (RUNNING, WAITING, INTERRUPTED)]
    if not open_cells:
        return 0.0, "nothing is left to run"
    lefts = [cell.seconds_left for cell in open_cells if cell.seconds_left is not None]
    if len(lefts) < len(open_cells):
        return None, f"{len(open_cells) - len(lefts)} runs have no finished run to be compared with"
    known = Counter(cell.basis for cell in open_cells)
    bases = ", ".join(f"{known[basis]} by the {basis}" for basis in _BASES if known[basis])
    return (
        round(max(sum(lefts) / at_once, *lefts), 3),
        f"medians of finished runs: {bases}; {at_once} at a time",
    )
