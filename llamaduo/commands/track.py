"""`llamaduo track DIR`: finished runs go to W&B from their own records, each step once, grouped by study.

    print(track(["results/main_table"]))
    print(track(["results/main_table", "--offline"]))       # W&B's own folders, for `wandb sync`

Of each study's folder the report's tables go too, if there are any: `tables/*.csv`, `runs.csv`, `runs.parquet`. A
second `track` sends what is new, which is nothing if nothing is. Runs that are not finished are left out and named.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llamaduo.commands.arguments import told_apart
from llamaduo.config import Tracking
from llamaduo.errors import ConfigError
from llamaduo.runs.record import RunRecord, read_runs
from llamaduo.runs.tracking import KEY, Target, send, send_tables

_USAGE = "usage: llamaduo track DIR [--offline] (a run's folder, a study's, or results/)."


def main(arguments: Sequence[str]) -> int:
    """Send what W&B doesn't have yet, print what was done and return the exit code."""
    print(track(arguments), end="")
    return 0


def track(arguments: Sequence[str]) -> str:
    """Send what W&B doesn't have yet; return what was done, a line for each run and each study's tables.

    Raises ConfigError for wrong arguments or a missing key, InputError where there is no run, ServiceError where W&B
    fails: what was sent before stays sent, and the same command goes on behind it.
    """
    given = told_apart(arguments, flags=("--offline",))
    folder, offline = given.place(_USAGE), "--offline" in given.options
    if not offline and not os.environ.get(KEY):
        raise ConfigError(
            f"{KEY} is not set, so W&B can't be reached: set it, or add --offline for `wandb sync` later."
        )
    runs = read_runs(Path(folder))
    lines = [_sent(run, offline) for run in runs]
    lines += [_tables_sent(folder, run, offline) for folder, run in _studies(runs).items()]
    return "".join(f"{line}\n" for line in lines if line)


def _target(run: RunRecord, offline: bool) -> Target:
    tracking = run.experiment.tracking
    return Target(tracking.project or Tracking.project, tracking.entity, offline)


def _study(run: RunRecord) -> str:
    return str(run.experiment.study or run.folder.resolve().parent.name)


def _sent(run: RunRecord, offline: bool) -> str:
    """Send one run; return what was done."""
    if run.state.status != "done":
        return f"{run.name}: {run.state.status}, left out: only finished runs are sent."
    answers = int(run.experiment.tracking.answers)
    count = send(
        _target(run, offline),
        _study(run),
        run.folder,
        run.config,
        run.history,
        answers=answers,
        privacy=run.experiment.privacy,
    )
    return f"{run.name}: {_counted(count, 'step')} sent" + ("." if count else ", W&B has them all.")


def _studies(runs: Sequence[RunRecord]) -> dict[Path, RunRecord]:
    """Return the studies' folders, each with a run of it that is finished."""
    found: dict[Path, RunRecord] = {}
    for run in runs:
        if run.state.status == "done":
            found.setdefault(run.folder.parent, run)
    return found


def _tables_sent(folder: Path, run: RunRecord, offline: bool) -> str:
    """Send a study's tables; return what was done, nothing if it has no report."""
    single = (folder / name for name in ("runs.csv", "runs.parquet"))
    files = [*sorted(folder.glob("tables/*.csv")), *(path for path in single if path.exists())]
    if not files:
        return ""
    count = send_tables(_target(run, offline), _study(run), folder, files)
    return f"{_study(run)}: {_counted(count, 'table')} sent" + ("." if count else ", W&B has them all.")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
