"""A service LLM that answers by the number in the prompt, and journals that it filled."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from asking import silent, told

from llamaduo.config import Price, ServiceLLM
from llamaduo.service import loading
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Request

PROVIDER = "counted"
LLM = ServiceLLM(name="m", provider=PROVIDER, model="m", price=Price(1000.0, 2000.0, "a test"), max_tokens=2048)
ROWS = 13
REQUESTS = [Request(LLM, f"{n} {'word ' * (n * 13 % 400)}", None, 0, "judge") for n in range(ROWS)]


def text_of(number: int) -> str:
    """Return the reply with a number; some lie on several pages."""
    return f"the answer to {number}: " + f"{number * 7919:x} " * (number * 211 % 1900)


TEXTS = [text_of(number) for number in range(ROWS)]


@contextmanager
def answering(provider: str = PROVIDER, text: Callable[[int], str] = text_of) -> Iterator[list[int]]:
    """Stand behind a provider, and yield the numbers that were asked for."""
    asked: list[int] = []

    def program(prompt: str, _: Mapping[str, Any]) -> str:
        asked.append(int(prompt.split(maxsplit=1)[0]))
        return text(asked[-1])

    loading.register(provider, program)
    yield asked
    del loading.TEXT_PROGRAMS[provider]
    litellm = sys.modules["litellm"]
    litellm.custom_provider_map = [one for one in litellm.custom_provider_map if one["provider"] != provider]


def ask_all(
    path: Path, requests: list[Request] = REQUESTS, *, replay: bool = False, **journal: Any
) -> tuple[list[str], list[str]]:
    """Ask everything of a journal; return the texts, and the notes."""
    opened = Journal(path, read_only=replay, **journal)
    with closing(Service(opened, run="study/run", budget_usd=None, replay=replay)) as service:
        return [told(outcome) for outcome in service.ask(requests, silent)], list(service.notes)


def filled(path: Path) -> Path:
    """Fill a new journal, and close it in peace."""
    assert ask_all(path)[0] == TEXTS
    return path


def change(path: Path, *statements: str) -> None:
    """Carry out statements on a journal's file, behind its back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for statement in statements:
            db.execute(statement)
