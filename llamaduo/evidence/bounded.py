"""Limits of a bounded mean that hold with few prompts: Gaffke's.

    limits([400.0, 396.0, 120.0], [4, 4, 4])            95% interval of a mean of scores from 0 to 100, two-sided
    lower_limit([400.0, 396.0, 120.0], [4, 4, 4], 0.05) one-sided: above the truth in at most 5% of cases
    fewest(90, 0.05)                                    29: prompts with which a gate of 90 can be passed at all

What only resamples what was seen can't know of failures that no prompt has shown: with 8 prompts, a bootstrap's "lower
limit of 95%" lies above the truth in 20 to 40% of cases. Gaffke (2005) adds one prompt that was not seen and is worth
the worst: 0 for the lower limit, 100 for the upper one. The limit is a quantile of the mean under Dirichlet(1, ..., 1)
weights over the prompts and that one. For scores of 0 and 100 it is the limit of Clopper and Pearson (1934); for others
that it holds is a theorem for some cases and a conjecture that no search has broken for the rest (Learned-Miller and
Thomas 2020), and `benchmarks/intervals.py` measures it.

Answers to one prompt, and to prompts that are near copies, stand and fall together: they enter as one cluster, by the
sum and the number of their scores. The prompt that was not seen counts as many answers as the largest cluster.

The quantile is computed, not drawn: Dirichlet weights are exponential variables over their sum, so that the weighted
mean is at most t where a sum of exponential variables with signs is at most 0, and the probability of that is an
integral of its characteristic function along a line through the saddle point (Lugannani and Rice 1980).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

ERROR = 0.05
"""How often a one-sided limit may lie on the wrong side of the truth, and a two-sided interval may miss it."""

_STEP, _BLOCK, _MOST_STEPS = 0.1, 10, 300
"""The integral is taken in steps, a block at a time, until the log of the integrand is below `_NOTHING`."""
_NOTHING = -25.0
_NEAR = 1e-4
"""How near to the saddle point, as a share of it, the line may lie: the integral is the same along any."""
_NO_SUM = 1e-12
"""What counts as 0, as a share of the scale: its square would be too small for a float."""
_CLOSE = 1e-7
"""How close, in the log of the probability, a point has to be for the next one to be the limit."""


def limits(
    sums: Sequence[float] | Floats,
    sizes: Sequence[float] | Floats,
    *,
    error: float = ERROR,
    low: float = 0.0,
    high: float = 100.0,
) -> tuple[float, float]:
    """Return the two-sided interval of a mean, `error / 2` at either end; arguments as those of `lower_limit`."""
    half = error / 2
    below = lower_limit(sums, sizes, half, low=low, high=high)
    return below, upper_limit(sums, sizes, half, low=low, high=high)


def upper_limit(
    sums: Sequence[float] | Floats,
    sizes: Sequence[float] | Floats,
    error: float,
    *,
    low: float = 0.0,
    high: float = 100.0,
) -> float:
    """Return the upper limit of a mean, the lower one mirrored; arguments as those of `lower_limit`."""
    import numpy as np

    mirrored = (low + high) * np.asarray(sizes, dtype=float) - np.asarray(sums, dtype=float)
    return low + high - lower_limit(mirrored, sizes, error, low=low, high=high)


def lower_limit(
    sums: Sequence[float] | Floats,
    sizes: Sequence[float] | Floats,
    error: float,
    *,
    low: float = 0.0,
    high: float = 100.0,
) -> float:
    """Return Gaffke's lower limit of the mean of values between `low` and `high`.

    `sums` and `sizes` are (clusters,): the sum of each cluster's values and how many there are, at least one. The limit
    lies above the true mean in at most a share `error` of cases, 0 < error < 1.
    """
    import numpy as np

    counts = np.asarray(sizes, dtype=float)
    if not len(counts):
        return low
    parts = np.asarray(sums, dtype=float)
    alike, times = np.unique(parts + 1j * counts, return_counts=True)
    found = lower_limits(alike.real[None], alike.imag[None], error, low=low, high=high, times=times[None])
    return float(found[0])


def lower_limits(
    sums: Floats,
    sizes: Floats,
    error: float,
    *,
    low: float = 0.0,
    high: float = 100.0,
    times: NDArray[Any] | None = None,
) -> Floats:
    """Return the lower limits of many means at once, (n,): `sums` and `sizes` are (n, clusters).

    A cluster of sum and size 0 is none, so that rows may hold different numbers of clusters; `times` says how many
    clusters each column stands for, one if it is left out.
    """
    import numpy as np

    parts = np.clip((sums - low * sizes) / (high - low), 0.0, sizes)
    parts = np.where(parts < _NO_SUM, 0.0, parts)
    counts = np.ones_like(sizes) if times is None else times.astype(float)
    return low + (high - low) * _quantiles(parts, sizes, counts, math.log(error))


def log_chances(sums: Floats, sizes: Floats, at: Floats | float, *, low: float = 0.0, high: float = 100.0) -> Floats:
    """Return the log of the error at which each row's lower limit is `at`, (n,): arguments as those of `lower_limits`.

    A lower limit lies above `at` where this is below the log of its error: for a decision no limit is needed.
    """
    import numpy as np

    parts = np.clip((sums - low * sizes) / (high - low), 0.0, sizes)
    points = np.broadcast_to((np.asarray(at, dtype=float) - low) / (high - low), len(sums))
    return _log_chances(parts, sizes, np.ones_like(sizes), points)[0]


def _quantiles(sums: Floats, sizes: Floats, times: Floats, goal: float) -> Floats:
    """Return t so that each weighted mean, one cluster of zeros added, is at most t with probability exp(goal).

    Newton's method on the log of t, in which the log of the probability is concave, and which is a line where all
    clusters are alike.
    """
    import numpy as np

    mean = (times * sums).sum(-1) / np.maximum((times * sizes).sum(-1), 1e-300)
    found: Floats = mean * np.exp(goal / np.maximum((times * (sizes > 0)).sum(-1), 1))
    open_ = np.flatnonzero(mean > 0)
    below, above = np.zeros_like(mean), mean.copy()
    before: tuple[Floats, ...] = ()
    for _ in range(80):
        if not len(open_):
            break
        at = found[open_]
        chance, slope = _log_chances(sums[open_], sizes[open_], times[open_], at)
        away = chance - goal
        if before:
            with np.errstate(all="ignore"):
                straight = (away - before[0]) / np.log(at / before[1])
            slope = np.where((straight > slope / 2) & (straight < 2 * slope), straight, slope)
        above[open_] = np.where(away > 0, at, above[open_])
        below[open_] = np.where(away > 0, below[open_], at)
        step = at * np.exp(np.clip(-away / np.maximum(slope, 1e-9), -30, 30))
        outside = (step <= below[open_]) | (step >= above[open_])
        far = np.abs(away) >= _CLOSE
        found[open_] = np.where(~outside, step, np.where(far, (below[open_] + above[open_]) / 2, at))
        open_, before = open_[far], (away[far], at[far])
    return found


def _log_chances(sums: Floats, sizes: Floats, times: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Return the log of the probability that each weighted mean is at most `at`, and its rise with the log of `at`.

    With weights E / sum(E), E exponential, that is the event sum(a E) <= 0 with a = sums - at * sizes, and
    a = -at * (largest size) for the cluster that was not seen. The rise is that of the integrand at the saddle point.
    """
    import numpy as np

    counts = np.concatenate([sizes, sizes.max(-1, keepdims=True)], axis=-1)
    times = np.concatenate([times, np.ones_like(at)[:, None]], axis=-1)
    signed = np.concatenate([sums, np.zeros_like(at)[:, None]], axis=-1) - at[:, None] * counts
    turn = _saddles(signed, times)[:, None]
    share = 1 - signed * turn
    bent = signed / share
    wide = np.sqrt((times * bent**2).sum(-1, keepdims=True) + 1 / turn**2)
    height = -(times * np.log(share)).sum(-1) - np.log(-turn[:, 0])
    rise = at * -(times * counts * turn / share).sum(-1)
    bends = np.concatenate([bent, -1 / turn], axis=-1) / wide
    area = _area(bends, np.concatenate([times, np.ones_like(turn)], axis=-1))
    chance = height + np.log(np.maximum(area, 1e-300) / (wide[:, 0] * math.pi))
    sure = signed.max(-1) <= 0
    return np.where(sure, 0.0, chance), np.where(sure, 0.0, rise)


