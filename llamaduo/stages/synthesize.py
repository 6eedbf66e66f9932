"""Synthesize: let the service LLM write new pairs like those in the training split.

Reads training examples, one a request as its seed; returns the new examples. Pairs are read one by
one out of each reply; incomplete ones are dropped and counted. What comes back is raw: `curate` follows.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from llamaduo.config import ServiceLLM, Synthesis
from llamaduo.errors import ServiceError
from llamaduo.records import Example, prompt_id
from llamaduo.service.client import Failure, Progress, Request, Service
from llamaduo.service.prompts import PAIRS_SCHEMA, synthesis_prompt
from llamaduo.service.replies import read_pairs


@dataclass(frozen=True)
class Batch:
    """What one round of synthesis brought."""

    examples: tuple[Example, ...]
    """New pairs, as they came."""
    requests: int
    """Requests made."""
    failed: int
    """Requests that got no reply."""
    dropped: int
    """Items in replies that were no whole pair."""
    cost_usd: float
    """Price of the replies."""


def synthesize(asked: Sequence[tuple[Example, Request]], service: Service, progress: Progress) -> Batch:
    """Ask for new pairs, each request with its seed pair; raises ServiceError when no request was answered."""
    examples: list[Example] = []
    dropped = failed = 0
    cost = 0.0
    outcomes = service.ask([request for _, request in asked], progress)
    for (owner, made), outcome in zip(asked, outcomes, strict=True):
        if isinstance(outcome, Failure):
            failed += 1
            continue
        cost += outcome.cost_usd
        pairs, lost = read_pairs(outcome.text, outcome.finish_reason)
        dropped += lost
        examples += [_example(instruction, response, made.llm.name, owner) for instruction, response in pairs]
    if failed == len(asked):
        name = asked[0][1].llm.name
        last = f" Last failure: {service.last_failure}" if service.last_failure else ""
        raise ServiceError(
            f"{name} answered none of {failed} synthesis requests; run the same command again later.{last}"
        )
    return Batch(tuple(examples), len(asked), failed, dropped, cost)


def requests(
    seeds: Sequence[Example],
    wanted: int,
    *,
    llm: ServiceLLM,
    config: Synthesis,
    topic: str | None,
    first_request: int,
    seed: int,
) -> list[tuple[Example, Request]]:
    """Return what is asked for about `wanted` new pairs: each request with its seed pair, out of the training split.

    `first_request` is the number of requests made by earlier rounds: it keeps requests with the same seed pair apart.
    """
    count = -(-wanted // config.pairs_per_request)
    schema = PAIRS_SCHEMA if config.prompt.value == "default" else None
    made = []
    for number in range(first_request, first_request + count):
        owner = seeds[_draw(number, len(seeds), seed)]
        prompt = synthesis_prompt(
            config.prompt.value,
            instruction=owner.messages[-1]["content"],
            response=owner.response,
            topic=topic,
            count=config.pairs_per_request,
        )
        made.append((owner, Request(llm, prompt, schema, number, "synthesize")))
    return made


def _draw(number: int, size: int, seed: int) -> int:
    """Return the seed pair of a request: every pair once before any comes again, in a shuffled order."""
    lap, place = divmod(number, size)
    return _order(lap, size, seed)[place]


@lru_cache(maxsize=16)
def _order(lap: int, size: int, seed: int) -> list[int]:
    """Return the shuffled order of one lap, which is never changed."""
    order = list(range(size))
    random.Random(f"{seed} {lap}").shuffle(order)
    return order


def _example(instruction: str, response: str, generator: str, owner: Example) -> Example:
    messages = (*owner.messages[:-1], {"role": "user", "content": instruction})
    return Example(prompt_id(messages), messages, response, generator=generator, seed_id=owner.prompt_id)
