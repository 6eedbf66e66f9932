"""What judges make of the same answers: how far they agree, how strict and how steady each is, whom they favour.

    values                                  (answers, judges), 0 to 100, nan where a judge gave no score
    alpha(prompt_ids, values)               Krippendorff's alpha, interval scale: 1 agreement, 0 chance
    rank_correlation(prompt_ids, a, b)      Spearman's rho or Kendall's tau-b of two judges
    strictness(prompt_ids, values, 0)       the first judge's mean minus the panel's, points of 100
    self_noise(prompt_ids, repeats)         SD between one judge's repeats on the same answer, points of 100
    family_gap(values, family)              of each answer: mean of the judges of a family minus the others' mean

Each is a `Measure`: value, 95% interval over prompts, answers and prompts behind it. Strictness is a mean of what is
bounded and has limits that hold (`bounded`); the others' are a bootstrap's and a jackknife's, approximate for few
prompts. `prompt_ids` are (answers,) text; prompts that are near copies of each other go by one name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from llamaduo.evidence.compare import by_prompt, mean
from llamaduo.evidence.resample import Measure, measure, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_GROUPS = 20
"""Groups of prompts that the jackknife leaves out in turn."""
_MOST = 20_000
"""Answers that a rank correlation looks at; of more, every second, third ... is taken."""


def alpha(prompt_ids: NDArray[Any], values: Floats) -> Measure:
    """Return Krippendorff's alpha over the answers that two judges or more scored (Krippendorff 2011)."""
    import numpy as np

    scores = (~np.isnan(values)).sum(1)
    pairable = scores >= 2
    of, scores = values[pairable] - _middle(values), scores[pairable]
    within = np.nansum((of - np.nanmean(of, 1, keepdims=True)) ** 2, 1)
    parts = [2 * scores / (scores - 1) * within, scores, np.nansum(of, 1), np.nansum(of**2, 1)]

    def from_sums(s: Floats) -> Floats:
        observed = s[:, 0] / s[:, 1]
        expected = 2 * (s[:, 1] * s[:, 3] - s[:, 2] ** 2) / (s[:, 1] * (s[:, 1] - 1))
        varied = expected > 1e-9  # judges that give one and the same score to everything can't agree or disagree
        found: Floats = 1 - observed / np.where(varied, expected, np.nan)
        return found

    return measure(_by_prompt(prompt_ids[pairable], parts), from_sums, int(pairable.sum()))


def _middle(values: Floats) -> float:
    """Return a number near the scores: sums of squares around it keep their digits."""
    import numpy as np

    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else 0.0


def _by_prompt(prompt_ids: NDArray[Any], parts: list[Any]) -> Floats:
    """Return (prompts, k): the sums of k columns over the answers to each prompt."""
    import numpy as np

    prompts, where = np.unique(prompt_ids, return_inverse=True)
    return np.column_stack([np.bincount(where, part, len(prompts)) for part in parts])


def rank_correlation(
    prompt_ids: NDArray[Any],
    a: Floats,
    b: Floats,
    kind: Literal["spearman", "kendall"],
    tasks: NDArray[Any] | None = None,
) -> Measure:
    """Return the rank correlation of two judges over the answers that both scored, each (answers,).

    With `tasks`, (answers,), it is the mean over tasks of the correlation within each: that some tasks are easier than
    others, which every judge sees, is no agreement on what answers better. Tasks in which there is none, such as those
    with fewer than three answers, are left out and don't count. The interval is a jackknife over at most 20 groups of
    prompts, with Student's t; there is none where a task has none without one of the groups.
    """
    import numpy as np
    from scipy.stats import kendalltau, spearmanr

    both = ~(np.isnan(a) | np.isnan(b))
    every = 1 + int(both.sum()) // _MOST
    x, y, ids = a[both][::every], b[both][::every], prompt_ids[both][::every]
    of = np.zeros(len(x), dtype=int) if tasks is None else np.unique(tasks[both][::every], return_inverse=True)[1]
    statistic = kendalltau if kind == "kendall" else spearmanr

    def correlated(some: NDArray[np.bool_]) -> float:
        if some.sum() < 3 or np.ptp(x[some]) == 0 or np.ptp(y[some]) == 0:
            return float("nan")
        return float(statistic(x[some], y[some]).statistic)

    within = [here for task in range(int(of.max(initial=0)) + 1) if np.isfinite(correlated(here := of == task))]
    used = np.any(within, axis=0) if within else np.zeros(len(x), dtype=bool)
    prompts, where = np.unique(ids[used], return_inverse=True)
    if not within:
        return Measure(None, None, None, 0, 0)
    group = np.full(len(x), -1)
    groups = min(len(prompts), _GROUPS)
    group[used] = where % groups
    whole = float(np.mean([correlated(here) for here in within]))
    left_out = [np.mean([correlated(here & (group != out)) for here in within]) for out in range(groups)]
    low, high = _jackknife(whole, np.array(left_out if groups > 2 else []))
    return Measure(rounded(whole), low, high, int(used.sum()), len(prompts))


def _jackknife(whole: float, left_out: Floats) -> tuple[float | None, float | None]:
    """Return 95% limits of a correlation from the correlations with one group left out each.

    There are none where all are equal, as in perfect agreement: that nothing scatters is no proof of certainty.
    """
    import numpy as np
    from scipy.special import stdtrit

    if not len(left_out) or not np.isfinite(left_out).all() or np.ptp(left_out) < 1e-9:
        return None, None
    groups = len(left_out)
    error = np.sqrt((groups - 1) / groups * ((left_out - left_out.mean()) ** 2).sum())
    reach = stdtrit(groups - 1, 0.975) * error
    return rounded(max(-1.0, whole - reach)), rounded(min(1.0, whole + reach))


def strictness(prompt_ids: NDArray[Any], values: Floats, judge: int) -> Measure:
    """Return a judge's mean minus the mean of all judges, over the answers that all scored; below zero is strict."""
    import numpy as np

    whole = ~np.isnan(values).any(1)
    apart = values[whole, judge] - values[whole].mean(1)
    most = 100 * (1 - 1 / values.shape[1])
    return mean(by_prompt(prompt_ids[whole], apart), low=-most, high=most)


def self_noise(prompt_ids: NDArray[Any], repeats: Floats) -> Measure:
    """Return the pooled SD between a judge's repeats, (answers, repeats), over answers scored twice or more."""
    import numpy as np

    scored = (~np.isnan(repeats)).sum(1)
    twice = scored >= 2
    of = repeats[twice]
    squares = np.nansum((of - np.nanmean(of, 1, keepdims=True)) ** 2, 1) if len(of) else np.array([])
    sums = _by_prompt(prompt_ids[twice], [squares, scored[twice] - 1])
    return measure(sums, lambda s: np.sqrt(s[:, 0] / s[:, 1]), len(of))


def family_gap(values: Floats, family: NDArray[np.bool_]) -> Floats:
    """Return (answers,): the mean of a family's judges minus that of the others; nan unless all scored.

    `family` is (judges,): which judges are of the generator's provider. Such a gap alone says little, since judges
    differ in strictness: compare it with the same judges' gap on answers that did not learn from this generator
    (`compare.difference`). What is left over points to preference leakage (arXiv 2502.01534).
    """
    found: Floats = values[:, family].mean(1) - values[:, ~family].mean(1)
    return found
