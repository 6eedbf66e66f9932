"""Rows in text: JSON Lines, and a JSON list; a line that can't be read is an `UnusableError` in its row's place.

    for place, row in json_lines(Path("log.jsonl")): ...       ("log.jsonl:1", {...})
    for place, row in json_list(Path("log.json")): ...         ("log.json[0]", {...})

Each reads the other's content as what it is. Lines are read one by one; of a list the text is held as a whole.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from llamaduo.data.packed import opened
from llamaduo.data.unusable import UnusableError
from llamaduo.errors import InputError

Rows = Iterator[tuple[str, Any]]

MARK = "\ufeff"
"""The byte order mark."""
LONGEST = 64 << 20
"""Bytes of a row, at most."""
_MARKS = {
    b"\xff\xfe": " (byte 0) but UTF-16; save the file as UTF-8.",
    b"\xfe\xff": " (byte 0) but UTF-16; save the file as UTF-8.",
    b"PAR1": " but Parquet: name it .parquet.",
    b"PK\x03\x04": " but a zip archive or a spreadsheet; unpack it, or save it as CSV.",
}
"""How files begin that hold no UTF-8, and what they are."""
WRAPPERS = ("resourceSpans", "resource_spans", "resourceLogs", "batches", "spans", "data", "runs")
"""Fields of an object that is no row but has rows in it: see `nested`."""


def refuse_other(path: Path, file: io.BufferedReader) -> None:
    """Raise InputError for a file that is surely no text in UTF-8."""
    head = file.peek(400)[:400]
    for mark, what in _MARKS.items():
        if head.startswith(mark):
            raise InputError(f"{path}:1: not UTF-8{what}")
    if b"\0" in head[:100]:
        raise InputError(f"{path}:1: not UTF-8 but UTF-16, or binary; save the file as UTF-8.")


# JSON


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is named twice in one object")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_COMMA_TOO_MANY = re.compile(r",\s*([}\]]\s*)?$")
_BLANK = re.compile(r"[ \t\n\r]*")


def parsed(text: str, place: str) -> Any:
    """Return what JSON text holds; raises UnusableError that names its place."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise _broken(text, place, error) from error


def _broken(text: str, place: str, error: Exception, said: str = "") -> UnusableError:
    why = "there is a comma too many" if _COMMA_TOO_MANY.search(text[-400:]) else str(error)
    return UnusableError(place, "not JSON", f" ({why}); mend the row or remove it.", said=said, raw=text[:4000])


def whole(text: str) -> Any:
    """Return what JSON text holds, None where it is none."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


# Lines


def json_lines(path: Path) -> Rows:
    """Yield the rows of JSON Lines, or of a JSON list in their place."""
    yield from _json(path, ".jsonl")


def json_list(path: Path) -> Rows:
    """Yield the rows of a JSON list, or of JSON Lines in its place."""
    yield from _json(path, ".json")


def _json(path: Path, name: str) -> Rows:
    with opened(path) as file:
        refuse_other(path, file)
        lines = _lines(path, file)
        begun = list(islice((line for line in lines if not isinstance(line[2], str) or line[2].strip()), 2))
        if not begun:
            return
        if _are_lines(begun, name):
            yield from _rows(path, chain(begun, lines))
            return
    yield from _whole_file(path, name)


def _are_lines(begun: list[_Line], name: str) -> bool:
    """Tell by the first two lines that aren't blank whether each line is a row."""
    texts = [line if isinstance(line, str) else "" for _, _, line in begun]
    first, *second = texts
    alone = whole(first)
    if name == ".jsonl":
        begins_a_list = first.lstrip().startswith("[") and not (second and alone is not None)
        return not begins_a_list and first.strip() != "{"
    return bool(second) and isinstance(alone if isinstance(alone, dict) else whole(second[0]), dict)


_Line = tuple[int, int, str | UnusableError]
"""Number and first byte of a line, and its text."""


