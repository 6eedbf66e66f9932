"""Whether one model's answers score better than another's, by more than noise.

    ours, theirs = by_prompt(ids, values), by_prompt(other_ids, other_values)
    difference(ours, theirs).low     lower limit of (ours - theirs), points of 100
    differs(ours, theirs)            whether the 95% interval leaves zero out

Where both answered the same prompts, a resample draws the same prompts for both, which takes out what prompts differ
in; where they share less than half of either's, each is resampled by itself. See `resample` for the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamaduo.evidence.resample import NOTHING, Measure, draws, limits, measure, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ByPrompt:
    """The scores of a model's answers, summed by prompt; answers without a score are left out."""

    prompts: NDArray[Any]
    """(prompts,) text, sorted: those with a score."""
    sums: Floats
    """(prompts,): sum over the answers to each."""
    counts: Floats
    """(prompts,): answers with a score."""

    @property
    def n(self) -> int:
        """Answers with a score."""
        return int(self.counts.sum())


def by_prompt(prompt_ids: NDArray[Any], values: Floats) -> ByPrompt:
    """Sum the scores of answers, nan where there is none, by prompt; both arrays are (answers,)."""
    import numpy as np

    there = ~np.isnan(values)
    prompts, where = np.unique(prompt_ids[there], return_inverse=True)
    counts = np.bincount(where, minlength=len(prompts)).astype(float)
    return ByPrompt(prompts, np.bincount(where, values[there], len(prompts)).astype(float), counts)


def together(parts: Sequence[ByPrompt]) -> ByPrompt:
    """Return the answers of several models as one: those to the same prompt go together."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    prompts, where = np.unique(np.concatenate([part.prompts for part in parts]), return_inverse=True)
    sums, counts = (
        np.bincount(where, np.concatenate([getattr(part, name) for part in parts]), len(prompts)).astype(float)
        for name in ("sums", "counts")
    )
    return ByPrompt(prompts, sums, counts)


def mean(scores: ByPrompt) -> Measure:
    """Return the mean over answers with its interval."""
    import numpy as np

    return measure(np.column_stack([scores.sums, scores.counts]), lambda s: s[:, 0] / s[:, 1], scores.n)


def difference(a: ByPrompt, b: ByPrompt) -> Measure:
    """Return the mean over a's answers minus the mean over b's; n and prompts are those of the smaller side."""
    import numpy as np

    if not len(a.prompts) or not len(b.prompts):
        return NOTHING
    shared, at_a, at_b = np.intersect1d(a.prompts, b.prompts, assume_unique=True, return_indices=True)
    if 2 * len(shared) >= max(len(a.prompts), len(b.prompts)):
        sums = np.column_stack([a.sums[at_a], a.counts[at_a], b.sums[at_b], b.counts[at_b]])
        fewer = int(min(sums[:, 1].sum(), sums[:, 3].sum()))
        return measure(sums, lambda s: s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3], fewer)
    return _unpaired(a, b)


def _unpaired(a: ByPrompt, b: ByPrompt) -> Measure:
    """Return the difference of two means whose prompts are drawn apart from each other."""
    import numpy as np

    sides = [np.column_stack([side.sums, side.counts]) for side in (a, b)]
    means = [float(side[:, 0].sum() / side[:, 1].sum()) for side in sides]
    drawn = [draws(side, lambda s: s[:, 0] / s[:, 1], seed) for seed, side in enumerate(sides)]
    prompts = min(len(side) for side in sides)
    low, high = limits(drawn[0] - drawn[1], prompts)
    return Measure(rounded(means[0] - means[1]), low, high, min(a.n, b.n), prompts)


def differs(a: ByPrompt, b: ByPrompt) -> bool:
    """Tell whether two models differ by more than noise; never with fewer than `resample.FEWEST` prompts."""
    return difference(a, b).differs
