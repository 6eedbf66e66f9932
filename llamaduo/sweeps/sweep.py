"""A sweep: write the plan, run what is left of it, say what became of every cell.

    exit_code = run_all(composed)

A cell is a run that the sweep asks for. Finished cells are read from disk. The others go to Hydra's launcher, and
what became of them is read from the notes that they leave, so that a launcher which breaks loses nothing: where a
worker process dies, joblib ends its neighbours as well, so each that had begun is then run alone, which shows who it
was. A cell that a service LLM or a crash has ended is begun again at the end, `runtime.retries` times.

Ctrl-C and SIGTERM end the jobs before the sweep: on this machine in peace, on a cluster by cancelling them.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llamaduo.display import plain_console, span
from llamaduo.errors import ConfigError, InputError, LlamaduoError, ServiceError
from llamaduo.files.regular import read_json
from llamaduo.runs import layout
from llamaduo.runs.finished import finished, run_folder
from llamaduo.runs.folder import read_state
from llamaduo.runs.lock import lives
from llamaduo.runs.swept_keys import told_apart
from llamaduo.runs.tracking import read_metrics
from llamaduo.sweeps.cluster import jobs_broken_off
from llamaduo.sweeps.job import GRACE_S, Work, exit_code
from llamaduo.sweeps.plan import (
    FAILED,
    INTERRUPTED,
    RUNNING,
    Note,
    PlannedRun,
    add_to_grid,
    cell_of,
    forget_note,
    read_note,
)

if TYPE_CHECKING:
    from llamaduo.compose import Composed, Sweep
    from llamaduo.config import Experiment
    from llamaduo.runs.state import RunState

CRASHED = "its process ended without a word: killed, or out of memory"
_NOT_BEGUN = "it was not begun"
_CANCELLED = "interrupted: stopped or cancelled; the same command goes on"
_NO_END = "its job came back, but its folder has no end"
_LOOK_S = 0.2


@dataclass(frozen=True)
class Line:
    """A cell in the summary."""

    run: str
    result: str
    exit_code: int
    scores: tuple[str, str, str, str]
    """Answers with a score, similarity, precision and cost; empty where there are none."""
    error: str | None = None


def run_all(composed: Composed) -> int:
    """Run what is left of a sweep; one cell that fails doesn't stop the others, and the summary names it."""
    assert composed.sweep is not None
    cells = composed.experiments
    _refuse_one_folder_for_two(cells, composed.sweep.overrides)
    done = {number: _line(cells[number], state) for number in range(len(cells)) if (state := _finished(cells[number]))}
    left = [number for number in range(len(cells)) if number not in done]
    _refuse_missing_keys([cells[number] for number in left], composed.sweep)
    _refuse_unreadable_data([cells[number] for number in left])
    _plan(cells, composed.sweep)
    if left:
        done |= _Left(cells, composed.sweep).run(left)
    lines = [done[number] for number in range(len(cells))]
    _show(lines, told_apart(composed.sweep.overrides), len(cells) - len(left))
    return next((line.exit_code for line in lines if line.exit_code), 0)


def _finished(experiment: Experiment) -> RunState | None:
    """Return the state of a finished cell; one that is refused says why when it has its turn."""
    with suppress(InputError):
        return finished(experiment)
    return None


def _refuse_one_folder_for_two(cells: Sequence[Experiment], overrides: Sequence[Sequence[str]]) -> None:
    """Raise ConfigError where two cells differ in nothing that a run's folder depends on."""
    taken: dict[Path, str] = {}
    for experiment, texts in zip(cells, overrides, strict=True):
        folder, own = run_folder(experiment), " ".join(texts)
        if folder in taken:
            raise ConfigError(
                f"'{taken[folder]}' and '{own}' would be one run, {folder}: they differ in nothing that can change a "
                f"result. Sweep something else, or give each a study of its own (study=NAME)."
            )
        taken[folder] = own


def _plan(cells: Sequence[Experiment], sweep: Sweep) -> None:
    """Write `grid.json` of every study of the sweep."""
    who = f"pid {os.getpid()} on {socket.gethostname()}"
    studies: dict[Path, list[PlannedRun]] = {}
    for experiment, texts in zip(cells, sweep.overrides, strict=True):
        folder = run_folder(experiment)
        studies.setdefault(folder.parent, []).append(cell_of(folder.name, texts, experiment, sweep.configuration, who))
    for study, planned in studies.items():
        add_to_grid(study, planned)


