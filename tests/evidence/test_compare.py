"""Differences between models: by more than noise, or not said at all.

What is claimed: equal models are told apart no more often than the 95% interval allows, and models that differ are,
more often when the same prompts are compared as pairs. Nothing is claimed of very few prompts.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaduo.evidence import bounded, compare, resample
from llamaduo.evidence.compare import ByPrompt, by_prompt, difference, holm, mean, p_value, together
from llamaduo.evidence.resample import measure

NAN = float("nan")


def scores(*groups: list[float], name: str = "p") -> ByPrompt:
    ids = [f"{name}{number:03d}" for number, group in enumerate(groups) for _ in group]
    return by_prompt(np.array(ids), np.array([value for group in groups for value in group]))


def drawn(seed: int, prompts: int, *, gain: float = 0.0, name: str = "p", hardness: int = 0) -> ByPrompt:
    """Draw four answers to each prompt; `hardness` decides how hard the prompts are, `seed` the rest."""
    rng = np.random.default_rng(seed)
    level = 70 + gain + np.random.default_rng(hardness).normal(0, 12, prompts) + rng.normal(0, 5, prompts)
    return scores(*[list(one + rng.normal(0, 8, 4)) for one in level], name=name)


def test_answers_without_a_score_are_left_out() -> None:
    found = scores([80.0, NAN], [NAN, NAN], [60.0, 70.0])
    assert found.prompts.tolist() == ["p000", "p002"]
    assert (found.sums.tolist(), found.counts.tolist(), found.n) == ([80.0, 130.0], [1.0, 2.0], 3)


def test_the_mean_is_over_answers_and_not_over_prompts() -> None:
    found = mean(scores([100.0], [50.0, 50.0, 50.0]))
    assert (found.value, found.n, found.prompts) == (62.5, 4, 2)


def test_several_models_are_put_together_by_prompt() -> None:
    found = together([scores([10.0], [20.0]), scores([30.0, 50.0])])
    assert found.prompts.tolist() == ["p000", "p001"]
    assert (found.sums.tolist(), found.counts.tolist()) == ([90.0, 20.0], [3.0, 1.0])


@pytest.mark.parametrize("prompts", [2, 15, 60])
def test_the_interval_of_a_mean_is_gaffkes_over_prompts(prompts: int) -> None:
    rng = np.random.default_rng(prompts)
    groups = [list(rng.uniform(40, 100, 1 + at % 4)) for at in range(prompts)]
    found = mean(scores(*groups))
    limits = bounded.limits([sum(group) for group in groups], [len(group) for group in groups])
    assert (found.low, found.high) == pytest.approx(limits, abs=1e-4)
    assert found.low < found.value < found.high


def test_few_prompts_have_what_can_be_had() -> None:
    none, one, two = (mean(scores(*[[50.0]] * prompts)) for prompts in range(3))
    assert (none.value, none.low, none.high, none.n) == (None, None, None, 0)
    assert (one.low, one.value, one.high) == pytest.approx((50 * 0.025, 50, 100 - 50 * 0.025), abs=0.01)
    assert (two.low, two.value, two.high) == pytest.approx((50 * 0.025**0.5, 50, 100 - 50 * 0.025**0.5), abs=0.01)
    apart = difference(scores([60.0]), scores([50.0]))
    assert (apart.low, apart.value, apart.high) == pytest.approx((-100 + 110 * 0.025, 10, 100 - 90 * 0.025), abs=0.01)


def skewed(rng: np.random.Generator, prompts: int) -> ByPrompt:
    """Draw a model of which most answers are perfect and one prompt in twelve fails: its true mean is 95."""
    fails = rng.random(prompts) < 1 / 12
    return scores(*[[40.0] * 4 if failed else [100.0] * 4 for failed in fails])


def test_lower_limits_of_nearly_perfect_models_hold_where_a_bootstraps_do_not() -> None:
    rng, too_high = np.random.default_rng(1), {"gaffke": 0, "bootstrap": 0}
    for _ in range(200):
        one = skewed(rng, 15)
        drawn = measure(np.column_stack([one.sums, one.counts]), lambda s: s[:, 0] / s[:, 1], one.n)
        for name, found in (("gaffke", mean(one)), ("bootstrap", drawn)):
            too_high[name] += found.low is not None and found.low > 95.0
    assert too_high["gaffke"] <= 0.03 * 200
    assert too_high["bootstrap"] > 0.15 * 200


def test_a_pair_takes_out_what_prompts_differ_in() -> None:
    a, b = (scores(*[[base + gain] for base in range(0, 100, 5)]) for gain in (3.0, 0.0))
    paired, apart = difference(a, b), difference(a, scores(*[[float(v)] for v in range(0, 100, 5)], name="q"))
    assert (paired.value, apart.value) == (3.0, 3.0)
    # The same 3 points at each of 20 prompts; what an unseen one may show is 100 points either way.
    assert (paired.low, paired.high) == pytest.approx(bounded.limits([3.0] * 20, [1.0] * 20, low=-100), abs=1e-4)
    assert apart.low < paired.low - 10 < paired.high + 10 < apart.high
    assert p_value(a, b) < 0.001
    assert p_value(a, scores(*[[float(v)] for v in range(0, 100, 5)], name="q")) > 0.5


def test_the_limits_of_a_difference_hold_for_equal_means_that_fail_in_different_ways() -> None:
    """One model loses 60 points at one prompt in twelve, the other 5 at each: a bootstrap is too sure."""
    rng, missed = np.random.default_rng(2), {"gaffke": 0, "bootstrap": 0}
    for _ in range(200):
        a, b = skewed(rng, 15), scores(*[[95.0] * 4] * 15)
        drawn = measure(np.column_stack([a.sums - b.sums, a.counts]), lambda s: s[:, 0] / s[:, 1], a.n)
        for name, found in (("gaffke", difference(a, b)), ("bootstrap", drawn)):
            assert found.low is not None
            assert found.high is not None
            missed[name] += not found.low <= 0 <= found.high
    assert missed["gaffke"] <= 0.05 * 200
    assert missed["bootstrap"] > 0.15 * 200


def test_answers_without_a_score_do_not_move_a_difference_off_that_of_the_means() -> None:
    a, b = scores([90.0] * 4, [70.0, NAN, NAN, 60.0], [80.0] * 4), scores([85.0, NAN] * 2, [50.0] * 4, [80.0] * 4)
    found = difference(a, b)
    assert found.value == pytest.approx(float(mean(a).value) - float(mean(b).value), abs=2e-4)
    assert (found.n, found.prompts) == (10, 3)
    assert -100 <= found.low < found.value < found.high <= 100


def test_prompts_that_one_side_lacks_are_left_out_of_a_pair() -> None:
    a = scores(*[[90.0]] * 10)
    b = scores(*[[80.0]] * 9, [NAN])
    found = difference(a, b)
    assert (found.value, found.n, found.prompts) == (10.0, 9, 9)


def test_two_sides_that_share_few_prompts_are_not_taken_for_pairs() -> None:
    a, b = drawn(1, 10), drawn(2, 10)
    b = ByPrompt(np.array([f"q{n}" for n in range(6)] + a.prompts[:4].tolist()), b.sums, b.counts)
    found = difference(a, b)
    assert found.value == pytest.approx(a.sums.sum() / 40 - b.sums.sum() / 40, abs=1e-4)
    assert found.prompts == 10


@given(st.lists(st.lists(st.integers(0, 100).map(float), min_size=1, max_size=4), max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_model_never_differs_from_itself(groups: list[list[float]]) -> None:
    one = scores(*groups)
    assert p_value(one, scores(*groups)) == 1.0
    assert difference(one, scores(*groups)).value in (0.0, None)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_other_way_round_is_the_same_difference(seed: int) -> None:
    a, b = drawn(seed, 12), drawn(seed + 1, 12)
    there, back = difference(a, b), difference(b, a)
    assert there.value == pytest.approx(-(back.value or 0), abs=2e-4)
    assert there.low == pytest.approx(-(back.high or 0), abs=2e-4)


@pytest.mark.parametrize("prompts", [0, 1, 2, 5])
def test_nothing_is_said_of_fewer_than_six_prompts(prompts: int) -> None:
    """All pointing one way has a chance of 2 in 2^5 with five prompts, of 2 in 2^6 with six."""
    best, worst = ([[level]] for level in (100.0, 0.0))
    assert p_value(scores(*best * prompts), scores(*worst * prompts)) > 0.05
    assert p_value(scores(*best * 6), scores(*worst * 6)) == pytest.approx(2 / 64, abs=0.008)


def wrongly(prompts: int, *, paired: bool, gain: float = 0.0, times: int = 300) -> float:
    """Return how often two models are told apart."""
    told = 0
    for number in range(times):
        a = drawn(2 * number, prompts, gain=gain, hardness=number)
        name, hardness = ("p", number) if paired else ("q", number + 10_000)
        told += p_value(a, drawn(2 * number + 1, prompts, name=name, hardness=hardness)) <= 0.05
    return told / times


@pytest.mark.parametrize(("prompts", "paired"), list(product((8, 15, 25), (True, False))))
def test_equal_models_are_rarely_told_apart(prompts: int, *, paired: bool) -> None:
    assert wrongly(prompts, paired=paired) <= 0.08  # 5% and what 300 draws scatter


def test_models_that_differ_are_told_apart_and_pairs_see_more() -> None:
    assert wrongly(15, paired=True, gain=10.0) >= 0.9
    assert wrongly(15, paired=False, gain=10.0) <= 0.6


def nearly_perfect(rng: np.random.Generator, prompts: int) -> ByPrompt:
    fails = rng.random(prompts) < 0.06
    return scores(*[[float(rng.uniform(0, 30)) if one else float(rng.uniform(98, 100))] for one in fails])


def test_the_swap_test_holds_its_level_where_resampling_does_not() -> None:
    rng, told = np.random.default_rng(4), {"swap": 0, "bootstrap": 0}
    for _ in range(300):
        a, b = (nearly_perfect(rng, 25) for _ in range(2))
        told["swap"] += p_value(a, b) <= 0.05
        found = measure(np.column_stack([a.sums - b.sums, a.counts]), lambda s: s[:, 0] / s[:, 1], a.n)
        told["bootstrap"] += not found.low <= 0 <= found.high
    assert told["swap"] <= 0.07 * 300 < told["bootstrap"]


@pytest.mark.parametrize(
    ("chances", "stands"),
    [
        ([], []),
        ([0.05], [True]),
        ([0.001, 0.02, 0.4], [True, True, False]),
        ([0.02, 0.02, 0.02], [False, False, False]),  # each alone would stand
        ([0.04, 0.001, 0.03], [False, True, False]),  # 0.03 > 0.05 / 2, and then no other
    ],
)
def test_holm_lets_stand_what_is_sure_together(chances: list[float], stands: list[bool]) -> None:
    assert holm(chances) == stands


def test_near_copies_of_a_prompt_count_once() -> None:
    ids = np.array([f"p{number:03d}" for number in range(6)])
    values = np.array([90.0, 88.0, 92.0, 60.0, 62.0, 58.0])
    single, copies = by_prompt(ids, values), by_prompt(np.repeat(["p000", "p003"], 3), values)
    one, other = mean(single), mean(copies)
    assert (one.value, one.n, one.prompts, other.value, other.n, other.prompts) == (75.0, 6, 6, 75.0, 6, 2)
    assert other.low < one.low - 10 < one.high < other.high


def models(seed: int, *, runs: int, training: float) -> tuple[ByPrompt, ByPrompt]:
    """Draw two equal models, each fine-tuned with so many seeds, between which the level scatters by `training`."""
    rng = np.random.default_rng(seed)
    hard = rng.normal(70, 12, 30)

    def run() -> ByPrompt:
        level = hard + rng.normal(0, training)
        return scores(*[list(one + rng.normal(0, 8, 4)) for one in level])

    one, other = ([run() for _ in range(runs)] for _ in range(2))
    return together(one, ["one"] * runs), together(other, ["other"] * runs)


def told_apart(*, runs: int, training: float, times: int = 150) -> float:
    return sum(p_value(*models(seed, runs=runs, training=training)) <= 0.05 for seed in range(times)) / times


@pytest.mark.parametrize(("runs", "training"), [(2, 2.0), (2, 0.0), (3, 2.0)])
def test_equal_models_of_several_seeds_are_rarely_told_apart(runs: int, training: float) -> None:
    assert told_apart(runs=runs, training=training) <= 0.09


def test_without_the_scatter_of_runs_seeds_would_be_taken_for_better_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "training_error", lambda *_: (0.0, 0))
    assert told_apart(runs=2, training=2.0) > 0.25


def prompts_alone(level: float, high: float = 100.0, low: float = 0.0) -> tuple[float, float]:
    """Return the limits of nine prompts with the same score."""
    return bounded.limits([level] * 9, [1.0] * 9, low=low, high=high)


def test_the_scatter_of_runs_widens_by_students_t() -> None:
    """Two runs 4 points apart: their mean's error adds to that of the prompts, in quadrature."""
    found = mean(together([scores(*[[70.0]] * 9), scores(*[[74.0]] * 9)], ["m", "m"]))
    below, above = prompts_alone(72.0)
    reach = 12.7062 * np.std([70, 74], ddof=1) / np.sqrt(2)
    assert (found.value, found.n, found.prompts) == (72.0, 18, 9)
    assert found.low == pytest.approx(72 - np.hypot(72 - below, reach), abs=1e-3)
    assert found.high == pytest.approx(min(100, 72 + np.hypot(above - 72, reach)), abs=1e-3)


