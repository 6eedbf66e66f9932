"""Strict reading of replies: what can't be read is said to be unreadable, and nothing is repaired.

What counts of a reply is its last JSON value, whole, behind whatever thoughts and drafts (`last_value`): of a judge's
one object with two scores, and those of the criteria that were asked for, behind which nothing more may stand. Each
score is a number or an object with a `score` and a `reason`:

    {"similarity": {"reason": "...", "score": 88}, "precision": {"reason": "...", "score": 92}}
    {"similarity_assessment": {"score": 88, "reason": "..."}, "precision_assessment": {...}}    (the paper's)

Anything else is unscored, with a reason out of `records.UNSCORED_REASONS`, and so is whatever came of a
reply that the service did not finish.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from llamaduo.service.last_value import UnreadableError, Value, last_value, lenient, strict

__all__ = ["Scores", "UnreadableError", "read_pairs", "read_pick", "read_response", "read_scores"]

_UNFINISHED = {
    "content_filter": "refused",
    "refusal": "refused",
    "no_choices": "no_reply",
    "no_content": "no_content",
    **dict.fromkeys(("tool_calls", "function_call", "error", "abort", "aborted", "cancelled"), "unfinished"),
}
"""What a finish reason other than `stop` makes of a reply; `length`, and any word that nobody knows: `truncated`."""
_FORM, _PAIR_FORM = "one sentence", ("text", "text")
"""What stands for words in the forms that our prompts show: whoever repeats a form, zeros and all, says nothing."""


@dataclass(frozen=True)
class Scores:
    """The scores of a judge's reply, 0 to 100, and its words."""

    similarity: float
    precision: float
    reasons: dict[str, str] = field(default_factory=dict)
    criteria: dict[str, float] = field(default_factory=dict)
    """Those of the criteria that were asked for, by name."""


def _number(value: Any) -> float:
    if not isinstance(value, Decimal) or not value.is_finite():
        raise UnreadableError("not_a_number")
    if not 0 <= value <= 100:
        raise UnreadableError("out_of_range")
    number = abs(float(value))  # -0 is 0
    if value and not number:  # 1e-400 is not 0, but a float can't say so
        raise UnreadableError("not_a_number")
    return number


def unfinished(finish_reason: str) -> str | None:
    """Return what a reply is that the service did not finish, a member of the closed list; None for a finished one."""
    return None if finish_reason == "stop" else _UNFINISHED.get(finish_reason, "truncated")


def read_scores(text: str, finish_reason: str, criteria: Sequence[str] = ()) -> Scores:
    """Return the scores of a judge's reply; raises UnreadableError with the reason it has none.

    `criteria` names what was asked for beside similarity and precision: one that is missing leaves all unscored.
    """
    if reason := unfinished(finish_reason):
        raise UnreadableError(reason)
    if not text.strip():
        raise UnreadableError("empty")
    tree = _object(text)
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
    if not any(scores.values()) and set(reasons.values()) == {_FORM}:
        raise UnreadableError("missing_score")
    return Scores(scores.pop("similarity"), scores.pop("precision"), reasons, scores)


def read_pick(text: str, finish_reason: str, count: int) -> int:
    """Return which of `count` answers a reply names as the best, from 1; raises UnreadableError."""
    if reason := unfinished(finish_reason):
        raise UnreadableError(reason)
    tree = _object(text)
    if "best" not in tree:
        raise UnreadableError("missing_score")
    best = tree["best"]
    if not isinstance(best, Decimal) or best != best.to_integral_value():
        raise UnreadableError("not_a_number")
    if not 1 <= best <= count:
        raise UnreadableError("out_of_range")
    return int(best)


def _object(text: str) -> dict[str, Any]:
    """Return the strict object that a reply ends with; raises UnreadableError."""
    value = last_value(text)
    if value is None or not value.whole or not value.ends_reply:
        raise UnreadableError("not_json")
    if value.fault:
        raise UnreadableError(value.fault)
    if not isinstance(value.tree, dict):
        raise UnreadableError("not_json")
    return value.tree


def read_pairs(text: str, finish_reason: str = "stop") -> tuple[list[tuple[str, str]], int]:
    """Return the (instruction, response) pairs of a synthesis reply, and how many items were dropped.

    They are those of its last list. Items are taken whole or not at all. Where the list breaks off, those before the
    break count, and the break counts as one dropped item, and so does the end of a reply that the service did not
    finish, and what stands behind the list. A refused reply has no pairs; it and a reply without any list count as one
    dropped item.
    """
    if unfinished(finish_reason) in ("refused", "no_reply", "no_content"):
        return [], 1
    try:
        value = last_value(text, _is_item)
    except UnreadableError:
        return [], 1
    if value is None:
        return [], 1
    broken = finish_reason != "stop" or not value.ends_reply
    if value.whole and not value.fault:
        items = value.tree.get("contents") if isinstance(value.tree, dict) else value.tree
    else:
        items = _items_before_the_break(text, value)
        broken = broken or None not in items
    if not isinstance(items, list):
        return [], 1
    pairs = [pair for pair in map(_pair, items) if pair]
    return pairs, len(items) - len(pairs) + broken


def read_response(text: str, finish_reason: str = "stop") -> str:
    """Return the text of a reply to the `correct` prompt; raises UnreadableError with the reason it has none."""
    if reason := unfinished(finish_reason):
        raise UnreadableError(reason)
    if not text.strip():
        raise UnreadableError("empty")
    pair = _pair({"instruction": _PAIR_FORM[0], **_object(text)})
    if pair is None:
        raise UnreadableError("not_json")
    return pair[1]


def _is_item(tree: Any) -> bool:
    """Tell whether a value is an item without its list: out of a list that breaks off, or of a draft."""
    return isinstance(tree, dict) and "instruction" in tree and "contents" not in tree


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
    pair = instruction.strip(), response.strip()
    return None if pair == _PAIR_FORM else pair


_LIST = re.compile(r'"contents"\s*:\s*(?=\[)', re.ASCII)
_OPEN = re.compile(r"\[[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n]*,[ \t\r\n]*")


def _items_before_the_break(text: str, value: Value) -> list[Any]:
    """Return the items of a list that can't be read as a whole; one that is well-formed but not strict is None."""
    at = value.start
    if text[at] == "{":
        found = _LIST.search(text, at)
        at = found.end() if found and _is_member_of(text[at : found.start()]) else len(text)
    items: list[Any] = []
    between = _OPEN.match(text, at)
    while between:
        try:
            item, at = _item(text, between.end())
        except (ValueError, RecursionError):
            return items
        items.append(item)
        between = _BETWEEN.match(text, at)
    return items


def _is_member_of(beginning: str) -> bool:
    """Tell whether what follows the beginning of an object is a member of this very object."""
    try:
        return isinstance(strict().decode(beginning.rstrip().removesuffix(",") + "}"), dict)
    except (ValueError, RecursionError):
        return False


def _item(text: str, at: int) -> tuple[Any, int]:
    try:
        return strict().raw_decode(text, at)
    except UnreadableError:
        return None, lenient().raw_decode(text, at)[1]
