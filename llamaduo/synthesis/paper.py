"""`synthesis=paper`: training pairs in turn, with the paper's prompt (appendix of arXiv 2408.13467), word for word.

It names no count: how many pairs come back is the service LLM's choice.
"""

from __future__ import annotations

from llamaduo.synthesis.pairs import in_turn, numbers, read, shown
from llamaduo.synthesis.strategy import Asked, Situation

__all__ = ["plan", "read"]


def plan(situation: Situation, wanted: int, first: int) -> list[Asked]:
    """Return what is asked for about `wanted` new pairs."""
    seeds = ((n, in_turn(n, situation.train, situation.seed)) for n in numbers(situation, wanted, first))
    return shown(situation, seeds, prompt="paper", schema=None)
