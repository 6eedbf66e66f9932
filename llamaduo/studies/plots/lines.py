"""Scores against counts, with 95% bands: volume scaling, learning curves of the loop, and LoRA ranks.

    volume_scaling(rows, "precision")            x: synthetic rows, a line a model
    learning_curves(rows, "precision", gates)    x: training rows, a line a run, with the gate's line
    rank_lines(rows, "precision")                x: LoRA rank, where alpha follows from the rank

All take the tidy rows of a study.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.drawing import (
    OVER,
    at_right,
    count_axis,
    finished,
    label_ends,
    left_out,
    n_text,
    panels,
    score_axis,
    style,
)
from llamaduo.studies.plots.grouping import Layout, best, grouped, split
from llamaduo.studies.plots.palette import SOFT, colour, mark
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS, MOST_LINES = 6, 6


def volume_scaling(rows: Sequence[Row], score: str) -> Figure | None:
    """Return the score against the volume of synthetic data, None where the volume doesn't vary.

    Either each run has one volume, or one run went through several of them without coverage rows.
    """
    single = [row for row in rows if row["reported"] and row["judge"] == "all" and row["volume"] is not None]
    points = _points(single, split(single, axis=("volume",)), score, "synthetic_rows")
    if len({row["synthetic_rows"] for row in points}) < 2:
        inside = [row for row in _iterations(rows) if row["run"] in _fixed_volumes(rows)]
        points = _points(inside, split(inside), score, "synthetic_rows")
    how = "Each point is a model of its own, trained on a nested subset of one synthetic set."
    title = f"{score.capitalize()} against the volume of synthetic data"
    return _lines(f"scaling_{score}", title, how, points=points, score=score, x=("synthetic_rows", "synthetic rows"))


def learning_curves(rows: Sequence[Row], score: str, gates: Mapping[str, float] | None = None) -> Figure | None:
    """Return the score along each run's iterations, None where no run has two.

    `gates` holds by the run's name what its gate asks of this score.
    """
    fixed = _fixed_volumes(rows)
    inside = [row for row in _iterations(rows) if row["run"] not in fixed]
    counts = grouped(inside, lambda row: row["run"])
    inside = [row for row in inside if len(counts[row["run"]]) > 1]
    points = _points(inside, split(inside), score, "train_rows")
    for point in points:
        point["gate"] = (gates or {}).get(point["run"])
    splits = " and ".join(sorted({row["split"] for row in inside}))
    how = f"Each point is an iteration of the loop, judged on the {splits} split."
    title = f"{score.capitalize()} along the loop"
    return _lines(f"learning_{score}", title, how, points=points, score=score, x=("train_rows", "training rows"))


def rank_lines(rows: Sequence[Row], score: str) -> Figure | None:
    """Return the score against the LoRA rank, None where the rank doesn't vary."""
    ranked = [row for row in rows if row["reported"] and row["judge"] == "all" and row["lora_r"] is not None]
    points = _points(ranked, split(ranked, axis=("lora_r",)), score, "lora_r")
    title = f"{score.capitalize()} against the LoRA rank"
    return _lines(
        f"rank_{score}", title, "Each point is a run.", points=points, score=score, x=("lora_r", "LoRA rank r")
    )


def _iterations(rows: Sequence[Row]) -> list[Row]:
    """Return the panel's rows of all iterations, without the test split that is looked at once at the end."""
    own = [row for row in rows if not row["beside"]]
    first: dict[str, str] = {}
    for row in own:
        first.setdefault(row["run"], row["split"])
    return [row for row in own if row["judge"] == "all" and row["split"] == first[row["run"]]]


def _fixed_volumes(rows: Sequence[Row]) -> set[str]:
    """Return the runs whose iterations are volumes of synthetic rows alone: those of `loop=scaling`."""
    by_run = grouped(_iterations(rows), lambda row: row["run"])
    return {
        run
        for run, found in by_run.items()
        if len(found) > 1 and all(row["train_rows"] and row["train_rows"] == row["synthetic_rows"] for row in found)
    }


def _points(rows: Sequence[Row], layout: Layout, score: str, x: str) -> list[Row]:
    """Return what is drawn: a row a point that has a score and a place on a logarithmic axis."""
    points = [
        {
            "panel": layout.panel(row), "series": layout.line(row), "run": row["run"], "iteration": row["iteration"],
            x: row[x], "mean": row[f"{score}_mean"], "low": row[f"{score}_low"], "high": row[f"{score}_high"],
            "prompts": row["prompts"], "n": row[f"{score}_n"],
        }
        for row in rows
        if row[x] and is_score(row[f"{score}_mean"])
    ]  # fmt: skip
    return sorted(points, key=lambda point: (point["panel"], point["series"], point[x], point["run"]))


