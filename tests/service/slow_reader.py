"""A second reader of replies, slow and written by hand, that shares nothing with the one under test.

`slow_last` finds the value that a reply comes to, sign by sign; `slow_scores` says what a judge's reply says,
`slow_items` and `whole_pairs` what a list of pairs holds.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from typing import Any, NamedTuple

Said = tuple[float, float]
Pair = tuple[str, str]


class NotStrictError(Exception):
    """The text is no strict JSON."""


class TooDeepError(NotStrictError):
    """Values nest beyond what is read."""


class Number(str):
    """A number as it is written."""


class Slow:
    """Strict JSON, sign by sign; objects become tuples of (key, value), numbers stay as they are written.

    With `lax` a key may come twice and NaN is a value, which is remembered as a `fault`.
    """

    def __init__(self, text: str, at: int = 0, *, lax: bool = False) -> None:
        self.text, self.at, self.lax = text, at, lax
        self.fault = False

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
        for word in words:
            if self.text.startswith(word, self.at):
                self.at += len(word)
                return word
        return ""

    def space(self) -> None:
        while self.take(" ", "\t", "\r", "\n"):
            pass

    def value(self, depth: int) -> Any:
        self.space()
        if self.sign() in ("{", "["):
            if depth > 100:
                raise TooDeepError
            return self.members(depth) if self.take("{") else self.items(depth)
        if self.sign() == '"':
            return self.string()
        word = self.take("true", "false", "null")
        if self.lax and not word and self.take("NaN", "Infinity", "-Infinity"):
            self.fault = True
            return None
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
            self.demand(bool(self.take(":")))
            twice = key in [known for known, _ in found]
            self.demand(self.lax or not twice)
            self.fault = self.fault or twice
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


class Last(NamedTuple):
    """The value that a reply comes to."""

    tree: Any
    sound: bool
    """Whether it is whole and strict."""
    behind: str
    """What stands behind it."""


THOUGHTS = [
    left + slash + word + right
    for word in ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
    for left in "<["
    for right in ">]"
    for slash in ("", "/")
]
SPACE = " \t\r\n"


def tag_at(text: str, at: int) -> str:
    """Return the thought's tag that begins here, or nothing."""
    if text[at] not in "<[":
        return ""
    return next((tag for tag in THOUGHTS if text[at : at + len(tag)].lower() == tag), "")


def is_start(text: str, at: int) -> bool:
    """Tell whether an object, or a list of objects, begins here."""
    following = text[at + 1 :].lstrip(SPACE)[:1]
    return (text[at] == "{" and following in ('"', "}") and bool(following)) or (text[at] == "[" and following == "{")


def leading_list(text: str) -> int:
    """Return where a list begins that the whole reply is, or begins with; -1 if there is none."""
    inner = text.lstrip(SPACE)
    inner = inner.removeprefix("```").removeprefix("json").lstrip(SPACE) if inner.startswith("```") else inner
    items = inner[1:].lstrip(SPACE)
    listed = items[:1] in list(']{["-0123456789') or items.startswith(("null", "true", "false"))
    return len(text) - len(inner) if inner[:1] == "[" and listed else -1


def is_member(text: str, at: int, since: int) -> bool:
    """Tell whether what begins here is a part of something larger, by what stands before it, behind the last tag."""
    before = text[max(since, at - 64) : at]
    near = before.rstrip(SPACE)
    if before[-1:] in list("}]\"'") or near[-1:] in list("{["):
        return bool(before)
    earlier = near[:-1].rstrip(SPACE)[-1:]
    return (near[-1:] == ":" and earlier == '"') or (near[-1:] == "," and earlier in list('}]"'))


def slow_last(text: str, part: Callable[[Any], bool] = lambda _: False) -> Last | None:
    """Return the value that a reply comes to, or None."""
    if len(text) > 1_000_000:
        return None
    found, thinking, hidden, since = None, False, -1, 0
    first, at = leading_list(text), 0
    while at < len(text):
        if tag := tag_at(text, at) if at != first else "":
            thinking = "/" not in tag
            found = found if thinking else None
            hidden = -1 if not thinking else hidden
            since = at = at + len(tag)
            continue
        hidden = -1 if text[at] == "\n" else hidden
        if hidden >= 0 or not (at == first or is_start(text, at)):
            at += 1
            continue
        reader = Slow(text, at, lax=True)
        try:
            tree = reader.value(1)
        except TooDeepError:
            return None
        except NotStrictError:
            end = reader.at if reader.at >= len(text) else at + len(text[at : reader.at].rstrip())
            tags = [place for place in range(at, end) if "/" in tag_at(text, place)]
            end = min([end, *tags])
            last = Last(None, sound=False, behind=text[end:])
            hidden = end
        else:
            end = reader.at
            last = Last(tree, sound=not reader.fault, behind=text[end:])
        if not thinking and not is_member(text, at, since) and not part(last.tree):
            found = last
        at = end
    return found


def ends_reply(behind: str) -> bool:
    """Tell whether only fences' ends and closing tags stand behind a value."""
    while behind:
        name, bracket, rest = behind[2:].partition(">") if behind.startswith("</") else ("", "", "")
        if bracket and name and all(sign == "_" or (sign.isascii() and sign.isalnum()) for sign in name):
            behind = rest
        elif behind.startswith("```"):
            behind = behind[3:]
        elif behind[0] in SPACE:
            behind = behind[1:]
        else:
            return False
    return True


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
    last = slow_last(text) if finish_reason == "stop" else None
    if last is None or not last.sound or not ends_reply(last.behind):
        return None
    said = []
    for name in ("similarity", "precision"):
        tree = last.tree if isinstance(last.tree, tuple) else ()
        given = [v for k, v in tree if k in (name, f"{name}_assessment")]
        if len(given) == 1 and isinstance(given[0], tuple):
            given = [value for key, value in given[0] if key == "score"]
        number = exactly(given[0]) if len(given) == 1 and isinstance(given[0], Number) else None
        if number is None:
            return None
        said.append(number)
    return said[0], said[1]


def slow_items(text: str) -> list[Any] | None:
    """Return the items of a reply that ends with a strict list, or None."""
    last = slow_last(
        text, lambda tree: isinstance(tree, tuple) and "instruction" in dict(tree) and "contents" not in dict(tree)
    )
    if last is None or not last.sound or not ends_reply(last.behind):
        return None
    items = dict(last.tree).get("contents") if isinstance(last.tree, tuple) else last.tree
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
