r"""The value that a reply comes to: its last JSON object or list, behind whatever thoughts and drafts precede it.

    found = last_value('A try: {"a": 1}, which is no good.\n</think>\n\n{"a": 2}')
    found.tree, found.ends_reply          {"a": Decimal(2)}, True

A value counts whole, as it stands, and never what lies within one: one that breaks off is still the last one, so that
no draft takes its place. What a thought's tag encloses is no answer: `<think>...</think>`, what precedes a closing tag
alone, what follows an opening one that is never closed. What looks like a member of something larger that can't be
read (`"key": {...}`, `[{...} {...}`) is no value of its own. After a value that breaks off, the next one begins on
another line or behind a closing tag.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

LARGEST_REPLY = 1_000_000
_DEEPEST = 100

_LEADING_LIST = re.compile(
    r'[ \t\r\n]*(?:```(?:json)?[ \t\r\n]*)?(?=\[[ \t\r\n]*(?:[]{["0-9-]|null|true|false))', re.ASCII
)
_START = re.compile(r'(?=\{[ \t\r\n]*["}]|\[[ \t\r\n]*\{)')
"""Where an object or a list of objects begins; braces and brackets in prose rarely look like this."""
_WITHIN = re.compile(r'(?:[{\[][ \t\r\n]*|"[ \t\r\n]*:[ \t\r\n]*|[}\]"][ \t\r\n]*,[ \t\r\n]*|[}\]"\'])\Z')
"""What stands before a member of something larger."""
_LOOK_BACK = 64
_TAG = re.compile(r"[<\[](/?)(?:think|thinking|thought|thoughts|reasoning|seed:think)[>\]]", re.ASCII | re.IGNORECASE)
_ANEW = re.compile(rf"\n|{_TAG.pattern.replace('(/?)', '/')}", re.ASCII | re.IGNORECASE)
_NOTHING_MORE = re.compile(r"(?:[ \t\r\n]|```|</\w+>)*\Z", re.ASCII)
"""What may stand behind a value: a fence's end, the end of a tag around it."""


class UnreadableError(ValueError):
    """A reply can't be read; `reason` is a member of the closed list."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Value:
    """The last value of a reply."""

    start: int
    """Where it begins."""
    whole: bool
    """Whether it is well-formed to its end."""
    tree: Any
    """What it holds, numbers as `Decimal`, or as text where it isn't strict; null where it breaks off."""
    fault: str | None
    """Why a well-formed value isn't strict: `duplicate_key`, `not_a_number`."""
    ends_reply: bool
    """Whether nothing stands behind it that matters."""


def last_value(text: str, is_part: Callable[[Any], bool] = lambda _: False) -> Value | None:
    """Return the value that a reply comes to, None where there is none; raises UnreadableError for what is too large.

    `is_part` tells of a whole value that it can only be a part of an answer: it is passed over.
    """
    if len(text) > LARGEST_REPLY:
        raise UnreadableError("not_json")
    found: Value | None = None
    thinking = False
    at = look = behind_tag = 0
    begin = _LEADING_LIST.match(text) or _START.search(text)
    while begin:
        start = begin.end()
        value, end = _value(text, start)
        for tag in _TAG.finditer(text, at, start):
            thinking, found, behind_tag = not tag[1], None if tag[1] else found, tag.end()
        member = _WITHIN.search(text, max(behind_tag, start - _LOOK_BACK), start) or is_part(value.tree)
        if not thinking and not member:
            found = value
        at = look = end
        if not value.whole:
            anew = _ANEW.search(text, end)
            look = anew.end() if anew else len(text)
        begin = _START.search(text, look)
    closed = any(tag[1] for tag in _TAG.finditer(text, at))
    return None if closed else found


def _value(text: str, start: int) -> tuple[Value, int]:
    """Return the value that begins here, and where it ends or breaks off."""
    fault = None
    try:
        try:
            tree, end = strict().raw_decode(text, start)
        except UnreadableError as error:
            fault = error.reason
            tree, end = lenient().raw_decode(text, start)
    except json.JSONDecodeError as error:
        return Value(start, False, None, None, False), _break(text, start, error)
    except RecursionError:
        raise UnreadableError("not_json") from None
    if _too_deep(tree):
        raise UnreadableError("not_json")
    return Value(start, True, tree, fault, bool(_NOTHING_MORE.match(text, end))), end


def _break(text: str, start: int, error: json.JSONDecodeError) -> int:
    """Return where a value breaks off: at the fault, at the end of the text, or where a thought ends."""
    end = len(text) if error.msg.startswith("Unterminated string") else start + len(text[start : error.pos].rstrip())
    closing = next((tag.start() for tag in _TAG.finditer(text, start, end) if tag[1]), end)
    return min(end, closing)


def strict() -> json.JSONDecoder:
    """Return a reader of JSON that takes no key twice and no NaN, and leaves numbers as they are written."""
    return json.JSONDecoder(
        object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_decimal, parse_float=_decimal
    )


def lenient() -> json.JSONDecoder:
    """Return what tells where a value ends that is well-formed but not strict: a key named twice, NaN."""
    return json.JSONDecoder(parse_int=str, parse_float=str)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise UnreadableError("duplicate_key")
    return dict(pairs)


def _no_constant(_: str) -> NoReturn:
    raise UnreadableError("not_a_number")


def _decimal(literal: str) -> Decimal:
    """Return a number as it is written: a float would round 100.00000000000000001 into the scale."""
    try:
        return Decimal(literal)
    except InvalidOperation:  # an exponent of twenty digits
        return Decimal("NaN")


def _too_deep(tree: Any) -> bool:
    """Say whether values nest beyond a fixed depth: without one, the caller's stack would decide."""
    level: list[Any] = [[tree]]
    for _ in range(_DEEPEST + 1):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    return bool(level)
