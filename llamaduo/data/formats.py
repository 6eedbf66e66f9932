"""Reading (prompt, response) pairs: from files of JSONL, JSON, CSV, Parquet or Arrow, one or many (see `data_path`).

A row is one of:

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"prompt": "...", "response": "..."}
    {"request": {"messages": [...]}, "response": {"choices": [{"message": {"content": "..."}}]}}   an API log: `logs`

A column that is null or empty counts as absent as long as there are others. Any row may have a `category`, a `split`
(train, dev, test), and a `finish_reason` of its answer. A row that can't be read is an error that names its file and
line, one that calls its own answer unfinished a `SetAside`: nothing is skipped silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llamaduo.data.heeded import heed
from llamaduo.data.logs import as_log, turns_of_log
from llamaduo.data.readers import READERS, reader_of
from llamaduo.data.texts import parsed
from llamaduo.data.unusable import SetAside, UnusableError
from llamaduo.errors import InputError
from llamaduo.files.data_path import KINDS, kind, named
from llamaduo.records import Example, prompt_id

ROLES = ("system", "user", "assistant", "tool", "developer")
COLUMNS = (("messages",), ("request", "response"), ("prompt", "response"))
"""What a row can be made of; the first that it has counts."""

_NULLS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("prompt", "response"), (None, "", [])),
    **dict.fromkeys(("messages", "request"), (None, "", [], "null")),  # a CSV's cell of JSON
}
"""What counts as null in each of them."""
_THOUGHTS_ALONE = re.compile(r"\s*<think>(?!.*</think>\s*\S)", re.DOTALL)


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) for every row that a path names; raises UnusableError for the first that can't be read."""
    for _, place, row in read_files(path):
        if isinstance(row, UnusableError):
            raise row
        yield place, row


def read_files(path: Path) -> Iterator[tuple[Path, str, dict[str, Any] | UnusableError]]:
    """Yield (file, place, row) for every row that a path names, and why in place of a row that can't be read."""
    files = named(path).files
    rows = 0
    for file in files:
        reader = READERS.get(kind(file)) or reader_of(file)
        if file.stat().st_size == 0 and len(files) == 1:
            raise InputError(f"{file}: the file is empty; it needs rows with a prompt and a response.")
        if reader is None:
            raise InputError(f"{file}: unknown file type {file.suffix!r}; take one of {', '.join(KINDS)}.")
        for place, row in reader(file) if file.stat().st_size else ():
            rows += 1
            yield file, place, row if isinstance(row, dict | UnusableError) else _no_object(row, place)
    if rows == 0:
        what = "the file has" if len(files) == 1 else f"its {len(files)} files have"
        raise InputError(f"{path}: {what} no rows; it needs rows with a prompt and a response.")


def _no_object(row: Any, place: str) -> UnusableError:
    reason = "a row must be an object with named fields"
    return UnusableError(place, reason, f", not {type(row).__name__}.")


def columns_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that a row's pair is read from, none if it has no pair; what is null counts last."""

    def filled(columns: tuple[str, ...]) -> int:
        return sum(row[name] not in _NULLS[name] for name in columns)

    there = [columns for columns in COLUMNS if all(name in row for name in columns)]
    return max(there, key=lambda columns: (filled(columns) == len(columns), filled(columns)), default=())


def read_example(row: dict[str, Any], place: str) -> Example:
    """Return the pair that a row holds; raises InputError with its place and what is wrong."""
    row = as_log(row)
    columns = columns_of(row)
    if columns == ("request", "response"):
        return _from_messages(turns_of_log(row, place), place)
    heed(row, place)
    if columns == ("messages",):
        return _from_messages(_maybe_json(row["messages"], place), place)
    if columns:
        prompt, response = row["prompt"], row["response"]
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise UnusableError(place, "`prompt` and `response` must be text")
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return _from_messages(turns, place)
    have = ", ".join(sorted(map(str, row))) or "nothing"
    batch = " (of a batch's output: add the `body` of its input with the same custom_id)" if "custom_id" in row else ""
    needs = f"needs `messages`, or `prompt` and `response`, or `request`{batch} and `response`"
    raise UnusableError(place, "no shape of rows that is known", f": has {have}; {needs}.")


def _maybe_json(value: Any, place: str) -> Any:
    return parsed(value, place) if isinstance(value, str) else value


def _from_messages(turns: Any, place: str) -> Example:
    if not isinstance(turns, list) or not turns:
        raise UnusableError(place, "`messages` must be a list of turns")
    heed(turns[-1], place)
    if isinstance(turns[-1], dict) and turns[-1].get("weight") == 0:
        raise SetAside(place, "the answer has a weight of 0")
    messages = []
    for turn in turns:
        if isinstance(turn, dict) and (turn.get("tool_calls") or turn.get("function_call")):
            raise SetAside(place, "a turn calls tools")
        if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            raise UnusableError(place, f"a turn needs a `role` ({', '.join(ROLES)}) and a `content` of text")
        messages.append({"role": turn["role"], "content": turn["content"]})
    last = len(messages) - 1
    if messages[last]["role"] != "assistant" or not messages[last]["content"].strip():
        raise UnusableError(place, "the last turn must be the assistant's response, and not empty")
    if _THOUGHTS_ALONE.match(messages[last]["content"]):
        raise SetAside(place, "the answer is thoughts alone")
    prompt = tuple(messages[:last])
    if not prompt or prompt[-1]["role"] != "user" or not prompt[-1]["content"].strip():
        raise UnusableError(place, "the turn before the response must be the user's prompt, and not empty")
    for message in messages:
        try:
            message["content"].encode()
        except UnicodeEncodeError as error:
            raise UnusableError(place, "half of a surrogate pair in the text", "; mend its encoding.") from error
    return Example(prompt_id(prompt), prompt, messages[last]["content"])
