"""The best of K answers to each new prompt: the service LLM answers it again, and agreement or a judge picks.

    batch = best_of(batch, situation, judge=None, service=service, progress=progress)

Each new pair costs K - 1 more requests, and with a judge one more. Where no answer can be picked (none came, the judge
can't be read) the first one stays, and is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llamaduo.config import ServiceLLM
from llamaduo.evidence.reference import rouge_l
from llamaduo.records import Example
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Progress, Service
from llamaduo.service.prompts import PICK_SCHEMA, pick_prompt
from llamaduo.service.replies import UnreadableError, read_pick, unfinished
from llamaduo.service.requests import Outcome, Request
from llamaduo.synthesis.asking import Batch
from llamaduo.synthesis.strategy import Situation


def best_of(
    batch: Batch, situation: Situation, *, judge: ServiceLLM | None, service: Service, progress: Progress
) -> Batch:
    """Return the batch with the best answer to each of its prompts; without a judge, agreement picks."""
    again = [request for example in batch.examples for request in more_answers(situation, example)]
    outcomes = service.ask(again, progress)
    each = situation.config.candidates - 1
    answers = [
        _whole_answers(example, outcomes[at * each : (at + 1) * each]) for at, example in enumerate(batch.examples)
    ]
    best = [None if judge else _most_agreed(those) for those in answers]
    contested = [at for at, those in enumerate(answers) if judge is not None and len(those) > 1]
    asked = [picking(judge, batch.examples[at], answers[at]) for at in contested if judge is not None]
    for at, outcome in zip(contested, picked := service.ask(asked, progress) if asked else [], strict=True):
        best[at] = _picked(outcome, answers[at])
    examples = tuple(
        replace(example, response=example.response if text is None else text)
        for example, text in zip(batch.examples, best, strict=True)
    )
    prices = {one.key: one.cost_usd for one in (*outcomes, *picked) if isinstance(one, Reply)}
    return replace(
        batch,
        examples=examples,
        picking=len({service.key(request) for request in (*again, *asked)}),
        unpicked=best.count(None),
        cost_usd=batch.cost_usd + sum(prices.values()),
    )


def more_answers(situation: Situation, example: Example) -> list[Request]:
    """Return the requests for further answers to a new prompt."""
    *earlier, last = example.messages
    return [
        Request(situation.llm, last["content"], None, number, "pick", tuple(earlier))
        for number in range(1, situation.config.candidates)
    ]


def picking(judge: ServiceLLM, example: Example, answers: Sequence[str]) -> Request:
    """Return the request that lets a judge pick."""
    return Request(judge, pick_prompt(example.prompt, answers), PICK_SCHEMA, 0, "pick")


def _whole_answers(example: Example, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the whole answers to a prompt, the pair's own first; repetitions stay, they are agreement."""
    replies = [one for one in outcomes if isinstance(one, Reply)]
    return [example.response, *(one.text.strip() for one in replies if _whole(one))]


def _whole(reply: Reply) -> bool:
    return not unfinished(reply.finish_reason) and bool(reply.text.strip())


def _most_agreed(answers: Sequence[str]) -> str | None:
    """Return the answer that is most like all others; None where there is none to compare with."""
    if len(answers) < 2:
        return None
    alike = [sum(rouge_l(other, one) for other in answers) for one in answers]
    return answers[alike.index(max(alike))]


def _picked(outcome: Outcome, answers: Sequence[str]) -> str | None:
    if not isinstance(outcome, Reply):
        return None
    try:
        return answers[read_pick(outcome.text, outcome.finish_reason, len(answers)) - 1]
    except UnreadableError:
        return None
