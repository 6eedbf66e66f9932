"""Rows in tables: CSV, Parquet and Arrow; a row that can't be read is an `UnusableError` in its place.

    for place, row in csv(Path("pairs.csv")): ...              ("pairs.csv:2", {"prompt": ...})
    for place, row in parquet(Path("pairs.parquet")): ...      ("pairs.parquet row 0", {"prompt": ...})

Of a CSV the line behind a broken row is read as one that begins a row, so that a quote too many takes no other rows.
"""

from __future__ import annotations

import csv as of_csv
import io
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamaduo.data.packed import opened
from llamaduo.data.texts import MARK, not_utf8, refuse_other
from llamaduo.data.unusable import UnusableError
from llamaduo.errors import InputError

Rows = Iterator[tuple[str, Any]]

HEADER_AGAIN: dict[str, Any] = {}
"""Stands for a row that says the CSV's header again (files were put one behind the other); compared by identity."""
_BATCH = 1024
"""Rows of a table that are in memory as values."""


class _Lines:
    """The lines of a CSV, which can be given back; knows number and first byte of the last one."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        self._again: deque[str] = deque()
        self.taken: list[str] = []
        """Lines of the row that is being read."""
        self.number = 0
        self._byte = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._text)
        self.number += 1
        self._byte += len(line) if line.isascii() else len(line.encode(errors="surrogateescape"))
        self.taken.append(line)
        return line

    def give_back_all_but_first(self) -> None:
        again = self.taken[1:]
        self._again.extendleft(reversed(again))
        self.number -= len(again)
        self._byte -= sum(len(line.encode(errors="surrogateescape")) for line in again)

    def not_utf8(self, path: Path) -> UnusableError | None:
        """Return what stands in place of the row that was read, if it is no UTF-8."""
        if all(line.isascii() for line in self.taken):
            return None
        raw = "".join(self.taken).encode(errors="surrogateescape")
        try:
            raw.decode()
        except UnicodeDecodeError as error:
            line = self.number - len(self.taken) + 1 + raw.count(b"\n", 0, error.start)
            return not_utf8(f"{path}:{line}", self._byte - len(raw) + error.start, raw)
        return None


def csv(path: Path) -> Rows:
    """Yield the rows of a CSV file."""
    of_csv.field_size_limit(sys.maxsize)
    with opened(path) as file:
        refuse_other(path, file)
        lines = _Lines(file)
        header = _header(path, lines)
        while header:
            lines.taken.clear()
            reader = of_csv.reader(lines, strict=True)
            try:
                for cells in reader:
                    if cells:
                        yield _row(path, lines, header, cells)
                    lines.taken.clear()
                return
            except of_csv.Error as error:
                first = lines.number - len(lines.taken) + 1
                lines.give_back_all_but_first()
                place, raw = f"{path}:{first}", lines.taken[0] if lines.taken else ""
                yield place, UnusableError(place, "not CSV", f" ({error}); mend the row.", raw=raw)


def _row(path: Path, lines: _Lines, header: list[str], cells: list[str]) -> tuple[str, Any]:
    place = f"{path}:{lines.number}"
    if bad := lines.not_utf8(path):
        return bad.place, bad
    if len(cells) != len(header):
        raw = "".join(lines.taken)
        return place, UnusableError(place, f"{len(header)} fields expected", raw=raw)
    if [cell.removeprefix(MARK) for cell in cells] == header:
        return place, HEADER_AGAIN
    return place, dict(zip(header, cells, strict=True))


def _header(path: Path, lines: _Lines) -> list[str]:
    """Return the names of the columns; raises InputError where they are none."""
    try:
        header = next((cells for cells in of_csv.reader(lines, strict=True) if cells), [])
    except of_csv.Error as error:
        raise InputError(f"{path}:{lines.number}: not CSV ({error}); mend the row.") from error
    if bad := lines.not_utf8(path):
        raise bad
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}:1: the header names the column {twice!r} twice; rename or remove one of them.")
    parted = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if parted:
        raise InputError(f"{path}:1: columns are parted by {parted!r}; save the file with commas, or as JSON Lines.")
    return header


def parquet(path: Path) -> Rows:
    """Yield the rows of a Parquet file."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
        _refuse_twice(path, file.schema_arrow.names)
        yield from _batches(path, file.iter_batches(batch_size=_BATCH))
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not Parquet ({error}); write the file again.") from error


def arrow(path: Path) -> Rows:
    """Yield the rows of an Arrow file, in either of its two forms."""
    from pyarrow import ArrowException, ipc, memory_map

    try:
        with memory_map(str(path)) as source:
            try:
                batches: Any = ipc.open_stream(source)
            except ArrowException:  # the other of its two forms
                file = ipc.open_file(source)
                batches = (file.get_batch(number) for number in range(file.num_record_batches))
            yield from _batches(path, batches)
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not Arrow ({error}); write the file again.") from error


def _refuse_twice(path: Path, names: list[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: the column {twice!r} is there twice; rename or remove one of them.")


def _batches(path: Path, batches: Any) -> Rows:
    number = 0
    for batch in batches:
        for begin in range(0, batch.num_rows, _BATCH):
            for row in _values(batch.slice(begin, _BATCH)):
                place = f"{path} row {number}"
                yield place, UnusableError(place, "not UTF-8", "; write the row again.") if row is None else row
                number += 1


def _values(batch: Any) -> list[Any]:
    """Return the rows of a batch; None in place of one whose text is no UTF-8."""
    try:
        return list(batch.to_pylist())
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [None]
        return [row for at in range(batch.num_rows) for row in _values(batch.slice(at, 1))]
