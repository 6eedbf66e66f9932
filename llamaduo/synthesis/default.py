"""`synthesis=default`: training pairs in turn, each shown once before any comes again."""

from __future__ import annotations

from llamaduo.synthesis.pairs import in_turn, numbers, read, shown
from llamaduo.synthesis.strategy import Asked, Situation

__all__ = ["plan", "read"]


def plan(situation: Situation, wanted: int, first: int) -> list[Asked]:
    """Return what is asked for about `wanted` new pairs."""
    seeds = ((n, in_turn(n, situation.train, situation.seed)) for n in numbers(situation, wanted, first))
    return shown(situation, seeds, prompt="default")
