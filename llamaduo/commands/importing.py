"""`llamaduo import`: API logs and other data, read by what is in them, become a coverage data set of messages.

    llamaduo import logs/*.jsonl.gz -o pairs.jsonl

Writes `pairs.jsonl`, or Parquet by its name, a row as follows, and beside it `pairs.left_out.jsonl` with file, line and
reason of every row that can't be used:

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}],
     "imported": {"file": "logs/a.jsonl.gz", "line": 7}}

A run on it has the rows that a run on what was imported would have, to the byte and in the same order.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from llamaduo.commands.arguments import Given, told_apart
from llamaduo.config import Data, DataSource
from llamaduo.data.coverage import taken_rows
from llamaduo.data.dataset import apart
from llamaduo.data.formats import Read
from llamaduo.data.tally import Tally
from llamaduo.display import plain_console
from llamaduo.errors import ConfigError, InputError
from llamaduo.files.writing import private, write_bytes, writing

USAGE = """\
usage: llamaduo import FILE... [-o OUT] [data.strict=true] [data.category=NAME] [data.allow_keys=true]

API logs and other data become a coverage data set of messages: docs/data.md has the shapes that are known.

  FILE              a file, a folder or a pattern: JSONL, JSON, CSV, Parquet, Arrow; gz, bz2, xz, zst
  -o OUT            where to write: .jsonl or .parquet (default coverage.jsonl); a file that is there is not replaced
  data.strict=true  stop at the first row that can't be used; they are left out, counted and listed otherwise"""
_DEFAULT = "coverage.jsonl"
_KINDS = (".jsonl", ".parquet")
_BATCH = 1024
"""Rows that are written to Parquet together."""
_ROW = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Import, print what was read as what and what was left out, and return the exit code."""
    given = told_apart(arguments, values=("-o", "--out", "data.strict", "data.category", "data.allow_keys"))
    if not given.words or any(word.startswith("-") for word in given.words):
        raise ConfigError(f"{USAGE.splitlines()[0]}.")
    out = given.path("-o") or given.path("--out") or Path(_DEFAULT)
    listing = out.with_suffix(".left_out.jsonl")
    for path in (out, listing):
        if path.exists():
            raise InputError(f"{path}: is there already; remove it, or name another file with -o.")
    if out.suffix not in _KINDS:
        raise ConfigError(f"-o {out}: must end in {' or '.join(_KINDS)}.")
    data = Data(
        DataSource.file,
        category=given.options.get("data.category"),
        strict=_yes(given, "data.strict"),
        allow_keys=_yes(given, "data.allow_keys"),
    )
    tally, shapes = Tally(", ".join(given.words)), Counter[str]()
    taken = _taken(given.words, data, tally, shapes)
    with _replacing(out) as file:
        (_write_parquet if out.suffix == ".parquet" else _write_lines)(file, taken)
        if not shapes:
            raise InputError(f"{', '.join(given.words)}: no row can be used ({tally.reasons()}).")
    console = plain_console()
    left = sum(count for count, _ in tally.left.values())
    console.print(f"{sum(shapes.values()):,} rows: {out}")
    for shape, count in shapes.most_common():
        console.print(f"  {count:,}: {shape}")
    if left:
        write_bytes(listing, "".join(one.line() for one in tally.unused).encode())
        console.print(f"{left:,} left out: {listing}")
        for reason, (count, first) in sorted(tally.left.items(), key=lambda item: -item[1][0]):
            console.print(f"  {count:,}: {reason}; first {first}")
    return 0


def _yes(given: Given, option: str) -> bool:
    told = given.options.get(option, "false").lower()
    if told not in ("true", "false"):
        raise ConfigError(f"{option}={told}: must be true or false.")
    return told == "true"


def _taken(paths: Sequence[str], data: Data, tally: Tally, shapes: Counter[str]) -> Iterator[_ROW]:
    """Yield what is written of each row that is used; a prompt that was there before is left out over all paths."""
    seen: dict[str, tuple[str, Any]] = {}
    for path in paths:
        for place, read, split in taken_rows(replace(data, path=path), tally, seen):
            shapes[read.shape] += 1
            yield _row(place, read, split)


def _row(place: str, read: Read, split: Any) -> _ROW:
    example, category = read.example, read.row.get("category")
    row: _ROW = {"messages": [*example.messages, example.answer]}
    if example.tools:
        row["tools"] = list(example.tools)
    row |= {"category": category} if isinstance(category, str) and category else {}
    row |= {"split": split} if isinstance(split, str) and split else {}
    return row | {"imported": apart(place)}


def _write_lines(file: BinaryIO, rows: Iterable[_ROW]) -> None:
    for row in rows:
        file.write(
            f"{json.dumps(row, ensure_ascii=False)}\n".encode(errors="backslashreplace")
        )  # half a surrogate pair


def _write_parquet(file: BinaryIO, rows: Iterable[_ROW]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    text = pa.string()
    turn = pa.struct(dict.fromkeys(("role", "content", "tool_calls", "tool_call_id", "name"), text))
    imported = pa.struct({"file": text, "line": pa.int64(), "row": pa.int64()})
    columns = {"messages": pa.list_(turn), "tools": text, "category": text, "split": text, "imported": imported}
    schema = pa.schema(list(columns.items()))
    batch: list[_ROW] = []

    def flush() -> None:
        writer.write_table(pa.Table.from_pylist(batch, schema=schema))
        batch.clear()

    with ParquetWriter(file, schema) as writer:
        for row in rows:
            turns = [{**turn, "tool_calls": json.dumps(turn["tool_calls"])} if "tool_calls" in turn else turn
                     for turn in row["messages"]]  # fmt: skip
            tools = {"tools": json.dumps(row["tools"])} if "tools" in row else {}
            names: _ROW = {name: _stored(row[name]) for name in ("category", "split") if name in row}
            imported = {name: _stored(value) for name, value in row["imported"].items()}
            batch.append({**row, **tools, **names, "messages": turns, "imported": imported})
            if len(batch) == _BATCH:
                flush()
        flush()


def _stored(value: Any) -> Any:
    """Return a text with an escape in place of half a surrogate pair, which is no UTF-8."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file under a private name, which becomes its own when all is written."""
    hidden = private(path)
    try:
        with writing(path):
            file = hidden.open("xb")
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
