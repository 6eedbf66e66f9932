"""Strict reading of replies: what can't be read is said to be unreadable, and nothing is repaired.

A judge's reply is one JSON object with two scores, alone or in one code fence. Each score is a number
or an object with a `score` and a `reason`:

    {"similarity": {"reason": "...", "score": 88}, "precision": {"reason": "...", "score": 92}}
    {"similarity_assessment": {"score": 88, "reason": "..."}, "precision_assessment": {...}}    (the paper's)

Anything else is unscored, with a reason out of `records.UNSCORED_REASONS`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any, NoReturn

_FENCE = re.compile(r"\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL | re.IGNORECASE)
_LARGEST_REPLY = 1_000_000


class UnreadableError(ValueError):
    """A reply can't be read; `reason` is a member of the closed list."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Scores:
    """The two scores of a judge's reply, 0 to 100, and its words."""

    similarity: float
    precision: float
    reasons: dict[str, str] = field(default_factory=dict)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise UnreadableError("duplicate_key")
    return dict(pairs)


def _no_constant(_: str) -> NoReturn:
    raise UnreadableError("not_a_number")


def _load(text: str) -> Any:
    """Return the JSON value that the whole text is; raises UnreadableError."""
    fenced = _FENCE.fullmatch(text)
    body = fenced[1] if fenced else text
    if len(body) > _LARGEST_REPLY:
        raise UnreadableError("not_json")
    try:
        return json.loads(body, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except UnreadableError:
        raise
    except (ValueError, RecursionError):
        raise UnreadableError("not_json") from None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnreadableError("not_a_number")
    if isinstance(value, float) and not math.isfinite(value):
        raise UnreadableError("not_a_number")
    if not 0 <= value <= 100:
        raise UnreadableError("out_of_range")
    return float(value)


def read_scores(text: str, finish_reason: str) -> Scores:
    """Return the scores of a judge's reply; raises UnreadableError with the reason it has none."""
    if finish_reason == "length":
        raise UnreadableError("truncated")
    if finish_reason == "no_choices":
        raise UnreadableError("no_reply")
    if finish_reason == "content_filter":
        raise UnreadableError("refused")
    tree = _load(text)
    if not isinstance(tree, dict):
        raise UnreadableError("not_json")
    scores, reasons = {}, {}
    for name in ("similarity", "precision"):
        given = [key for key in (name, f"{name}_assessment") if key in tree]
        if len(given) != 1:
            raise UnreadableError("missing_score")
        value = tree[given[0]]
        if isinstance(value, dict):
            if "score" not in value:
                raise UnreadableError("missing_score")
            if isinstance(value.get("reason"), str):
                reasons[name] = value["reason"].encode("utf-8", "replace").decode()
            value = value["score"]
        scores[name] = _number(value)
    return Scores(**scores, reasons=reasons)


def read_pairs(text: str) -> tuple[list[tuple[str, str]], int]:
    """Return the (instruction, response) pairs of a synthesis reply, and how many items were dropped.

    Items are taken whole or not at all. Where the reply breaks off, those before the break count, and
    the break counts as one dropped item; a reply without any list counts as one dropped item.
    """
    broken = 0
    try:
        tree = _load(text)
        items = tree.get("contents") if isinstance(tree, dict) else tree
    except UnreadableError:
        items, broken = _items_before_the_break(text), 1
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


def _items_before_the_break(text: str) -> list[Any]:
    start = re.search(r'"contents"\s*:\s*\[|^\s*(?:```(?:json)?\s*)?\[', text)
    decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    items: list[Any] = []
    position = start.end() if start else len(text)
    while match := re.compile(r"[\s,]*(?=\{)").match(text, position):
        try:
            item, position = decoder.raw_decode(text, match.end())
        except (ValueError, RecursionError):
            break
        items.append(item)
    return items
