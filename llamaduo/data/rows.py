"""The tokens of training rows: rendered and tokenised once, kept in a file, mapped into memory.

    rows = tokenised(examples, chat, max_length=2048, cache=folder)
    ids, prompt = rows[0]            # ids[:prompt] are the prompt's, ids[prompt:] the response's, its end mark last
    examples[rows.kept[0]]           # what they were made from

Rows longer than `max_length` are left out whole, as are those with an end mark in their response's text: `left_out`
tells which they are.

A file is named `<key>.rows`, where the key is a hash of all that decides what is in it: the examples' texts, the
tokenizer with its template and libraries, `max_length`, and the format. It is written under a private name, synced
and renamed, so it is there whole or not at all, whoever is killed or writes the same meanwhile. It begins with a line
of JSON, padded to 4 KiB, and the arrays follow:

    {"format": 1, "key": "3f0c...", "arrays": {"starts": ["<i8", 4], ..., "ids": ["<u2", 331]}, "sha256": "9a51..."}

A file that isn't what its checksum says is made again. Files that were not used for longest go when all together
exceed 10 GB.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.data.chat import Chat, conversation
from llamaduo.errors import InputError
from llamaduo.files.writing import sync
from llamaduo.records import END_MARK, TOO_LONG, Example, Skipped

if TYPE_CHECKING:
    import numpy as np

_FORMAT = 1
"""To be raised when the same examples come to other rows, or the file's layout changes."""
_HEADER = 4096
"""Bytes before the arrays."""
_ARRAYS = ("starts", "kept", "prompts", "ids")
"""Wide numbers first, so that each array is aligned."""
_CHUNK = 128
"""Rows that are rendered and tokenised together."""
_THREADS = 4
"""At most: rendering holds the interpreter, and no more than that many can tokenise what it renders."""
_LIMIT_BYTES = 10 * 2**30
_LEFT_OVER_S = 86_400.0
"""A private file of that age has lost its writer."""


@dataclass(frozen=True)
class Rows:
    """Rows of tokens, one behind the other; what comes from a file is read-only."""

    ids: np.ndarray
    """Tokens of all rows (uint16, or uint32 for a large vocabulary)."""
    starts: np.ndarray
    """Where each row begins in `ids`, and where the last one ends (int64, rows + 1)."""
    prompts: np.ndarray
    """How many of each row's tokens are its prompt's (int32)."""
    kept: np.ndarray
    """Which example each row was made from (int64)."""

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        """Return a row's tokens, and how many of them are its prompt's."""
        at = range(len(self))[row]
        return self.ids[self.starts[at] : self.starts[at + 1]], int(self.prompts[at])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row (int64)."""
        lengths: np.ndarray = self.starts[1:] - self.starts[:-1]
        return lengths


def tokenised(
    examples: Sequence[Example],
    chat: Chat,
    max_length: int,
    cache: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> Rows:
    """Return the examples' tokens, from the folder `cache` if they are there; None neither looks nor keeps.

    `progress` is told how many examples are done, of how many. Raises InputError if the template refuses a row, or if
    the folder can't be written.
    """
    key = None if cache is None else _key(examples, chat, max_length)
    if cache is None or key is None:
        return _made(examples, chat, max_length, progress)
    path = cache / f"{key}.rows"
    found = _read(path, key)
    if found is None:
        with _writing(cache):
            cache.mkdir(parents=True, exist_ok=True)
        made = _made(examples, chat, max_length, progress)
        with _writing(cache):
            _write(made, path, key)
            _trim(cache)
        found = _read(path, key)
        return made if found is None else found
    return found


def left_out(examples: Sequence[Example], rows: Rows, chat: Chat) -> list[Skipped]:
    """Return the examples of which `tokenised` made no row, in order, each with its length and the reason."""
    kept = set(rows.kept.tolist())
    missing = [example for at, example in enumerate(examples) if at not in kept]
    pairs = chat.pairs([conversation(example) for example in missing])
    found = []
    for example, (prompt, response) in zip(missing, pairs, strict=True):
        ids = chat.tokenizer(example.response, add_special_tokens=False)["input_ids"] if response is None else response
        reason = END_MARK if response is None else TOO_LONG
        found.append(Skipped(example.prompt_id, len(prompt) + len(ids), reason))
    return found


def _key(examples: Sequence[Example], chat: Chat, max_length: int) -> str | None:
    """Return the hash of what decides about the rows; None if the tokenizer can't be told from others."""
    tokenizer = chat.fingerprint()
    if tokenizer is None:
        return None
    digest = hashlib.sha256(json.dumps([_FORMAT, tokenizer, max_length]).encode())
    for begin in range(0, len(examples), _CHUNK):
        chunk = examples[begin : begin + _CHUNK]
        texts = [
            (one.messages, one.response, *((one.calls, one.tools) if one.tools or one.calls else ())) for one in chunk
        ]
        digest.update(json.dumps(texts).encode())
    return digest.hexdigest()


