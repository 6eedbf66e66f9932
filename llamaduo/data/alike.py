"""What is alike: texts compared by their words and their pairs of neighbouring words.

    bags = own([["Classify this ticket: my invoice is wrong"], ["Classify this ticket: my hinge is wrong"], ...])
    index = Index(bags, 0.8)             # is told beforehand how frequent words are
    index.add(bags[0])
    index.matches(bags[1])               # [(0, 0.83)]: place and Jaccard index of what is at least that alike
    groups(bags)                         # [0, 1, 0, 2, ...]: the number of each text's group of near-duplicates

A text is a list of turns. Pairs keep order: "Is A taller than B?" has the words of "Is B taller than A?", but other
pairs. What more than half of the texts share (a fixed instruction, stop words) tells nothing and is left out, so that
it doesn't make texts alike; a text that has nothing else is compared whole, and so resembles only such texts.
The search is exact (prefix filtering, Bayardo et al. 2007: with a threshold t, sets that are alike share one of their
n - ceil(t n) + 1 rarest members).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from statistics import median

from llamaduo.records import Example, turn_text

NEAR = 0.75
"""Jaccard index from which coverage prompts are near-duplicates: hardly any two different prompts of the pocket tasks
or of No Robots have it, and a request of six words with a seventh behind it has."""
_SHARED_BY = 3
"""Texts that have to share a word before it can be left out: of two that are alike, everything would be."""
_LARGE, _MANY = 0.1, 20
"""A group of more than this share of the texts, and of that many, may be one by an instruction of its own."""
_LITTLE = 6
"""Members of a bag that come from three words: variants of a request differ by less, different requests by more."""

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Kana
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
"""Scripts that put no spaces between words: each of their signs counts as one."""
_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+|[^\w\s]")
_ASCII_WORD = re.compile(r"\w+|[^\w\s]")
"""The same for texts in ASCII, and faster."""

Bag = frozenset[str]
"""A text's words, and its pairs of neighbouring words as `one two`."""


def words(text: str) -> list[str]:
    """Return a text's words in order, case folded; signs that belong to no word are words of their own."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text.casefold())


def turns(example: Example) -> list[str]:
    """Return what is compared of a prompt: the texts of all its turns."""
    return [turn_text(message) for message in example.messages]


def bag(texts: Iterable[str]) -> Bag:
    """Return the words and the pairs of neighbouring words of all texts."""
    found: set[str] = set()
    for text in texts:
        row = words(text)
        found.update(row, map(" ".join, pairwise(row)))
    return frozenset(found)


def shared(bags: Sequence[Bag]) -> Bag:
    """Return what more than half of the bags share; nothing where there are fewer than three."""
    least = least_shared(len(bags))
    return frozenset(member for member, count in Counter(chain.from_iterable(bags)).items() if count >= least)


def least_shared(texts: int) -> int:
    """Return how many texts have to share a member for it to be common to them."""
    return max(_SHARED_BY, texts // 2 + 1)


def without(one: Bag, common: Bag) -> Bag:
    """Return what is left of a bag without what is common; all of it, where that would be nothing."""
    return one - common or one


class _Ranks(dict[str, int]):
    """The order of members: rarer ones first, each at a place of its own; whoever is met later comes before all."""

    def __missing__(self, member: str) -> int:
        self[member] = -len(self)
        return self[member]


class Index:
    """Bags that a new bag may be too much like; finds all of them, exactly."""

    def __init__(self, bags: Iterable[Bag], threshold: float) -> None:
        """Take the bags that will be added or asked for: the better they are known, the faster the search."""
        self._threshold = threshold
        frequency = Counter(chain.from_iterable(bags))
        self._ranks = _Ranks((member, (count << 40) + rank) for rank, (member, count) in enumerate(frequency.items()))
        self._bags: list[Bag] = []
        self._postings: dict[str, list[int]] = defaultdict(list)
        self._asked: tuple[Bag, list[str]] = (frozenset(), [])
        """The last bag asked for, which is often the next to be added, and its rarest members."""

    def _prefix(self, one: Bag) -> list[str]:
        if self._asked[0] is not one:
            needed = len(one) - math.ceil(self._threshold * len(one) - 1e-9) + 1
            self._asked = (one, sorted(one, key=self._ranks.__getitem__)[:needed])
        return self._asked[1]

    def add(self, one: Bag) -> None:
        """Put a bag into the index."""
        for member in self._prefix(one):
            self._postings[member].append(len(self._bags))
        self._bags.append(one)

    def candidates(self, one: Bag) -> set[int]:
        """Return the places of bags that may be as alike as the threshold; no other one is."""
        return {place for member in self._prefix(one) for place in self._postings.get(member, ())}

    def likeness(self, one: Bag, place: int) -> float:
        """Return the Jaccard index of a bag and that at a place, 0 to 1."""
        other = self._bags[place]
        both = len(one & other)
        return both / (len(one) + len(other) - both)

    def matches(self, one: Bag) -> list[tuple[int, float]]:
        """Return (place, Jaccard index) of every bag at least as alike as the threshold, in order."""
        found = [(place, self.likeness(one, place)) for place in sorted(self.candidates(one))]
        return [(place, alike) for place, alike in found if alike >= self._threshold]


def index(held: Sequence[Bag], soon: Sequence[Bag], threshold: float) -> Index:
    """Return an index of bags that knows how frequent words are in those that will be asked for first."""
    made = Index(chain(held, soon), threshold)
    for one in held:
        made.add(one)
    return made


def groups(bags: Sequence[Bag], threshold: float = NEAR) -> list[int]:
    """Return the number of each bag's group: what is alike is in one group, if need be over others.

    Two things make large groups that are none. An instruction that a part of the prompts has: so a group of more than
    a tenth of the bags, and of twenty or more, is divided anew without what most of its own members share, unless
    they differ by less than about three words. And words that can't tell the prompts apart, or chains of likeness: so
    a group of more than half of the bags, and of twenty or more, is taken apart into single ones.
    """
    common = shared(bags)
    numbers = _components([without(one, common) for one in bags], threshold)
    for number, size in Counter(numbers).items():
        if size < max(_MANY, _LARGE * len(bags)):
            continue
        rows = [row for row, found in enumerate(numbers) if found == number]
        inner = [bags[row] for row in rows]
        own = shared(inner)
        parts = [0] * size
        if size < len(bags) and median(len(one - own) for one in inner) >= _LITTLE:
            parts = groups(inner, threshold)
        elif size > len(bags) / 2:
            parts = list(range(size))
        first = max(numbers) + 1
        for row, part in zip(rows, parts, strict=True):
            numbers[row] = first + part
    return numbers


def _components(bags: Sequence[Bag], threshold: float) -> list[int]:
    """Return the number of each bag's component of the graph that joins what is alike."""
    index = Index(bags, threshold)
    parents = list(range(len(bags)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for row, one in enumerate(bags):
        for place in index.candidates(one):
            if (other := root(place)) != root(row) and index.likeness(one, place) >= threshold:
                parents[other] = root(row)
        index.add(one)
    return [root(row) for row in range(len(bags))]
