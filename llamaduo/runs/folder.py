"""One run's folder: where things lie, when they are complete and whole, and who may write.

An artifact is complete if and only if its marker `<name>.done` exists. It is written under a private
temporary name, synced, renamed into place, and marked last, so a kill at any instruction leaves either
no marker or a whole artifact. The marker holds size, sha256 and the seconds it took.

Whatever is read is compared with what was written (see `marks`). What is damaged is made again where that takes no
model and no money, and has to come out as it was; else it is refused by name.

The lock is the kernel's. Some network file systems grant it to several machines at once; then private names carry the
machine, nobody removes those of another one, and an artifact that was completed elsewhere meanwhile is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from llamaduo.environment import network_file_system
from llamaduo.errors import RunFolderError, ServiceError
from llamaduo.files.regular import read, regular
from llamaduo.files.writing import private, sync, write_bytes, write_text, writing
from llamaduo.records import from_json, to_json
from llamaduo.runs import layout, lock
from llamaduo.runs.layout import CHECKSUMS, RECORD, marker, read_mark
from llamaduo.runs.marks import (
    Look,
    checksums_text,
    contents,
    contents_hash,
    faults,
    kept_fault,
    look,
    read_checksums,
)
from llamaduo.runs.state import RunState

Record = TypeVar("Record")
Value = TypeVar("Value")


class Again(Enum):
    """Whether a damaged artifact is made again."""

    anew = "anew"
    """It is, whatever it comes to."""
    same = "same"
    """It is, from what is stored alone, and has to come out as it was."""
    never = "never"
    """A model has made it, and what follows is about it: it is refused."""


def _complete(path: Path) -> bool:
    return marker(path).exists() and path.exists()


def _mark(path: Path, seconds: float) -> None:
    size, digest = contents_hash(path)
    write_text(marker(path), json.dumps({"bytes": size, "sha256": digest, "seconds": round(seconds, 3)}))


def mark_copy(path: Path, original: Path) -> None:
    """Mark a copy of an artifact, or of a part of one, with the seconds that the original took."""
    _mark(path, layout.seconds(original))


def _note_checksum(root: Path, path: Path, value: Any) -> None:
    """Write down, or forget (None), what a file of a run has to be; what is damaged of these notes begins anew."""
    known, name = read_checksums(root) or {}, path.relative_to(root).as_posix()
    if known.get(name) != value:
        rest = {key: of for key, of in known.items() if key != name}
        write_text(root / CHECKSUMS, checksums_text(rest if value is None else {**rest, name: value}))


def write_kept(path: Path, content: bytes) -> None:
    """Replace a file right in a run's folder that has no marker, so that its reader can tell if it was damaged."""
    root, new = path.parent, hashlib.sha256(content).hexdigest()
    before = (read_checksums(root) or {}).get(path.name) or []
    _note_checksum(root, path, [new, *before[:1]])
    write_bytes(path, content)
    _note_checksum(root, path, [new])


def _publish(path: Path, text: str, start: float) -> None:
    """Write a file and mark it, unless another machine has completed it meanwhile: the first one counts."""
    if not _complete(path):
        write_text(path, text)
        _mark(path, time.monotonic() - start)


