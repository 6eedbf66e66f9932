"""Where single answers lie: precision against similarity, a panel a model, with the coverage cut.

    marks = answer_bins(scores, groups, cuts)     scores by run, the panel and the cut of each run
    density(marks)                                draws them; `figures/density.csv` holds the same rows

An answer's place is the mean over the panel's judges and repeats. A mark is a hexagon some 5 points wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llamaduo.studies.answers import Scores
from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.drawing import at_bottom, at_left, blues, finished, left_out, panels, style
from llamaduo.studies.plots.grouping import grouped
from llamaduo.studies.plots.palette import INK
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 6
_ACROSS = 20
"""Hexagons from 0 to 100."""


def answer_bins(scores: Mapping[str, Scores], groups: Mapping[str, str], cuts: Mapping[str, float]) -> list[Row]:
    """Return a row for each hexagon that holds answers: centre, answers in it, and the panel's share beyond the cut.

    `groups` and `cuts` hold by the run's name its panel and its coverage cut; a panel whose runs have several cuts has
    none. Answers without one of the scores are left out.
    """
    import numpy as np

    rows: list[Row] = []
    for panel in sorted(set(groups.values())):
        runs = [run for run in sorted(groups) if groups[run] == panel and run in scores]
        both = [np.stack([scores[run].of_answers(name) for name in ("similarity", "precision")]) for run in runs]
        if not both:
            continue
        places = np.concatenate(both, axis=1)
        places = places[:, ~np.isnan(places).any(axis=0)]
        found = {cuts.get(run) for run in runs}
        cut = found.pop() if len(found) == 1 else None
        covered = None if cut is None else int((places >= cut).all(axis=0).sum())
        rows += [
            {"panel": panel, "similarity": x, "precision": y, "answers": count, "n": places.shape[1],
             "runs": len(runs), "cut": cut, "covered": covered}
            for x, y, count in _hexagons(places)
        ]  # fmt: skip
    return rows


def _hexagons(places: Any) -> list[tuple[float, float, int]]:
    """Return centre and count of each hexagon that holds a column of `places` (2, answers), by centre.

    The hexagons are two rectangular lattices, one shifted by half a step; (100, 100) is a centre, where scores heap.
    """
    import numpy as np

    sizes = 100 / _ACROSS * np.array([[1.0], [3**0.5]])
    steps = (places - 100) / sizes
    straight, shifted = np.rint(steps) * sizes, (np.floor(steps) + 0.5) * sizes
    far = [((places - 100 - grid) ** 2).sum(axis=0) for grid in (straight, shifted)]
    centres = 100 + np.where(far[0] <= far[1], straight, shifted)
    found, counts = np.unique(np.round(centres, 4), axis=1, return_counts=True)
    return [(float(x), float(y), int(n)) for x, y, n in zip(found[0], found[1], counts, strict=True)]


def density(marks: Sequence[Row]) -> Figure | None:
    """Return the figure of the hexagons, None if there is no answer."""
    by_panel = grouped(marks, lambda row: row["panel"])
    if not by_panel:
        return None
    shown = sorted(sorted(by_panel, key=lambda panel: (-by_panel[panel][0]["n"], panel))[:MOST_PANELS])
    drawn = [row for panel in shown for row in by_panel[panel]]
    counts = sorted({by_panel[panel][0]["n"] for panel in shown})
    n = f"n = {counts[0]:,}" if len(counts) == 1 else f"n = {counts[0]:,} to {counts[-1]:,}"
    caption = (
        f"Single answers of the models that are reported; {n} answers a panel, each the mean over its judges and their "
        "repeats. The darker, the more of the panel's answers in the hexagon."
        + (" Lines are the coverage cut; the percentage is the share of answers that reach it in both scores."
           if any(row["cut"] is not None for row in drawn) else "")
        + left_out(len(shown), len(by_panel), "panels", "those with the most answers are shown")
    )  # fmt: skip
    with style():
        figure, axes = panels(shown, height=2.6, width={1: 3.9, 2: 5.6, 4: 5.6}.get(len(shown)))
        top = max(100 * row["answers"] / row["n"] for row in drawn)
        low = max(-4.0, min(90.0, *(row[key] for row in drawn for key in ("similarity", "precision"))) - 4)
        for axis, panel in zip(axes, shown, strict=True):
            axis.set(xlim=(low, 104), ylim=(low, 104), aspect="equal")
            painted = _paint(axis, by_panel[panel], top)
            _draw_cut(axis, by_panel[panel][0])
        for axis in at_bottom(axes):
            axis.set_xlabel("similarity (0 to 100)")
        for axis in at_left(axes):
            axis.set_ylabel("precision (0 to 100)")
        bar = figure.colorbar(painted, ax=axes, fraction=0.04, pad=0.02, aspect=30)
        bar.set_label("share of the panel's answers (%)")
        bar.outline.set_visible(False)
        return finished("density", "Precision against similarity of single answers", caption, drawn, figure)


def _draw_cut(axis: Axes, row: Row) -> None:
    cut = row["cut"]
    if cut is not None:
        axis.plot([cut, cut, 104], [104, cut, cut], color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        share = f"{100 * row['covered'] / row['n']:.0f}% reach {cut:g}"
        axis.annotate(share, (0.03, 0.96), xycoords="axes fraction", va="top", fontsize=8)
    axis.annotate(f"n = {row['n']:,}", (0.97, 0.03), xycoords="axes fraction", ha="right", fontsize=7.5)


def _paint(axis: Axes, rows: Sequence[Row], top: float) -> Any:
    import numpy as np
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import PowerNorm

    side = 100 / _ACROSS / 3**0.5
    turns = np.pi / 6 + np.arange(6) * np.pi / 3
    corners = side * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    centres = np.array([[row["similarity"], row["precision"]] for row in rows])
    painted = PolyCollection(list(centres[:, None, :] + corners[None]), cmap=blues(), edgecolors="none")
    painted.set_array(np.array([100 * row["answers"] / row["n"] for row in rows]))
    painted.set_norm(PowerNorm(0.5, 0, top))
    axis.add_collection(painted)
    return painted
