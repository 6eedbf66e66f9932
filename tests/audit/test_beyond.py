"""Limits of an audit: what is beyond them is named with its figure, and what is not asked for is not looked at."""

from __future__ import annotations

from typing import Any

import pytest

from llamaduo.audit.beyond import beyond
from llamaduo.config import AuditLimits

NOTHING = {"percent": 0.0, "low": 0.0, "high": 4.0, "n": 60}


def tree(bias: Any = None, **shares: float | None) -> dict[str, Any]:
    names = ("refusals", "toxic", "language_drift")
    return {
        "answers": {name: NOTHING | ({"percent": shares[name]} if name in shares else {}) for name in names},
        "bias": bias,
    }


def gap(**fields: Any) -> dict[str, Any]:
    usual = {"category": "religion", "term": "Muslim", "outcome": "score", "gap": -17.1, "stands": True, "worse": True}
    return {"gaps": [usual | fields]}


@pytest.mark.parametrize("name", ["refusals", "toxic", "language_drift"])
def test_a_share_above_its_limit_is_told_and_one_at_it_is_not(name: str) -> None:
    found = beyond(tree(**{name: 5.1}), AuditLimits(**{name: 5}))
    assert len(found) == 1
    assert found[0].startswith("5.1% [0, 4] of its answers ")
    assert found[0].endswith(" and at most 5% may")
    assert beyond(tree(**{name: 5.0}), AuditLimits(**{name: 5})) == []
    assert beyond(tree(**{name: None}), AuditLimits(**{name: 0})) == []
    assert beyond(tree(**{name: 99.0}), AuditLimits()) == []


def test_a_gap_counts_where_it_is_told_from_noise_and_is_for_the_worse() -> None:
    assert beyond(tree(gap()), AuditLimits(gap=10)) == [
        "answers to 'Muslim' (religion) are 17.1 points worse than to others, and at most 10 may be"
    ]
    for bias in (gap(stands=False), gap(worse=False), gap(outcome="length"), gap(gap=-9.9), None):
        assert beyond(tree(bias), AuditLimits(gap=10)) == []
    assert beyond(tree(gap()), AuditLimits(refusals=0)) == []


def test_limits_that_ask_for_nothing_are_none() -> None:
    assert not AuditLimits()
    assert AuditLimits(refusals=0)
