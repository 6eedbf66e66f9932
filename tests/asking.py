"""How tests ask service LLMs, and read what came of it."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.service.attempts import Reply
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Outcome, Request

LLM = Callable[..., ServiceLLM]
"""The fixture `llm`."""
Wired = Callable[..., ServiceLLM]
"""The fixture `wired`."""
Open = Callable[..., Service]
"""The fixture `open_service`."""


class Program:
    """A service LLM that raises what it is told to, in order, and then answers."""

    def __init__(self, *faults: Exception | Callable[[], Exception], reply: str = "the reply") -> None:
        self.faults, self.reply = list(faults), reply
        self.prompts: list[str] = []
        self.parameters: list[dict[str, Any]] = []

    def __call__(self, prompt: str, parameters: Mapping[str, Any]) -> str:
        self.prompts.append(prompt)
        self.parameters.append(dict(parameters))
        if self.faults:
            raise self.faults.pop(0)
        return self.reply


def silent(done: int, total: int) -> None:
    """Show nobody how far it is."""


def ask_for(
    llm: ServiceLLM, prompt: str = "p", repeat: int = 0, schema: dict[str, Any] | None = None, stage: str = "judge"
) -> Request:
    """Return a request."""
    return Request(llm, prompt, schema, repeat, stage)


def reply_of(service: Service, request: Request) -> Reply:
    """Ask for one reply, which comes."""
    (reply,) = service.ask([request], silent)
    assert isinstance(reply, Reply)
    return reply


def asked_as(run: str, place: Path, requests: list[Request]) -> list[Outcome]:
    """Ask with an access to the folder's journal of its own, as another process would."""
    with closing(Service(Journal(place / "journal.sqlite"), run=run, budget_usd=None)) as service:
        return service.ask(requests, silent)


def told(outcome: Outcome) -> str:
    """Return a reply's text, or the reason for none."""
    return outcome.text if isinstance(outcome, Reply) else outcome.reason


def rows(place: Path, query: str) -> list[tuple[Any, ...]]:
    """Return what a query finds in a journal, or in the one of a folder."""
    with closing(sqlite3.connect(place / "journal.sqlite" if place.is_dir() else place)) as db:
        return db.execute(query).fetchall()


def together(*work: Callable[[], Any]) -> list[Any]:
    """Do some work at the same time, in threads; return what came of each."""
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda at=at, one=one: found.update({at: one()})) for at, one in enumerate(work)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [found[at] for at in range(len(work))]
