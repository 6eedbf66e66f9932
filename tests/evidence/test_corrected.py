"""A judge's mean corrected by people's scores: unbiased whatever the judge's bias, and its interval covers.

The truth is known: people's scores are drawn, the judge's are theirs, moved, bent and scattered.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from llamaduo.evidence.corrected import FEWEST, against_people, corrected_mean
from llamaduo.evidence.resample import NOTHING, Measure

Floats = NDArray[np.float64]
TRUTH = 70.0


def world(seed: int, answers: int = 200, labels: int = 40, bias: float = 15.0) -> tuple[Floats, Floats, Floats]:
    """Return (ids, judged, human): a lenient judge, and people who scored a random part."""
    rng = np.random.default_rng(seed)
    human = rng.triangular(40, 70, 100, answers)
    judged = np.clip(human + bias + rng.normal(0, 5, answers), 0, 100)
    human[rng.permutation(answers)[labels:]] = np.nan
    return np.arange(answers).astype(float), judged, human


def test_the_interval_covers_the_truth_as_often_as_it_says_and_the_judges_own_mean_never_does() -> None:
    found = [corrected_mean(*world(seed)) for seed in range(600)]
    covered = sum(one.low <= TRUTH <= one.high for one in found if one.low is not None and one.high is not None)
    assert covered / 600 > 0.93
    assert np.mean([one.value for one in found if one.value is not None]) == pytest.approx(TRUTH, abs=0.3)
    uncorrected = [world(seed)[1].mean() for seed in range(600)]
    assert min(uncorrected) > TRUTH + 5


def test_it_is_narrower_than_the_labels_alone() -> None:
    for seed in range(20):
        ids, judged, human = world(seed)
        found = corrected_mean(ids, judged, human)
        labels = human[~np.isnan(human)]
        alone = 2.02 * labels.std(ddof=1) / np.sqrt(len(labels))
        assert found.low is not None
        assert found.value is not None
        assert found.value - found.low < 0.8 * alone


def test_answers_to_the_same_prompt_count_together() -> None:
    ids, judged, human = world(1)
    apart, together = corrected_mean(ids, judged, human), corrected_mean(ids // 4, judged, human)
    assert together.value == apart.value
    copied = corrected_mean(np.tile(ids, 4), np.tile(judged, 4), np.tile(human, 4))
    assert apart.low is not None
    assert copied.low is not None
    assert (copied.low, copied.prompts) == (pytest.approx(apart.low, abs=0.01), apart.prompts)


def test_where_people_scored_everything_it_is_their_mean() -> None:
    ids, judged, human = world(2, labels=200)
    assert corrected_mean(ids, judged, human).value == pytest.approx(human.mean(), abs=1e-3)


def test_few_labels_have_no_interval_and_none_no_value() -> None:
    ids, judged, human = world(3, labels=FEWEST - 1)
    found = corrected_mean(ids, judged, human)
    assert found.value is not None
    assert (found.low, found.high, found.n) == (None, None, FEWEST - 1)
    assert corrected_mean(ids, judged, np.full(len(ids), np.nan)) == NOTHING


def test_an_answer_that_the_judge_did_not_score_is_left_out_label_and_all() -> None:
    ids, judged, human = world(4)
    judged[:10] = np.nan
    found = corrected_mean(ids, judged, human)
    assert found == corrected_mean(ids[10:], judged[10:], human[10:])


@pytest.mark.parametrize(
    ("bias", "ranks", "faults"),
    [
        (Measure(15.0, 11.0, 19.0, 40, 40), Measure(0.9, 0.8, 1.0, 40, 40), ["kinder_than_people"]),
        (Measure(-15.0, -19.0, -11.0, 40, 40), Measure(0.9, 0.8, 1.0, 40, 40), ["harsher_than_people"]),
        (Measure(15.0, 9.0, 21.0, 40, 40), Measure(0.4, 0.1, 0.6, 40, 40), []),
        (Measure(0.0, -3.0, 3.0, 40, 40), Measure(0.1, -0.2, 0.4, 40, 40), ["unlike_people"]),
        (Measure(50.0, 40.0, 60.0, 9, 9), Measure(0.0, -0.1, 0.1, 9, 9), []),
        (Measure(50.0, None, None, 40, 40), Measure(None, None, None, 40, 40), []),
    ],
)
def test_what_is_beyond_noise_is_named(bias: Measure, ranks: Measure, faults: list[str]) -> None:
    assert [finding.fault for finding in against_people("precision", bias, ranks)] == faults
