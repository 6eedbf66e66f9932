"""Worlds made to break a limit: rare disasters, two extremes, coarse judges, copies of unequal number, missing answers.

Each returns `sums` and `sizes`, (n, clusters), as a scorecard has them, and the true mean over answers. The truth is
worked out, not drawn.

    rare        one prompt in 50 is worth 0, the others 100
    rarer       one prompt in 200 is worth 0, the others 100
    extremes    a prompt's worth is Beta(0.4, 0.1): nearly 0 or nearly 100
    coarse      a judge that says 0, 50 or 100, four answers a prompt that agree more often than not
    copies      clusters of 1 to 12 near-copies that stand and fall together, whatever their number
    bad_copies  the same, and large clusters are worse
    gaps        one to four answers a prompt, since some are missing at random
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Drawn = tuple[Floats, Floats, float]


def _rare(n: int, clusters: int, rng: np.random.Generator, share: float = 1 / 50) -> Drawn:
    scores = np.where(rng.random((n, clusters)) < share, 0.0, 100.0)
    return scores, np.ones_like(scores), 100 * (1 - share)


def _rarer(n: int, clusters: int, rng: np.random.Generator) -> Drawn:
    return _rare(n, clusters, rng, 1 / 200)


def _extremes(n: int, clusters: int, rng: np.random.Generator) -> Drawn:
    scores = 100 * rng.beta(0.4, 0.1, (n, clusters))
    return scores, np.ones_like(scores), 80.0


def _coarse(n: int, clusters: int, rng: np.random.Generator) -> Drawn:
    chance = rng.dirichlet([0.1, 0.1, 0.8], (n, clusters)).cumsum(-1)[..., None, :2]
    said = 50.0 * (rng.random((n, clusters, 4))[..., None] > chance).sum(-1)
    return said.sum(-1), np.full((n, clusters), 4.0), 85.0


def _copies(n: int, clusters: int, rng: np.random.Generator, slope: float = 0.0) -> Drawn:
    """Sizes 1 to 12, small ones more often; a cluster fails with chance 0.05 + slope * size, and is then worth 10."""
    chances = 1 / np.arange(1, 13) ** 1.5
    chances /= chances.sum()
    sizes = rng.choice(np.arange(1.0, 13.0), size=(n, clusters), p=chances)
    worth = np.where(rng.random(sizes.shape) < 0.05 + slope * sizes, 10.0, 98.0)
    every = np.arange(1, 13)
    truth = 98 - 88 * float((chances * every * (0.05 + slope * every)).sum() / (chances * every).sum())
    return worth * sizes, sizes, truth


def _bad_copies(n: int, clusters: int, rng: np.random.Generator) -> Drawn:
    return _copies(n, clusters, rng, 0.02)


def _gaps(n: int, clusters: int, rng: np.random.Generator) -> Drawn:
    """A prompt fails with chance 0.08; an answer to it is worth 20 or 97, within 3 points."""
    worth = np.where(rng.random((n, clusters, 1)) < 0.08, 20.0, 97.0) + rng.uniform(-3, 3, (n, clusters, 4))
    there = rng.random(worth.shape) < 0.7
    there[..., 0] |= ~there.any(-1)
    return (worth * there).sum(-1), there.sum(-1).astype(float), 97 - 0.08 * 77


HARSH: dict[str, Callable[[int, int, np.random.Generator], Drawn]] = {
    "rare": _rare,
    "rarer": _rarer,
    "extremes": _extremes,
    "coarse": _coarse,
    "copies": _copies,
    "bad_copies": _bad_copies,
    "gaps": _gaps,
}
