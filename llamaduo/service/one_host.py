"""One machine at a time: who may use a journal that lies on a network file system.

SQLite's write-ahead log is shared memory, and liveness is told by locks: neither reaches another machine. So a
journal on a network file system is marked with the machine that uses it (`journal.sqlite.host`), from the first
process that opens it to the last one that closes it; any other machine is refused meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from llamaduo.environment import network_file_system
from llamaduo.errors import InputError


def claim(journal: Path) -> Path | None:
    """Mark a journal as this machine's; None on a local disk. Raises InputError if it is another machine's.

    The caller holds the journal's shared lock already: no other process of this machine takes the mark away then.
    """
    kind = network_file_system(journal)
    if kind is None:
        return None
    mark, here = journal.with_name(f"{journal.name}.host"), socket.gethostname()
    owner = _marked(mark, here)
    if owner != here:
        raise InputError(
            f"journal {journal}: it lies on {kind} and {owner} uses it; several machines can't share one. Set "
            f"service.journal to one a machine or a run, and merge them with llamaduo journal import; if "
            f"{owner} is gone, remove {mark}."
        )
    return mark


def _marked(mark: Path, here: str) -> str:
    """Return whose the mark is, after an attempt to make it this machine's."""
    private = mark.with_name(f".{mark.name}.{here}.{os.getpid()}")
    private.write_text(here, encoding="utf-8")
    try:
        while True:
            try:
                os.link(private, mark)  # of several machines one succeeds
                return here
            except FileExistsError:
                with suppress(FileNotFoundError):  # gone since: try again
                    return mark.read_text(encoding="utf-8").strip()
    finally:
        private.unlink(missing_ok=True)


def release(mark: Path | None, in_use: int) -> None:
    """Take the mark away if no other process of this machine has the journal open; `in_use` is its lock's file."""
    if mark is None:
        return
    with suppress(BlockingIOError):
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mark.unlink(missing_ok=True)
