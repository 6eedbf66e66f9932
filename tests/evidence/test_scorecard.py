"""Scorecards: means over repeats, then judges, then answers, with intervals over prompts.

A verdict without a score enters no mean and is counted. Answers to one prompt are not independent, so more
samples of the same prompts do not narrow an interval. What can't be computed is null.
"""

from __future__ import annotations

import dataclasses
import random
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaduo.evidence import scorecard
from llamaduo.evidence.scorecard import estimate, score, unscored
from llamaduo.records import UNSCORED_REASONS, Estimate, Verdict

NO_SCORE = Estimate(None, None, None, 0)


def verdict(
    prompt: str = "p",
    sample: int = 0,
    judge: str = "j",
    repeat: int = 0,
    similarity: float | None = 50.0,
    precision: float | None = 50.0,
    unscored: str | None = None,
    cost_usd: float = 0.0,
) -> Verdict:
    return Verdict(prompt, sample, judge, repeat, similarity, precision, {}, unscored, None, None, cost_usd)


def spoilt(prompt: str = "p", reason: str = "not_json", **where: Any) -> Verdict:
    return verdict(prompt, similarity=None, precision=None, unscored=reason, **where)


def test_a_mean_is_of_repeats_then_judges_then_answers() -> None:
    verdicts = [
        # the first answer: judge a says 0 and 100 (mean 50), judge b says 90; the answer's score is 70
        verdict("p", judge="a", repeat=0, similarity=0),
        verdict("p", judge="a", repeat=1, similarity=100),
        verdict("p", judge="b", repeat=0, similarity=90),
        # the second answer: judge a alone says 10, three times
        *(verdict("q", judge="a", repeat=n, similarity=10) for n in range(3)),
    ]
    card = score(verdicts, coverage_cut=70)
    assert card.similarity.mean == pytest.approx(40.0)
    assert card.similarity.n == 2
    assert card.answers == 2
    assert card.judges["a"]["similarity_mean"] == pytest.approx(30.0)
    assert card.judges["b"]["similarity_mean"] == pytest.approx(90.0)


def test_no_verdicts_give_nulls_and_zeros() -> None:
    card = score([], coverage_cut=70)
    assert card.similarity == card.precision == NO_SCORE
    assert card.coverage is None
    assert (card.answers, card.unanswered, card.scored, card.unscored, card.cost_usd) == (0, 0, 0, 0, 0)
    assert card.reasons == card.judges == {}
    assert unscored([]) == (0.0, {})


def test_what_is_unscored_enters_no_mean_and_is_counted() -> None:
    scored = [verdict(f"p{n}", similarity=80, precision=90) for n in range(4)]
    lost = [spoilt("p0", repeat=1), spoilt("q", "truncated"), spoilt("r", "no_reply"), spoilt("r", repeat=1)]
    card = score([*scored, *lost], coverage_cut=70)
    assert (card.similarity.mean, card.precision.mean) == (80.0, 90.0)
    assert card.similarity.n == 4
    assert card.answers == 6
    assert (card.scored, card.unscored) == (4, 4)
    assert card.reasons == {"not_json": 2, "truncated": 1, "no_reply": 1}
    assert unscored([*scored, *lost]) == (0.5, card.reasons)


def test_an_unscored_verdict_that_carries_numbers_is_still_no_score() -> None:
    card = score([verdict("p", similarity=80), verdict("q", similarity=0, unscored="truncated")], coverage_cut=70)
    assert card.similarity.mean == 80.0


def test_unanswered_prompts_are_counted_apart() -> None:
    missing = [spoilt("long", "prompt_too_long", judge=judge, repeat=n) for judge in "ab" for n in range(2)]
    card = score([verdict("p"), *missing], coverage_cut=70)
    assert (card.answers, card.unanswered, card.scored, card.unscored) == (2, 1, 1, 0)
    assert unscored([verdict("p"), *missing]) == (0.0, {})
    assert card.reasons == {"prompt_too_long": 4}


