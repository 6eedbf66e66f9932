"""Folders for what is unpacked or derived: gone when their work is done, however it ended.

    with scratch_folder() as place: ...

Beside each folder lies a file that its process keeps locked. Who makes a folder removes those of this user whose
process is no more: a kill that leaves no time to tidy up leaves its files to the next command, and no longer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX, _LOCK = "llamaduo-scratch-", ".lock"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder of one's own, removed behind it; first removes what killed processes have left."""
    _remove_left_over(Path(tempfile.gettempdir()))
    lock, held = _locked_file()
    folder = lock.with_suffix("")
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        _remove(folder, lock)
        os.close(held)


def _locked_file() -> tuple[Path, int]:
    """Return a new file that is locked until its descriptor is closed; children don't inherit it."""
    while True:
        held, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_LOCK)
        fcntl.flock(held, fcntl.LOCK_EX)
        if os.path.exists(name):  # nobody took it for left over before it was locked
            return Path(name), held
        os.close(held)


def _remove_left_over(place: Path) -> None:
    for lock in place.glob(f"{_PREFIX}*{_LOCK}"):
        with contextlib.suppress(OSError):
            if lock.is_symlink() or lock.stat().st_uid != os.getuid():
                continue
            held = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(lock.with_suffix(""), lock)
            finally:
                os.close(held)


def _remove(folder: Path, lock: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.unlink(missing_ok=True)
