"""Ctrl-Z while something is held that others wait for: the process stops when it has let go.

    heed_stops()            from here on Ctrl-Z (SIGTSTP) waits for whatever is held; the main thread says so
    with unstopped(): ...   a lock on what other processes need as well, in any thread

A process that stops inside a transaction or with a lock in its hands would stop everybody. Nothing can be done about
SIGSTOP: who waits says for whom (`liveness.stopped`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

_turn = threading.Lock()
_held = 0
_asked = False


def heed_stops() -> None:
    """Let SIGTSTP wait until nothing is held; does nothing where it is ignored, as without job control."""
    if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
        signal.signal(signal.SIGTSTP, _stop)


@contextlib.contextmanager
def unstopped() -> Iterator[None]:
    """Put off what Ctrl-Z asks for until the end of this."""
    global _held  # noqa: PLW0603  # one process, one count
    with _turn:
        _held += 1
    try:
        yield
    finally:
        with _turn:
            _held -= 1
            due = _asked and not _held
        if due:
            os.kill(os.getpid(), signal.SIGTSTP)


def _stop(*_: object) -> None:
    """Stop, unless something is held or just being taken: whoever lets go then asks again."""
    global _asked  # noqa: PLW0603
    _asked = True
    if not _turn.acquire(blocking=False):
        return
    try:
        if not _held:
            _asked = False
            signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTSTP)
            signal.signal(signal.SIGTSTP, _stop)
    finally:
        _turn.release()
