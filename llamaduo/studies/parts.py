"""What a report consists of: tables and figures, each with the numbers behind it."""

from __future__ import annotations

from dataclasses import dataclass

from llamaduo.studies.tidy import Row


@dataclass(frozen=True)
class Cell:
    """One field of a table."""

    text: str
    """What is shown, such as `86.2 [81.0, 90.3]`; empty where nothing is known."""
    value: float | None = None
    """The number to sort by; null sorts last."""
    bold: bool = False
    """The best of its column, by more than noise."""
    note: str = ""
    """What a reader should know of this field: a published number's source, an n that differs."""


@dataclass(frozen=True)
class Table:
    """A table of a report."""

    name: str
    """The name of its files, such as `main_precision`."""
    title: str
    note: str
    """What the numbers are: unit, interval, n, and the rule for bold."""
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    labels: int = 1
    """How many columns at the left name the row."""


@dataclass(frozen=True)
class Figure:
    """A figure of a report."""

    name: str
    """The name of its files, such as `scaling_precision`."""
    title: str
    caption: str
    """What is shown: unit, interval, n."""
    data: list[Row]
    """The numbers that are drawn, a row a mark."""
    svg: str
    png: bytes
