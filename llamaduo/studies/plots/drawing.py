"""What all figures share: style, panels, labels at the ends of lines, and the same bytes for the same numbers.

Text stays text in the SVG: it can be searched, read aloud and shown in any script, and the fonts named for it have the
same widths. A PNG holds 200 dots an inch; its one font has Latin, Greek, Cyrillic, Arabic and Hebrew letters.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.palette import FAINT, INK, PAPER, SOFT
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure as Canvas

WIDTH = 7.0
"""Inches of a figure with several panels: the text of a page."""
NARROW = 4.8
"""Inches of a figure with one panel."""
FONTS = ["DejaVu Sans", "Verdana", "Noto Sans", "sans-serif"]

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """Draw in our style, whatever the user's matplotlibrc says; what was set before is set again behind it."""
    import matplotlib

    ours: dict[Any, Any] = {
        name: value for name, value in matplotlib.rcParamsDefault.items() if name.split(".")[0] in _OURS
    }
    with matplotlib.rc_context(ours | _STYLE):
        yield


_OURS = {"axes", "figure", "font", "grid", "hatch", "image", "legend", "lines", "mathtext", "patch", "path", "savefig",
         "scatter", "hist", "errorbar", "markers", "svg", "text", "xtick", "ytick", "xaxis", "yaxis"}  # fmt: skip


def panels(
    names: Sequence[str],
    *,
    height: float = 2.3,
    columns: int | None = None,
    width: float | None = None,
    share_y: bool = True,
) -> tuple[Canvas, list[Axes]]:
    """Return a figure and a panel for each name, titled with it; axes are shared, y unless told otherwise.

    Numbers stand below the lowest panel of each column and left of the first column.
    """
    from matplotlib.figure import Figure as Canvas

    across = columns or (len(names) if len(names) < 4 else 2 if len(names) == 4 else 3)
    down = math.ceil(len(names) / across)
    size = (width or (WIDTH if across > 1 else NARROW), height * down + 0.45)
    figure = Canvas(figsize=size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.06, h_pad=0.06, wspace=0.02, hspace=0.02)  # type: ignore[union-attr,call-arg]
    grid = figure.subplots(down, across, sharex=True, sharey=share_y, squeeze=False)
    axes = [axis for line in grid for axis in line]
    for number, axis in enumerate(axes):
        axis.set_visible(number < len(names))
        axis.tick_params(labelbottom=number in range(len(names) - across, len(names)))
        axis.tick_params(left=number % across == 0 or not share_y)
    points = min(_title_size(name, size[0] / across - 0.45) for name in names)
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(name.replace(", ", "\n"), fontsize=points)
    return figure, axes[: len(names)]


def _title_size(name: str, room: float) -> float:
    """Return the points at which a panel's name fits into so many inches."""
    longest = max(map(len, name.split(", ")))
    return max(5.5, min(9.0, 9 * room / (0.092 * longest or 1)))


def at_bottom(axes: Sequence[Axes]) -> list[Axes]:
    """Return the lowest panel of each column."""
    return list(axes[-_across(axes) :])


def at_left(axes: Sequence[Axes]) -> list[Axes]:
    """Return the first panel of each line."""
    return list(axes[:: _across(axes)])


def at_right(axes: Sequence[Axes]) -> list[Axes]:
    """Return the last panel of each full line; the last panel if no line is full."""
    across = _across(axes)
    return list(axes[across - 1 :: across]) or [axes[-1]]


def _across(axes: Sequence[Axes]) -> int:
    place = axes[0].get_subplotspec()
    assert place is not None
    return int(place.get_gridspec().ncols)


def score_axis(axes: Sequence[Axes], score: str, values: Iterable[float | None], *, upright: bool = True) -> None:
    """Scale a score's axis to the values, inside 0 to 100, and say what it is."""
    from matplotlib.ticker import MaxNLocator

    found = [value for value in values if value is not None]
    low, high = min(found), max(found)
    margin = max(1.5, 0.06 * (high - low))
    limits = (max(-1.0, low - margin), min(101.5, high + margin))
    for axis in axes:
        if upright:
            axis.set_ylim(*limits)
            axis.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        else:
            axis.set_xlim(*limits)
            axis.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        axis.grid(axis="y" if upright else "x")
    for axis in at_left(axes) if upright else at_bottom(axes):
        (axis.set_ylabel if upright else axis.set_xlabel)(f"{score} (0 to 100)")


