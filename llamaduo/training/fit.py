"""Train: fine-tune the base model on examples with LoRA.

Reads examples; writes an adapter folder (safetensors); returns an `Adapter`. The loss counts response
tokens only, the end mark among them, and is a mean over the tokens of a whole optimizer step, however
that is cut into forward passes and spread over devices. Rows longer than `train.max_length` are left out
whole, or refused (`train.too_long`), and so are rows with an end mark in their response, and synthetic rows
that the chat template refuses or changes; they are counted,
and listed in the adapter's folder, a line of `skipped.jsonl` each:

    {"prompt_id": "5b1f...", "tokens": 812, "reason": "too_long"}

A training that was broken off goes on at its newest checkpoint, and ends with the very bytes that it would
have ended with (float32, CPU, one thread).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamaduo.config import Keep, TooLong, Train, plain
from llamaduo.data.chat import Chat
from llamaduo.data.rows import Rows, left_out, tokenised
from llamaduo.data.shown import shown
from llamaduo.errors import InputError, RunFolderError
from llamaduo.local.adapter import load_adapter, new_adapter
from llamaduo.local.model import give_back, load_base, load_chat
from llamaduo.records import COVERAGE, END_MARK, TEMPLATE, TOO_LONG, Adapter, Example, Skipped, to_json
from llamaduo.training.checkpoints import Checkpoints
from llamaduo.training.devices import Devices
from llamaduo.training.job import TrainJob
from llamaduo.training.loss import LOSSES
from llamaduo.training.tuning import FineTuning, Progress, State

SKIPPED = "skipped.jsonl"
"""In an adapter's folder: the rows that were left out of its training, a `Skipped` a line."""
_NAMED = 5


