"""Whole runs in simulation: several looks at one dev split, then one at the test split, with the truth known.

A run's iterations are models that are all equally good (`truth`) and answer the same dev prompts; the correlation of
their prompts' faults is `alike`. The first iteration whose lower limit reaches the gate is taken, the limit's error
split over the looks; the test split, other prompts, then confirms it (lower limit above the gate), contradicts it
(upper limit below it) or leaves it undecided. Two gates:

    absolute     the mean is above 90
    service_llm  the mean of the paired difference to a service LLM of true mean 95, prompt by prompt, is above -5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from rival_limits import Chance, gaffke_chance
from worlds import WORLDS, draw_run

Floats = np.ndarray[Any, np.dtype[np.float64]]

ERROR = 0.05
GATE, SERVICE_LLM, MARGIN = 90.0, 95.0, 5.0
ANSWERS = 4
RARE = "rare"
"""A fourth world: a prompt's answers are all worth 100, or all 0: the hardest on limits that assume something."""
RUN_WORLDS = (*WORLDS, RARE)


@dataclass(frozen=True)
class Runs:
    """What is simulated."""

    world: str
    gate: str
    """`absolute` or `service_llm`."""
    truth: float
    """The true mean of every iteration's model."""
    prompts: int
    """Of the dev split, and of the test split."""
    alike: float = 0.5
    looks: int = 6
    chance: Chance = field(default=gaffke_chance)
    """How dev is limited."""
    on_test: Chance | None = None
    """How test is limited, where not as dev is."""
    needs_test: bool = False
    """Whether only what test confirms is accepted, as with limits that assume something."""
    service_llm: float = SERVICE_LLM
    """The service LLM's true mean."""


def outcomes(runs: Runs, n: int, rng: np.random.Generator) -> dict[str, float]:
    """Return shares of n runs, in percent: taken on dev, taken without the split of the error, accepted, confirmed."""
    dev = dev_chances(runs, n, rng)
    means, at = _means(runs, 1, n, rng)
    chance = runs.on_test or runs.chance
    confirmed = chance(means[:, 0], at) < ERROR
    refused = ~confirmed if runs.needs_test else ~confirmed & (chance(100 - means[:, 0], 100 - at) < ERROR)
    taken = (dev < ERROR / runs.looks).any(-1)
    found = {
        "dev": taken,
        "unsplit": (dev < ERROR).any(-1),
        "accepted": taken & ~refused,
        "confirmed": taken & confirmed,
    }
    return {name: round(100 * float(share.mean()), 2) for name, share in found.items()}


def dev_chances(runs: Runs, n: int, rng: np.random.Generator) -> Floats:
    """Return (n, looks): the error at which each iteration's lower limit would be the gate."""
    means, at = _means(runs, runs.looks, n, rng)
    return runs.chance(means.reshape(-1, runs.prompts), at).reshape(n, runs.looks)


def powers(runs: Runs, n: int, rng: np.random.Generator, looks: tuple[int, ...]) -> dict[int, float]:
    """Return the percent of n runs that are taken on dev with fewer looks than `runs.looks`, by their number."""
    dev = dev_chances(runs, n, rng)
    return {k: round(100 * float((dev[:, :k] < ERROR / k).any(-1).mean()), 1) for k in looks}


def needed(curve: dict[int, float], power: float) -> int | None:
    """Return the number of prompts at which a curve of powers by prompts crosses `power`; None where it doesn't."""
    sizes = sorted(curve)
    for few, many in pairwise(sizes):
        if curve[few] < power <= curve[many]:
            return round(few + (many - few) * (power - curve[few]) / (curve[many] - curve[few]))
    return sizes[0] if curve[sizes[0]] >= power else None


def _means(runs: Runs, looks: int, n: int, rng: np.random.Generator) -> tuple[Floats, float]:
    """Return (n, looks, prompts) on a scale from 0 to 100, and where the gate is on it."""
    against = [runs.service_llm] if runs.gate == "service_llm" else []
    drawn = _rare if runs.world == RARE else draw_run
    scores = drawn(
        runs.world,
        against + [runs.truth] * looks,
        n=n,
        prompts=runs.prompts,
        answers=ANSWERS,
        alike=runs.alike,
        rng=rng,
    ).mean((-1, -2))
    if not against:
        return scores, GATE
    return 50 + (scores[:, 1:] - scores[:, :1]) / 2, 50 - MARGIN / 2


def _rare(
    world: str, truths: Sequence[float], *, n: int, prompts: int, answers: int, alike: float, rng: np.random.Generator
) -> Floats:
    """Return what `draw_run` does, of a world of disasters: all answers to a prompt are worth 100, or all 0."""
    rank = rng.random((n, len(truths), prompts))
    rank = np.where(rng.random(rank.shape) < np.sqrt(alike), rng.random((n, 1, prompts)), rank)
    scores = np.where(rank < 1 - np.array(truths)[:, None] / 100, 0.0, 100.0)
    return np.repeat(scores[..., None, None], answers, axis=-2)
