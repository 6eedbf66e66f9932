"""Thoughts that stand in a reply's very text: they are set apart before it is read, and a run says so at its end.

One `SetApart` a run: `count(llm, reply)` for every reply, and `notes()` has a sentence for each service LLM.
"""

from __future__ import annotations

from collections import Counter

from llamaduo.config import ServiceLLM
from llamaduo.service.attempts import Reply
from llamaduo.service.unusable import quoted


class SetApart:
    """The replies of each service LLM in whose text thoughts stood, each reply once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._replies: Counter[tuple[str, str]] = Counter()
        self._apart: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def count(self, llm: ServiceLLM, reply: Reply) -> None:
        """Take a reply down."""
        if reply.key in self._seen:
            return
        self._seen.add(reply.key)
        who = llm.name, llm.model
        self._replies[who] += 1
        if reply.aside.strip():
            self._apart[who] += 1
            self._first.setdefault(who, reply.aside)

    def notes(self) -> list[str]:
        """Return a sentence for every service LLM whose thoughts were set apart."""
        return [
            f"{name}: in {count:,} of {self._replies[name, model]:,} replies of {model} thoughts stood in the text "
            f"({quoted(self._first[name, model])}); they are no part of what was read. A reasoning parser on its "
            "server keeps them out."
            for (name, model), count in self._apart.items()
        ]
