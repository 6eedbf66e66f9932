"""Which scale a judge's scores are of, where it surely isn't the one of 0 to 100 that it was asked for.

    another_scale([(0.97, 0.99), (0.9, 0.95), (1, 1), (0.8, 0.9)], right=[False] * 4)     1: it scores from 0 to 1
    another_scale([(0, 1), (1, 1), (0, 0), (2, 1)], right=[False] * 4)                    None: it finds all of it bad

No score exceeds 1, 5 or 10; from 16 verdicts on, none of similarity or none of precision. That alone accuses nobody,
since a judge may find everything bad. What tells is this:
    fractions       nobody has use for 0.97 of 100; a mean of 0.6 (0.3 from 16 verdicts on)
    the upper half  a mean of 60% of the scale's top (50% from 16 verdicts on), and numbers that 100 points have little
                    use for: a quarter of the scores are no multiples of 5 (60% and half of them, of one of the two)
    right answers   those that repeat their reference get 60% of the top, and others less, or at least 5
Judges made up to find all of it bad (tests/evidence/test_scale.py) are taken for others in less than 5% of cases with 4
verdicts, and in less than 1% with 16; those that use all numbers up to 5 alike can't be told from a scale of 1 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

TOPS = (1, 5, 10)
FEWEST = 4
"""Verdicts below which nothing is said."""
_MANY = 16
_RIGHT = 3
"""Right answers below which nothing is said of them."""


def another_scale(scores: Sequence[tuple[float, ...]], right: Sequence[bool]) -> int | None:
    """Return the top of the scale that a judge's scores are of, None where that is 100 or can't be told.

    Of each verdict: similarity, and precision where there is one; and whether the answer repeats its reference.
    """
    if len(scores) < FEWEST:
        return None
    columns = list(zip(*scores, strict=True))
    for column in columns if len(scores) >= _MANY else ():
        top = _top(column)
        if top and _is_used_up_to(top, column, len(scores), mean=0.6, odd=0.5):
            return top
    values = [value for column in columns for value in column]
    top = _top(values)
    if top and _is_used_up_to(top, values, len(scores), mean=_share(len(scores)), odd=0.25):
        return top
    top = _top(columns[0])
    return top if top and _knows_right(columns[0], right, top) else None


def _top(values: Sequence[float]) -> int | None:
    """Return the top of the smallest scale that holds all values, None where that is 100 or none is above 0."""
    return next((top for top in TOPS if 0 < max(values) <= top), None)


def _is_used_up_to(top: int, values: Sequence[float], verdicts: int, *, mean: float, odd: float) -> bool:
    """Tell whether values spread up to the top of their scale, in numbers that 100 points have little use for."""
    if top == 1:
        return _are_shares(values, verdicts)
    return fmean(values) >= mean * top and sum(value % 5 > 0 for value in values) >= odd * len(values)


def _share(verdicts: int) -> float:
    return 0.5 if verdicts >= _MANY else 0.6


def _are_shares(values: Sequence[float], verdicts: int) -> bool:
    """Tell whether numbers up to 1 are shares of 1: some lie between, and they don't all lie near 0."""
    between = sum(0 < value < 1 for value in values)
    return between >= _RIGHT and 4 * between >= len(values) and fmean(values) >= (0.3 if verdicts >= _MANY else 0.6)


def _knows_right(similarity: Sequence[float], right: Sequence[bool], top: int) -> bool:
    """Tell whether answers that repeat their reference are near the top of the smaller scale."""
    good = [value for value, is_right in zip(similarity, right, strict=True) if is_right]
    other = [value for value, is_right in zip(similarity, right, strict=True) if not is_right]
    if len(good) < _RIGHT or fmean(good) < 0.6 * top:
        return False
    return min(good) >= 5 or (len(other) >= _RIGHT and fmean(other) <= fmean(good) / 2)
