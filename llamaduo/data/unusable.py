"""A row that can't be used, and why: said where the rows are read, counted and listed where they are taken.

raise UnusableError("log.jsonl:7", "not JSON", " (Expecting value: line 1 column 9); mend the row or remove it.")

The reason is one of few, so that rows can be counted by it; what is particular of the row stands behind it.
"""

from __future__ import annotations

from typing import Any

from llamaduo.errors import InputError
from llamaduo.redaction import one_line

_SHOWN, _REDACTED = 60, 4000
"""Characters of a row that are listed, and those that are looked through for keys before."""
_NAMED = 12


class UnusableError(InputError):
    """A row that can't be used; where it is `yield`ed in place of a row, the reading goes on."""

    def __init__(self, place: str, reason: str, more: str = ".", *, said: str = "", raw: str = "") -> None:
        """`said` is the place as the message has it, `raw` what there is instead of a row."""
        super().__init__(f"{said or place}: {reason}{more}")
        self.place = place
        self.reason = reason
        self.excerpt = beginning(raw)


class SetAside(UnusableError):  # noqa: N818 (no error of the file's)
    """A row that says itself that its answer is none to learn from."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason, "; leave the row out.")


def beginning(raw: str) -> str:
    """Return the beginning of a text as it may be listed: short, on one line and without keys."""
    shown = one_line(raw[:_REDACTED].strip())
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def shown(row: Any) -> str:
    """Return what is listed of a row: the names of its fields, and nothing that they hold."""
    if not isinstance(row, dict):
        return type(row).__name__
    names = [beginning(str(name)) for name in list(row)[:_NAMED]]
    return ", ".join(names) + (" ..." if len(row) > _NAMED else "")
