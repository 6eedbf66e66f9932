"""Who answered: gateways fall back to another model, and say so in the reply's `model` alone.

And who had asked: what is sent to other providers than ours is litellm's, and may be another body with another version.
And what was no part of an answer: thoughts in a reply's very text are set apart before it is read.

other = AnsweredBy()
other.count(llm, reply)      for every reply
other.notes()                ["endpoint: another model than m answered: cheap-mini 3 of 4 replies."]
other.remarks()              ["endpoint: in 3 of 4 replies of m thoughts stood in the text ..."]
"""

from __future__ import annotations

import re
from collections import Counter

from llamaduo.config import ServiceLLM
from llamaduo.service.attempts import Reply
from llamaduo.service.prices import litellm_version
from llamaduo.service.unusable import quoted

_DATED = re.compile(r"[-@:._]?(v?\d[\d.:_-]*|latest|preview[\w-]*|exp[\w-]*)")
"""What a snapshot's name has behind the model's."""


def is_another(asked: str, answered: str) -> bool:
    """Tell whether a reply names another model than was asked; a snapshot of it is none, and neither is no name."""
    asked, answered = (name.strip().lower().rsplit("/", 1)[-1] for name in (asked, answered))
    if not answered or answered == asked:
        return False
    return not (answered.startswith(asked) and _DATED.fullmatch(answered[len(asked) :]))


class AnsweredBy:
    """The replies of each service LLM by the model that says it answered, each reply once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._replies: Counter[tuple[str, str]] = Counter()
        self._others: Counter[tuple[str, str, str]] = Counter()
        self._senders: Counter[tuple[str, str]] = Counter()
        self._apart: Counter[tuple[str, str]] = Counter()
        self._first_apart: dict[tuple[str, str], str] = {}

    def count(self, llm: ServiceLLM, reply: Reply) -> None:
        """Take a reply down."""
        if reply.key in self._seen:
            return
        self._seen.add(reply.key)
        who = llm.name, llm.model
        self._replies[who] += 1
        if reply.aside.strip():
            self._apart[who] += 1
            self._first_apart.setdefault(who, reply.aside)
        if reply.sender and reply.sender != litellm_version():
            self._senders[llm.name, reply.sender] += 1
        if is_another(llm.model, reply.model):
            self._others[llm.name, llm.model, reply.model] += 1

    def notes(self) -> list[str]:
        """Return a sentence for every service LLM for which another model has answered."""
        found: dict[tuple[str, str], list[str]] = {}
        for (name, model, other), count in self._others.items():
            found.setdefault((name, model), []).append(f"{other} {count:,}")
        changed = [
            f"{name}: {count:,} stored replies were asked for by litellm {sender}; {litellm_version()} is installed, "
            "which may send other words under the same keys. Install that one, or start another journal "
            "(service.journal)."
            for (name, sender), count in self._senders.items()
        ]
        return changed + [
            f"{name}: another model than {model}, which was asked, answered: {', '.join(others)} of "
            f"{self._replies[name, model]:,} replies."
            for (name, model), others in found.items()
        ]

    def remarks(self) -> list[str]:
        """Return a sentence for every service LLM whose thoughts were set apart."""
        return [
            f"{name}: in {count:,} of {self._replies[name, model]:,} replies of {model} thoughts stood in the text "
            f"({quoted(self._first_apart[name, model])}); they are no part of what was read. A reasoning parser on its "
            "server keeps them out."
            for (name, model), count in self._apart.items()
        ]
