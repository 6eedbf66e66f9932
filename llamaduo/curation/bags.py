"""Bags as numbers: the words, or words and pairs of neighbouring words, of many texts in two arrays.

    words = Vocabulary(pairs=True)
    bags = words.bags([["Classify this", "billing"], ["Classify that", "delivery"]])   a row is a list of texts
    bags.members[bags.starts[0]:bags.starts[1]]                                      those of the first row, rising
    bags.without(bags.shared())                                                            what `data/alike.py` does

A word is the number under which it was first met, from 0; a pair of words a and b is (a + 1) 2^27 + b. So equal bags
have equal members, exactly, in a tenth of the room that texts take.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from llamaduo.data.alike import least_shared, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

WORD_BITS = 27
MEMBER_BITS = 2 * WORD_BITS
BLOCK = 1 << (63 - MEMBER_BITS)
"""Rows whose members can be told apart in one 64-bit number with the row's own."""


@dataclass(frozen=True)
class Bags:
    """The members of many bags, behind each other."""

    members: Numbers
    """Of each row, rising and each once."""
    starts: Numbers
    """Where each row begins, and where the last one ends."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Numbers:
        """How many members each row has."""
        return np.diff(self.starts)

    def rows(self, begin: int, end: int) -> Bags:
        """Return some rows that follow each other."""
        starts = self.starts[begin : end + 1]
        return Bags(self.members[starts[0] : starts[-1]], starts - starts[0])

    def take(self, rows: Numbers) -> Bags:
        """Return the rows of these numbers, in their order."""
        sizes = self.sizes[rows]
        return Bags(self.members[spread(self.starts[rows], sizes)], offsets(sizes))

    def shared(self) -> Numbers:
        """Return what more than half of the rows share; nothing where there are fewer than three."""
        members, counts = np.unique(self.members, return_counts=True)
        return members[counts >= least_shared(len(self))]

    def without(self, common: Numbers) -> Bags:
        """Return what is left without what is common; all of a row, where that would be nothing."""
        if not len(common):
            return self
        places = np.searchsorted(common, self.members)
        own = common[np.minimum(places, len(common) - 1)] != self.members
        row = np.repeat(np.arange(len(self)), self.sizes)
        left = np.bincount(row[own], minlength=len(self))
        keep = own | (left == 0)[row]
        return Bags(self.members[keep], offsets(np.bincount(row[keep], minlength=len(self))))


class Vocabulary(dict[str, int]):
    """The number of every word met so far."""

    def __init__(self, *, pairs: bool) -> None:
        """With `pairs`, pairs of neighbouring words are members, too."""
        super().__init__()
        self._pairs = pairs

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        if number >= (1 << WORD_BITS) - 1:
            raise OverflowError(f"more than {number:,} different words")
        return number

    def bags(self, rows: Iterable[Sequence[str]]) -> Bags:
        """Return the bags of rows, each a list of texts; pairs stay within a text."""
        source, found = iter(rows), []
        while some := list(islice(source, BLOCK)):
            found.append(self._block(some))
        return joined(found)

    def _block(self, rows: Sequence[Sequence[str]]) -> Bags:
        numbers: list[int] = []
        of_texts: list[int] = []
        for row in rows:
            for text in row:
                before = len(numbers)
                numbers.extend(map(self.__getitem__, words(text)))
                of_texts.append(len(numbers) - before)
        sizes = np.array(of_texts, dtype=np.int64)
        word = np.array(numbers, dtype=np.int64)
        texts = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        row_of = np.repeat(texts, sizes)
        keys = (row_of << MEMBER_BITS) | word
        if self._pairs:
            text_of = np.repeat(np.arange(len(texts)), sizes)
            inside = text_of[1:] == text_of[:-1]
            pair = ((word[:-1] + 1) << WORD_BITS) | word[1:]
            keys = np.concatenate([keys, ((row_of[1:] << MEMBER_BITS) | pair)[inside]])
        keys = distinct(keys)
        counts = np.bincount(keys >> MEMBER_BITS, minlength=len(rows))
        return Bags(keys & ((1 << MEMBER_BITS) - 1), offsets(counts))


def joined(parts: Sequence[Bags]) -> Bags:
    """Return all rows of several lots behind each other."""
    none: Any = np.zeros(0, dtype=np.int64)
    sizes = np.concatenate([none, *(part.sizes for part in parts)])
    return Bags(np.concatenate([none, *(part.members for part in parts)]), offsets(sizes))


def numbers(some: Iterable[int]) -> Numbers:
    """Return numbers of rows as an array."""
    return np.fromiter(some, dtype=np.int64)


def distinct(some: Numbers) -> Numbers:
    """Return the different ones of some numbers, rising; by sorting, which is faster here than numpy's way."""
    ordered = np.sort(some)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def offsets(sizes: Numbers) -> Numbers:
    """Return where parts of these sizes begin, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def spread(starts: Numbers, sizes: Numbers) -> Numbers:
    """Return the numbers of several ranges behind each other, each given by its start and its size."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + sizes, sizes)
