"""Records that many tests need, made of a few numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

from llamaduo.records import Example, GateLook, Prediction, prompt_id
from llamaduo.runs.state import Iteration


def iteration(
    number: int = 0, similarity: float | None = 80.0, precision: float | None = 80.0, **fields: Any
) -> Iteration:
    """Return an iteration whose limits are two points around its means; it passes a gate of 90 by its lower limits."""

    def limits(mean: float | None) -> tuple[float | None, float | None]:
        return (None, None) if mean is None else (mean - 2, mean + 2)

    known: dict[str, Any] = {
        "iteration": number,
        "train_rows": 10,
        "synthetic_rows": 0,
        "skipped_rows": 0,
        "similarity_mean": similarity,
        "similarity_low": limits(similarity)[0],
        "similarity_high": limits(similarity)[1],
        "precision_mean": precision,
        "precision_low": limits(precision)[0],
        "precision_high": limits(precision)[1],
        "coverage": 50.0,
        "answers": 100,
        "unanswered": 0,
        "scored": 100,
        "unscored": 0,
        "prompts": 50,
        "gate": gate_look(similarity, precision),
        "train_loss": 0.1,
        "cost_usd": 0.0,
        "seconds": 1.0,
    }
    return Iteration(**known | fields)


def gate_look(similarity: float | None, precision: float | None, needed: float = 90.0) -> dict[str, Any]:
    """Return what a gate of guaranteed limits saw, two points below the means."""
    means = {"similarity": similarity, "precision": precision}
    values = {name: None if mean is None else mean - 2 for name, mean in means.items()}
    upper = {name: None if mean is None else mean + 2 for name, mean in means.items()}
    passed = all(value is not None and value >= needed for value in values.values())
    seen = GateLook("lower", "guaranteed", 0.01, 50, dict.fromkeys(means, needed), values, upper, {}, passed)
    return dataclasses.asdict(seen)


def example(prompt: str, response: str = "a response", **fields: Any) -> Example:
    """Return a pair whose prompt is one user's turn."""
    messages = ({"role": "user", "content": prompt},)
    return Example(prompt_id(messages), messages, response, **fields)


def prediction(
    prompt: str = "the prompt", text: str = "the answer", sample: int = 0, finish_reason: str = "stop"
) -> Prediction:
    """Return one answer to a prompt whose reference is `the reference`."""
    where = prompt_id(({"role": "user", "content": prompt},))
    return Prediction(where, sample, prompt, "the reference", text, finish_reason, 5, 3)
