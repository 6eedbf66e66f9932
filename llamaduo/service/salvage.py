"""Rows of a damaged SQLite file, page by page: neither its header nor its schema, its trees or indexes are needed.

    for number, values in rows(path, (9, 10), pages):   every row that can still be made out, with its rowid
        ...

Each page is taken for a leaf of a table, and every cell for a row; what comes of a page that is none, or of damaged
bytes, is for the caller to reject, who knows the checksums of his rows.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

Value = None | int | float | str | bytes
_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)
"""Bytes of a value by its serial type."""


@dataclass(frozen=True)
class Layout:
    """How a file is cut into pages."""

    size: int = 4096
    """SQLite's own, which a journal has."""
    reserved: int = 0
    """Bytes at the end of each page that hold nothing."""

    @property
    def usable(self) -> int:
        """Bytes of a page that hold something."""
        return self.size - self.reserved


def layouts(path: Path) -> list[Layout]:
    """Return the layouts that a file can have, likeliest first: its header's, SQLite's own, all others."""
    with path.open("rb") as file:
        header = file.read(100).ljust(100, b"\0")
    (told,) = struct.unpack_from(">H", header, 16)
    sizes = [1 << power for power in range(9, 17)]
    size = 1 << 16 if told == 1 else told
    named = [Layout(size, header[20])] if size in sizes and size - header[20] >= 480 else []
    return list(dict.fromkeys([*named, Layout(), *map(Layout, sizes)]))


def rows(path: Path, columns: Collection[int], layout: Layout) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """Yield the rowid and the values of every row that has one of these numbers of columns."""
    if not path.stat().st_size:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        pages = _Pages(content, layout)
        for number in range(1, pages.count + 1):
            page = pages[number]
            at = 100 if number == 1 else 0
            (cells,) = struct.unpack_from(">H", page, at + 3)
            cells = min(cells, (layout.size - at - 8) // 2)
            for begin in dict.fromkeys(struct.unpack_from(f">{cells}H", page, at + 8)):
                try:
                    row = _row(pages, page, begin, columns)
                except (IndexError, ValueError, struct.error):
                    continue
                yield row


class _Pages:
    """The pages of a file, counted from 1; what is missing is zeros."""

    def __init__(self, content: mmap.mmap, layout: Layout) -> None:
        self._content, self._size, self.usable = content, layout.size, layout.usable
        self.count = (len(content) + self._size - 1) // self._size

    def __getitem__(self, number: int) -> bytes:
        return self._content[(number - 1) * self._size : number * self._size].ljust(self._size, b"\0")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of one to nine bytes, and where it ends."""
    value = 0
    for end in range(at, at + 8):
        value = value << 7 | data[end] & 0x7F
        if data[end] < 0x80:
            return value, end + 1
    return value << 8 | data[at + 8], at + 9


def _row(pages: _Pages, page: bytes, begin: int, columns: Collection[int]) -> tuple[int, tuple[Value, ...]]:
    """Return the row of a cell, whose end may lie on a chain of other pages; raises ValueError if there is none."""
    size, begin = _varint(page, begin)
    rowid, begin = _varint(page, begin)
    header, at = _varint(page, begin)
    kinds: list[int] = []
    while at < begin + header and len(kinds) <= max(columns):
        kind, at = _varint(page, at)
        kinds.append(kind)
    sizes = [_SIZES[kind] if kind < 12 else (kind - 12) // 2 for kind in kinds]
    if len(kinds) not in columns or at != begin + header or header + sum(sizes) != size:
        raise ValueError("not such a row")
    content = _content(pages, page, begin, size)
    values = []
    for kind, length in zip(kinds, sizes, strict=True):
        values.append(_value(kind, content[header : header + length]))
        header += length
    return rowid, tuple(values)


def _content(pages: _Pages, page: bytes, begin: int, size: int) -> bytes:
    """Return a record that begins on a page and may go on elsewhere."""
    most, least = pages.usable - 35, (pages.usable - 12) * 32 // 255 - 23
    local = size if size <= most else least + (size - least) % (pages.usable - 4)
    local = local if local <= most else least
    parts, missing = [page[begin : begin + local]], size - local
    (following,) = struct.unpack_from(">I", page, begin + local) if missing else (0,)
    while missing > 0:
        if not 0 < following <= pages.count:
            raise ValueError("the chain breaks off")
        page = pages[following]
        parts.append(page[4 : min(4 + missing, pages.usable)])
        missing -= pages.usable - 4
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
