"""The bootstrap over prompts, for what is no bounded mean (`bounded`): agreement and noise of judges.

    found = measure(np.column_stack([within, scores, sums, squares]), alpha_of_sums, n=60)
    found.value, found.low, found.high

Answers to one prompt are not independent, so prompts are resampled, 2,000 times. What is measured has to be a function
of sums over answers, as variances and Krippendorff's alpha are: then a resample is a row of weights, and all of
them one product of matrices.

Limits are the expanded percentile interval (Hesterberg 2015): the percentiles are taken as far out as Student's t
stands beyond the normal distribution, since the plain ones are too narrow for 15 or 25 prompts. A resample knows
nothing of what no prompt has shown, so that these limits are approximate for few prompts, and tables say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2_000
_CELLS = 4_000_000


@dataclass(frozen=True)
class Measure:
    """A number with its 95% interval; null where it can't be had."""

    value: float | None
    low: float | None
    high: float | None
    """The limits are null where nothing scatters that could be drawn again, such as agreement over one prompt."""
    n: int
    """Answers behind it."""
    prompts: int
    """Prompts behind it; those that are near copies of each other count as one."""


NOTHING = Measure(None, None, None, 0, 0)


def measure(sums: Floats, statistic: Callable[[Floats], Floats], n: int) -> Measure:
    """Return a statistic of sums over answers, with its interval.

    `sums` is (prompts, k): of each prompt, the sums over its answers. `statistic` takes (any, k), the same sums over
    many prompts, and returns (any,); where it is nan, there is no value.
    """
    import numpy as np

    prompts = len(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = float(statistic(sums.sum(0, keepdims=True))[0]) if prompts else float("nan")
        if not np.isfinite(value):
            return Measure(None, None, None, n, prompts)
        if prompts < 2:
            return Measure(rounded(value), None, None, n, prompts)
        drawn = np.concatenate([statistic(block @ sums) for block in _weights(prompts)])
    return Measure(rounded(value), *limits(drawn, prompts), n, prompts)


def limits(drawn: Floats, prompts: int) -> tuple[float | None, float | None]:
    """Return the expanded percentile limits of resampled values; those that are not finite are left out."""
    import numpy as np

    finite = drawn[np.isfinite(drawn)]
    if prompts < 2 or len(finite) < len(drawn) / 2:
        return None, None
    tail = _tail(prompts)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return rounded(low), rounded(high)


def rounded(value: float) -> float:
    """Return a number as it is told: to four digits."""
    return round(float(value), 4) + 0.0  # no minus zero


def _tail(prompts: int) -> float:
    """Return the share to cut off at either end: 2.5% for many prompts, less for few."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-math.sqrt(prompts / (prompts - 1)) * stdtrit(prompts - 1, 0.975)))


def _weights(prompts: int) -> Iterator[Floats]:
    """Yield blocks of (resamples, prompts): how often each prompt is drawn."""
    if prompts * RESAMPLES <= _CELLS:
        yield _kept(prompts)
        return
    yield from _blocks(prompts)


@lru_cache(maxsize=8)
def _kept(prompts: int) -> Floats:
    import numpy as np

    return np.concatenate(list(_blocks(prompts)))


def _blocks(prompts: int) -> Iterator[Floats]:
    import numpy as np

    rng = np.random.default_rng(0)
    step = max(1, min(RESAMPLES, _CELLS // prompts))
    for start in range(0, RESAMPLES, step):
        size = min(step, RESAMPLES - start)
        drawn = rng.integers(0, prompts, (size, prompts)) + prompts * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * prompts).reshape(size, prompts).astype(float)
