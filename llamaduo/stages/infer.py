"""Infer: let the fine-tuned model answer prompts, K samples each.

Reads examples and an adapter; returns a `Prediction` for every (prompt, sample), in order. Each sample
draws from a generator of its own, seeded by run, prompt and sample, so an answer depends neither on the
batch size nor on which others are drawn beside it (in bfloat16 up to its rounding). An answer ends at
an end mark of the chat or of the model's own, or before the first stop string. A prompt that leaves no room
for an answer is not cut: it gets a prediction without text whose finish_reason is `prompt_too_long`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from llamaduo.config import FEW_SHOTS, Backend, Beside, Experiment, Infer
from llamaduo.data.chat import Chat, asked
from llamaduo.data.shots import nearest, with_nearest, with_shots
from llamaduo.errors import InputError, ServiceError
from llamaduo.evidence.scorecard import unanswered
from llamaduo.local.adapter import load_adapter
from llamaduo.local.decoding import Rules, Sample, decode_what_fits
from llamaduo.local.job import AnswerJob
from llamaduo.local.model import give_back, load_base, load_chat
from llamaduo.local.vllm_answers import vllm_answers
from llamaduo.records import Example, Prediction
from llamaduo.service.answers import server_answers
from llamaduo.service.client import Service
from llamaduo.service.requests import Failure, Outcome
from llamaduo.service.unusable import Told, of_server


def infer(
    job: AnswerJob,
    examples: Sequence[Example],
    *,
    progress: Callable[[int, int], None],
    pool: Sequence[Example] = (),
    service: Service | None = None,
    note: Callable[[str], None] = lambda text: None,
    troubled: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Prediction]:
    """Return `infer.samples` predictions a prompt.

    `pool` is where the pairs of a few-shot prompt come from (`infer.shots`), as many of them as leave room;
    `service` reaches the server of `backend=endpoint`, which answers with a model of its own; `troubled` is told what
    came in the place of each answer that did not.
    """
    config = job.config
    if config.served:
        assert config.server is not None
        assert service is not None
        made = server_answers(
            with_nearest(examples, pool, config.shots),
            config.server,
            config=config,
            seed=job.runtime.seed,
            service=service,
            progress=progress,
            troubled=troubled,
        )
    else:
        chat, shots = load_chat(job.model), nearest(examples, pool, config.shots)
        asked = [_fitting(chat, example, near, job.room) for example, near in zip(examples, shots, strict=True)]
        answer = vllm_answers if config.backend is Backend.vllm else partial(_answered_here, note=note)
        made = answer(job, asked, chat, progress)
    prompts = [example.prompt for example in examples for _ in range(config.samples)]
    return [replace(prediction, prompt=prompt) for prediction, prompt in zip(made, prompts, strict=True)]


def answering(experiment: Experiment, beside: Beside | None) -> Infer:
    """Return how the prompts are answered by the model, or by who stands beside it."""
    config = experiment.infer
    if beside is Beside.service_llm:
        llm = experiment.service_llm
        return replace(
            config, backend=Backend.endpoint, server=llm, temperature=None, max_new_tokens=llm.max_tokens, shots=0
        )
    return replace(config, shots=FEW_SHOTS) if beside is Beside.few_shot else config


def answer_job(experiment: Experiment, adapter: Path | None, beside: Beside | None = None) -> AnswerJob:
    """Return who answers: the model with an adapter, or who stands beside it."""
    return AnswerJob(
        experiment.local_model,
        answering(experiment, beside),
        experiment.runtime,
        experiment.train.quantization,
        str(adapter) if adapter and experiment.train.enabled else None,
    )


def odd_stops(stops: Sequence[str]) -> list[str]:
    """Return a sentence on stop strings with a backslash where a line break may be meant."""
    odd = [text for text in stops if re.search(r"\\[ntr]", text)]
    told = (
        f'infer.stop: {", ".join(odd)}: a backslash and a letter, no line break; in YAML "\\n" in double quotes is one.'
    )
    return [told] if odd else []


def refuse_unanswered(predictions: Sequence[Prediction], troubles: Sequence[Outcome], limit: float) -> None:
    """Keep a server's outage from becoming an artifact: raise ServiceError, and the same command asks again."""
    reasons = unanswered(predictions)
    if reasons.total() > limit * len(predictions):
        failures = [one.message for one in troubles if isinstance(one, Failure)]
        replies = [Told("It", "infer.server", one.quotable) for one in troubles if not isinstance(one, Failure)]
        told, last = replies[0] if replies else None, failures[-1] if failures else None
        raise ServiceError(of_server(reasons, len(predictions), limit=limit, told=told, failure=last))


