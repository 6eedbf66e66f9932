"""Real prompts without answers, as traffic leaves them: `data.unlabelled`.

    rows = read_unlabelled(Path("traffic.jsonl"), data, known)       # Examples whose response is empty

A row is what `data.path` takes (`formats.py`), its answer left out or not: turns that end with the user's, a `prompt`,
or a log's request. Each prompt comes once, and none that is in a split already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamaduo.config import Data
from llamaduo.data.formats import read_example, read_files
from llamaduo.data.keys import refuse_keys
from llamaduo.data.unusable import UnusableError
from llamaduo.errors import InputError
from llamaduo.records import Example

_ANSWER = {"role": "assistant", "content": "."}
"""Stands for the answer that is missing, while a row is read as one that has it."""


def read_unlabelled(path: Path, data: Data, known: Collection[str]) -> tuple[tuple[Example, ...], str]:
    """Return the prompts, and a sentence on what was read and left out; `known` are prompts of the splits.

    Raises InputError where no row can be used.
    """
    found: dict[str, Example] = {}
    left: Counter[str] = Counter()
    last = ""
    for _, place, row in read_files(path):
        try:
            if isinstance(row, UnusableError):
                raise row
            example = _prompt(row, place)
        except UnusableError as error:
            left[error.reason] += 1
            last = str(error)
            continue
        if example.prompt_id in known:
            left["a prompt of the coverage data"] += 1
        elif example.prompt_id in found:
            left["a prompt that was there before"] += 1
        else:
            refuse_keys(example, place, data)
            found[example.prompt_id] = example
    reasons = "; ".join(f"{count:,} left out: {reason}" for reason, count in left.most_common())
    if not found:
        told = f" The last: {last}" if last else ""
        raise InputError(f"data.unlabelled={path}: no row can be used ({reasons}).{told}")
    return tuple(found.values()), f"{len(found):,} prompts without answers of {path}" + (f"; {reasons}" * bool(left))


def _prompt(row: dict[str, Any], place: str) -> Example:
    """Return the prompt of a row, whatever became of its answer.

    A row that has none, or one that nobody would learn from, is read with one of ours in its place.
    """
    try:
        example = read_example(row, place)
    except UnusableError:
        example = read_example(_answered(row), place)
    if example.with_tools:
        raise UnusableError(place, "a prompt with tools, which synthesis doesn't ask for")
    return replace(example, response="")


def _answered(row: dict[str, Any]) -> dict[str, Any]:
    turns = row.get("messages")
    if isinstance(request := row.get("request"), dict):
        turns = request.get("messages", turns)
    if not isinstance(turns, list) or not turns:
        return {"prompt": row.get("prompt"), "response": _ANSWER["content"]}
    answered = isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant"
    return {"messages": [*(turns[:-1] if answered else turns), _ANSWER]}
