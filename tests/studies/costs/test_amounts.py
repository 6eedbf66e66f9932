"""Mean tokens and dollars: limits that hold up to the most a request can come to, and none where that is unknown."""

from __future__ import annotations

import numpy as np
import pytest

from llamaduo.evidence.bounded import limits
from llamaduo.studies.costs.amounts import Amount, amounts, scaled


def test_limits_are_gaffkes_up_to_the_most() -> None:
    tokens = [120.0, 88.0, 240.0, 15.0]
    found = amounts({"answer": (tokens, 1024.0), "prompt": ([10.0] * 4, 100.0)})
    assert (found["answer"].mean, found["answer"].n) == (115.75, 4)
    for amount, values, most in ((found["answer"], tokens, 1024.0), (found["prompt"], [10.0] * 4, 100.0)):
        assert (amount.low, amount.high) == pytest.approx(limits(values, [1.0] * 4, high=most), rel=1e-5)


@pytest.mark.parametrize("most", [None, 0.0, 50.0])
def test_without_a_most_there_are_no_limits(most: float | None) -> None:
    assert amounts({"reply": ([60.0, 20.0], most)}) == {"reply": Amount(40.0, None, None, 2)}


def test_long_answers_that_few_prompts_ask_for_are_within_the_limits() -> None:
    """One request in ten asks for 1,000 tokens, the others for 50: a mean of 145."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(200):
        tokens = np.where(rng.random(15) < 0.1, 1000.0, 50.0)
        found = amounts({"answer": (tokens.tolist(), 1024.0)})["answer"]
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 145 <= found.high
    assert missed <= 0.05 * 200


def test_another_unit_scales_the_limits_too() -> None:
    assert scaled(Amount(2.0, 1.0, 4.0, 7), 10) == Amount(20.0, 10.0, 40.0, 7)
    assert scaled(Amount(2.0, None, None, 1), 10) == Amount(20.0, None, None, 1)
