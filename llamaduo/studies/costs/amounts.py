"""Mean tokens and dollars of requests, with limits that hold: Gaffke's, up to the most that a request can come to.

    found = amounts({"answer": ([120.0, 88.0], 1024.0), "prompt": ([310.0, 95.0], 7168.0)})
    found["answer"].mean, found["answer"].low, found["answer"].high      104.0, 16.2, 878.6

A prompt that was not seen may ask for as much as its model takes and gives, so that with few prompts the upper limit
lies far above the mean. Where nobody knows that most, there are no limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class Amount:
    """A mean over prompts with its 95% interval."""

    mean: float
    low: float | None
    high: float | None
    """The limits are null where no most is known."""
    n: int
    """Prompts."""


def amounts(several: Mapping[str, tuple[Sequence[float], float | None]]) -> dict[str, Amount]:
    """Return the means of several amounts of the same prompts, of each its value at every prompt and its most.

    Values are at least 0. A most that a value exceeds is none.
    """
    import numpy as np

    from llamaduo.evidence import bounded

    found = {name: Amount(fmean(values), None, None, len(values)) for name, (values, _) in several.items()}
    known = [name for name, (values, most) in several.items() if most and max(values) <= most]
    if not known:
        return found
    shares = np.array([several[name][0] for name in known]) / np.array([[several[name][1]] for name in known])
    half, ones = bounded.ERROR / 2, np.ones_like(shares)
    below = bounded.lower_limits(shares, ones, half, high=1.0)
    above = 1 - bounded.lower_limits(1 - shares, ones, half, high=1.0)
    for name, low, high in zip(known, below, above, strict=True):
        most = float(several[name][1] or 0.0)
        found[name] = Amount(found[name].mean, most * float(low), most * float(high), found[name].n)
    return found


def scaled(amount: Amount, by: float) -> Amount:
    """Return an amount in another unit."""
    low, high = (None if limit is None else limit * by for limit in (amount.low, amount.high))
    return Amount(amount.mean * by, low, high, amount.n)
