"""Repair: is the journal's file whole, and which of its rows are what was once stored?"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llamaduo.service.salvage import rows
from llamaduo.service.schema import REPLY, VERSION, checksum, connect, is_version_0, request_key, schema_of, todays


def is_sound(path: Path) -> bool:
    """Tell whether SQLite can read the whole file, and finds a journal in it; an empty, older or newer one is sound."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                return False
            schema = schema_of(db)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            other = not schema or is_version_0(db) or version > VERSION
            return (other or todays()[0] <= schema) and _header_is_sound(path)
    except sqlite3.OperationalError as error:
        if "lock" in str(error) or "busy" in str(error):
            raise
        return False
    except sqlite3.DatabaseError:
        return False


def _header_is_sound(path: Path) -> bool:
    """Tell whether what is the same in every journal's header is so; SQLite believes whatever is there."""
    with path.open("rb") as file:
        header = file.read(100)
    new = todays()[1]
    begin = header[:18] == new[:18] and header[20:24] == new[20:24] and header[18:20] in (b"\1\1", b"\2\2")
    rest = all(header[at] in (0, new[at]) for at in (*range(44, 60), *range(64, 92)) if at < len(header))
    return not header or (begin and rest)  # zeros before the first checkpoint


def is_foreign(path: Path) -> bool:
    """Tell whether a file of which no row could be read was never a journal: no SQLite file, or one of other tables."""
    magic = todays()[1][:16]
    with path.open("rb") as file:
        begin = file.read(len(magic))
    if any(begin) and begin != magic[: len(begin)]:
        return True
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            names = {name for name, _ in schema_of(db)}
    except sqlite3.DatabaseError:
        return False
    return bool(names) and not names & _COLUMNS.keys()


_COLUMNS = {
    "requests": ("key", "request", "failure"),
    "replies": (*REPLY, "raw", "received_at", "checksum"),
    "attempts": (
        "key", "run", "stage", "llm", "owner", "batch", "worst_usd", "started_at", "outcome", "cost_usd",
    ),
}  # fmt: skip


def row_is_sound(table: str, row: Mapping[str, Any]) -> bool:
    """Tell whether a row of `requests` or `replies` is what was once stored."""
    try:
        if table == "requests":
            return bool(request_key(json.loads(row["request"])) == row["key"])
        if table == "replies":
            return bool(checksum(*(row[name] for name in (*REPLY, "raw"))) == row["checksum"])
    except (ValueError, TypeError, UnicodeError):
        return False
    words = all(isinstance(row[name], str) for name in ("key", "run", "stage", "llm", "owner"))
    sums = all(_is_sum(row[name]) for name in ("worst_usd", "started_at"))
    settled = row["outcome"] in ("replied", "failed", "unknown") and _is_sum(row["cost_usd"])
    return words and sums and (settled or row["outcome"] is row["cost_usd"] is None)


def _is_sum(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def copy_sound_rows(damaged: Path, fresh: Path) -> dict[str, int]:
    """Fill a new journal with the sound rows of a damaged one; return how many of each table."""
    for leftover in (fresh, Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
        leftover.unlink(missing_ok=True)
    counts = dict.fromkeys(_COLUMNS, 0)
    with contextlib.closing(connect(fresh)) as new:
        new.execute("BEGIN IMMEDIATE")
        for table, columns in _COLUMNS.items():
            names = ("id", *columns) if table == "attempts" else columns
            statement = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            for number, (_, *values) in rows(damaged, len(columns) + 1):
                if row_is_sound(table, dict(zip(columns, values, strict=True))):
                    known = (number, *values) if table == "attempts" else values
                    counts[table] += new.execute(statement, known).rowcount
        new.execute("COMMIT")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        new.execute("PRAGMA journal_mode=DELETE")
    return counts
