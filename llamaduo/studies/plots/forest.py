"""The main table as a picture: models by tasks with their intervals, a panel a task, a mark a judge.

forest(rows, "precision")            from the tidy rows of a study
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.drawing import OVER, WIDTH, finished, left_out, n_text, panels, score_axis, style
from llamaduo.studies.plots.grouping import best, grouped, split
from llamaduo.studies.plots.lines import is_score
from llamaduo.studies.plots.palette import FAINT, INK, colour, mark
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS, MOST_MODELS, MOST_JUDGES = 8, 30, 6
PANEL_MEAN = "panel's mean"


def forest(rows: Sequence[Row], score: str) -> Figure | None:
    """Return all reported scores with their intervals, None where fewer than two runs have one."""
    marks = _marks([row for row in rows if row["reported"]], score)
    if len({row["run"] for row in marks}) < 2:
        return None
    models, tasks = grouped(marks, lambda row: row["series"]), grouped(marks, lambda row: row["panel"])
    kept, shown = best(models, MOST_MODELS, "mean"), best(tasks, MOST_PANELS, "mean")
    judges = sorted({row["judge"] for row in marks} - {PANEL_MEAN})
    some = [PANEL_MEAN, *judges[:MOST_JUDGES]] if len(judges) > 1 else judges or [PANEL_MEAN]
    drawn = [r for r in marks if r["panel"] in shown and r["series"] in kept and r["judge"] in some]
    kept.sort(key=lambda name: (_level(drawn, name), name))
    caption = (
        f"Means with 95% intervals ({OVER}); {n_text(drawn)} a mark. Best at the top, by the mean of all that is shown."
        + left_out(len(kept), len(models), "rows")
        + left_out(len(shown), len(tasks), "panels")
        + left_out(len(some), len(judges) + 1, "judges", "their scores are in the tables") * (len(judges) > MOST_JUDGES)
    )
    with style():
        height = max(1.3, 0.5 + len(kept) * max(0.22, 0.09 * len(some)))
        figure, axes = panels(shown, height=height, columns=min(4, len(shown)), width=WIDTH)
        limits = [row[key] for row in drawn for key in ("mean", "low", "high") if is_score(row[key])]
        score_axis(axes, score, limits, upright=False)
        for axis, task in zip(axes, shown, strict=True):
            _draw(axis, [row for row in drawn if row["panel"] == task], kept, some)
        if len(some) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(4, len(some)))
        return finished(f"forest_{score}", f"{score.capitalize()} by model, task and judge", caption, drawn, figure)


def _marks(rows: Sequence[Row], score: str) -> list[Row]:
    layout = split(rows, panels=("task",))
    found: list[Row] = [
        {
            "panel": layout.panel(row), "series": layout.line(row), "run": row["run"],
            "judge": PANEL_MEAN if row["judge"] == "all" else row["judge"],
            "mean": row[f"{score}_mean"], "low": row[f"{score}_low"], "high": row[f"{score}_high"],
            "prompts": row["prompts"], "n": row[f"{score}_n"],
        }
        for row in rows
        if is_score(row[f"{score}_mean"])
    ]  # fmt: skip
    return sorted(found, key=lambda row: (row["panel"], row["series"], row["run"], row["judge"]))


def _level(rows: Sequence[Row], name: str) -> float:
    found = [row["mean"] for row in rows if row["series"] == name]
    return sum(found) / len(found) if found else -1.0


def _draw(axis: Axes, rows: Sequence[Row], models: Sequence[str], judges: Sequence[str]) -> None:
    step = 0.7 / len(judges)
    for index, judge in enumerate(judges):
        here = [row for row in rows if row["judge"] == judge]
        at = [models.index(row["series"]) + step * ((len(judges) - 1) / 2 - index) for row in here]
        shade = INK if judge == PANEL_MEAN else colour(index - 1 if PANEL_MEAN in judges else index)
        limits = [(row["low"], row["high"]) if is_score(row["low"]) else (row["mean"],) * 2 for row in here]
        axis.hlines(at, [low for low, _ in limits], [high for _, high in limits], color=shade, linewidth=1.1)
        whole = judge == PANEL_MEAN
        axis.plot([row["mean"] for row in here], at, linestyle="none", color=shade, label=judge,
                  marker="D" if whole else mark(index - 1 if PANEL_MEAN in judges else index),
                  markersize=4.2 if whole else 3.6)  # fmt: skip
    axis.set_yticks(range(len(models)), models)
    axis.set_ylim(-0.6, len(models) - 0.4)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    for border in range(1, len(models)):
        axis.axhline(border - 0.5, color=FAINT, linewidth=0.5)