class RunDir:
    """A run's folder, open for writing by this process alone; use it as a context manager."""

    def __init__(self, path: Path, tell: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self.tell = tell
        """Takes what a reader should know of damaged files, a sentence each."""
        self.mending: Callable[[], AbstractContextManager[None]] = nullcontext
        """Within it nothing may be bought."""
        self._lock: int | None = None
        self._made: list[Path] = []
        """The folders that were not there before, the run's own first; none for a run that goes on."""

    def __enter__(self) -> RunDir:
        self._made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        with writing(self.path):
            (self.path / layout.ITERATIONS).mkdir(parents=True, exist_ok=True)
            self._lock = lock.take(self.path)
            self._sweep()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def forget(self) -> None:
        """Leave nothing behind of a run that never began: it is new, and no artifact of it is complete."""
        if self.path in self._made and not any(self.path.rglob(f"*{layout.DONE}")):
            shutil.rmtree(self.path, ignore_errors=True)
            with suppress(OSError):  # what others have put into a folder above keeps it
                for place in self._made[1:]:
                    place.rmdir()

    @property
    def is_forgotten(self) -> bool:
        """Whether nothing is left of the run."""
        return not self.path.exists()

    def _sweep(self) -> None:
        """Remove what a killed process left under a private name: the lock says that it is gone.

        On a network file system the lock says that of this machine only.
        """
        whose = f".*.{socket.gethostname()}.*.tmp" if network_file_system(self.path) else ".*.tmp"
        for left in self.path.rglob(whose):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)

    def iteration(self, number: int | str) -> Path:
        """Return the folder of an iteration: a number, or `start` or `test` for what lies outside of them."""
        folder = layout.place(self.path, number)
        with writing(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def rows(
        self, path: Path, kind: type[Record], make: Callable[[], Iterable[Record]], again: Again = Again.anew
    ) -> list[Record]:
        """Return the records of a JSONL artifact; `make` is called only if it isn't complete and whole."""
        self._see_to(path, lambda: "".join(to_json(record) + "\n" for record in make()), again)
        return read_rows(path, kind)

    def tree(self, path: Path, make: Callable[[], Any], again: Again = Again.anew) -> Any:
        """Return the value of a JSON artifact; `make` is called only if it isn't complete and whole."""
        self._see_to(path, lambda: json.dumps(make(), indent=1, allow_nan=False) + "\n", again)
        return _read(path, json.loads)

    def folder(
        self, path: Path, kind: type[Record], make: Callable[[Path], Record], again: Again = Again.anew
    ) -> Record:
        """Return the record of a folder artifact, kept in it as `record.json`; `make` fills a private folder."""
        found = self._look(path)
        if not found.whole:
            if found.fault and again is not Again.anew:
                raise self._damaged(path, found.fault)
            self._fill(path, make)
        return _read(path / RECORD, lambda text: from_json(kind, text))

    def _fill(self, path: Path, make: Callable[[Path], Record]) -> None:
        start = time.monotonic()
        hidden = private(path)
        self._forget(path)
        try:
            with writing(path):
                hidden.mkdir()
            record = make(hidden)
            with writing(path):
                (hidden / RECORD).write_text(to_json(record), encoding="utf-8")
                for file in contents(hidden):
                    sync(file)
            if not self._look(path).whole:
                with writing(path):
                    shutil.rmtree(path, ignore_errors=True)
                    os.replace(hidden, path)
                    sync(path.parent)
                _mark(path, time.monotonic() - start)
            self._adopt(path)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)

    def _look(self, path: Path) -> Look:
        """Compare an artifact with its marks; what is whole gets those that it lacks or that are damaged."""
        found = look(self.path, path)
        if found.whole and found.fault:
            self.tell(f"{path}: {found.fault}; it itself is whole, and is marked again.")
            write_text(marker(path), json.dumps(found.mark))
        if found.unhashed:
            self.tell(f"{path}: its marker has no sha256, as those of early versions: it is read as it is.")
        if found.whole:
            self._adopt(path)
        return found

    def _see_to(self, path: Path, write: Callable[[], str], again: Again) -> None:
        """See to it that an artifact of text is there and whole."""
        found = self._look(path)
        if found.whole:
            return
        if found.fault and again is Again.never:
            raise self._damaged(path, found.fault)
        start = time.monotonic()
        if not found.fault:
            self._forget(path)
            _publish(path, write(), start)
        else:
            self._mend(path, write, found, again)
        self._adopt(path)

    def _mend(self, path: Path, write: Callable[[], str], found: Look, again: Again) -> None:
        """Make a damaged artifact again; raises RunFolderError where it can't be had as it was."""
        there = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        mark = found.mark or {}
        if again is Again.same:
            try:
                with self.mending():
                    text = write()
            except ServiceError as error:
                raise self._damaged(path, f"{found.fault}, and it can't be made again: {error}") from error
            known = {there, mark.get("sha256")} - {None}
            if known and hashlib.sha256(text.encode()).hexdigest() not in known:
                raise self._damaged(path, f"{found.fault}, and what it is made of comes to something else by now")
        else:
            text = write()
        self.tell(
            f"{path}: damaged ({found.fault}); it is made again" + (", nothing is bought." * (again is Again.same))
        )
        self._forget(path)
        with writing(path):
            marker(path).unlink(missing_ok=True)
        write_text(path, text)
        _mark(path, float(mark.get("seconds", 0.0)))

    def _damaged(self, path: Path, fault: str) -> RunFolderError:
        return RunFolderError(
            f"{path}: damaged ({fault.rstrip('.')}). Bring back a copy of it; or remove {path.parent}, what was made "
            f"after it (later iterations, test) and {layout.STATE}, and run again: it is made anew from there, judged "
            "at the judges' price."
        )

    def _adopt(self, path: Path) -> None:
        """Keep a copy of an artifact's marker, and the sha256 of an adapter's record, which is read alone."""
        _note_checksum(self.path, path, read_mark(path))
        if path.is_dir():
            _note_checksum(self.path, path / RECORD, [hashlib.sha256(read(path / RECORD)).hexdigest()])

    def _forget(self, path: Path) -> None:
        """Forget what an artifact was before: it is made anew."""
        for file in (path, path / RECORD):
            _note_checksum(self.path, file, None)

    def read_state(self) -> RunState:
        """Return the state as last written, or a fresh one."""
        return read_state(self.path)

    def write_state(self, state: RunState) -> None:
        """Replace `state.json`."""
        text = json.dumps(json.loads(to_json(state)), indent=1, ensure_ascii=False) + "\n"
        with writing(self.path / layout.STATE):
            write_kept(self.path / layout.STATE, text.encode())