def refuse_hopeless(predictions: Sequence[Prediction], limit: float) -> None:
    """Buy no data for a gate that can't be passed: which prompts are too long doesn't change with training."""
    too_long = sum(prediction.finish_reason == "prompt_too_long" for prediction in predictions)
    if too_long > limit * len(predictions):
        raise InputError(
            f"{too_long} of {len(predictions)} answers at the gate are missing: prompts exceed the model's context, so "
            "it can't pass. Take a longer context, a smaller infer.max_new_tokens, or synthesis=none."
        )


def _fitting(chat: Chat, example: Example, shots: Sequence[Example], room: int) -> Example:
    """Return a prompt behind the most alike of the shots that there is room for."""
    for count in range(len(shots), 0, -1):
        longer = with_shots(example, shots[:count])
        if len(chat.prompt_ids(asked(longer))) <= room:
            return longer
    return example


def _answered_here(
    job: AnswerJob,
    examples: Sequence[Example],
    chat: Chat,
    progress: Callable[[int, int], None],
    *,
    note: Callable[[str], None],
) -> list[Prediction]:
    config = job.config
    endings = _Endings(chat, config.stop)
    prompts = [chat.prompt_ids(asked(example)) for example in examples]
    assert config.temperature is not None  # checked by checks.problems
    different = config.samples if config.temperature > 0 else 1
    wanted = [(at, k) for at in range(len(examples)) for k in range(different) if len(prompts[at]) <= job.room]
    samples = [
        Sample(at, _seed(job.runtime.seed, examples[at].prompt_id, k), config.max_new_tokens) for at, k in wanted
    ]
    answers: dict[tuple[int, int], list[int]] = {}

    def finished(number: int, ids: list[int]) -> None:
        answers[wanted[number]] = ids
        progress(len(answers), len(wanted))

    if wanted:
        network = _network(job, chat)
        rules = Rules(config.temperature, endings.marks, endings.stopped if config.stop else None)
        decode_what_fits(network, prompts, samples, rules, slots=config.batch_size, finished=finished, note=note)
        del network
        give_back()
    return [
        _prediction(example, k, len(prompts[at]), answers.get((at, k % different)), endings)
        for at, example in enumerate(examples)
        for k in range(config.samples)
    ]


def _network(job: AnswerJob, chat: Chat) -> Any:
    base = load_base(job.model, job.runtime, job.quantization, chat.tokenizer)
    if base.config.get_text_config()._attn_implementation not in ("eager", "sdpa"):
        base.set_attn_implementation("sdpa")  # the others don't take the masks of slots
    return base if job.adapter is None else load_adapter(base, job.adapter, job.model).eval()


def _seed(seed: int, prompt_id: str, sample: int) -> int:
    digest = hashlib.sha256(f"{seed} {prompt_id} {sample}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


class _Endings:
    """Where an answer ends: with one of the chat's marks, or before a stop string."""

    def __init__(self, chat: Chat, stop: Sequence[str]) -> None:
        self._tokenizer, self._stop = chat.tokenizer, stop
        added = chat.tokenizer.get_added_vocab()
        self.marks = frozenset(chat.end_ids | {added[text] for text in stop if text in added})
        self._reach = max((len(text.encode()) for text in stop), default=0) + 4

    def stopped(self, ids: list[int]) -> bool:
        """Tell whether a stop string is in the text of these tokens, the last of which is new.

        A token of text is at least a byte of it, so the last few tell; what they say is checked against the whole.
        """
        return self._found(self._decoded(ids[-self._reach :])) >= 0 and self._found(self._decoded(ids)) >= 0

    def text(self, ids: list[int]) -> tuple[str, str]:
        """Return an answer's text and why it ended: `stop` or `length`."""
        marked = bool(ids) and ids[-1] in self.marks
        text = self._decoded(ids[:-1] if marked else ids)
        found = self._found(text)
        ended = found >= 0 or marked
        return text[: found if found >= 0 else None].strip(), "stop" if ended else "length"

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _found(self, text: str) -> int:
        """Return where the first stop string begins, or -1."""
        return min((at for at in map(text.find, self._stop) if at >= 0), default=-1)


def _prediction(
    example: Example, sample: int, prompt_tokens: int, ids: list[int] | None, endings: _Endings
) -> Prediction:
    text, reason = ("", "prompt_too_long") if ids is None else endings.text(ids)
    return Prediction(
        prompt_id=example.prompt_id,
        sample=sample,
        prompt=example.prompt,
        reference=example.response,
        text=text,
        finish_reason=reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=len(ids or ()),
        cluster=example.cluster,
    )
