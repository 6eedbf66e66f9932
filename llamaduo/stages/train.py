"""Train: fine-tune the base model on examples with LoRA.

Reads examples; writes an adapter folder (safetensors); returns an `Adapter`. The loss counts response
tokens only, the end mark among them, and is a mean over the tokens of a whole optimizer step, however
that is cut into batches. Rows of like length go into one batch, so that little is padding; rows longer
than the context are left out whole and counted.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.config import LocalModel, Quantization, Runtime, Train
from llamaduo.data.chat import Chat
from llamaduo.errors import ConfigError, InputError, RunFolderError
from llamaduo.local_model import load_base, load_chat
from llamaduo.records import COVERAGE, Adapter, Example

if TYPE_CHECKING:
    import torch

Row = tuple[list[int], list[int]]
"""Prompt tokens and response tokens."""

_POOL = 32
"""Batches whose rows are sorted by length together."""


def train(
    examples: Sequence[Example],
    folder: Path,
    *,
    model: LocalModel,
    config: Train,
    runtime: Runtime,
    start_from: str | None,
    progress: Callable[[int, int], None],
) -> Adapter:
    """Fine-tune and save the adapter to `folder`; `start_from` is an adapter's folder, or None for a new one."""
    import torch

    torch.manual_seed(runtime.seed)
    chat = load_chat(model)
    rendered = render(examples, chat, config.max_length)
    rows = [row for row in rendered if row is not None]
    synthetic = sum(row is not None and e.generator != COVERAGE for e, row in zip(examples, rendered, strict=True))
    if not rows:
        raise InputError(
            f"all {len(examples)} training rows exceed {config.max_length} tokens: raise train.max_length."
        )
    network = _with_adapter(load_base(model, runtime, config.quantization), model, config, start_from)
    per_epoch = math.ceil(len(rows) / (config.batch_size * config.accumulation))
    epochs = max(config.epochs, math.ceil(config.min_steps / per_epoch))
    optimizer, schedule = _optimizer(network, config, steps=epochs * per_epoch)
    rng = random.Random(runtime.seed)
    step = tokens = 0
    losses: list[tuple[float, int]] = []
    for _ in range(epochs):
        losses.clear()
        for batches in _steps(rows, config, rng):
            losses.append(_step(network, batches, optimizer, config.max_grad_norm, chat.tokenizer.pad_token_id))
            schedule.step()
            step += 1
            tokens += sum(len(prompt) + len(response) for batch in batches for prompt, response in batch)
            progress(step, epochs * per_epoch)
    _save(network, folder)
    loss = sum(total for total, _ in losses) / sum(count for _, count in losses)
    if not math.isfinite(loss):
        raise InputError(f"training diverged (loss {loss}): lower train.learning_rate={config.learning_rate:g}.")
    return Adapter(len(rows), synthetic, len(examples) - len(rows), step, tokens, round(loss, 6))


def render(examples: Sequence[Example], chat: Chat, max_length: int) -> list[Row | None]:
    """Return each example as tokens, or None where it can't be trained on whole.

    That is so if it exceeds `max_length` tokens, or if its response holds the template's end mark as text.
    """
    rows: list[Row | None] = []
    for example in examples:
        prompt, response = chat.prompt_ids(example.messages), chat.response_ids(example.messages, example.response)
        fits = response is not None and len(prompt) + len(response) <= max_length
        rows.append((prompt, response) if fits and response is not None else None)
    return rows


def _save(network: Any, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        network.save_pretrained(folder, save_embedding_layers=False)
    except SafetensorError as error:
        raise RunFolderError(
            f"{folder}: the adapter can't be written ({error}); free space, then run again."
        ) from error


def _with_adapter(base: Any, model: LocalModel, config: Train, start_from: str | None) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training

    if config.quantization is not Quantization.none:
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=config.gradient_checkpointing)
    elif config.gradient_checkpointing:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    if start_from is not None:
        return PeftModel.from_pretrained(base, start_from, is_trainable=True).train()
    targets: Any = config.target_modules or None
    if targets == ["all-linear"]:
        targets = "all-linear"
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )
    try:
        network = get_peft_model(base, lora)
    except ValueError as error:
        raise ConfigError(f"train.target_modules={config.target_modules}: {error}") from error
    network.peft_config["default"].base_model_name_or_path = model.path
    return network.train()


def _optimizer(network: Any, config: Train, steps: int) -> tuple[Any, Any]:
    """AdamW over the adapter, with a linear warm-up and a cosine down to zero."""
    import torch

    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
    warm = max(1, round(config.warmup_ratio * steps))

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, scale)


def _steps(rows: list[Row], config: Train, rng: random.Random) -> Iterator[list[list[Row]]]:
    """Yield one epoch of optimizer steps, each a list of batches of rows of like length."""
    order = list(rows)
    rng.shuffle(order)
    pool = _POOL * config.batch_size
    batches = []
    for start in range(0, len(order), pool):
        near = sorted(order[start : start + pool], key=lambda row: len(row[0]) + len(row[1]))
        batches += [near[at : at + config.batch_size] for at in range(0, len(near), config.batch_size)]
    rng.shuffle(batches)
    for at in range(0, len(batches), config.accumulation):
        yield batches[at : at + config.accumulation]


def _step(
    network: Any, batches: list[list[Row]], optimizer: torch.optim.Optimizer, max_norm: float, pad: int
) -> tuple[float, int]:
    """Take one optimizer step; returns the summed loss and the response tokens it is over."""
    import torch

    count = sum(len(response) for batch in batches for _, response in batch)
    total = 0.0
    for batch in batches:
        ids, mask, labels = _tensors(batch, pad, network.device)
        logits = network(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        wanted = labels[:, 1:]
        kept = wanted != -100
        loss = torch.nn.functional.cross_entropy(logits[kept].float(), wanted[kept], reduction="sum")
        (loss / count).backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, count


def _tensors(batch: list[Row], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    width = max(len(prompt) + len(response) for prompt, response in batch)
    ids = torch.full((len(batch), width), pad)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    labels = torch.full((len(batch), width), -100)
    for index, (prompt, response) in enumerate(batch):
        row = torch.tensor(prompt + response)
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
        labels[index, len(prompt) : len(row)] = row[len(prompt) :]
    return ids.to(device), mask.to(device), labels.to(device)
