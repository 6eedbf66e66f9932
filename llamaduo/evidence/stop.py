"""When the loop stops, and why: the rules, in the order in which they are asked.

passed           every score that the gate asks for exists and reaches it
max_iterations   the last iteration (or the last fixed volume) is done
plateau          `patience` iterations in a row each gained less than `min_gain` over the best before them
no_new_data      synthesis is off, or curation left nothing: asked by the loop after these
budget           the next call could pass the budget: raised by the service
"""

from __future__ import annotations

from collections.abc import Sequence

from llamaduo.config import Loop
from llamaduo.records import Iteration


def passes(iteration: Iteration, max_unanswered: float) -> bool:
    """Tell whether an iteration's model passed its gate; with too many answers missing nothing is decided."""
    enough = iteration.unanswered <= max_unanswered * iteration.answers
    return enough and bool(iteration.gate and iteration.gate["passed"])


def overall(iteration: Iteration) -> float:
    """Return the mean of the two mean scores, of those that exist: what gains are measured by."""
    means = [mean for mean in (iteration.similarity_mean, iteration.precision_mean) if mean is not None]
    return sum(means) / len(means) if means else 0.0


def best(history: Sequence[Iteration]) -> int:
    """Return the number of the iteration with the highest overall score, the earliest of equals."""
    return max(history, key=lambda iteration: (overall(iteration), -iteration.iteration)).iteration


def stop_reason(history: Sequence[Iteration], loop: Loop, max_unanswered: float) -> str | None:
    """Return which rule ends the loop after the last iteration of `history`, or None to go on."""
    if passes(history[-1], max_unanswered):
        return "passed"
    limit = min(loop.max_iterations, len(loop.growth.volumes) or loop.max_iterations)
    if len(history) >= limit:
        return "max_iterations"
    if loop.patience and len(history) > loop.patience:
        before = max(overall(iteration) for iteration in history[: -loop.patience])
        if all(overall(iteration) < before + loop.min_gain for iteration in history[-loop.patience :]):
            return "plateau"
    return None
