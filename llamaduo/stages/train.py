"""Train: fine-tune the base model on examples with LoRA, here or in a process of its own.

Reads examples; writes an adapter folder; returns an `Adapter`. How it is done: `training/fit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llamaduo.records import Adapter, Example
from llamaduo.training import fit
from llamaduo.training.job import TrainJob
from llamaduo.training.process import train_apart, trains_apart
from llamaduo.training.tuning import Progress


def train(
    job: TrainJob,
    examples: Sequence[Example],
    dev: Sequence[Example],
    *,
    progress: Progress,
    note: Callable[[str], None],
) -> Adapter:
    """Fine-tune as the job says; raises InputError or ConfigError for rows and settings that can't be trained with."""
    how = train_apart if trains_apart(job.runtime) else fit.train
    return how(job, examples, dev, progress=progress, note=note)
