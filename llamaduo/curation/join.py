"""Finds all bags that are alike, exactly, among hundreds of thousands.

    join = Join(0.9)
    join.expect(bags)                    how frequent members are: the better they are known, the faster the search
    join.add(bags)                       places are counted on
    asked = join.asked(others)           under which keys at most 512 others are found
    join.matches(asked)                  their rows, places and Jaccard indices of all that are at least so alike
    join.within(asked, most=10**6)       the same among themselves
    join.put(asked.take(rows))           those of them that stay

Prefix filtering (Bayardo et al. 2007, "Scaling up all pairs similarity search"): with the members of all bags in one
order, rare ones first, two bags whose Jaccard index is at least t share one of their first n - ceil(t n) + 1. If the
first that they share is a frequent one, so is the second, which is among their first n - ceil(t n) + 2: so frequent
members are looked up by pairs (as in Wang et al. 2012, "Can we beat the prefix filtering?"). What is left by sizes and
by signatures of 128 bits (as many bits as two signatures differ in, as many members do at least; Sandes et al. 2020,
"Bitmap filter") is counted. A lookup table in sorted parts takes new bags; parts of like sizes are merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llamaduo.curation.bags import BLOCK, MEMBER_BITS, Bags, distinct, offsets, spread

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamaduo.curation.bags import Numbers

    Keys = NDArray[np.uint64]

_TABLE_BITS = 22
_RARE = 100
"""Rows that have a member which is looked up alone, at most."""
_LEVELS, _STEPS = 128, 5
"""Members are ordered by how often the number of their rows doubles, in fifths, as far as 7 bits hold it."""
_LONG = 256
"""Members of a bag from which frequent ones are looked up alone: pairs would be too many."""
_PAIRS_FROM = 0.7
"""Threshold from which pairs are looked up: below, bags have too many."""
_AT_ONCE = 1 << 22
"""Numbers held at a time while candidates are looked through."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX_SECOND = np.uint64(0xC2B2AE3D27D4EB4F)
_PLACE = (1 << 32) - 1


@dataclass(frozen=True)
class Matches:
    """Pairs of bags that are alike."""

    rows: Numbers
    """Of the block that was asked for."""
    places: Numbers
    """In the index, or in the block itself."""
    likeness: NDArray[np.float64]
    """Jaccard index, 0 to 1."""


@dataclass(frozen=True)
class Asked:
    """Bags, and how they are found."""

    bags: Bags
    keys: Keys
    """Of the first row, then of the second, and so on."""
    starts: Numbers
    """Where the keys of each row begin, and where those of the last one end."""
    signatures: Keys
    """Two numbers a row."""

    @property
    def rows(self) -> Numbers:
        """The row of each key."""
        return np.repeat(np.arange(len(self.bags)), np.diff(self.starts))

    def take(self, rows: Numbers) -> Asked:
        """Return the rows of these numbers, in their order."""
        sizes = np.diff(self.starts)[rows]
        keys = self.keys[spread(self.starts[rows], sizes)]
        return Asked(self.bags.take(rows), keys, offsets(sizes), self.signatures[rows])


