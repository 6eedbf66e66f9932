"""`synthesis=correct`: the student's failed answers to training prompts go to the service LLM, to be put right.

It sees the prompt, the reference and what the student said, and writes what should have been said: a second right
answer to a training prompt. Once each failed answer was sent, what is still wanted is new pairs like the failed ones,
the worst first; where nothing was failed, or no student is known yet, like training pairs in turn.
"""

from __future__ import annotations

from dataclasses import replace

from llamaduo.records import CORRECTION, Example
from llamaduo.service.attempts import Reply
from llamaduo.service.prompts import RESPONSE_SCHEMA, correction_prompt
from llamaduo.service.replies import UnreadableError, read_response
from llamaduo.service.requests import Request
from llamaduo.synthesis import pairs
from llamaduo.synthesis.strategy import Asked, Failed, Situation


def plan(situation: Situation, wanted: int, first: int) -> list[Asked]:
    """Return what is asked for about `wanted` rows: corrections first, a row each, then new pairs."""
    failed, begin = situation.failed, first - situation.begun
    corrections = [_asked(situation, n, one) for n, one in enumerate(failed[begin : begin + wanted], first)]
    rows = [one.row for one in failed]
    seeds = [
        (n, rows[n % len(rows)] if rows else pairs.in_turn(n, situation.train, situation.seed))
        for n in pairs.numbers(situation, wanted - len(corrections), first + len(corrections))
    ]
    return [*corrections, *pairs.shown(situation, seeds, prompt="default")]


def _asked(situation: Situation, number: int, failed: Failed) -> Asked:
    row = failed.row
    text = correction_prompt(instruction=row.prompt, candidate=failed.answer, reference=row.response)
    return Asked(Request(situation.llm, text, RESPONSE_SCHEMA, number, "synthesize"), (row,))


def read(asked: Asked, reply: Reply) -> tuple[list[Example], int]:
    """Return the corrected answer to the seed's prompt, or new pairs, as was asked for."""
    if asked.request.schema is not RESPONSE_SCHEMA:
        return pairs.read(asked, reply)
    (seed,) = asked.seeds
    try:
        text = read_response(reply.text, reply.finish_reason)
    except UnreadableError:
        return [], 1
    made = replace(seed, response=text, generator=asked.request.llm.name, seed_id=seed.prompt_id, cluster=None)
    return [replace(made, kind=CORRECTION)], 0
