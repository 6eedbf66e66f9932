"""Bias: a planted gap is found, and nothing is told of where there is none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from llamaduo.audit.bias import FEWEST, Gap, gaps

AUDITS = 200
TERMS = {"religion": ["a", "b", "c", "d"], "gender": ["f", "m"]}
PROMPTS = 32


def _made(seed: int, planted: tuple[str, int] | None = None) -> list[Gap]:
    """Audit made-up answers: scores scatter by 15 points around their prompt's level, 2% are refusals."""
    rng = np.random.default_rng(seed)
    tables = {}
    for category, terms in TERMS.items():
        level = np.clip(rng.normal(75, 10, (PROMPTS, 1)), 50, 92) * np.ones(len(terms))
        if planted and planted[0] == category:
            level[:, planted[1]] -= 20.0
        share = level / 100
        size = share * (1 - share) / 0.15**2 - 1
        tables[category, "score"] = 100 * rng.beta(share * size, (1 - share) * size)
        tables[category, "refusal"] = 100.0 * (rng.random(level.shape) < 0.02)
    return [gap for gap in gaps(tables, TERMS) if gap.stands]


def test_a_term_answered_worse_by_20_points_is_found_in_95_of_100_audits():
    found = alone = 0
    for seed in range(AUDITS):
        planted = ("religion", seed % 4) if seed % 3 else ("gender", seed % 2)
        told = _made(seed, planted)
        hits = [gap for gap in told if (gap.category, gap.term) == (planted[0], TERMS[planted[0]][planted[1]])]
        found += any(gap.outcome == "score" and gap.is_worse for gap in hits)
        alone += len(hits) == len(told)
    assert found >= 0.95 * AUDITS
    assert alone >= 0.9 * AUDITS  # a second, wrong one in about 5%


def test_false_alarms_are_at_most_one_in_20():
    alarms = sum(bool(_made(1000 + seed)) for seed in range(AUDITS))
    assert alarms <= 0.05 * AUDITS


def test_a_gap_is_told_with_its_limits_and_its_direction():
    rng = np.random.default_rng(3)
    table = rng.normal(70, 5, (40, 4))
    table[:, 2] -= 20
    refused = np.zeros((40, 4))
    refused[:20, 1] = 100
    found = gaps({("age", "score"): table, ("age", "refusal"): refused}, {"age": ["w", "x", "y", "z"]})
    first, second = sorted(found[:2], key=lambda gap: gap.outcome)
    assert (first.outcome, first.term, first.is_worse, first.stands) == ("refusal", "x", True, True)
    assert (second.outcome, second.term, second.is_worse, second.stands) == ("score", "y", True, True)
    assert second.low < second.gap < second.high
    assert second.gap == pytest.approx(-20, abs=3)
    assert not any(gap.stands for gap in found[2:])
    assert len(found) == 8


def test_of_two_terms_the_worse_one_is_told():
    rng = np.random.default_rng(1)
    table = rng.normal(50, 4, (30, 2))
    table[:, 0] += 15
    (gap,) = gaps({("gender", "score"): table}, {"gender": ["f", "m"]})
    assert (gap.term, gap.stands, gap.is_worse) == ("m", True, True)


@pytest.mark.parametrize("value", [0.0, 73.2, 100.0])
def test_equal_answers_tell_nothing(value: float):
    found = gaps({("age", "score"): np.full((20, 3), value)}, {"age": ["x", "y", "z"]})
    assert [gap.gap for gap in found] == [0.0] * 3
    assert not any(gap.stands for gap in found)
    assert {gap.p for gap in found} == {1.0}


def test_too_few_prompts_are_not_looked_at():
    table = np.array([[100.0, 0.0, 100.0]] * (FEWEST - 1))
    assert gaps({("age", "score"): table}, {"age": ["x", "y", "z"]}) == []
    assert gaps({}, {}) == []


def test_the_order_of_categories_changes_nothing():
    rng = np.random.default_rng(8)
    tables = {(name, "score"): rng.normal(60, 9, (20, 3)) for name in ("b", "a", "c")}
    tables["a", "score"][:, 0] -= 25
    names = {name: [f"{name}{at}" for at in range(3)] for name in "abc"}
    first = gaps(tables, names)
    for order in itertools.permutations(tables):
        assert gaps({key: tables[key] for key in order}, names) == first


def test_a_gap_of_many_prompts_is_dealt_in_blocks():
    rng = np.random.default_rng(2)
    table = rng.normal(50, 20, (1500, 4))
    table[:, 3] -= 6
    found = gaps({("age", "score"): table}, {"age": list("wxyz")})
    assert [gap.term for gap in found if gap.stands] == ["z"]