class Join:
    """An index of bags."""

    def __init__(self, threshold: float) -> None:
        """Find pairs whose Jaccard index is at least `threshold`."""
        self.threshold = threshold
        self._store = _Store()
        self._bits = 0
        """Of the tables that follow: they have room for about as many members as are known."""
        self._levels = np.zeros(1, dtype=np.uint16)
        """How frequent members are, by their bucket."""
        self._known = 0
        """Rows by which the frequency of members was told."""
        self._parts: list[tuple[Keys, Numbers]] = []
        self._seen = np.zeros(1, dtype=bool)
        """Whether any bag is found under a key of this bucket."""

    def __len__(self) -> int:
        return len(self._store)

    def expect(self, soon: Bags) -> None:
        """Learn how frequent members are, if there are many more rows than were known; the order of members changes."""
        rows = len(self) + len(soon)
        if rows < 2 * self._known:
            return
        members = self._store.members[: self._store.used], soon.members
        self._bits = min(max(sum(map(len, members)), 1).bit_length(), _TABLE_BITS)
        counts = np.zeros(1 << self._bits, dtype=np.int64)
        for some in (lot[begin : begin + _AT_ONCE] for lot in members for begin in range(0, len(lot), _AT_ONCE)):
            counts += np.bincount(_bucket(some, self._bits), minlength=len(counts))
        self._levels = np.minimum(_STEPS * np.log2(counts + 1), _LEVELS - 1).astype(np.uint16)
        self._seen = np.zeros(4 << self._bits, dtype=bool)
        self._known, self._parts = rows, []
        if len(self):
            self._insert(*self._lookups(self._store.bags))

    def add(self, bags: Bags) -> None:
        """Put bags into the index."""
        self.put(self.asked(bags))

    def put(self, asked: Asked) -> None:
        """Put bags into the index of which it is known how they are found."""
        before = len(self)
        self._store.add(asked)
        if len(self) >= 2 * self._known:
            self.expect(Bags(np.zeros(0, dtype=np.int64), np.zeros(1, dtype=np.int64)))
        else:
            self._insert(asked.keys, asked.rows + before)

    def asked(self, bags: Bags) -> Asked:
        """Return under which keys bags are found; until the next `expect`."""
        keys, rows = self._lookups(bags)
        order = np.argsort(rows, kind="stable")
        return Asked(bags, keys[order], offsets(np.bincount(rows, minlength=len(bags))), _signatures(bags))

    def matches(self, asked: Asked) -> Matches:
        """Return what is alike in the index, for at most `BLOCK` bags; in order of rows, then of places."""
        maybe = np.flatnonzero(self._seen[_bucket_of(asked.keys, self._bits + 2)])
        maybe = maybe[np.argsort(asked.keys[maybe])]  # in the order of the tables, whose memory is then read in one go
        lookups = asked.keys[maybe], asked.rows[maybe]
        pairs = [_candidates(asked, lookups, part, self._store, self.threshold) for part in self._parts]
        return self._confirmed(asked.bags, pairs, self._store)

    def within(self, asked: Asked, most: int) -> Matches | None:
        """Return the same among the rows of a block, each with earlier ones; None if more than `most` share a key."""
        order = np.argsort(asked.keys, kind="stable")
        part = asked.keys[order], asked.rows[order]
        if _ranges(part[0], part[0])[1].sum() > most:
            return None
        store = _Store()
        store.add(asked)
        found = _candidates(asked, part, part, store, self.threshold)
        return self._confirmed(asked.bags, [found[found >> 32 > found & _PLACE]], store)

    def _confirmed(self, block: Bags, pairs: list[Numbers], store: _Store) -> Matches:
        """Return those pairs that are alike, by counting what they share."""
        found = distinct(np.concatenate([np.zeros(0, dtype=np.int64), *pairs]))
        rows, places = found >> 32, found & _PLACE
        ours = (np.repeat(np.arange(len(block)), block.sizes) << MEMBER_BITS) | block.members
        both = np.zeros(len(found), dtype=np.int64)
        sizes = store.sizes[places]
        for some in _slices(sizes):
            starts, lengths = store.starts[places[some]], sizes[some]
            theirs = (np.repeat(rows[some], lengths) << MEMBER_BITS) | store.members[spread(starts, lengths)]
            at = np.minimum(np.searchsorted(ours, theirs), len(ours) - 1)
            both[some] = np.add.reduceat(ours[at] == theirs, offsets(lengths)[:-1], dtype=np.int64)
        likeness = both / (block.sizes[rows] + sizes - both)
        alike = likeness >= self.threshold
        return Matches(rows[alike], places[alike], likeness[alike])

    def _insert(self, keys: Keys, places: Numbers) -> None:
        if not len(keys):
            return
        order = np.argsort(keys, kind="stable")
        part = keys[order], places[order]
        self._seen[_bucket_of(keys, self._bits + 2)] = True
        while self._parts and len(self._parts[-1][0]) <= 2 * len(part[0]):
            both = [np.concatenate(pair) for pair in zip(self._parts.pop(), part, strict=True)]
            order = np.argsort(both[0], kind="stable")
            part = both[0][order], both[1][order]
        self._parts.append(part)

    def _lookups(self, bags: Bags) -> tuple[Keys, Numbers]:
        """Return the keys under which bags are found, each with its row."""
        parts = [
            self._block_lookups(bags.rows(at, min(at + BLOCK, len(bags))), at) for at in range(0, len(bags), BLOCK)
        ]
        keys = np.concatenate([np.zeros(0, dtype=np.uint64), *(keys for keys, _ in parts)])
        return keys, np.concatenate([np.zeros(0, dtype=np.int64), *(rows for _, rows in parts)])

    def _block_lookups(self, bags: Bags, before: int) -> tuple[Keys, Numbers]:
        sizes = bags.sizes
        row = np.repeat(np.arange(len(bags)), sizes)
        level = self._levels[_bucket(bags.members, self._bits)]
        order = np.argsort(((row << 7) | level).astype(np.uint16), kind="stable")
        member, level = bags.members[order].astype(np.uint64), level[order]
        place = np.arange(len(row)) - bags.starts[row]
        prefix = (sizes - np.ceil(self.threshold * sizes - 1e-9).astype(np.int64) + 1)[row]
        alone = place < prefix
        if self.threshold < _PAIRS_FROM:
            return _mixed(member[alone]), row[alone] + before
        size, frequent = sizes[row], level > _STEPS * math.log2(_RARE + 1)
        alone &= ~frequent | (size == 1) | (size > _LONG)
        paired = np.flatnonzero((place <= prefix) & frequent & (size > 1) & (size <= _LONG / self.threshold))
        keys, rows = [_mixed(member[alone])], [row[alone]]
        first, second = paired[:-1], paired[1:]
        while (same := row[first] == row[second]).any():
            keys.append(_mixed(member[first[same]] * _MIX_SECOND + member[second[same]]))
            rows.append(row[first[same]])
            first, second = first[:-1], second[1:]
        return np.concatenate(keys), np.concatenate(rows) + before