def test_runs_of_different_settings_show_no_training_noise() -> None:
    parts = [scores(*[[70.0]] * 9), scores(*[[90.0]] * 9)]
    for settings_ in (None, ["coding", "closed_qa"]):
        found = mean(together(parts, settings_))
        assert (found.low, found.high) == pytest.approx(prompts_alone(80.0), abs=1e-3)


def test_one_sides_scatter_stands_for_the_other_too() -> None:
    several = together([scores(*[[70.0]] * 9), scores(*[[72.0]] * 9)], ["m", "m"])
    found = difference(scores(*[[75.0]] * 9), several)
    _, above = prompts_alone(4.0, low=-100.0)
    reach = 12.7062 * np.std([70, 72], ddof=1) * np.sqrt(1 + 1 / 2)
    assert found.value == 4.0
    assert found.high == pytest.approx(4 + np.hypot(above - 4, reach), abs=1e-3)
    assert p_value(scores(*[[75.0]] * 9), several) > 0.2


def one_run(level: float, sd: float, prompts: int = 60) -> ByPrompt:
    ids = np.array([f"p{number:03d}" for number in range(prompts)])
    return by_prompt(ids, np.full(prompts, level), training_sd=sd)


def test_a_single_run_is_widened_by_the_noise_that_is_assumed() -> None:
    plain, widened = mean(one_run(80.0, 0.0)), mean(one_run(80.0, 3.0))
    for ours, theirs in ((80 - widened.low, 80 - plain.low), (widened.high - 80, plain.high - 80)):
        assert ours == pytest.approx(np.hypot(theirs, 1.96 * 3), abs=1e-3)


