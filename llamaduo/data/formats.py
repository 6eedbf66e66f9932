"""Reading (prompt, response) pairs from files: JSONL, JSON, CSV, Parquet.

A row is one of:

    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
    {"prompt": "...", "response": "..."}
    {"request": {"messages": [...]}, "response": {"choices": [{"message": {"content": "..."}}]}}   an OpenAI log

`request` and `response` of a log may be wrapped in `body` (batch files) or be JSON text (CSV). Any row
may have a `category`, and a `split` (train, dev, test). A row that can't be read is an error that
names its file and line: nothing is skipped silently.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError
from llamaduo.records import Example, prompt_id

ROLES = ("system", "user", "assistant", "tool", "developer")


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) for every row of a file; `place` names file and line for messages."""
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: unknown file type {path.suffix!r}; take one of {', '.join(readers)}.")
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; it needs rows with a prompt and a response.")
    rows = 0
    for place, row in reader(path):
        if not isinstance(row, dict):
            raise InputError(f"{place}: a row must be an object with named fields, not {type(row).__name__}.")
        rows += 1
        yield place, row
    if rows == 0:
        raise InputError(f"{path}: the file has no rows; it needs rows with a prompt and a response.")


def _text(path: Path) -> str:
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 (byte {error.start}); save the file as UTF-8.") from error


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place}: not JSON ({error}); mend the row or remove it.") from error


def _jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}:{number}", _parsed(line, f"{path}:{number}")


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    tree = _parsed(_text(path), str(path))
    if not isinstance(tree, list):
        raise InputError(f"{path}: must be a list of rows; for one object a line name it .jsonl.")
    for number, row in enumerate(tree):
        yield f"{path}[{number}]", row


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(f"{path}:{reader.line_num}: {len(reader.fieldnames or ())} fields expected.")
            yield f"{path}:{reader.line_num}", dict(row)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.reader.line_num}: not CSV ({error}); mend the row.") from error


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        number = 0
        for batch in ParquetFile(path).iter_batches():
            for row in batch.to_pylist():
                yield f"{path} row {number}", {key: value for key, value in row.items() if value is not None}
                number += 1
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not Parquet ({error}); write the file again.") from error


def read_example(row: dict[str, Any], place: str) -> Example:
    """Return the pair that a row holds; raises InputError with its place and what is wrong."""
    if "messages" in row:
        return _from_messages(_maybe_json(row["messages"], place), place)
    if "request" in row and "response" in row:
        return _from_log(row, place)
    if "prompt" in row and "response" in row:
        prompt, response = row["prompt"], row["response"]
        if not isinstance(prompt, str) or not isinstance(response, str):
            raise InputError(f"{place}: `prompt` and `response` must be text.")
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        return _from_messages(turns, place)
    have = ", ".join(sorted(map(str, row))) or "nothing"
    raise InputError(f"{place}: has {have}; needs `messages`, or `prompt` and `response`, or `request` and `response`.")


def _maybe_json(value: Any, place: str) -> Any:
    return _parsed(value, place) if isinstance(value, str) else value


def _from_messages(turns: Any, place: str) -> Example:
    if not isinstance(turns, list) or not turns:
        raise InputError(f"{place}: `messages` must be a list of turns.")
    messages = []
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            raise InputError(f"{place}: a turn needs a `role` ({', '.join(ROLES)}) and a `content` of text.")
        messages.append({"role": turn["role"], "content": turn["content"]})
    last = len(messages) - 1
    if messages[last]["role"] != "assistant" or not messages[last]["content"].strip():
        raise InputError(f"{place}: the last turn must be the assistant's response, and not empty.")
    prompt = tuple(messages[:last])
    if not prompt or prompt[-1]["role"] != "user" or not prompt[-1]["content"].strip():
        raise InputError(f"{place}: the turn before the response must be the user's prompt, and not empty.")
    for message in messages:
        try:
            message["content"].encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{place}: half of a surrogate pair in the text; mend its encoding.") from error
    return Example(prompt_id(prompt), prompt, messages[last]["content"])


def _from_log(row: dict[str, Any], place: str) -> Example:
    request, response = _maybe_json(row["request"], place), _maybe_json(row["response"], place)
    request = request.get("body", request) if isinstance(request, dict) else request
    response = response.get("body", response) if isinstance(response, dict) else response
    try:
        turns = list(request["messages"])
        answer = response["choices"][0]["message"]["content"]
    except (TypeError, KeyError, IndexError) as error:
        shape = "request.messages and response.choices[0].message.content"
        raise InputError(f"{place}: no OpenAI log: it needs {shape}.") from error
    return _from_messages([*turns, {"role": "assistant", "content": answer}], place)
