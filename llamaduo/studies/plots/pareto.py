"""What runs cost: the Pareto front of cost and score.

pareto(rows, "precision")            from the tidy rows of a study
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.drawing import (
    OVER,
    at_bottom,
    finished,
    left_out,
    n_text,
    panels,
    score_axis,
    style,
)
from llamaduo.studies.plots.grouping import best, grouped, split
from llamaduo.studies.plots.lines import is_score
from llamaduo.studies.plots.palette import INK, SOFT, colour, mark
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 6


def pareto(rows: Sequence[Row], score: str) -> Figure | None:
    """Return each run's score against what its replies cost, the front marked; None where nothing varies.

    Where no reply cost anything, x is the wall time of the run's iterations instead.
    """
    points, x = _spent(rows, score)
    by_panel = grouped(points, lambda row: row["panel"])
    by_panel = {name: found for name, found in by_panel.items() if len(found) > 1 and len({p[x] for p in found}) > 1}
    if not by_panel:
        return None
    shown = best(by_panel, MOST_PANELS, "mean")
    drawn = [row for panel in shown for row in by_panel[panel]]
    unit = "USD of service LLM replies a run" if x == "usd" else "seconds of work a run"
    caption = (
        "Each point is a run" + (", by the price of all replies that it used" if x == "usd" else
                                 ": no reply cost anything, so the wall time of its iterations stands for the cost")
        + f"; bars are 95% intervals ({OVER}), {n_text(drawn)} a point. The line joins the front: the "
        "runs that no other beats at a lower or equal cost; the data name them."
        + left_out(len(shown), len(by_panel), "panels")
    )  # fmt: skip
    with style():
        figure, axes = panels(shown, height=2.2)
        models = sorted({row["local_model"] for row in drawn})
        score_axis(axes, score, [row[k] for row in drawn for k in ("mean", "low", "high") if is_score(row[k])])
        low, high = min(row[x] for row in drawn), max(row[x] for row in drawn)
        for axis, panel in zip(axes, shown, strict=True):
            _scale_cost(axis, low, high)
            _draw_runs(axis, by_panel[panel], models, x)
        for axis in at_bottom(axes):
            axis.set_xlabel(unit)
        if 1 < len(models) <= 12:
            _legend(axes, models)
        return finished(f"pareto_{score}", f"{score.capitalize()} against cost", caption, drawn, figure)


def _scale_cost(axis: Axes, low: float, high: float) -> None:
    """Scale x to the costs: logarithmic where they differ much."""
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    wide = low > 0 and high > 8 * low
    if wide:
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    else:
        axis.set_xlim(low - 0.08 * (high - low), high + 0.08 * (high - low))
    decades = high / low < 500 if wide else True
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades else (1,)) if wide else MaxNLocator(5))
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def _spent(rows: Sequence[Row], score: str) -> tuple[list[Row], str]:
    """Return a row a run with its score and cost, and the column that holds the cost."""
    mine = [row for row in rows if row["judge"] == "all" and not row["beside"]]
    usd, seconds = ({r: _total(f, name) for r, f in grouped(mine, lambda row: row["run"]).items()}
                    for name in ("cost_usd", "seconds"))  # fmt: skip
    reported = [row for row in mine if row["reported"] and is_score(row[f"{score}_mean"])]
    layout = split(reported, panels=("task",))
    points: list[Row] = [
        {
            "panel": layout.panel(row), "series": layout.line(row), "run": row["run"],
            "local_model": row["local_model"], "usd": usd[row["run"]], "seconds": seconds[row["run"]],
            "mean": row[f"{score}_mean"], "low": row[f"{score}_low"], "high": row[f"{score}_high"],
            "prompts": row["prompts"], "n": row[f"{score}_n"], "front": False,
        }
        for row in reported
    ]  # fmt: skip
    x = "usd" if any(point["usd"] for point in points) else "seconds"
    points.sort(key=lambda point: (point["panel"], point[x], -point["mean"], point["run"]))
    for found in grouped(points, lambda point: point["panel"]).values():
        top = -1.0
        for point in found:
            point["front"] = point["mean"] > top
            top = max(top, point["mean"])
    return points, x


def _total(rows: Sequence[Row], name: str) -> float:
    return round(sum(row[name] or 0.0 for row in rows), 10)


def _draw_runs(axis: Axes, points: Sequence[Row], models: Sequence[str], x: str) -> None:
    for number, model in enumerate(models):
        here = [point for point in points if point["local_model"] == model]
        sure = [point for point in here if is_score(point["low"])]
        axis.vlines([p[x] for p in sure], [p["low"] for p in sure], [p["high"] for p in sure], color=colour(number),
                    linewidth=0.8, alpha=0.45)  # fmt: skip
        axis.plot([p[x] for p in here], [p["mean"] for p in here], linestyle="none", color=colour(number),
                  marker=mark(number), markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
    front = [point for point in points if point["front"]]
    axis.step([p[x] for p in front], [p["mean"] for p in front], where="post", color=SOFT, linewidth=1, zorder=1)
    axis.plot([p[x] for p in front], [p["mean"] for p in front], linestyle="none", marker="o", markersize=8.5,
              markerfacecolor="none", markeredgecolor=INK, markeredgewidth=0.8)  # fmt: skip


def _legend(axes: Sequence[Axes], models: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="none", color=colour(i), marker=mark(i), label=model) for i, model in enumerate(models)
    ]
    ring = Line2D([], [], color=SOFT, linewidth=1, marker="o", markersize=8, markerfacecolor="none",
                  markeredgecolor=INK, label="front")  # fmt: skip
    axes[0].figure.legend(handles=[*handles, ring], loc="outside lower center", ncols=min(5, len(models) + 1))
