"""Agreement between judges, against worked examples, the krippendorff package and scores made with known faults."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaduo.evidence.agreement import alpha, family_gap, rank_correlation, self_noise, strictness
from llamaduo.evidence.compare import by_prompt, difference, mean, p_value

NAN = float("nan")
# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section D: four observers, twelve units, with
# missing values; interval alpha 0.849.
KRIPPENDORFF_2011 = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
).T


def ids(count: int, samples: int = 1) -> np.ndarray:
    return np.repeat(np.array([f"p{number:04d}" for number in range(count)]), samples)


def made(prompts: int = 40, samples: int = 4, *, seed: int = 0, noise: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Return prompts and the scores of three judges, who differ by -4, 0 and 5 points."""
    rng = np.random.default_rng(seed)
    quality = np.repeat(rng.normal(70, 12, prompts), samples)
    values = quality[:, None] + np.array([-4.0, 0.0, 5.0]) + rng.normal(0, noise, (len(quality), 3))
    return ids(prompts, samples), values


def test_krippendorffs_own_example() -> None:
    found = alpha(ids(12), KRIPPENDORFF_2011)
    assert found.value == pytest.approx(0.849, abs=0.0005)
    assert found.n == 11  # the twelfth unit has one value: it can't be paired
    assert found.low < 0.849 < found.high <= 1


@given(
    st.lists(
        st.lists(st.one_of(st.just(NAN), st.integers(0, 100).map(float)), min_size=3, max_size=3),
        min_size=2,
        max_size=25,
    )
)
@settings(max_examples=100, deadline=None)
def test_alpha_is_that_of_the_krippendorff_package(rows: list[list[float]]) -> None:
    values = np.array(rows)
    pairable = values[(~np.isnan(values)).sum(1) >= 2]
    found = alpha(ids(len(values)), values)
    if len(np.unique(pairable[~np.isnan(pairable)])) < 2:
        assert found.value is None
    else:
        assert found.value == pytest.approx(krippendorff.alpha(values.T, level_of_measurement="interval"), abs=1e-4)


def test_alpha_is_one_for_equal_judges_and_near_zero_for_strangers() -> None:
    rng = np.random.default_rng(2)
    same = np.repeat(rng.normal(70, 10, 200)[:, None], 3, axis=1)
    strangers = rng.normal(70, 10, (200, 3))
    assert alpha(ids(200), same).value == 1.0
    found = alpha(ids(200), strangers)
    assert found.low < 0 < found.high


def test_answers_to_one_prompt_do_not_narrow_the_interval() -> None:
    prompts, values = made(15, 1)
    once, often = alpha(prompts, values), alpha(np.tile(prompts, 30), np.tile(values, (30, 1)))
    assert often.n == 30 * once.n
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.06)


def test_nothing_to_agree_on_has_no_alpha() -> None:
    for values in (np.full((5, 3), NAN), np.full((5, 3), 80.0), np.array([[80.0, NAN, NAN]] * 5), np.zeros((0, 3))):
        found = alpha(ids(len(values)), values)
        assert (found.value, found.low, found.high) == (None, None, None)


def test_one_prompt_has_an_alpha_without_limits() -> None:
    found = alpha(ids(1, 5), np.arange(15.0).reshape(5, 3))
    assert found.value is not None
    assert (found.low, found.high, found.prompts) == (None, None, 1)


def test_rank_correlations_of_a_worked_example() -> None:
    # Kendall (1938): with four objects, one adjacent pair swapped, tau is 2/3, and Spearman's rho 1 - 6 * 2 / 60.
    a, b = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert rank_correlation(ids(4), a, b, "kendall").value == pytest.approx(2 / 3, abs=1e-4)
    assert rank_correlation(ids(4), a, b, "spearman").value == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("kind", ["kendall", "spearman"])
def test_rank_correlation_looks_at_order_alone(kind: str) -> None:
    prompts, values = made()
    a = values[:, 0]
    same = rank_correlation(prompts, a, np.exp(a / 20), kind)  # type: ignore[arg-type]
    assert (same.value, same.low, same.high) == (1.0, None, None)  # nothing scatters, which is no certainty
    assert rank_correlation(prompts, a, -a, kind).value == -1.0  # type: ignore[arg-type]
    found = rank_correlation(prompts, a, values[:, 1], kind)  # type: ignore[arg-type]
    assert 0.5 < found.low < found.value < found.high < 1
    b = np.where(np.arange(len(a)) % 2 == 0, NAN, values[:, 1])
    assert rank_correlation(prompts, a, b, kind).n == len(a) // 2  # type: ignore[arg-type]


