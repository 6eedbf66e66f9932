"""What is asked, in which order, and when the rest is not worth asking for."""

from itertools import product

import numpy as np
import pytest

from llamaduo.evidence.bounded import lower_limit
from llamaduo.evidence.economy import Claim, Known, enough, noise, ordered, rounds

NAMES = [f"p{number:02d}" for number in range(40)]
CLAIM = Claim(90.0, 0.01, lambda sums, sizes: lower_limit(sums, sizes, 0.01))
CLAIMS = {"precision": CLAIM}


def judged(values, left=0, pairs=()):
    """Four answers a prompt; `values` are mean scores."""
    sums = 4 * np.asarray(values, dtype=float)
    twice = np.asarray(pairs, dtype=float).reshape(-1, 2)
    return {"precision": Known(sums, np.full(len(sums), 4.0), np.full(left, 4.0), twice)}


def test_the_order_is_drawn_from_the_seed_alone():
    first = ordered(NAMES, 1)
    assert first == ordered(NAMES[::-1], 1)
    assert first != ordered(NAMES, 2)
    assert first != sorted(first)
    assert {name for cluster in first for name in cluster} == set(NAMES)


def test_prompts_of_a_cluster_stay_together():
    groups = {name: name[:2] for name in NAMES}
    assert sorted(map(len, ordered(groups, 3))) == [10] * 4
    assert all(len({groups[name] for name in cluster}) == 1 for cluster in ordered(groups, 3))


@pytest.mark.parametrize("repeats", [1, 2, 10])
def test_all_rounds_together_ask_for_everything_once(repeats):
    plan = rounds([(name,) for name in NAMES], repeats=repeats, size=16)
    asked = [pair for part in plan for pair in product(part.prompts, part.repeats)]
    assert sorted(asked) == sorted(product(NAMES, range(repeats)))
    assert len(plan[0].prompts) == 16


def test_a_round_is_not_split_within_a_cluster():
    plan = rounds([tuple(NAMES[at : at + 5]) for at in range(0, 40, 5)], repeats=1, size=16)
    assert [len(part.prompts) for part in plan] == [20, 20]


def test_a_poor_start_is_enough_and_a_good_one_is_not():
    assert enough(judged([60.0] * 16, left=48), CLAIMS, done=1, repeats=1)
    assert not enough(judged([99.0] * 16, left=48), CLAIMS, done=1, repeats=1)


def test_one_score_that_fails_is_enough():
    known = judged([99.0] * 16, left=48) | {"similarity": judged([50.0] * 16, left=48)["precision"]}
    assert enough(known, CLAIMS | {"similarity": CLAIM}, done=1, repeats=1)
    assert not enough(known, CLAIMS, done=1, repeats=1)


def test_more_repeats_only_where_noise_could_matter():
    quiet, noisy = [(396.0, 395.0)] * 16, [(396.0, 340.0)] * 16
    limit = lower_limit([99.0] * 60, [1.0] * 60, 0.01)
    assert 90 < limit < 93
    assert enough(judged([99.0] * 60, pairs=quiet), CLAIMS, done=1, repeats=10)
    assert not enough(judged([99.0] * 60, pairs=noisy), CLAIMS, done=1, repeats=10)
    assert enough(judged([60.0] * 60, pairs=noisy), CLAIMS, done=1, repeats=10)


def test_noise_keeps_a_model_near_the_border_from_being_stopped():
    values = [97.0] * 14 + [70.0] * 2
    assert enough(judged(values, left=24, pairs=[(388.0, 388.0)] * 16), CLAIMS, done=1, repeats=10)
    assert not enough(judged(values, left=24, pairs=[(388.0, 250.0)] * 16), CLAIMS, done=1, repeats=10)


def test_noise_is_three_standard_errors_of_the_repeats_to_come():
    rng = np.random.default_rng(0)
    pairs = 392 + 10 * rng.standard_normal((2000, 2))
    found = noise(judged([98.0] * 2000, pairs=pairs)["precision"], done=1, repeats=5)
    assert found == pytest.approx(3 * 10 / 4 * np.sqrt((1 - 1 / 5) / 2000), rel=0.08)
    assert noise(judged([98.0])["precision"], done=2, repeats=2) == 0
    assert noise(judged([98.0] * 9)["precision"], done=1, repeats=2) == np.inf


def test_decisions_are_those_of_asking_for_everything():
    rng = np.random.default_rng(5)
    saved, passed = [], 0
    for _ in range(60):
        quality = np.clip(100 - rng.gamma(0.2, 10 ** rng.uniform(-0.5, 1.5), 64), 0, 100)
        scores = np.clip(quality[:, None] + 3 * rng.standard_normal((64, 3)), 0, 100)
        full = lower_limit(scores.mean(1), np.ones(64), 0.01) >= 90
        asked, decided = replay(scores)
        assert decided == full
        saved.append(1 - asked / scores.size)
        passed += full
    assert 5 < passed < 55
    assert np.mean(saved) > 0.45


def replay(scores):
    prompts, repeats = scores.shape
    have = np.zeros_like(scores, dtype=bool)
    for part in rounds([(f"{at}",) for at in range(prompts)], repeats=repeats, size=16):
        for name, repeat in product(part.prompts, part.repeats):
            have[int(name), repeat] = True
        known = have[:, 0]
        sums = (scores * have).sum(1)[known] / have.sum(1)[known]
        sizes, left = np.ones(known.sum()), np.ones((~known).sum())
        found = {"precision": Known(sums, sizes, left, scores[have[:, 1], :2])}
        if enough(found, CLAIMS, done=int(have[known].sum(1).min()), repeats=repeats):
            break
    return have.sum(), bool(known.all() and lower_limit(sums, sizes, 0.01) >= 90)
