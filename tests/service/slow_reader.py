"""A second reader of replies, slow and written by hand, that shares nothing with the one under test.

`slow_scores` says what a judge's reply says; `slow_items` and `whole_pairs` what a list of pairs holds.
"""

from __future__ import annotations

from fractions import Fraction
from functools import reduce
from itertools import product
from typing import Any

Said = tuple[float, float]
Pair = tuple[str, str]


class NotStrictError(Exception):
    """The text is no strict JSON."""


class Number(str):
    """A number as it is written."""


class Slow:
    """Strict JSON, sign by sign; objects become tuples of (key, value), numbers stay as they are written."""

    def __init__(self, text: str, at: int = 0) -> None:
        self.text, self.at = text, at

    def whole(self) -> Any:
        value = self.value(1)
        self.space()
        self.demand(self.at == len(self.text))
        return value

    def demand(self, holds: bool) -> None:
        if not holds:
            raise NotStrictError

    def sign(self) -> str:
        return self.text[self.at : self.at + 1]

    def take(self, *words: str) -> str:
        """Step over the first of the words that stands here; none of them: the empty word."""
        word = next((word for word in words if self.text.startswith(word, self.at)), "")
        self.at += len(word)
        return word

    def space(self) -> None:
        while self.take(" ", "\t", "\r", "\n"):
            pass

    def value(self, depth: int) -> Any:
        self.space()
        if self.sign() in ("{", "["):
            self.demand(depth <= 100)
            return self.members(depth) if self.take("{") else self.items(depth)
        if self.sign() == '"':
            return self.string()
        word = self.take("true", "false", "null")
        return {"true": True, "false": False, "null": None}[word] if word else self.number()

    def items(self, depth: int) -> list[Any]:
        self.take("[")
        self.space()
        found: list[Any] = []
        while not (not found and self.take("]")):
            found.append(self.value(depth + 1))
            self.space()
            if self.take("]"):
                break
            self.demand(bool(self.take(",")))
        return found

    def members(self, depth: int) -> tuple[tuple[str, Any], ...]:
        self.space()
        found: list[tuple[str, Any]] = []
        while not (not found and self.take("}")):
            self.space()
            key = self.string()
            self.space()
            self.demand(bool(self.take(":")) and key not in [known for known, _ in found])
            found.append((key, self.value(depth + 1)))
            self.space()
            if self.take("}"):
                break
            self.demand(bool(self.take(",")))
        return tuple(found)

    def string(self) -> str:
        self.demand(bool(self.take('"')))
        units = []
        while not self.take('"'):
            self.demand(self.sign() >= " ")
            if self.take("\\"):
                named = self.take('"', "\\", "/", "b", "f", "n", "r", "t", "u")
                self.demand(bool(named))
                units.append(self.hexadecimal() if named == "u" else ESCAPES.get(named, named))
            else:
                units.append(self.sign())
                self.at += 1
        return "".join(units).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def hexadecimal(self) -> str:
        digits = self.text[self.at : self.at + 4]
        self.demand(len(digits) == 4 and all(digit in "0123456789abcdefABCDEF" for digit in digits))
        self.at += 4
        return chr(int(digits, 16))

    def digits(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1
        self.demand(self.at > start)
        return self.text[start : self.at]

    def number(self) -> Number:
        start = self.at
        self.take("-")
        self.demand(not (len(self.digits()) > 1 and self.text[start : self.at].lstrip("-").startswith("0")))
        if self.take("."):
            self.digits()
        if self.take("e", "E"):
            self.take("+", "-")
            self.digits()
        return Number(self.text[start : self.at])


ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def unfenced(text: str) -> str:
    inner = text.strip(" \t\r\n")
    if not inner.startswith("```"):
        return text
    line, _, body = inner[3:].partition("\n")
    language = line.removesuffix("\r").rstrip(" \t")
    if language not in ("", *map("".join, product("jJ", "sS", "oO", "nN"))) or not body.endswith("```"):
        raise NotStrictError
    return body[:-3]


def slow_tree(text: str) -> Any:
    if len(text) > 1_000_000:
        raise NotStrictError
    return Slow(unfenced(text)).whole()


def exactly(literal: Number) -> float | None:
    """Return the float nearest to a number within the scale, by whole numbers alone; None where there is none."""
    mantissa, _, exponent = literal.lower().lstrip("-").partition("e")
    whole, _, behind = mantissa.partition(".")
    if len(exponent.lstrip("+-0")) > 18:  # beyond what any arithmetic holds
        return None
    digits = (whole + behind).lstrip("0")
    power = int(exponent or "0") - len(behind)
    if not digits:
        return 0.0
    if literal.startswith("-") or not -400 < len(digits) + power < 5:
        return None
    parts = [digits[at : at + 1000] for at in range(0, len(digits), 1000)]
    value = reduce(lambda known, part: known * 10 ** len(part) + int(part), parts, 0) * Fraction(10) ** power
    nearest = value.numerator / value.denominator
    return nearest if nearest and value <= 100 else None


def slow_scores(text: str, finish_reason: str) -> Said | None:
    """Return what a reply says, or None where it says nothing that counts."""
    try:
        tree = slow_tree(text) if finish_reason == "stop" else None
    except NotStrictError:
        return None
    said = []
    for name in ("similarity", "precision"):
        given = [v for k, v in tree if k in (name, f"{name}_assessment")] if isinstance(tree, tuple) else []
        if len(given) == 1 and isinstance(given[0], tuple):
            given = [value for key, value in given[0] if key == "score"]
        number = exactly(given[0]) if len(given) == 1 and isinstance(given[0], Number) else None
        if number is None:
            return None
        said.append(number)
    return said[0], said[1]


def slow_items(text: str) -> list[Any] | None:
    """Return the items of a reply that is one strict list and nothing else, or None."""
    try:
        tree = slow_tree(text)
    except NotStrictError:
        return None
    items = dict(tree).get("contents") if isinstance(tree, tuple) else tree
    return items if isinstance(items, list) else None


def slow_pair(item: Any) -> Pair | None:
    """Return the pair that an item is, or None."""
    known = dict(item) if isinstance(item, tuple) else {}
    texts = known.get("instruction"), known.get("response")
    if any(type(text) is not str or not text.strip() or "\ufffd" in text for text in texts):
        return None
    if any("\ud800" <= sign <= "\udfff" for text in texts for sign in text):
        return None
    return texts[0].strip(), texts[1].strip()


def whole_pairs(text: str) -> list[Pair]:
    """Return every pair that stands whole and strict anywhere in a text, in order; none within another."""
    found, at = [], text.find("{")
    while at >= 0:
        reader, end = Slow(text, at), at + 1
        try:
            pair = slow_pair(reader.value(1))
            if pair:
                found.append(pair)
                end = reader.at
        except NotStrictError:
            pass
        at = text.find("{", end)
    return found
