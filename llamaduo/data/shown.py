"""Rows as a chat template shows them to the model: how long they are, and whether they come out whole and once.

for row, told in zip(rows, shown(rows, chat, learns=True)): ...     `Lengths`, or what is wrong, in words
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from llamaduo.data.chat import PROBE, Chat, RefusedError, conversation
from llamaduo.data.chat import asked as turns_asked
from llamaduo.records import Example

_CHUNK = 128
"""Rows that are rendered and tokenised together."""
_THREADS = 4
_SAYS_LITTLE = 8
"""Characters: a shorter response may be a part of what a template writes behind every response."""


class Lengths(NamedTuple):
    """A row as the model sees it."""

    prompt: int
    """Tokens of the prompt."""
    response: int | None
    """Tokens of the response, 0 if it isn't shown; None where an end mark is inside."""
    whole: bool
    """Whether all texts of the prompt are there that users and systems wrote."""


def shown(rows: Sequence[Example], chat: Chat, *, learns: bool) -> Iterator[Lengths | str]:
    """Yield each row's lengths, or why it can't be shown to the model."""
    chunks = [rows[begin : begin + _CHUNK] for begin in range(0, len(rows), _CHUNK)]
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        for told in pool.map(partial(_chunk, chat=chat, learns=learns), chunks):
            yield from told
    finally:
        pool.shutdown(cancel_futures=True)


def _chunk(rows: Sequence[Example], *, chat: Chat, learns: bool) -> list[Lengths | str]:
    try:
        return _lengths(rows, chat, learns=learns)
    except RefusedError as error:
        if len(rows) == 1:
            return [error.reason]
        return [told for row in rows for told in _chunk([row], chat=chat, learns=learns)]


def _lengths(rows: Sequence[Example], chat: Chat, *, learns: bool) -> list[Lengths | str]:
    """Return the lengths of rows, or what a template makes of a response; raises RefusedError for one of the rows."""
    if not learns:
        texts, prompts = chat.prompts([turns_asked(row) for row in rows])
        return [Lengths(len(ids), 0, _holds(text, row)) for row, text, ids in zip(rows, texts, prompts, strict=True)]
    asked, behind = chat.rendered([conversation(row) for row in rows])
    return [
        (_changed_call(row, response) if row.calls else _changed(row.response, response, chat.suffix))
        or Lengths(len(prompt), None if ids is None else len(ids), _holds(text, row))
        for row, text, response, (prompt, ids) in zip(rows, asked, behind, chat.tokens(asked, behind), strict=True)
    ]


def _holds(text: str, row: Example) -> bool:
    return all(turn["content"].strip() in text for turn in row.messages if turn["role"] not in ("assistant", "tool"))


def _changed(response: str, text: str, suffix: str) -> str:
    """Return what is wrong with how a response comes out of the template, white space around it left aside."""
    wanted, found = response.strip(), text.strip()
    rest = found[len(wanted) :].strip()
    if not found.startswith(wanted):
        return "the chat template changes the response"
    again = {_joined(suffix.replace(PROBE, wanted)), _joined(wanted + suffix)}
    if rest != suffix and (_joined(rest) in again if len(wanted) < _SAYS_LITTLE else wanted in rest):
        return "the chat template writes the response twice"
    return ""


def _changed_call(row: Example, text: str) -> str:
    """Return what is wrong with how calls of tools come out of the template."""
    lost = any(call["function"]["name"] not in text for call in row.calls)
    return "the chat template leaves out a call of tools" if lost else ""


def _joined(text: str) -> str:
    return "".join(text.split())
