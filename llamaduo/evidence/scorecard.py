"""From verdicts to a scorecard: means over answers, with 95% intervals.

    card = score(verdicts, coverage_cut=70, clusters=clusters(predictions))
    card.similarity.mean, card.similarity.low, card.similarity.n, card.similarity.prompts

An answer's score from one judge is the mean of that judge's scored repeats; its score is the mean over the judges that
scored it; what is reported is the mean over answers. Verdicts without a score are counted and never enter a mean. The
interval is Gaffke's over clusters of prompts (see `bounded`): all answers to a prompt go together, and so do those to
its near copies, since they are not independent.

With dear judges, who saw some of each prompt's answers, means and limits of the panel are those of what they would say
of all answers (see `two_tier`); a judge's own are over what it saw.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from llamaduo.config import plain
from llamaduo.evidence.bounded import limits
from llamaduo.evidence.two_tier import combined
from llamaduo.records import Adapter, Estimate, GateLook, Prediction, Scorecard, Verdict
from llamaduo.runs.state import Iteration

Answer = tuple[str, int]
"""A prompt's id and the sample's number."""
Clusters = Mapping[str, str]
"""The cluster of a prompt that has near copies, by the prompt's id; one that isn't named is a cluster of its own."""


def clusters(predictions: Iterable[Prediction]) -> Clusters:
    """Return the clusters that the answered prompts belong to."""
    return {p.prompt_id: p.cluster for p in predictions if p.cluster}


def score(
    verdicts: Sequence[Verdict],
    *,
    coverage_cut: float,
    clusters: Clusters | None = None,
    there: tuple[int, int] | None = None,
    dear: Collection[str] = (),
) -> Scorecard:
    """Return the scorecard of the verdicts on one model.

    `there` is how many answers and verdicts there would be if all had been asked for; without it, as many as there are.
    `dear` names the judges who were asked about some answers only.
    """
    found = clusters or {}
    judges = by_judge(verdicts)
    answers = {(verdict.prompt_id, verdict.sample) for verdict in verdicts}
    counted = _counts(verdicts)
    return Scorecard(
        similarity=_of_panel(verdicts, "similarity", found, dear),
        precision=_of_panel(verdicts, "precision", found, dear),
        coverage=_panels_coverage(verdicts, coverage_cut, dear),
        answers=len(answers),
        unanswered=len({(v.prompt_id, v.sample) for v in verdicts if v.unscored == "prompt_too_long"}),
        scored=counted["scored"],
        unscored=counted["unscored"],
        reasons=dict(Counter(v.unscored for v in verdicts if v.unscored)),
        cost_usd=sum(v.cost_usd for v in verdicts),
        judges={
            name: _one_judge(group, coverage_cut, found) | (_counted_answers(group, found) if dear else {})
            for name, group in judges.items()
        },
        criteria=_criteria(verdicts, found, dear),
        unjudged=there[0] - len(answers) if there else 0,
        spared=there[1] - len(verdicts) if there else 0,
    )


def from_tree(tree: Mapping[str, Any]) -> Scorecard:
    """Return the scorecard that `scorecard.json` holds."""
    estimates = {name: Estimate(**tree[name]) for name in ("similarity", "precision")}
    return Scorecard(**{**tree, **estimates})


def iteration_of(
    number: int, trained: Adapter, card: Scorecard, gate: GateLook | None, *, cost_usd: float, seconds: float
) -> Iteration:
    """Return an iteration's line of metrics."""
    return Iteration(
        iteration=number,
        train_rows=trained.train_rows,
        synthetic_rows=trained.synthetic_rows,
        skipped_rows=trained.skipped_rows,
        **{
            f"{name}_{limit}": getattr(getattr(card, name), limit)
            for name in ("similarity", "precision")
            for limit in ("mean", "low", "high")
        },
        coverage=card.coverage,
        answers=card.answers,
        unanswered=card.unanswered,
        scored=card.scored,
        unscored=card.unscored,
        train_loss=trained.loss,
        cost_usd=cost_usd,
        seconds=seconds,
        judges=card.judges,
        prompts=max(card.similarity.prompts, card.precision.prompts),
        unjudged=card.unjudged,
        spared=card.spared,
        gate=plain(gate) if gate else None,
    )


def _of_panel(verdicts: Sequence[Verdict], name: str, clusters: Clusters, dear: Collection[str]) -> Estimate:
    """Return the panel's estimate of a score; with dear judges, of what they would say of all answers."""
    if not dear:
        return estimate(of_answers(verdicts, name), clusters)
    cheap, some = by_tier(verdicts, name, dear)
    if not some:
        return Estimate(None, None, None, 0)
    found = combined(cheap, some, groups=clusters)
    prompts = len({clusters.get(prompt, prompt) for prompt, _ in cheap})
    mean = min(100.0, max(0.0, found.mean))
    return Estimate(round(mean, 4), round(found.low, 4), round(found.high, 4), len(cheap), prompts)


def by_tier(
    verdicts: Sequence[Verdict], name: str, dear: Collection[str], missing: float | None = None
) -> tuple[dict[Answer, float], dict[Answer, float]]:
    """Return the cheap judges' scores of all answers and the dear judges' of theirs, as `of_answers` has them.

    Prompts that lack a score from either are left out.
    """
    cheap, some = (
        of_answers([v for v in verdicts if (v.judge in dear) is tier], name, missing) for tier in (False, True)
    )
    both = {answer: value for answer, value in some.items() if answer in cheap}
    prompts = {prompt for prompt, _ in both}
    return {answer: value for answer, value in cheap.items() if answer[0] in prompts}, both