def test_what_seeds_show_goes_before_what_is_assumed() -> None:
    runs = [one_run(80.0, 3.0), one_run(80.2, 3.0)]
    seeds, settings_ = together(runs, ["m", "m"]), together(runs, ["coding", "closed_qa"])
    reach = 12.7062 * np.std([80, 80.2], ddof=1) / np.sqrt(2)
    low, _ = bounded.limits([160.2] * 60, [2.0] * 60)
    assert 80.1 - mean(seeds).low == pytest.approx(np.hypot(80.1 - low, reach), abs=1e-3)
    # The mean of two settings, each with one run, scatters by the root of half.
    assert 80.1 - mean(settings_).low == pytest.approx(np.hypot(80.1 - low, 1.96 * 3 / np.sqrt(2)), abs=1e-3)


def test_an_assumed_noise_keeps_equal_models_together_that_prompts_alone_tell_apart() -> None:
    """Two seeds of one model, one run each: what sets them apart is training, which prompts show as a difference."""
    rng, told = np.random.default_rng(8), {0.0: 0, 2.0: 0}
    for _ in range(200):
        levels = 80 + rng.normal(0, 2.0, 2)
        for sd in told:
            told[sd] += p_value(*(one_run(float(level), sd, 30) for level in levels)) <= 0.05
    assert told[2.0] <= 0.08 * 200
    assert told[0.0] > 0.9 * 200


