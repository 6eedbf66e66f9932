"""How many percent of another model's mean score a model reaches, with limits that hold.

    ratio(ours, theirs)              Measure(96.2, 84.0, 113.1, n=60, prompts=15): 96.2% of theirs

Both answered the same prompts. A ratio r is in the interval where Gaffke's limits (see `bounded`) of the mean of
(ours - r x theirs), prompt by prompt, can't tell it from zero: Fieller's way (1954), without his normal distribution.
An interval of the ratio of the two means' own limits would be far wider, and one that takes theirs as known too narrow.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llamaduo.evidence import bounded
from llamaduo.evidence.compare import ByPrompt, in_pairs, training_error, widened
from llamaduo.evidence.resample import NOTHING, Measure, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_ROUNDS, _POINTS = 5, 10
"""A limit is looked for among so many points, and again between the two that it lies between."""


def ratio(ours: ByPrompt, theirs: ByPrompt) -> Measure:
    """Return our mean as percent of theirs with its 95% interval, of scores from 0 to 100.

    Nothing where the two share less than half of either's prompts, or where their mean is 0. The upper limit is null
    where no percentage is too high. Training noise widens it as it does a difference.
    """
    sides = in_pairs(ours, theirs) if ours.n and theirs.n else None
    if sides is None:
        return NOTHING
    a, counts_a, b, counts_b = sides.T
    of_a, of_b = counts_a.sum(), counts_b.sum()
    a, b, shares = a / of_a, b / of_b, (counts_a / of_a + counts_b / of_b) / 2
    if not b.sum():
        return NOTHING
    value = 100 * float(a.sum() / b.sum())
    low, high = _least_share(a, b, shares), 1 - _least_share(b, a, shares)
    above = 100 * high / (1 - high) if high < 1 else None
    found = Measure(
        rounded(value), rounded(100 * low / (1 - low)), None if above is None else rounded(above),
        int(min(of_a, of_b)), len(a),
    )  # fmt: skip
    error, degrees = training_error(ours, theirs)
    return _not_below_zero(widened(found, 100 * error / float(b.sum()), degrees))


def _not_below_zero(found: Measure) -> Measure:
    low = None if found.low is None else max(0.0, found.low)
    return Measure(found.value, low, found.high, found.n, found.prompts)


def _least_share(a: Floats, b: Floats, shares: Any) -> float:
    """Return the lower limit of a's share in the two means' sum, 0 to 1: with it the bounds are finite.

    A share s is too low where the lower limit of the mean of (1 - s) a - s b, which lies from -100 s to 100 (1 - s),
    is above 0. All are (prompts,): parts of the two means, and of the answers.
    """
    import numpy as np

    low, high = 0.0, float(a.sum() / (a.sum() + b.sum()))
    if not high:
        return 0.0
    goal = math.log(bounded.ERROR / 2)
    for _ in range(_ROUNDS):
        points = np.linspace(low, high, _POINTS)
        tried = points[1:-1, None]
        shifted = (1 - tried) * a - tried * b + 100 * tried * shares  # from 0 to 100
        chances = bounded.log_chances(shifted, np.broadcast_to(shares, shifted.shape), 100 * tried[:, 0])
        refused = int((chances < goal).sum())
        low, high = float(points[refused]), float(points[refused + 1])
    return low
