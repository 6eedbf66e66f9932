"""Gaffke's limits: exact where the answer is known, and right often enough where only the truth is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from llamaduo.evidence.bounded import fewest, limits, log_chances, lower_limit, lower_limits, upper_limit


@pytest.mark.parametrize("error", [0.5, 0.05, 0.025, 0.01, 0.001])
@pytest.mark.parametrize(
    ("prompts", "right"), [(1, 1), (1, 0), (5, 5), (8, 7), (30, 27), (64, 60), (64, 64), (800, 750)]
)
def test_scores_of_0_and_100_have_the_limits_of_clopper_and_pearson(prompts: int, right: int, error: float) -> None:
    sums = np.r_[np.full(right, 100.0), np.zeros(prompts - right)]
    ones = np.ones(prompts)
    low = 100 * beta.ppf(error, right, prompts - right + 1) if right else 0.0
    high = 100 * beta.ppf(1 - error, right + 1, prompts - right) if right < prompts else 100.0
    assert lower_limit(sums, ones, error) == pytest.approx(low, abs=1e-5)
    assert upper_limit(sums, ones, error) == pytest.approx(high, abs=1e-5)


@pytest.mark.parametrize("prompts", [2, 8, 64, 300])
def test_the_limit_is_the_quantile_that_drawing_weights_gives(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    sizes = rng.integers(1, 5, prompts)
    sums = sizes * np.clip(100 - rng.gamma(0.5, 20, prompts), 0, 100)
    weights = rng.exponential(size=(40_000, prompts + 1))
    drawn = weights[:, :-1] @ sums / (weights[:, :-1] @ sizes + weights[:, -1] * sizes.max())
    level = (drawn <= lower_limit(sums, sizes, 0.05)).mean()
    assert level == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 40_000) ** 0.5)


def test_a_cluster_of_copies_counts_once() -> None:
    apart = lower_limit(np.repeat([100.0, 60.0, 80.0], 4), np.ones(12), 0.05)
    together = lower_limit([400.0, 240.0, 320.0], [4, 4, 4], 0.05)
    assert together == pytest.approx(lower_limit([100.0, 60.0, 80.0], np.ones(3), 0.05))
    assert together < apart - 15


def test_a_difference_has_the_limits_of_its_own_range() -> None:
    values = np.array([-3.0, 4.0, 0.0, -20.0, 1.0] * 6)
    low, high = limits(values, np.ones(30), low=-100, high=100)
    moved = limits((values + 100) / 2, np.ones(30))
    assert (low, high) == pytest.approx((2 * moved[0] - 100, 2 * moved[1] - 100))
    assert low < values.mean() < high


def test_more_prompts_and_larger_errors_raise_the_lower_limit() -> None:
    found = [lower_limit(np.full(n, 98.0), np.ones(n), 0.05) for n in (2, 8, 32, 128)]
    assert found == sorted(found)
    assert found[1] == pytest.approx(98 * 0.05 ** (1 / 8))
    assert lower_limit(np.full(8, 98.0), np.ones(8), 0.2) > found[1]


def test_nothing_and_all_zeros_say_nothing() -> None:
    assert limits([], []) == (0.0, 100.0)
    assert limits([0.0, 0.0], [4, 4])[0] == 0.0
    assert limits([0.0, 0.0], [4, 4])[1] < 100.0


@pytest.mark.parametrize(("gate", "error", "prompts"), [(90, 0.05, 29), (90, 0.01, 44), (99, 0.05, 299), (0, 0.05, 1)])
def test_the_fewest_prompts_that_can_pass(gate: float, error: float, prompts: int) -> None:
    assert fewest(gate, error) == prompts
    if gate:
        assert lower_limit(np.full(prompts, 100.0), np.ones(prompts), error) >= gate
        assert lower_limit(np.full(prompts - 1, 100.0), np.ones(prompts - 1), error) < gate
    assert fewest(100, error) is None


def test_with_few_skewed_scores_the_limit_is_above_the_truth_as_seldom_as_it_says() -> None:
    """With 8 prompts of which most are perfect, 95% intervals that only resample are too high in 40% of cases."""
    rng = np.random.default_rng(7)
    share, over, runs = 0.1, 0, 1_000
    for _ in range(runs):
        scores = np.where(rng.random(8) < share, 20.0, 99.0)
        over += lower_limit(scores, np.ones(8), 0.025) > 99 - share * 79
    assert over / runs <= 0.03


def test_many_limits_at_once_are_those_of_one_at_a_time_however_many_clusters_each_has() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.integers(0, 5, (20, 30)).astype(float)
    sums = sizes * np.clip(100 - rng.gamma(0.5, 20, sizes.shape), 0, 100)
    found = lower_limits(sums, sizes, 0.05)
    for at, limit in enumerate(found):
        there = sizes[at] > 0
        assert limit == pytest.approx(lower_limit(sums[at, there], sizes[at, there], 0.05), abs=1e-5)
    np.testing.assert_allclose(log_chances(sums, sizes, found), np.log(0.05), atol=1e-5)
    assert (log_chances(sums, sizes, found - 1) < np.log(0.05)).all()
