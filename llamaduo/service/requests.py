"""What is asked of a service LLM, and what comes of it.

Request(llm, "Classify ...", schema=None, repeat=0, stage="judge").key        the key under which a reply is kept
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.service.attempts import Reply
from llamaduo.service.bodies import most_billed, parameters
from llamaduo.service.schema import request_key


def messages(prompt: str, earlier: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the turns of a request: those that go before the prompt, and the prompt as the user's."""
    return [*map(dict, earlier), {"role": "user", "content": prompt}]


@dataclass(frozen=True)
class Request:
    """One call to make."""

    llm: ServiceLLM
    """Whom to ask."""
    prompt: str
    """What to ask, as the user's message."""
    schema: Mapping[str, Any] | None
    """JSON schema of the reply; sent where the service LLM takes one."""
    repeat: int
    """Number of the repeat: the same request with another number is another purchase."""
    stage: str
    """Which stage asks."""
    earlier: tuple[Mapping[str, str], ...] = ()
    """What goes before the prompt, as `{"role", "content"}` turns: a system's, a conversation's."""

    @cached_property
    def sent(self) -> dict[str, Any]:
        """Everything that identifies the call: what is sent, and the repeat's number."""
        llm = self.llm
        return {
            "provider": llm.provider,
            "base_url": llm.base_url,
            "model": llm.model,
            "messages": messages(self.prompt, self.earlier),
            "max_tokens": llm.max_tokens,
            "temperature": llm.temperature,
            "seed": self.repeat if llm.send_seed else None,
            "schema": self.schema if llm.json_schema else None,
            "parameters": parameters(llm),
            "repeat": self.repeat,
            **({"base_url_env": llm.base_url_env} if llm.base_url_env else {}),
            **({"headers_env": dict(llm.headers_env)} if llm.headers_env else {}),
        }

    @cached_property
    def key(self) -> str:
        """The request's key in the journal."""
        return request_key(self.sent)

    @property
    def characters(self) -> int:
        """The characters of all turns."""
        return len(self.prompt) + sum(len(turn["content"]) for turn in self.earlier)

    @property
    def longest_prompt(self) -> int:
        """The most tokens that the prompt can have: no tokenizer makes more tokens than bytes."""
        schema = len(json.dumps(self.schema)) if self.schema and self.llm.json_schema else 0
        earlier = sum(len(turn["content"].encode(errors="replace")) + 64 for turn in self.earlier)
        return len(self.prompt.encode(errors="replace")) + earlier + schema + 64

    @property
    def longest_reply(self) -> int:
        """The most tokens that the reply may have."""
        return most_billed(self.llm)


@dataclass(frozen=True)
class Failure:
    """A call that got no usable reply, all tries included."""

    key: str
    """The request's key in the journal."""
    reason: str
    """`no_reply` or `refused`."""
    message: str
    """What the service said."""
    before: tuple[Reply, ...] = dataclasses.field(default=(), compare=False)
    """Unreadable replies after which this one was asked for."""


Outcome = Reply | Failure
Again = Callable[[Request, Outcome], Request | None]
"""Takes a request and its outcome; returns what to ask instead if that outcome is of no use, else None."""


@dataclass(frozen=True)
class Answer:
    """A request, and what came of it."""

    request: Request
    outcome: Outcome
