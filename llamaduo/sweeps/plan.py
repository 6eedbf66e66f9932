"""The plan of a study, and how each of its runs ended when it was last begun.

    results/<study>/grid.json                  {"study": "runs", "cells": [{"run": ..., "overrides": [...], ...}, ...]}
    results/<study>/.sweep/notes/<run>.json    {"result": "running", "pid": 4711, "host": "node3", ...}

A cell is a run that a sweep has asked for. Sweeps of one study add up: a cell is known by the name of its run's folder.
Cells that the newest sweep of a configuration no longer asks for stay in the plan, but as left over.
A note is written by the process that runs the cell, when it begins and when it ends; the run's own folder is the
record of what was found, the note only says what became of the last attempt.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from llamaduo.config import Experiment, JudgeKind
from llamaduo.errors import InputError
from llamaduo.files.regular import read_json
from llamaduo.files.writing import write_text

RUNNING, FAILED, INTERRUPTED = "running", "failed", "interrupted"


@dataclass(frozen=True)
class PlannedRun:
    """A run that a sweep has asked for."""

    run: str
    """Name of its folder, fingerprint included."""
    overrides: list[str]
    """What the sweep has set for it."""
    task: str
    local_model: str
    service_llm: str | None
    """Who synthesises; null where nobody does."""
    judges: list[str]
    protocol: str
    lora_r: int
    configuration: str = ""
    """The study's file that the sweep was composed from (`-cn`); empty in plans that don't say so."""
    sweep: str = ""
    """The process that has planned it last, such as `pid 4711 on node3`."""
    left_over: bool = False
    """Whether a later sweep of the same configuration has not asked for it."""


@dataclass(frozen=True)
class Note:
    """What became of the last attempt at a cell."""

    result: str
    """`running`, `failed`, `interrupted`, or the rule that has stopped it."""
    exit_code: int | None
    """What the run alone would have ended with; null while it runs."""
    error: str | None
    """What has ended it, if it failed."""
    pid: int
    host: str
    sweep: int
    """Process id of the sweep that it belongs to."""


def cell_of(run: str, overrides: Sequence[str], experiment: Experiment, configuration: str, sweep: str) -> PlannedRun:
    """Return a line of the plan, of a sweep (a process) of a configuration (a file's name)."""
    judge = experiment.judge
    return PlannedRun(
        run=run,
        overrides=list(overrides),
        task=experiment.task.name,
        local_model=experiment.local_model.name,
        service_llm=experiment.service_llm.name if experiment.synthesis.enabled else None,
        judges=list(judge.panel) if judge.kind is JudgeKind.service else ["chrf", "rouge_l"],
        protocol=experiment.protocol.name,
        lora_r=experiment.train.lora_r,
        configuration=configuration,
        sweep=sweep,
    )


def add_to_grid(study: Path, cells: Sequence[PlannedRun]) -> None:
    """Put a sweep's cells into a study's plan; those of the same folder are replaced.

    Those of other sweeps stay. Of an earlier sweep of the same configuration, they are left over from now on.
    """
    (study / ".sweep").mkdir(parents=True, exist_ok=True)
    with _alone(study / ".sweep" / "grid.lock"):
        configurations = {cell.configuration for cell in cells}
        earlier = [
            replace(cell, left_over=cell.left_over or cell.configuration in configurations) for cell in read_grid(study)
        ]
        merged = {cell.run: cell for cell in [*earlier, *cells]}
        plan = {"study": study.name, "cells": [asdict(cell) for cell in merged.values()]}
        write_text(study / "grid.json", json.dumps(plan, indent=1, ensure_ascii=False) + "\n")


def read_grid(study: Path) -> list[PlannedRun]:
    """Return the plan of a study, in the order in which it was asked for; none if it never was a sweep."""
    path = study / "grid.json"
    try:
        return [PlannedRun(**cell) for cell in read_json(path)["cells"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path}: can't be read ({type(error).__name__}: {error}); remove it, the next sweep writes it again."
        ) from error


def write_note(folder: Path, note: Note) -> None:
    """Say what becomes of the cell whose run lies in `folder`."""
    path = _note(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(asdict(note), ensure_ascii=False) + "\n")


def read_note(folder: Path) -> Note | None:
    """Return what became of a cell when it was last begun; None if no sweep has begun it."""
    try:
        found: dict[str, Any] = read_json(_note(folder))
        return Note(**found)
    except (OSError, ValueError, TypeError):
        return None


def forget_note(folder: Path) -> None:
    """Make a cell one that was not begun."""
    _note(folder).unlink(missing_ok=True)


def _note(folder: Path) -> Path:
    return folder.parent / ".sweep" / "notes" / f"{folder.name}.json"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process at a time change the plan."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)
