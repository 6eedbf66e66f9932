"""Concealing: requests go out with made-up values in the place of real ones, and replies come back with the real ones.

    concealing = Concealing(hider, Tally(folder / layout.PRIVACY, write_kept))
    sent, hidden = concealing.request(request)              what is sent, and so what the journal holds
    concealing.outcome(outcome, hidden)                     the reply with the real values in it

All turns of a request are concealed together, whatever lies in them: texts, parts, the arguments of tool calls.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from llamaduo.privacy.hiding import Hidden, Hider
from llamaduo.privacy.tally import Tally
from llamaduo.records import Example
from llamaduo.service.attempts import Reply
from llamaduo.service.prompts import mark_of
from llamaduo.service.requests import Outcome, Request

_NO_TEXT = frozenset(("role", "type", "id", "tool_call_id"))
"""Names in a turn whose values are no texts of anybody's."""
_KEPT = 10_000
"""Requests that are remembered: each is looked at more than once."""
_MARK = re.compile(r"<<([0-9a-f]{16})\b")


class Concealing:
    """What stands between a run's requests and whoever is asked."""

    def __init__(self, hider: Hider, tally: Tally) -> None:
        self.hider, self.tally = hider, tally
        self._known: dict[str, tuple[Request, Hidden]] = {}

    def request(self, request: Request) -> tuple[Request, Hidden]:
        """Return what is sent for a request, and what was hidden in it."""
        if request.key not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[request.key] = concealed(request, self.hider)
        return self._known[request.key]

    def outcome(self, outcome: Outcome, hidden: Hidden) -> Outcome:
        """Return an outcome with the real values in its text, counted."""
        if not hidden.pairs:
            return outcome
        none = Counter[str]()
        if not isinstance(outcome, Reply):
            self.tally.count(outcome.key, hidden.counts, none, none)
            return outcome
        text, aside = hidden.restore(outcome.text), hidden.restore(outcome.aside)
        self.tally.count(outcome.key, hidden.counts, text.counts, text.lost)
        return replace(outcome, text=text.text, aside=aside.text, as_it_came=outcome.text or outcome.aside)


def concealed(request: Request, hider: Hider | None) -> tuple[Request, Hidden]:
    """Return a request as it may be sent, and what was hidden in it."""
    if hider is None:
        return request, Hidden(())
    hidden = hider.hide([request.prompt, *_texts(request.earlier)])
    if not hidden.pairs:
        return request, hidden
    texts = iter(hidden.texts)
    prompt = _marked_anew(next(texts))
    earlier = tuple(_with(turn, texts) for turn in request.earlier)
    return replace(request, prompt=prompt, earlier=earlier), hidden


def texts_of(row: Example) -> list[str]:
    """Return everything in a row that may be sent."""
    return [*_texts(row.messages), row.response]


def _texts(tree: Any) -> Iterator[str]:
    """Yield every text in turns, in order."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, Mapping):
        yield from (text for name, value in tree.items() if name not in _NO_TEXT for text in _texts(value))
    elif isinstance(tree, list | tuple):
        yield from (text for value in tree for text in _texts(value))


def _with(tree: Any, texts: Iterator[str]) -> Any:
    """Return turns with other texts in the places of those that `_texts` yields."""
    if isinstance(tree, str):
        return next(texts)
    if isinstance(tree, Mapping):
        return {name: value if name in _NO_TEXT else _with(value, texts) for name, value in tree.items()}
    return [_with(value, texts) for value in tree] if isinstance(tree, list | tuple) else tree


def _marked_anew(prompt: str) -> str:
    """Return a prompt whose fences bear the mark of what is sent: that of the real texts would tell of them."""
    for mark in dict.fromkeys(_MARK.findall(prompt)):
        prompt = prompt.replace(mark, mark_of(prompt.replace(mark, "")))
    return prompt
