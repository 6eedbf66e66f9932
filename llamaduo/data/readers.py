"""Readers: what the files of each kind hold, row by row; JSONL, JSON, CSV, Parquet and Arrow, packed or not.

    for place, row in READERS[".jsonl"](Path("pairs.jsonl")): ...      ("pairs.jsonl:1", {"prompt": ...})

`place` names file and line. JSON Lines in a file named `.json`, and a JSON list in one named `.jsonl`, are read as what
they are. In place of a row that can't be read stands an `UnusableError`, which names it, and the reading goes on;
nothing is repaired. A file of which nothing can be read raises InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llamaduo.data.packed import DamagedError, opened
from llamaduo.data.tables import arrow, csv, parquet
from llamaduo.data.texts import json_lines, json_list
from llamaduo.data.unusable import UnusableError
from llamaduo.errors import InputError

Rows = Iterator[tuple[str, Any]]


def _as_far_as_it_goes(read: Callable[[Path], Rows]) -> Callable[[Path], Rows]:
    """Return a reader that lists a damaged end of a packed file as a row, if there are rows before it."""

    def reading(path: Path) -> Rows:
        rows = 0
        try:
            for found in read(path):
                yield found
                rows += 1
        except DamagedError as error:
            if not rows:
                raise
            more = str(error).removeprefix(f"{path}: not {path.suffix}")
            yield str(path), UnusableError(str(path), f"not {path.suffix} from here to its end", more)

    return reading


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _as_far_as_it_goes(json_lines),
    ".ndjson": _as_far_as_it_goes(json_lines),
    ".json": _as_far_as_it_goes(json_list),
    ".csv": _as_far_as_it_goes(csv),
    ".parquet": parquet,
    ".arrow": arrow,
}


def reader_of(path: Path) -> Callable[[Path], Rows] | None:
    """Return the reader of a file whose name tells nothing, by its first bytes; None where they tell nothing either."""
    try:
        with opened(path) as file:
            head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (InputError, OSError):
        return None
    if head.startswith(b"PAR1"):
        return READERS[".parquet"]
    return READERS[".jsonl"] if head.startswith((b"{", b"[")) else None
