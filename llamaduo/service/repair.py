"""Repair: is the journal's file whole, and which of its rows are what was once stored?"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError
from llamaduo.service.salvage import layouts, rows
from llamaduo.service.schema import (
    ATTEMPT,
    REPLY,
    VERSION,
    checksum,
    connect,
    firsts,
    is_version_0,
    lenient,
    reply_checksum,
    request_key,
    schema_of,
    todays,
    version_in,
)


def is_sound(path: Path) -> bool:
    """Tell whether SQLite can read the whole file, and finds a journal in it; an empty, older or newer one is sound."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                return False
            schema = schema_of(db)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            other = not schema or is_version_0(db) or version > VERSION
            return (other or todays()[0] <= schema or firsts() <= schema) and _header_is_sound(path)
    except sqlite3.OperationalError as error:
        if "lock" in str(error) or "busy" in str(error):
            raise
        return False
    except sqlite3.DatabaseError:
        return False


def _header_is_sound(path: Path) -> bool:
    """Tell whether a header, of which SQLite believes whatever is there, names formats that there are.

    Page size and encoding may be any: with others than the file's, SQLite can read neither its trees nor its schema.
    """
    with path.open("rb") as file:
        header = file.read(100)
    magic, before_the_first_checkpoint = todays()[1][:16], not any(header)
    return before_the_first_checkpoint or (header[:16] == magic and header[18:20] in (b"\1\1", b"\2\2"))


def _is_foreign(path: Path) -> bool:
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
    "replies": (*REPLY, "raw", "received_at", "checksum", "imported"),
    "attempts": (*ATTEMPT, "checksum"),
}
_SINCE_VERSION_2 = {"replies": 1, "attempts": 1}
"""How many of these columns a row of the first format lacks, at its end."""
_WIDTHS = {
    table: {1 + len(columns), 1 + len(columns) - _SINCE_VERSION_2.get(table, 0)} for table, columns in _COLUMNS.items()
}
"""How many values a row has, its id among them."""


def row_is_sound(table: str, row: Mapping[str, Any]) -> bool:
    """Tell whether a row is what was once stored; an attempt of the first format, whether it may be."""
    try:
        if table == "requests":
            return bool(request_key(json.loads(row["request"])) == row["key"])
        if table == "replies":
            values = [row[name] for name in (*REPLY, "raw")]
            return bool(reply_checksum(values, row.get("imported")) == row["checksum"])
        if row["checksum"] is not None:
            return bool(checksum(*(row[name] for name in ATTEMPT)) == row["checksum"])
    except (ValueError, TypeError, RecursionError):
        return False
    words = all(isinstance(row[name], str) for name in ("key", "run", "stage", "llm", "owner"))
    sums = all(_is_sum(row[name]) for name in ("worst_usd", "started_at"))
    settled = row["outcome"] in ("replied", "failed", "unknown") and _is_sum(row["cost_usd"])
    return words and sums and (settled or row["outcome"] is row["cost_usd"] is None)


def _is_sum(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _copy_sound_rows(damaged: Path, fresh: Path) -> dict[str, int]:
    """Fill a new journal with the sound rows of a damaged one; return how many of each table.

    What SQLite can still read counts, and what lies on the pages; these are cut as SQLite cuts them, or as the header
    says, or in any other way if nothing is found so.
    """
    for leftover in (fresh, Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
        leftover.unlink(missing_ok=True)
    counts = dict.fromkeys(_COLUMNS, 0)
    with contextlib.closing(connect(fresh)) as new:
        new.execute("BEGIN IMMEDIATE")
        for table in _COLUMNS:
            for number, values in _by_sqlite(damaged, table):
                counts[table] += _copy(new, table, number, values)
        for rank, layout in enumerate(layouts(damaged)):
            if rank < 2 or not any(counts.values()):
                for number, values in rows(damaged, set().union(*_WIDTHS.values()), layout):
                    for table in (table for table, widths in _WIDTHS.items() if len(values) in widths):
                        counts[table] += _copy(new, table, number, values)
        new.execute("COMMIT")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        new.execute("PRAGMA journal_mode=DELETE")
    return counts


def _copy(new: sqlite3.Connection, table: str, number: int, values: Sequence[Any]) -> int:
    """Insert a row, whose values have its id before them, if it is sound; return 1 if it was not there yet."""
    row = dict.fromkeys(_COLUMNS[table]) | dict(zip(_COLUMNS[table], values[1:], strict=False))
    if not row_is_sound(table, row):
        return 0
    if table == "attempts":
        row = {"id": number, **row, "checksum": checksum(*(row[name] for name in ATTEMPT))}
    statement = f"INSERT OR IGNORE INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
    return new.execute(statement, tuple(row.values())).rowcount


def _by_sqlite(path: Path, table: str) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield the rows that SQLite can read, whichever columns the table has beside or in place of today's."""
    with contextlib.suppress(sqlite3.DatabaseError):
        uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            db.text_factory = lenient
            there = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})").fetchall()}
            wanted = ", ".join(name if name in there else "NULL" for name in _COLUMNS[table])
            for row in db.execute(f"SELECT rowid, id, {wanted} FROM {table}"):
                yield row[0], row[1:]


def salvaged(path: Path) -> str:
    """Put every row of a journal that can be read and is sound into a new file, keep the old one beside it; say so.

    Nobody else may use it meanwhile. Raises InputError for what is no journal, or a newer one.
    """
    with path.open("rb") as file:
        newer = version_in(file.read(100))
    if newer:
        raise InputError(
            f"journal {path}: it is damaged, and of format {newer}, which this llamaduo doesn't know: "
            "it is left as it is; use the newer llamaduo that made it."
        )
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    counts = _copy_sound_rows(path, fresh)
    if not any(counts.values()) and _is_foreign(path):
        fresh.unlink()
        raise InputError(f"journal {path}: it is no journal; set service.journal to another file.")
    kept = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    for end in ("-wal", "-shm"):
        if Path(f"{path}{end}").exists():
            os.replace(f"{path}{end}", f"{kept}{end}")
    os.link(path, kept)
    os.replace(fresh, path)
    return (
        f"journal {path}: it was damaged; {counts['replies']:,} replies are sound and kept, the rest is "
        f"bought again when it is needed. The damaged file: {kept.name}."
    )
