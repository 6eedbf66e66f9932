"""Which rows go into an optimizer step, and which of them into one forward pass.

    for rows in epoch_steps(lengths, config, seed=42, epoch=0):        # numbers of rows
        for batch in passes(rows, lengths, Limits.of(config)):
            ...

What an epoch's steps are depends on seed and epoch alone, so that a training that was broken off finds its place.
How a step is cut into passes changes nothing but speed and memory: the loss is a mean over the tokens of the step.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
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

    def among(self, lengths: Sequence[int], devices: int) -> Limits:
        """Return limits that leave each of several devices its share of a step, of rows of these lengths."""
        if self.packing:
            share = max(*lengths, -(-sum(lengths) // devices))
            return replace(self, tokens=min(self.tokens or share, share))
        return replace(self, rows=min(self.rows, -(-len(lengths) // devices)))

    def halved(self, lengths: Sequence[int]) -> Limits | None:
        """Return limits for half of a pass that was too large, of rows of these lengths; None if it was one row."""
        if len(lengths) < 2:
            return None
        filled = sum(lengths) if self.packing else max(lengths) * len(lengths)
        return replace(self, rows=max(1, len(lengths) // 2), tokens=max(1, filled // 2))


def epoch_steps(lengths: Sequence[int], config: Train, *, seed: int, epoch: int) -> list[list[int]]:
    """Return the rows of each optimizer step of an epoch, every row once.

    A step takes `accumulation` random batches of `batch_size` rows of like length; with packing, `batch_size` times
    `accumulation` random blocks of up to `max_length` tokens, which are filled in the same way in every epoch.
    """
    rng = random.Random(f"{seed} {epoch}")
    every = range(len(lengths))
    if config.packing:
        blocks = _packed(_longest_first(every, lengths), lengths, config.max_length)
        rng.shuffle(blocks)
        a_step = config.batch_size * config.accumulation
    else:
        blocks = _alike(rng.sample(every, len(every)), lengths, config.batch_size)
        rng.shuffle(blocks)
        blocks.sort(key=lambda batch: len(batch) < config.batch_size)  # a short one comes last
        a_step = config.accumulation
    return [[row for block in blocks[at : at + a_step] for row in block] for at in range(0, len(blocks), a_step)]


def _alike(order: list[int], lengths: Sequence[int], size: int) -> list[list[int]]:
    """Cut rows into batches of like length, among each `_POOL` batches of the order."""
    batches = []
    for start in range(0, len(order), _POOL * size):
        near = sorted(order[start : start + _POOL * size], key=lambda row: lengths[row])
        batches += [near[at : at + size] for at in range(0, len(near), size)]
    return batches


def _longest_first(rows: Iterable[int], lengths: Sequence[int]) -> list[int]:
    return sorted(rows, key=lambda row: (-lengths[row], row))


def passes(rows: Sequence[int], lengths: Sequence[int], limits: Limits, devices: int = 1) -> list[list[int]]:
    """Return how a step's rows are cut into forward passes, the largest first: what doesn't fit shows at once.

    Several devices get passes that they can share: none takes more than its part of the rows (packed: of the tokens).
    """
    ordered = _longest_first(rows, lengths)
    shared = limits.among([lengths[row] for row in rows], devices)
    if not limits.packing:
        return _padded(ordered, lengths, shared)
    blocks = _packed(ordered, lengths, limits.tokens or 0)
    return blocks if len(blocks) >= devices else _packed(ordered, lengths, shared.tokens or 0)


def _packed(rows: list[int], lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put each row into the block with the least room that it fits into (best fit, the longest first)."""
    rooms: list[tuple[int, int]] = []
    blocks: list[list[int]] = []
    for row in rows:
        at = bisect_left(rooms, (lengths[row], 0))
        room, block = rooms.pop(at) if at < len(rooms) else (capacity, len(blocks))
        if block == len(blocks):
            blocks.append([])
        blocks[block].append(row)
        insort(rooms, (room - lengths[row], block))
    return blocks


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
