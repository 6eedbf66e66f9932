"""Scorecards: means over repeats, then judges, then answers, with intervals over clusters of prompts.

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
from llamaduo.evidence.bounded import limits
from llamaduo.evidence.scorecard import by_tier, of_answers, score, unscored
from llamaduo.evidence.two_tier import combined
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


def estimate(scores: dict[tuple[str, int], float], clusters: dict[str, str] | None = None) -> Estimate:
    return scorecard.estimate(scores, clusters or {})


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
        assert low is not None
        assert high is not None
        assert 0 <= low <= mean + 1e-3
        assert mean - 1e-3 <= high <= 100
    else:
        assert card.similarity == NO_SCORE


def test_constant_scores_are_no_proof_of_certainty() -> None:
    card = score([verdict(f"p{n}", k, similarity=73.5) for n in range(5) for k in range(3)], coverage_cut=70)
    assert card.similarity.mean == 73.5
    assert card.similarity.low == pytest.approx(73.5 * 0.025 ** (1 / 5), abs=1e-3)
    assert card.similarity.high == pytest.approx(100 - 26.5 * 0.025 ** (1 / 5), abs=1e-3)
    assert (card.similarity.n, card.similarity.prompts) == (15, 5)


def test_prompts_with_one_mean_but_different_answers_have_the_interval_of_that_mean() -> None:
    found = estimate({("p", 0): 90.0, ("p", 1): 100.0, ("q", 0): 100.0, ("q", 1): 90.0})
    alike = estimate({("p", 0): 95.0, ("q", 0): 95.0})
    assert (found.mean, found.low, found.high) == (alike.mean, alike.low, alike.high)


def test_a_single_prompt_says_next_to_nothing_however_many_answers() -> None:
    found = estimate({("p", k): 10.0 * k for k in range(5)})
    assert (found.mean, found.n, found.prompts) == (20.0, 5, 1)
    assert found.low == pytest.approx(20 * 0.025, abs=1e-3)
    assert found.high == pytest.approx(100 - 80 * 0.025, abs=1e-3)


def test_near_copies_of_a_prompt_count_once() -> None:
    scores = {(f"p{n}", k): 100.0 - 5 * (n % 4) for n in range(12) for k in range(2)}
    copies = {f"p{n}": f"p{n % 4}" for n in range(12)}
    apart, together = estimate(scores), estimate(scores, copies)
    assert (together.mean, together.n, together.prompts) == (apart.mean, 24, 4)
    assert apart.prompts == 12
    low, high = limits([600.0 - 30 * n for n in range(4)], [6] * 4)
    assert (together.low, together.high) == pytest.approx((low, high), abs=1e-4)
    assert together.low is not None
    assert apart.low is not None
    assert together.low < apart.low - 10


def test_missing_scores_are_left_out_or_counted_as_they_are_told_to() -> None:
    verdicts = [verdict("p", judge="a"), verdict("p", judge="b", repeat=0), spoilt("p", judge="b", repeat=1)]
    verdicts += [spoilt("q", judge=judge) for judge in "ab"]
    assert of_answers(verdicts, "similarity") == {("p", 0): 50.0}
    assert of_answers(verdicts, "similarity", missing=0.0) == {("p", 0): 37.5, ("q", 0): 0.0}
    assert of_answers(verdicts, "similarity", missing=100.0) == {("p", 0): 62.5, ("q", 0): 100.0}


def test_a_score_that_no_judge_gives_is_not_missing() -> None:
    verdicts = [verdict("p", precision=None), spoilt("q")]
    assert of_answers(verdicts, "precision", missing=0.0) == {}
    assert of_answers(verdicts, "similarity", missing=0.0) == {("p", 0): 50.0, ("q", 0): 0.0}


def test_two_prompts_have_limits_around_the_mean() -> None:
    found = estimate({("p", 0): 40.0, ("q", 0): 80.0})
    assert found.mean == 60.0
    assert found.low is not None
    assert found.high is not None
    assert 0.0 < found.low < 40.0 < 60.0 < 80.0 < found.high < 100.0


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


@pytest.mark.parametrize(("prompts", "share"), [(8, 0.1), (15, 0.1), (25, 0.05), (64, 0.02)])
def test_the_lower_limit_is_above_the_truth_in_no_more_than_3_of_100_cases(prompts: int, share: float) -> None:
    """Nearly all answers perfect, a few prompts a failure: BCa is above the truth in up to 41% of such cases."""
    rng = np.random.default_rng(4)
    truth, over, trials = 99.0 - share * 79.0, 0, 400
    for _ in range(trials):
        of = np.where(rng.random(prompts) < share, 20.0, 99.0)
        found = estimate({(f"p{n}", k): float(value) for n, value in enumerate(of) for k in range(2)})
        assert found.low is not None
        over += found.low > truth
    assert over / trials <= 0.03


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
    assert (terse["scored"], terse["unscored"], terse["similarity_mean"], terse["similarity_low"]) == (1, 1, 10.0, 0.25)


def test_a_scorecard_is_plain_json() -> None:
    import json

    card = score([verdict(f"p{n}", similarity=n * 7.0) for n in range(6)], coverage_cut=70)
    tree = dataclasses.asdict(card)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert card.similarity.mean == fmean(n * 7.0 for n in range(6))


def test_dear_judges_speak_for_all_answers() -> None:
    """The cheap judge puts the drawn answer of each prompt 10 above the others; the dear one sees it alone."""
    cheap = [
        verdict(f"p{n}", k, "c", similarity=60 + 10 * (k == n % 4), precision=60) for n in range(40) for k in range(4)
    ]
    dear = [verdict(f"p{n}", n % 4, "d", similarity=80 + (n % 3), precision=90) for n in range(40)]
    card = score([*cheap, *dear], coverage_cut=70, dear=["d"])
    by_hand = combined(*by_tier([*cheap, *dear], "similarity", ["d"]))
    assert (card.similarity.mean, card.similarity.low) == (round(by_hand.mean, 4), round(by_hand.low, 4))
    assert card.similarity.mean == pytest.approx(81 - 7.5, abs=0.6), "the drawn ones are the better ones, by 7.5"
    assert (card.similarity.n, card.similarity.prompts) == (160, 40)
    assert (card.precision.mean, card.coverage) == (90.0, 100.0)
    assert (card.judges["c"]["answers"], card.judges["d"]["answers"], card.judges["d"]["prompts"]) == (160, 40, 40)
    assert card.judges["d"]["similarity_mean"] == pytest.approx(81, abs=0.1)
    assert (card.answers, card.scored, card.unscored) == (160, 200, 0)


def test_prompts_without_a_dear_score_enter_no_mean_of_two_tiers() -> None:
    cheap = [verdict(f"p{n}", k, "c", similarity=50, precision=50) for n in range(10) for k in range(2)]
    dear = [verdict(f"p{n}", 0, "d", similarity=90, precision=90) for n in range(8)]
    lost = [spoilt("p8", judge="d"), spoilt("p9", judge="d")]
    card = score([*cheap, *dear, *lost], coverage_cut=70, dear=["d"])
    assert (card.similarity.mean, card.similarity.n, card.similarity.prompts) == (90.0, 16, 8)
    assert (card.scored, card.unscored, card.answers) == (28, 2, 20)
    none = score([*cheap, *(spoilt(f"p{n}", judge="d") for n in range(10))], coverage_cut=70, dear=["d"])
    assert none.similarity == NO_SCORE
    assert none.coverage is None