class _Store:
    """Bags in arrays with room to grow."""

    def __init__(self) -> None:
        self._count, self.used = 0, 0
        self.members = np.zeros(0, dtype=np.int64)
        self.starts = np.zeros(0, dtype=np.int64)
        self.sizes = np.zeros(0, dtype=np.int64)
        self.signatures = np.zeros((0, 2), dtype=np.uint64)

    def __len__(self) -> int:
        return self._count

    @property
    def bags(self) -> Bags:
        """All of them."""
        return Bags(self.members[: self.used], offsets(self.sizes[: self._count]))

    def add(self, asked: Asked) -> None:
        bags = asked.bags
        count, used = self._count + len(bags), self.used + len(bags.members)
        rows = slice(self._count, count)
        for name in ("starts", "sizes", "signatures"):
            setattr(self, name, _with_room(getattr(self, name), count))
        self.members = _with_room(self.members, used)
        self.members[self.used : used] = bags.members
        self.starts[rows] = bags.starts[:-1] + self.used
        self.sizes[rows] = bags.sizes
        self.signatures[rows] = asked.signatures
        self._count, self.used = count, used


def _with_room(array: NDArray[Any], size: int) -> NDArray[Any]:
    if size <= len(array):
        return array
    grown = np.zeros((max(size, 3 * len(array) // 2), *array.shape[1:]), dtype=array.dtype)
    grown[: len(array)] = array
    return grown


def _signatures(bags: Bags) -> Keys:
    """Return two 64-bit numbers a row: each member sets one of their 128 bits."""
    found = np.zeros((len(bags), 2), dtype=np.uint64)
    full = np.flatnonzero(bags.sizes)
    if len(full):
        bit = (_mixed(bags.members) >> np.uint64(20)) & np.uint64(127)
        value = np.uint64(1) << (bit & np.uint64(63))
        for half in (0, 1):
            mine = np.where(bit >> np.uint64(6) == half, value, np.uint64(0))
            found[full, half] = np.bitwise_or.reduceat(mine, bags.starts[full])
    return found


def _mixed(numbers: NDArray[Any]) -> Keys:
    """Return numbers whose high bits are as good as random; different ones for different numbers."""
    mixed: Keys = numbers.astype(np.uint64) * _MIX
    mixed ^= mixed >> np.uint64(32)
    return mixed * _MIX


def _bucket(members: Numbers, bits: int) -> Numbers:
    return _bucket_of(_mixed(members), bits)


def _bucket_of(keys: Keys, bits: int) -> Numbers:
    return (keys >> np.uint64(64 - bits)).astype(np.int64)


def _ranges(table: Keys, keys: Keys) -> tuple[Numbers, Numbers]:
    """Return where the entries of each key begin in a sorted table, and how many there are."""
    begin = np.searchsorted(table, keys)
    sizes = np.zeros(len(keys), dtype=np.int64)
    if len(table):
        hit = table[np.minimum(begin, len(table) - 1)] == keys
        sizes[hit] = np.searchsorted(table, keys[hit], side="right") - begin[hit]
    return begin, sizes


def _candidates(
    asked: Asked, lookups: tuple[Keys, Numbers], part: tuple[Keys, Numbers], store: _Store, threshold: float
) -> Numbers:
    """Return pairs (row 2^32 + place) that share a key, as far as sizes and signatures let them be alike."""
    keys, rows = lookups
    begin, sizes = _ranges(part[0], keys)
    ours, found = asked.bags.sizes, [np.zeros(0, dtype=np.int64)]
    hit = np.flatnonzero(sizes)
    for some in _slices(sizes[hit]):
        one = hit[some]
        row, place = np.repeat(rows[one], sizes[one]), part[1][spread(begin[one], sizes[one])]
        mine, theirs = ours[row], store.sizes[place]
        fits = np.minimum(mine, theirs) >= threshold * np.maximum(mine, theirs) - 1e-9
        row, place, total = row[fits], place[fits], (mine + theirs)[fits]
        differ = np.bitwise_count(asked.signatures[row] ^ store.signatures[place]).sum(axis=1, dtype=np.int64)
        fits = (total - differ) * (1 + threshold) >= 2 * threshold * total - 1e-6
        found.append(distinct((row[fits] << 32) | place[fits]))
    return np.concatenate(found)


def _slices(sizes: Numbers) -> Iterator[slice]:
    """Yield slices of things of these sizes, each of at most `_AT_ONCE` together or of a single one."""
    ends, begin = np.cumsum(sizes), 0
    while begin < len(ends):
        before = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
        yield slice(begin, end)
        begin = end
