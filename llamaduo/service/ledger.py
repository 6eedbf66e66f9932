"""What a journal is asked by people: what was spent, is it sound, may I have a copy.

    spend(journal)                  one row for each run, stage, service LLM and day
    export(journal, path)           every request with its reply, as JSONL or Parquet
    take_in(journal, path)          the same back, or from another journal, marked as imported; each row is verified
    verify(journal)                 every checksum, every key, every sum

A row of an export: `key`, `request` (JSON), `text`, `finish_reason`, `prompt_tokens`, `completion_tokens`, `cost_usd`,
`raw` (JSON), `received_at` (seconds since 1970), `checksum`, and `failure` for a request that was given up, with the
reply's fields null. Whether a reply was imported itself is not told: who takes it in marks it anyway.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError
from llamaduo.service.attempts import study_of
from llamaduo.service.imported import OTHER_WORDS, fault_of, own_tables
from llamaduo.service.journal import Journal
from llamaduo.service.repair import row_is_sound
from llamaduo.service.schema import REPLY, checksum, connect_read_only, reply_checksum

_FIELDS = (
    "key", "request", "text", "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd", "raw", "received_at",
    "checksum", "failure",
)  # fmt: skip
_ROWS = """SELECT q.key, q.request, p.text, p.finish_reason, p.prompt_tokens, p.completion_tokens, p.cost_usd, p.raw,
    p.received_at, p.checksum, q.failure, p.imported
    FROM requests q LEFT JOIN replies p USING (key)
    WHERE q.id > ? AND (p.key IS NOT NULL OR q.failure IS NOT NULL) ORDER BY q.id LIMIT 500"""
_REPLY_COLUMNS = (*_FIELDS[0:1], *_FIELDS[2:9], "imported", "checksum")
_LONGEST_ROW = 64 << 20
"""Characters of a line that is read."""


@dataclass(frozen=True)
class Spent:
    """What one run, stage and service LLM cost on one day."""

    run: str
    stage: str
    llm: str
    day: str
    """UTC, such as 2026-11-21."""
    calls: int
    """Sendings, failed ones included."""
    replies: int
    unknown: int
    """Sendings whose outcome is unknown: timeouts, broken connections, kills; counted at their worst."""
    in_flight: int
    prompt_tokens: int
    completion_tokens: int
    usd: float
    """US dollars, unknown outcomes at their worst."""


def spend(journal: Journal) -> list[Spent]:
    """Return what was spent, by run, stage, service LLM and day, in this order."""
    rows = journal.query(
        """SELECT a.run, a.stage, a.llm, date(a.started_at, 'unixepoch'), COUNT(*),
            SUM(a.outcome IS 'replied'), SUM(a.outcome IS 'unknown'), SUM(a.outcome IS NULL),
            COALESCE(SUM(CASE WHEN a.outcome = 'replied' THEN p.prompt_tokens END), 0),
            COALESCE(SUM(CASE WHEN a.outcome = 'replied' THEN p.completion_tokens END), 0),
            COALESCE(SUM(a.cost_usd), 0)
        FROM attempts a LEFT JOIN replies p USING (key) GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"""
    )
    return [Spent(*row) for row in rows]


def _rows(query: Callable[..., list[tuple[Any, ...]]]) -> Iterator[dict[str, Any]]:
    """Yield every request that has a reply or was given up."""
    last = 0
    while rows := query(_ROWS, last):
        for *values, imported in rows:
            row = dict(zip(_FIELDS, values, strict=True))
            if imported is not None and row_is_sound("replies", {**row, "imported": imported}):
                row["checksum"] = checksum(*_summed(row))
            yield row
        ((last,),) = query("SELECT id FROM requests WHERE key = ?", rows[-1][0])


def _summed(row: Mapping[str, Any]) -> list[Any]:
    """Return what of a reply its checksum covers."""
    return [row[name] for name in (*REPLY, "raw")]


def export(journal: Journal, path: Path, keys: Collection[str] | None = None) -> int:
    """Write every request with its reply, or those of some keys, to a `.jsonl` or `.parquet` file; return their number.

    The file appears whole or not at all. Raises InputError for another ending.
    """
    rows = _rows(journal.query)
    rows = rows if keys is None else (row for row in rows if row["key"] in keys)
    if path.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"{path}: a journal is exported to .jsonl or .parquet.")
    private = path.with_name(f".{path.name}.part")
    try:
        count = (_write_jsonl if path.suffix == ".jsonl" else _write_parquet)(private, rows)
        private.replace(path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}).") from error
    finally:
        private.unlink(missing_ok=True)
    return count


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
            count += 1
    return count


def _write_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    import pyarrow
    import pyarrow.parquet

    kinds = {"prompt_tokens": pyarrow.int64(), "completion_tokens": pyarrow.int64()}
    kinds |= {"cost_usd": pyarrow.float64(), "received_at": pyarrow.float64()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in _FIELDS])
    count = 0
    with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for chunk in _chunks(rows, 5000):
            writer.write_table(pyarrow.Table.from_pylist(chunk, schema=schema))
            count += len(chunk)
    return count


def _chunks(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


@dataclass(frozen=True)
class TakenIn:
    """What came of an import."""

    new: int
    known: int
    """Requests that this journal had a reply to already; it keeps its own."""
    refused: int
    """Rows whose key or checksum is wrong, or that are no rows at all, and those with other words."""
    other_words: int = 0
    """Rows whose text or finish reason is not that of their raw reply."""


def take_in(journal: Journal, path: Path) -> TakenIn:
    """Add the sound rows of an export or of another journal; what is here already stays.

    Imported replies cost nothing: they count in no run's spend, and bear the file's name as their mark. Raises
    InputError if the file can't be read, or holds nothing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes): there is nothing in it to take in.")
    new = known = 0
    faults: Counter[str | None] = Counter()
    for chunk in _chunks(_read(path), 500):
        found = [(fault_of(row), row) for row in chunk]
        faults.update(fault for fault, _ in found)
        sound = [{**row, "imported": path.name} for fault, row in found if fault is None]
        added = journal.write_now(partial(_insert_all, rows=sound))
        new += added
        known += len(sound) - added
    return TakenIn(new, known, faults.total() - faults[None], faults[OTHER_WORDS])


