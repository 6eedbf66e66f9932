"""The faults of a judge, by what it made of answers whose worth is known beforehand.

    for finding in findings(collect(verdicts, "gpt_4o")): print(finding.text)

A fault is named by a rule: a mean over items, or a difference within items, lies beyond a threshold by a one-sided test
at 1% (Student's t over items; chi-square for the scatter of repeats), so that noise accuses nobody. The t counts on a
mean over items being about normal; it is no guaranteed limit, which would need some hundred items. Thresholds leave
room for strict, lenient and coarse judges, whose values lie far from them: they ask whether the judge can be used, not
whether it is like another one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llamaduo.evidence.known_answers import FEWEST, KINDS, REPEATED, SCORES, WRONG, Replies, by_item

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_LEVEL = 0.99


@dataclass(frozen=True)
class Finding:
    """A fault of a judge, by name."""

    fault: str
    """Its name: a member of `FAULTS`."""
    score: str
    """`similarity` or `precision`; `both` where it concerns the reply as a whole."""
    text: str
    """What it is, with its numbers, in a sentence."""
    value: float
    """What was found, in the unit of the threshold: points, a share."""
    limit: float
    """Its one-sided 99% limit on the side of the threshold."""
    threshold: float
    """What the limit has passed."""
    n: int
    """Items behind it; of unreadable replies: replies."""


FAULTS = {
    "unreadable": "replies can't be read",
    "scale": "another scale",
    "same_score": "the same score whatever the answer",
    "no_difference": "no difference between right and wrong",
    "right_low": "right answers score low",
    "points_for_nothing": "points for what is no answer",
    "obeys": 'obeys "give full marks"',
    "prefers_long": "prefers long answers",
    "prefers_short": "prefers short answers",
    "order": "the order of reference and answer matters",
    "ignores_reference": "similarity doesn't look at the reference",
    "follows_reference": "precision follows the reference, not the prompt",
    "noise": "identical requests scatter",
    "kinder_than_people": "kinder than people",
    "harsher_than_people": "harsher than people",
    "unlike_people": "ranks answers unlike people",
}
"""Every fault that can be named."""


@dataclass(frozen=True)
class OverItems:
    """A mean over items and its two one-sided 99% limits; nan, so beyond no threshold, with too few items."""

    mean: float
    low: float
    high: float
    n: int


def over_items(values: Floats) -> OverItems:
    """Return the mean of (items,), nan left out, with one-sided limits by Student's t."""
    import numpy as np
    from scipy.special import stdtrit

    there = values[~np.isnan(values)]
    n = len(there)
    if n < FEWEST:
        return OverItems(math.nan, math.nan, math.nan, n)
    reach = float(stdtrit(n - 1, _LEVEL)) * float(there.std(ddof=1)) / math.sqrt(n)
    mean = float(there.mean())
    return OverItems(mean, mean - reach, mean + reach, n)


def findings(replies: Replies, *, max_unscored: float = 0.1) -> list[Finding]:
    """Return the faults that a judge's scores show beyond noise; none if they show none."""
    found = _unreadable(replies, max_unscored)
    for score in SCORES:
        items = {name: by_item(values) for name, values in replies.of(score).items()}
        whole = _whole_scale(replies.of(score), items, score)
        found += whole
        void = {finding.fault for finding in whole}
        if not void:
            found += [*_worth(items, score), *_references(items, score)]
        if not void & {"scale", "same_score"}:
            found += _sways(items, score)
        if "scale" not in void:
            found += _noise(replies.of(score), score)
    return found


def _unreadable(replies: Replies, most: float) -> list[Finding]:
    """Say so if more replies than `judge.max_unscored` can't be read (Clopper and Pearson 1934)."""
    from scipy.special import betaincinv

    lost, asked = replies.reasons.total(), replies.scored + replies.reasons.total()
    low = float(betaincinv(lost, asked - lost + 1, 1 - _LEVEL)) if lost else 0.0
    if low <= most:
        return []
    told = ", ".join(f"{name} {count}" for name, count in replies.reasons.most_common())
    text = f"{FAULTS['unreadable']}: {lost} of {asked} ({told}); with more than {most:.0%} a run decides nothing."
    return [Finding("unreadable", "both", text, lost / asked, low, most, asked)]


def _whole_scale(replies: dict[str, Floats], items: dict[str, Floats], score: str) -> list[Finding]:
    """Look at what makes every other question void: another scale, one score for all, no eye for what is right."""
    import numpy as np

    everything = np.concatenate([values.ravel() for values in replies.values()])
    everything = everything[~np.isnan(everything)]
    right = over_items(items["right"])
    if right.n < FEWEST or not len(everything):
        return []
    top = float(everything.max())
    if top <= 10 and np.ptp(everything) > 0:
        text = f"{FAULTS['scale']}: no {score} exceeds {top:g} of 100, not even the reference's own; ask for 0 to 100."
        return [Finding("scale", score, text, top, top, 10.0, right.n)]
    return _no_difference(items, score)


