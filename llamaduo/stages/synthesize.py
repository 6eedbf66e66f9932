"""Synthesize: let the service LLM write new pairs like those in the training split.

Reads training examples, one a request as its seed; returns the new examples. Pairs are read one by
one out of each reply; incomplete ones are dropped and counted. What comes back is raw: `curate` follows.
Replies that bring no pair at all are a failure of the service LLM's, and no end of what there is to be had.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from llamaduo.config import ServiceLLM, Synthesis, SynthesisPrompt
from llamaduo.errors import ServiceError
from llamaduo.records import Example, prompt_id
from llamaduo.service.asking_again import again_if
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Progress, Service
from llamaduo.service.prompts import PAIRS_SCHEMA, synthesis_prompt
from llamaduo.service.replies import read_pairs, unfinished
from llamaduo.service.requests import Failure, Outcome, Request
from llamaduo.service.unusable import Told, counted, of_teacher, quoted


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

    def __add__(self, later: Batch) -> Batch:
        """Return what this round and a later one brought."""
        return Batch(
            self.examples + later.examples,
            self.requests + later.requests,
            self.failed + later.failed,
            self.dropped + later.dropped,
            self.cost_usd + later.cost_usd,
        )


_ANOTHER = 1_000_000
"""What another try of a request adds to its number."""


def synthesize(
    asked: Sequence[tuple[Example, Request]],
    service: Service,
    progress: Progress,
    *,
    before: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> Batch:
    """Ask for new pairs, each request with its seed pair.

    Raises ServiceError when no request was answered, and when neither these requests nor those `before` brought a pair.
    """
    again = again_if(
        lambda reply: not read_pairs(reply.text, reply.finish_reason)[0],
        lambda made: replace(made, repeat=made.repeat + _ANOTHER),
        usual=0,
        service=service,
    )
    outcomes = service.ask([request for _, request in asked], progress, again)
    examples: list[Example] = []
    dropped = 0
    fruitless: list[Outcome] = []
    for (owner, made), outcome in zip(asked, outcomes, strict=True):
        pairs, lost = ([], 0) if isinstance(outcome, Failure) else read_pairs(outcome.text, outcome.finish_reason)
        dropped += lost
        fruitless += [] if pairs else [outcome]
        examples += [_example(instruction, response, made.llm.name, owner) for instruction, response in pairs]
    name, failed = asked[0][1].llm.name, sum(isinstance(outcome, Failure) for outcome in outcomes)
    if failed == len(asked) or not (examples or before):
        raise ServiceError(_why_fruitless(name, fruitless))
    if replies := [one for one in fruitless if isinstance(one, Reply)]:
        reasons = counted(Counter(map(_why, replies)))
        shown = quoted(replies[0].text)
        note(f"{len(replies)} of {len(asked)} replies of {name} hold no pair ({reasons}); one of them: {shown}.")
    paid = [reply for one in outcomes for reply in (*one.before, one) if isinstance(reply, Reply)]
    return Batch(tuple(examples), len(asked), failed, dropped, sum((reply.cost_usd for reply in paid), 0.0))


def _why(outcome: Outcome) -> str:
    """Return why an outcome brought no pair, a word that verdicts have too."""
    if isinstance(outcome, Failure):
        return outcome.reason
    return unfinished(outcome.finish_reason) or ("not_json" if outcome.text.strip() else "empty")


def _why_fruitless(name: str, outcomes: Sequence[Outcome]) -> str:
    replies = [one for one in outcomes if isinstance(one, Reply)]
    failures = [one.message for one in outcomes if isinstance(one, Failure)]
    return of_teacher(
        name,
        asked=len(outcomes),
        reasons=Counter(map(_why, outcomes)),
        told=Told(name, "service_llm", replies[0].text or replies[0].aside) if replies else None,
        failure=failures[-1] if failures else None,
    )


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
    schema = None if config.prompt is SynthesisPrompt.paper else PAIRS_SCHEMA
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