def _refuse_missing_keys(cells: Sequence[Experiment], sweep: Sweep) -> None:
    """Raise ConfigError before anything runs, where no run has all its keys; a cluster may have its own."""
    from llamaduo.service.access import refuse_missing_keys

    missing: list[ConfigError] = []
    for experiment in cells:
        try:
            refuse_missing_keys(experiment)
        except ConfigError as error:
            missing.append(error)
    if missing and len(missing) == len(cells) and "Slurm" not in str(sweep.launcher.get("_target_")):
        raise missing[0]


def _refuse_unreadable_data(cells: Sequence[Experiment]) -> None:
    """Raise InputError before anything runs, where a file can't be used or has too few prompts for a gate.

    Each is read once for all equal settings; data of the Hub are seen when their runs begin.
    """
    from llamaduo.config import DataSource
    from llamaduo.data.coverage import load_coverage
    from llamaduo.data.dataset import gate_rows
    from llamaduo.evidence import reach

    known: set[str] = set()
    for experiment in cells:
        loop, synthesis = experiment.loop, experiment.synthesis.enabled
        task = experiment.task.name if experiment.data.source is DataSource.pocket else ""
        settings = repr(
            (experiment.data, experiment.protocol, loop.growth, loop.gate, loop.max_iterations, synthesis, task)
        )
        if experiment.data.source is not DataSource.hub and settings not in known:
            known.add(settings)
            dataset = load_coverage(experiment)
            reach.told_of(experiment, gate_rows(experiment, dataset), dataset.test)


class _Left:
    """The cells that are left, until there is a line for each."""

    def __init__(self, cells: Sequence[Experiment], sweep: Sweep) -> None:
        self._cells, self._sweep = cells, sweep
        self._folders = [run_folder(experiment) for experiment in cells]
        self._batches: deque[list[int]] = deque()
        self._later: list[int] = []
        """Cells to begin again, when all others have had their turn."""
        self._tries: Counter[int] = Counter()
        self._lines: dict[int, Line] = {}

    def run(self, numbers: list[int]) -> dict[int, Line]:
        """Return the line of every cell."""
        self._batches.append(numbers)
        while self._batches:
            batch = self._batches.popleft()
            for number in batch:
                forget_note(self._folders[number])
            self._settle(batch, self._launch(batch))
            if not self._batches and self._later:
                self._batches.append(self._later)
                self._later = []
        return self._lines

    def _launch(self, batch: list[int]) -> Exception | None:
        """Let the launcher run some cells; return what has gone wrong with the launcher itself."""
        studies = {self._folders[number].parent for number in batch}
        with _jobs_end_first(studies), jobs_broken_off(self._sweep.launcher):
            try:
                self._sweep.launch(Work.of_this_process(), batch)
            except Exception as error:
                return error
        return None

    def _settle(self, batch: list[int], error: Exception | None) -> None:
        """Read what became of the cells, and decide which are to be begun again."""
        notes = {number: read_note(self._folders[number]) for number in batch}
        begun = [number for number in batch if notes[number]]
        if error and not begun:
            raise _refusal(error)
        for number in begun:
            self._note(number, notes[number], alone=len(batch) == 1 or not isinstance(error, BrokenProcessPool))
        waiting = [number for number in batch if number not in begun]
        if isinstance(error, BrokenProcessPool) and waiting:
            self._batches.append(waiting)
        elif waiting:
            self._fail(waiting, f"{_NOT_BEGUN} ({error})" if error else _NOT_BEGUN)

    def _note(self, number: int, note: Note | None, *, alone: bool) -> None:
        assert note is not None
        if note.result == RUNNING and not alone:
            self._batches.append([number])
        elif note.result == RUNNING:
            self._again_or_failed(number, CRASHED, ServiceError.exit_code)
        elif note.exit_code == ServiceError.exit_code:
            self._again_or_failed(number, note.error or "", note.exit_code)
        elif note.result == FAILED:
            self._fail([number], note.error or "", note.exit_code or 1)
        elif note.result == INTERRUPTED:
            self._fail([number], _CANCELLED, 130, result=INTERRUPTED)
        elif (state := read_state(self._folders[number])).status == "done":
            self._lines[number] = _line(self._cells[number], state)
        else:
            self._fail([number], _NO_END)

    def _again_or_failed(self, number: int, why: str, code: int) -> None:
        self._tries[number] += 1
        if self._tries[number] <= self._cells[number].runtime.retries:
            self._later.append(number)
        else:
            self._fail([number], why, code)

    def _fail(self, numbers: Sequence[int], why: str, code: int = 1, *, result: str = FAILED) -> None:
        for number in numbers:
            self._lines[number] = Line(self._folders[number].name, result, code, ("", "", "", ""), why)


