"""How far judges agree: rank correlations by pair, and who is strict.

    agreement(rows)            draws rows of two kinds; `figures/agreement.csv` holds the same

    {"kind": "rank", "judge": "gpt_4o", "other": "claude_3_sonnet", "value": 0.81, "low": 0.74, "high": 0.86, "n": 960}
    {"kind": "strictness", "judge": "gpt_4o", "other": "", "value": -1.9, "low": -2.3, "high": -1.4, "n": 960}

`rank` is Spearman's rho over answers, within each task, then the mean over tasks; `strictness` is a judge's mean less
the panel's, in points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.drawing import WIDTH, blues, finished, left_out, n_text, style
from llamaduo.studies.plots.palette import FAINT, SOFT, colour, mark
from llamaduo.studies.tidy import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_JUDGES = 8


def agreement(rows: Sequence[Row], score: str = "precision") -> Figure | None:
    """Return the judges' agreement on one score, None where there are no two judges."""
    pairs = [row for row in rows if row["kind"] == "rank"]
    everyone = sorted({name for row in pairs for name in (row["judge"], row["other"])})
    if len(everyone) < 2:
        return None
    judges = everyone[:MOST_JUDGES]
    drawn = [row for row in rows if row["judge"] in judges and (row["kind"] != "rank" or row["other"] in judges)]
    strict = [row for row in drawn if row["kind"] == "strictness"]
    caption = (
        f"Left: Spearman's rank correlation of two judges' {score} over the same answers, within each task, "
        "then the mean over tasks. Right: how much lower "
        "(strict) or higher (lenient) than the panel's mean a judge scores them, in points. Brackets and bars are 95% "
        f"intervals over prompts, a jackknife's and Gaffke's; {n_text(drawn)}."
        + left_out(len(judges), len(everyone), "judges", "the tables hold them all")
    )
    with style():
        from matplotlib.figure import Figure as Canvas

        figure = Canvas(figsize=(WIDTH, 0.9 + 0.5 * max(3, len(judges))), layout="constrained")
        widths = [1.0, 0.8] if strict else [1.0]
        axes = figure.subplots(1, len(widths), width_ratios=widths, squeeze=False)[0]
        _matrix(axes[0], [row for row in drawn if row["kind"] == "rank"], judges)
        if strict:
            _strictness(axes[1], strict, judges)
        title = f"Agreement of the judges on {score}"
        return finished(f"agreement_{score}", title, caption, drawn, figure)


def _matrix(axis: Axes, pairs: Sequence[Row], judges: Sequence[str]) -> None:
    import numpy as np

    values = np.full((len(judges), len(judges)), np.nan)
    text_size = 8 if len(judges) <= 4 else 6.5
    for row in pairs:
        across, down = sorted((judges.index(row["judge"]), judges.index(row["other"])))
        values[down, across] = row["value"]
        limits = "" if row["low"] is None else f"\n[{row['low']:.2f}, {row['high']:.2f}]"
        dark = row["value"] > 0.55
        axis.text(across, down, f"{row['value']:.2f}{limits}", ha="center", va="center", fontsize=text_size,
                  color="white" if dark else "black")  # fmt: skip
    axis.imshow(values[1:, :-1], cmap=blues(), vmin=0, vmax=1, aspect="auto",
                extent=(-0.5, len(judges) - 1.5, len(judges) - 0.5, 0.5))  # fmt: skip
    axis.set_xticks(range(len(judges) - 1), judges[:-1], rotation=0 if len(judges) <= 3 else 30,
                    ha="center" if len(judges) <= 3 else "right")  # fmt: skip
    axis.set_yticks(range(1, len(judges)), judges[1:])
    axis.tick_params(length=0)
    axis.set_title("rank correlation (Spearman)")
    for side in ("left", "bottom"):
        axis.spines[side].set_visible(False)


def _strictness(axis: Axes, rows: Sequence[Row], judges: Sequence[str]) -> None:
    by_judge = {row["judge"]: row for row in rows}
    for number, name in enumerate(judges):
        if name not in by_judge:
            continue
        row = by_judge[name]
        if row["low"] is not None:
            axis.hlines(number, row["low"], row["high"], color=colour(number), linewidth=1.4)
        axis.plot(row["value"], number, marker=mark(number), color=colour(number))
        axis.annotate(f"{row['value']:+.1f}", (row["value"], number), xytext=(0, 6), textcoords="offset points",
                      ha="center", fontsize=8)  # fmt: skip
    axis.axvline(0, color=SOFT, linewidth=0.8)
    axis.set_yticks(range(len(judges)), judges)
    axis.set_ylim(len(judges) - 0.4, -0.6)
    reach = 1.15 * max(1.0, *(abs(v) for row in rows for v in (row["value"], row["low"], row["high"]) if v is not None))
    axis.set_xlim(-reach, reach)
    axis.grid(axis="x", color=FAINT)
    axis.set_title("strictness")
    axis.set_xlabel("points off the panel's mean\n(left: strict, right: lenient)")
