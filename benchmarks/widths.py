"""How wide intervals are: by method, and by what is bought of each prompt."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
import rival_limits as rival
from worlds import WORLDS, draw

ERROR = 0.05
ANSWERS = 4
RIVALS = {
    "gaffke": rival.gaffke,
    "bca": rival.bca,
    "student": rival.student,
    "betting": rival.betting,
    "anderson": rival.anderson,
}
BOUGHT = ((1, 1), (4, 1), (4, 10), (16, 1))
"""Answers a prompt, and repeats of the judge."""


def widths(prompts: Sequence[int], truths: Sequence[float], n: int) -> list[dict[str, Any]]:
    """Return each method's mean width over the truths, and the percent of its lower limits above the truth."""
    rng = np.random.default_rng(3)
    rows = []
    for world in WORLDS:
        for size in prompts:
            row: dict[str, Any] = {"world": world, "prompts": size}
            drawn = [
                (truth, draw(world, truth, n=n, prompts=size, answers=ANSWERS, rng=rng).mean((-1, -2)))
                for truth in truths
            ]
            for name, limit in RIVALS.items():
                low = [limit(means, ERROR / 2) for _, means in drawn]
                high = [100 - limit(100 - means, ERROR / 2) for _, means in drawn]
                width = statistics.fmean(float((b - a).mean()) for a, b in zip(low, high, strict=True))
                over = statistics.fmean(float((a > truth).mean()) for a, (truth, _) in zip(low, drawn, strict=True))
                row[name] = {"width": round(width, 2), "over": round(100 * over, 1)}
            rows.append(row)
    return rows


def buys(n: int, prompts: int = 64, truth: float = 90) -> dict[str, dict[str, float]]:
    """Return by world the mean width of our intervals, by answers a prompt x repeats of the judge."""
    found: dict[str, dict[str, float]] = {}
    for world in WORLDS:
        for answers, repeats in BOUGHT:
            rng = np.random.default_rng(9)
            scores = draw(world, truth, n=n, prompts=prompts, answers=answers, repeats=repeats, rng=rng)
            means = scores.mean((-1, -2))
            width = 100 - rival.gaffke(100 - means, ERROR / 2) - rival.gaffke(means, ERROR / 2)
            found.setdefault(world, {})[f"{answers} x {repeats}"] = round(float(width.mean()), 2)
    return found
