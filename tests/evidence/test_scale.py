"""Another scale is found where scores surely are of one; a judge that finds everything bad is not taken for that."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from llamaduo.evidence.scale import FEWEST, another_scale

Draw = Callable[[random.Random], float]


def found(*scores: tuple[float, float], right: int = 0) -> int | None:
    return another_scale(scores, [True] * right + [False] * (len(scores) - right))


@pytest.mark.parametrize(
    ("scores", "top"),
    [
        ([(0.97, 0.99)] * 4, 1),
        ([(0, 0.3), (1, 0.8), (0.5, 1), (0.9, 0.9)], 1),
        ([(0.8, 90), (0.9, 95), (0.7, 60), (0.95, 100)] * 4, 1),
        ([(4, 5)] * 4, 5),
        ([(3.5, 4), (4, 4.5), (5, 5), (2, 4)], 5),
        ([(9, 10), (8, 9), (7, 10), (10, 10)], 10),
        ([(6, 7), (5, 8), (4, 3), (7, 9)] * 4, 10),
        ([(4, 90), (3, 95), (5, 60), (2, 100)] * 4, 5),
        ([(90, 8), (95, 9), (60, 7), (100, 4)] * 4, 10),
        ([(4, 0.9), (3, 0.8), (5, 0.7), (2, 1)] * 4, 5),
    ],
)
def test_a_smaller_scale_is_found(scores: list[tuple[float, float]], top: int) -> None:
    assert found(*scores) == top


@pytest.mark.parametrize(
    "scores",
    [
        [(0, 0)] * 40,
        [(1, 1)] * 40,
        [(0, 1), (1, 1), (0, 0), (1, 0)] * 10,
        [(1, 2), (0, 1), (3, 0), (1, 1)] * 10,
        [(5, 10), (0, 5), (10, 5), (0, 0)] * 10,
        [(5, 5)] * 40,
        [(10, 10)] * 40,
        [(0.5, 0), (0, 0), (0, 0), (0, 1)] * 10,
        [(4, 5)] * 39 + [(11, 11)],
        [(4, 90)] * 15,
        [(4, 5)] * (FEWEST - 1),
        [],
    ],
)
def test_what_a_judge_says_that_finds_everything_bad_is_no_other_scale(scores: list[tuple[float, float]]) -> None:
    assert found(*scores) is None


def test_right_answers_tell_a_judge_of_ones_and_zeros_and_one_that_gives_nothing_but_its_best() -> None:
    assert found(*[(1, 1)] * 3, *[(0, 0)] * 5, right=3) == 1
    assert found(*[(5, 5)] * 6, right=4) == 5
    assert found(*[(10, 90)] * 3, *[(3, 95)] * 3, right=3) == 10
    assert found(*[(1, 1)] * 8, right=4) is None
    assert found(*[(0, 0)] * 8, right=4) is None
    assert found(*[(1, 1)] * 3, *[(0, 0)] * 5) is None


def of(shares: dict[float, float]) -> Draw:
    return lambda rng: rng.choices(list(shares), list(shares.values()))[0]


def fading(mean: float, step: float) -> Draw:
    return lambda rng: min(100.0, round(step * round(rng.expovariate(1 / mean) / step), 1))


FINDS_ALL_BAD = {
    **{f"fives, about {mean}": fading(mean, 5) for mean in (2, 5, 10)},
    **{f"whole numbers, about {mean}": fading(mean, 1) for mean in (1, 2, 3, 4, 6, 8)},
    **{f"tenths, about {mean}": fading(mean, 0.1) for mean in (1, 2, 4)},
    "noughts and fives": of({0: 0.5, 5: 0.2, 10: 0.2, 20: 0.1}),
    "noughts and a few": of({0: 0.6, 1: 0.1, 2: 0.1, 5: 0.1, 10: 0.1}),
    "ones, as the paper's prompt has it": of({1: 0.6, 2: 0.05, 5: 0.2, 10: 0.15}),
    "up to three": of(dict.fromkeys((0.0, 1.0, 2.0, 3.0), 1)),
    "noise around nothing": lambda rng: max(0.0, round(rng.uniform(-2, 2), 1)),
}


@pytest.mark.parametrize("draw", FINDS_ALL_BAD.values(), ids=FINDS_ALL_BAD)
def test_made_up_judges_that_find_all_of_it_bad_are_rarely_taken_for_others(draw: Draw) -> None:
    rng = random.Random(7)
    for verdicts, most in ((4, 0.05), (16, 0.01), (64, 0.0)):
        taken = sum(found(*[(draw(rng), draw(rng)) for _ in range(verdicts)]) is not None for _ in range(1000))
        assert taken <= 1000 * most
        taken = sum(
            found(*[(draw(rng), rng.uniform(0, 100)) for _ in range(verdicts)]) is not None for _ in range(1000)
        )
        assert taken <= 1000 * most


OTHERS = {
    "to 1": (1, of({0: 0.1, 0.3: 0.2, 0.5: 0.2, 0.8: 0.3, 0.9: 0.1, 1: 0.1})),
    "to 5": (5, of({1: 0.1, 2: 0.15, 3: 0.3, 4: 0.3, 5: 0.15})),
    "to 10": (10, of({3: 0.1, 4: 0.1, 5: 0.2, 6: 0.2, 7: 0.2, 8: 0.2})),
}


@pytest.mark.parametrize(("top", "draw"), OTHERS.values(), ids=OTHERS)
def test_made_up_judges_of_a_smaller_scale_are_found(top: int, draw: Draw) -> None:
    rng = random.Random(7)
    caught = sum(found(*[(draw(rng), draw(rng)) for _ in range(16)]) == top for _ in range(1000))
    assert caught >= 950
