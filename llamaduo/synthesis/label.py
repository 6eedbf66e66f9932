"""`synthesis=label`: real prompts without answers (`data.unlabelled`) are answered by the service LLM.

It is asked with the prompt's own turns and nothing else, as the product asks it. Each prompt is asked once.
"""

from __future__ import annotations

from llamaduo.records import Example
from llamaduo.service.attempts import Reply
from llamaduo.service.replies import unfinished
from llamaduo.service.requests import Request
from llamaduo.synthesis.strategy import Asked, Situation


def plan(situation: Situation, wanted: int, first: int) -> list[Asked]:
    """Return a request for each of the next `wanted` prompts, as far as there are any."""
    return [_asked(situation, row) for row in situation.unlabelled[first : first + wanted]]


def _asked(situation: Situation, row: Example) -> Asked:
    *earlier, last = row.messages
    request = Request(situation.llm, last["content"], None, 0, "synthesize", tuple(earlier))
    return Asked(request, (row,))


def read(asked: Asked, reply: Reply) -> tuple[list[Example], int]:
    """Return the prompt with its answer; one that is empty or not finished is dropped."""
    (row,) = asked.seeds
    if unfinished(reply.finish_reason) or not reply.text.strip():
        return [], 1
    return [Example(row.prompt_id, row.messages, reply.text.strip(), generator=asked.request.llm.name)], 0
