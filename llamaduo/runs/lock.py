"""The lock in a run's folder: who works on the run, and who may.

    lock = take(folder)            a file to be closed; raises RunFolderError where another process has the lock
    holder(folder)                 "pid 4711 on node3", None where nobody works on it; the lock isn't touched

The lock is the kernel's, so it goes with its process. Who has it is written inside for others to read.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import sys
import time
from pathlib import Path

from llamaduo.errors import RunFolderError
from llamaduo.files.regular import read
from llamaduo.runs.layout import ITERATIONS, LOCK, places

_HOLDER = re.compile(r"pid (\d+) on (.+)")
_FRESH_S = 600.0
"""A run on another machine whose folder has changed within this time counts as being worked on."""


def take(folder: Path) -> int:
    """Take the lock of a run's folder; return its file, which holds it until it is closed."""
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        other = os.read(lock, 200).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise RunFolderError(
            f"{folder}: another process ({other}) works on this run. Wait for it, or stop it and run again."
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return lock


def holder(folder: Path) -> str | None:
    """Return who works on a run, such as `pid 4711 on node3`; None if nobody does.

    Of another machine it can't be known: its last sign of life is told.
    """
    try:
        lock = folder / LOCK
        told = _HOLDER.fullmatch(read(lock).decode(errors="replace").strip())
        if not told:
            return None
        pid, host = int(told[1]), told[2]
        if host == socket.gethostname():
            return told[0] if _has_open(pid, lock) else None
        quiet = time.time() - _last_change(folder)
        return f"{told[0]}, {quiet / 60:.0f} min ago" if quiet < _FRESH_S else None
    except (OSError, ValueError):
        return None


def _has_open(pid: int, lock: Path) -> bool:
    """Tell whether a process of this machine has the lock's file open, which it has for as long as it holds it."""
    if not sys.platform.startswith("linux"):
        return lives(pid)
    wanted = os.stat(lock)
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = os.stat(handle)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def _last_change(folder: Path) -> float:
    """Return when anything in a run's folder was last written."""
    there = [folder, folder / ITERATIONS, *(path for path in places(folder) if path.is_dir())]
    return max(path.stat().st_mtime for path in there if path.exists())


def at_work(told: str) -> bool:
    """Tell whether a process such as `pid 4711 on node3` lives; of another machine that isn't known, so it says no."""
    found = _HOLDER.fullmatch(told)
    return found is not None and found[2] == socket.gethostname() and lives(int(found[1]))


def lives(pid: int) -> bool:
    """Tell whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True
