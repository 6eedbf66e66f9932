"""Percent of another model's mean: the interval is the ratio's, and holds where the truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llamaduo.evidence.compare import ByPrompt, by_prompt, difference, mean
from llamaduo.evidence.ratio import ratio
from llamaduo.evidence.resample import NOTHING, Measure


def scores(*values: float, first: int = 0, training_sd: float = 0.0) -> ByPrompt:
    ids = np.array([f"p{first + at:03d}" for at in range(len(values))])
    return by_prompt(ids, np.array(values), training_sd=training_sd)


OURS = scores(90.0, 80.0, 95.0, 60.0, 85.0, 92.0, 88.0, 75.0)
FULL = scores(*[100.0] * 8)


def test_beside_a_model_that_always_has_100_it_is_the_mean_itself() -> None:
    ours, found = mean(OURS), ratio(OURS, FULL)
    assert found.value == pytest.approx(ours.value)
    assert found.low == pytest.approx(ours.low, abs=1e-2)
    assert (found.n, found.prompts) == (8, 8)


def test_the_other_way_round_it_is_one_over_it() -> None:
    one, other = ratio(OURS, FULL), ratio(FULL, OURS)
    assert one.low is not None
    assert one.high is not None
    assert (other.value or 0) == pytest.approx(1e4 / (one.value or 1), rel=1e-4)
    assert other.low == pytest.approx(1e4 / one.high, rel=1e-4)
    assert other.high == pytest.approx(1e4 / one.low, rel=1e-4)


def test_it_leaves_100_out_where_the_difference_leaves_0_out() -> None:
    rng = np.random.default_rng(0)
    seen = []
    for apart in np.linspace(0, 40, 12):
        theirs = np.clip(rng.normal(88, 6, 60), 0, 100)
        ours, other = scores(*np.clip(theirs - apart, 0, 100)), scores(*theirs)
        seen.append(((ratio(ours, other).high or 999) < 100, (difference(ours, other).high or 0) < 0))
    assert {one for one, _ in seen} == {True, False}
    assert [one for one, _ in seen] == [other for _, other in seen]


def test_prompts_that_both_answered_badly_widen_it_less_than_two_means_would() -> None:
    level = np.random.default_rng(1).uniform(20, 95, 60)
    ours, theirs = scores(*level), scores(*(level + 5))
    found, a, b = ratio(ours, theirs), mean(ours), mean(theirs)
    naive = 100 * (a.high or 0) / (b.low or 1) - 100 * (a.low or 0) / (b.high or 1)
    assert (found.high or 999) - (found.low or 0) < 0.8 * naive


def test_training_noise_widens_it() -> None:
    values = [90.0, 80.0, 95.0, 60.0, 85.0, 92.0, 88.0, 75.0]
    still, noisy = ratio(scores(*values), FULL), ratio(scores(*values, training_sd=10.0), FULL)
    assert noisy.value == still.value
    assert (noisy.low or 0) < (still.low or 0)
    assert (noisy.high or 0) > (still.high or 999)


def test_nothing_is_said_of_other_prompts_of_zero_and_of_none() -> None:
    assert ratio(OURS, scores(*[90.0] * 8, first=100)) == NOTHING
    assert ratio(OURS, scores(*[0.0] * 8)) == NOTHING
    assert ratio(OURS, scores()) == NOTHING
    zero = ratio(scores(*[0.0] * 8), OURS)
    assert (zero.value, zero.low) == (0.0, 0.0)
    assert 0 < (zero.high or 0) < 100


def missed(interval: Callable[[ByPrompt, ByPrompt], Measure], prompts: int, times: int) -> float:
    """Return how often the lower limit lies above the truth: ours fail rarely and badly, theirs are nearly perfect."""
    rng = np.random.default_rng(prompts)
    truth, wrong = 100 * (0.1 * 5 + 0.9 * 97) / 97, 0
    for _ in range(times):
        ours = np.where(rng.random(prompts) < 0.1, 5.0, 97.0)
        found = interval(scores(*ours), scores(*[97.0] * prompts))
        wrong += (found.low or 0) > truth
    return wrong / times


@pytest.mark.parametrize("prompts", [8, 30])
def test_its_limit_is_too_high_in_no_more_cases_than_it_promises(prompts: int) -> None:
    assert missed(ratio, prompts, 150) <= 0.025 + 0.025  # and what 150 draws scatter


def test_an_interval_that_resamples_what_was_seen_would_be_too_high_far_more_often() -> None:
    def resampled(ours: ByPrompt, theirs: ByPrompt) -> Measure:
        drawn = np.random.default_rng(0).integers(0, len(ours.prompts), (400, len(ours.prompts)))
        low, high = np.quantile(100 * ours.sums[drawn].sum(1) / theirs.sums[drawn].sum(1), [0.025, 0.975])
        return Measure(0.0, low, high, ours.n, len(ours.prompts))

    assert missed(resampled, 8, 150) > 0.25
