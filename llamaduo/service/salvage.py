"""Rows of a damaged SQLite file, page by page: neither its header nor its schema, its trees or indexes are needed.

    for number, values in rows(path, columns=10):      every row that can still be made out, with its rowid
        ...

Each page is taken for a leaf of a table, and every cell for a row; what comes of a page that is none, or of damaged
bytes, is for the caller to reject, who knows the checksums of his rows.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

PAGE = 4096
"""SQLite's own page size, which a journal has."""
Value = None | int | float | str | bytes
_LOCAL = PAGE - 35
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
"""Bytes of a value by its serial type."""


def rows(path: Path, columns: int) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """Yield the rowid and the values of every row with that many columns."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        pages = _Pages(content)
        for number in range(1, pages.count + 1):
            page = pages[number]
            at = 100 if number == 1 else 0
            (cells,) = struct.unpack_from(">H", page, at + 3)
            for cell in range(min(cells, (PAGE - at - 8) // 2)):
                (begin,) = struct.unpack_from(">H", page, at + 8 + 2 * cell)
                with contextlib.suppress(IndexError, ValueError, struct.error):
                    yield _row(pages, page, begin, columns)


class _Pages:
    """The pages of a file, counted from 1; what is missing is zeros."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self.count = (len(content) + PAGE - 1) // PAGE

    def __getitem__(self, number: int) -> bytes:
        return self._content[(number - 1) * PAGE : number * PAGE].ljust(PAGE, b"\0")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    for end in range(at, at + 8):
        value = value << 7 | data[end] & 0x7F
        if data[end] < 0x80:
            return value, end + 1
    return value << 8 | data[at + 8], at + 9


def _row(pages: _Pages, page: bytes, begin: int, columns: int) -> tuple[int, tuple[Value, ...]]:
    """Return the row of a cell, whose end may lie on a chain of other pages; raises ValueError if there is none."""
    size, begin = _varint(page, begin)
    rowid, begin = _varint(page, begin)
    header, at = _varint(page, begin)
    kinds: list[int] = []
    while at < begin + header and len(kinds) <= columns:
        kind, at = _varint(page, at)
        kinds.append(kind)
    sizes = [_SIZES[kind] if kind < 12 else (kind - 12) // 2 for kind in kinds]
    if len(kinds) != columns or at != begin + header or header + sum(sizes) != size:
        raise ValueError("not such a row")
    content = _content(pages, page, begin, size)
    values = []
    for kind, length in zip(kinds, sizes, strict=True):
        values.append(_value(kind, content[header : header + length]))
        header += length
    return rowid, tuple(values)


def _content(pages: _Pages, page: bytes, begin: int, size: int) -> bytes:
    """Return a record that begins on a page and may go on elsewhere."""
    least = (PAGE - 12) * 32 // 255 - 23
    local = size if size <= _LOCAL else least + (size - least) % (PAGE - 4)
    local = local if local <= _LOCAL else least
    parts, missing = [page[begin : begin + local]], size - local
    (following,) = struct.unpack_from(">I", page, begin + local) if missing else (0,)
    while missing > 0:
        if not 0 < following <= pages.count:
            raise ValueError("the chain breaks off")
        page = pages[following]
        parts.append(page[4 : 4 + missing])
        missing -= PAGE - 4
        (following,) = struct.unpack_from(">I", page)
    return b"".join(parts)


def _value(kind: int, data: bytes) -> Value:
    if kind in (0, 8, 9):
        return {0: None, 8: 0, 9: 1}[kind]
    if kind == 7:
        number: float = struct.unpack(">d", data)[0]
        return number
    if kind < 12:
        return int.from_bytes(data, signed=True)
    return data if kind % 2 == 0 else data.decode(errors="surrogateescape")