@given(
    st.lists(
        st.builds(
            verdict,
            prompt=st.sampled_from("pqrs"),
            sample=st.integers(0, 1),
            judge=st.sampled_from("ab"),
            repeat=st.integers(0, 2),
            similarity=st.floats(0, 100),
            precision=st.floats(0, 100),
            unscored=st.none() | st.sampled_from(UNSCORED_REASONS),
        ),
        unique_by=lambda v: (v.prompt_id, v.sample, v.judge, v.repeat),
        max_size=30,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_counts_add_up_means_stay_in_range_and_order_does_not_matter(
    verdicts: list[Verdict], rng: random.Random
) -> None:
    card = score(verdicts, coverage_cut=70)
    shuffled = list(verdicts)
    rng.shuffle(shuffled)
    assert score(shuffled, coverage_cut=70) == card
    assert card.scored + card.unscored + card.reasons.get("prompt_too_long", 0) == len(verdicts)
    assert sum(card.reasons.values()) == sum(v.unscored is not None for v in verdicts)
    given_scores = [v.similarity for v in verdicts if v.unscored is None and v.similarity is not None]
    mean, low, high = card.similarity.mean, card.similarity.low, card.similarity.high
    if given_scores:
        assert mean is not None
        assert min(given_scores) - 1e-4 <= mean <= max(given_scores) + 1e-4
        assert (low is None) == (high is None)
        if low is not None and high is not None:
            assert min(given_scores) - 1e-3 <= low <= high <= max(given_scores) + 1e-3
    else:
        assert card.similarity == NO_SCORE


def test_constant_scores_give_an_interval_of_no_width() -> None:
    card = score([verdict(f"p{n}", k, similarity=73.5) for n in range(5) for k in range(3)], coverage_cut=70)
    assert card.similarity == Estimate(73.5, 73.5, 73.5, 15)


def test_prompts_with_one_mean_but_different_answers_give_an_interval_of_no_width() -> None:
    found = estimate({("p", 0): 90.0, ("p", 1): 100.0, ("q", 0): 100.0, ("q", 1): 90.0})
    assert found == Estimate(95.0, 95.0, 95.0, 4)


def test_a_single_prompt_has_a_mean_and_no_limits_however_many_answers() -> None:
    assert estimate({("p", k): 10.0 * k for k in range(5)}) == Estimate(20.0, None, None, 5)


def test_two_prompts_have_limits_around_the_mean() -> None:
    found = estimate({("p", 0): 40.0, ("q", 0): 80.0})
    assert found.mean == 60.0
    assert found.low is not None
    assert found.high is not None
    assert 40.0 <= found.low <= 60.0 <= found.high <= 80.0


@pytest.mark.parametrize("skew", [0, 1, 5])
def test_one_outlier_among_equal_scores_still_has_finite_limits(skew: int) -> None:
    found = estimate({(f"p{n}", 0): 100.0 if n > skew else 0.0 for n in range(30)})
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low < found.high <= 100


def test_the_same_verdicts_give_the_same_limits() -> None:
    rng = random.Random(1)
    scores = {(f"p{n}", 0): rng.uniform(0, 100) for n in range(20)}
    assert estimate(scores) == estimate(dict(reversed(scores.items())))


def test_identical_samples_of_each_prompt_do_not_narrow_the_interval() -> None:
    rng = random.Random(2)
    scores = {f"p{n:02d}": rng.uniform(40, 100) for n in range(16)}
    once = estimate({(prompt, 0): value for prompt, value in scores.items()})
    often = estimate({(prompt, k): value for prompt, value in scores.items() for k in range(8)})
    assert (often.mean, often.n) == (once.mean, 128)
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=0.01)


def test_independent_prompts_do_narrow_the_interval() -> None:
    rng = random.Random(3)

    def width(prompts: int) -> float:
        found = estimate({(f"p{n}", 0): rng.uniform(0, 100) for n in range(prompts)})
        assert found.low is not None
        assert found.high is not None
        return found.high - found.low

    assert width(400) < 0.4 * width(25)


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorecard, "_RESAMPLES", 400)
    rng = np.random.default_rng(4)
    truth, covered, trials = 80.0, 0, 80
    for _ in range(trials):
        prompts = truth + rng.normal(0, 8, 25)
        scores = {(str(p), k): float(mean + rng.normal(0, 4)) for p, mean in enumerate(prompts) for k in range(2)}
        found = estimate(scores)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert 0.85 <= covered / trials <= 1.0


def test_coverage_is_the_share_of_answers_that_reach_the_cut_in_both_scores() -> None:
    scores = [(70, 70), (69.9, 100), (100, 69.9), (100, 100), (0, 0)]
    verdicts = [verdict(f"p{n}", similarity=s, precision=p) for n, (s, p) in enumerate(scores)]
    assert score(verdicts, coverage_cut=70).coverage == pytest.approx(40.0)
    assert score(verdicts, coverage_cut=0).coverage == 100.0
    assert score([*verdicts, spoilt("q")], coverage_cut=70).coverage == pytest.approx(40.0)


def test_coverage_looks_at_means_over_judges() -> None:
    verdicts = [verdict(judge="a", similarity=60, precision=100), verdict(judge="b", similarity=82, precision=100)]
    card = score(verdicts, coverage_cut=70)
    assert card.coverage == 100.0
    assert (card.judges["a"]["coverage"], card.judges["b"]["coverage"]) == (0.0, 100.0)


def test_the_reference_judge_has_no_precision_and_no_coverage() -> None:
    verdicts = [verdict(f"p{n}", judge=judge, precision=None) for n in range(3) for judge in ("chrf", "rouge_l")]
    card = score(verdicts, coverage_cut=70)
    assert card.similarity.mean == 50.0
    assert card.precision == NO_SCORE
    assert card.coverage is None
    assert (card.scored, card.unscored) == (6, 0)
    assert card.judges["chrf"]["precision_mean"] is None


def test_each_judge_has_the_same_numbers_for_itself() -> None:
    verdicts = [verdict(f"p{n}", judge="kind", similarity=90 + n, cost_usd=0.25) for n in range(4)]
    verdicts += [verdict("p0", judge="terse", similarity=10), spoilt("p1", judge="terse", cost_usd=0.5)]
    card = score(verdicts, coverage_cut=70)
    assert card.cost_usd == pytest.approx(1.5)
    kind, terse = card.judges["kind"], card.judges["terse"]
    alone = score([v for v in verdicts if v.judge == "kind"], coverage_cut=70)
    assert [kind[f"similarity_{limit}"] for limit in ("mean", "low", "high")] == [
        alone.similarity.mean,
        alone.similarity.low,
        alone.similarity.high,
    ]
    assert (kind["scored"], kind["unscored"], kind["cost_usd"]) == (4, 0, 1.0)
    assert (terse["scored"], terse["unscored"], terse["similarity_mean"], terse["similarity_low"]) == (1, 1, 10.0, None)


def test_a_scorecard_is_plain_json() -> None:
    import json

    card = score([verdict(f"p{n}", similarity=n * 7.0) for n in range(6)], coverage_cut=70)
    tree = dataclasses.asdict(card)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert card.similarity.mean == fmean(n * 7.0 for n in range(6))
