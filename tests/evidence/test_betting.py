"""Futility: certain where nothing could help, rarely wrong otherwise, however often one looks."""

import numpy as np
import pytest

from llamaduo.evidence.betting import capital, hopeless, needed_mean
from llamaduo.evidence.bounded import lower_limit

GATE, ERROR = 90.0, 0.01


def worlds(rng, prompts):
    """Yield populations of prompt scores, from evenly good to a few failures."""
    yield np.clip(100 - rng.gamma(0.5, 10, prompts), 0, 100)
    yield np.where(rng.random(prompts) < 0.03, 20.0, 99.0)
    yield 100 * rng.beta(20, 1, prompts)


def test_certain_futility_is_what_the_best_that_is_left_would_come_to():
    rng = np.random.default_rng(0)
    told = []
    for _ in range(60):
        n = int(rng.integers(3, 30))
        sums, sizes, left = (
            4 * np.clip(rng.normal(rng.uniform(75, 99), 9, n), 0, 100),
            np.full(n, 4.0),
            np.full(80 - n, 4.0),
        )
        at_best = lower_limit(np.append(sums, 100 * left), np.append(sizes, left), ERROR)
        told.append(hopeless(sums, sizes, left, gate=GATE, error=ERROR, level=0))
        assert told[-1] == (at_best < GATE)
    assert 5 < sum(told) < 55


def test_what_the_others_can_come_to_may_be_known_better():
    sums, sizes, left = [100.0] * 30, [1.0] * 30, [1.0] * 30
    assert not hopeless(sums, sizes, left, gate=GATE, error=ERROR)
    assert hopeless(sums, sizes, left, gate=GATE, error=ERROR, best=[90.0] * 30, level=0)


def test_differences_have_a_scale_of_their_own():
    asked = {"gate": -5.0, "error": ERROR, "low": -100.0, "high": 100.0}
    assert hopeless([-60.0] * 10, [1.0] * 10, [1.0] * 30, best=[2.0] * 30, **asked)
    assert not hopeless([0.0] * 10, [1.0] * 10, [1.0] * 190, best=[5.0] * 190, **asked)


@pytest.mark.parametrize("error", [0.05, 0.01, 0.2])
def test_no_limit_reaches_the_gate_below_the_needed_mean(error):
    rng = np.random.default_rng(1)
    for prompts in (4, 16, 40):
        for values in worlds(rng, prompts):
            limit = lower_limit(values, np.ones(prompts), error)
            assert values.mean() >= needed_mean(limit, np.ones(prompts), error) - 1e-6
        even = lower_limit(np.full(prompts, 95.0), np.ones(prompts), error)
        if error * (prompts + 1) <= 1:
            assert needed_mean(even, np.ones(prompts), error) == pytest.approx(95)


def false_alarms(test, level=0.05, times=600, prompts=60):
    """Return how often a test that is looked at after every prompt rejects the mean that a population really has."""
    rng = np.random.default_rng(2)
    hits = []
    for _ in range(times // 3):
        for values in worlds(rng, prompts):
            drawn = rng.permutation(values / 100)
            hits.append(test(drawn, prompts, float(drawn.mean()), level))
    return np.mean(hits)


def bets(drawn, prompts, mean, level):
    return capital(drawn, prompts, mean)[:-1].max() >= 1 / level


def looks_at_t(drawn, prompts, mean, level):
    """A test for one look, looked at after every prompt."""
    n = np.arange(2, prompts)
    means = np.cumsum(drawn)[1:-1] / n
    sds = np.array([drawn[:k].std(ddof=1) for k in n])
    return bool(((means - mean) < -1.645 * sds / np.sqrt(n)).any())


def test_a_bet_is_rarely_won_against_the_truth_however_often_one_looks():
    assert false_alarms(bets) <= 0.05
    assert false_alarms(looks_at_t) > 0.08, "a test for one look has to be seen through"


def test_a_bet_that_is_made_after_the_value_is_seen_is_won_too_often():
    def peeks(drawn, prompts, mean, level):
        return bool(np.cumprod(1 + 0.75 / (1 - mean + 0.01) * np.maximum(mean - drawn, 0)).max() >= 1 / level)

    assert false_alarms(peeks) > 0.15


def test_a_model_that_would_pass_is_hardly_ever_stopped():
    rng = np.random.default_rng(3)
    stopped, passing = 0, 0
    for _ in range(40):
        values = np.clip(100 - rng.gamma(0.1, 12, 64), 0, 100)
        gate = lower_limit(values, np.ones(64), ERROR) - 1e-6  # it just passes
        passing += 1
        drawn = rng.permutation(values)
        looks = range(8, 64, 8)
        stopped += any(hopeless(drawn[:n], np.ones(n), np.ones(64 - n), gate=gate, error=ERROR) for n in looks)
    assert passing == 40
    assert stopped == 0


def test_with_many_prompts_the_bet_stops_before_it_is_certain():
    rng = np.random.default_rng(4)
    values = np.clip(rng.normal(86, 10, 400), 0, 100)
    at = {}
    for level in (0.0, 0.005):
        at[level] = next(
            n
            for n in range(10, 401, 10)
            if hopeless(values[:n], np.ones(n), np.ones(400 - n), gate=GATE, error=ERROR, level=level)
        )
    assert at[0.005] < 0.6 * at[0.0]