def is_score(value: float | None) -> bool:
    """Return whether there is a score: neither null nor nan."""
    return value is not None and not math.isnan(value)


def _lines(name: str, title: str, how: str, *, points: list[Row], score: str, x: tuple[str, str]) -> Figure | None:
    """Return the figure of points; `x` is their column of counts and what it is called."""
    by_panel = grouped(points, lambda point: point["panel"])
    by_panel = {panel: found for panel, found in by_panel.items() if len({point[x[0]] for point in found}) > 1}
    if not by_panel:
        return None
    shown = best(by_panel, MOST_PANELS, "mean")
    series = grouped([point for panel in shown for point in by_panel[panel]], lambda point: point["series"])
    kept = best(series, MOST_LINES, "mean")
    drawn = [p for panel in shown for p in by_panel[panel] if p["series"] in kept]
    shown = [panel for panel in shown if any(point["panel"] == panel for point in drawn)]
    caption = (
        f"{how} Bands are 95% intervals ({OVER}); {n_text(drawn)} a point."
        + (" The dashed line is the gate." if any(point.get("gate") is not None for point in drawn) else "")
        + left_out(len(kept), len(series), "lines")
        + left_out(len(shown), len(by_panel), "panels")
    )
    with style():
        figure, axes = panels(shown, height=2.1 if len(shown) > 1 else 2.4)
        count_axis(axes, x[1], [point[x[0]] for point in drawn])
        gates = [point["gate"] for point in drawn if point.get("gate") is not None]
        limits = [point[key] for point in drawn for key in ("mean", "low", "high") if is_score(point[key])]
        score_axis(axes, score, [*limits, *gates])
        for axis, panel in zip(axes, shown, strict=True):
            here = [point for point in drawn if point["panel"] == panel]
            _draw_panel(axis, here, kept, x[0])
            _draw_gate(axis, {point["gate"] for point in here if point.get("gate") is not None})
        _name_lines(axes, shown, drawn, kept, x[0])
        return finished(name, title, caption, drawn, figure)


def _draw_panel(axis: Axes, points: Sequence[Row], series: Sequence[str], x: str) -> None:
    nan = float("nan")
    for number, name in enumerate(series):
        here = [point for point in points if point["series"] == name]
        if not here:
            continue
        at = [point[x] for point in here]
        low, high = ([nan if point[key] is None else point[key] for point in here] for key in ("low", "high"))
        axis.fill_between(at, low, high, color=colour(number), alpha=0.13, linewidth=0)
        if len(here) == 1:
            axis.vlines(at, low, high, color=colour(number), linewidth=1.2)
        means = [point["mean"] for point in here]
        axis.plot(at, means, color=colour(number), marker=mark(number), label=name, markeredgecolor="white",
                  markeredgewidth=0.5)  # fmt: skip


def _draw_gate(axis: Axes, gates: set[float]) -> None:
    for gate in sorted(gates):
        axis.axhline(gate, color=SOFT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axis.annotate(f"gate {gate:g}", (0.01, gate), xycoords=("axes fraction", "data"), xytext=(0, 2),
                      textcoords="offset points", fontsize=7.5, color=SOFT)  # fmt: skip


def _name_lines(axes: Sequence[Axes], shown: Sequence[str], drawn: Sequence[Row], kept: list[str], x: str) -> None:
    """Name each line at its end where one panel a row has them all; below the figure otherwise."""
    from matplotlib.lines import Line2D

    if len(kept) < 2 and len(shown) > 1:
        return
    ends = [{p["series"]: p for p in drawn if p["panel"] == panel} for panel in shown]
    last = [axes.index(axis) for axis in at_right(axes)]
    if max(map(len, kept)) <= 24 and all(len(ends[number]) == len(kept) for number in last):
        for number in last:
            found = [(ends[number][name][x], ends[number][name]["mean"], name) for name in kept]
            label_ends(axes[number], [(*end, colour(index)) for index, end in enumerate(found)])
        return
    handles = [Line2D([], [], color=colour(i), marker=mark(i), label=name) for i, name in enumerate(kept)]
    axes[0].figure.legend(handles=handles, loc="outside lower center", ncols=min(3, len(kept)))
