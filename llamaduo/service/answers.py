"""Answers: prompts go to an OpenAI-compatible server instead of a model that is loaded here.

    found = server_answers(examples, server, config=config, seed=42, service=service, progress=progress)

Reads examples; returns a `Prediction` for every (prompt, sample), in order. Each one is a request of its own, whose
repeat number is drawn from the run's seed, the prompt and the sample; a server that takes a seed is sent this number.
So no answer is taken for another one, and a run with another seed gets others. What is no answer (a call that
failed, thoughts alone, a tool's call) has no text, and its finish_reason says why; `troubled` is told what came
instead.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence

from llamaduo.config import Infer, ServiceLLM
from llamaduo.records import ANSWERED, Example, Prediction
from llamaduo.service.asking_again import again_if
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Progress, Service
from llamaduo.service.refusals import TOO_LONG
from llamaduo.service.replies import unfinished
from llamaduo.service.requests import Failure, Outcome, Request

_TOO_LONG = (TOO_LONG, "ContextWindowExceededError")


def server_answers(
    examples: Sequence[Example],
    server: ServiceLLM,
    *,
    config: Infer,
    seed: int,
    service: Service,
    progress: Progress,
    troubled: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Prediction]:
    """Return `config.samples` predictions a prompt; raises ServiceError where the server can't be reached."""
    again = again_if(
        lambda reply: reply.finish_reason not in ANSWERED,
        lambda asked: dataclasses.replace(asked, repeat=(asked.repeat + 1) % 2**31),
        usual=0,
        service=service,
    )
    outcomes = service.ask(requests(examples, server, config=config, seed=seed), progress, again)
    for outcome in outcomes:
        if _finish_reason(outcome) not in (*ANSWERED, "prompt_too_long"):
            troubled(outcome)
    jobs = [(example, sample) for example in examples for sample in range(config.samples)]
    return [_prediction(example, sample, outcome) for (example, sample), outcome in zip(jobs, outcomes, strict=True)]


def requests(examples: Sequence[Example], server: ServiceLLM, *, config: Infer, seed: int) -> list[Request]:
    """Return what a server is asked: `config.samples` requests a prompt, in order."""
    llm = as_asked(server, config)
    return [_request(llm, example, seed, sample) for example in examples for sample in range(config.samples)]


def as_asked(server: ServiceLLM, config: Infer) -> ServiceLLM:
    """Return the server with what decides an answer taken from `infer`."""
    stop = {"stop": list(config.stop)} if config.stop else {}
    return dataclasses.replace(
        server,
        max_tokens=config.max_new_tokens,
        temperature=config.temperature,
        parameters={**server.parameters, **stop},
    )


def _request(llm: ServiceLLM, example: Example, seed: int, sample: int) -> Request:
    *earlier, last = example.messages
    number = repeat_number(seed, example.prompt_id, sample)
    return Request(llm, last["content"], None, number, "infer", tuple(earlier))


def repeat_number(seed: int, prompt_id: str, sample: int) -> int:
    """Return the number of a (run's seed, prompt, sample), below 2 ** 31: more is no seed for some servers."""
    digest = hashlib.sha256(f"{seed} {prompt_id} {sample}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def not_answered(example: Example, sample: int, reason: str, *, prompt_tokens: int = 0) -> Prediction:
    """Return the prediction of an answer that does not exist."""
    return Prediction(
        prompt_id=example.prompt_id,
        sample=sample,
        prompt=example.prompt,
        reference=example.response,
        text="",
        finish_reason=reason,
        prompt_tokens=prompt_tokens,
        completion_tokens=0,
        cluster=example.cluster,
    )


def _prediction(example: Example, sample: int, outcome: Outcome) -> Prediction:
    reason = _finish_reason(outcome)
    if isinstance(outcome, Failure):
        return not_answered(example, sample, reason)
    if reason not in ANSWERED:
        missing = not_answered(example, sample, reason)
        return dataclasses.replace(missing, request=outcome.key, cost_usd=_paid(outcome))
    return Prediction(
        prompt_id=example.prompt_id,
        sample=sample,
        prompt=example.prompt,
        reference=example.response,
        text=outcome.text.strip(),
        finish_reason=reason,
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        request=outcome.key,
        cost_usd=_paid(outcome),
        cluster=example.cluster,
    )


def _paid(reply: Reply) -> float:
    """Return the price of a reply, and of those after which it was asked for."""
    return sum((one.cost_usd for one in (*reply.before, reply)), 0.0)


def _finish_reason(outcome: Outcome) -> str:
    if isinstance(outcome, Failure):
        return "prompt_too_long" if any(words in outcome.message for words in _TOO_LONG) else outcome.reason
    if outcome.finish_reason in ANSWERED:
        return outcome.finish_reason
    reason = unfinished(outcome.finish_reason)
    return "length" if reason in (None, "truncated") else reason
