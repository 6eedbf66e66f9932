"""Colours and marks of all figures and pages: Okabe and Ito's palette, told apart by the colour-blind.

    colour(0), mark(0)                    '#0072B2', 'o'

Yellow is left out, since it can't be read on white. A series has its own mark too, so that no figure needs colour.
"""

from __future__ import annotations

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00")
"""Of series, in this order: blue, vermilion, green, purple, orange, sky, and a brown for the seventh."""

MARKS = ("o", "s", "^", "D", "v", "P", "X", "h")
"""Of series: as many as are coprime with the colours, so that 56 series have a pair of their own."""

INK = "#1a1a1a"
"""Text, and what stands for a whole panel of judges."""
SOFT = "#6b6b6b"
"""Axes, second-rank text, limits such as the gate."""
FAINT = "#e3e3e3"
"""Grid lines."""
PAPER = "#ffffff"
"""The ground of every figure, in dark pages too: a figure is a card."""


def colour(number: int) -> str:
    """Return the colour of the series with this number."""
    return COLOURS[number % len(COLOURS)]


def mark(number: int) -> str:
    """Return matplotlib's name of the mark of the series with this number."""
    return MARKS[number % len(MARKS)]
