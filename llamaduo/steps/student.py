"""What the last student tells the strategies that look at it: which training rows it finds hard, and which it fails.

    hard_for(losses, train, gate_split, verdicts, even=0.3, seed=42)      Student(weights=[0.02, 0.11, ...])
    failed_by(predictions, train)                                         Student(failed=[Failed(row, answer), ...])

Of the split at the gate its scores tell how weak a cluster of training rows is; none of its texts goes anywhere.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from llamaduo.audit.clusters import clustering
from llamaduo.data.alike import turns
from llamaduo.evidence.reference import rouge_l
from llamaduo.records import Example, Prediction, Verdict
from llamaduo.stages.weigh import RowLoss
from llamaduo.synthesis.strategy import Failed
from llamaduo.synthesis.targeted import wanted_as_seeds, weakness_by_cluster

_A_CLUSTER = 8
"""Training rows that a cluster has, about."""
_MOST_CLUSTERS = 256
_FAILED_BELOW = 70.0
"""ROUGE-L to the reference, 0 to 100, below which an answer counts as failed."""


@dataclass(frozen=True)
class Student:
    """What is known of the last student."""

    weights: Sequence[float] | None = None
    """How much each training row is wanted as a seed."""
    failed: Sequence[Failed] = ()
    """Its failed answers to training prompts, the worst first."""


def hard_for(
    losses: Sequence[RowLoss],
    train: Sequence[Example],
    gate_split: Sequence[Example],
    verdicts: Sequence[Verdict],
    *,
    even: float,
    seed: int,
) -> Student:
    """Return how much each training row is wanted as a seed, after an iteration was judged."""
    texts = [" ".join(turns(row)) for row in train]
    count = max(1, min(_MOST_CLUSTERS, math.ceil(len(texts) / _A_CLUSTER)))
    found = clustering(texts, count, seed)
    scores = _scores(verdicts)
    asked = [row for row in gate_split if row.prompt_id in scores]
    near = found.nearest([" ".join(turns(row)) for row in asked])
    known = [(where, scores[row.prompt_id]) for where, row in zip(near, asked, strict=True) if where is not None]
    weak = weakness_by_cluster(known)
    return Student(weights=wanted_as_seeds([row.loss for row in losses], found.labels, weak, floor=even))


def failed_by(predictions: Sequence[Prediction], train: Sequence[Example]) -> Student:
    """Return the student's failed answers to training prompts: those far from their reference, the worst first.

    Of several answers to a prompt the worst stands for all.
    """
    rows = {row.prompt_id: row for row in train}
    near = [(rouge_l(one.reference, one.text), one) for one in predictions]
    found = sorted((pair for pair in near if pair[0] < _FAILED_BELOW), key=lambda pair: pair[0])
    worst: dict[str, str] = {}
    for _, one in found:
        worst.setdefault(one.prompt_id, one.text)
    return Student(failed=[Failed(rows[prompt], text) for prompt, text in worst.items()])


def _scores(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """Return each judged prompt's mean precision, 0 to 100, or its similarity where no precision is given."""
    given: dict[str, list[float]] = defaultdict(list)
    for verdict in verdicts:
        score = verdict.similarity if verdict.precision is None else verdict.precision
        if score is not None:
            given[verdict.prompt_id].append(score)
    return {prompt: sum(scores) / len(scores) for prompt, scores in given.items()}