def _lines(path: Path, file: io.BufferedReader) -> Iterator[_Line]:
    number = begin = 0
    while raw := file.readline(LONGEST + 1):
        number += 1
        place, size = f"{path}:{number}", len(raw)
        if size > LONGEST and not raw.endswith(b"\n"):
            while rest := file.readline(1 << 20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            head = raw[:200].decode(errors="replace")
            yield number, begin, UnusableError(place, f"a row of more than {LONGEST >> 20} MiB", raw=head)
        else:
            try:
                yield number, begin, raw.decode().removeprefix(MARK)  # of a file that was put behind another one
            except UnicodeDecodeError as error:
                yield number, begin, not_utf8(place, begin + error.start, raw)
        begin += size


def not_utf8(place: str, byte: int, raw: bytes) -> UnusableError:
    """Return what stands in place of a row that is no UTF-8."""
    head = raw[:4000].decode(errors="replace")
    return UnusableError(place, "not UTF-8", f" (byte {byte}); save the file as UTF-8.", raw=head)


def _rows(path: Path, lines: Iterable[_Line]) -> Rows:
    """Yield the row of each line."""
    for number, _, line in lines:
        place = f"{path}:{number}"
        if not isinstance(line, str):
            yield place, line
            continue
        try:
            row = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            if line.strip():
                yield place, _broken(line, place, error)
        else:
            yield place, row


# A whole


def _whole_file(path: Path, name: str) -> Rows:
    """Yield the rows of a list, or an object that has rows in it."""
    text, fault = _text(path)
    begin = _after_blank(text, 0)
    if text.startswith("[", begin):
        yield from _elements(path, text, _after_blank(text, begin + 1), fault)
        return
    if fault:
        raise fault
    tree = whole(text) if name == ".jsonl" else parsed(text, str(path))
    if isinstance(tree, dict) and any(isinstance(tree.get(field), list) for field in WRAPPERS):
        yield str(path), tree
    elif name == ".jsonl":
        line = text.count("\n", 0, begin) + 1
        raise InputError(
            f"{path}:{line}: not JSON Lines, which have a whole object in each line; for a list of objects name the "
            "file .json."
        )
    else:
        raise InputError(f"{path}: must be a list of rows; for one object a line name it .jsonl.")


def _text(path: Path) -> tuple[str, UnusableError | None]:
    """Return a file's text, and where it is no UTF-8; bytes that are none are lone surrogates in it."""
    with opened(path) as file:
        raw = file.read()
    try:
        return raw.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return raw.decode("utf-8-sig", "surrogateescape"), not_utf8(f"{path}:{line}", error.start, b"")


def _after_blank(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _elements(path: Path, text: str, at: int, fault: UnusableError | None) -> Rows:
    """Yield the elements of a list from its first one on; behind a broken one it goes on where the next begins."""
    number = 0
    while not (number == 0 and text.startswith("]", at)):
        place = f"{path}[{number}]"
        try:
            row, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            yield place, _broken(text[at : at + 4000], place, error, said=str(path))
            end = _end_of_broken(text, at)
        else:
            bad = fault and _NO_UTF8.search(text, at, end)
            yield (
                place,
                UnusableError(place, "not UTF-8", "; save the file as UTF-8.", raw=text[at:end]) if bad else row,
            )
        number, at = number + 1, _after_blank(text, end)
        if text.startswith("]", at):
            return
        comma, at = text.startswith(",", at), _after_blank(text, at + 1)
        if not comma or text.startswith("]", at) or at >= len(text):
            why = "there is a comma too many" if comma else "the list ends too early"
            yield place, UnusableError(str(path), "not JSON", f" ({why}); mend the row or remove it.")
            return


_NO_UTF8 = re.compile("[\udc80-\udcff]")
_PARTS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},]', re.DOTALL)
_NEXT = re.compile(r"[}\]]\s*,\s*(?={)")
_TRIES = 100


def _end_of_broken(text: str, at: int) -> int:
    """Return where a broken element of a list ends: by its brackets, or else before what can be read again."""
    depth = 0
    for part in _PARTS.finditer(text, at):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part[0], 0)
        if (depth == 0 and part[0] == ",") or depth < 0:
            return part.start()
    for again in islice(_NEXT.finditer(text, at), _TRIES):
        try:
            _DECODER.raw_decode(text, again.end())
        except (ValueError, RecursionError):
            continue
        return again.start() + 1
    return len(text)
