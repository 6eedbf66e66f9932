"""Tally: how much was replaced and put back, as `privacy.json` in a run's folder keeps it.

    {"rows": {"mail": {"values": 12, "rows": 9}}, "requests": {"1f0c...": [{"mail": 2}, {"mail": 1}, {}]}}

`rows` counts what the coverage data hold: distinct values, and the rows that have any. Of each request, by its key, the
counts by type are those of values replaced in it, put back in its reply, and made up or changed by the model: what
looks like a made-up value, and stands for nothing that was sent. A request that is asked again counts once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.files.regular import read_json
from llamaduo.privacy.hiding import Hider

_KEY = 16


@dataclass(frozen=True)
class Line:
    """What is told of one type."""

    type: str
    values: int
    """Distinct values in the coverage data."""
    rows: int
    """Coverage rows that hold any."""
    replaced: int
    """In all requests, every place counted."""
    restored: int
    """In all replies."""
    lost: int
    """In replies, what looks made up and stands for nothing that was sent."""


class Tally:
    """The counts of one run."""

    def __init__(self, path: Path, write: Callable[[Path, bytes], None]) -> None:
        self._path, self._write = path, write
        known = _read(path)
        self.rows: dict[str, dict[str, int]] = dict(known.get("rows") or {})
        self._requests: dict[str, list[dict[str, int]]] = dict(known.get("requests") or {})
        self._changed = False

    def count_rows(self, rows: Iterable[Iterable[str]], hider: Hider) -> None:
        """Count what coverage rows hold, each of them some texts; once for a run."""
        if not self.rows:
            self.rows = counted(rows, hider)
            self._changed = True

    def count(self, key: str, replaced: Counter[str], restored: Counter[str], lost: Counter[str]) -> None:
        """Count one request and its reply."""
        made = [dict(sorted(counts.items())) for counts in (replaced, restored, lost)]
        if self._requests.get(key[:_KEY]) != made:
            self._requests[key[:_KEY]] = made
            self._changed = True

    def keep(self) -> None:
        """Write down what has changed."""
        if self._changed:
            tree = {"rows": self.rows, "requests": dict(sorted(self._requests.items()))}
            self._write(self._path, f"{json.dumps(tree)}\n".encode())
            self._changed = False


def counted(rows: Iterable[Iterable[str]], hider: Hider) -> dict[str, dict[str, int]]:
    """Return by type how many distinct values some rows hold, and how many of the rows hold any."""
    values: dict[str, set[str]] = {}
    having = Counter[str]()
    for texts in rows:
        found = [one for text in texts for one in hider.find(text)]
        for one in found:
            values.setdefault(one.type, set()).add(one.value)
        having.update({one.type for one in found})
    return {type_: {"values": len(values[type_]), "rows": having[type_]} for type_ in sorted(values)}


def lines(path: Path) -> list[Line]:
    """Return what a run's `privacy.json` tells, by type; none if there is no such file."""
    known = _read(path)
    sums = [Counter[str](), Counter[str](), Counter[str]()]
    for counts in (known.get("requests") or {}).values():
        for sum_, count in zip(sums, counts, strict=True):
            sum_.update(count)
    rows: Mapping[str, Any] = known.get("rows") or {}
    types = sorted({*rows, *(type_ for sum_ in sums for type_ in sum_)})
    told = {type_: rows.get(type_, {"values": 0, "rows": 0}) for type_ in types}
    return [Line(type_, told[type_]["values"], told[type_]["rows"], *(sum_[type_] for sum_ in sums)) for type_ in types]


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
