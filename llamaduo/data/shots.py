"""Few-shot prompts: training pairs most like a prompt, put before it as turns of the conversation.

    shots = nearest(dev, train, 4)                  # for each prompt its 4 pairs, the most alike first
    with_shots(dev[0], shots[0])                    # the same prompt, those turns before it, the most alike last

Likeness is BM25 over words (Robertson and Zaragoza, 2009; k1 = 1.5, b = 0.75), which needs no model.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from llamaduo.records import Example

_K1, _B = 1.5, 0.75


def nearest(prompts: Sequence[Example], pool: Sequence[Example], count: int) -> list[list[Example]]:
    """Return for each prompt the pairs of the pool most like it, at most `count`, the most alike first.

    Equally alike pairs come in the pool's order. A pair with the very same prompt is never among them.
    """
    if not count:
        return [[] for _ in prompts]
    index = _Index([_words(pair) for pair in pool])
    found = []
    for example in prompts:
        scores = index.scores(_words(example))
        others = [at for at in range(len(pool)) if pool[at].prompt_id != example.prompt_id]
        best = heapq.nsmallest(count, others, key=lambda at: (-scores.get(at, 0.0), at))
        found.append([pool[at] for at in best])
    return found


def with_nearest(prompts: Sequence[Example], pool: Sequence[Example], count: int) -> list[Example]:
    """Return each prompt behind the `count` pairs of the pool most like it."""
    shots = nearest(prompts, pool, count)
    return [with_shots(example, near) for example, near in zip(prompts, shots, strict=True)]


def with_shots(example: Example, shots: Sequence[Example]) -> Example:
    """Return the example with pairs before its turns, the first of them last, behind a system turn of its own."""
    system = tuple(turn for turn in example.messages[:1] if turn["role"] == "system")
    turns: list[dict[str, Any]] = []
    for shot in reversed(shots):
        turns += [turn for turn in shot.messages if turn["role"] != "system"]
        turns.append(shot.answer)
    return replace(example, messages=(*system, *turns, *example.messages[len(system) :]))


def _words(example: Example) -> list[str]:
    return re.findall(r"\w+", example.prompt.casefold())


class _Index:
    """Which texts hold a word, and how often."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._lengths = [len(text) for text in texts]
        self._mean = sum(self._lengths) / max(1, len(texts)) or 1.0
        self._holding: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for at, text in enumerate(texts):
            for word, times in Counter(text).items():
                self._holding[word].append((at, times))

    def scores(self, query: Sequence[str]) -> dict[int, float]:
        """Return the score of each text that shares a word with the query."""
        scores: dict[int, float] = defaultdict(float)
        for word in sorted(set(query)):
            holding = self._holding.get(word, [])
            rarity = math.log(1 + (len(self._lengths) - len(holding) + 0.5) / (len(holding) + 0.5))
            for at, times in holding:
                longer = 1 - _B + _B * self._lengths[at] / self._mean
                scores[at] += rarity * times * (_K1 + 1) / (times + _K1 * longer)
        return scores
