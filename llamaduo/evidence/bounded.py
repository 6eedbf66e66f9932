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

_STEPS = 128
_REACHES = (4.0, 6.0, 9.0, 14.0, 24.0)
"""How far along the line the integral is taken: until the integrand is nothing."""
_NOTHING = -36.0
_CLOSE = 1e-9


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
    parts = np.clip((np.asarray(sums, dtype=float) - low * counts) / (high - low), 0.0, counts)
    return low + (high - low) * _quantile(parts, counts, math.log(error))


def _quantile(sums: Floats, sizes: Floats, goal: float) -> float:
    """Return t so that the weighted mean, one cluster of zeros added, is at most t with probability exp(goal)."""
    below, above = 0.0, float(sums.sum() / sizes.sum())
    if above <= 0:
        return 0.0
    at_below, at_above = -math.inf, math.log(max(0.5, math.exp(goal))) - goal
    at = above * math.exp(goal / len(sums))  # where all clusters are alike this is the answer
    for _ in range(80):
        value = _log_probability(sums, sizes, at) - goal
        if value > 0:
            above, at_above = at, value
        else:
            below, at_below = at, value
        if abs(value) < _CLOSE or above - below < _CLOSE * above:
            break
        at = _next(below, at_below, above, at_above)
    return at


def _next(below: float, at_below: float, above: float, at_above: float) -> float:
    """Return where to look next between two points of which one is below the goal and one above it."""
    middle = (below + above) / 2
    if not math.isfinite(at_below) or not at_above > at_below:
        return middle
    straight = below + (above - below) * -at_below / (at_above - at_below)
    inside = (above - below) * 0.02
    return min(max(straight, below + inside), above - inside)


def _log_probability(sums: Floats, sizes: Floats, at: float) -> float:
    """Return the log of the probability that the weighted mean is at most `at`.

    With weights E / sum(E), E exponential, that is the event sum(a E) <= 0 with a = sums - at * sizes, and
    a = -at * (largest size) for the cluster that was not seen.
    """
    import numpy as np

    signed = np.append(sums - at * sizes, -at * sizes.max())
    signed, times = np.unique(signed, return_counts=True)
    if signed[-1] <= 0:
        return 0.0
    turn = _saddle(signed, times)
    height = -float(times @ np.log1p(-signed * turn))
    bent = signed / (1 - signed * turn)
    wide = math.sqrt(float(times @ bent**2) + 1 / turn**2)

    def size(along: Floats) -> Floats:
        turned: Floats = -0.5 * (np.log1p(np.outer(along, bent) ** 2) @ times) - 0.5 * np.log1p((along / turn) ** 2)
        return turned

    left = size(np.sinh(np.array(_REACHES)) / wide) + np.array(_REACHES)
    reach = next((r for r, gone in zip(_REACHES, left, strict=True) if gone < _NOTHING), _REACHES[-1])
    u = reach / _STEPS * np.arange(_STEPS)
    along = np.sinh(u) / wide
    angle = np.arctan(np.outer(along, bent)) @ times - np.arctan2(along, turn)
    parts = np.exp(size(along)) * np.cos(angle) * np.cosh(u) / wide
    parts[0] /= 2
    total = -float(parts.sum()) * reach / _STEPS / math.pi
    return height - math.log(-turn) + math.log(max(total, 1e-300))


def _saddle(signed: Floats, times: NDArray[Any]) -> float:
    """Return the saddle point left of zero of sum(-log(1 - a s)) - log(-s): the integrand is flattest across it."""
    low, high = 1 / float(signed[0]), 0.0
    for _ in range(40):
        at = (low + high) / 2
        if float(times @ (signed / (1 - signed * at))) - 1 / at < 0:
            low = at
        else:
            high = at
    return (low + high) / 2


def fewest(gate: float, error: float) -> int | None:
    """Return the fewest prompts with which the lower limit of a perfect score reaches the gate; None if none do."""
    if gate >= 100:
        return None
    if gate <= 0:
        return 1
    return max(1, math.ceil(math.log(error) / math.log(gate / 100) - 1e-9))
