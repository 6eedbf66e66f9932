"""Signals: what ends a command from outside lets paid calls come home first; what becomes of its output ends nothing.

interrupt_on_signals()              SIGTERM and SIGHUP are Ctrl-C from here on, and Ctrl-Z stops nobody else
with lasting_output() as lost:      a full disk or a reader that has gone silences what is printed, and no more
    ...                             `lost` then holds why
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from llamaduo.service.stops import heed_stops


def interrupt_on_signals() -> None:
    """Treat the first SIGTERM or SIGHUP as Ctrl-C; a shell that is closed sends several. `nohup` stays in force."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    heed_stops()


def _interrupt(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def lasting_output() -> Iterator[list[OSError]]:
    """Let nothing that is printed end what is under way; `printing.plain_output` is in force already.

    Yields what has kept stdout from being written, empty while nothing has.
    """
    lost: list[OSError] = []
    printed: list[Any] = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "rich_proxied_file")]
    before = [stream.rich_proxied_file for stream in printed]
    for stream in printed:
        stream.rich_proxied_file = _Lasting(stream.rich_proxied_file, lost if stream is sys.stdout else [])
    try:
        yield lost
    finally:
        for stream, behind in zip(printed, before, strict=True):
            stream.rich_proxied_file = behind


class _Lasting:
    """A stream that falls silent where it can't be written any more: no space, no reader, no terminal."""

    def __init__(self, stream: TextIO, lost: list[OSError]) -> None:
        self._stream, self._lost = stream, lost

    def write(self, text: str) -> int:
        """Write a text, if that can be done."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fall_silent(error)
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts, if that can be done."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written, if that can be done."""
        try:
            self._stream.flush()
        except OSError as error:
            self._fall_silent(error)

    def _fall_silent(self, error: OSError) -> None:
        """Send everything that follows to nowhere, what is still held included."""
        self._lost.append(error)
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
