"""The journal's tables, and connections to its file.

A request's key is the sha256 of its canonical JSON, a reply's checksum that of its row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, request TEXT NOT NULL, failure TEXT
);
CREATE TABLE IF NOT EXISTS replies (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost_usd REAL NOT NULL, raw TEXT NOT NULL,
    received_at REAL NOT NULL, checksum TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, llm TEXT NOT NULL,
    owner TEXT NOT NULL, batch TEXT, worst_usd REAL NOT NULL, started_at REAL NOT NULL, outcome TEXT, cost_usd REAL
);
CREATE TABLE IF NOT EXISTS spent (id INTEGER PRIMARY KEY, scope TEXT NOT NULL UNIQUE, usd REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, llm TEXT NOT NULL, remote_id TEXT NOT NULL, created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS set_aside (id INTEGER PRIMARY KEY, key TEXT, why TEXT, row TEXT, found_at REAL);
CREATE INDEX IF NOT EXISTS open_attempts ON attempts (key) WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS reserved ON attempts (run, worst_usd, owner) WHERE outcome IS NULL;
"""
REPLY = ("key", "text", "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd")
SELECT_REPLY = f"SELECT {', '.join(REPLY)}, raw, checksum FROM replies"
INSERT_REPLY = (
    "INSERT OR IGNORE INTO replies (key, text, finish_reason, prompt_tokens, completion_tokens, cost_usd, raw, "
    "received_at, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
INSERT_ATTEMPT = (
    "INSERT INTO attempts (key, run, stage, llm, owner, batch, worst_usd, started_at, outcome, cost_usd) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
)


def request_key(request: Mapping[str, Any]) -> str:
    """Return the sha256 of a request's canonical JSON."""
    canonical = json.dumps(request, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def checksum(*values: Any) -> str:
    """Return the sha256 of a row's values."""
    return hashlib.sha256(json.dumps(values, default=repr).encode()).hexdigest()  # a damaged row may hold bytes


def connect(path: Path) -> sqlite3.Connection:
    """Open a journal's file, its tables brought up to date; each commit is durable."""
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    db.text_factory = _lenient
    _wait_for_wal(db)
    db.execute("PRAGMA synchronous=FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        _bring_up_to_date(db)
    return db


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a journal's file for reading; raises InputError if its format isn't today's."""
    writable = os.access(path.parent, os.W_OK)
    uri = f"{path.resolve().as_uri()}?mode=ro{'' if writable else '&immutable=1'}"
    db = sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)
    db.text_factory = _lenient
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        db.close()
        raise InputError(f"journal {path}: its format is {version}, not {VERSION}; open it once with llamaduo run.")
    return db


def _lenient(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def _wait_for_wal(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; while another process does the same, SQLite refuses without waiting."""
    for _ in range(100):
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            time.sleep(0.05)
    db.execute("PRAGMA journal_mode=WAL")


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables, or those of an older version into today's."""
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if schema_of(db) == todays()[0]:  # the number alone is damaged
        version = VERSION
    if version > VERSION:
        db.execute("ROLLBACK")
        raise sqlite3.DatabaseError(f"its format {version} is newer than this llamaduo, which knows {VERSION}")
    if version < VERSION:
        old = is_version_0(db)
        if old:
            db.execute("DROP INDEX IF EXISTS replies_by_run")
            for table in ("requests", "replies"):
                db.execute(f"ALTER TABLE {table} RENAME TO {table}_0")
        for statement in SCHEMA.split(";"):
            db.execute(statement)
        if old:
            _from_version_0(db)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _from_version_0(db: sqlite3.Connection) -> None:
    """Take over the rows of the first format, which had neither checksums nor attempts."""
    db.execute("INSERT INTO requests (key, request) SELECT key, request FROM requests_0")
    query = f"""SELECT {", ".join(f"p.{name}" for name in REPLY)}, p.raw, p.received_at, p.run, r.stage, r.request
        FROM replies_0 p JOIN requests_0 r USING (key)"""
    for *row, received_at, run, stage, request in db.execute(query).fetchall():
        db.execute(INSERT_REPLY, (*row, received_at, checksum(*row)))
        sent = json.loads(request)
        llm, cost = f"{sent['provider']}/{sent['model']}", row[5]
        db.execute(INSERT_ATTEMPT, (row[0], run, stage, llm, "", None, cost, received_at, "replied", cost))
    for table in ("requests", "replies"):
        db.execute(f"DROP TABLE {table}_0")


@cache
def todays() -> tuple[set[tuple[str, str | None]], bytes]:
    """Return the schema and the header of a new journal."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        return schema_of(db), db.serialize()[:100]


def schema_of(db: sqlite3.Connection) -> set[tuple[str, str | None]]:
    """Return name and statement of every table and index."""
    return set(db.execute("SELECT name, sql FROM sqlite_master").fetchall())


def is_version_0(db: sqlite3.Connection) -> bool:
    """Tell whether the tables are those of the first format, whose replies named their run and had no checksum."""
    columns = {name for _, name, *_ in db.execute("PRAGMA table_info(replies)").fetchall()}
    return "run" in columns and "checksum" not in columns
