"""Limits of a bounded mean as other methods set them, for many samples at once: what Gaffke's are compared with.

    bca             Efron's bootstrap (1987), scipy's: what the scorecards showed before
    percentile      the bootstrap's own quantile
    student         Student's t on the prompts' means: exact for normal scores, which these are not
    betting         capital won by betting against a mean (Waudby-Smith and Ramdas 2024), the bets set anew by what is
                    still to win and to see (Voracek and Orabona 2025): a theorem for any bounded scores, but it depends
                    on the order in which they come
    anderson        Anderson's (1969), from the one-sided Kolmogorov-Smirnov band: a theorem for any bounded scores

Each takes `means`, (n, prompts) from 0 to 100, and returns lower limits, (n,), each above the truth in a share `error`
of cases if its assumptions hold; upper limits are those of 100 - means, mirrored. A `Chance` is the same read the other
way: the error at which the lower limit would be `at`, so that a decision needs no limit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import bootstrap, ksone, t

from llamaduo.evidence.bounded import log_chances, lower_limits

Floats = np.ndarray[Any, np.dtype[np.float64]]
Chance = Callable[[Floats, float], Floats]
"""From (n, prompts) means and a value to (n,): the error at which the lower limit is that value."""


def gaffke(means: Floats, error: float) -> Floats:
    """Return the limits that llamaduo shows."""
    return lower_limits(means, np.ones_like(means), error)


def gaffke_chance(means: Floats, at: float) -> Floats:
    """Return the error at which Gaffke's lower limit is `at`, (n,), some rows at a time."""
    rows = max(1, 20_000 // means.shape[-1])
    parts = [means[first : first + rows] for first in range(0, len(means), rows)]
    return np.concatenate([np.exp(log_chances(part, np.ones_like(part), at)) for part in parts])


def bca(means: Floats, error: float, resamples: int = 1000) -> Floats:
    """Return Efron's limits; where all resamples are alike, the mean."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says by a warning that it degenerates
        found = bootstrap(
            (means,),
            np.mean,
            axis=-1,
            n_resamples=resamples,
            confidence_level=1 - 2 * error,
            rng=np.random.default_rng(0),
        ).confidence_interval
    low = np.asarray(found.low)
    return np.where(np.isfinite(low), low, means.mean(-1))


def percentile_chance(means: Floats, at: float, resamples: int = 500) -> Floats:
    """Return the share of resamples whose mean is at most `at`, (n,)."""
    rng, prompts = np.random.default_rng(0), means.shape[-1]
    weights = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples) / prompts
    share: Floats = (means @ weights.T <= at).mean(-1)
    return share


def student(means: Floats, error: float) -> Floats:
    """Return mean - t * standard error."""
    prompts = means.shape[-1]
    low: Floats = means.mean(-1) - t.ppf(1 - error, prompts - 1) * means.std(-1, ddof=1) / math.sqrt(prompts)
    return low


def student_chance(means: Floats, at: float) -> Floats:
    """Return the error at which Student's lower limit is `at`, (n,)."""
    prompts = means.shape[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        away = (means.mean(-1) - at) / (means.std(-1, ddof=1) / math.sqrt(prompts))
    chance: Floats = t.sf(np.nan_to_num(away), prompts - 1)
    return chance


def mean_chance(means: Floats, at: float) -> Floats:
    """Return 0 where the mean reaches `at` and 1 elsewhere: the paper's gate, which has no error to speak of."""
    return np.where(means.mean(-1) >= at, 0.0, 1.0)


def betting(means: Floats, error: float) -> Floats:
    """Return the least mean against which no gambler has won 1 / error, by halving.

    A gambler bets what wins the rest of the goal in the prompts that are left, were their spread as before; never all.
    """
    x, goal = means / 100, math.log(1 / error)
    prompts = x.shape[-1]
    low, high = np.zeros(len(x)), np.ones(len(x))
    for _ in range(20):
        at = (low + high) / 2
        capital, total, squares = np.zeros(len(x)), np.full(len(x), 0.5), np.full(len(x), 0.25)
        for seen in range(prompts):
            variance = squares / (seen + 1)
            wish = np.sqrt(2 * np.maximum(goal - capital, 1e-9) / ((prompts - seen) * variance))
            gain = np.log1p(np.minimum(wish, 0.99 / at) * (x[:, seen] - at))
            capital = np.where(capital >= goal, capital, capital + gain)
            total = total + x[:, seen]
            squares = squares + (x[:, seen] - total / (seen + 2)) ** 2
        won = capital >= goal
        low, high = np.where(won, at, low), np.where(won, high, at)
    return 100 * low


def anderson(means: Floats, error: float) -> Floats:
    """Return the mean of the lowest distribution within the band: its share at the top moved to 0."""
    n = means.shape[-1]
    band = ksone.ppf(1 - error, n)
    ordered = np.sort(means, -1)
    kept = np.clip(1 - band - np.arange(n) / n, 0, 1 / n)
    low: Floats = ordered @ kept
    return low
