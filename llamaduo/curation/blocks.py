"""Rows that are coming, looked at by blocks as they are asked for.

    blocks = Blocks(join, bags, confirms=False)
    blocks.matches(0)                    (place, likeness) of every row kept so far that row 0 is like, in order
    blocks.keep(0, place=7)              it is the eighth that is kept: later rows are told if they are like it
    blocks.finish()                      what was kept is in the index

Of a block it is known at once what each row is like among those kept before it, and which of its rows are like each
other; which of these are kept shows row by row. Equal rows of a block are one there, and a block with many that are
alike is made smaller, so that thousands of copies cost little.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llamaduo.curation.bags import BLOCK, Bags, numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamaduo.curation.bags import Numbers
    from llamaduo.curation.join import Join

    Likeness = NDArray[np.float64]

_SMALL = 32
_CANDIDATES = 1 << 16
"""In a block, from which it is made smaller."""


class Blocks:
    """Rows that are coming, looked at by blocks as they are asked for."""

    def __init__(self, join: Join, bags: Bags, *, confirms: bool) -> None:
        join.expect(bags)
        self._join, self._bags, self._confirms = join, bags, confirms
        self._begin = self._end = 0
        self._kept: list[int] = []
        """Rows of the block that were kept."""
        self._groups: list[int] = []
        """The group of equal rows that each row of the block is in."""
        self._found: dict[int, list[tuple[int, float]]] = {}
        """What a group is like among rows kept before the block: places and likeness."""
        self._near: dict[int, list[tuple[int, float]]] = {}
        """What other groups of the block it is like; not asked where it is known to go."""
        self._places: dict[int, list[int]] = {}
        """Where rows of a group are among those kept."""

    def matches(self, row: int) -> Iterator[tuple[int, float]]:
        """Yield places and likeness of all kept rows that a row is like, in order."""
        if row >= self._end:
            self._next(row)
        group = self._groups[row - self._begin]
        yield from self._found.get(group, ())
        yield from sorted(
            (place, alike) for other, alike in self._near.get(group, ()) for place in self._places.get(other, ())
        )

    def keep(self, row: int, place: int) -> None:
        """Take a row that is kept, and its place among all that are."""
        if row >= self._end:
            self._next(row)
        self._kept.append(row)
        self._places[self._groups[row - self._begin]].append(place)

    def finish(self) -> None:
        """Put what was kept of the block into the index."""
        if self._kept:
            self._join.put(self._asked.take(numbers(self._groups[row - self._begin] for row in self._kept)))
        self._kept = []

    def _next(self, row: int) -> None:
        """Look at the block that begins with a row."""
        self.finish()
        self._begin, self._end = row, min(row + BLOCK, len(self._bags))
        if (inner := self._look(_CANDIDATES)) is None:
            self._end = min(row + _SMALL, len(self._bags))
            inner = self._look(_SMALL * _CANDIDATES)
            assert inner is not None
        for one, other, alike in zip(*(part.tolist() for part in inner), strict=True):
            self._near[one].append((other, alike))
            self._near[other].append((one, alike))

    def _look(self, most: int) -> tuple[Numbers, Numbers, Likeness] | None:
        """Find what rows of the block are like among those kept before and among each other; None if that is much."""
        block = self._bags.rows(self._begin, self._end)
        firsts, self._groups = _equal(block)
        self._asked = self._join.asked(block.take(firsts))
        unique = self._asked.bags
        self._places, self._found = defaultdict(list), defaultdict(list)
        self._near = defaultdict(list, {group: [(group, 1.0)] for group, size in enumerate(unique.sizes) if size})
        known = self._join.matches(self._asked)
        for group, place, alike in zip(
            known.rows.tolist(), known.places.tolist(), known.likeness.tolist(), strict=True
        ):
            self._found[group].append((place, alike))
        left = range(len(unique)) if self._confirms else [one for one in range(len(unique)) if one not in self._found]
        open_ = numbers(left)
        inner = self._join.within(self._asked.take(open_), most)
        return None if inner is None else (open_[inner.rows], open_[inner.places], inner.likeness)


def _equal(block: Bags) -> tuple[Numbers, list[int]]:
    """Return the first row of each group of equal ones, and each row's group."""
    groups: dict[bytes, int] = {}
    firsts: list[int] = []
    found: list[int] = []
    for row in range(len(block)):
        group = groups.setdefault(block.rows(row, row + 1).members.tobytes(), len(groups))
        if group == len(firsts):
            firsts.append(row)
        found.append(group)
    return numbers(firsts), found