def read_state(path: Path, *, compared: bool = True) -> RunState:
    """Return the state of the run in a folder, a fresh one if there is none yet; takes no lock.

    Raises RunFolderError where it can't be read or, when `compared`, isn't what was last written.
    """
    file = path / layout.STATE
    if not file.exists():
        return RunState()
    way_on = "remove it and run again: it is made again from the run's other files, and nothing is bought for it."
    fault = kept_fault(file) if compared else ""
    if fault:
        raise RunFolderError(f"{file}: damaged ({fault}); {way_on}")
    try:
        return _checked_state(from_json(RunState, read(file).decode()))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(f"{file}: can't be read ({error}); {way_on}") from error


def _checked_state(state: RunState) -> RunState:
    """Raise TypeError for values of another kind than a run writes."""
    numbers = (state.iterations, state.cost_usd, state.best_iteration or 0, state.accepted_iteration or 0)
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise TypeError("a count is no number")
    if not isinstance(state.status, str) or not isinstance(state.stop_reason, str | None):
        raise TypeError("status or stop_reason is no text")
    if not isinstance(state.beside, dict) or not isinstance(state.test, dict | None):
        raise TypeError("a scorecard is none")
    return state


def refuse_damaged(folder: Path, *, artifacts: bool = True) -> None:
    """Raise RunFolderError where a file of a run isn't what was written: no number of it can be relied on."""
    found = faults(folder, artifacts=artifacts)
    if found:
        path, fault = next(iter(found.items()))
        more = f" So are {len(found) - 1} more of its files." if len(found) > 1 else ""
        raise RunFolderError(
            f"{path}: damaged ({fault}).{more} The same llamaduo run command makes it again, or says how to; "
            "or bring back a copy of it."
        )


def _read(path: Path, parse: Callable[[str], Value]) -> Value:
    try:
        return parse(read(path).decode())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise RunFolderError(
            f"{path}: can't be read ({error}); bring back a copy, or remove it and its marker."
        ) from error


def read_rows(path: Path, kind: type[Record]) -> list[Record]:
    """Return the records of a JSONL file; raises RunFolderError with the line that can't be read."""
    records = []
    with open(regular(path), encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                records.append(from_json(kind, line))
            except (ValueError, TypeError, AttributeError, RecursionError) as error:
                raise RunFolderError(f"{path}:{number}: can't be read ({error}); move the run elsewhere.") from error
    return records
