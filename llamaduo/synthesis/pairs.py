"""Requests that show a pair and ask for more like it, and the pairs in their replies.

Most strategies differ in which pairs they show and in the prompt's text alone: these are their common parts.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from llamaduo.records import Example, prompt_id
from llamaduo.service.attempts import Reply
from llamaduo.service.prompts import PAIRS_SCHEMA, synthesis_prompt
from llamaduo.service.replies import read_pairs
from llamaduo.service.requests import Request
from llamaduo.synthesis.strategy import Asked, Situation


def numbers(situation: Situation, wanted: int, first: int) -> range:
    """Return the numbers of the requests that ask for so many pairs."""
    return range(first, first + -(-wanted // situation.config.pairs_per_request))


def shown(
    situation: Situation,
    seeds: Iterable[tuple[int, Example]],
    *,
    prompt: str,
    schema: dict[str, Any] | None = PAIRS_SCHEMA,
) -> list[Asked]:
    """Return a request for each (number, seed pair), in the words of a synthesis prompt."""
    config, made = situation.config, []
    for number, owner in seeds:
        text = synthesis_prompt(
            prompt,
            instruction=owner.messages[-1]["content"],
            response=owner.response,
            topic=situation.task.topic,
            description=situation.task.description,
            count=config.pairs_per_request,
        )
        made.append(Asked(Request(situation.llm, text, schema, number, "synthesize"), (owner,)))
    return made


def read(asked: Asked, reply: Reply) -> tuple[list[Example], int]:
    """Return the pairs of a reply, each behind the turns that go before its seed's own."""
    pairs, dropped = read_pairs(reply.text, reply.finish_reason)
    owner, name = asked.seeds[0], asked.request.llm.name
    return [_example(instruction, response, name, owner) for instruction, response in pairs], dropped


def in_turn(number: int, rows: Sequence[Example], seed: int) -> Example:
    """Return the seed pair of a request: every pair once before any comes again, in a shuffled order."""
    lap, place = divmod(number, len(rows))
    return rows[_order(lap, len(rows), seed)[place]]


@lru_cache(maxsize=16)
def _order(lap: int, size: int, seed: int) -> list[int]:
    """Return the shuffled order of one lap, which is never changed."""
    order = list(range(size))
    random.Random(f"{seed} {lap}").shuffle(order)
    return order


def _example(instruction: str, response: str, generator: str, owner: Example) -> Example:
    messages = (*owner.messages[:-1], {"role": "user", "content": instruction})
    return Example(prompt_id(messages), messages, response, generator=generator, seed_id=owner.prompt_id)