def count_axis(axes: Sequence[Axes], name: str, counts: Iterable[float]) -> None:
    """Make x a base-2 logarithm of counts, with ticks at counts that occur."""
    from matplotlib.ticker import FixedLocator, NullLocator

    from llamaduo.studies.plots.grouping import short

    found = sorted(set(counts))
    span = math.log2(found[-1] / found[0])
    ticks = [found[0]]
    for count in found[1:]:
        if math.log2(count / ticks[-1]) >= span / 6:
            ticks.append(count)
    room = 2 ** (span * 0.06 if span else 0.5)
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(lambda value, _: short(value))
        axis.set_xlim(found[0] / room, found[-1] * room)
    for axis in at_bottom(axes):
        axis.set_xlabel(name)


def blues() -> Colormap:
    """Return the colours of a quantity: black text can be read on the lower half, white text on the upper."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap([colormaps["Blues"](0.10 + 0.85 * step / 255) for step in range(256)])


def label_ends(axis: Axes, ends: Sequence[tuple[float, float, str, str]], *, lines: int = 1) -> None:
    """Write each line's name at its end, in its colour, pushed apart where they would overlap.

    `ends` holds x, y, text of so many lines, and colour. All names stand in one column, right of the panel.
    """
    low, high = axis.get_ylim()
    height = axis.figure.get_size_inches()[1] * 0.8 / max(1, axis.get_subplotspec().get_gridspec().nrows)  # type: ignore[union-attr]
    gap = (high - low) * 0.155 * lines / height
    placed: list[float] = []
    ordered = sorted(ends, key=lambda end: (end[1], end[2]))
    for _, y, _, _ in ordered:
        placed.append(max(y, placed[-1] + gap) if placed else y)
    excess = max(0.0, placed[-1] - high) if placed else 0.0
    for number, (y, (_, _, text, shade)) in enumerate(zip(placed, ordered, strict=True)):
        at = max(y - excess, low + number * gap)
        axis.annotate(
            text, (1.03, at), xycoords=("axes fraction", "data"), color=shade, va="center", ha="left",
            fontsize=8, annotation_clip=False,
        )  # fmt: skip


OVER = "Gaffke's, over prompts; without training noise"
"""What the intervals of figures are about."""


def n_text(rows: Iterable[Row]) -> str:
    """Return what stands behind each mark, such as `n = 15 prompts, 48 to 60 answers`; prompts where they are known."""
    rows = list(rows)
    found = {name: sorted({row[of] for row in rows if row.get(of) is not None}) for name, of in _BEHIND.items()}
    if not found["answers"]:
        return "n unknown"
    return "n = " + ", ".join(f"{_span(counts)} {name}" for name, counts in found.items() if counts)


_BEHIND = {"prompts": "prompts", "answers": "n"}


def _span(counts: Sequence[int]) -> str:
    return f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"


def left_out(shown: int, of: int, what: str, why: str = "those with the highest scores are shown") -> str:
    """Return the sentence that says how many were left out, empty if none was."""
    return f" {of - shown} of {of} {what} left out: {why}." if of > shown else ""


def finished(name: str, title: str, caption: str, data: list[Row], figure: Canvas) -> Figure:
    """Return a drawn figure as SVG and PNG; equal drawings have equal bytes."""
    import matplotlib

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*Glyph")  # a script that the PNG's font lacks
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        picture, drawing = io.BytesIO(), io.StringIO()
        figure.savefig(picture, format="png", dpi=200, metadata={"Software": None})
        with matplotlib.rc_context({"svg.hashsalt": name}):
            nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
            figure.savefig(drawing, format="svg", metadata=nothing | {"Title": title})
    return Figure(name, title, caption, data, _to_inline(drawing.getvalue()), picture.getvalue())


def _to_inline(svg: str) -> str:
    """Return the SVG without what would leak into an HTML page around it: prolog, ids of groups, a style for all."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style type=\"text/css\">\*\{[^}]*\}</style>", "", svg)
    svg = svg.replace("<svg ", '<svg style="stroke-linejoin: round; stroke-linecap: butt" ', 1)
    svg = re.sub(r'<g id="(?:figure|axes|patch|text|line2d|matplotlib|xtick|ytick|[A-Za-z]+)[._0-9]*">', "<g>", svg)
    fonts = ", ".join(f"'{font}'" if " " in font else font for font in FONTS)
    return svg.replace("'DejaVu Sans'", fonts)
