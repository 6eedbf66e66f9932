"""Strict reading of replies: what can't be read is said to be unreadable, and nothing is repaired.

A judge's reply is one JSON object with two scores, and those of the criteria that were asked for, alone or in
one code fence. Each score is a number or an object with a `score` and a `reason`:

    {"similarity": {"reason": "...", "score": 88}, "precision": {"reason": "...", "score": 92}}
    {"similarity_assessment": {"score": 88, "reason": "..."}, "precision_assessment": {...}}    (the paper's)

Anything else is unscored, with a reason out of `records.UNSCORED_REASONS`, and so is whatever came of a
reply that the service did not finish.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

_FENCE = re.compile(r"[ \t\r\n]*```(?:json)?[ \t]*\r?\n(.*?)```[ \t\r\n]*", re.DOTALL | re.IGNORECASE | re.ASCII)
_LARGEST_REPLY = 1_000_000
_DEEPEST = 100
_UNFINISHED = {"length": "truncated", "content_filter": "refused", "refusal": "refused", "no_choices": "no_reply"}
"""What a finish reason other than `stop` makes of a reply; any other word: `unfinished`."""


class UnreadableError(ValueError):
    """A reply can't be read; `reason` is a member of the closed list."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Scores:
    """The scores of a judge's reply, 0 to 100, and its words."""

    similarity: float
    precision: float
    reasons: dict[str, str] = field(default_factory=dict)
    criteria: dict[str, float] = field(default_factory=dict)
    """Those of the criteria that were asked for, by name."""


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


def _strict() -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_int=_decimal, parse_float=_decimal
    )


def _lenient() -> json.JSONDecoder:
    """Return what tells where a value ends that is well-formed but not strict: a key named twice, NaN."""
    return json.JSONDecoder(parse_int=str, parse_float=str)


def _load(text: str, decoder: json.JSONDecoder) -> Any:
    """Return the JSON value that the whole text is, alone or in one code fence; raises UnreadableError."""
    if len(text) > _LARGEST_REPLY:
        raise UnreadableError("not_json")
    fenced = _FENCE.fullmatch(text)
    try:
        tree = decoder.decode(fenced[1] if fenced else text)
    except UnreadableError:
        raise
    except (ValueError, RecursionError):
        raise UnreadableError("not_json") from None
    if _too_deep(tree):
        raise UnreadableError("not_json")
    return tree


def _too_deep(tree: Any) -> bool:
    """Say whether values nest beyond a fixed depth: without one, the caller's stack would decide."""
    level: list[Any] = [[tree]]
    for _ in range(_DEEPEST + 1):
        inner = (value.values() if isinstance(value, dict) else value for value in level)
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
    return bool(level)


def _number(value: Any) -> float:
    if not isinstance(value, Decimal) or not value.is_finite():
        raise UnreadableError("not_a_number")
    if not 0 <= value <= 100:
        raise UnreadableError("out_of_range")
    number = abs(float(value))  # -0 is 0
    if value and not number:  # 1e-400 is not 0, but a float can't say so
        raise UnreadableError("not_a_number")
    return number


def read_scores(text: str, finish_reason: str, criteria: Sequence[str] = ()) -> Scores:
    """Return the scores of a judge's reply; raises UnreadableError with the reason it has none.

    `criteria` names what was asked for beside similarity and precision: one that is missing leaves all unscored.
    """
    if finish_reason != "stop":
        raise UnreadableError(_UNFINISHED.get(finish_reason, "unfinished"))
    if not text.strip():
        raise UnreadableError("empty")
    tree = _load(text, _strict())
    if not isinstance(tree, dict):
        raise UnreadableError("not_json")
    scores, reasons = {}, {}
    for name in ("similarity", "precision", *criteria):
        given = [key for key in (name, f"{name}_assessment") if key in tree]
        if len(given) != 1:
            raise UnreadableError("duplicate_key" if given else "missing_score")
        value = tree[given[0]]
        if isinstance(value, dict):
            if "score" not in value:
                raise UnreadableError("missing_score")
            if isinstance(value.get("reason"), str):
                reasons[name] = value["reason"].encode("utf-8", "replace").decode()
            value = value["score"]
        scores[name] = _number(value)
    return Scores(scores.pop("similarity"), scores.pop("precision"), reasons, scores)


def read_pairs(text: str, finish_reason: str = "stop") -> tuple[list[tuple[str, str]], int]:
    """Return the (instruction, response) pairs of a synthesis reply, and how many items were dropped.

    Items are taken whole or not at all. Where the reply breaks off, those before the break count, and
    the break counts as one dropped item, and so does the end of a reply that the service did not finish.
    A refused reply has no pairs; it and a reply without any list count as one dropped item.
    """
    if _UNFINISHED.get(finish_reason) in ("refused", "no_reply"):
        return [], 1
    broken = finish_reason != "stop"
    try:
        tree = _load(text, _strict())
        items = tree.get("contents") if isinstance(tree, dict) else tree
    except UnreadableError:
        items = _items_before_the_break(text)
        broken = broken or None not in items or not _well_formed(text)
    if not isinstance(items, list):
        return [], 1
    pairs = [pair for pair in map(_pair, items) if pair]
    return pairs, len(items) - len(pairs) + broken


def _pair(item: Any) -> tuple[str, str] | None:
    if not isinstance(item, dict):
        return None
    instruction, response = item.get("instruction"), item.get("response")
    if not isinstance(instruction, str) or not isinstance(response, str):
        return None
    if not instruction.strip() or not response.strip() or "\ufffd" in instruction + response:
        return None
    try:
        (instruction + response).encode()
    except UnicodeEncodeError:
        return None
    return instruction.strip(), response.strip()


_LIST = re.compile(r'("contents"\s*:\s*|\A\s*(```(json)?\s*)?)\[[ \t\r\n]*', re.ASCII)
_BETWEEN = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")


def _items_before_the_break(text: str) -> list[Any]:
    """Return the items of the first list; one that is well-formed but not strict is None."""
    start = _LIST.search(text)
    items: list[Any] = []
    at = start.end() if start else len(text)
    while True:
        try:
            item, at = _item(text, at)
        except (ValueError, RecursionError):
            return items
        items.append(item)
        between = _BETWEEN.match(text, at)
        if not between:
            return items
        at = between.end()


def _item(text: str, at: int) -> tuple[Any, int]:
    try:
        return _strict().raw_decode(text, at)
    except UnreadableError:
        return None, _lenient().raw_decode(text, at)[1]


def _well_formed(text: str) -> bool:
    try:
        _load(text, _lenient())
    except UnreadableError:
        return False
    return True
