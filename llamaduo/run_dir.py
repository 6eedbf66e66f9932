"""One run's folder: where things lie, when they are complete, and who may write.

An artifact is complete if and only if its marker `<name>.done` exists. It is written under a private
temporary name, synced, renamed into place, and marked last, so a kill at any instruction leaves either
no marker or a whole artifact. The marker holds size, sha256 and the seconds it took.

The lock is the kernel's. Some network file systems grant it to several machines at once; then private names carry the
machine, nobody removes those of another one, and an artifact that was completed elsewhere meanwhile is kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from llamaduo.errors import RunFolderError
from llamaduo.mounts import network_file_system
from llamaduo.records import RunState, from_json, to_json

Record = TypeVar("Record")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:
        raise RunFolderError(f"{path}: can't be written ({error}); mend the text's encoding.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(
            f"{path}: can't be written ({reason}). Free space or set runtime.results to another folder, then run again."
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _private(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def write_text(path: Path, text: str) -> None:
    """Replace a file's content in one step: readers see the old text or the new one, never a part."""
    with _writing(path):
        write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file's content in one step."""
    private = _private(path)
    with _writing(path):
        try:
            with open(private, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(private, path)
            _sync(path.parent)
        finally:
            private.unlink(missing_ok=True)


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".done")


def _complete(path: Path) -> bool:
    return _marker(path).exists() and path.exists()


def _contents(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def contents_hash(path: Path) -> tuple[int, str]:
    """Return the bytes and the sha256 of an artifact: a file, or all files of a folder one behind the other."""
    digest, size = hashlib.sha256(), 0
    for file in _contents(path):
        content = file.read_bytes()
        digest.update(content)
        size += len(content)
    return size, digest.hexdigest()


def _mark(path: Path, seconds: float) -> None:
    size, digest = contents_hash(path)
    write_text(_marker(path), json.dumps({"bytes": size, "sha256": digest, "seconds": round(seconds, 3)}))


def _publish(path: Path, text: str, start: float) -> None:
    """Write a file and mark it, unless another machine has completed it meanwhile: the first one counts."""
    if not _complete(path):
        write_text(path, text)
        _mark(path, time.monotonic() - start)


class RunDir:
    """A run's folder, open for writing by this process alone; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None
        self._made: list[Path] = []
        """The folders that were not there before, the run's own first; none for a run that goes on."""

    def __enter__(self) -> RunDir:
        self._made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        with _writing(self.path):
            (self.path / "iterations").mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._lock, 200).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise RunFolderError(
                f"{self.path}: another process ({holder}) works on this run. Wait for it, or stop it and run again."
            ) from error
        with _writing(self.path):
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
            self._sweep()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def forget(self) -> None:
        """Leave nothing behind of a run that never began: it is new, and no artifact of it is complete."""
        if self.path in self._made and not any(self.path.rglob("*.done")):
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
        folder = self.path / "iterations" / (f"{number:02d}" if isinstance(number, int) else number)
        with _writing(folder):
            folder.mkdir(exist_ok=True)
        return folder

    def rows(self, path: Path, kind: type[Record], make: Callable[[], Iterable[Record]]) -> list[Record]:
        """Return the records of a JSONL artifact; `make` is called only if it isn't complete."""
        if not _complete(path):
            start = time.monotonic()
            text = "".join(to_json(record) + "\n" for record in make())
            _publish(path, text, start)
        return read_rows(path, kind)

    def tree(self, path: Path, make: Callable[[], Any]) -> Any:
        """Return the value of a JSON artifact; `make` is called only if it isn't complete."""
        if not _complete(path):
            start = time.monotonic()
            _publish(path, json.dumps(make(), indent=1, allow_nan=False) + "\n", start)
        return json.loads(path.read_text(encoding="utf-8"))

    def folder(self, path: Path, kind: type[Record], make: Callable[[Path], Record]) -> Record:
        """Return the record of a folder artifact, kept in it as `record.json`; `make` fills a private folder."""
        if not _complete(path):
            start = time.monotonic()
            private = _private(path)
            try:
                with _writing(path):
                    private.mkdir()
                record = make(private)
                with _writing(path):
                    (private / "record.json").write_text(to_json(record), encoding="utf-8")
                    for file in _contents(private):
                        _sync(file)
                if not _complete(path):
                    with _writing(path):
                        shutil.rmtree(path, ignore_errors=True)
                        os.replace(private, path)
                        _sync(path.parent)
                    _mark(path, time.monotonic() - start)
            finally:
                shutil.rmtree(private, ignore_errors=True)
        return from_json(kind, (path / "record.json").read_text(encoding="utf-8"))

    def seconds(self, *paths: Path) -> float:
        """Return how long it took to make artifacts that are complete."""
        markers = [_marker(path) for path in paths if _marker(path).exists()]
        return round(sum(float(json.loads(marker.read_text())["seconds"]) for marker in markers), 3)

    def read_state(self) -> RunState:
        """Return the state as last written, or a fresh one."""
        return read_state(self.path)

    def write_state(self, state: RunState) -> None:
        """Replace `state.json`."""
        write_text(
            self.path / "state.json", json.dumps(json.loads(to_json(state)), indent=1, ensure_ascii=False) + "\n"
        )


def read_state(path: Path) -> RunState:
    """Return the state of the run in a folder, a fresh one if there is none yet; takes no lock."""
    file = path / "state.json"
    if not file.exists():
        return RunState()
    try:
        return from_json(RunState, file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{file}: can't be read ({error}); remove it and run again.") from error


def read_rows(path: Path, kind: type[Record]) -> list[Record]:
    """Return the records of a JSONL file; raises RunFolderError with the line that can't be read."""
    records = []
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                records.append(from_json(kind, line))
            except (ValueError, TypeError, AttributeError) as error:
                raise RunFolderError(f"{path}:{number}: can't be read ({error}); move the run elsewhere.") from error
    return records
