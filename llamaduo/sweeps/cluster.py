"""Jobs that submitit has handed to a cluster, found again by the folders that they were submitted with.

    with jobs_broken_off(settings):     an interruption cancels what was submitted inside; after a failed job, the
        launcher.launch(...)            others are waited for before the error goes on

Hydra's launcher waits for one job after the other, and lets go of all of them at the first one that broke.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


@contextmanager
def jobs_broken_off(launcher: Mapping[str, Any]) -> Iterator[None]:
    """Leave no job behind that was submitted inside; does nothing for launchers other than submitit's."""
    named = launcher.get("submitit_folder")
    if named is None:
        yield
        return
    before = _jobs(named)
    on_slurm = "Slurm" in launcher["_target_"]
    try:
        yield
    except Exception:
        for job in _jobs(named) - before:
            _wait(job, named, on_slurm=on_slurm)
        raise
    except BaseException:
        _cancel(_jobs(named) - before, on_slurm=on_slurm)
        raise


def _jobs(named: str) -> set[str]:
    """Return the names of all jobs that were ever submitted to a folder such as `results/runs/.sweep/.submitit/%j`."""
    parent = Path(named).parent
    return {path.name for path in parent.iterdir() if path.name[:1].isdigit()} if parent.is_dir() else set()


def _wait(job: str, named: str, *, on_slurm: bool) -> None:
    if on_slurm:
        import submitit

        submitit.SlurmJob(Path(named), job).wait()
    else:
        with suppress(ChildProcessError):
            os.waitpid(int(job), 0)


def _cancel(jobs: set[str], *, on_slurm: bool) -> None:
    if on_slurm and jobs:
        subprocess.call(["scancel", *sorted(jobs)])
    elif not on_slurm:
        for job in jobs:
            with suppress(ProcessLookupError):
                os.kill(int(job), signal.SIGTERM)
