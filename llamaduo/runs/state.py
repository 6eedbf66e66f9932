"""The records of a run's progress: `state.json`, and the lines of `metrics.jsonl`, as `records.to_json` writes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Iteration:
    """One line of `metrics.jsonl`."""

    iteration: int
    """Number of the iteration, from 0."""
    train_rows: int
    """Rows trained on: coverage and synthetic together."""
    synthetic_rows: int
    """Synthetic rows among them."""
    skipped_rows: int
    """Rows left out because they exceed the model's context, or hold an end mark inside the response."""
    similarity_mean: float | None
    similarity_low: float | None
    similarity_high: float | None
    precision_mean: float | None
    precision_low: float | None
    precision_high: float | None
    coverage: float | None
    """Percent of answers that reach the coverage cut in both scores."""
    answers: int
    """Answers judged: prompts x K."""
    unanswered: int
    """Answers missing because the prompt exceeds the model's context."""
    scored: int
    """Verdicts with a score."""
    unscored: int
    """Verdicts without one."""
    train_loss: float | None
    """Mean loss per response token over the last epoch (nats)."""
    cost_usd: float
    """Price of the replies this iteration used: its answers', its judging's, and its new rows'."""
    seconds: float
    """Wall time of the iteration, its data's synthesis included."""
    judges: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Scores, counts and cost per panel member."""
    prompts: int = 0
    """Clusters of prompts that the scores are over: near copies of a prompt are one."""
    unjudged: int = 0
    """Answers that no judge was asked about, since the gate couldn't be passed any more."""
    spared: int = 0
    """Verdicts that were not asked for, since they couldn't change the gate's decision."""
    gate: dict[str, Any] | None = None
    """What the gate saw, a `GateLook`; null where it asks for nothing."""


@dataclass
class RunState:
    """`state.json`: the progress of a run, the one mutable record."""

    status: str = "running"
    """`running`, `done` or `failed`."""
    stop_reason: str | None = None
    """`passed`, `plateau`, `max_iterations`, `budget` or `no_new_data`; null while none applies."""
    iterations: int = 0
    """Iterations that are complete."""
    accepted_iteration: int | None = None
    """The iteration whose model passed the gate, unless the test split contradicts it."""
    cost_usd: float = 0.0
    """Price of all replies that the run used."""
    best_iteration: int | None = None
    """The iteration that scored best at the gate; the one the test split is reported for."""
    verdict: str | None = None
    """The result in a few words: what to do, and the scores that say so."""
    error: str | None = None
    """The error that ended a failed run."""
    test: dict[str, Any] | None = None
    """The test split's scorecard under `protocol=clean`."""
    test_gate: dict[str, Any] | None = None
    """What the gate's rule makes of the test split, one look at it, a `GateLook`."""
    confirmation: str | None = None
    """What the test split says of the iteration that passed: `confirmed`, `undecided` or `contradicted`."""
    decision: str | None = None
    """`switch`, `switch_with_fallback` or `stay`; null where no gate asks for anything."""
    beside: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Scorecards of those judged beside the iterations, by name and split: the ceiling and the floor."""
    details: tuple[str, ...] = ()
    """What stands behind the verdict, a sentence each."""
