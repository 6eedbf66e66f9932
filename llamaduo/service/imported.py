"""Imported rows: what a stranger's journal says, before any of it is taken for a reply.

    fault_of(row)          None for a sound row of an export; `damaged`, or `other words`: not those of its raw reply
    own_tables(db)         whether the tables that are read are those that a journal has, and no views

Reads rows of exports and the schema of files; writes nothing. A checksum can be made by anybody, so that text and
finish reason are derived from the raw reply as they are for a reply that has just come, and compared.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from llamaduo.service.reading import NO_CHOICES, NO_CONTENT, read
from llamaduo.service.received import parsed
from llamaduo.service.repair import row_is_sound
from llamaduo.service.schema import firsts, todays

DAMAGED, OTHER_WORDS = "damaged", "other words"
_TEXTS = ("text", "finish_reason", "raw")
_MOST_TOKENS = _MOST_SUM = 1 << 53


def fault_of(row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row of an export; None for a sound one."""
    try:
        if not isinstance(row["key"], str) or not row_is_sound("requests", row) or not _can_be_stored(row):
            return DAMAGED
        if row["text"] is None:
            return None if isinstance(row["failure"], str) and row["failure"] else DAMAGED
        if not _has_its_types(row) or not row_is_sound("replies", {**row, "imported": None}):
            return DAMAGED
    except KeyError:
        return DAMAGED
    return None if _says_its_raw(row) else OTHER_WORDS


def _has_its_types(row: Mapping[str, Any]) -> bool:
    tokens = (row["prompt_tokens"], row["completion_tokens"])
    sums = (row["cost_usd"], row["received_at"])
    return (
        all(isinstance(row[name], str) for name in _TEXTS)
        and (row["failure"] is None or isinstance(row["failure"], str))
        and all(type(count) is int and 0 <= count < _MOST_TOKENS for count in tokens)
        and all(type(value) in (int, float) and 0 <= value < _MOST_SUM for value in sums)
    )


def _can_be_stored(row: Mapping[str, Any]) -> bool:
    """Tell whether all texts of a row are texts: half a surrogate, which JSON can name, is none."""
    try:
        return all(value.encode() or True for value in row.values() if isinstance(value, str))
    except UnicodeEncodeError:
        return False


def _says_its_raw(row: Mapping[str, Any]) -> bool:
    """Tell whether text and finish reason are those of the raw reply, as they are read now or were read once.

    Tokens are those that it tells, or fewer: what is beyond a request's limits isn't counted (see `billing`).
    """
    said = read(row["raw"])
    told = ((row["prompt_tokens"], said.prompt_tokens), (row["completion_tokens"], said.completion_tokens))
    if any(count > most > 0 for count, most in told):
        return False
    return (row["text"], row["finish_reason"]) in ((said.text, said.finish_reason), _once_read(row["raw"]))


def _once_read(raw: str) -> tuple[str, str]:
    """Return text and finish reason as earlier versions read them: thoughts and all, and with the sender's word."""
    tree = parsed(raw)
    if isinstance(tree, Mapping) and "custom_id" in tree:
        try:
            choice = (tree["response"]["body"].get("choices") or [{}])[0]
            text = (choice.get("message") or {}).get("content") or ""
            reason = str(choice.get("finish_reason") or ("unknown" if choice else NO_CHOICES))
            return str(text).encode("utf-8", "replace").decode(), reason.encode("utf-8", "replace").decode()
        except (KeyError, TypeError, AttributeError, IndexError):
            return "", ""
    said = read(raw)
    return said.text, "stop" if said.finish_reason == NO_CONTENT else said.finish_reason


def own_tables(db: sqlite3.Connection) -> bool:
    """Tell whether requests and replies are tables as a journal makes them: no views, and no columns that compute."""
    ours = {(name, _folded(sql)) for name, sql in todays()[0] | firsts() if name in ("requests", "replies")}
    query = "SELECT name, type, sql FROM main.sqlite_master WHERE lower(name) IN ('requests', 'replies')"
    found = db.execute(query).fetchall()
    return len(found) == 2 and all(kind == "table" and (name, _folded(sql)) in ours for name, kind, sql in found)


def _folded(sql: str | None) -> str:
    return " ".join((sql or "").split())