# Rendering and tokenising


def _made(
    examples: Sequence[Example], chat: Chat, max_length: int, progress: Callable[[int, int], None] | None
) -> Rows:
    import numpy as np

    largest = max(chat.tokenizer.get_vocab().values(), default=0)
    part = partial(_part, examples, chat, max_length, np.uint16 if largest < 2**16 else np.uint32)
    parts: list[Rows] = []
    pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1))
    try:
        for rows in pool.map(part, range(0, max(1, len(examples)), _CHUNK)):
            parts.append(rows)
            if progress:
                progress(min(len(parts) * _CHUNK, len(examples)), len(examples))
    finally:
        pool.shutdown(cancel_futures=True)
    return Rows(
        np.concatenate([rows.ids for rows in parts]),
        _starts(np.concatenate([rows.lengths for rows in parts])),
        np.concatenate([rows.prompts for rows in parts]),
        np.concatenate([rows.kept for rows in parts]),
    )


def _part(examples: Sequence[Example], chat: Chat, max_length: int, kind: Any, begin: int) -> Rows:
    """Return the rows of the chunk of examples that begins at `begin`."""
    import numpy as np

    chunk = examples[begin : begin + _CHUNK]
    pairs = chat.pairs([conversation(example) for example in chunk])
    prompts, kept, lengths, ids = [], [], [], []
    for at, (prompt, response) in enumerate(pairs, begin):
        if response is None or len(prompt) + len(response) > max_length:
            continue
        kept.append(at)
        prompts.append(len(prompt))
        lengths.append(len(prompt) + len(response))
        ids += [prompt, response]
    return Rows(
        np.fromiter(chain.from_iterable(ids), kind, sum(lengths)),
        _starts(np.array(lengths, np.int64)),
        np.array(prompts, np.int32),
        np.array(kept, np.int64),
    )


def _starts(lengths: np.ndarray) -> np.ndarray:
    """Return where rows of these lengths begin, and where the last one ends."""
    import numpy as np

    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


# Files


def _read(path: Path, key: str) -> Rows | None:
    """Map a file of rows into memory; None if there is none, or if it isn't what it was when it was written."""
    import numpy as np

    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        told = json.loads(mapped[:_HEADER])
        if told.pop("sha256") != _checksum(told, memoryview(mapped)[_HEADER:]) or told["key"] != key:
            return None
    except Exception:  # no such file, or damage, which looks like anything
        return None
    with suppress(OSError):
        os.utime(path)  # used now: `_trim` keeps it
    arrays, begin = {}, _HEADER
    for name, (kind, count) in told["arrays"].items():
        arrays[name] = np.frombuffer(mapped, np.dtype(kind), count, begin)
        begin += arrays[name].nbytes
    return Rows(**arrays)


def _write(rows: Rows, path: Path, key: str) -> None:
    private = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with private.open("xb") as file:
            file.write(_header(rows, key))
            for name in _ARRAYS:
                file.write(getattr(rows, name).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(private, path)
        sync(path.parent)
    finally:
        private.unlink(missing_ok=True)


def _header(rows: Rows, key: str) -> bytes:
    """Return the beginning of a file that holds these rows."""
    arrays = {name: [getattr(rows, name).dtype.str, getattr(rows, name).size] for name in _ARRAYS}
    told = {"format": _FORMAT, "key": key, "arrays": arrays}
    checksum = _checksum(told, *(getattr(rows, name).data for name in _ARRAYS))
    return json.dumps(told | {"sha256": checksum}).encode().ljust(_HEADER - 1) + b"\n"


def _checksum(told: dict[str, Any], *content: memoryview) -> str:
    """Return the hash of what a file's first line tells, and of what follows it."""
    digest = hashlib.sha256(json.dumps(told).encode())
    for part in content:
        digest.update(part)
    return digest.hexdigest()


def _trim(folder: Path) -> None:
    """Remove what was not used for longest beyond the limit, and what killed processes left."""
    known = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # somebody else was faster
            told = path.stat()
            if path.name.startswith(".") and path.name.endswith(".tmp") and told.st_mtime < time.time() - _LEFT_OVER_S:
                path.unlink()
            elif path.suffix == ".rows":
                known.append((told.st_mtime, told.st_size, path))
    total = 0
    for number, (_, size, path) in enumerate(sorted(known, reverse=True)):
        total += size
        if number and total > _LIMIT_BYTES:
            path.unlink(missing_ok=True)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cache of rows {folder}: can't be written ({error.strerror or error}); free space, or set runtime.cache "
            "to another folder."
        ) from error
