"""Weigh: how hard training rows are for the student, by one forward pass.

Reads examples and an adapter; returns a `RowLoss` for each example, in order: its mean loss per response token, in
nats, without dropout. Rows that can't be trained on have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamaduo.config import Train
from llamaduo.data.rows import tokenised
from llamaduo.local.adapter import load_adapter
from llamaduo.local.job import AnswerJob
from llamaduo.local.model import give_back, load_base, load_chat
from llamaduo.records import Example
from llamaduo.training.batches import Limits
from llamaduo.training.row_losses import row_losses


@dataclass(frozen=True)
class RowLoss:
    """A training row under the student."""

    prompt_id: str
    """The row's prompt."""
    loss: float | None
    """Mean loss per response token, in nats; None for a row that can't be trained on."""


def weigh(
    job: AnswerJob, examples: Sequence[Example], config: Train, *, progress: Callable[[int, int], None]
) -> list[RowLoss]:
    """Return each row's loss under the model with the job's adapter."""
    chat = load_chat(job.model)
    rows = tokenised(examples, chat, config.max_length, None)
    network = load_base(job.model, job.runtime, job.quantization, chat.tokenizer)
    if job.adapter is not None:
        network = load_adapter(network, job.adapter, job.model).eval()
    limits = Limits(config.batch_size, config.tokens_per_batch)
    losses = row_losses(network, rows, limits, pad=chat.tokenizer.pad_token_id, progress=progress)
    del network
    give_back()
    return [RowLoss(example.prompt_id, losses.get(at)) for at, example in enumerate(examples)]
