"""Which panel and which line a row belongs to, found from what tells the rows apart.

    layout = split(rows, axis=("volume",))       panels ("task",), series ("local_model",)
    layout.panel(row), layout.line(row)          'coding', 'gemma_2b'

A column that follows from those already used divides nothing and is left out: epochs that a recipe sets by volume
don't cut a line to pieces, and neither does an alpha that is always twice the rank.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llamaduo.studies.tidy import Row, factors

PANELS = ("task", "service_llm")
"""What panels are made of, where it varies."""


@dataclass(frozen=True)
class Layout:
    """The columns that panels and series are named by."""

    panels: tuple[str, ...]
    series: tuple[str, ...]

    def panel(self, row: Row) -> str:
        """Return the name of a row's panel, empty where there is only one."""
        return label(row, self.panels)

    def line(self, row: Row) -> str:
        """Return the name of a row's series; what is the same everywhere is named by its local model."""
        return label(row, self.series) or str(row["local_model"])


def split(rows: Sequence[Row], axis: Sequence[str] = (), panels: Sequence[str] = PANELS) -> Layout:
    """Return how rows are laid out, when the columns in `axis` are the figure's axes."""
    known, found = list(axis), []
    names = list(factors(rows))
    for name in sorted(names, key=lambda name: (name not in panels, names.index(name))):
        if name not in axis and _divides(rows, known, name):
            known.append(name)
            found.append(name)
    return Layout(tuple(n for n in found if n in panels), tuple(n for n in names if n in found and n not in panels))


def _divides(rows: Sequence[Row], known: Sequence[str], name: str) -> bool:
    """Return whether rows that agree in the known columns differ in this one."""
    seen: dict[tuple[Any, ...], Any] = {}
    return any(row[name] != seen.setdefault(tuple(row[k] for k in known), row[name]) for row in rows)


_NAMED: dict[str, Callable[[Any], str]] = {
    "service_llm": lambda value: f"data from {value}",
    "volume": lambda value: f"{short(value)} rows",
    "lora_r": lambda value: f"r {value}",
    "lora_alpha": lambda value: f"alpha {value}",
    "epochs": lambda value: f"{value} epochs",
    "learning_rate": lambda value: f"rate {value:g}",
    "start": lambda value: f"from {value}",
    "protocol": lambda value: f"protocol {value}",
    "judge_prompt": lambda value: f"prompt {value}",
    "judge_repeats": lambda value: f"M {value}",
    "samples": lambda value: f"K {value}",
    "temperature": lambda value: f"T {value:g}",
    "seed": lambda value: f"seed {value}",
    "data_seed": lambda value: f"data seed {value}",
}


def label(row: Row, names: Sequence[str]) -> str:
    """Return the row's values in these columns as one text; a column that doesn't apply is left out."""
    return ", ".join(_NAMED.get(name, str)(row[name]) for name in names if row[name] is not None)


def short(number: float) -> str:
    """Return a count as an axis shows it: 512, 1,336, 64k, 21.4k, 1M."""
    if number < 1e3 or (number < 1e4 and number % 1e3):
        return f"{number:,.0f}"
    return f"{number / 1e6:.3g}M" if number >= 1e6 else f"{number / 1e3:.3g}k"


def best(groups: dict[str, list[Row]], most: int, score: str) -> list[str]:
    """Return the names of at most so many groups, those of the highest mean score if there are more, in name order."""

    def level(name: str) -> float:
        found = [row[score] for row in groups[name] if row[score] is not None]
        return sum(found) / len(found) if found else -1.0

    if len(groups) > most:
        return sorted(sorted(groups, key=lambda name: (-level(name), name))[:most], key=_by_number)
    return sorted(groups, key=_by_number)


_NUMBER = re.compile(r"(\d[\d,]*(?:\.\d+)?)([kM]?)")


def _by_number(name: str) -> list[tuple[str, float]]:
    """Return a key that sorts `64 rows` before `256 rows` and both before `1k rows`."""
    scale = {"": 1.0, "k": 1e3, "M": 1e6}
    pieces = _NUMBER.split(name)
    texts, numbers, units = pieces[::3], pieces[1::3], pieces[2::3]
    values = [float(number.replace(",", "")) * scale[unit] for number, unit in zip(numbers, units, strict=True)]
    return list(zip(texts, [*values, 0.0], strict=True))


def grouped(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """Return rows by the key, keys in the order of their first rows."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found
