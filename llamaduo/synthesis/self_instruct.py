"""`synthesis=self_instruct`: earlier synthetic pairs are shown too (as Self-Instruct, arXiv 2212.10560).

Every second request shows a training pair, so that what the service LLM made up never drives out what people asked.
"""

from __future__ import annotations

from llamaduo.records import Example
from llamaduo.synthesis.pairs import in_turn, numbers, read, shown
from llamaduo.synthesis.strategy import Asked, Situation

__all__ = ["plan", "read"]


def plan(situation: Situation, wanted: int, first: int) -> list[Asked]:
    """Return what is asked for about `wanted` new pairs."""
    seeds = ((n, _seed(situation, n)) for n in numbers(situation, wanted, first))
    return shown(situation, seeds, prompt="default")


def _seed(situation: Situation, number: int) -> Example:
    if not situation.pool:
        return in_turn(number, situation.train, situation.seed)
    rows = situation.pool if number % 2 else situation.train
    return in_turn(number // 2, rows, situation.seed)
