"""A cheap judge on all answers and a dear one on some: right on average, whatever the cheap one thinks."""

import numpy as np
import pytest

from llamaduo.evidence.two_tier import chosen, combined

ANSWERS = [(f"p{prompt}", sample) for prompt in range(20) for sample in range(4)]


def drawn(rng, prompts=30, bias=0.0, noise=6.0):
    """Return (truth, cheap, dear): answers of a world in which the cheap judge is off by `bias`."""
    quality = np.clip(100 - rng.gamma(0.5, 20, (prompts, 1)) + 8 * rng.standard_normal((prompts, 4)), 0, 100)
    answers = [(f"{prompt}", sample) for prompt in range(prompts) for sample in range(4)]
    read = np.clip(quality + bias + noise * rng.standard_normal(quality.shape), 0, 100)
    seen = chosen(answers, share=0.25, seed=int(rng.integers(1 << 30)))
    dear = {answer: float(quality[int(answer[0]), answer[1]]) for answer in seen}
    cheap = {answer: float(read[int(answer[0]), answer[1]]) for answer in answers}
    return quality.mean(), cheap, dear


def test_every_prompt_has_its_share_of_dear_answers():
    for share, each in ((0.25, 1), (0.3, 1), (0.5, 2), (0.1, 1), (1.0, 4)):
        found = chosen(ANSWERS, share=share, seed=1)
        assert {prompt: sum(p == prompt for p, _ in found) for prompt, _ in ANSWERS} == {
            prompt: each for prompt, _ in ANSWERS
        }
    assert chosen(ANSWERS, share=0.25, seed=1) == chosen(ANSWERS[::-1], share=0.25, seed=1)
    assert chosen(ANSWERS, share=0.25, seed=1) != chosen(ANSWERS, share=0.25, seed=2)
    assert {sample for _, sample in chosen(ANSWERS, share=0.25, seed=1)} == {0, 1, 2, 3}


def test_the_cheap_judges_bias_is_no_bias_of_the_mean():
    rng = np.random.default_rng(0)
    off, cheap_off = [], []
    for _ in range(200):
        truth, cheap, dear = drawn(rng, bias=12.0)
        off.append(combined(cheap, dear).mean - truth)
        cheap_off.append(np.mean(list(cheap.values())) - truth)
    assert abs(np.mean(off)) < 0.25
    assert np.mean(cheap_off) > 3, "the cheap judge alone is wrong"


def test_it_is_nearly_as_good_as_all_dear_scores_and_better_than_the_few():
    rng = np.random.default_rng(1)
    found, few = [], []
    for _ in range(200):
        truth, cheap, dear = drawn(rng, noise=3.0)
        found.append(combined(cheap, dear).mean - truth)
        few.append(np.mean(list(dear.values())) - truth)
    assert np.std(found) < 0.7 * np.std(few)


def test_a_useless_cheap_judge_gets_next_to_no_weight():
    rng = np.random.default_rng(2)
    weights = []
    for noise in (1.0, 200.0):
        _, cheap, dear = drawn(rng, prompts=200, noise=noise)
        weights.append(combined(cheap, dear).weight)
    assert weights[0] > 0.8
    assert weights[1] < 0.1


def test_limits_hold_with_few_prompts():
    rng = np.random.default_rng(3)
    above = below = alone = 0
    for _ in range(300):
        _, cheap, dear = drawn(rng, prompts=12, bias=12.0)
        found = combined(cheap, dear)
        above += found.low > 89.4  # the world's mean lies between 89.4 and 89.9
        below += found.high < 89.9
        alone += combined(cheap, cheap).low > 89.4
    assert above <= 0.03 * 300
    assert below <= 0.05 * 300
    assert combined(cheap, dear).low < found.mean < found.high


def test_answers_to_alike_prompts_are_one_cluster():
    rng = np.random.default_rng(4)
    _, cheap, dear = drawn(rng, prompts=40)
    apart = combined(cheap, dear)
    together = combined(cheap, dear, groups={f"{at}": f"{at // 4}" for at in range(40)})
    assert together.mean == pytest.approx(apart.mean)
    assert together.high - together.low > apart.high - apart.low


def test_a_prompt_without_a_dear_score_is_refused():
    with pytest.raises(ValueError, match="1 prompts have no answer with a dear score, such as b"):
        combined({("a", 0): 90.0, ("b", 0): 90.0}, {("a", 0): 90.0})
