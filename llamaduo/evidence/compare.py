"""Mean scores with limits that hold, and whether one model's answers score better than another's.

    ours, theirs = by_prompt(ids, values), by_prompt(other_ids, other_values)
    mean(ours)                       the mean with Gaffke's 95% limits (see `bounded`)
    difference(ours, theirs).low     lower limit of (ours - theirs), points of 100, by the same method
    p_value(ours, theirs)            how often chance alone makes as large a difference
    holm([0.001, 0.02, 0.4])         [True, True, False]: which claims of a table stand together

Limits allow for failures that no prompt has shown, and so are wide: 15 prompts can't bound a difference to less than
some 20 points. That models differ at all is asked of a permutation test: if it makes no difference which of the two
answers, swapping their answers to a prompt changes nothing but chance, and the test is exact for any number of prompts
and any scores. Where both answered the same prompts, answers are swapped within prompts; where they share less than
half of either's, prompts are dealt to the two sides anew.

Equal models told apart at 5%, by 2,000 draws of 15, 25, 50 and 100 prompts (4 answers each) in each of three worlds
(skewed, nearly all perfect, bimodal) with means from 80 to 98: the swap test in 4.0 to 5.8 of 100, the expanded
percentile interval in 5.0 to 10, Gaffke's interval of the difference in 0 to 3.3. What the swap test finds is that the
models are not alike, which is more than that their means differ: where means are equal but one model fails rarely and
badly, the other often and mildly, it tells them apart in 8 to 21 of 100 with 15 prompts, 6 to 9 with 25, 5 to 7 with 50
(the percentile interval in 10 to 23, 8 to 10, 6 to 7). Gaffke's interval holds there as well, in 0 to 3.3 of 100.

Runs that repeat each other (another seed) differ by training noise, which no test over prompts can show. Where a side
holds several, their scatter widens interval and test by Student's t for so many runs; where neither does, a stated
standard deviation does (`Repeats.assumed`).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llamaduo.evidence import bounded
from llamaduo.evidence.resample import NOTHING, Measure, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SWAPS = 9_999
"""Ways to swap that a test looks at: no p-value is below one in 10,000."""

_CELLS = 4_000_000


@dataclass(frozen=True)
class Repeats:
    """How far runs that differ in their seeds alone lie apart."""

    squares: float = 0.0
    """Squared distances of the runs' means from the mean of those that repeat them, summed; points squared."""
    degrees: int = 0
    """Runs beyond the first of each setting; 0: nothing is known of training noise."""
    weight: float = 1.0
    """Squared shares of the answers that the runs have, summed: the variance of the mean is so many times a run's."""
    assumed: float = 0.0
    """Variance of the mean by training noise that is taken where nothing is known of it; points squared."""


@dataclass(frozen=True)
class ByPrompt:
    """The scores of a model's answers, summed by prompt; answers without a score are left out."""

    prompts: NDArray[Any]
    """(prompts,) text, sorted: those with a score. Prompts that are near copies of each other are one, by its name."""
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


def by_prompt(prompt_ids: NDArray[Any], values: Floats, *, training_sd: float = 0.0) -> ByPrompt:
    """Sum the scores of answers, nan where there is none, by prompt; both arrays are (answers,).

    `training_sd` is what seeds are taken to differ by, in points, where no other seed was run; 0 where nothing was
    trained or nothing is assumed.
    """
    import numpy as np

    there = ~np.isnan(values)
    prompts, where = np.unique(prompt_ids[there], return_inverse=True)
    counts = np.bincount(where, minlength=len(prompts)).astype(float)
    sums = np.bincount(where, values[there], len(prompts)).astype(float)
    return ByPrompt(prompts, sums, counts, Repeats(assumed=training_sd**2))


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
    shares = answers**2 / max(1.0, answers.sum() ** 2)
    assumed = float(shares @ [run.repeats.assumed for run in runs])
    return Repeats(squares, sum(len(means) - 1 for means in groups.values()), float(shares.sum()), assumed)


def mean(scores: ByPrompt, *, low: float = 0.0, high: float = 100.0) -> Measure:
    """Return the mean over answers with its 95% interval, of scores between `low` and `high`."""
    return means([scores], low=low, high=high)[0]