def _refusal(error: Exception) -> LlamaduoError:
    """Return the error of a launcher that has not begun a single run."""
    if isinstance(error, LlamaduoError):
        return error
    return ConfigError(
        f"hydra.launcher: no run could be begun ({type(error).__name__}: {error}). See docs/clusters.md."
    )


@contextmanager
def _jobs_end_first(studies: set[Path]) -> Iterator[None]:
    """While a launcher works, let Ctrl-C and SIGTERM end the jobs of this machine in peace, then this process.

    Launchers kill their workers when they are interrupted, and with them calls that are paid for.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def end(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.default_int_handler)  # the second time means at once
        _end_jobs(studies)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_jobs(studies: set[Path]) -> None:
    """Send SIGTERM to every job of this sweep on this machine, and wait until each says that it has stopped."""
    told: set[int] = set()
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline:
        working = [pid for study in studies for pid in _at_work(study)]
        if not working:
            return
        for pid in set(working) - told:
            told.add(pid)
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        time.sleep(_LOOK_S)


def _at_work(study: Path) -> Iterator[int]:
    """Yield the process id of every job of this sweep that has a cell in hand on this machine."""
    for path in (study / ".sweep" / "notes").glob("*.json"):
        note = read_note(study / path.stem)
        here = note and note.result == RUNNING and note.host == socket.gethostname() and note.sweep == os.getpid()
        if note and here and note.pid != os.getpid() and lives(note.pid):
            yield note.pid


def _line(experiment: Experiment, state: RunState) -> Line:
    """Return the line of a run that has ended by a rule: scores of its best iteration."""
    folder = run_folder(experiment)
    cost = f"${state.cost_usd:.2f}"
    scores = ("", "", "", cost)
    if state.best_iteration is not None:
        row = read_metrics(folder)[state.best_iteration]
        similarity = span(row.similarity_mean, row.similarity_low, row.similarity_high)
        precision = span(row.precision_mean, row.precision_low, row.precision_high)
        scores = (_scored(folder, row.iteration), similarity, precision, cost)
    return Line(folder.name, state.stop_reason or state.status, exit_code(state), scores)


def _scored(folder: Path, iteration: int) -> str:
    """Return how many answers have a score in an iteration: what its means and intervals are over."""
    card = read_json(layout.place(folder, iteration) / layout.SCORECARD)
    return f"{max(card[name]['n'] for name in ('similarity', 'precision')):,}"


def _show(lines: Sequence[Line], swept: Sequence[dict[str, str]], finished_before: int) -> None:
    """Print the table of all cells, what was swept in columns; on stderr those that failed, and why."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    keys = list(swept[0]) if swept else []
    for name in ("run", *keys, "result", "answers (n)", "similarity [95%]", "precision [95%]", "cost"):
        whole = name not in ("run", *keys)  # where it is narrow these are broken, and numbers never
        table.add_column(name, no_wrap=whole, overflow="fold", justify="right" if name == "answers (n)" else "left")
    for line, values in zip(lines, swept, strict=True):
        table.add_row(line.run, *(values[key] for key in keys), line.result, *line.scores)
    console = plain_console()
    if not console.is_terminal:
        console.width += 20 * len(keys)
    console.print()
    console.print(table)
    if finished_before:
        console.print(f"{finished_before} of {len(lines)} were finished already.")
    failed = [line for line in lines if line.exit_code]
    if failed:
        names = "; ".join(f"{line.run}: {_short(line)}" for line in failed)
        print(f"llamaduo: {len(failed)} of {len(lines)} runs did not finish: {names}", file=sys.stderr)


def _short(line: Line) -> str:
    return (line.error or line.result).strip().splitlines()[0][:160] if (line.error or line.result).strip() else FAILED
