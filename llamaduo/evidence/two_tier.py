"""Two tiers of judges: a cheap one on every answer, the dear ones on some, combined without the cheap one's bias.

    chosen(answers, share=0.25, seed=1)      which answers the dear judges see: some of each prompt's, drawn at random
    combined(cheap, dear, error=0.05)        mean and interval of what the dear judges would say of all answers
    by_cluster(cheap, dear, groups)          the values behind it, whose one-sided limits the gate looks at

Prediction-powered inference (Angelopoulos and others 2023), a prompt at a time. The dear judges see at least one answer
of *every* prompt, since prompts differ far more than answers to one prompt do; then a prompt is worth

    mean dear score of its chosen answers + weight * (mean cheap score of all its answers - that of the chosen ones)

which has the right mean whatever the cheap judge says, for any weight that is fixed beforehand. The weight is the slope
of dear on cheap scores within prompts, from 0 to 1; as in cross-fitting, each half of the prompts takes that of the
other half. A useless cheap judge gets a weight near 0.

These values are independent from prompt to prompt, so the interval is Gaffke's (`bounded`). What is assumed beyond it:
a value can lie outside of 0 to 100, where the two judges contradict each other within a prompt; each limit counts what
lies beyond on its safe side as 0 or 100, and takes no unseen prompt to be worth less (or more) than the worst one seen.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamaduo.evidence.bounded import ERROR, lower_limit, upper_limit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Answer = tuple[str, int]
"""A prompt's id and the sample's number."""


@dataclass(frozen=True)
class TwoTier:
    """What the dear judges would say of all answers."""

    mean: float
    low: float
    """Lower limit of the interval."""
    high: float
    """Upper limit."""
    weight: float
    """How much the cheap judge counts, 0 to 1: the mean over the halves."""
    prompts: int
    """Prompts behind it."""
    dear: int
    """Answers that the dear judges saw."""
    cheap: int
    """Answers that the cheap judge saw."""


def chosen(answers: Iterable[Answer], *, share: float, seed: int) -> set[Answer]:
    """Return which answers the dear judges see: about `share` of each prompt's, at least one, drawn at random."""
    by_prompt: dict[str, list[int]] = defaultdict(list)
    for prompt, sample in sorted(set(answers)):
        by_prompt[prompt].append(sample)
    found: set[Answer] = set()
    for prompt, samples in by_prompt.items():
        drawn = sorted(samples, key=lambda sample: hashlib.sha256(f"{seed}:{prompt}:{sample}".encode()).digest())
        found |= {(prompt, sample) for sample in drawn[: seen_of(len(samples), share)]}
    return found


def seen_of(samples: int, share: float) -> int:
    """Return how many of a prompt's answers the dear judges see."""
    return max(1, math.floor(share * samples + 1e-9))


def combined(
    cheap: Mapping[Answer, float],
    dear: Mapping[Answer, float],
    *,
    groups: Mapping[str, str] | None = None,
    error: float = ERROR,
) -> TwoTier:
    """Return the mean of the dear judges' scores over all answers, with its two-sided interval.

    `cheap` has a score for every answer and `dear` for those that were drawn, at least one a prompt; scores lie between
    0 and 100. `groups` names the cluster of each prompt; without it every prompt is its own.
    """
    sums, sizes, weight = by_cluster(cheap, dear, groups)
    low, high = limits(sums, sizes, error)
    mean = float(sums.sum() / sizes.sum())
    return TwoTier(mean, low, high, weight, len({prompt for prompt, _ in cheap}), len(dear), len(cheap))


def by_cluster(
    cheap: Mapping[Answer, float], dear: Mapping[Answer, float], groups: Mapping[str, str] | None = None
) -> tuple[Floats, Floats, float]:
    """Return of each cluster the sum of its answers' rectified values and how many they are, and the mean weight.

    Arguments as those of `combined`.
    """
    import numpy as np

    prompts = sorted({prompt for prompt, _ in cheap})
    at = {prompt: number for number, prompt in enumerate(prompts)}
    all_cheap, its_cheap, its_dear = (_means(scores, at) for scores in (cheap, {a: cheap[a] for a in dear}, dear))
    if not np.isfinite(its_dear).all():
        lacking = [prompt for prompt, value in zip(prompts, its_dear, strict=True) if not np.isfinite(value)]
        raise ValueError(f"{len(lacking)} prompts have no answer with a dear score, such as {lacking[0]}")
    values, weight = rectified(all_cheap, its_cheap, its_dear)
    sizes = np.bincount([at[prompt] for prompt, _ in cheap], minlength=len(prompts)).astype(float)
    names = sorted({groups.get(p, p) if groups else p for p in prompts})
    cluster = np.array([names.index(groups.get(p, p) if groups else p) for p in prompts])
    sums: Floats = np.zeros(len(names))
    counts: Floats = np.zeros(len(names))
    np.add.at(sums, cluster, values * sizes)
    np.add.at(counts, cluster, sizes)
    return sums, counts, weight


def _means(scores: Mapping[Answer, float], at: Mapping[str, int]) -> Floats:
    import numpy as np

    where = np.array([at[prompt] for prompt, _ in scores], dtype=int)
    counts = np.bincount(where, minlength=len(at))
    with np.errstate(invalid="ignore"):
        return np.bincount(where, np.array(list(scores.values()), dtype=float), len(at)) / counts


def rectified(all_cheap: Floats, its_cheap: Floats, its_dear: Floats) -> tuple[Floats, float]:
    """Return each prompt's value and the mean weight.

    Arguments are (prompts,): the mean cheap score of all answers, that of the answers that dear judges saw, and the
    mean dear score of these.
    """
    import numpy as np

    off = its_cheap - all_cheap
    half = np.arange(len(off)) % 2
    above = its_dear - all_cheap
    weights = np.array([_weight(above[half != side], off[half != side]) for side in (0, 1)])[half]
    return its_dear - weights * off, float(weights.mean())


def _weight(dear: Floats, off: Floats) -> float:
    """Return the slope within prompts, 0 to 1; 0 where the cheap scores don't differ within any."""
    spread = float((off**2).sum())
    return min(max(float(dear @ off) / spread, 0.0), 1.0) if spread > 0 else 0.0


def limits(sums: Floats, sizes: Floats, error: float) -> tuple[float, float]:
    """Return the limits of the mean of rectified values, by cluster."""
    import numpy as np

    means = sums / sizes
    low, high = min(0.0, float(means.min())), max(100.0, float(means.max()))
    below = lower_limit(np.minimum(sums, 100 * sizes), sizes, error / 2, low=low, high=100.0)
    above = upper_limit(np.maximum(sums, 0.0), sizes, error / 2, low=0.0, high=high)
    return max(0.0, below), min(100.0, above)
