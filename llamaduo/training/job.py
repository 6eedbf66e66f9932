"""A training as a record: `job.json`, where a process of its own does it.

TrainJob.read(job.written()) == job
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from llamaduo.config import LocalModel, Runtime, Train, plain
from llamaduo.runs.saved_config import typed

_PATHS = ("folder", "start_from", "checkpoints", "cache")


@dataclass(frozen=True)
class TrainJob:
    """What is to be trained, how and to where; the rows are handed over beside it."""

    folder: Path
    """Where the adapter goes; what passes between processes lies beside it."""
    model: LocalModel
    config: Train
    runtime: Runtime
    start_from: Path | None = None
    """The folder of the adapter to begin with; None for a new one."""
    checkpoints: Path | None = None
    """Where its states are kept, from which it goes on when it was broken off; None keeps none."""
    cache: Path | None = None
    """Where rendered and tokenised rows are kept; None keeps none."""
    loss: str = "responses"
    """What is made small, by its name in `training.loss.LOSSES`."""

    def written(self) -> str:
        """Return it as `job.json` holds it: paths are absolute."""
        return json.dumps(plain(vars(self)), default=lambda path: str(path.absolute()))

    @classmethod
    def read(cls, text: str) -> TrainJob:
        """Return the job that was written."""
        tree = json.loads(text)
        return typed(cls, tree | {name: tree[name] and Path(tree[name]) for name in _PATHS})