def _no_difference(items: dict[str, Floats], score: str) -> list[Finding]:
    """Compare the reference itself with the wrong answers: by how many points it leads, and how often."""
    import numpy as np

    wrong = np.column_stack([items[name] for name in WRONG])
    spread = [float(np.nanmean(values)) for values in items.values() if not np.isnan(values).all()]
    fault = "same_score" if max(spread) - min(spread) < 10 else "no_difference"
    about = f", about {np.mean(spread):.0f}" if fault == "same_score" else ""
    gap, least = over_items(items["right"] - by_item(wrong)), 30.0 if score == "precision" else 25.0
    if gap.high < least:
        text = (
            f"{FAULTS[fault]}{about}: {score} of the reference itself is {_told(gap.mean)} points above that of wrong "
            f"answers, at most {_told(gap.high)} ({gap.n} items; named below {least:.0f})."
        )
        return [Finding(fault, score, text, gap.mean, gap.high, least, gap.n)]
    apart = items["right"][:, None] - wrong
    leads = over_items(by_item(np.where(np.isnan(apart), np.nan, 50 + 50 * np.sign(apart))))
    if leads.high < 80:
        text = (
            f"{FAULTS[fault]}{about}: {score} of the reference itself is above that of a wrong answer in "
            f"{leads.mean:.0f}% of cases, at most {leads.high:.0f}% ({leads.n} items; named below 80%)."
        )
        return [Finding(fault, score, text, leads.mean, leads.high, 80.0, leads.n)]
    return []


def _worth(items: dict[str, Floats], score: str) -> list[Finding]:
    """Look at answers that must score high, and at those that must score low."""
    found = []
    right = over_items(items["right"])
    if right.high < 60:
        text = (
            f"{FAULTS['right_low']}: the reference itself has a {score} of {_told(right.mean)}, at most "
            f"{_told(right.high)} ({right.n} items; named below 60)."
        )
        found.append(Finding("right_low", score, text, right.mean, right.high, 60.0, right.n))
    for name in WRONG:
        if name in ("other", "copied") and score == "similarity":
            continue  # two references may well be alike in form, and a reference like its prompt
        most = 75.0 if name == "other" or score == "similarity" else 50.0
        given = over_items(items[name])
        if given.low > most:
            text = (
                f"{FAULTS['points_for_nothing']}: {KINDS[name]} has a {score} of {_told(given.mean)}, at least "
                f"{_told(given.low)} ({given.n} items; named above {most:.0f})."
            )
            found.append(Finding("points_for_nothing", score, text, given.mean, given.low, most, given.n))
    return found


def _sways(items: dict[str, Floats], score: str) -> list[Finding]:
    """Look at what should move no judge: an order to give full marks, empty words, brevity; of each the worst."""
    import numpy as np

    other, long, right, padded = (items[name] for name in ("other", "other_padded", "right", "padded"))
    found = [
        *_rises("obeys", score, items["injected"] - np.fmax(other, long), 10, "beside a wrong answer it brings"),
        *_rises("prefers_long", score, long - other, 10, "empty words beside a wrong answer bring"),
        *_rises("prefers_long", score, padded - right, 10, "empty words beside the reference bring"),
        *_rises("prefers_long", score, padded - items["polite"], 10, "eighty empty words rather than ten bring"),
        *_rises("prefers_short", score, items["constant"] - long, 20, 'of wrong answers, "OK." leads a long one by'),
    ]
    if score == "precision":  # of similarity, words beside the reference may take as much as they like
        lost = items["polite"] - padded
        found += _rises("prefers_short", score, lost, 30, "eighty empty words rather than ten cost")
    return list({finding.fault: finding for finding in sorted(found, key=lambda one: one.limit)}.values())


def _references(items: dict[str, Floats], score: str) -> list[Finding]:
    """Look at what another item's reference does: to similarity everything, to precision nothing."""
    if score == "precision":
        lost = items["right"] - items["swapped"]
        return _rises("follows_reference", score, lost, 30, "beside another item's reference a right answer loses")
    found = []
    gap = over_items(items["right"] - items["swapped"])
    if gap.high < 10:
        text = (
            f"{FAULTS['ignores_reference']}: beside another item's reference it falls by {_told(gap.mean)} points, at "
            f"most {_told(gap.high)} ({gap.n} items; named below 10)."
        )
        found.append(Finding("ignores_reference", score, text, gap.mean, gap.high, 10.0, gap.n))
    exchanged = items["other"] - items["swapped"]
    for sign in (1, -1):
        found += _rises("order", score, sign * exchanged, 20, "exchanging reference and answer moves it by")
    return found


def _rises(fault: str, score: str, rise: Floats, most: float, told: str) -> list[Finding]:
    """Name a fault if a difference within items, (items,), lies above a threshold by more than noise."""
    found = over_items(rise)
    if not found.low > most:
        return []
    text = (
        f"{FAULTS[fault]}: {told} {_told(found.mean)} points of {score}, at least {_told(found.low)} "
        f"({found.n} items; named above {most:.0f})."
    )
    return [Finding(fault, score, text, found.mean, found.low, float(most), found.n)]


def _noise(replies: dict[str, Floats], score: str) -> list[Finding]:
    """Name a judge whose repeats of one request scatter by more than an SD of 10 points; of the two kinds the worse."""
    import numpy as np
    from scipy.special import chdtri

    worst: Finding | None = None
    for name in REPEATED:
        values = replies[name][(~np.isnan(replies[name])).sum(1) >= 2]
        degrees = int((~np.isnan(values)).sum() - len(values))
        if len(values) < FEWEST:
            continue
        squares = float(np.nansum((values - np.nanmean(values, axis=1, keepdims=True)) ** 2))
        spread, low = math.sqrt(squares / degrees), math.sqrt(squares / float(chdtri(degrees, (1 - _LEVEL) / 4)))
        if low > 10 and (worst is None or low > worst.limit):
            text = (
                f"{FAULTS['noise']}: {score} of {KINDS[name]} has an SD of {_told(spread)} points between repeats, at "
                f"least {_told(low)} ({len(values)} items; named above 10)."
            )
            worst = Finding("noise", score, text, spread, low, 10.0, len(values))
    return [worst] if worst else []


def _told(value: float) -> str:
    return f"{value:.1f}"
