"""Which rows go into an optimizer step, and which of them into one forward pass.

    for rows in epoch_steps(lengths, config, seed=42, epoch=0):        # numbers of rows
        for batch in passes(rows, lengths, Limits.of(config)):
            ...

What an epoch's steps are depends on seed and epoch alone, so that a training that was broken off finds its place.
How a step is cut into passes changes nothing but speed and memory: the loss is a mean over the tokens of the step.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llamaduo.config import Train

_POOL = 32
"""Batches whose rows are sorted by length together."""
_PASS_TOKENS = 32
"""What a forward pass costs beside its tokens, in tokens: batches are cut further where that saves more padding."""


@dataclass(frozen=True)
class Limits:
    """What goes into one forward pass."""

    rows: int
    tokens: int | None
    """Padding included; a row that is longer goes alone."""
    packing: bool = False
    """Rows one behind the other instead of side by side."""

    @classmethod
    def of(cls, config: Train) -> Limits:
        """Return the configured limits."""
        if config.packing:
            return cls(config.batch_size, config.tokens_per_batch or config.max_length, packing=True)
        return cls(config.batch_size, config.tokens_per_batch)

    def halved(self, lengths: Sequence[int]) -> Limits | None:
        """Return limits for half of a pass that was too large, of rows of these lengths; None if it was one row."""
        if len(lengths) < 2:
            return None
        filled = sum(lengths) if self.packing else max(lengths) * len(lengths)
        return replace(self, rows=max(1, len(lengths) // 2), tokens=max(1, filled // 2))


def epoch_steps(lengths: Sequence[int], config: Train, *, seed: int, epoch: int) -> list[list[int]]:
    """Return the rows of each optimizer step of an epoch, every row once.

    A step takes `accumulation` random batches; those are of rows of like length, unless rows are packed, which
    needs none of that.
    """
    rng = random.Random(f"{seed} {epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    size = config.batch_size
    if not config.packing:
        pool = _POOL * size
        batches = []
        for start in range(0, len(order), pool):
            near = sorted(order[start : start + pool], key=lambda row: lengths[row])
            batches += [near[at : at + size] for at in range(0, len(near), size)]
        rng.shuffle(batches)
        order = [row for batch in _short_ones_last(batches, size) for row in batch]
    a_step = size * config.accumulation
    return [order[at : at + a_step] for at in range(0, len(order), a_step)]


def _short_ones_last(batches: list[list[int]], size: int) -> list[list[int]]:
    return [b for b in batches if len(b) == size] + [b for b in batches if len(b) < size]


def passes(rows: Sequence[int], lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Return how a step's rows are cut into forward passes, the largest first: what doesn't fit shows at once."""
    longest_first = sorted(rows, key=lambda row: (-lengths[row], row))
    return _packed(longest_first, lengths, limits) if limits.packing else _padded(longest_first, lengths, limits)


def _packed(rows: list[int], lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Put each row, the longest first, into the first pass that has room for it."""
    room: list[int] = []
    packs: list[list[int]] = []
    for row in rows:
        fits = (at for at, left in enumerate(room) if left >= lengths[row])
        at = next(fits, len(packs))
        if at == len(packs):
            packs.append([])
            room.append(limits.tokens or 0)
        packs[at].append(row)
        room[at] -= lengths[row]
    return packs


def _padded(rows: list[int], lengths: Sequence[int], limits: Limits) -> list[list[int]]:
    """Cut sorted rows so that all passes together cost least: each its rows times its longest, and a pass's own."""
    cost, begin = [0.0], [0]
    for end in range(1, len(rows) + 1):
        choices = []
        for start in range(end - 1, max(-1, end - 1 - limits.rows), -1):
            tokens = lengths[rows[start]] * (end - start)
            if limits.tokens and tokens > limits.tokens and end - start > 1:
                break
            choices.append((cost[start] + tokens + _PASS_TOKENS, start))
        cheapest, start = min(choices)
        cost.append(cheapest)
        begin.append(start)
    cuts, end = [], len(rows)
    while end:
        cuts.append(rows[begin[end] : end])
        end = begin[end]
    return cuts[::-1]