def means(several: Sequence[ByPrompt], *, low: float = 0.0, high: float = 100.0) -> list[Measure]:
    """Return the mean of each: many at once take a tenth of the time."""
    found = [NOTHING] * len(several)
    there = sorted((at for at, scores in enumerate(several) if scores.n), key=lambda at: len(several[at].prompts))
    while there:
        most = max(1, _CELLS // 20 // len(several[there[0]].prompts))
        block, there = there[:most], there[most:]
        below, above = _limits([several[at] for at in block], low, high)
        for at, least, greatest in zip(block, below, above, strict=True):
            one = several[at]
            value = rounded(float(one.sums.sum()) / one.n)
            plain = Measure(value, rounded(least), rounded(greatest), one.n, len(one.prompts))
            found[at] = cut(_with_training(plain, one), low, high)
    return found


def _limits(several: Sequence[ByPrompt], low: float, high: float) -> tuple[Floats, Floats]:
    """Return the lower and the upper limits of means, (n,) each, computed side by side."""
    import numpy as np

    shape = (len(several), max(len(one.prompts) for one in several))
    sums, counts = np.zeros(shape), np.zeros(shape)
    for row, one in enumerate(several):
        sums[row, : len(one.prompts)], counts[row, : len(one.prompts)] = one.sums, one.counts
    half = bounded.ERROR / 2
    below = bounded.lower_limits(sums, counts, half, low=low, high=high)
    above = bounded.lower_limits((low + high) * counts - sums, counts, half, low=low, high=high)
    return below, low + high - above


def difference(a: ByPrompt, b: ByPrompt, *, low: float = 0.0, high: float = 100.0) -> Measure:
    """Return the mean over a's answers minus the mean over b's; n and prompts are those of the smaller side.

    Scores are between `low` and `high`, so that a difference is at most as large as they are apart. Over the same
    prompts the interval is Gaffke's of paired differences; else it is the limits of either mean, at half the error.
    """
    if not a.n or not b.n:
        return NOTHING
    paired = in_pairs(a, b)
    found = _apart(a, b, low, high) if paired is None else _within(paired, high - low)
    return cut(_with_training(found, a, b), low - high, high - low)


def in_pairs(a: ByPrompt, b: ByPrompt) -> Floats | None:
    """Return (prompts, 4): sums and counts of a, then of b, by prompt; None where they share too few prompts."""
    import numpy as np

    shared, at_a, at_b = np.intersect1d(a.prompts, b.prompts, assume_unique=True, return_indices=True)
    if 2 * len(shared) < max(len(a.prompts), len(b.prompts)):
        return None
    return np.column_stack([a.sums[at_a], a.counts[at_a], b.sums[at_b], b.counts[at_b]])


def _within(paired: Floats, most: float) -> Measure:
    """Return the difference of the means of answers to the same prompts, at most `most` either way."""
    sums_a, counts_a, sums_b, counts_b = paired.T
    of_a, of_b = counts_a.sum(), counts_b.sum()
    parts, shares = sums_a / of_a - sums_b / of_b, (counts_a / of_a + counts_b / of_b) / 2  # shares add up to 1
    value, fewer = rounded(parts.sum()), int(min(of_a, of_b))
    below, above = bounded.limits(parts, shares, low=-most, high=most)
    return Measure(value, rounded(below), rounded(above), fewer, len(parts))


def _apart(a: ByPrompt, b: ByPrompt, low: float, high: float) -> Measure:
    """Return the difference of the means of answers to different prompts."""
    means = [float(side.sums.sum()) / side.n for side in (a, b)]
    prompts = min(len(a.prompts), len(b.prompts))
    value, fewer = rounded(means[0] - means[1]), min(a.n, b.n)
    half = bounded.ERROR / 2
    ours, theirs = (bounded.limits(side.sums, side.counts, error=half, low=low, high=high) for side in (a, b))
    return Measure(value, rounded(ours[0] - theirs[1]), rounded(ours[1] - theirs[0]), fewer, prompts)


def training_error(*sides: ByPrompt) -> tuple[float, int]:
    """Return the standard error by training noise of a mean or a difference, and its degrees of freedom.

    Where no side repeats a run, 0 degrees: the error is then the one that is assumed.
    """
    degrees = sum(side.repeats.degrees for side in sides)
    if not degrees:
        return math.sqrt(sum(side.repeats.assumed for side in sides)), 0
    variance = sum(side.repeats.squares for side in sides) / degrees
    return math.sqrt(variance * sum(side.repeats.weight for side in sides)), degrees


def _with_training(found: Measure, *sides: ByPrompt) -> Measure:
    """Widen an interval over prompts by training noise, taken to be the same on both sides."""
    return widened(found, *training_error(*sides))


def widened(found: Measure, error: float, degrees: int = 0) -> Measure:
    """Return a measure whose limits also allow for a second, independent error.

    `error` is its standard error, in the measure's unit, estimated with so many degrees of freedom; 0: it is known.
    Distances to the limits add up by their squares (Zou and Donner 2008).
    """
    from scipy.special import ndtri, stdtrit

    if found.value is None or found.low is None or found.high is None or not error:
        return found
    reach = float(stdtrit(degrees, 0.975) if degrees else ndtri(0.975)) * error
    below, above = math.hypot(found.value - found.low, reach), math.hypot(found.high - found.value, reach)
    return replace(found, low=rounded(found.value - below), high=rounded(found.value + above))


def cut(found: Measure, low: float = 0.0, high: float = 100.0) -> Measure:
    """Cut the limits of a measure to what it can be."""
    if found.low is None or found.high is None:
        return found
    return replace(found, low=max(low, found.low), high=min(high, found.high))


def p_value(a: ByPrompt, b: ByPrompt) -> float:
    """Return how likely a difference of means as large as this is where it makes none which of the two answers.

    Two-sided, from 9,999 seeded swaps, with the training noise of `difference` added to each; 1 where a side is empty.
    """
    import numpy as np
    from scipy.special import ndtr, stdtr

    if not a.n or not b.n:
        return 1.0
    paired = in_pairs(a, b)
    if paired is None:
        sides = np.column_stack([np.concatenate([a.sums, b.sums]), np.concatenate([a.counts, b.counts])])
        seen, drawn = a.sums.sum() / a.n - b.sums.sum() / b.n, _dealt(sides, len(a.prompts))
    else:
        means = paired.sum(0)
        seen, drawn = means[0] / means[1] - means[2] / means[3], _swapped(paired)
    error, degrees = training_error(a, b)
    reached = abs(float(seen)) - 1e-9
    lacking = np.concatenate([reached - drawn, reached + drawn])  # what training noise would have to add, either way
    likely: Floats = (lacking <= 0).astype(float)
    if error:
        likely = stdtr(degrees, -lacking / error) if degrees else ndtr(-lacking / error)
    return min(1.0, (1.0 + float(likely.sum())) / (1 + SWAPS))


def _swapped(paired: Floats) -> Floats:
    """Return (9,999,): differences of means with the sides swapped at random at each prompt."""
    import numpy as np

    ours, theirs = paired[:, :2], paired[:, 2:]
    moved = np.concatenate([coins @ (ours - theirs) for coins in _weights(len(paired), None)])
    one, other = theirs.sum(0) + moved, ours.sum(0) - moved
    found: Floats = one[:, 0] / one[:, 1] - other[:, 0] / other[:, 1]
    return found


def _dealt(sides: Floats, first: int) -> Floats:
    """Return (9,999,): differences of means with `first` of all prompts dealt to one side, the rest to the other."""
    import numpy as np

    one = np.concatenate([hands @ sides for hands in _weights(len(sides), first)])
    other = sides.sum(0) - one
    found: Floats = one[:, 0] / one[:, 1] - other[:, 0] / other[:, 1]
    return found


def _weights(prompts: int, first: int | None) -> Iterator[Floats]:
    """Yield blocks of (swaps, prompts), ones and zeros: a coin for each prompt, or `first` ones in each row."""
    if prompts * SWAPS <= _CELLS:
        yield _kept(prompts, first)
        return
    yield from _blocks(prompts, first)


@lru_cache(maxsize=8)
def _kept(prompts: int, first: int | None) -> Floats:
    import numpy as np

    return np.concatenate(list(_blocks(prompts, first)))


def _blocks(prompts: int, first: int | None) -> Iterator[Floats]:
    import numpy as np

    rng = np.random.default_rng(0)
    step = max(1, min(SWAPS, _CELLS // prompts))
    for start in range(0, SWAPS, step):
        drawn = rng.random((min(step, SWAPS - start), prompts), dtype=np.float32)
        if first is None:
            yield (drawn < 0.5).astype(float)
        else:
            yield (drawn.argsort(1).argsort(1) < first).astype(float)


def holm(p_values: Sequence[float], error: float = 0.05) -> list[bool]:
    """Tell which of a family of claims stand, so that any false one is among them in at most `error` of cases.

    Holm (1979): the smallest p-value has to be below the error over all claims, the next below that over the rest ...
    """
    stands = [False] * len(p_values)
    for place, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[at] > error / (len(p_values) - place):
            break
        stands[at] = True
    return stands