def train(
    job: TrainJob,
    examples: Sequence[Example],
    dev: Sequence[Example] = (),
    *,
    progress: Progress,
    devices: Devices | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Adapter:
    """Fine-tune and save the adapter to the job's folder.

    `dev` is what `train.keep=best` measures epochs with. Raises InputError if no row can be trained on or the loss
    diverges, ConfigError for settings that can't work with this model.
    """
    import torch

    if not examples:
        raise InputError("there are no rows to train on: check data.path and data.train_rows.")
    devices = devices or Devices()
    torch.manual_seed(job.runtime.seed)
    chat, config = load_chat(job.model), job.config
    count, (examples, skipped) = len(examples), _shown_whole(examples, chat)
    with devices.first():
        rows = tokenised(examples, chat, config.max_length, job.cache)
    skipped += left_out(examples, rows, chat)
    _refuse(skipped, count, config)
    held_out = tokenised(dev, chat, config.max_length, None) if config.keep is Keep.best else None
    if held_out is not None and not len(held_out):
        raise InputError("train.keep=best: no dev row can be used; raise data.dev_rows, or take train.keep=last.")
    state = _tuned(job, rows, held_out, skipped, chat.tokenizer, devices=devices, progress=progress, note=note)
    give_back()  # all that was loaded: whoever answers next, in this process or another one, finds the memory free
    return _record(examples, rows, skipped, state)


def _tuned(
    job: TrainJob,
    rows: Rows,
    held_out: Rows | None,
    skipped: Sequence[Skipped],
    tokenizer: Any,
    *,
    devices: Devices,
    progress: Progress,
    note: Callable[[str], None],
) -> State:
    """Load the model, train it and save the adapter."""
    base = load_base(job.model, job.runtime, job.config.quantization, tokenizer)
    tuning = FineTuning(
        _with_adapter(base, job, rows),
        rows,
        job.config,
        pad=tokenizer.pad_token_id,
        seed=job.runtime.seed,
        loss=LOSSES[job.loss],
        held_out=held_out,
        devices=devices,
        note=note,
    )
    checkpoints = None
    if job.checkpoints is not None and devices.replicated:
        identity = _identity(job, [rows] if held_out is None else [rows, held_out], devices.count)
        checkpoints = Checkpoints(job.checkpoints, identity, every_s=job.config.checkpoint_s)
    state = tuning.run(progress, checkpoints)
    _save(tuning, job.folder, skipped if devices.rank == 0 else [])
    return state


def _shown_whole(examples: Sequence[Example], chat: Chat) -> tuple[list[Example], list[Skipped]]:
    """Return the examples without synthetic ones that the template refuses or changes; coverage is checked before."""
    made = [example for example in examples if example.generator != COVERAGE]
    wrong = {id(row) for row, told in zip(made, shown(made, chat, learns=True), strict=True) if isinstance(told, str)}
    skipped = [Skipped(example.prompt_id, 0, TEMPLATE) for example in examples if id(example) in wrong]
    return [example for example in examples if id(example) not in wrong], skipped


def _record(examples: Sequence[Example], rows: Rows, skipped: Sequence[Skipped], state: State) -> Adapter:
    reasons = Counter(row.reason for row in skipped)
    return Adapter(
        train_rows=len(rows),
        synthetic_rows=sum(examples[at].generator != COVERAGE for at in rows.kept),
        skipped_rows=len(skipped),
        steps=state.step,
        tokens=state.tokens,
        loss=round(state.mean_loss, 6),
        padding=round(1 - state.tokens / state.processed, 6),
        epochs=state.epoch if state.best_epoch is None else state.best_epoch + 1,
        dev_loss=None if state.best_loss is None else round(state.best_loss, 6),
        too_long_rows=reasons[TOO_LONG],
        end_mark_rows=reasons[END_MARK],
        template_rows=reasons[TEMPLATE],
    )


def _refuse(skipped: Sequence[Skipped], count: int, config: Train) -> None:
    """Raise InputError where no row is left of so many, or where one is too long and `train.too_long` says refuse."""
    longer = [row for row in skipped if row.reason == TOO_LONG]
    if config.too_long is TooLong.refuse and longer:
        named = ", ".join(f"{row.prompt_id} ({row.tokens} tokens)" for row in longer[:_NAMED])
        more = f" and {len(longer) - _NAMED} more" if len(longer) > _NAMED else ""
        raise InputError(
            f"train.too_long=refuse: {len(longer)} of {count} training rows exceed {config.max_length} tokens: "
            f"{named}{more}. Raise train.max_length, shorten them, or take train.too_long=drop."
        )
    if len(skipped) == count:
        raise InputError(
            f"all {count} training rows exceed {config.max_length} tokens, hold an end mark or can't be shown by the "
            "chat template: raise train.max_length."
        )


def _identity(job: TrainJob, read: Sequence[Rows], count: int) -> str:
    """Return a hash of what decides how a training on `count` devices goes: rows, those of dev, loss and settings."""
    settings, runtime = plain(replace(job.config, checkpoint_s=0.0, too_long=TooLong.drop)), job.runtime
    origin = (job.start_from / "adapter_model.safetensors").read_bytes() if job.start_from else b""
    of = [
        settings,
        plain(job.model),
        runtime.seed,
        runtime.dtype,
        runtime.attention,
        hashlib.sha256(origin).hexdigest(),
    ]
    digest = hashlib.sha256(json.dumps([*of, job.loss, count], sort_keys=True).encode())
    for rows in read:
        for array in (rows.ids, rows.starts, rows.prompts):
            digest.update(array.tobytes())
    return digest.hexdigest()


def _save(tuning: FineTuning, folder: Path, skipped: Sequence[Skipped]) -> None:
    from safetensors import SafetensorError

    try:
        tuning.save(folder)
        if skipped:
            (folder / SKIPPED).write_text("".join(to_json(row) + "\n" for row in skipped), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise RunFolderError(
            f"{folder}: the adapter can't be written ({error}); free space, then run again."
        ) from error


def _with_adapter(base: Any, job: TrainJob, rows: Rows) -> Any:
    if job.config.liger:
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=base, cross_entropy=False, fused_linear_cross_entropy=False)
    if job.config.gradient_checkpointing:
        base.activation_checkpointing_enable()
    if job.start_from is not None:
        return load_adapter(base, str(job.start_from), job.model, trainable=True).train()
    return new_adapter(base, job.model, job.config, rows.ids).train()
