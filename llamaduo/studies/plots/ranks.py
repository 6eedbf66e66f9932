"""LoRA rank by alpha as a heat map, each cell with its score, interval and n.

rank_map(rows, "precision")            from the tidy rows of a study
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.drawing import OVER, WIDTH, blues, finished, left_out, style
from llamaduo.studies.plots.grouping import best, grouped, split
from llamaduo.studies.plots.lines import is_score
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS, MOST_VALUES = 6, 8
_CELL = 0.86
"""Inches that the text of a cell needs."""


def rank_map(rows: Sequence[Row], score: str) -> Figure | None:
    """Return the score by rank and alpha, None where they don't vary apart from each other.

    Where several runs fall into a cell, it would have no single number: the rest of what tells runs apart makes panels.
    """
    cells = _cells(rows, score)
    by_panel = {n: found for n, found in grouped(cells, lambda row: row["panel"]).items() if _varies(found)}
    if not by_panel:
        return None
    shown = best(by_panel, MOST_PANELS, "mean")
    ranks, alphas = (sorted({row[k] for panel in shown for row in by_panel[panel]}) for k in ("lora_r", "lora_alpha"))
    some_ranks, some_alphas = ranks[:MOST_VALUES], alphas[:MOST_VALUES]
    drawn = [row for panel in shown for row in by_panel[panel]
             if row["lora_r"] in some_ranks and row["lora_alpha"] in some_alphas]  # fmt: skip
    caption = (
        f"{score.capitalize()} (0 to 100) by LoRA rank and alpha: mean, 95% interval ({OVER}) and n, the number "
        "of answers. An empty cell was not run or has no score."
        + left_out(len(shown), len(by_panel), "panels")
        + left_out(len(some_ranks) + len(some_alphas), len(ranks) + len(alphas), "ranks and alphas", "the largest")
    )
    with style():
        figure = _draw(drawn, shown, some_ranks, some_alphas, score)
        return finished(f"ranks_{score}", f"{score.capitalize()} by LoRA rank and alpha", caption, drawn, figure)


def _cells(rows: Sequence[Row], score: str) -> list[Row]:
    wanted = [r for r in rows if r["reported"] and r["judge"] == "all" and None not in (r["lora_r"], r["lora_alpha"])]
    layout = split(wanted, axis=("lora_r", "lora_alpha"))
    found: list[Row] = [
        {
            "panel": ", ".join(filter(None, (layout.panel(row), layout.line(row) if layout.series else ""))),
            "run": row["run"], "lora_r": row["lora_r"], "lora_alpha": row["lora_alpha"],
            "mean": row[f"{score}_mean"], "low": row[f"{score}_low"], "high": row[f"{score}_high"],
            "prompts": row["prompts"], "n": row[f"{score}_n"],
        }
        for row in wanted
        if is_score(row[f"{score}_mean"])
    ]  # fmt: skip
    return sorted(found, key=lambda row: (row["panel"], row["lora_r"], row["lora_alpha"], row["run"]))


def _varies(cells: Sequence[Row]) -> bool:
    """Return whether a rank has several alphas and an alpha several ranks."""
    pairs = {(row["lora_r"], row["lora_alpha"]) for row in cells}
    return len(pairs) > len({r for r, _ in pairs}) > 1


def _draw(drawn: Sequence[Row], shown: Sequence[str], ranks: list[int], alphas: list[int], score: str) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure as Canvas

    wide = max(1.8, _CELL * len(alphas))
    columns = max(1, min(len(shown), int(WIDTH // wide)))
    lines = -(-len(shown) // columns)
    high = max(1.2, 0.52 * len(ranks))
    figure = Canvas(figsize=(wide * columns + 1.5, (high + 0.35) * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    means = [row["mean"] for row in drawn]
    reach = max(5.0, (max(means) - min(means)) / 2)  # so that noise doesn't look like a landscape
    middle = (max(means) + min(means)) / 2
    scale = Normalize(middle - reach, middle + reach)
    for axis, panel in zip(axes, shown, strict=False):
        _draw_panel(axis, [row for row in drawn if row["panel"] == panel], ranks, alphas, scale)
        axis.set_title(panel)
    for number, axis in enumerate(axes):
        axis.set_visible(number < len(shown))
        if number >= len(shown) - columns:
            axis.set_xlabel("LoRA alpha")
            axis.tick_params(labelbottom=True)
        if number % columns == 0:
            axis.set_ylabel("LoRA rank r")
    bar = figure.colorbar(ScalarMappable(scale, blues()), ax=list(axes), fraction=0.05, pad=0.02)
    bar.set_label(f"{score} (0 to 100)")
    bar.outline.set_visible(False)
    return figure


def _draw_panel(axis: Axes, cells: Sequence[Row], ranks: list[int], alphas: list[int], scale: Any) -> None:
    import numpy as np

    values = np.full((len(ranks), len(alphas)), np.nan)
    for row in cells:
        x, y = alphas.index(row["lora_alpha"]), ranks.index(row["lora_r"])
        values[y, x] = row["mean"]
        limits = "" if row["low"] is None else f"\n[{row['low']:.1f}, {row['high']:.1f}]"
        axis.text(x, y, f"{row['mean']:.1f}{limits}\nn {row['n']}", ha="center", va="center", fontsize=7,
                  color="white" if scale(row["mean"]) > 0.55 else "black", linespacing=1.15)  # fmt: skip
    axis.imshow(values, cmap=blues(), norm=scale, aspect="auto", origin="lower")
    axis.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    axis.set_yticks(range(len(ranks)), [str(rank) for rank in ranks])
    axis.tick_params(length=0)
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)
