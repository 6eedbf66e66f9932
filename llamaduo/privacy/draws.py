"""Draws: numbers that follow from a secret and a value, the same ones on every machine and in every version.

    draws = Draws(secret, "mail", "maria@firm.de", 0)
    draws.below(10), draws.pick("abc")

Without the secret nobody can tell which value a draw comes from, not even by trying values.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Draws:
    """A stream of numbers."""

    def __init__(self, secret: bytes, *about: object) -> None:
        self._key = hmac.new(secret, "\0".join(map(str, about)).encode(errors="surrogatepass"), hashlib.sha256).digest()
        self._count = 0

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit` - 1."""
        self._count += 1
        drawn = hashlib.sha256(self._key + self._count.to_bytes(8, "big")).digest()
        return int.from_bytes(drawn[:12], "big") % limit

    def pick(self, some: Sequence[T]) -> T:
        """Return one of some things."""
        return some[self.below(len(some))]

    def like(self, text: str, kept: str = "") -> str:
        """Return a text of the same form: digits for digits, letters for letters in their case, all else as it is."""
        return "".join(mark if mark in kept else self._like(mark) for mark in text)

    def _like(self, mark: str) -> str:
        if mark.isdecimal():
            return str(self.below(10))
        if mark.isalpha():
            return self.pick("ABCDEFGHJKLMNPQRSTUVWXYZ" if mark.isupper() else "abcdefghijkmnopqrstuvwxyz")
        return mark