def _read(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.suffix == ".parquet":
            import pyarrow
            import pyarrow.parquet

            try:
                for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=500):
                    yield from batch.to_pylist()
            except pyarrow.ArrowException as error:
                raise InputError(f"{path}: no Parquet file ({error}).") from error
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8", errors="replace") as file:
                while line := file.readline(_LONGEST_ROW):
                    if len(line) == _LONGEST_ROW:
                        raise InputError(
                            f"{path}: no export of a journal: a line has {_LONGEST_ROW:,} characters or more."
                        )
                    yield _parsed(line)
        elif path.suffix in (".sqlite", ".db"):
            yield from _tables(path)
        else:
            raise InputError(f"{path}: a journal is imported from .jsonl, .parquet or .sqlite.")
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror or error}).") from error


def _tables(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of another journal's tables; its views and triggers are somebody else's, and none is used."""
    try:
        with contextlib.closing(connect_read_only(path)) as db:
            if not own_tables(db):
                raise InputError(
                    f"{path}: its requests and replies are not the tables of a journal; nothing is read of it."
                )
            yield from _rows(lambda statement, *values: db.execute(statement, values).fetchall())
    except sqlite3.Error as error:
        raise InputError(f"{path}: can't be read ({error}).") from error


def _parsed(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _insert_all(db: sqlite3.Connection, rows: Iterable[dict[str, Any]]) -> int:
    return sum(_insert(db, row) for row in rows)


def _insert(db: sqlite3.Connection, row: dict[str, Any]) -> int:
    """Insert a row; return 1 if it is new."""
    statement = "INSERT OR IGNORE INTO requests (key, request, failure) VALUES (?, ?, ?)"
    added = db.execute(statement, (row["key"], row["request"], row["failure"])).rowcount
    if row["text"] is not None:
        row = {**row, "checksum": reply_checksum(_summed(row), row["imported"])}
        marks = ", ".join("?" * len(_REPLY_COLUMNS))
        statement = f"INSERT OR IGNORE INTO replies ({', '.join(_REPLY_COLUMNS)}) VALUES ({marks})"
        added = db.execute(statement, [row[name] for name in _REPLY_COLUMNS]).rowcount
    return added


@dataclass(frozen=True)
class Verified:
    """What a check of the whole journal found."""

    requests: int
    replies: int
    faults: tuple[str, ...]
    """One sentence a fault; none if all is sound."""


def verify(journal: Journal) -> Verified:
    """Check SQLite's structure, every key and checksum, and the ledger's sums by its attempts and by its replies."""
    faults = [text for (text,) in journal.query("PRAGMA integrity_check") if text != "ok"]
    counts = {}
    for table in ("requests", "replies", "attempts"):
        columns = [name for _, name, *_ in journal.query(f"PRAGMA table_info({table})")]
        last = counts[table] = 0
        while rows := journal.query(f"SELECT * FROM {table} WHERE id > ? ORDER BY id LIMIT 500", last):
            for values in rows:
                row = dict(zip(columns, values, strict=True))
                counts[table] += 1
                bare = table == "attempts" and row["checksum"] is None and not journal.is_first
                if bare or not row_is_sound(table, row):
                    what = "its key is not that of what it holds" if table == "requests" else "its checksum is wrong"
                    what = "it has no checksum" if bare else what
                    faults.append(f"{table}, row {row['id']} ({row['key'][:8]}): {what}.")
            last = rows[-1][0]
    return Verified(counts["requests"], counts["replies"], (*faults, *_wrong_sums(journal), *_wrong_costs(journal)))


def _wrong_costs(journal: Journal) -> Iterator[str]:
    """Yield where a reply and the attempts that brought it differ: in what it cost, or in whether there is one."""
    query = """SELECT p.key, p.cost_usd, p.imported, COUNT(a.id), SUM(a.outcome IS 'replied'),
            MIN(CASE WHEN a.outcome = 'replied' THEN abs(a.cost_usd - p.cost_usd) END)
        FROM replies p LEFT JOIN attempts a USING (key) GROUP BY p.key"""
    for key, cost, imported, attempts, replied, off in journal.query(query):
        if replied and imported is None and off > 1e-9 + 1e-6 * abs(cost):
            yield f"reply {key[:8]}: it cost ${cost:.6f}, and no attempt of its request cost as much."
        elif not attempts and imported is None and not journal.is_first:
            yield f"reply {key[:8]}: it is not marked as imported, and there is no attempt that brought it."
    lost = """SELECT a.key FROM attempts a LEFT JOIN replies p USING (key)
        WHERE a.outcome = 'replied' AND p.key IS NULL AND a.key NOT IN (SELECT key FROM set_aside WHERE key NOT NULL)"""
    for (key,) in journal.query(lost):
        yield f"attempt of request {key[:8]}: it brought a reply, and there is none."


def _wrong_sums(journal: Journal) -> list[str]:
    sums: dict[str, float] = {}
    for run, cost in journal.query("SELECT run, SUM(cost_usd) FROM attempts WHERE outcome IS NOT NULL GROUP BY run"):
        for scope in {run, study_of(run)}:
            sums[scope] = sums.get(scope, 0.0) + (cost or 0.0)
    kept = dict(journal.query("SELECT scope, usd FROM spent"))
    return [
        f"spent, {scope}: ${kept.get(scope, 0.0):.6f} is kept, the attempts come to ${sums.get(scope, 0.0):.6f}."
        for scope in sorted(sums.keys() | kept.keys())
        if abs(kept.get(scope, 0.0) - sums.get(scope, 0.0)) > 1e-6
    ]
