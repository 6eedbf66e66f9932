"""Near-duplicates: what is removed is what comparing each row with all kept rows before it removes, at any size.

The oracle is `data/alike.py`'s index of frozen sets, and ROUGE-L over whoever is alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import example

from llamaduo.config import Curation, CurationFilter, DuplicateText
from llamaduo.curation import bags, blocks, join
from llamaduo.curation.curate import Curated, Curator
from llamaduo.data.alike import Bag, bag, index, shared, turns, without, words
from llamaduo.evidence.reference import rouge_l
from llamaduo.records import Example

NEAR = [CurationFilter.near]


def config(threshold: float, text: DuplicateText = DuplicateText.pair, rouge: float | None = None) -> Curation:
    return Curation(text, threshold, rouge, 0.8, NEAR)


def oracle(new: Sequence[Example], known: Sequence[Example], its: Curation) -> list[tuple[int, str, float]]:
    """Return (row, match, similarity) of every row that the slow way removes."""
    pair = its.duplicate_text is DuplicateText.pair

    def whole(row: Example) -> Bag:
        return bag([*turns(row), row.response]) if pair else frozenset(words(row.response))

    common = shared([whole(row) for row in known]) if pair else frozenset()
    kept, prompts = list(known), {row.prompt_id for row in known}
    found = index([without(whole(row), common) for row in known], [], its.duplicate_jaccard)
    removed = []
    for number, row in enumerate(new):
        own = without(whole(row), common)
        if row.prompt_id in prompts:
            removed.append((number, row.prompt_id, 1.0))
            continue
        alike = found.matches(own)
        if its.confirm_rouge_l is not None:
            least = 100 * its.confirm_rouge_l
            alike = [(at, close) for at, close in alike if rouge_l(kept[at].response, row.response) > least]
        if alike:
            removed.append((number, kept[alike[0][0]].prompt_id, round(alike[0][1], 4)))
            continue
        kept.append(row)
        prompts.add(row.prompt_id)
        found.add(own)
    return removed


def removed(found: Curated) -> list[tuple[int, str, float | None]]:
    return [(one.row, one.match, one.similarity) for one in found.removed]


def taken(new: Sequence[Example], known: Sequence[Example], its: Curation, size: int = 10**9) -> Curated:
    curator, found = Curator(known=known, held_out=[], config=its), Curated()
    for begin in range(0, max(len(new), 1), size):
        found += curator.take(new[begin : begin + size])
    return found


VOCABULARIES = {"few words": 12, "some": 60, "many": 3000}


def drawn(rng: random.Random, size: int, count: int) -> list[Example]:
    """Return rows of which a third are edits of earlier ones, some of them equal, with prompts of their own or not."""
    texts: list[list[str]] = []
    for _ in range(count):
        if texts and rng.random() < 0.35:
            text = list(rng.choice(texts))
            for _ in range(rng.randrange(3)):
                at = rng.randrange(len(text) + 1)
                text[at : at + rng.randrange(2)] = [f"w{rng.randrange(size)}"]
        else:
            text = [f"w{min(int(rng.paretovariate(0.7)), size)}" for _ in range(rng.choice((0, 1, 2, 5, 12, 40)))]
        texts.append(text or ["alone"])
    return [example(f"{' '.join(text)} {'' if rng.random() < 0.9 else n}", " ".join(text[::-1]))
            for n, text in enumerate(texts)]  # fmt: skip


@pytest.mark.parametrize("size", VOCABULARIES.values(), ids=VOCABULARIES)
@pytest.mark.parametrize(
    "its",
    [
        config(0.9),
        config(0.6),
        config(0.3),
        config(0.9, DuplicateText.response, 0.7),
        config(0.8, DuplicateText.response),
        config(1.0),
    ],
    ids=["pairs 0.9", "pairs 0.6", "pairs 0.3", "paper", "responses 0.8", "the same bags"],
)
def test_removals_are_those_of_comparing_everything(size: int, its: Curation) -> None:
    for seed in range(4):
        rng = random.Random(seed)
        rows = drawn(rng, size, 260)
        known = [*rows[:40]] if seed else []
        expected = oracle(rows[40:], known, its)
        assert removed(taken(rows[40:], known, its)) == expected
        assert removed(taken(rows[40:], known, its, size=rng.choice((1, 7, 64)))) == expected


def test_blocks_many_rows_and_a_pool_that_grows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = drawn(random.Random(7), 400, 2500)
    expected = oracle(rows, [], config(0.8))
    assert len(expected) > 400
    assert removed(taken(rows, [], config(0.8))) == expected
    assert removed(taken(rows, [], config(0.8), size=37)) == expected
    monkeypatch.setattr(blocks, "_CANDIDATES", 40)  # every block is made smaller
    monkeypatch.setattr(join, "_AT_ONCE", 500)  # candidates come in many slices
    assert removed(taken(rows, [], config(0.8))) == expected


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=9).map(" ".join) | st.text(max_size=5), max_size=20),
    st.sampled_from([0.01, 0.5, 0.7, 0.75, 0.9, 1.0]),
    st.sampled_from([(DuplicateText.pair, None), (DuplicateText.response, None), (DuplicateText.response, 0.7)]),
    st.integers(1, 8),
)
@settings(max_examples=150, deadline=None)
def test_any_texts(texts: list[str], threshold: float, how: tuple[DuplicateText, float | None], size: int) -> None:
    its = config(threshold, *how)
    rows = [example(f"{text} {n}", text) for n, text in enumerate(texts)]
    expected = oracle(rows[3:], rows[:3], its)
    assert removed(taken(rows[3:], rows[:3], its)) == expected
    assert removed(taken(rows[3:], rows[:3], its, size)) == expected


@pytest.mark.parametrize(
    "texts",
    [
        ["the same words again and again"] * 3000,
        [f"common {n} word{n} other{n}" for n in range(3000)],
        [f"{n}" for n in range(2000)] + ["x"] * 1000,
        [""] * 1500 + [" "] * 500,
        [" ".join(f"w{k}" for k in range(40)) + f" end{n}" for n in range(3000)],
        ["".join(chr(0x4E00 + (7 * n + k * k) % 400) for k in range(30)) for n in range(1500)],
    ],
    ids=["all the same", "one word common to all", "very short", "empty", "all alike", "no spaces"],
)
def test_what_others_stumble_over_is_curated_as_the_slow_way_would(texts: list[str]) -> None:
    rows = [example(f"p{n} q{n} r{n}", text) for n, text in enumerate(texts)]
    its = config(0.9, DuplicateText.response)
    kept = taken(rows, [], its).kept
    expected = {number for number, _, _ in oracle(rows[:900], [], its)}
    found = {row.prompt_id for row in kept}
    assert [row.prompt_id in found for row in rows[:900]] == [number not in expected for number in range(900)]


def test_very_long_texts() -> None:
    long = [f"w{n % 30_000}x{n % 7}" for n in range(100_000)]
    rows = [example(f"p{n}", " ".join([*long[n:], f"end{n}"])) for n in range(4)]
    other = example("q", " ".join(f"v{n}" for n in range(50_000)))
    assert taken([*rows, other], [], config(0.9)).kept == (rows[0], other)


@given(st.lists(st.lists(st.text("ab c", max_size=8), max_size=3), max_size=8))
@settings(max_examples=100, deadline=None)
def test_numbers_stand_for_words_and_pairs(rows: list[list[str]]) -> None:
    vocabulary = bags.Vocabulary(pairs=True)
    found = vocabulary.bags(rows)
    names = {number: word for word, number in vocabulary.items()}

    def named(member: int) -> str:
        first, second = divmod(member, 1 << bags.WORD_BITS)
        return f"{names[first - 1]} {names[second]}" if first else names[second]

    def texts(some: bags.Bags) -> list[set[str]]:
        return [{named(int(m)) for m in some.members[a:b]} for a, b in pairwise(some.starts.tolist())]

    expected = [bag(row) for row in rows]
    assert texts(found) == expected
    common = shared(expected)
    assert {named(int(member)) for member in found.shared()} == common
    assert texts(found.without(found.shared())) == [without(one, common) for one in expected]
