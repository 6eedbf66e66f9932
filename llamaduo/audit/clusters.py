"""Clusters of texts by topic: spherical k-means over TF-IDF of words, the same on any machine.

    clusters(["Reset my password", "The invoice is wrong", "Password lost"], count=2, seed=0)      [0, 1, 0]
    found = clustering(coverage, count=40, seed=0)
    found.nearest(["I forgot my password"])                                                        [0]

Reads texts and writes nothing. A text is the direction of its words' weights, a word's weight the log2 of how rare it
is; of scripts without spaces, pairs of neighbouring signs count besides. Centres are begun with by k-means++ (Arthur
and Vassilvitskii 2007) and moved until nothing changes. All sums are of integers, and nothing but square roots and
quotients is rounded, which IEEE 754 lays down: no order of adding, library or processor makes another partition of it.
Equal texts share a cluster, and the order of the texts changes no more than the numbers, which follow it.

These are no near-duplicates (`data.alike.groups`): what shares a cluster is about the same things. 16,000 texts of 300
characters take 2 to 4 seconds with 100 clusters.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llamaduo.data.alike import words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

_TERMS = 8192
"""The most frequent words are looked at, so many."""
_UNIT = 1 << 15
"""Length of a direction, in the integers that it is made of."""
_FINE = 16
"""Steps of a weight in which a word twice as rare weighs more by one bit."""
_FINER = 1 << 10
"""By which means of rows are finer than the rows."""
_ROUNDS = 25
_CELLS = 8_000_000
"""Products that are held at a time."""


def clusters(texts: Sequence[str], count: int, seed: int) -> list[int]:
    """Return the number of each text's cluster, counted from 0 in order of appearance.

    There are at most `count` (at least 1) of them; fewer where there are fewer different texts.
    """
    return clustering(texts, count, seed).labels


def clustering(texts: Sequence[str], count: int, seed: int) -> Clustering:
    """Return the clusters of texts, and what it takes to find the nearest ones of others."""
    if count < 1:
        raise ValueError(f"count={count}: there has to be a cluster to be in.")
    different = sorted(set(texts))
    counted = [Counter(_terms(text)) for text in different]
    terms = _Terms.of(counted)
    rows = terms.directions(counted)
    centres = _begun(rows, min(count, len(different)), random.Random(seed))
    labels = _nearest(rows, centres)[0]
    for _ in range(_ROUNDS):
        centres = _centres(rows, labels, len(centres))
        moved = _filled(*_nearest(rows, centres), len(centres))
        if (moved == labels).all():
            break
        labels = moved
    of = dict(zip(different, labels.tolist(), strict=True))
    numbers = {label: number for number, label in enumerate(dict.fromkeys(of[text] for text in texts))}
    centres = _centres(rows, labels, len(centres))[list(numbers)]
    return Clustering([numbers[of[text]] for text in texts], len(numbers), terms, centres)


@dataclass(frozen=True)
class Clustering:
    """Texts in clusters."""

    labels: list[int]
    """The number of each text's cluster."""
    count: int
    """How many clusters there are; none is empty."""
    _terms: _Terms
    _centres: Ints

    def nearest(self, texts: Sequence[str]) -> list[int | None]:
        """Return the number of the cluster that each text is nearest to; None for one that shares no word with any."""
        if not texts or not self.count:
            return [None] * len(texts)
        counted = [Counter(_terms(text)) for text in texts]
        labels, alike = _nearest(self._terms.directions(counted), self._centres)
        return [label if near else None for label, near in zip(labels.tolist(), (alike > 0).tolist(), strict=True)]


