"""Signals: what ends a command from outside lets paid calls come home first; what becomes of its output ends nothing.

interrupt_on_signals()      SIGTERM and SIGHUP are Ctrl-C from here on
with lasting_output():      a full disk or a reader that has gone silences what is printed, and no more
    ...
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO


def interrupt_on_signals() -> None:
    """Treat the first SIGTERM or SIGHUP as Ctrl-C; a shell that is closed sends several. `nohup` stays in force."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(*_: object) -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def lasting_output() -> Iterator[None]:
    """Let nothing that is printed end what is under way; `printing.plain_output` is in force already."""
    printed: list[Any] = [stream for stream in (sys.stdout, sys.stderr) if hasattr(stream, "rich_proxied_file")]
    before = [stream.rich_proxied_file for stream in printed]
    for stream in printed:
        stream.rich_proxied_file = _Lasting(stream.rich_proxied_file)
    try:
        yield
    finally:
        for stream, behind in zip(printed, before, strict=True):
            stream.rich_proxied_file = behind


class _Lasting:
    """A stream that falls silent where it can't be written any more: no space, no reader, no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, if that can be done."""
        try:
            return self._stream.write(text)
        except OSError:
            self._fall_silent()
            return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts, if that can be done."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written, if that can be done."""
        try:
            self._stream.flush()
        except OSError:
            self._fall_silent()

    def _fall_silent(self) -> None:
        """Send everything that follows to nowhere, what is still held included."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