def _panels_coverage(verdicts: Sequence[Verdict], cut: float, dear: Collection[str]) -> float | None:
    """Return the panel's coverage; with dear judges, the percent that they would find covered of all answers."""
    if not dear:
        return _coverage(of_answers(verdicts, "similarity"), of_answers(verdicts, "precision"), cut)
    (cheap, some), (its_cheap, its_some) = (by_tier(verdicts, name, dear) for name in ("similarity", "precision"))
    covered, dearly = _covered(cheap, its_cheap, cut), _covered(some, its_some, cut)
    dearly = {answer: value for answer, value in dearly.items() if answer in covered}
    prompts = {prompt for prompt, _ in dearly}
    if not prompts:
        return None
    found = combined({answer: value for answer, value in covered.items() if answer[0] in prompts}, dearly)
    return round(min(100.0, max(0.0, found.mean)), 4)


def _covered(similarity: dict[Answer, float], precision: dict[Answer, float], cut: float) -> dict[Answer, float]:
    """Return of each answer with both scores 100 if both reach the cut, else 0."""
    both = similarity.keys() & precision.keys()
    return {answer: 100.0 * (min(similarity[answer], precision[answer]) >= cut) for answer in both}


def _counted_answers(verdicts: Sequence[Verdict], clusters: Clusters) -> dict[str, int]:
    """Return how many answers and clusters of prompts a judge was asked about: with dear ones, not the same of each."""
    return {
        "answers": len({(v.prompt_id, v.sample) for v in verdicts}),
        "prompts": len({clusters.get(v.prompt_id, v.prompt_id) for v in verdicts}),
    }


def _criteria(verdicts: Sequence[Verdict], clusters: Clusters, dear: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Return the estimate of each criterion, as plain values; empty where none was asked for."""
    names = dict.fromkeys(name for verdict in verdicts for name in verdict.criteria)
    return {name: asdict(_of_panel(verdicts, name, clusters, dear)) for name in names}


def by_judge(verdicts: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    """Return each panel member's verdicts, in order."""
    judges: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        judges[verdict.judge].append(verdict)
    return judges


def of_answers(verdicts: Iterable[Verdict], name: str, missing: float | None = None) -> dict[Answer, float]:
    """Return each answer's score by its name: the mean over judges of the means over their repeats.

    Verdicts without a score are left out, or count as `missing`: a bound that no missing score can break, and no score.
    """
    return _over_judges([_by_answer(group, name, missing) for group in by_judge(verdicts).values()])


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


def _one_judge(verdicts: Sequence[Verdict], cut: float, clusters: Clusters) -> dict[str, Any]:
    similarity, precision = _by_answer(verdicts, "similarity"), _by_answer(verdicts, "precision")
    row: dict[str, Any] = {}
    for name, values in (("similarity", similarity), ("precision", precision)):
        found = estimate(values, clusters)
        row |= {f"{name}_mean": found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
    return row | {
        "coverage": _coverage(similarity, precision, cut),
        **_counts(verdicts),
        "cost_usd": sum(verdict.cost_usd for verdict in verdicts),
        **({"criteria": criteria} if (criteria := _criteria(verdicts, clusters)) else {}),
    }


def _by_answer(verdicts: Iterable[Verdict], name: str, missing: float | None = None) -> dict[Answer, float]:
    """Return each answer's mean over the repeats of one judge: the scored ones, or all, the others as `missing`.

    A judge whose replies hold no such score, as metrics give no precision, has none to be missing.
    """
    scores: dict[Answer, list[float]] = defaultdict(list)
    lacking: dict[Answer, int] = Counter()
    silent = False
    for verdict in verdicts:
        value = verdict.criteria[name] if name in verdict.criteria else getattr(verdict, name, None)
        if verdict.unscored is not None:
            lacking[verdict.prompt_id, verdict.sample] += 1
        elif value is None:
            silent = True
        else:
            scores[verdict.prompt_id, verdict.sample].append(value)
    if missing is not None and (scores or not silent):
        for answer, count in lacking.items():
            scores[answer] += [missing] * count
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


def estimate(scores: Mapping[Answer, float], clusters: Clusters) -> Estimate:
    """Return the mean over answers and its 95% interval."""
    if not scores:
        return Estimate(None, None, None, 0)
    sums, sizes = sums_by_cluster(scores, clusters)
    low, high = limits(sums, sizes)
    mean = sum(sums) / sum(sizes)
    return Estimate(round(mean, 4), round(low, 4), round(high, 4), len(scores), len(sums))


def sums_by_cluster(scores: Mapping[Answer, float], clusters: Clusters) -> tuple[list[float], list[int]]:
    """Return of each cluster, in a fixed order, the sum of its answers' scores and how many they are."""
    groups: dict[str, list[float]] = defaultdict(list)
    for answer in sorted(scores):
        groups[clusters.get(answer[0], answer[0])].append(scores[answer])
    return [sum(group) for group in groups.values()], [len(group) for group in groups.values()]
