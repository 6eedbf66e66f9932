"""Measure how often two models whose means are equal are told apart, by the test behind bold type and by intervals.

    python benchmarks/comparisons.py             2,000 pairs a case, some minutes on one core
    python benchmarks/comparisons.py --quick     200 pairs a case: the figures are rough

Two models answer the same prompts, four answers each, in worlds whose true mean is known (`worlds.py`): both in the
same world, or one in each of two that fail in different ways. The level is 5%. `swap` is the test of
`compare.p_value`, on which bold type rests; `interval` is that of `compare.difference`, Gaffke's; `resampled` is the
expanded percentile interval of a bootstrap over prompts. The figure is the largest share, in percent, that the swap
test tells apart of models that are alike, and the claim holds if it is at most 6.5 (three standard errors above 5) and
no interval leaves zero out in more than 5.
"""

from __future__ import annotations

import os
from itertools import product
from typing import Any

import numpy as np
from measure import Result, conclude, options, say
from worlds import draw

from llamaduo.evidence.compare import ByPrompt, by_prompt, difference, p_value
from llamaduo.evidence.resample import Measure, measure

PROMPTS, ANSWERS, LEVEL = (15, 25, 50, 100), 4, 0.05
ALIKE = tuple((world, world, truth) for world, truth in product(("skewed", "perfect", "bimodal"), (90, 95)))
UNLIKE = (("skewed", "perfect", 90), ("perfect", "bimodal", 90), ("skewed", "bimodal", 90))
TEST_PERCENT, INTERVAL_PERCENT = 6.5, 5.0


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    pairs = 200 if wanted.quick else 2_000
    raw = [case(one, other, truth, prompts, pairs) for one, other, truth in ALIKE + UNLIKE for prompts in PROMPTS]
    test = max(row["swap"] for row in raw if row["one"] == row["other"])
    interval = max(row["interval"] for row in raw)
    holds = None if wanted.quick else test <= TEST_PERCENT and interval <= INTERVAL_PERCENT
    target = f"swap test at most {TEST_PERCENT:g}% of models that are alike, intervals at most {INTERVAL_PERCENT:g}%"
    spread = {
        f"{name}, {kind}": [min(found), max(found)]
        for name in ("swap", "interval", "resampled")
        for kind, same in (("alike", True), ("unlike", False))
        if (found := [row[name] for row in raw if (row["one"] == row["other"]) == same])
    }
    note = f"told apart at 5%, percent of {pairs:,} pairs with equal means; intervals at most {interval:g}%"
    conclude(Result("comparisons", test, "%", target, holds, pairs, spread, note), raw, wanted, load)


def case(one: str, other: str, truth: int, prompts: int, pairs: int) -> dict[str, Any]:
    """Return how many of 100 pairs of models with the same true mean each way tells apart."""
    rng = np.random.default_rng([truth, prompts, len(one), len(other)])
    sides = [draw(world, truth, n=pairs, prompts=prompts, answers=ANSWERS, rng=rng)[..., 0] for world in (one, other)]
    told = {"swap": 0, "interval": 0, "resampled": 0}
    for scores in zip(*sides, strict=True):
        a, b = (scored(of) for of in scores)
        told["swap"] += p_value(a, b) <= LEVEL
        told["interval"] += leaves_zero_out(difference(a, b))
        told["resampled"] += leaves_zero_out(resampled(a, b))
    found = {name: round(100 * count / pairs, 2) for name, count in told.items()}
    say(f"{one} and {other} at {truth}, {prompts} prompts: {found}")
    return {"one": one, "other": other, "truth": truth, "prompts": prompts, **found}


def scored(answers: np.ndarray[Any, Any]) -> ByPrompt:
    """Return (prompts, answers) as the scores of a model."""
    ids = np.repeat([f"p{number:03d}" for number in range(len(answers))], answers.shape[1])
    return by_prompt(ids, answers.ravel())


def resampled(a: ByPrompt, b: ByPrompt) -> Measure:
    """Return the difference with a bootstrap's interval over prompts."""
    return measure(np.column_stack([a.sums - b.sums, a.counts]), lambda s: s[:, 0] / s[:, 1], a.n)


def leaves_zero_out(found: Measure) -> bool:
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


if __name__ == "__main__":
    main()
