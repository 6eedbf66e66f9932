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

from llamaduo.evidence import compare, resample
from llamaduo.evidence.compare import ByPrompt, by_prompt, difference, differs, mean, share, together
from llamaduo.evidence.resample import FEWEST, measure

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


def test_the_interval_is_that_of_students_t_for_a_mean_of_many_equal_groups() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(50, 10, 200)
    found = mean(scores(*[[value] for value in values]))
    reach = 1.972 * values.std(ddof=1) / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - reach, abs=0.12)
    assert found.high == pytest.approx(values.mean() + reach, abs=0.12)


@pytest.mark.parametrize(("prompts", "low", "high"), [(0, None, None), (1, None, None), (2, 50.0, 50.0)])
def test_few_prompts_have_what_can_be_had(prompts: int, low: float | None, high: float | None) -> None:
    found = mean(scores(*[[50.0]] * prompts))
    assert (found.value, found.low, found.high) == (50.0 if prompts else None, low, high)


def test_a_pair_takes_out_what_prompts_differ_in() -> None:
    a, b = (scores(*[[base + gain] for base in range(0, 100, 5)]) for gain in (3.0, 0.0))
    paired, apart = difference(a, b), difference(a, scores(*[[float(v)] for v in range(0, 100, 5)], name="q"))
    assert (paired.value, paired.low, paired.high) == (3.0, 3.0, 3.0)
    assert apart.value == 3.0
    assert apart.low < -10 < 15 < apart.high
    assert (differs(a, b), apart.differs) == (True, False)


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
    assert not differs(one, scores(*groups))
    assert difference(one, scores(*groups)).value in (0.0, None)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_other_way_round_is_the_same_difference(seed: int) -> None:
    a, b = drawn(seed, 12), drawn(seed + 1, 12)
    there, back = difference(a, b), difference(b, a)
    assert there.value == pytest.approx(-(back.value or 0), abs=2e-4)
    assert there.low == pytest.approx(-(back.high or 0), abs=2e-4)


@pytest.mark.parametrize("prompts", [1, 2, FEWEST - 1])
def test_nothing_is_said_of_fewer_than_six_prompts(prompts: int) -> None:
    assert not differs(scores(*[[100.0]] * prompts), scores(*[[0.0]] * prompts))
    assert not differs(scores(*[[100.0]] * 20), scores(*[[0.0]] * prompts, name="q"))
    assert differs(scores(*[[100.0]] * FEWEST), scores(*[[0.0]] * FEWEST))


def wrongly(prompts: int, *, paired: bool, gain: float = 0.0, times: int = 300) -> float:
    """Return how often two models are told apart."""
    told = 0
    for number in range(times):
        a = drawn(2 * number, prompts, gain=gain, hardness=number)
        name, hardness = ("p", number) if paired else ("q", number + 10_000)
        told += differs(a, drawn(2 * number + 1, prompts, name=name, hardness=hardness))
    return told / times


@pytest.mark.parametrize(("prompts", "paired"), list(product((8, 15, 25), (True, False))))
def test_equal_models_are_rarely_told_apart(prompts: int, *, paired: bool) -> None:
    assert wrongly(prompts, paired=paired) <= 0.09  # 5% and what 300 draws scatter


def test_models_that_differ_are_told_apart_and_pairs_see_more() -> None:
    assert wrongly(15, paired=True, gain=10.0) >= 0.9
    assert wrongly(15, paired=False, gain=10.0) <= 0.6


def test_plain_percentiles_would_tell_too_many_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resample, "_tail", lambda _: 0.025)
    assert wrongly(8, paired=True) > 0.09


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
    return sum(differs(*models(seed, runs=runs, training=training)) for seed in range(times)) / times


@pytest.mark.parametrize(("runs", "training"), [(2, 2.0), (2, 0.0), (3, 2.0)])
def test_equal_models_of_several_seeds_are_rarely_told_apart(runs: int, training: float) -> None:
    assert told_apart(runs=runs, training=training) <= 0.09


def test_without_the_scatter_of_runs_seeds_would_be_taken_for_better_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "_with_training", lambda found, *_: found)
    assert told_apart(runs=2, training=2.0) > 0.25


def test_the_scatter_of_runs_widens_by_students_t() -> None:
    """Two runs without any noise of prompts: the interval is that of a mean of two numbers."""
    found = mean(together([scores(*[[70.0]] * 9), scores(*[[74.0]] * 9)], ["m", "m"]))
    reach = 12.7062 * np.std([70, 74], ddof=1) / np.sqrt(2)
    assert (found.value, found.n, found.prompts) == (72.0, 18, 9)
    assert (found.low, found.high) == pytest.approx((72 - reach, 72 + reach), abs=1e-3)


def test_runs_of_different_settings_show_no_training_noise() -> None:
    parts = [scores(*[[70.0]] * 9), scores(*[[90.0]] * 9)]
    for settings_ in (None, ["coding", "closed_qa"]):
        found = mean(together(parts, settings_))
        assert (found.low, found.value, found.high) == (80.0, 80.0, 80.0)


def test_one_sides_scatter_stands_for_the_other_too() -> None:
    several = together([scores(*[[70.0]] * 9), scores(*[[72.0]] * 9)], ["m", "m"])
    found = difference(scores(*[[75.0]] * 9), several)
    reach = 12.7062 * np.std([70, 72], ddof=1) * np.sqrt(1 + 1 / 2)
    assert found.value == 4.0
    assert found.high == pytest.approx(4 + reach, abs=1e-3)
    assert not found.differs


@pytest.mark.parametrize(("prompts", "surely"), [(15, 78.198), (2, 15.811)])
def test_a_share_of_all_or_none_has_the_exact_limit(prompts: int, surely: float) -> None:
    every, none = (share(scores(*[[value] * 4] * prompts)) for value in (100.0, 0.0))
    assert (every.value, every.low, every.high) == pytest.approx((100.0, surely, 100.0), abs=1e-3)
    assert (none.value, none.low, none.high) == pytest.approx((0.0, 0.0, 100 - surely), abs=1e-3)
    (only,) = [share(scores([100.0]))]
    assert (only.low, only.high) == (None, None)


def test_a_share_between_is_resampled() -> None:
    some = scores(*[[100.0, 0.0]] * 5, *[[100.0, 100.0]] * 10)
    assert share(some) == mean(some)


def test_many_prompts_are_drawn_in_blocks_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.column_stack([np.random.default_rng(3).normal(size=50), np.ones(50)])

    def found() -> resample.Measure:
        return measure(sums, lambda s: s[:, 0] / s[:, 1], 50)

    whole = found()
    monkeypatch.setattr(resample, "_CELLS", 1_000)
    assert found() == whole