def test_the_jackknife_interval_covers() -> None:
    """The true Spearman correlation of a bivariate normal with r = 0.6 is 6/pi asin(r/2) = 0.5825."""
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        a, b = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 30).T
        found = rank_correlation(ids(30), a, b, "spearman")
        inside += found.low <= 0.5825 <= found.high
    assert inside >= 178


def test_an_easy_task_is_no_agreement() -> None:
    """Within either task two judges scatter apart; both only see that one is easier."""
    rng = np.random.default_rng(0)
    tasks = np.repeat(["coding", "closed_qa"], 200)
    a, b = (rng.normal(np.where(tasks == "coding", 50, 90), 5) for _ in range(2))
    pooled, within = (rank_correlation(ids(400), a, b, "kendall", of) for of in (None, tasks))
    assert (pooled.value or 0) > 0.4
    assert abs(within.value or 1) < 0.1
    assert (within.low or 1) < 0 < (within.high or -1)


def test_correlations_within_tasks_are_averaged_and_tasks_without_one_left_out() -> None:
    a, b = np.array([1, 2, 3, 4, 1, 2, 3, 9, 9.0]), np.array([1, 2, 3, 4, 3, 2, 1, 7, 8.0])
    found = rank_correlation(ids(9), a, b, "kendall", np.array([*"xxxxyyyzz"]))
    assert (found.value, found.n) == (0.0, 7)  # 1 and -1; two answers are too few
    assert (found.low, found.high) == (None, None)  # without one of its three answers y has none


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_answers_have_no_correlation(count: int) -> None:
    values = np.arange(float(count))
    assert rank_correlation(ids(count), values, values, "kendall").value is None


def test_a_judge_who_never_varies_has_no_correlation() -> None:
    assert rank_correlation(ids(9), np.arange(9.0), np.full(9, 80.0), "spearman").value is None


def test_strictness_is_what_was_put_in() -> None:
    prompts, values = made(noise=1.0)
    found = [strictness(prompts, values, judge) for judge in range(3)]
    for one, true in zip(found, (-4.333, -0.333, 4.667), strict=True):
        assert one.value == pytest.approx(true, abs=0.3)
        assert one.low < true < one.high
    assert sum(one.value or 0 for one in found) == pytest.approx(0, abs=1e-3)


def test_strictness_is_compared_on_the_same_answers() -> None:
    """A judge that failed on the bad answers is not lenient for that."""
    prompts, values = made(noise=0.0)
    values[values[:, 1] < 70, 2] = NAN
    found = strictness(prompts, values, 2)
    assert found.value == pytest.approx(4.6667, abs=1e-3)
    assert found.n < len(values)


def test_self_noise_is_what_was_put_in() -> None:
    rng = np.random.default_rng(1)
    repeats = np.repeat(rng.normal(70, 15, 400), 10).reshape(400, 10) + rng.normal(0, 2.5, (400, 10))
    found = self_noise(ids(100, 4), repeats)
    assert found.value == pytest.approx(2.5, abs=0.1)
    assert found.low < 2.5 < found.high
    assert (found.n, found.prompts) == (400, 100)


def test_self_noise_needs_two_scored_repeats() -> None:
    assert self_noise(ids(5), np.array([[80.0, NAN]] * 5)).value is None
    assert self_noise(ids(5), np.full((5, 1), 80.0)).value is None
    assert self_noise(ids(2), np.array([[80.0, 84.0], [70.0, NAN]])).value == pytest.approx(8**0.5, abs=1e-4)


def test_preference_leakage_shows_against_the_reference_alone() -> None:
    """The first judge is strict with everybody, by 4 points, and favours the students of its family by 6."""
    family = np.array([True, False, False])
    prompts, strangers = made(seed=1)
    _, students = made(seed=2)
    students[:, 0] += 6
    gap, reference = (by_prompt(prompts, family_gap(values, family)) for values in (students, strangers))
    assert mean(reference).value == pytest.approx(-6.5, abs=0.7)
    found = difference(gap, reference)
    assert found.value == pytest.approx(6, abs=0.8)
    assert p_value(gap, reference) < 0.001
    assert p_value(by_prompt(prompts, family_gap(made(seed=3)[1], family)), reference) > 0.05


def test_a_gap_needs_every_judge() -> None:
    values = np.array([[80.0, 70.0, 60.0], [80.0, NAN, 60.0]])
    assert family_gap(values, np.array([True, False, False])).tolist()[0] == 15.0
    assert np.isnan(family_gap(values, np.array([True, False, False]))[1])
