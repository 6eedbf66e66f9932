"""Likeness: by words and pairs of neighbouring words, without what most texts share; groups of what is alike.

The index finds exactly the pairs that comparing everything with everything finds.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaduo.data.alike import Bag, Index, bag, groups, shared, without, words

BAGS = st.lists(st.frozensets(st.sampled_from("abcdefghijkl"), max_size=12), max_size=14)
THRESHOLDS = st.sampled_from([1.0, 0.9, 0.8, 2 / 3, 0.5, 1 / 3, 0.25, 0.1, 0.01]) | st.floats(0.01, 1.0)


def jaccard(one: Bag, other: Bag) -> float:
    return len(one & other) / len(one | other) if one | other else 0.0


def likeness(one: str, other: str) -> float:
    return jaccard(bag([one]), bag([other]))


@given(BAGS, BAGS, THRESHOLDS)
@settings(max_examples=300)
def test_the_index_finds_exactly_what_brute_force_finds(bags: list[Bag], asked: list[Bag], threshold: float) -> None:
    for told in ([*bags, *asked], []):
        index = Index(told, threshold)
        for one in bags:
            index.add(one)
        for one in [*bags, *asked]:
            expected = [(place, jaccard(one, other)) for place, other in enumerate(bags)]
            assert index.matches(one) == [(place, alike) for place, alike in expected if one and alike >= threshold]


@given(BAGS, THRESHOLDS)
@settings(max_examples=200)
def test_groups_are_the_components_of_what_is_alike(bags: list[Bag], threshold: float) -> None:
    common = shared(bags)
    left = [without(one, common) for one in bags]
    numbers = list(range(len(bags)))
    for _ in bags:
        for a in range(len(bags)):
            for b in range(len(bags)):
                if left[a] and jaccard(left[a], left[b]) >= threshold:
                    numbers[b] = numbers[a] = min(numbers[a], numbers[b])
    found = groups(bags, threshold)
    assert [found.index(number) for number in found] == [numbers.index(number) for number in numbers]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Über-Straße, x+1", ["über", "-", "strasse", ",", "x", "+", "1"]),
        ("日本の天気", list("日本の天気")),
        ("GPT-4は良い", ["gpt", "-", "4", "は", "良", "い"]),
        ("สวัสดี", list("สวัสดี")),
        ("안녕 하세요", ["안녕", "하세요"]),
        ("snake_case", ["snake_case"]),
        (" \n ", []),
    ],
)
def test_words_of_any_script_and_single_signs_count(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_order_matters() -> None:
    assert likeness("Is A taller than B?", "Is B taller than A?") < 0.6
    assert likeness("Is A taller than B?", "is a\ntaller than  b ?") == 1.0


def test_signs_of_a_script_without_spaces_are_told_apart() -> None:
    assert likeness("東京の天気は晴れですか", "東京の天気は晴れですか!") > 0.9
    assert likeness("東京の天気は晴れですか", "大阪の料理が好きです") < 0.2


def test_no_pair_goes_over_the_end_of_a_turn() -> None:
    assert bag(["one two", "three"]) == {"one", "two", "three", "one two"}


def test_what_more_than_half_share_is_left_out_unless_it_is_all_there_is() -> None:
    bags = [bag([f"Classify this: {thing}"]) for thing in ("a hinge", "a screen", "my login", "my fee", "")]
    common = shared(bags)
    assert common == {"classify", "this", ":", "classify this", "this :"}  # "a" and "my" are in two of five
    assert without(bags[0], common) == {"a", "hinge", ": a", "a hinge"}
    assert without(bags[4], common) == bags[4]
    assert shared(bags[:2]) == frozenset()  # of two, all that makes them alike would be left out
    assert shared([]) == frozenset()


def grouped(texts: list[str]) -> list[list[str]]:
    """Return the texts of each group of more than one."""
    numbers = groups([bag([text]) for text in texts])
    sizes = Counter(numbers)
    found: dict[int, list[str]] = {}
    for number, text in zip(numbers, texts, strict=True):
        if sizes[number] > 1:
            found.setdefault(number, []).append(text)
    return list(found.values())


ASKED = [f"How do I {verb} my {thing}?" for verb in ("reset", "change", "find") for thing in ("key", "plan", "desk")]


@pytest.mark.parametrize("variant", ["{} Please", "{}!", "HOW{}"])
def test_variants_of_short_requests_are_one_group_and_other_requests_are_none(variant: str) -> None:
    varied = [variant.format(text if variant[0] == "{" else text[3:]) for text in ASKED]
    assert grouped([*ASKED, *varied]) == [list(both) for both in zip(ASKED, varied, strict=True)]


def test_texts_of_shared_words_alone_are_alike_if_they_are_the_same() -> None:
    texts = [f"Classify this ticket: {n}" for n in range(9)] + ["Classify this ticket:", "classify THIS ticket :"]
    assert grouped(texts) == [texts[-2:]]
    assert grouped(["yes", "no", "yes!", "why", "one", "two"]) == []


def contents(count: int, start: int = 0) -> list[str]:
    return [" ".join(f"w{n * 7 + k}" for k in range(5)) for n in range(start, start + count)]


def test_an_instruction_that_a_part_of_the_prompts_has_makes_no_group() -> None:
    rules = [" ".join(f"rule{task}x{n}" for n in range(200)) for task in range(4)]
    texts = [f"{rules[n % 4]} {content}" for n, content in enumerate(contents(100))]
    assert grouped(texts) == []
    twin = f"{texts[0]} please"
    assert grouped([*texts, twin]) == [[texts[0], twin]]


def test_many_variants_of_one_request_stay_a_group() -> None:
    request = "how can I get a receipt for the order that came on monday"
    varied = [f"{request} {word}" for word in contents(1)[0].split() * 5]
    varied = [f"{text} {n}" for n, text in enumerate(varied)]
    others = contents(100, start=10)
    assert grouped([*varied, *others]) == [varied]


def test_prompts_that_words_can_not_tell_apart_are_no_group() -> None:
    texts = [" ".join(f"{n:012b}") for n in range(0, 4000, 40)]
    assert grouped(texts) == []


def test_a_chain_of_likeness_does_not_join_most_of_the_prompts() -> None:
    chain = [" ".join(f"w{n}" for n in range(first, first + 12)) for first in range(60)]
    assert grouped([*chain, *contents(20, start=100)]) == []
    assert len(grouped([*chain[:10], *contents(20, start=100)])) == 1  # a short one is a group