@pytest.mark.parametrize(("prompts", "surely"), [(15, 78.198), (2, 15.811)])
def test_a_share_of_all_or_none_has_the_limit_of_clopper_and_pearson(prompts: int, surely: float) -> None:
    every, none = (mean(scores(*[[value] * 4] * prompts)) for value in (100.0, 0.0))
    assert (every.value, every.low, every.high) == pytest.approx((100.0, surely, 100.0), abs=1e-3)
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 100 - surely), abs=1e-3)


@pytest.mark.parametrize("paired", [True, False])
def test_many_prompts_are_swapped_in_blocks_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch, *, paired: bool
) -> None:
    a, b = drawn(1, 12, gain=4.0), drawn(2, 12, name="p" if paired else "q")
    whole = p_value(a, b)
    monkeypatch.setattr(compare, "_CELLS", 10_000)
    assert 0.001 < whole < 0.9
    assert p_value(a, b) == pytest.approx(whole, abs=0.02)


def test_many_prompts_are_drawn_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.column_stack([np.random.default_rng(3).normal(size=50), np.ones(50)])

    def found() -> resample.Measure:
        return measure(sums, lambda s: s[:, 0] / s[:, 1], 50)

    whole = found()
    monkeypatch.setattr(resample, "_CELLS", 1_000)
    assert found() == whole
