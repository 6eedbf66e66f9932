"""The journal: every request to a service LLM and its raw reply, for ever, in one SQLite file.

A request's key is the sha256 of everything that was sent (provider, address, model, messages,
parameters, schema) and of the repeat's number. The intent is stored before sending and the reply
before anything reads it, so a reply that was paid for is never bought again, by no run and no process.
Two processes that ask for the same thing at the same moment may still both send it; the first reply counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, asked_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cost_usd REAL NOT NULL, raw TEXT NOT NULL, run TEXT NOT NULL,
    received_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS replies_by_run ON replies (run);
"""


@dataclass(frozen=True)
class Reply:
    """What a service LLM answered."""

    key: str
    """The request's key in the journal."""
    text: str
    """The message's content, as it came."""
    finish_reason: str
    """The provider's word for why the reply ended: stop, length, content_filter ..."""
    prompt_tokens: int
    """Tokens sent, as billed."""
    completion_tokens: int
    """Tokens received, as billed."""
    cost_usd: float
    """Its price."""


def request_key(request: dict[str, Any]) -> str:
    """Return the sha256 of a request's canonical JSON."""
    canonical = json.dumps(request, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def default_path() -> Path:
    """Return `$LLAMADUO_HOME/journal.sqlite`, or `~/.llamaduo/journal.sqlite`."""
    return Path(os.environ.get("LLAMADUO_HOME") or Path.home() / ".llamaduo") / "journal.sqlite"


class Journal:
    """An open journal; every write is durable when its method returns."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, isolation_level=None)
            self._wait_for_wal()
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"journal {path}: {error}; set LLAMADUO_HOME or service.journal elsewhere.") from error

    def _wait_for_wal(self) -> None:
        """Switch to write-ahead logging; while another process does the same, SQLite refuses without waiting."""
        for _ in range(100):
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError:
                time.sleep(0.05)
        self._db.execute("PRAGMA journal_mode=WAL")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def find(self, key: str) -> Reply | None:
        """Return the stored reply to a request, or None."""
        row = self._read(
            "SELECT key, text, finish_reason, prompt_tokens, completion_tokens, cost_usd FROM replies WHERE key = ?",
            key,
        )
        return Reply(*row) if row else None

    def intend(self, requests: Iterable[tuple[str, dict[str, Any]]], *, run: str, stage: str) -> None:
        """Store requests that are about to be sent."""
        now = time.time()
        rows = [(key, json.dumps(request, sort_keys=True), run, stage, now) for key, request in requests]
        self._write("INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?)", rows)

    def record(self, reply: Reply, *, raw: str, run: str) -> None:
        """Store a reply as it came."""
        row = (*(getattr(reply, name) for name in Reply.__dataclass_fields__), raw, run, time.time())
        self._write("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [row])

    def spent(self, run: str) -> float:
        """Return what a run has paid so far, in US dollars, resumes included."""
        row = self._read("SELECT SUM(cost_usd) FROM replies WHERE run = ?", run)
        return float((row and row[0]) or 0.0)

    def _read(self, query: str, value: str) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._db.execute(query, (value,)).fetchone()
        except sqlite3.Error as error:
            raise InputError(f"journal: {error}; set service.journal to a sound one, then run again.") from error
        return row

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise InputError(
                f"journal: {error}; free space or set service.journal elsewhere, then run again."
            ) from error
