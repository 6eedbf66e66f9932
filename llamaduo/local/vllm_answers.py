"""Answers by a vLLM server with the adapter, once it is proved that the server applies it.

    predictions = vllm_answers(job, examples, chat, progress)

vLLM has been seen to serve the base model under an adapter's name, without a word (its issues 34186 and 55193). So
before any answer counts, a few prompts are asked of both: the server has to have read them as the very tokens that
training saw, and the adapter has to change what the base model says by more than that differs from one call to the
next. Prompts that leave no room for an answer are not sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from llamaduo.config import Infer, Price, ServiceLLM
from llamaduo.data.chat import Chat
from llamaduo.errors import ServiceError
from llamaduo.local.job import AnswerJob
from llamaduo.local.vllm_server import ADAPTER, BASE, KEY, Server, arguments, serving
from llamaduo.records import Example, Prediction
from llamaduo.service.answers import not_answered, server_answers
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal

_REPLY_S = 1800.0
_PROBES = 4
_PROBE_TOKENS = 16
_TIMES_NOISE = 3.0
_LEAST_CHANGE = 1e-4
"""Nats: below this, a log-probability that differs is rounding, even where the base model repeats itself exactly."""


def vllm_answers(
    job: AnswerJob, examples: Sequence[Example], chat: Chat, progress: Callable[[int, int], None]
) -> list[Prediction]:
    """Return `infer.samples` predictions a prompt, in order; raises ServiceError if vLLM can't be trusted with them."""
    lengths = [len(chat.prompt_ids(example.messages)) for example in examples]
    fitting = [example for example, length in zip(examples, lengths, strict=True) if length <= job.room]
    made: Iterator[Prediction] = iter(())
    if fitting:
        with serving(arguments(job), chat.tokenizer.get_chat_template(), job.runtime) as server:
            if job.adapter is not None:
                _prove(server, chat, fitting[:_PROBES])
            llm = _as_service_llm(server, chat, ADAPTER if job.adapter else BASE, job.config)
            made = iter(_answers(job, fitting, llm, server, progress))
    return [
        next(made) if length <= job.room else not_answered(example, k, "prompt_too_long", prompt_tokens=length)
        for example, length in zip(examples, lengths, strict=True)
        for k in range(job.config.samples)
    ]


def _answers(
    job: AnswerJob,
    examples: Sequence[Example],
    llm: ServiceLLM,
    server: Server,
    progress: Callable[[int, int], None],
) -> list[Prediction]:
    """Ask for all answers; they cost nothing and go into no journal but one that ends with the server."""
    service = Service(Journal(server.scratch / "journal.sqlite"), run="vllm/answers", budget_usd=None)
    try:
        seed = job.runtime.seed
        made = server_answers(examples, llm, config=job.config, seed=seed, service=service, progress=progress)
        return [replace(prediction, request=None) for prediction in made]
    finally:
        service.close()


def _as_service_llm(server: Server, chat: Chat, name: str, config: Infer) -> ServiceLLM:
    """Return one of the server's models as what the service layer asks."""
    return ServiceLLM(
        name="vLLM",
        provider="openai",
        model=name,
        base_url=f"{server.url}/v1",
        api_key_env=KEY,
        key_required=False,
        send_seed=True,
        parameters={"extra_body": {"stop_token_ids": sorted(chat.end_ids)}},
        concurrency=config.batch_size,
        timeout_s=_REPLY_S,
        max_attempts=3,
        price=Price(0.0, 0.0, "a server of our own"),
    )


@dataclass(frozen=True)
class _Said:
    """What a model said to a probe, greedily."""

    prompt_ids: list[int]
    """The tokens that the server made of the prompt."""
    tokens: list[str]
    logprobs: list[float]
    """The log-probability of each token said, in nats."""


def _prove(server: Server, chat: Chat, examples: Sequence[Example]) -> None:
    """Raise ServiceError unless the server reads prompts as training did, and the adapter changes its answers."""
    noise = change = 0.0
    for example in examples:
        once, again = (_probe(server, BASE, example) for _ in range(2))
        adapted = _probe(server, ADAPTER, example)
        wanted = chat.prompt_ids(example.messages)
        if not once.prompt_ids == adapted.prompt_ids == wanted:
            raise ServiceError(
                f"vLLM makes other tokens of a prompt than training did ({len(adapted.prompt_ids)} tokens, not "
                f"{len(wanted)}): it doesn't use tokenizer and chat template as told. Take infer=default."
            )
        noise = max(noise, _difference(once, again))
        change = max(change, min(_difference(once, adapted), _difference(again, adapted)))
    if change <= max(_TIMES_NOISE * noise, _LEAST_CHANGE):
        raise ServiceError(
            f"vLLM does not apply the adapter: over {len(examples)} prompts it changes log-probabilities by at most "
            f"{change:.2g}, and the base model differs from itself by {noise:.2g}. Take infer=default."
        )


def _probe(server: Server, name: str, example: Example) -> _Said:
    told = {"model": name, "messages": list(example.messages), "temperature": 0, "max_tokens": _PROBE_TOKENS}
    told |= {"ignore_eos": True, "logprobs": True, "return_token_ids": True}
    try:
        reply = json.loads(server.ask("/v1/chat/completions", told, timeout=_REPLY_S))
        said = reply["choices"][0]["logprobs"]["content"]
        tokens, logprobs = [token["token"] for token in said], [float(token["logprob"]) for token in said]
        return _Said(list(reply["prompt_token_ids"]), tokens, logprobs)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ServiceError(f"vLLM can't be asked for log-probabilities and prompt tokens: {error!r}.") from error


def _difference(one: _Said, other: _Said) -> float:
    """Return by how much log-probabilities differ at most, up to the first token that is another one (nats)."""
    most = 0.0
    for here, there, p, q in zip(one.tokens, other.tokens, one.logprobs, other.logprobs, strict=False):
        most = max(most, abs(p - q))
        if here != there:
            break
    return most
