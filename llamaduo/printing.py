r"""What is printed: readable on any terminal, without terminal escapes, control characters, bidi marks or keys.

    with plain_output(): ...        from here on, for everything that this process prints, its libraries included
    printable("a\x1b[31mb")         "ab"

Names of files, providers' words and data are printed as text: an escape among them could move the cursor, hide a line
or rename the window, a bidi mark turn a line round. What an encoding lacks becomes `?`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from llamaduo.redaction import redact, redact_logs

_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # such as a colour or a movement of the cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"  # such as a window's title
    r"|\x1b[ -/]*[0-~]"
)
_LINES = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text as it may be printed: line feeds, carriage returns and tabs are the only controls left in it."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("", _LINES.sub(" ", _ESCAPES.sub("", text)))


class _Printed:
    """A stream on which nothing but text is written; `rich_proxied_file` leads consoles to what lies behind it."""

    def __init__(self, stream: IO[str], *, returns: bool) -> None:
        self.rich_proxied_file = stream
        self._returns = returns

    def write(self, text: str) -> int:
        """Write what may be printed of a text; a carriage return only where libraries draw progress with it."""
        shown = redact(printable(text))
        self.rich_proxied_file.write(shown if self._returns else shown.replace("\r", ""))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write some texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """Print nothing but text while this lasts, and no key: neither by us nor in tracebacks, logs and warnings."""
    before = sys.stdout, sys.stderr
    try:
        print_plainly()
        yield
    finally:
        sys.stdout, sys.stderr = before


def print_plainly() -> None:
    """Print nothing but text from here on, and no key."""
    redact_logs()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if sys.stdout is not None and not isinstance(sys.stdout, _Printed):
        sys.stdout = _Printed(sys.stdout, returns=False)
    if sys.stderr is not None and not isinstance(sys.stderr, _Printed):
        sys.stderr = _Printed(sys.stderr, returns=True)
