"""Diversity: distinct-n at one size, exact nearest neighbours, topics with new rows."""

from __future__ import annotations

import itertools
import random

import pytest

from llamaduo.audit.diversity import distinct, distinct_beside, grams, nearest, reach, spaced, topics
from llamaduo.data.alike import bag, shared

WORDS = [f"w{number}" for number in range(60)]


def _texts(count: int, seed: int, words: list[str] = WORDS) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(words, k=rng.randint(3, 12))) for _ in range(count)]


def test_distinct_is_the_mean_over_all_draws():
    counted = grams(["a b a c", "b a"], 1)
    every = [word for word, times in counted.items() for _ in range(times)]
    draws = [len(set(drawn)) / 3 for drawn in itertools.combinations(every, 3)]
    assert distinct(counted, 3) == pytest.approx(sum(draws) / len(draws))
    assert distinct(counted, counted.total()) == pytest.approx(3 / 6)
    assert distinct(counted, 7) is None
    assert distinct(grams([], 1), 1) is None


def test_a_set_repeated_is_less_distinct_at_the_same_size_and_a_larger_one_of_its_kind_is_not():
    once, twice = _texts(100, 1, WORDS), _texts(300, 2, WORDS)
    same, larger = distinct_beside(once * 3, once)[1], distinct_beside(twice, once)[1]
    assert same["at"] == larger["at"]
    assert same["rows"] == pytest.approx(same["coverage"], abs=0.02) or same["rows"] < same["coverage"]
    assert larger["rows"] >= larger["coverage"] - 0.02
    assert distinct_beside(["a b"] * 50, once)[1]["rows"] < 0.1


def test_grams_do_not_cross_rows():
    assert dict(grams(["a b c", "d"], 2)) == {("a", "b"): 1, ("b", "c"): 1}


def test_nearest_is_the_exact_jaccard_distance():
    coverage, rows = _texts(40, 3), _texts(30, 4)
    bags = [bag([text]) for text in coverage]
    common = shared(bags)

    def apart(text: str, other: frozenset[str]) -> float:
        one, two = bag([text]) - common or bag([text]), other - common or other
        return 1 - len(one & two) / len(one | two)

    expected = [min(apart(text, other) for other in bags) for text in rows]
    assert nearest(rows, coverage) == pytest.approx(expected)
    assert nearest(coverage[:5], coverage) == [0.0] * 5
    own = nearest(coverage, coverage, same=True)
    assert own == pytest.approx(
        [min(apart(text, other) for at, other in enumerate(bags) if at != place) for place, text in enumerate(coverage)]
    )


def test_without_neighbours_everything_is_far():
    assert nearest(["a b"], []) == [1.0]
    assert nearest(["a b"], ["a b"], same=True) == [1.0]
    assert nearest([], ["a"]) == []
    assert nearest(["", "c d"], ["a b"]) == [1.0, 1.0]


def test_topics_without_new_rows_are_named():
    rng = random.Random(0)
    kinds = {"a": [f"alpha{n}" for n in range(8)], "b": [f"beta{n}" for n in range(8)]}
    coverage = [" ".join(rng.sample(kinds[kind], 5)) for kind in "ab" * 20]
    found = reach([text for text in coverage if text.startswith("alpha")] + ["nothing of it"], coverage)
    assert found.clusters == topics(40)
    assert 0 < found.reached < found.clusters
    assert found.apart == 1
    assert all(text.startswith("beta") for text in found.without)
    assert reach(coverage, coverage).reached == found.clusters


def test_many_rows_are_thinned_evenly():
    rows = [str(number) for number in range(100)]
    assert spaced(rows, 10) == rows
    assert spaced(rows, 64_000_000 // 4) == ["0", "25", "50", "75"]
