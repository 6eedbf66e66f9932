"""One cell of a sweep, in whatever process a launcher has given it: run it, and leave a note of how it ended.

    launch(Work.of_this_process(), numbers)      Hydra's launcher calls the Work with each experiment

A process that isn't the sweep's own is first made to behave as one of its jobs. SIGTERM stops it as Ctrl-C stops a
run: what is paid for comes home, nothing more is bought, and it takes no other cell. It has a process group of its
own, so that a Ctrl-C on the terminal reaches the sweep alone, which passes it on once. When the sweep is no more,
however it ended, its jobs on the same machine stop within a second. A SLURM job that is told that it will be
preempted, or that its time is up, stops in the same way and is put back into the queue.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.errors import LlamaduoError
from llamaduo.redaction import complain, print_plainly, redact_logs, redact_message
from llamaduo.runs.layout import is_run
from llamaduo.sweeps.plan import FAILED, INTERRUPTED, RUNNING, Note, write_note

if TYPE_CHECKING:
    from llamaduo.config import Experiment
    from llamaduo.display import Display
    from llamaduo.runs.state import RunState

GRACE_S = 60.0
"""How long a job may take to stop, calls in flight included."""
_LOOK_S = 0.5


def exit_code(state: RunState) -> int:
    """Return what the command of a run with this state exits with."""
    return 3 if state.stop_reason == "budget" else 0


def run_one(experiment: Experiment, *, quiet: bool = False) -> RunState:
    """Run one experiment, show it and write its page; a finished one is shown without loading anything heavy."""
    from llamaduo.display import Display, pocket_label
    from llamaduo.environment import settle_libraries
    from llamaduo.runs.finished import finished, run_folder
    from llamaduo.runs.tracking import read_metrics

    settle_libraries()
    folder = run_folder(experiment)
    with Display(quiet=quiet) as display:
        state = finished(experiment)
        if state:
            lines = [*pocket_label(experiment), f"{folder} is finished already; this is its result."]
            display.start(lines, read_metrics(folder))
        else:
            state = _run(experiment, folder, display)
        display.finish(state, str(folder))
    return state


def _run(experiment: Experiment, folder: Path, display: Display) -> RunState:
    """Run what is not finished, and write its page whatever becomes of it."""
    from llamaduo.loop import run
    from llamaduo.studies.pages.page import write_run_page

    try:
        state = run(experiment, display=display)
    except BaseException:
        if is_run(folder):
            write_run_page(folder, quiet=True)  # what has ended the run comes first, and alone
        raise
    write_run_page(folder)
    return state


@dataclass(frozen=True)
class Work:
    """What a launcher does with each experiment of a sweep; it is pickled."""

    sweep: int
    """Process id of the sweep."""
    host: str
    folder: str
    """The sweep's working folder, which relative paths start from."""

    @classmethod
    def of_this_process(cls) -> Work:
        """Return the work of a sweep that this process is."""
        return cls(os.getpid(), socket.gethostname(), str(Path.cwd()))

    def __call__(self, experiment: Experiment) -> None:
        """Run one cell; raises only when it is interrupted."""
        if self._is_here():
            self._attempt(experiment, quiet=False)
            return
        job = _Job.of(self)
        try:
            self._attempt(experiment, quiet=True)
        except KeyboardInterrupt:
            job.end()
            raise
        finally:
            job.leave()

    def _is_here(self) -> bool:
        return (self.sweep, self.host) == (os.getpid(), socket.gethostname())

    def _attempt(self, experiment: Experiment, *, quiet: bool) -> None:
        """Run the cell, and note what becomes of it."""
        from llamaduo.runs.finished import run_folder

        folder = run_folder(experiment)

        def note(result: str, code: int | None, error: str | None = None) -> None:
            told = redact_message(error) if error else None
            write_note(folder, Note(result, code, told, os.getpid(), socket.gethostname(), self.sweep))

        note(RUNNING, None)
        try:
            state = run_one(experiment, quiet=quiet)
        except LlamaduoError as error:
            complain(f"{folder.name}: {error}")
            note(FAILED, error.exit_code, str(error))
        except Exception as error:  # a fault in one cell must not stop the others
            complain(f"{folder.name}: {type(error).__name__}: {error}")
            note(FAILED, 1, f"{type(error).__name__}: {error}")
        except BaseException:
            note(INTERRUPTED, 130)
            raise
        else:
            note(state.stop_reason or "", exit_code(state))
            if quiet:
                print(f"{folder.name}: {state.stop_reason}", flush=True)


class _Job:
    """A process that works for a sweep; made once, and told of every cell that it takes and leaves."""

    _only: _Job | None = None

    @classmethod
    def of(cls, work: Work) -> _Job:
        """Return this process's job, about to take a cell; raises KeyboardInterrupt if it was told to stop."""
        job = cls._only = cls._only or cls(work)
        job._take()
        return job

    def __init__(self, work: Work) -> None:
        redact_logs()
        print_plainly()
        with suppress(OSError):
            os.chdir(work.folder)
        self._sweep = work.sweep if work.host == socket.gethostname() and os.getppid() == work.sweep else None
        self._stopped = self._requeued = self._busy = False
        self._before: dict[int, Any] = {}
        if self._sweep is not None:
            with suppress(OSError):
                os.setpgid(0, 0)
            threading.Thread(target=self._end_with_the_sweep, daemon=True).start()

    def _take(self) -> None:
        if self._stopped or self._orphaned():
            raise KeyboardInterrupt
        if threading.current_thread() is not threading.main_thread():
            return
        self._before = {signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler)}
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._stop)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._stop)
        if "SUBMITIT_EXECUTOR" in os.environ:
            self._before[signal.SIGUSR2] = signal.signal(signal.SIGUSR2, self._requeue)
        self._busy = True

    def leave(self) -> None:
        """Be free for another cell."""
        self._busy = False
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def end(self) -> None:
        """Take no other cell; go back into the queue if that was asked for, and go where the sweep has gone."""
        self._stopped, self._busy = True, False
        if self._requeued:
            self._before[signal.SIGUSR2](signal.SIGUSR2, None)
        if self._orphaned():
            os._exit(130)
        if os.environ.get("SUBMITIT_EXECUTOR") == "slurm":
            self._wait_for_the_end()

    def _wait_for_the_end(self) -> None:
        """Do nothing more until SLURM ends this process: one that ends by itself is not put back into the queue."""
        deadline = time.monotonic() + 10 * GRACE_S
        while time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def _stop(self, *_: object) -> None:
        """Treat the first SIGTERM or SIGHUP as Ctrl-C, and ignore the others."""
        if not self._stopped:
            self._stopped = True
            if self._busy:
                signal.raise_signal(signal.SIGINT)

    def _requeue(self, *_: object) -> None:
        """Stop in peace, then let submitit put this job back into its queue; at once if it has stopped already."""
        self._requeued = True
        if self._busy:
            self._stop()
        else:
            self._before[signal.SIGUSR2](signal.SIGUSR2, None)

    def _orphaned(self) -> bool:
        return self._sweep is not None and os.getppid() != self._sweep

    def _end_with_the_sweep(self) -> None:
        """Stop when the sweep is gone: nobody would know of what is bought from then on."""
        while not self._orphaned():
            time.sleep(_LOOK_S)
        if self._busy:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE_S)
        os._exit(130)
