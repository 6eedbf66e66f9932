"""`synthesis=targeted`: pairs that the student finds hard are shown more often.

    weights = wanted_as_seeds(losses, cluster, weakness, floor=0.3)      # one a training row; they sum to 1

A row is wanted by its loss per response token under the last student, and by how weak the student's answers were to
the dev prompts nearest to the row's cluster. A share of all requests goes to the clusters evenly, so that none dies
out. Dev tells how much a cluster is wanted; its texts enter no prompt.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import accumulate

from llamaduo.synthesis.pairs import in_turn, numbers, read, shown
from llamaduo.synthesis.strategy import Asked, Situation

__all__ = ["plan", "read"]

_GOLDEN = 0.6180339887498949
"""Steps of this part of a circle fill it evenly, however many there are."""


def plan(situation: Situation, wanted: int, first: int) -> list[Asked]:
    """Return what is asked for about `wanted` new pairs; as `default` while no student is known."""
    train, seed, weights = situation.train, situation.seed, situation.weights
    if weights is None:
        seeds = ((n, in_turn(n, train, seed)) for n in numbers(situation, wanted, first))
    else:
        ends = list(accumulate(weights))
        begin = random.Random(f"{seed} {situation.begun}").random()
        places = ((n, (begin + n * _GOLDEN) % 1 * ends[-1]) for n in numbers(situation, wanted, first))
        seeds = ((n, train[min(bisect_right(ends, place), len(train) - 1)]) for n, place in places)
    return shown(situation, seeds, prompt="default")


def wanted_as_seeds(
    losses: Sequence[float | None], cluster: Sequence[int], weakness: dict[int, float], *, floor: float
) -> list[float]:
    """Return how much each row is wanted as a seed; the weights sum to 1.

    `losses` are nats per response token, None for a row that has none (it counts as the median one), `cluster` the
    number of each row's cluster, `weakness` how far the student is from a full score near a cluster, 0 to 1. `floor`
    is the share of all requests that goes to the clusters evenly.
    """
    rank = _ranks(losses)
    asked = [hard * weakness.get(where, _mean(weakness)) for hard, where in zip(rank, cluster, strict=True)]
    total, size = sum(asked), Counter(cluster)
    even = [1 / (len(size) * size[where]) for where in cluster]
    if not total:
        return even
    return [floor * alike + (1 - floor) * (one / total) for alike, one in zip(even, asked, strict=True)]


def weakness_by_cluster(scores: Sequence[tuple[int, float]]) -> dict[int, float]:
    """Return by cluster how far answers are from a full score, 0 to 1, drawn towards the mean where there are few.

    `scores` are (the cluster that a scored dev prompt is nearest to, its score, 0 to 100).
    """
    found: dict[int, list[float]] = defaultdict(list)
    for where, score in scores:
        found[where].append(1 - score / 100)
    usual = sum(map(sum, found.values())) / len(scores) if scores else 1.0
    return {where: (sum(ones) + usual) / (len(ones) + 1) for where, ones in found.items()}


def _ranks(losses: Sequence[float | None]) -> list[float]:
    """Return each loss as its rank, above 0 and up to 1: a few rows with a huge loss are often wrong, not hard."""
    known = sorted(loss for loss in losses if loss is not None)
    return [0.5 if loss is None else bisect_right(known, loss) / len(known) for loss in losses]


def _mean(weakness: dict[int, float]) -> float:
    return sum(weakness.values()) / len(weakness) if weakness else 1.0
