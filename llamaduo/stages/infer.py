"""Infer: let the fine-tuned model answer prompts, K samples each.

Reads examples and an adapter; returns a `Prediction` for every (prompt, sample), in order. Each sample
draws from a generator of its own, seeded by run, prompt and sample, so an answer does not depend on
which others share its batch. A prompt that leaves no room for an answer is not cut: it gets a
prediction without text whose finish_reason is `prompt_too_long`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from llamaduo.config import Infer, LocalModel, Quantization, Runtime
from llamaduo.local_model import load_base, load_chat
from llamaduo.records import Example, Prediction

if TYPE_CHECKING:
    import torch


def infer(
    examples: Sequence[Example],
    adapter: str | None,
    *,
    model: LocalModel,
    config: Infer,
    runtime: Runtime,
    quantization: Quantization,
    progress: Callable[[int, int], None],
) -> list[Prediction]:
    """Return `config.samples` predictions a prompt; `adapter` is a folder, or None for the bare base model."""
    chat = load_chat(model)
    prompts = [chat.prompt_ids(example.messages) for example in examples]
    room = model.context - config.max_new_tokens
    jobs = [(at, k) for at in range(len(examples)) for k in range(config.samples) if len(prompts[at]) <= room]
    jobs.sort(key=lambda job: -len(prompts[job[0]]))
    network = _network(model, runtime, quantization, adapter) if jobs else None
    answers: dict[tuple[int, int], list[int]] = {}
    for start in range(0, len(jobs), config.batch_size):
        batch = jobs[start : start + config.batch_size]
        seeds = [_seed(runtime.seed, examples[at].prompt_id, k) for at, k in batch]
        made = _answer(network, [prompts[at] for at, _ in batch], seeds, chat, config)
        answers.update(zip(batch, made, strict=True))
        progress(len(answers), len(jobs))
    return [
        _prediction(example, k, len(prompts[at]), answers.get((at, k)), chat)
        for at, example in enumerate(examples)
        for k in range(config.samples)
    ]


def _network(model: LocalModel, runtime: Runtime, quantization: Quantization, adapter: str | None) -> Any:
    base = load_base(model, runtime, quantization)
    if adapter is None:
        return base
    from peft import PeftModel

    return PeftModel.from_pretrained(base, adapter).eval()


def _seed(seed: int, prompt_id: str, sample: int) -> int:
    digest = hashlib.sha256(f"{seed} {prompt_id} {sample}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


class _SeededSampling:
    """Samples by the Gumbel-max trick: greedy decoding over logits / T plus noise is sampling at T.

    The noise of each row comes from a generator of its own.
    """

    def __init__(self, seeds: Sequence[int], temperature: float, device: torch.device) -> None:
        import torch

        self._temperature = temperature
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        noise = torch.empty_like(scores, dtype=torch.float32)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() / self._temperature - noise.log()


def _answer(network: Any, prompts: list[list[int]], seeds: list[int], chat: Any, config: Infer) -> list[list[int]]:
    """Return the new tokens for a batch of prompts, each up to and with its end mark."""
    import torch
    from transformers import LogitsProcessorList

    width = max(map(len, prompts))
    pad = chat.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in prompts], device=network.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=network.device)
    sampling = LogitsProcessorList()
    if config.temperature > 0:
        sampling.append(_SeededSampling(seeds, config.temperature, network.device))
    with torch.inference_mode():
        out = network.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=config.max_new_tokens,
            eos_token_id=sorted(chat.end_ids),
            pad_token_id=pad,
            logits_processor=sampling,
        )
    return [_until_end(row, chat.end_ids) for row in out[:, width:].tolist()]


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    stops = [index for index, token in enumerate(ids) if token in ends]
    return ids[: stops[0] + 1] if stops else ids


def _prediction(example: Example, sample: int, prompt_tokens: int, ids: list[int] | None, chat: Any) -> Prediction:
    if ids is None:
        text, reason = "", "prompt_too_long"
    else:
        text = chat.tokenizer.decode(ids, skip_special_tokens=True).strip()
        reason = "stop" if ids and ids[-1] in chat.end_ids else "length"
    return Prediction(
        prompt_id=example.prompt_id,
        sample=sample,
        prompt=example.prompt,
        reference=example.response,
        text=text,
        finish_reason=reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=len(ids or ()),
    )
