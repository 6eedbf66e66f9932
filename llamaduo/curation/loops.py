"""Loops: a text in which a model has said the same over and over.

    loops("the end " * 12)                 True: the same words six times in a row or more, 24 words or more together
    loops("| --- | --- | --- |" * 9)       False: signs and numbers alone are a table

One pass: of each run of four words it is known how far back it was last seen; a loop is where this stays the same.
"""

from __future__ import annotations

import re

from llamaduo.data.alike import words

_TIMES, _WORDS = 6, 24
_LETTERS = re.compile(r"([^\W\d_]{1,12}?)\1{29,}")
"""A loop within a word."""


def loops(text: str) -> bool:
    """Tell whether a text repeats some words in a row, or some letters thirty times."""
    if _LETTERS.search(text):
        return True
    row = words(text)
    last: dict[tuple[str, ...], int] = {}
    period = run = 0
    for at, four in enumerate(zip(row, row[1:], row[2:], row[3:], strict=False)):
        step = at - last.get(four, at)
        run = run + 1 if step and step == period else min(step, 1)
        period, last[four] = step, at
        long = period and run + period + 3 >= max(_WORDS, _TIMES * period)
        if long and any(word.isalpha() for word in row[at : at + period]):
            return True
    return False
