r"""Plain text: a text as one reads it, and where each of its signs stands in the text as it is written.

    read = plain_text('{"to": "maria\u0040firm.de"}')      # the six signs of an escape, as JSON has them
    read.text                                              '{"to": "maria@firm.de"}'
    read.span(8, 21)                                       (8, 26): where it stands in what is written

Escapes of JSON, full-width letters and digits, and marks without width hide nothing that a reader sees.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u(00[2-7][0-9a-fA-F])")
_READ_AS = {
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad", ""),
    **dict.fromkeys("\u00a0\u2007\u2009\u202f\u2002\u2003\u3000", " "),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
}


@dataclass(frozen=True)
class PlainText:
    """A text as it is read."""

    text: str
    places: Sequence[tuple[int, int]]
    """Where each sign stands in what is written, from and to; empty where both are the same text."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return where a part stands in what is written."""
        return (self.places[start][0], self.places[end - 1][1]) if self.places else (start, end)


def plain_text(written: str) -> PlainText:
    """Return a text as it is read."""
    escapes = {found.start(1) - 2: found[1] for found in _ESCAPE.finditer(written)} if "\\u00" in written else {}
    if not escapes and written.isascii():
        return PlainText(written, ())
    signs: list[str] = []
    places: list[tuple[int, int]] = []
    at = 0
    while at < len(written):
        if code := escapes.get(at):
            sign, width = chr(int(code, 16)), 6
            if sign in '"\\':
                sign = " "
        else:
            sign, width = _read(written[at]), 1
        if sign:
            signs.append(sign)
            places.append((at, at + width))
        at += width
    return PlainText("".join(signs), places)


def _read(sign: str) -> str:
    """Return one sign as it is read, empty for one without width."""
    if sign in _READ_AS:
        return _READ_AS[sign]
    if sign.isdecimal():
        return str(unicodedata.decimal(sign))
    return chr(ord(sign) - 0xFEE0) if "\uff01" <= sign <= "\uff5e" else sign
