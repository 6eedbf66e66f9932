"""A judge beside people who scored some of the same answers: its mean corrected by theirs, and where it goes wrong.

    corrected_mean(prompt_ids, judged, human)      `human` is nan where nobody scored; points of 100
    against_people("precision", bias, ranks)       the faults that it shows

The judge scores all answers, people some of them. The mean is the judge's over all answers plus the mean of (human -
judge) over those that people scored: a biased judge is put right, and the better it follows people, the narrower the
interval is than that of the people's scores alone. This is the difference estimator of survey sampling (Särndal,
Swensson and Wretman 1992, section 6.3), known as prediction-powered inference (Angelopoulos et al. 2023, Science 382).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llamaduo.evidence.audit import FAULTS, Finding
from llamaduo.evidence.resample import NOTHING, Measure, rounded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BESIDE_PEOPLE = ("kinder_than_people", "harsher_than_people", "unlike_people")
"""The faults of `audit.FAULTS` that only answers show which people scored."""
FEWEST = 10
"""Prompts with a human score below which there is no interval, and nothing is named."""


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


def against_people(score: str, bias: Measure, ranks: Measure) -> list[Finding]:
    """Return the faults that answers show which people scored: judge minus people, and the rank correlation.

    Here the test is at 2.5%, by the limits of the 95% intervals; without limits nothing is named.
    """
    found = []
    for fault, sign in (("kinder_than_people", 1), ("harsher_than_people", -1)):
        limit = bias.low if sign > 0 else bias.high
        if bias.value is not None and limit is not None and bias.prompts >= FEWEST and sign * limit > 10:
            where = "above" if sign > 0 else "below"
            text = (
                f"{FAULTS[fault]}: its {score} lies {sign * bias.value:.1f} points {where} theirs, at least "
                f"{sign * limit:.1f} ({bias.n} answers; named above 10); see the corrected mean."
            )
            found.append(Finding(fault, score, text, sign * bias.value, sign * limit, 10.0, bias.n))
    if ranks.value is not None and ranks.high is not None and ranks.prompts >= FEWEST and ranks.high < 0.5:
        text = (
            f"{FAULTS['unlike_people']}: the rank correlation of its {score} with theirs is {ranks.value:.2f}, at most "
            f"{ranks.high:.2f} ({ranks.n} answers; named below 0.5)."
        )
        found.append(Finding("unlike_people", score, text, ranks.value, ranks.high, 0.5, ranks.n))
    return found
