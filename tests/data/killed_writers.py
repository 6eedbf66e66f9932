"""Processes that write one cache of rows, killed at every step and in the middle of a write, or all at the same time.

    python killed_writers.py FOLDER        prints {"sound": [...], "in_place": [...], ...}: what was violated, by writer

`sound` is the package as it is, the others are broken copies of its writer, of which something has to be found. Each
process is a fork of this one, which starts no thread and writes nothing itself.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np

from llamaduo.config import LocalModel
from llamaduo.data import rows
from llamaduo.data.rows import Rows, tokenised
from llamaduo.local.model import load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example

_FORK = multiprocessing.get_context("fork")
_CHAT = load_chat(LocalModel(name="m", path="pocket:llama", context=512))
_EXAMPLES = [
    Example(f"{number}", ({"role": "user", "content": prompt},), response)
    for number, (prompt, response) in enumerate(make_pairs("closed_qa", 300, seed=5))
]
_ARRAYS = ("ids", "starts", "prompts", "kept")


def in_place(found: Rows, path: Path, key: str) -> None:
    """Write under the name that everybody reads."""
    with path.open("wb") as file:
        file.write(rows._header(found, key))
        for name in rows._ARRAYS:
            file.write(getattr(found, name).data)


def named_alike(found: Rows, path: Path, key: str) -> None:
    """Write under one private name, whoever writes."""
    private = path.with_name(f".{path.name}.tmp")
    with private.open("wb") as file:
        file.write(rows._header(found, key))
        for name in rows._ARRAYS:
            file.write(getattr(found, name).data)
            file.flush()
    os.replace(private, path)


WRITERS: dict[str, Callable[[Rows, Path, str], None]] = {
    "sound": rows._write,
    "in_place": in_place,
    "named_alike": named_alike,
}


def started(folder: Path, expected: Rows | None, before: Callable[[], None] = lambda: None) -> Any:
    """Start a process that asks for the rows; it ends with 0 if they are what is expected, with 3 if not."""

    def work() -> None:
        code = 4
        try:
            before()
            found = tokenised(_EXAMPLES, _CHAT, 512, folder)
            same = expected is None or all(
                np.array_equal(getattr(found, name), getattr(expected, name)) for name in _ARRAYS
            )
            code = 0 if same else 3
        finally:
            os._exit(code)

    process = _FORK.Process(target=work)
    process.start()
    return process


def ended(process: Any) -> int:
    process.join(120)
    assert process.exitcode is not None, "a process hangs"
    return int(process.exitcode)


def die_at(point: int) -> Callable[[], None]:
    """Die before the n-th sync or rename."""
    passed = iter(range(1, point + 1))

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            if next(passed, point) == point:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given)

        return call

    def before() -> None:
        for name in ("fsync", "replace"):
            setattr(os, name, counted(getattr(os, name)))

    return before


def die_after(written: int) -> Callable[[], None]:
    """Die in the middle of writing, when a file has so many bytes."""

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))

    return before


def wait_for_others(barrier: Any) -> Callable[[], None]:
    """Rename only when all others are about to."""
    replace = os.replace

    def meet(*given: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            barrier.wait(20)
        replace(*given)

    def before() -> None:
        os.replace = meet

    return before


def files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("*.rows")]


def killed(place: Path, whole: bytes, expected: Rows) -> Iterator[str]:
    """Kill a writer at each step, and at many a byte; then ask again."""
    kills = {f"before step {point}": die_at(point) for point in (1, 2, 3)}
    kills |= {
        f"after {size} bytes": die_after(size) for size in (0, 1, 4095, 4096, 4097, *range(6000, len(whole), 12_000))
    }
    deaths = 0
    for name, kill in kills.items():
        folder = place / name
        deaths += ended(started(folder, expected, kill)) < 0
        if any(file != whole for file in files(folder)):
            yield f"killed {name}: a file with its final name isn't whole"
        if ended(started(folder, expected)) or files(folder) != [whole]:
            yield f"killed {name}: the next process got other rows, or left another file"
        shutil.rmtree(folder)
    if deaths < len(kills) - 3:  # a broken writer may have fewer steps
        yield f"{deaths} of {len(kills)} died"


def together(place: Path, whole: bytes, expected: Rows) -> Iterator[str]:
    """Let six write at once, two of which die, and somebody look all the time."""
    for number in range(3):
        folder = place / f"together {number}"
        deadly = {1: die_after(20_000), 4: die_at(1)}
        others = wait_for_others(_FORK.Barrier(4))
        writers = [started(folder, expected, deadly.get(at, others)) for at in range(6)]
        torn = False
        while any(writer.is_alive() for writer in writers):
            torn = torn or any(file != whole for file in files(folder))
        codes = [ended(writer) for at, writer in enumerate(writers) if at not in deadly]
        if torn or any(codes) or files(folder) != [whole]:
            yield f"together {number}: ended with {codes}, the file {'was torn' if torn else 'is another'}"
        shutil.rmtree(folder)


def main(place: Path) -> None:
    sound = place / "undisturbed"
    assert ended(started(sound, None)) == 0
    (whole,) = files(sound)
    (path,) = sound.glob("*.rows")
    expected = rows._read(path, path.stem)
    assert expected is not None
    assert len(expected) == len(_EXAMPLES)
    violated = {}
    for name, writer in WRITERS.items():
        rows._write = writer
        violated[name] = [*killed(place / name, whole, expected), *together(place / name, whole, expected)]
    print(json.dumps(violated))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
