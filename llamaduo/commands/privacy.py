"""`llamaduo privacy FILE`: what `privacy=on` would replace in rows, before anything is sent.

Counts by type, and examples side by side; `--json` gives the same as one object:

    {"rows": 283, "rows_with_any": 3, "types": {"mail": {"values": 2, "rows": 2}}, "examples": [{"place": ...}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.commands.arguments import told_apart
from llamaduo.compose import compose
from llamaduo.data.formats import read_example, read_files
from llamaduo.data.tables import HEADER_AGAIN
from llamaduo.data.unusable import UnusableError
from llamaduo.display import plain_console
from llamaduo.errors import ConfigError, InputError, not_there
from llamaduo.privacy.hiding import Hider
from llamaduo.service.access import hider_of
from llamaduo.service.concealing import texts_of

if TYPE_CHECKING:
    from rich.console import Console

USAGE = """usage: llamaduo privacy FILE [key=value ...] [--json] [--examples=N]

Shows what privacy=on would replace in a file of rows, one of those that data.path takes, before anything is sent: how
many values of each type, in how many rows, and the first N of them (12) beside what would stand in their place.
Keys: privacy.types, privacy.names, privacy.region, privacy.patterns, data.category, service.journal."""
_AROUND = 24


@dataclass
class Shown:
    """What was found."""

    rows: int = 0
    """Rows that can be used."""
    left_out: int = 0
    """Rows that can't."""
    having: int = 0
    """Rows that hold anything."""
    values: dict[str, set[str]] = field(default_factory=dict)
    by_type: dict[str, int] = field(default_factory=dict)
    """Rows that hold any of a type."""
    examples: list[dict[str, str]] = field(default_factory=list)

    def tree(self) -> dict[str, Any]:
        """Return it for machines."""
        types = {name: {"values": len(self.values[name]), "rows": self.by_type[name]} for name in sorted(self.values)}
        counts = {"rows": self.rows, "left_out": self.left_out, "rows_with_any": self.having}
        return {**counts, "types": types, "examples": self.examples}


def main(arguments: Sequence[str]) -> int:
    """Print what would be replaced and return the exit code."""
    given = told_apart(arguments, flags=("--json",), values=("--examples",))
    words = [word for word in given.words if "=" not in word or Path(word).exists()]
    if len(words) != 1 or words[0].startswith("-"):
        raise ConfigError(USAGE.splitlines()[0] + ".")
    most = given.options.get("--examples", "12")
    if not most.isdecimal():
        raise ConfigError(f"--examples={most}: must be a number.")
    path, keys = Path(words[0]), [word for word in given.words if word not in words]
    if not path.exists():
        raise InputError(not_there(path, "file"))
    composed = compose(["privacy=on", *_OF_NO_INTEREST, *keys])
    if composed is None or len(composed.experiments) != 1:
        raise ConfigError(USAGE.splitlines()[0] + ".")
    (experiment,) = composed.experiments
    hider = hider_of(experiment, keep=True)
    if hider is None:
        raise ConfigError("privacy=off replaces nothing: leave it out.")
    shown = show(path, hider, int(most), experiment.data.category)
    console = plain_console()
    if "--json" in given.options:
        print(json.dumps(shown.tree(), ensure_ascii=False, indent=1))
    else:
        _print(shown, path, console)
    return 0


_OF_NO_INTEREST = ("judge=reference", "synthesis=none")


def show(path: Path, hider: Hider, most: int, category: str | None = None) -> Shown:
    """Return what would be replaced in a file's rows, with `most` examples at most."""
    shown = Shown()
    for place, texts in _rows(path, shown, category):
        shown.rows += 1
        hidden = hider.hide(texts)
        if not hidden.pairs:
            continue
        shown.having += 1
        for name in {pair.type for pair in hidden.pairs}:
            shown.by_type[name] = shown.by_type.get(name, 0) + 1
        for text in texts:
            for one in hider.find(text):
                shown.values.setdefault(one.type, set()).add(one.value)
        for pair in hidden.pairs[: most - len(shown.examples)]:
            shown.values.setdefault(pair.type, set())
            shown.examples.append(
                {
                    "place": place,
                    "type": pair.type,
                    "found": pair.real,
                    "sent": pair.made,
                    "text": _around(texts, pair.real),
                }
            )
    if not shown.rows:
        raise InputError(f"{path}: no row can be used ({shown.left_out} are left out).")
    return shown


def _rows(path: Path, shown: Shown, category: str | None) -> Iterator[tuple[str, list[str]]]:
    for _, place, row in read_files(path):
        if row is HEADER_AGAIN or (isinstance(row, dict) and category is not None and row.get("category") != category):
            continue
        try:
            if isinstance(row, UnusableError):
                raise row
            yield place, texts_of(read_example(row, place))
        except UnusableError:
            shown.left_out += 1


def _around(texts: Sequence[str], real: str) -> str:
    """Return a value with what stands around it."""
    text = next((text for text in texts if real in text), real)
    at = text.find(real)
    start, end = max(0, at - _AROUND), at + len(real) + _AROUND
    return f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"


def _print(shown: Shown, path: Path, console: Console) -> None:
    from rich.table import Table

    left = f", {shown.left_out:,} left out" if shown.left_out else ""
    console.print(f"{path}: {shown.rows:,} rows{left}; {shown.having:,} hold what would be replaced before it is sent.")
    if not shown.having:
        return
    counts, examples = (Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold") for _ in range(2))
    for name in ("type", "values", "rows"):
        counts.add_column(name, justify="left" if name == "type" else "right")
    for name, found in shown.tree()["types"].items():
        counts.add_row(name, f"{found['values']:,}", f"{found['rows']:,}")
    for name in ("place", "type", "found", "would be sent"):
        examples.add_column(name, overflow="fold")
    for one in shown.examples:
        examples.add_row(*(" ".join(one[name].split()) for name in ("place", "type", "found", "sent")))
    console.print(counts)
    console.print()
    console.print(examples)
    console.print("Names of persons are looked for with privacy.names=true alone; docs/privacy.md says what is missed.")
