"""Readers: what the files of each kind hold, row by row; JSONL, JSON, CSV, Parquet and Arrow.

    for place, row in READERS[".jsonl"](Path("pairs.jsonl")): ...      ("pairs.jsonl:1", {"prompt": ...})

`place` names file and line. Text may be packed (`.gz`, `.bz2`, `.xz`, `.zst`). JSON Lines in a file named `.json`, and
a JSON list in one named `.jsonl`, are read as what they are. What can't be read raises InputError with its line;
nothing is repaired.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError

HEADER_AGAIN: dict[str, Any] = {}
"""Stands for a row that says the CSV's header again (files were put one behind the other); compared by identity."""


# Text

_MARK = "\ufeff"
"""The byte order mark."""

_MARKS = {
    b"\xff\xfe": "UTF-16; save the file as UTF-8.",
    b"\xfe\xff": "UTF-16; save the file as UTF-8.",
    b"\x1f\x8b": "gzip: add .gz to its name.",
    b"BZh": "bzip2: add .bz2 to its name.",
    b"\xfd7zXZ": "xz: add .xz to its name.",
    b"\x28\xb5\x2f\xfd": "Zstandard: add .zst to its name.",
    b"PAR1": "Parquet: name it .parquet.",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save it as CSV.",
}
"""How files begin that hold no UTF-8, and what they are."""


def _text(path: Path) -> str:
    raw = _unpacked(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = _other(raw) or "; save the file as UTF-8."
        raise InputError(f"{path}:{line}: not UTF-8 (byte {error.start}){what}") from error
    if other := _other(raw):
        raise InputError(f"{path}:1: not UTF-8{other}")
    if "\0" in text[:100]:
        raise InputError(f"{path}:1: not UTF-8 but UTF-16, or binary; save the file as UTF-8.")
    return text


def _other(raw: bytes) -> str:
    return next((f" but {what}" for mark, what in _MARKS.items() if raw.startswith(mark)), "")


def _unpacked(path: Path) -> bytes:
    """Return a file's content, uncompressed as its name says."""
    import bz2
    import gzip
    import lzma
    import zlib

    def of_zstandard(content: bytes) -> bytes:
        import pyarrow

        with pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd") as stream:
            return bytes(stream.read())

    openers = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress, ".zst": of_zstandard}
    content, opener = path.read_bytes(), openers.get(path.suffix.lower())
    try:
        return opener(content) if opener else content
    except (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error) as error:
        raise InputError(f"{path}: not {path.suffix} ({error}); pack the file again.") from error


# JSON


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is named twice in one object")
    return found


def parsed(text: str, place: str) -> Any:
    """Return what JSON text holds; raises InputError that names its place."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        why = "there is a comma too many" if _COMMA_TOO_MANY.search(text) else str(error)
        raise InputError(f"{place}: not JSON ({why}); mend the row or remove it.") from error


_COMMA_TOO_MANY = re.compile(r",\s*([}\]]\s*)?$")


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    text = _text(path)
    if text.lstrip().startswith("[") and isinstance(rows := _whole(text), list):
        yield from _numbered(path, rows)
        return
    for number, marked in enumerate(text.split("\n"), 1):
        line = marked.removeprefix(_MARK)  # of a file that was put behind another one
        if line.strip() in ("{", "[", "[{"):
            raise InputError(
                f"{path}:{number}: not JSON Lines, which have a whole object in each line; for a list of objects name "
                "the file .json."
            )
        if line.strip():
            yield f"{path}:{number}", parsed(line, f"{path}:{number}")


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    text = _text(path)
    first, _, more = text.strip().partition("\n")
    if more and isinstance(_whole(first), dict):  # JSON Lines: of one object a first line is no whole
        yield from _jsonl(path)
        return
    tree = parsed(text, str(path))
    if not isinstance(tree, list):
        raise InputError(f"{path}: must be a list of rows; for one object a line name it .jsonl.")
    yield from _numbered(path, tree)


def _whole(text: str) -> Any:
    """Return what JSON text holds, None where it is none."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        return None


def _numbered(path: Path, rows: list[Any]) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(rows):
        yield f"{path}[{number}]", row


# Tables


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        header = list(reader.fieldnames or ())
        _refuse_header(path, header)
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}:{reader.line_num}: {len(header)} fields expected.")
            again = [value.removeprefix(_MARK) for value in row.values()] == header
            yield f"{path}:{reader.line_num}", HEADER_AGAIN if again else dict(row)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.reader.line_num}: not CSV ({error}); mend the row.") from error


def _refuse_header(path: Path, header: list[str]) -> None:
    """Raise InputError for a header that names a column twice, or whose columns are not parted by commas."""
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}:1: the header names the column {twice!r} twice; rename or remove one of them.")
    parted = next((mark for mark in ";\t|" if len(header) == 1 and mark in header[0]), None)
    if parted:
        raise InputError(f"{path}:1: columns are parted by {parted!r}; save the file with commas, or as JSON Lines.")


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        _refuse_twice(path, ParquetFile(path).schema_arrow.names)
        yield from _batches(path, ParquetFile(path).iter_batches())
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not Parquet ({error}); write the file again.") from error


def _arrow(path: Path) -> Iterator[tuple[str, Any]]:
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


def _batches(path: Path, batches: Any) -> Iterator[tuple[str, Any]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"{path} row {number}", row
            number += 1


READERS = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
