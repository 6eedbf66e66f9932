"""A judge's mean, corrected by the answers that people scored too.

    corrected_mean(prompt_ids, judged, human)      `human` is nan where nobody scored; points of 100

The judge scores all answers, people some of them. The mean is the judge's over all answers plus the mean of (human -
judge) over those that people scored: a biased judge is put right, and the better it follows people, the narrower the
interval is than that of the people's scores alone. This is the difference estimator of survey sampling (Särndal,
Swensson and Wretman 1992, section 6.3), known as prediction-powered inference (Angelopoulos et al. 2023, Science 382).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llamaduo.evidence.resample import NOTHING, Measure, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FEWEST = 10
"""Prompts with a human score below which there is no interval."""


def corrected_mean(prompt_ids: NDArray[Any], judged: Floats, human: Floats) -> Measure:
    """Return the corrected mean with its 95% interval, cut to 0 and 100; n and prompts are those that people scored.

    All three are (answers,); answers that the judge did not score are left out. It holds if the answers that people
    scored are a random part of all. The interval is Student's t over prompts, all answers to a prompt together, by the
    linearised variance of the two means; its degrees of freedom are those of the prompts that people scored. It counts
    on a mean that is about normal: where nearly all scores are the same and a few far from it, ask for more labels.
    """
    import numpy as np
    from scipy.special import stdtrit

    scored = ~np.isnan(judged)
    ids, judged, human = prompt_ids[scored], judged[scored], human[scored]
    labelled = ~np.isnan(human)
    n = int(labelled.sum())
    if not n:
        return NOTHING
    apart = np.where(labelled, human - judged, 0.0)
    everywhere, correction = float(judged.mean()), float(apart.sum()) / n
    value = everywhere + correction
    prompts, where = np.unique(ids, return_inverse=True)
    people = len(np.unique(ids[labelled]))
    if people < FEWEST:
        return Measure(rounded(value), None, None, n, people)
    pull = (judged - everywhere) / len(judged) + np.where(labelled, apart - correction, 0.0) / n
    by_prompt = np.bincount(where, pull, len(prompts))
    error = math.sqrt(people / (people - 1) * float((by_prompt**2).sum()))
    reach = float(stdtrit(people - 1, 0.975)) * error
    return Measure(rounded(value), rounded(max(0.0, value - reach)), rounded(min(100.0, value + reach)), n, people)
