"""How varied synthetic rows are, and how far they reach beyond coverage rows; exact, and the same on any machine.

    distinct(grams(["the red car", "the red bus"], 2), at=3)      0.83 of three pairs of words that are drawn
    nearest(rows, coverage)       by row 1 - the largest Jaccard index with a coverage row
    reach(rows, coverage)         clusters of coverage by topic, and how many have a new row

Distinct-n (Li et al. 2016) falls with the size of a set, so that sets can only be compared at one size: what is
returned is what it comes to on average for `at` n-grams drawn from the set (rarefaction, Hurlbert 1971), computed
and not drawn. Nearness is that of curation: words and pairs of neighbouring words, without what most texts share.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from llamaduo.audit.clusters import clustering
from llamaduo.data.alike import Bag, bag, shared, words

LENGTHS = (1, 2, 3)
"""The n of distinct-n."""
MOST_GRAMS = 10_000
"""n-grams at which sets are compared, where all have so many."""
_CELLS = 4_000_000
MOST_PAIRS = 64_000_000
"""Pairs of rows that are compared; of more rows, evenly spaced ones are."""


def grams(texts: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """Return how often each run of n words stands in the texts."""
    rows = map(words, texts)
    return Counter(chain.from_iterable(zip(*(row[first:] for first in range(n)), strict=False) for row in rows))


def distinct(counted: Counter[tuple[str, ...]], at: int) -> float | None:
    """Return the share of distinct n-grams among `at` that are drawn, 0 to 1; None where there are fewer."""
    total = counted.total()
    if not 0 < at <= total:
        return None
    left_out = 0.0
    for times, many in sorted(Counter(counted.values()).items()):
        if total - times >= at:
            left_out += many * math.exp(_log_choose(total - times, at) - _log_choose(total, at))
    return (len(counted) - left_out) / at


def _log_choose(of: int, chosen: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)


def distinct_beside(rows: Sequence[str], coverage: Sequence[str]) -> list[dict[str, float | int | None]]:
    """Return distinct-n of both sets for each n, at as many n-grams as both have."""
    found: list[dict[str, float | int | None]] = []
    for n in LENGTHS:
        ours, theirs = grams(rows, n), grams(coverage, n)
        at = min(ours.total(), theirs.total(), MOST_GRAMS)
        told = {"rows": distinct(ours, at), "coverage": distinct(theirs, at)}
        found.append(
            {"n": n, "at": at, **{name: None if value is None else round(value, 4) for name, value in told.items()}}
        )
    return found


def nearest(rows: Sequence[str], coverage: Sequence[str], *, same: bool = False) -> list[float]:
    """Return the distance of each row to the nearest coverage row, 0 (its words) to 1 (none of them).

    With `same` the two are one set, and a row isn't its own neighbour.
    """
    there = [bag([text]) for text in coverage]
    common = shared(there)
    known = [one - common or one for one in there]
    ours = known if same else [one - common or one for one in (bag([text]) for text in rows)]
    return _distances(ours, known, same=same)


def _distances(ours: Sequence[Bag], theirs: Sequence[Bag], *, same: bool) -> list[float]:
    """Return 1 - the largest Jaccard index with any of the others, by products of sparse matrices of ones."""
    import numpy as np
    from scipy.sparse import csr_array

    if not theirs or (same and len(theirs) < 2):
        return [1.0] * len(ours)
    places = {member: place for place, member in enumerate(sorted(set(chain.from_iterable(theirs))))}

    def matrix(bags: Sequence[Bag]) -> csr_array:
        rows = [sorted(places[member] for member in one if member in places) for one in bags]
        ends = np.cumsum([0, *map(len, rows)])
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
        return csr_array((np.ones(len(flat), dtype=np.int32), flat, ends), shape=(len(bags), len(places)))

    columns = matrix(theirs).T.tocsr()
    sizes = np.array([len(one) for one in theirs])
    step, found = max(1, _CELLS // len(theirs)), []
    for first in range(0, len(ours), step):
        block = ours[first : first + step]
        both = (matrix(block) @ columns).toarray()
        either = np.array([len(one) for one in block])[:, None] + sizes - both
        alike = both / np.maximum(either, 1)
        if same:
            alike[np.arange(len(block)), first + np.arange(len(block))] = -1.0
        found += (1 - alike.max(axis=1)).tolist()
    return found


def spaced(rows: Sequence[str], others: int) -> list[str]:
    """Return the rows, or evenly spaced ones of them where all would make too many pairs with so many others."""
    most = max(1, MOST_PAIRS // max(1, others))
    return list(rows) if len(rows) <= most else [rows[at * len(rows) // most] for at in range(most)]


@dataclass(frozen=True)
class Reach:
    """How many topics of coverage have new rows."""

    clusters: int
    """Clusters of coverage rows, by topic."""
    reached: int
    """Of them, those that a new row is nearest to."""
    largest: float
    """Share of the new rows that are nearest to the cluster with most of them."""
    apart: int
    """New rows that share no word with any coverage row."""
    without: tuple[str, ...]
    """A coverage row of each of the largest clusters without a new row, three at most."""


def topics(rows: int) -> int:
    """Return into how many clusters so many coverage rows are divided: the square root of half of them, 2 to 100."""
    return max(2, min(100, round(math.sqrt(rows / 2))))


def reach(rows: Sequence[str], coverage: Sequence[str], seed: int = 0) -> Reach:
    """Return how many clusters of coverage have rows that are nearest to them."""
    found = clustering(coverage, topics(len(coverage)), seed)
    near = Counter(found.nearest(rows))
    apart = near.pop(None, 0)
    sizes = Counter(found.labels)
    empty = sorted((one for one in sizes if one not in near), key=lambda one: (-sizes[one], one))
    return Reach(
        clusters=found.count,
        reached=len(near),
        largest=round(max(near.values(), default=0) / max(1, len(rows)), 4),
        apart=apart,
        without=tuple(coverage[found.labels.index(one)] for one in empty[:3]),
    )
