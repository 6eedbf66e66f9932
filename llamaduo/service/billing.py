"""Bills: what a reply costs by what it says it used, and no more than its request allows.

    bill = bill_of(said, price, allowed=Allowed(prompt=900, reply=64, worst_usd=0.01))
    bill.cost_usd, bill.beyond        what is counted; the tokens that can't be, 0 nearly always

A request's budget is reserved at its worst case. Usage that passes it is no usage that anybody can plan with: it counts
as far as the request allows, what is beyond is told, and the run sends nothing more. Where `unbounded_usage` says that
it is to be expected, all of it counts.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from llamaduo.config import ServiceLLM
from llamaduo.errors import ServiceError
from llamaduo.service.prices import Tariff
from llamaduo.service.reading import MOST_TOKENS, Said

_HIDDEN_PROMPT = 1024
"""Tokens that a provider may add to a prompt: templates, tools, its own instructions."""
_LATE_STOP, _LATE_SHARE = 2, 0.02
"""Tokens by which a server may stop late, or the share of the limit."""


@dataclass(frozen=True)
class Allowed:
    """What a request allows."""

    reply: int
    """Tokens of the reply."""
    worst_usd: float
    """What was reserved for it."""
    prompt: int | None = None
    """Tokens of the prompt; null where the request is not at hand, as in a batch that another process handed in."""
    bounded: bool = True
    """Whether no more than that counts."""


@dataclass(frozen=True)
class Bill:
    """What of a reply is counted."""

    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    beyond: int
    """Tokens that it says it used beyond what its request allows, counted or not."""


def bill_of(said: Said, price: Tariff, allowed: Allowed, *, batch: bool = False) -> Bill:
    """Return what a reply is counted at; at its worst where it doesn't tell what it used."""
    prompt, reply = said.prompt_tokens, said.completion_tokens
    if not prompt or not (reply or not (said.text or said.thoughts)):
        return Bill(prompt, reply, allowed.worst_usd, 0)
    most_prompt = math.inf if allowed.prompt is None else allowed.prompt + _HIDDEN_PROMPT
    most_reply = allowed.reply + max(_LATE_STOP, int(_LATE_SHARE * allowed.reply))
    cost = float(price.cost(prompt, reply, batch=batch))
    most_usd = allowed.worst_usd + float(price.cost(_HIDDEN_PROMPT, most_reply - allowed.reply, batch=batch))
    if prompt <= most_prompt and reply <= most_reply and cost <= most_usd + 1e-12:
        return Bill(prompt, reply, cost, 0)
    kept = int(min(prompt, most_prompt)), min(reply, allowed.reply)
    beyond = max(1, prompt + reply - sum(kept))
    if max(prompt, reply) == MOST_TOKENS:
        return Bill(*kept, allowed.worst_usd, beyond)  # no count that any of it could be taken from
    if not allowed.bounded:
        return Bill(prompt, reply, cost, beyond)
    return Bill(*kept, min(float(price.cost(*kept, batch=batch)), allowed.worst_usd), beyond)


class Beyond:
    """What replies said they used beyond what their requests allow, by service LLM."""

    def __init__(self) -> None:
        self._replies: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._counted: set[str] = set()

    def count(self, llm: ServiceLLM, bill: Bill) -> None:
        """Count a reply, if it did."""
        if bill.beyond:
            self._replies[llm.name] += 1
            self._tokens[llm.name] += bill.beyond
            self._counted |= {llm.name} if llm.unbounded_usage else set()

    def refuse(self, llm: ServiceLLM) -> None:
        """Raise ServiceError before a call whose worst case can't be told."""
        if self._replies[llm.name] and not llm.unbounded_usage:
            raise ServiceError(
                f"{self._told(llm.name)}: no budget can be kept like this, so nothing more is sent. Compare with the "
                f"provider's bill; to go on all the same, set {llm.name}'s unbounded_usage=true, or max_tokens higher."
            )

    def notes(self) -> list[str]:
        """Return a sentence for each service LLM whose replies did."""
        return [
            f"{self._told(name)}; these are {'' if name in self._counted else 'not '}counted in what was spent."
            for name in self._replies
        ]

    def _told(self, name: str) -> str:
        count = self._replies[name]
        replies = "1 reply says that it" if count == 1 else f"{count:,} replies say that they"
        return f"{name}: {replies} used {self._tokens[name]:,} tokens beyond what the request allows"
