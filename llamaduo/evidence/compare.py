"""Whether one model's answers score better than another's, by more than noise.

    ours, theirs = by_prompt(ids, values), by_prompt(other_ids, other_values)
    difference(ours, theirs).low     lower limit of (ours - theirs), points of 100
    differs(ours, theirs)            whether the 95% interval leaves zero out

Where both answered the same prompts, a resample draws the same prompts for both, which takes out what prompts differ
in; where they share less than half of either's, each is resampled by itself. See `resample` for the interval.

Runs that repeat each other (another seed) differ by training noise, which drawing prompts can't show. Where a side
holds several, their scatter widens the interval by Student's t for so many runs. Drawing runs as prompts are drawn
would not do: two runs drawn from two show half of their variance (equal models told apart in 13 to 22 of 100).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llamaduo.evidence.resample import NOTHING, Measure, draws, limits, measure, rounded, widened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Repeats:
    """How far runs that differ in their seeds alone lie apart."""

    squares: float = 0.0
    """Squared distances of the runs' means from the mean of those that repeat them, summed; points squared."""
    degrees: int = 0
    """Runs beyond the first of each setting; 0: nothing is known of training noise."""
    weight: float = 1.0
    """Squared shares of the answers that the runs have, summed: the variance of the mean is so many times a run's."""


@dataclass(frozen=True)
class ByPrompt:
    """The scores of a model's answers, summed by prompt; answers without a score are left out."""

    prompts: NDArray[Any]
    """(prompts,) text, sorted: those with a score."""
    sums: Floats
    """(prompts,): sum over the answers to each."""
    counts: Floats
    """(prompts,): answers with a score."""
    repeats: Repeats = Repeats()
    """What several runs show of training noise."""

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


def together(parts: Sequence[ByPrompt], settings: Sequence[Hashable] | None = None) -> ByPrompt:
    """Return the answers of several runs as one: those to the same prompt go together.

    `settings` names what each run is a repeat of: runs of one setting differ in their seeds alone. None: each is a
    setting of its own.
    """
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    prompts, where = np.unique(np.concatenate([part.prompts for part in parts]), return_inverse=True)
    sums, counts = (
        np.bincount(where, np.concatenate([getattr(part, name) for part in parts]), len(prompts)).astype(float)
        for name in ("sums", "counts")
    )
    return ByPrompt(prompts, sums, counts, _repeats(parts, range(len(parts)) if settings is None else settings))


def _repeats(runs: Sequence[ByPrompt], settings: Sequence[Hashable]) -> Repeats:
    """Return how far runs of one setting lie apart; runs without a score are left out."""
    import numpy as np

    groups: dict[Hashable, list[float]] = {}
    for run, setting in zip(runs, settings, strict=True):
        if run.n:
            groups.setdefault(setting, []).append(float(run.sums.sum()) / run.n)
    squares = sum(float(np.var(means)) * len(means) for means in groups.values())
    answers = np.array([run.n for run in runs], dtype=float)
    weight = float((answers**2).sum() / max(1.0, answers.sum() ** 2))
    return Repeats(squares, sum(len(means) - 1 for means in groups.values()), weight)


def mean(scores: ByPrompt) -> Measure:
    """Return the mean over answers with its interval."""
    import numpy as np

    found = measure(np.column_stack([scores.sums, scores.counts]), lambda s: s[:, 0] / s[:, 1], scores.n)
    return _with_training(found, scores)


def share(scores: ByPrompt) -> Measure:
    """Return the mean of what is 0 or 100 for each answer, a percentage, with its interval.

    Where all answers are 0 or all are 100, no resample differs, which is no proof of certainty: then the limits are the
    exact ones of Clopper and Pearson (1934), with prompts as trials.
    """
    found = mean(scores)
    if found.prompts < 2 or found.value not in (0.0, 100.0):
        return found
    surely = rounded(100 * 0.025 ** (1 / found.prompts))
    return replace(found, low=0.0, high=rounded(100 - surely)) if found.value == 0.0 else replace(found, low=surely)


def difference(a: ByPrompt, b: ByPrompt) -> Measure:
    """Return the mean over a's answers minus the mean over b's; n and prompts are those of the smaller side."""
    import numpy as np

    if not len(a.prompts) or not len(b.prompts):
        return NOTHING
    shared, at_a, at_b = np.intersect1d(a.prompts, b.prompts, assume_unique=True, return_indices=True)
    if 2 * len(shared) < max(len(a.prompts), len(b.prompts)):
        return _with_training(_unpaired(a, b), a, b)
    sums = np.column_stack([a.sums[at_a], a.counts[at_a], b.sums[at_b], b.counts[at_b]])
    fewer = int(min(sums[:, 1].sum(), sums[:, 3].sum()))
    found = measure(sums, lambda s: s[:, 0] / s[:, 1] - s[:, 2] / s[:, 3], fewer)
    return _with_training(found, a, b)


def _with_training(found: Measure, *sides: ByPrompt) -> Measure:
    """Widen an interval over prompts by training noise, taken to be the same on both sides; not if it isn't known."""
    degrees = sum(side.repeats.degrees for side in sides)
    if not degrees:
        return found
    variance = sum(side.repeats.squares for side in sides) / degrees
    return widened(found, math.sqrt(variance * sum(side.repeats.weight for side in sides)), degrees)


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
