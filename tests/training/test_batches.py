"""Batches: every row once an epoch, steps of the configured size, little padding, the same again for the same seed."""

from __future__ import annotations

import random
from itertools import combinations, pairwise
from typing import Any

import pytest

from llamaduo.config import Train
from llamaduo.training import batches
from llamaduo.training.batches import Limits, epoch_steps, passes


def lengths_like_texts(count: int, seed: int = 0) -> list[int]:
    rng = random.Random(seed)
    return [max(5, round(rng.lognormvariate(4.6, 0.8))) for _ in range(count)]


def config(**options: Any) -> Train:
    return Train(**{"learning_rate": 1e-3, "max_length": 2048, "batch_size": 8} | options)


def share_of_padding(lengths: list[int], settings: Train) -> float:
    processed = 0
    for rows in epoch_steps(lengths, settings, seed=1, epoch=0):
        for batch in passes(rows, lengths, Limits.of(settings)):
            processed += max(lengths[row] for row in batch) * len(batch)
    return 1 - sum(lengths) / processed


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize(("count", "accumulation"), [(1, 1), (7, 2), (8, 1), (283, 3), (1000, 2)])
def test_an_epoch_has_every_row_once_in_steps_of_the_configured_size(
    count: int, accumulation: int, packing: bool
) -> None:
    lengths = lengths_like_texts(count)
    settings = config(accumulation=accumulation, packing=packing)
    steps = epoch_steps(lengths, settings, seed=1, epoch=0)
    assert sorted(row for rows in steps for row in rows) == list(range(count))
    cuts = [passes(rows, lengths, Limits.of(settings)) for rows in steps]
    for rows, cut in zip(steps, cuts, strict=True):
        assert sorted(row for batch in cut for row in batch) == sorted(rows)
    if packing:
        assert {len(cut) for cut in cuts[:-1]} <= {8 * accumulation}  # blocks
        assert sum(map(len, cuts)) <= 1.05 * sum(lengths) / 2048 + 1
    else:
        assert {len(rows) for rows in steps[:-1]} <= {8 * accumulation}
        assert len(steps) == -(-count // (8 * accumulation))


def test_the_same_epoch_again_is_the_same_and_another_one_is_not() -> None:
    lengths = lengths_like_texts(100)
    first = epoch_steps(lengths, config(), seed=1, epoch=0)
    assert epoch_steps(lengths, config(), seed=1, epoch=0) == first
    assert epoch_steps(lengths, config(), seed=1, epoch=1) != first
    assert epoch_steps(lengths, config(), seed=2, epoch=0) != first


def test_no_pass_exceeds_its_limits_but_for_a_single_long_row() -> None:
    lengths = [*lengths_like_texts(200), 900, 1500]
    settings = config(batch_size=16, tokens_per_batch=800)
    for rows in epoch_steps(lengths, settings, seed=3, epoch=0):
        for batch in passes(rows, lengths, Limits.of(settings)):
            assert len(batch) <= 16
            assert len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= 800


def test_packs_hold_no_more_than_their_capacity_and_little_less() -> None:
    lengths = lengths_like_texts(512)
    settings = config(batch_size=512, packing=True, max_length=2048)
    (rows,) = epoch_steps(lengths, settings, seed=3, epoch=0)
    packs = passes(rows, lengths, Limits.of(settings))
    filled = [sum(lengths[row] for row in pack) for pack in packs]
    assert max(filled) <= 2048
    assert len(packs) == -(-sum(lengths) // 2048)  # as few as can be


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 2), (8, 2), (16, 1), (32, 1)])
@pytest.mark.parametrize("count", [283, 4000])
def test_little_of_what_is_processed_is_padding(batch_size: int, accumulation: int, count: int) -> None:
    settings = config(batch_size=batch_size, accumulation=accumulation)
    assert share_of_padding(lengths_like_texts(count), settings) < 0.06


def test_a_step_is_cut_where_that_costs_least() -> None:
    rng = random.Random(5)
    for _ in range(50):
        lengths = [rng.randint(5, 400) for _ in range(7)]
        limits = Limits(rng.randint(1, 7), rng.choice([None, 600]))
        rows = sorted(range(7), key=lambda row: (-lengths[row], row))

        def cost(cut: list[list[int]], lengths: list[int] = lengths) -> int:
            return sum(max(lengths[row] for row in b) * len(b) + batches._PASS_TOKENS for b in cut)

        possible = []
        for number in range(7):
            for inner in combinations(range(1, 7), number):
                edges = [0, *inner, 7]
                cut = [rows[a:b] for a, b in pairwise(edges)]
                widths = [(len(b), lengths[b[0]] * len(b)) for b in cut]
                if all(n <= limits.rows and (n == 1 or not limits.tokens or w <= limits.tokens) for n, w in widths):
                    possible.append(cost(cut))
        assert cost(passes(range(7), lengths, limits)) == min(possible)


@pytest.mark.parametrize("devices", [2, 3, 8])
@pytest.mark.parametrize(("batch_size", "packing"), [(16, False), (5, False), (1, True), (2, True)])
def test_several_devices_all_have_work(devices: int, batch_size: int, packing: bool) -> None:
    lengths = lengths_like_texts(40)
    settings = config(batch_size=batch_size, packing=packing, max_length=1000)
    for rows in epoch_steps(lengths, settings, seed=1, epoch=0):
        cut = passes(rows, lengths, Limits.of(settings), devices)
        assert sorted(row for batch in cut for row in batch) == sorted(rows)
        share = -(-len(rows) // devices)
        if packing and len(cut) < devices:  # a long row counts for several short ones
            part = max(*(lengths[row] for row in rows), -(-sum(lengths[row] for row in rows) // devices))
            assert max(sum(lengths[row] for row in batch) for batch in cut) <= part
        if not packing:
            assert max(len(batch) for batch in cut) <= share
            assert len(cut) >= -(-len(rows) // share)
        assert len(cut) >= len(passes(rows, lengths, Limits.of(settings)))


def test_what_was_too_large_is_halved_down_to_a_row() -> None:
    limits, lengths = Limits(8, None), [100] * 8
    sizes = []
    while True:
        cut = passes(range(8), lengths, limits)
        sizes.append(max(len(batch) for batch in cut))
        smaller = limits.halved([lengths[row] for row in cut[0]])
        if smaller is None:
            break
        limits = smaller
    assert sizes == [8, 4, 2, 1]
