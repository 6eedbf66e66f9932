"""Worlds of scores whose true mean is known, for the benchmarks of what the evidence promises.

A world says how good the answers of a model are, prompt by prompt; a judge reads them with noise of its own and gives
whole numbers from 0 to 100. The truth is the mean that endless prompts, answers and repeats would have.

    skewed    a prompt loses a gamma-distributed number of points (SD 15), answers scatter by up to 8, the judge by 3
    perfect   nearly every prompt is worth 98 to 100; a few fail and are worth 0 to 30
    bimodal   an answer is right (99) or wrong (30); prompts differ in how often (intra-class correlation 0.6)

Each reaches true means from 70 to 98.

Models of several iterations answer the same prompts: `alike` is the correlation of their prompts' faults.

    rng = np.random.default_rng(1)
    scores = draw("skewed", 90, n=1000, prompts=32, answers=4, repeats=2, rng=rng)               # (1000, 32, 4, 2)
    runs = draw_run("bimodal", [80, 86, 89], n=500, prompts=64, answers=4, alike=0.5, rng=rng)   # (500, 3, 64, 4, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, gamma

Floats = np.ndarray[Any, np.dtype[np.float64]]

SD_OF_PROMPTS = 15.0
ICC = 0.6
_CALIBRATION = 200_000


def draw(
    world: str, truth: float, *, n: int, prompts: int, answers: int, rng: np.random.Generator, repeats: int = 1,
    noise: float | None = None,
) -> Floats:  # fmt: skip
    """Return (n, prompts, answers, repeats) scores of one model, n times over."""
    found = draw_run(
        world, [truth], n=n, prompts=prompts, answers=answers, rng=rng, repeats=repeats, alike=0, noise=noise
    )
    return found[:, 0]


def draw_run(
    world: str, truths: Sequence[float], *, n: int, prompts: int, answers: int, alike: float,
    rng: np.random.Generator, repeats: int = 1, noise: float | None = None,
) -> Floats:  # fmt: skip
    """Return (n, models, prompts, answers, repeats) scores of models whose true means are `truths`."""
    quality = answered(world, truths, n=n, prompts=prompts, answers=answers, alike=alike, rng=rng, noise=noise)
    return judged(quality, NOISE[world] if noise is None else noise, rng, repeats)


def answered(
    world: str, truths: Sequence[float], *, n: int, prompts: int, answers: int, alike: float,
    rng: np.random.Generator, noise: float | None = None,
) -> Floats:  # fmt: skip
    """Return (n, models, prompts, answers): what the answers are worth, before any judge reads them."""
    shared = rng.random((n, 1, prompts))
    own = rng.random((n, len(truths), prompts))
    kept = rng.random(own.shape) < np.sqrt(alike)  # both keep the shared rank: correlation `alike`
    rank = np.where(kept, shared, own)
    worth = [
        _WORLDS[world](rank[:, at], answers, parameter(world, truth, noise), rng) for at, truth in enumerate(truths)
    ]
    return np.stack(worth, axis=1)


def judged(quality: Floats, noise: float, rng: np.random.Generator, repeats: int = 1, bias: float = 0.0) -> Floats:
    """Return (..., repeats): whole scores of a judge that is off by `bias` and scatters by `noise` points."""
    read = quality[..., None] + bias + noise * rng.standard_normal((*quality.shape, repeats))
    return np.clip(np.rint(read), 0, 100)


@lru_cache
def parameter(world: str, truth: float, noise: float | None = None) -> float:
    """Return at which parameter a world's true mean is `truth`, to about 0.02 (for a judge with `noise`)."""
    ranks = (np.arange(_CALIBRATION) + 0.5)[None] / _CALIBRATION
    scatter = NOISE[world] if noise is None else noise

    def away(value: float) -> float:
        rng = np.random.default_rng(20_240_801)
        return float(judged(_WORLDS[world](ranks, 4, value, rng), scatter, rng).mean()) - truth

    low, high = _RANGE[world]
    return float(brentq(away, low, high, xtol=1e-4))


def _skewed(rank: Floats, answers: int, lost: float, rng: np.random.Generator) -> Floats:
    """Prompts lose `lost` points on average; where that is next to nothing, answers scatter less."""
    found = gamma(a=(lost / SD_OF_PROMPTS) ** 2, scale=SD_OF_PROMPTS**2 / lost)
    prompt = 100 - _quantile(found.ppf, rank)[..., None]
    return np.clip(prompt + min(8, 2 * lost) * rng.standard_normal((*rank.shape, answers)), 0, 100)


def _perfect(rank: Floats, answers: int, failing: float, rng: np.random.Generator) -> Floats:
    """A share `failing` of the prompts fails: those of the lowest ranks."""
    fails = rank < failing
    prompt = np.where(fails, 30 * rank / failing, 98 + 2 * (rank - failing) / (1 - failing))[..., None]
    return np.clip(prompt + np.where(fails, 8, 1)[..., None] * rng.standard_normal((*rank.shape, answers)), 0, 100)


def _bimodal(rank: Floats, answers: int, wrong: float, rng: np.random.Generator) -> Floats:
    """A share `wrong` of the answers is wrong."""
    size = 1 / ICC - 1
    often = _quantile(beta(wrong * size, (1 - wrong) * size).ppf, rank)[..., None]
    bad = rng.random((*rank.shape, answers)) < often
    return np.clip(np.where(bad, 30, 99) + np.where(bad, 12, 2) * rng.standard_normal(bad.shape), 0, 100)


def _quantile(ppf: Callable[[Floats], Floats], rank: Floats) -> Floats:
    """Return a distribution's values at these ranks, from a table that is fine at both ends."""
    table = 1 / (1 + np.exp(-np.linspace(-18, 18, 6001)))
    return np.interp(rank, table, ppf(table))


_WORLDS: dict[str, Callable[[Floats, int, float, np.random.Generator], Floats]] = {
    "skewed": _skewed,
    "perfect": _perfect,
    "bimodal": _bimodal,
}
WORLDS = tuple(_WORLDS)
NOISE = {"skewed": 3.0, "perfect": 1.0, "bimodal": 1.5}
"""SD of a judge around what an answer is worth."""
_RANGE = {"skewed": (0.3, 60.0), "perfect": (0.001, 0.9), "bimodal": (0.001, 0.9)}