def _area(bent: Floats, times: Floats) -> Floats:
    """Return the integral of prod(1 / (1 - i b y)) over y from 0, (n,), for rows of b whose squares sum to 1.

    With y = sinh(u) the trapezoidal rule errs by less than 1e-9 at this step.
    """
    import numpy as np

    total = np.zeros(len(bent))
    for first in range(0, _MOST_STEPS, _BLOCK):
        u = _STEP * np.arange(first, first + _BLOCK)
        turned = np.sinh(u)[:, None] * bent[:, None]
        size = np.log(np.cosh(u)) - 0.5 * (np.log1p(turned**2) @ times[..., None])[..., 0]
        parts = np.exp(size) * np.cos((np.arctan(turned) @ times[..., None])[..., 0])
        total += parts.sum(-1) - (parts[:, 0] / 2 if first == 0 else 0)
        if size[:, -1].max() < _NOTHING:
            break
    area: Floats = total * _STEP
    return area


def _saddles(signed: Floats, times: Floats) -> Floats:
    """Return each row's saddle point left of zero of sum(-log(1 - a s)) - log(-s), (n,): nearly is near enough."""
    import numpy as np

    low = 1 / signed.min(-1)
    high = np.zeros_like(low)
    at: Floats = low / 2
    for _ in range(60):
        bent = signed / (1 - signed * at[:, None])
        slope = (times * bent).sum(-1) - 1 / at
        low, high = np.where(slope < 0, at, low), np.where(slope < 0, high, at)
        step = at - slope / ((times * bent**2).sum(-1) + 1 / at**2)
        moved = np.where((step <= low) | (step >= high), (low + high) / 2, step)
        near = np.abs(moved - at).max() <= _NEAR * np.abs(at).min()
        at = moved
        if near:
            break
    return at


def fewest(gate: float, error: float) -> int | None:
    """Return the fewest prompts with which the lower limit of a perfect score reaches the gate; None if none do."""
    if gate >= 100:
        return None
    if gate <= 0:
        return 1
    return max(1, math.ceil(math.log(error) / math.log(gate / 100) - 1e-9))
