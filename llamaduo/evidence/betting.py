"""Futility: whether an iteration of which a part was judged can still pass the gate.

    hopeless(sums, sizes, left, gate=90, error=0.01)       True: judging the rest can't, or won't, make it pass

`sums` and `sizes` are those of the prompts (clusters) judged so far, `left` the sizes of the others. The gate is passed
where the lower limit of all of them, by `bounded.lower_limit` at `error`, reaches it. Nothing here ever says that a
model passes: so the gate's false acceptances can only become fewer.

Two rules. *It can't*: if everything that is left scored the highest score, the limit would still stay below the gate.
That is certain. *It won't*: passing needs a mean over all prompts of at least `needed_mean`; a bet against that mean,
prompt by prompt, has multiplied its stake by 1 / `LEVEL`. Prompts are drawn without replacement in random order, so
that under any mean that would do the stake is a supermartingale, and by Ville's inequality a model that would pass is
stopped in at most a share `LEVEL` of cases, however often one looks (Waudby-Smith and Ramdas 2024: the bet is their
approximate GRAPA, the sampling their section 5).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamaduo.evidence.bounded import log_chances

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LEVEL = 0.005
"""How often a model that would pass may be stopped, over all looks at one iteration."""
_BOLDEST = 0.75
"""The share of the stake that a bet may lose."""


def hopeless(
    sums: Sequence[float] | Floats,
    sizes: Sequence[float] | Floats,
    left: Sequence[float] | Floats,
    *,
    gate: float,
    error: float | None,
    best: Sequence[float] | Floats | None = None,
    level: float = LEVEL,
    low: float = 0.0,
    high: float = 100.0,
) -> bool:
    """Tell whether the lower limit of all prompts won't reach the gate.

    `sums` (n,) has to be in the random order in which the prompts were drawn; `sizes` (n,) and `left` (m,) count the
    values of each prompt, which lie between `low` and `high`. `best` (m,) is the highest sum that each prompt that is
    left can come to, where that is known to be less than `high` times its size. Without an `error` only this is known
    of the limit: that it does not exceed the mean.
    """
    import numpy as np

    rest = np.asarray(left, dtype=float)
    top = high * rest if best is None else np.asarray(best, dtype=float)
    counts = np.append(np.asarray(sizes, dtype=float), rest)
    at_best = np.append(np.asarray(sums, dtype=float), top)
    needed = gate if error is None else needed_mean(gate, counts, error, low=low, high=high)
    if at_best.sum() < needed * counts.sum():
        return True
    if gate <= low:
        return False
    if error is not None and log_chances(at_best[None], counts[None], gate, low=low, high=high)[0] > math.log(error):
        return True  # the limit is below the gate
    if not level or not len(rest):
        return False
    parts = (np.asarray(sums, dtype=float) - low * np.asarray(sizes, dtype=float)) / ((high - low) * counts.max())
    stakes = capital(parts, len(counts), (needed - low) / (high - low) * float(counts.mean() / counts.max()))
    return bool(stakes.max(initial=1.0) >= 1 / level)


def capital(values: Sequence[float] | Floats, count: int, mean: float) -> Floats:
    """Return (n,): what a stake of 1 has become by betting that `count` values have a mean below `mean`.

    `values` (n,) are those drawn so far, without replacement and in random order, from 0 to 1. If the mean is `mean` or
    more, the stake ever reaches 1 / x with a probability of at most x.
    """
    import numpy as np

    stake, stakes = 1.0, np.empty(len(values))
    total, squares = 0.5, 0.25  # as if one value of 1/2, half a point off, had been seen
    for drawn, value in enumerate(values):
        fair = (mean * count - (total - 0.5)) / (count - drawn)  # the mean of what is left, if the claim is just true
        guess = total / (drawn + 1)
        if fair > 1 + 1e-12:  # not even highest scores would do
            stake = np.inf
        elif fair > 0:
            edge = fair - guess
            bet = min(max(edge / (squares / (drawn + 1) + edge**2), 0.0), _BOLDEST / max(1 - fair, 1e-3))
            stake *= 1 + bet * (fair - value)
        total += value
        squares += (value - total / (drawn + 2)) ** 2
        stakes[drawn] = stake
    return stakes


def needed_mean(gate: float, sizes: Floats, error: float, *, low: float = 0.0, high: float = 100.0) -> float:
    """Return the least mean over all prompts with which the lower limit can reach the gate.

    Of N values from 0 to 1 with mean m, Gaffke's limit is at most m * error^(1/N), the limit of N equal ones: the
    weighted mean is S * V, S a Beta(N, 1) variable and V of mean m independent of it, so that it is at most c * m with
    probability E min(1, (c m / V)^N), which by Jensen's inequality is at least c^N; where error exceeds 1 / (N + 1),
    the line through (0, 1) that touches that curve takes its place. For prompts of different sizes the limit is only
    known not to exceed the mean.
    """
    count = len(sizes)
    share = 1.0
    if sizes.min() == sizes.max():
        share = error ** (1 / count)
        if error * (count + 1) > 1:
            share = min(1.0, count / ((count + 1) ** (1 + 1 / count) * (1 - error)))
    return low + (gate - low) / share
