"""What stands behind a verdict: where a model is weakest, what it gets wrong, what it lost, and what would help.

    for found in weakest(judged): found.name, found.estimate.mean, found.estimate.high
    failing(judged, cut=70)           the answers that score lowest, one a prompt
    regression(judged, base, cut=70)  prompts that the base model had right, and that went wrong

Scores here are the panel's precision, or similarity where no judge gives precision. With dear judges they are the cheap
judges' alone: the verdicts that are handed in have to be of judges who saw every answer.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from llamaduo.config import Gate
from llamaduo.evidence.bounded import ERROR, upper_limit
from llamaduo.evidence.gate import COMBINED, look
from llamaduo.evidence.scorecard import Answer, clusters, estimate, of_answers, sums_by_cluster
from llamaduo.records import Estimate, GateLook, Judged, Prediction, Verdict

FEWEST = 5
"""Prompts below which nothing is said of a slice."""
_LABELS = 12
_TIMES = (2, 3, 4, 6, 8, 12)


@dataclass(frozen=True)
class Slice:
    """The answers that have something in common."""

    name: str
    """What they have in common."""
    estimate: Estimate
    """Their scores."""


@dataclass(frozen=True)
class Regression:
    """What changed from the base model to the fine-tuned one, prompt by prompt."""

    right: int
    """Prompts that the base model answers well more often than not."""
    lost: int
    """Of these, those that the fine-tuned model doesn't."""
    wrong: int
    """Prompts that the base model doesn't answer well."""
    won: int
    """Of these, those that the fine-tuned model does."""


def told_score(judged: Judged) -> str:
    """Return which score is looked at: precision where there is one."""
    return "similarity" if judged.card.precision.mean is None else "precision"


def weakest(judged: Judged, most: int = 3) -> list[Slice]:
    """Return the slices that lie below the whole, the lowest first.

    Their upper limits are below its mean, at an error of 5% for all slices that are looked at together.
    """
    scores = of_answers(judged.verdicts, told_score(judged))
    by_answer = {(p.prompt_id, p.sample): p for p in judged.predictions}
    whole = estimate(scores, {})
    near = clusters(judged.predictions)
    found = []
    slices = _slices(judged.predictions)
    for name, belongs in slices.items():
        some = {answer: value for answer, value in scores.items() if belongs(by_answer[answer])}
        made = estimate(some, near)
        if made.prompts < FEWEST or whole.mean is None:
            continue
        if upper_limit(*sums_by_cluster(some, near), ERROR / len(slices)) < whole.mean:
            found.append(Slice(name, made))
    return sorted(found, key=lambda one: one.estimate.mean or 0.0)[:most]


def _slices(predictions: Sequence[Prediction]) -> dict[str, Callable[[Prediction], bool]]:
    """Return what answers may have in common: length of prompt and reference, how they ended, the label they seek."""
    made: dict[str, Callable[[Prediction], bool]] = {"answers cut at the token limit": _cut}
    for what, length in (("prompt", _prompt_length), ("reference", _reference_length)):
        lengths = sorted({length(p) for p in predictions})
        if len(lengths) >= 3:
            low, high = lengths[len(lengths) // 3], lengths[2 * len(lengths) // 3]
            made[f"{what}s below {low:,} characters"] = partial(_between, length, 0, low)
            made[f"{what}s of {high:,} characters and more"] = partial(_between, length, high, math.inf)
    labels = {p.reference.strip() for p in predictions}
    if len(labels) <= _LABELS:
        for label in sorted(labels):
            made[f'reference "{label[:40]}"'] = partial(_labelled, label)
    return made


def _cut(prediction: Prediction) -> bool:
    return prediction.finish_reason == "length"


def _between(length: Callable[[Prediction], int], low: float, high: float, prediction: Prediction) -> bool:
    return low <= length(prediction) < high


def _labelled(label: str, prediction: Prediction) -> bool:
    return prediction.reference.strip() == label


def _prompt_length(prediction: Prediction) -> int:
    return len(prediction.prompt)


def _reference_length(prediction: Prediction) -> int:
    return len(prediction.reference)


def failing(judged: Judged, cut: float, most: int = 5) -> list[tuple[Prediction, float]]:
    """Return the answers that score lowest and below the cut, one a prompt, with their scores."""
    scores = of_answers(judged.verdicts, told_score(judged))
    by_answer = {(p.prompt_id, p.sample): p for p in judged.predictions}
    found: dict[str, tuple[Prediction, float]] = {}
    for answer in sorted(scores, key=lambda answer: (scores[answer], answer)):
        if scores[answer] < cut:
            found.setdefault(answer[0], (by_answer[answer], scores[answer]))
    return list(found.values())[:most]


def regression(judged: Judged, base: Sequence[Verdict], cut: float) -> Regression:
    """Return how many prompts went from right to wrong, and the other way, since the base model."""
    name = told_score(judged)
    ours, theirs = (_right(of_answers(verdicts, name), cut) for verdicts in (judged.verdicts, base))
    both = ours.keys() & theirs.keys()
    right = {prompt for prompt in both if theirs[prompt]}
    return Regression(
        right=len(right),
        lost=sum(not ours[prompt] for prompt in right),
        wrong=len(both) - len(right),
        won=sum(ours[prompt] for prompt in both - right),
    )


def _right(scores: dict[Answer, float], cut: float) -> dict[str, bool]:
    """Return of each prompt whether more than half of its answers reach the cut."""
    reached: dict[str, list[bool]] = defaultdict(list)
    for (prompt, _), value in scores.items():
        reached[prompt].append(value >= cut)
    return {prompt: fmean(values) > 0.5 for prompt, values in reached.items()}


def more_prompts(judged: Judged, seen: GateLook, gate: Gate, service_llm: Sequence[Verdict] | None) -> int | None:
    """Return with how many prompts like these the gate would be passed, if more of them scored alike.

    None if never, or where two tiers of judges scored them.
    """
    if seen.error is None or seen.method == COMBINED:
        return None
    near = clusters(judged.predictions)
    for times in _TIMES:
        again = [replace(v, prompt_id=f"{v.prompt_id}/{n}") for v in judged.verdicts for n in range(times)]
        theirs = service_llm and [replace(v, prompt_id=f"{v.prompt_id}/{n}") for v in service_llm for n in range(times)]
        copies = {f"{prompt}/{n}": f"{cluster}/{n}" for prompt, cluster in near.items() for n in range(times)}
        if look(again, gate, error=seen.error, clusters=copies, service_llm=theirs, method=seen.method).passed:
            return times * seen.prompts
    return None
