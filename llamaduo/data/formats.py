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

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llamaduo.data.heeded import heed
from llamaduo.data.logs import as_log, name_of_log, tools, turns_of_log
from llamaduo.data.readers import READERS, reader_of
from llamaduo.data.shapes import alpaca, is_observation, langfuse, langsmith, share_gpt
from llamaduo.data.spans import is_span, nested, span
from llamaduo.data.texts import WRAPPERS, parsed
from llamaduo.data.turns import plain_turns, tools_of
from llamaduo.data.unusable import SetAside, UnusableError
from llamaduo.errors import InputError
from llamaduo.files.data_path import KINDS, kind, named
from llamaduo.records import Example, prompt_id, with_calls

ROLES = ("system", "user", "assistant", "tool", "developer")
COLUMNS = (
    ("messages",), ("request", "response"), ("prompt", "response"), ("conversations",), ("instruction", "output"),
    ("inputs", "outputs"), ("input", "output"), ("attributes",)
)  # fmt: skip
"""What a row can be made of; the first that it has counts."""
_NULLS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys((name for columns in COLUMNS for name in columns), (None, "", [])),
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
            if isinstance(row, dict) and not row.keys().isdisjoint(WRAPPERS):
                for inner, one in nested(row, place):
                    yield file, inner, one if isinstance(one, dict) else _no_object(one, inner)
            else:
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
    if len(there) == 1:
        return there[0]
    return max(there, key=lambda columns: (filled(columns) == len(columns), filled(columns)), default=())


class Read(NamedTuple):
    """A row as it was read."""

    shape: str
    """What the row is called that it was read as."""
    example: Example
    row: dict[str, Any]
    """The row with the names of its columns as they were read."""


def read_example(row: dict[str, Any], place: str) -> Example:
    """Return the pair that a row holds; raises UnusableError with its place and what is wrong."""
    return read_row(row, place).example


def read_row(row: dict[str, Any], place: str) -> Read:
    """Return the pair that a row holds, and what it was read as; raises UnusableError, whatever the row is."""
    try:
        return _read(row, place)
    except (RecursionError, TypeError, AttributeError, LookupError, ValueError) as error:  # a type that nobody foresaw
        raise UnusableError(place, "of no type that such rows have", f" ({type(error).__name__}).") from error


def _read(row: dict[str, Any], place: str) -> Read:
    told = as_log(row)
    columns = columns_of(told)
    if columns == ("messages",):
        heed(told, place)
        turns = _maybe_json(told["messages"], place)
        return Read("messages", _from_messages(turns, place, told.get("tools")), told)
    if columns == ("prompt", "response"):
        heed(told, place)
        prompt, response = told["prompt"], told["response"]
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise UnusableError(place, "`prompt` and `response` must be text")
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return Read("prompt and response", _from_messages(turns, place), told)
    return _read_other(row, told, columns, place)


def _read_other(row: dict[str, Any], told: dict[str, Any], columns: tuple[str, ...], place: str) -> Read:
    """Read a log, a trace or a trainer's row."""
    if columns in (("conversations",), ("instruction", "output")):
        heed(told, place)
        made = (share_gpt if columns == ("conversations",) else alpaca)(told, place)
        name = "ShareGPT" if columns == ("conversations",) else "Alpaca"
        return Read(name, _from_messages(made["messages"], place, made.get("tools")), told)
    if is_span(told) and columns in ((), ("attributes",)):
        made = span(told, place)
        heed(made, place, calls=_last_calls(made["messages"]))
        return Read("OpenTelemetry", _from_messages(made["messages"], place, made["tools"]), told)
    name = name_of_log(row)
    if columns == ("inputs", "outputs"):
        name, told = "LangSmith", langsmith(told, place)
    elif columns == ("input", "output") and is_observation(told):
        name, told = "Langfuse", langfuse(told, place)
    elif columns != ("request", "response"):
        raise _unknown(told, place)
    return Read(name, _from_messages(turns_of_log(told, place), place, tools(told, place)), told)


def _last_calls(turns: list[Any]) -> bool:
    return "tool_calls" in plain_turns(turns[-1:], "")[-1]


def _unknown(row: dict[str, Any], place: str) -> UnusableError:
    have = ", ".join(sorted(map(str, row))) or "nothing"
    batch = " (of a batch's output: add the `body` of its input with the same custom_id)" if "custom_id" in row else ""
    needs = f"needs `messages`, or `prompt` and `response`, or `request`{batch} and `response`"
    return UnusableError(place, "no shape of rows that is known", f": has {have}; {needs}.")


def _maybe_json(value: Any, place: str) -> Any:
    return parsed(value, place) if isinstance(value, str) else value


def _from_messages(turns: Any, place: str, offered: Any = None) -> Example:
    if not isinstance(turns, list) or not turns:
        raise UnusableError(place, "`messages` must be a list of turns")
    messages = plain_turns(turns, place)
    last = messages[-1]
    calls = last.get("tool_calls", ()) if isinstance(last, dict) else ()
    heed(turns[-1], place, calls=bool(calls))
    if isinstance(turns[-1], dict) and turns[-1].get("weight") == 0:
        raise SetAside(place, "the answer has a weight of 0")
    for turn in messages:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            raise UnusableError(place, f"a turn needs a `role` ({', '.join(ROLES)}) and a `content` of text")
    if last["role"] != "assistant" or not (last["content"].strip() or calls):
        raise UnusableError(place, "the last turn must be the assistant's response, and not empty")
    if not calls and _THOUGHTS_ALONE.match(last["content"]):
        raise SetAside(place, "the answer is thoughts alone")
    prompt = tuple({name: turn[name] for name in _KEPT if name in turn} for turn in messages[:-1])
    asks = prompt[-1] if prompt else {"role": "", "content": ""}
    if asks["role"] != "tool" and (asks["role"] != "user" or not asks["content"].strip()):
        raise UnusableError(place, "the turn before the response must be the user's prompt, and not empty")
    offered = tools_of(offered) if offered else ()
    _refuse_surrogates(messages, offered, place)
    response = with_calls(last["content"], calls)
    return Example(prompt_id(prompt), prompt, response, calls=tuple(calls), tools=offered)


_KEPT = ("role", "content", "tool_calls", "tool_call_id", "name")
"""What is kept of a turn; a name only of a tool's."""


def _refuse_surrogates(messages: list[Any], offered: tuple[dict[str, Any], ...], place: str) -> None:
    try:
        json.dumps([messages, offered], ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise UnusableError(place, "half of a surrogate pair in the text", "; mend its encoding.") from error
