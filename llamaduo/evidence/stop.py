"""When the loop stops, and why: the rules, in the order in which they are asked.

passed           every score that the gate asks for exists and reaches it, and the audit that it asks for finds no fault
max_iterations   the last iteration (or the last fixed volume) is done
plateau          `patience` iterations in a row each gained less than `min_gain` over the best before them
                 (where not all prompts are judged: may have gained less; the rest is judged, then it is asked again)
no_new_data      synthesis is off, or curation left nothing: asked by the loop after these
budget           the next call could pass the budget: raised by the service
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev

from llamaduo.config import Loop
from llamaduo.evidence.gate import SCORES
from llamaduo.evidence.scorecard import Answer, of_answers
from llamaduo.records import Verdict
from llamaduo.runs.state import Iteration

Gain = Callable[[Iteration, Iteration], float]
"""By how many points the first of two iterations is better."""

SURE = 1.28
"""Standard errors by which a gain over some of the prompts has to be above `min_gain` to rule a plateau out."""


def passes(iteration: Iteration, max_unanswered: float) -> bool:
    """Tell whether an iteration's model passed its gate; with too many answers missing nothing is decided."""
    enough = iteration.unanswered <= max_unanswered * iteration.answers
    return enough and bool(iteration.gate and iteration.gate["passed"])


def overall(iteration: Iteration) -> float:
    """Return the mean of the two mean scores, of those that exist: what gains are measured by."""
    means = [mean for mean in (iteration.similarity_mean, iteration.precision_mean) if mean is not None]
    return sum(means) / len(means) if means else 0.0


def by_means(later: Iteration, earlier: Iteration) -> float:
    """Return the gain from one iteration to another by their overall scores."""
    return overall(later) - overall(earlier)


Scores = Mapping[str, Mapping[Answer, float]]
"""Each answer's score, by `similarity` and `precision`."""


def gained(later: Scores, earlier: Scores) -> float:
    """Return the gain between two sets of answers of which not all were judged: over the prompts judged in both."""
    prompts = [{prompt for table in scores.values() for prompt, _ in table} for scores in (later, earlier)]
    both = prompts[0] & prompts[1]

    def mean(scores: Scores) -> float:
        tables = [[value for (prompt, _), value in table.items() if prompt in both] for table in scores.values()]
        means = [fmean(values) for values in tables if values]
        return fmean(means) if means else 0.0

    return mean(later) - mean(earlier)


def least_gained(later: Scores, earlier: Scores) -> float:
    """Return the least that the gain over all prompts may be, by the prompts judged in both: `SURE` errors less."""
    gains = _gains(later, earlier)
    if len(gains) < 2:
        return -math.inf
    return gained(later, earlier) - SURE * stdev(gains) / math.sqrt(len(gains))


class Gains:
    """The gains between a run's iterations, answer by answer where not all of one was judged."""

    def __init__(self) -> None:
        self._scores: dict[int, Scores] = {}
        self._later: dict[int, int] = {}
        """Verdicts that were asked for later, by iteration."""

    def know(self, number: int, verdicts: Sequence[Verdict], rest: Sequence[Verdict] | None = None) -> None:
        """Take an iteration's verdicts; `rest` are those on what was left out of them at first."""
        self._scores[number] = {name: of_answers([*verdicts, *(rest or ())], name) for name in SCORES}
        if rest is not None:
            self._later[number] = len(rest)

    def left(self, history: Sequence[Iteration], patience: int) -> list[int]:
        """Return the iterations that a plateau is about of which something was left out and not asked for since."""
        late = [iteration.iteration for iteration in history[-patience:]]
        about = (best(history[:-patience], self.gain), *late)
        return [number for number in about if history[number].unjudged and number not in self._later]

    @property
    def asked_later(self) -> int:
        """Verdicts that were left out at first and asked for since a plateau depended on them."""
        return sum(self._later.values())

    def gain(self, later: Iteration, earlier: Iteration) -> float:
        """Return by how many points an iteration is better than another, over the prompts that were judged in both."""
        if not later.unjudged and not earlier.unjudged:
            return by_means(later, earlier)
        return gained(self._scores[later.iteration], self._scores[earlier.iteration])

    def least(self, later: Iteration, earlier: Iteration) -> float:
        """Return the least that the gain may be over all prompts."""
        if all(not one.unjudged or one.iteration in self._later for one in (later, earlier)):
            return self.gain(later, earlier)
        return least_gained(self._scores[later.iteration], self._scores[earlier.iteration])


def _gains(later: Scores, earlier: Scores) -> list[float]:
    """Return by prompt the gain over the scores that both sides have of it."""
    found: dict[str, list[float]] = defaultdict(list)
    for name in later.keys() & earlier.keys():
        ours, theirs = (_by_prompt(scores[name]) for scores in (later, earlier))
        for prompt in ours.keys() & theirs.keys():
            found[prompt].append(fmean(ours[prompt]) - fmean(theirs[prompt]))
    return [fmean(gains) for gains in found.values()]


def _by_prompt(table: Mapping[Answer, float]) -> dict[str, list[float]]:
    values: dict[str, list[float]] = defaultdict(list)
    for (prompt, _), value in table.items():
        values[prompt].append(value)
    return values


def best(history: Sequence[Iteration], gain: Gain = by_means) -> int:
    """Return the number of the iteration with the highest overall score, the earliest of equals."""
    chosen = history[0]
    for iteration in history[1:]:
        if gain(iteration, chosen) > 0:
            chosen = iteration
    return chosen.iteration


def stop_reason(
    history: Sequence[Iteration],
    loop: Loop,
    max_unanswered: float,
    gain: Gain = by_means,
    least_gain: Gain | None = None,
    *,
    refused: Callable[[int], object] = lambda number: None,
) -> str | None:
    """Return which rule ends the loop after the last iteration of `history`, or None to go on.

    `least_gain` is the least that a gain may be, where that is not the gain itself; `refused` tells what an audit has
    against an iteration that passes.
    """
    if passes(history[-1], max_unanswered) and not refused(history[-1].iteration):
        return "passed"
    limit = min(loop.max_iterations, len(loop.growth.volumes) or loop.max_iterations)
    if len(history) >= limit:
        return "max_iterations"
    if loop.patience and len(history) > loop.patience:
        before = history[best(history[: -loop.patience], gain)]
        least = least_gain or gain
        if all(least(iteration, before) < loop.min_gain for iteration in history[-loop.patience :]):
            return "plateau"
    return None
