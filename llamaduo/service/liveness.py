"""Who is alive: each opened service holds a lock that the kernel lets go of when its process dies.

    owner = Owner(folder)        folder/<owner.name> is locked from here on
    alive(folder, owner.name)    True in every process, until owner.close() or the process's end, however it ends
    who(folder, owner.name)      "process 4711", and whether it is stopped
    stopped(folder)              all that are stopped, in the same words

Locks are flock's, so they tell about processes of one machine; a folder that several machines share needs one
journal a machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from pathlib import Path

_LONG_S = 3600.0


class Owner:
    """A sign of life of this process."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = uuid.uuid4().hex
        self._path = folder / self.name
        private = folder / f".{self.name}"
        self._file = os.open(private, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.write(self._file, str(os.getpid()).encode())
        os.rename(private, self._path)  # nobody sees it unlocked

    def close(self) -> None:
        """Be dead."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def alive(folder: Path, name: str) -> bool:
    """Tell whether an owner still lives; clears away the traces of one that doesn't."""
    try:
        file = os.open(folder / name, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        (folder / name).unlink(missing_ok=True)
        return False
    finally:
        os.close(file)


def who(folder: Path, name: str) -> str:
    """Return who an owner is, in words; of one that is stopped, how it goes on."""
    try:
        pid = int((folder / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return "another process"
    if not _is_stopped(pid):
        return f"process {pid}"
    return f"process {pid}, which is stopped (kill -CONT {pid} lets it go on, kill -KILL {pid} ends it)"


def stopped(folder: Path) -> list[str]:
    """Return which living owners are stopped, in words: what they hold nobody else gets."""
    with contextlib.suppress(OSError):
        names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        found = {name: who(folder, name) for name in names}
        return sorted(told for name, told in found.items() if "is stopped" in told and alive(folder, name))
    return []


def _is_stopped(pid: int) -> bool:
    """Tell whether a process was stopped, as by Ctrl-Z; only Linux tells."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return False
    return state[:1] in (["T"], ["t"])


def clear(folder: Path) -> None:
    """Remove the traces of all that are dead; a hidden file is somebody who is only just coming to life."""
    long_ago = time.time() - _LONG_S
    for path in folder.iterdir():
        if not path.name.startswith("."):
            alive(folder, path.name)
        else:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < long_ago:
                    path.unlink()
