"""The journal's tables, and connections to its file.

A request's key is the sha256 of its canonical JSON, a reply's and an attempt's checksum that of its row. A reply that
was imported is marked as such: it was not bought here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError
from llamaduo.files.scratch import scratch_folder

VERSION = 2
_NEWER = 1000
"""A version beyond this one is no version, but a damaged number."""
_FIRST = """
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
_ADDED = {"replies": "imported TEXT", "attempts": "checksum TEXT"}
"""Columns that the second format has and the first one with checksums had not."""
_IMPORTED = "CREATE INDEX imported ON replies (id) WHERE imported IS NOT NULL"
SCHEMA = _FIRST.replace("checksum TEXT NOT NULL\n)", f"checksum TEXT NOT NULL\n, {_ADDED['replies']})")
SCHEMA = SCHEMA.replace("cost_usd REAL\n)", f"cost_usd REAL\n, {_ADDED['attempts']})") + f"{_IMPORTED};\n"
"""To the letter what SQLite makes of the first format's tables when the columns are added."""
REPLY = ("key", "text", "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd")
SELECT_REPLY = f"SELECT {', '.join(REPLY)}, raw, imported, checksum FROM replies"
INSERT_REPLY = (
    "INSERT OR IGNORE INTO replies (key, text, finish_reason, prompt_tokens, completion_tokens, cost_usd, raw, "
    "received_at, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
ATTEMPT = ("key", "run", "stage", "llm", "owner", "batch", "worst_usd", "started_at", "outcome", "cost_usd")


def request_key(request: Mapping[str, Any]) -> str:
    """Return the sha256 of a request's canonical JSON."""
    canonical = json.dumps(request, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def checksum(*values: Any) -> str:
    """Return the sha256 of a row's values."""
    return hashlib.sha256(json.dumps(values, default=repr).encode()).hexdigest()  # a damaged row may hold bytes


def reply_is_sound(row: Sequence[Any]) -> bool:
    """Tell whether a row of `SELECT_REPLY` is what was once stored."""
    *values, imported, stored = row
    return bool(reply_checksum(values, imported) == stored)


def reply_checksum(values: Sequence[Any], imported: str | None) -> str:
    """Return the checksum of a reply's `REPLY` values and `raw`; the mark of an import is part of it."""
    return checksum(*values) if imported is None else checksum(*values, imported)


def insert_attempt(db: sqlite3.Connection, values: Sequence[Any]) -> int:
    """Insert an attempt with the values of `ATTEMPT`; return its number."""
    marks = ", ".join("?" * (len(ATTEMPT) + 1))
    statement = f"INSERT INTO attempts ({', '.join(ATTEMPT)}, checksum) VALUES ({marks}) RETURNING id"
    (number,) = db.execute(statement, (*values, checksum(*values))).fetchone()
    return int(number)


def connect(path: Path) -> sqlite3.Connection:
    """Open a journal's file, its tables brought up to date; each commit is durable."""
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    db.text_factory = lenient
    _wait_for_wal(db)
    db.execute("PRAGMA synchronous=FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        _bring_up_to_date(db)
    return db


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open a journal's file for reading; raises InputError if it is empty, or if its format can't be read."""
    if path.is_file() and is_empty(path):
        raise InputError(f"journal {path}: the file is empty (0 bytes), so there is nothing in it to read.")
    db = _readable(path)
    db.text_factory = lenient
    db.execute("PRAGMA trusted_schema=OFF")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    schema = schema_of(db)
    if version == VERSION or todays()[0] == schema:
        return db
    if version == 1 or firsts() == schema:
        for table, column in _ADDED.items():
            name = column.partition(" ")[0]
            db.execute(f"CREATE TEMP VIEW {table} AS SELECT *, NULL AS {name} FROM main.{table}")
        return db
    db.close()
    if version > VERSION:
        raise InputError(f"journal {path}: {_newer(version)}; read it with that one.")
    raise InputError(f"journal {path}: its format is {version}, not {VERSION}; open it once with llamaduo run.")


def is_first(db: sqlite3.Connection) -> bool:
    """Tell whether `connect_read_only` has opened a file of the first format with checksums."""
    return db.execute("SELECT 1 FROM sqlite_temp_master").fetchone() is not None


def is_empty(path: Path) -> bool:
    """Tell whether a file has nothing in it, nor in the log beside it."""
    return path.stat().st_size == 0 and not _logs(path)


def _logs(path: Path) -> list[Path]:
    """Return the logs beside a file that hold part of what it stands for; another process may just remove one."""
    found = []
    for log in (Path(f"{path}-wal"), Path(f"{path}-journal")):
        with contextlib.suppress(FileNotFoundError):
            found += [log] if log.stat().st_size else []
    return found


def _newer(version: int) -> str:
    return f"its format {version} is that of a newer llamaduo; this one knows {VERSION}"


def _readable(path: Path) -> sqlite3.Connection:
    """Open a file for reading; where its log can't be read in place, open a copy of both, which has no name."""
    uri, alone = f"{path.resolve().as_uri()}?mode=ro", not _logs(path)
    if not os.access(path.parent, os.W_OK) and alone:
        uri += "&immutable=1"
    try:
        db = sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
        return db
    except sqlite3.OperationalError:
        if alone:
            raise
    with scratch_folder() as scratch:
        copy = scratch / path.name
        for source in (path, *_logs(path)):
            shutil.copyfile(source, copy.with_name(source.name))
        db = sqlite3.connect(copy, timeout=60, check_same_thread=False)
        db.execute("PRAGMA journal_mode=DELETE")  # takes the log in
        db.execute("SELECT 1 FROM sqlite_master").fetchone()
    return db


def lenient(text: bytes) -> str:
    """Return a text, bytes that are no UTF-8 kept as half surrogates."""
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
    schema = schema_of(db)
    if schema == todays()[0]:  # the number alone is damaged
        version = VERSION
    elif schema == firsts():
        version = 1
    if version > VERSION:
        db.execute("ROLLBACK")
        raise sqlite3.DatabaseError(_newer(version))
    if version == 1:
        _from_version_1(db)
    elif version < VERSION:
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
        insert_attempt(db, (row[0], run, stage, llm, "", None, cost, received_at, "replied", cost))
    for table in ("requests", "replies"):
        db.execute(f"DROP TABLE {table}_0")


def _from_version_1(db: sqlite3.Connection) -> None:
    """Give attempts their checksums, and mark the replies that nobody asked for here: they were imported."""
    for table, column in _ADDED.items():
        db.execute(f"ALTER TABLE {table} ADD COLUMN {column}")
    db.execute(_IMPORTED)
    sums = [(checksum(*row), number) for number, *row in db.execute(f"SELECT id, {', '.join(ATTEMPT)} FROM attempts")]
    db.executemany("UPDATE attempts SET checksum = ? WHERE id = ?", sums)
    rows = db.execute(f"{SELECT_REPLY} WHERE key NOT IN (SELECT key FROM attempts)").fetchall()
    for row in rows:
        if reply_is_sound(row):
            mark = "an import before imports were marked"
            db.execute(
                "UPDATE replies SET imported = ?, checksum = ? WHERE key = ?",
                (mark, reply_checksum(row[:-2], mark), row[0]),
            )


@cache
def todays() -> tuple[set[tuple[str, str | None]], bytes]:
    """Return the schema and the header of a new journal."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(SCHEMA)
        return schema_of(db), db.serialize()[:100]


@cache
def firsts() -> set[tuple[str, str | None]]:
    """Return the schema of the first format that had checksums."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_FIRST)
        return schema_of(db)


def version_in(header: bytes) -> int | None:
    """Return the format that a file's first 100 bytes name where it is newer than today's, else None."""
    version = int.from_bytes(header[60:64])
    return version if header[:16] == todays()[1][:16] and VERSION < version <= _NEWER else None


def schema_of(db: sqlite3.Connection) -> set[tuple[str, str | None]]:
    """Return name and statement of every table and index."""
    return set(db.execute("SELECT name, sql FROM sqlite_master").fetchall())


def is_version_0(db: sqlite3.Connection) -> bool:
    """Tell whether the tables are those of the first format, whose replies named their run and had no checksum."""
    columns = {name for _, name, *_ in db.execute("PRAGMA table_info(replies)").fetchall()}
    return "run" in columns and "checksum" not in columns
