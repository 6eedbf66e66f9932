"""From verdicts to a scorecard: means over answers, with 95% intervals.

An answer's score from one judge is the mean of that judge's scored repeats; its score is the mean over
the judges that scored it; what is reported is the mean over answers. Verdicts without a score are
counted and never enter a mean. The interval is a BCa bootstrap over prompts (all answers to a prompt go
together, since they are not independent), seeded, 2,000 resamples (Efron 1987; scipy's).
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from llamaduo.records import Estimate, Prediction, Scorecard, Verdict

Answer = tuple[str, int]
"""A prompt's id and the sample's number."""

_RESAMPLES = 2_000


def score(verdicts: Sequence[Verdict], *, coverage_cut: float) -> Scorecard:
    """Return the scorecard of all verdicts on one model."""
    judges: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        judges[verdict.judge].append(verdict)
    answers = sorted({(verdict.prompt_id, verdict.sample) for verdict in verdicts})
    similarity = _over_judges([_by_answer(group, "similarity") for group in judges.values()])
    precision = _over_judges([_by_answer(group, "precision") for group in judges.values()])
    counted = _counts(verdicts)
    return Scorecard(
        similarity=estimate(similarity),
        precision=estimate(precision),
        coverage=_coverage(similarity, precision, coverage_cut),
        answers=len(answers),
        unanswered=len({(v.prompt_id, v.sample) for v in verdicts if v.unscored == "prompt_too_long"}),
        scored=counted["scored"],
        unscored=counted["unscored"],
        reasons=dict(Counter(v.unscored for v in verdicts if v.unscored)),
        cost_usd=sum(v.cost_usd for v in verdicts),
        judges={name: _one_judge(group, coverage_cut) for name, group in judges.items()},
        criteria=_criteria(list(judges.values())),
    )


def _criteria(judges: Sequence[Sequence[Verdict]]) -> dict[str, dict[str, Any]]:
    """Return the estimate of each criterion over these judges, as plain values; empty where none was asked for."""
    names = dict.fromkeys(name for group in judges for verdict in group for name in verdict.criteria)
    return {name: asdict(estimate(_over_judges([_by_answer(group, name) for group in judges]))) for name in names}


def unscored(verdicts: Sequence[Verdict]) -> tuple[float, dict[str, int]]:
    """Return the share of verdicts that should carry a score and don't, 0 to 1, and how often each reason came up."""
    counted = _counts(verdicts)
    total = counted["scored"] + counted["unscored"]
    reasons = Counter(v.unscored for v in verdicts if v.unscored not in (None, "prompt_too_long"))
    return (counted["unscored"] / total if total else 0.0), {str(name): count for name, count in reasons.items()}


def unanswered(predictions: Iterable[Prediction]) -> Counter[str]:
    """Return how often each reason for a missing answer came up, prompts beyond the context left out."""
    reasons = (p.finish_reason for p in predictions if not p.answered)
    return Counter(reason for reason in reasons if reason != "prompt_too_long")


def _counts(verdicts: Iterable[Verdict]) -> dict[str, int]:
    counted = {"scored": 0, "unscored": 0}
    for verdict in verdicts:
        if verdict.unscored is None:
            counted["scored"] += 1
        elif verdict.unscored != "prompt_too_long":
            counted["unscored"] += 1
    return counted


def _one_judge(verdicts: Sequence[Verdict], cut: float) -> dict[str, Any]:
    similarity, precision = _by_answer(verdicts, "similarity"), _by_answer(verdicts, "precision")
    row: dict[str, Any] = {}
    for name, values in (("similarity", similarity), ("precision", precision)):
        found = estimate(values)
        row |= {f"{name}_mean": found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    return row | {
        "coverage": _coverage(similarity, precision, cut),
        **_counts(verdicts),
        "cost_usd": sum(verdict.cost_usd for verdict in verdicts),
        **({"criteria": criteria} if (criteria := _criteria([verdicts])) else {}),
    }


def _by_answer(verdicts: Iterable[Verdict], name: str) -> dict[Answer, float]:
    """Return each answer's mean over the scored repeats of one judge."""
    scores: dict[Answer, list[float]] = defaultdict(list)
    for verdict in verdicts:
        value = verdict.criteria[name] if name in verdict.criteria else getattr(verdict, name, None)
        if verdict.unscored is None and value is not None:
            scores[verdict.prompt_id, verdict.sample].append(value)
    return {answer: fmean(values) for answer, values in scores.items()}


def _over_judges(tables: list[dict[Answer, float]]) -> dict[Answer, float]:
    scores: dict[Answer, list[float]] = defaultdict(list)
    for table in tables:
        for answer, value in table.items():
            scores[answer].append(value)
    return {answer: fmean(values) for answer, values in scores.items()}


def _coverage(similarity: dict[Answer, float], precision: dict[Answer, float], cut: float) -> float | None:
    """Return the percent of answers with both scores that reach the cut in both; None without such answers."""
    both = similarity.keys() & precision.keys()
    if not both:
        return None
    return round(100 * sum(similarity[a] >= cut and precision[a] >= cut for a in both) / len(both), 4)


def estimate(scores: dict[Answer, float]) -> Estimate:
    """Return the mean over answers and its 95% interval; limits are None for fewer than two prompts."""
    if not scores:
        return Estimate(None, None, None, 0)
    mean = fmean(scores[answer] for answer in sorted(scores))
    groups: dict[str, list[float]] = defaultdict(list)
    for (prompt, _), value in sorted(scores.items()):
        groups[prompt].append(value)
    if len(groups) < 2:
        return Estimate(round(mean, 4), None, None, len(scores))
    if len(set(scores.values())) == 1:
        return Estimate(round(mean, 4), round(mean, 4), round(mean, 4), len(scores))
    low, high = _interval([sum(g) for g in groups.values()], [len(g) for g in groups.values()])
    return Estimate(round(mean, 4), round(low, 4), round(high, 4), len(scores))


def _interval(sums: list[float], counts: list[int]) -> tuple[float, float]:
    """Return the 95% limits of sum(sums) / sum(counts) under resampling of prompts."""
    import numpy as np
    from scipy.stats import bootstrap

    def ratio(a: Any, b: Any, axis: int = -1) -> Any:
        return np.sum(a, axis=axis) / np.sum(b, axis=axis)

    def limits(method: str) -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BCa says by a warning that it degenerates; the caller looks at the value
            found = bootstrap(
                (np.asarray(sums), np.asarray(counts, dtype=float)),
                ratio,
                paired=True,
                vectorized=True,
                n_resamples=_RESAMPLES,
                method=method,
                rng=np.random.default_rng(0),
            ).confidence_interval
        return float(found.low), float(found.high)

    low, high = limits("BCa")
    return (low, high) if np.isfinite([low, high]).all() else limits("percentile")