@dataclass(frozen=True)
class _Terms:
    """The words that texts are told apart by."""

    places: dict[str, int]
    weights: list[int]

    @classmethod
    def of(cls, rows: Sequence[Counter[str]]) -> _Terms:
        """Take the words of texts, with how often each is in a text."""
        frequency = Counter(term for row in rows for term in row)
        kept = sorted(frequency, key=lambda term: (-frequency[term], term))[:_TERMS]
        rare = cache(lambda times: _log2(len(rows), times))
        return cls({term: place for place, term in enumerate(kept)}, [rare(frequency[term]) for term in kept])

    def directions(self, rows: Sequence[Counter[str]]) -> Any:
        """Return (texts, terms), sparse integers: directions of length `_UNIT`, or zeros, of texts' counted words."""
        import numpy as np
        from scipy.sparse import csr_array

        found = [self._weighed(row) for row in rows]
        sizes = [len(row) for row in found]
        ends = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        places = np.array([place for row in found for place in row], dtype=np.int64)
        values = np.array([value for row in found for value in row.values()], dtype=np.int64)
        at = np.repeat(np.arange(len(rows)), sizes)
        squares = np.zeros(len(rows), dtype=np.int64)
        np.add.at(squares, at, values**2)
        values = (_UNIT * values / np.sqrt(squares[at])).astype(np.int64)
        return csr_array((values, places, ends), shape=(len(rows), len(self.places)))

    def _weighed(self, row: Counter[str]) -> dict[int, int]:
        """Return the weight of each known word of a text, by its place; repeats count by the log."""
        known = ((self.places[term], times) for term, times in row.items() if term in self.places)
        weighed = ((place, times.bit_length() * self.weights[place]) for place, times in known)
        return {place: weight for place, weight in weighed if weight}


def _terms(text: str) -> Iterator[str]:
    """Yield what tells of a text's topic: its words, and pairs of neighbouring signs of scripts without spaces."""
    found = [word for word in words(text) if word[0].isalnum()]
    yield from found
    if not text.isascii():
        yield from (one + other for one, other in pairwise(found) if _is_sign(one) and _is_sign(other))


def _is_sign(word: str) -> bool:
    return len(word) == 1 and not word.isascii()


def _log2(of: int, times: int) -> int:
    """Return `_FINE` times the log2 of a quotient of at least 1, rounded down, without a logarithm."""
    quotient: int = of**_FINE // times**_FINE
    return quotient.bit_length() - 1


def _begun(rows: Any, count: int, chance: random.Random) -> Ints:
    """Return the rows that centres begin at: each the likelier, the further it is from those before it."""
    import numpy as np

    lengths = (rows * rows).sum(axis=1)
    far = np.full(rows.shape[0], 2 * _UNIT * _UNIT, dtype=np.int64)
    chosen: list[int] = []
    while len(chosen) < count:
        ends = np.cumsum(far)
        left = int(ends[-1])
        at = int(np.searchsorted(ends, int(chance.random() * left), side="right")) if left else len(chosen)
        chosen.append(at)
        centre = rows[[at]].toarray()[0]
        far = np.minimum(far, np.maximum(0, lengths + lengths[at] - 2 * (rows @ centre)))
        far[at] = 0
    found: Ints = rows[chosen].toarray()
    return found


def _centres(rows: Any, labels: Ints, count: int) -> Ints:
    """Return (count, terms): the direction of the sum of each cluster's rows."""
    import numpy as np
    from scipy.sparse import csr_array

    each = np.arange(len(labels))
    members = csr_array((np.ones(len(labels), dtype=np.int64), (labels, each)), shape=(count, len(labels)))
    sizes = np.maximum(1, np.bincount(labels, minlength=count))[:, None]
    means = _FINER * (members @ rows).toarray() // sizes  # their squares come to less than 2**53
    length = np.sqrt((means * means).sum(axis=1, keepdims=True))
    found: Ints = (_UNIT * means / np.maximum(length, 1.0)).astype(np.int64)
    return found


def _nearest(rows: Any, centres: Ints) -> tuple[Ints, Ints]:
    """Return the number of the centre that each row points to most, the first of several, and how much it does."""
    import numpy as np

    step = max(1, _CELLS // max(1, len(centres)))
    turned = np.ascontiguousarray(centres.T)
    labels, alike = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for first in range(0, rows.shape[0], step):
        products = rows[first : first + step] @ turned
        labels.append(products.argmax(axis=1))
        alike.append(products.max(axis=1))
    return np.concatenate(labels), np.concatenate(alike)


def _filled(labels: Ints, alike: Ints, count: int) -> Ints:
    """Return labels with a row in every cluster: empty ones take those that fit their own least."""
    import numpy as np

    sizes = np.bincount(labels, minlength=count)
    order = iter(np.argsort(alike, kind="stable").tolist())
    for empty in np.flatnonzero(sizes == 0).tolist():
        row = next(row for row in order if sizes[labels[row]] > 1)
        sizes[labels[row]] -= 1
        sizes[empty] += 1
        labels[row] = empty
    return labels
