"""Clusters of texts by topic: what is found, and that it is the same in any order and on any machine."""

from __future__ import annotations

import random

import pytest

from llamaduo.audit.clusters import clustering, clusters

TOPICS = {
    "bills": ["invoice", "payment", "refund", "charge", "card", "billing", "account", "receipt", "amount", "due"],
    "travel": ["flight", "hotel", "airport", "luggage", "passport", "train", "ticket", "seat", "journey", "beach"],
    "cooking": ["oven", "flour", "butter", "sugar", "recipe", "bake", "onion", "soup", "pepper", "salt"],
    "code": ["function", "variable", "loop", "compile", "error", "string", "integer", "pointer", "stack", "class"],
}


def _texts(each: int, seed: int = 1) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    names = [name for name in TOPICS for _ in range(each)]
    rng.shuffle(names)
    filler = ["please", "tell", "me", "how", "to", "do", "this", "with", "the", "one", "that", "is", "here"]
    texts = [" ".join(rng.sample(TOPICS[name], 5) + rng.sample(filler, 5)) for name in names]
    return texts, names


def _parts(labels: list[int], texts: list[str]) -> set[frozenset[str]]:
    return {frozenset(t for t, label in zip(texts, labels, strict=True) if label == one) for one in set(labels)}


def test_topics_are_found():
    texts, names = _texts(30)
    labels = clusters(texts, 4, 3)
    assert len({*zip(labels, names, strict=True)}) == 4
    assert labels[0] == 0
    assert set(labels) == {0, 1, 2, 3}


def test_more_clusters_than_topics_divide_no_two_topics_together():
    texts, names = _texts(30)
    labels = clusters(texts, 12, 0)
    assert len(set(labels)) == 12
    mixed = [one for one in set(labels) if len({n for n, k in zip(names, labels, strict=True) if k == one}) > 1]
    assert len(mixed) <= 1


def test_the_order_of_texts_changes_numbers_alone():
    texts, _ = _texts(20)
    other = random.Random(5).sample(texts, len(texts))
    assert _parts(clusters(texts, 7, 2), texts) == _parts(clusters(other, 7, 2), other)


def test_these_are_the_clusters_on_every_machine():
    texts, _ = _texts(8)
    expected = "0 1 2 2 0 3 4 3 5 1 2 1 0 2 1 4 1 0 3 2 1 1 2 2 4 0 5 0 0 0 1 2"
    assert clusters(texts, 6, 11) == [int(number) for number in expected.split()]


def test_equal_texts_share_a_cluster_and_there_are_no_more_clusters_than_texts():
    labels = clusters(["one tale", "other story", "one tale", "one tale"], 10, 0)
    assert labels == [0, 1, 0, 0]


@pytest.mark.parametrize(
    "texts",
    [[], [""], ["", "", " "], ["!", "?", "..."], ["same words", "words same"], ["a"] * 50, ["\ud800 odd", "\x00"]],
    ids=repr,
)
def test_odd_texts_have_clusters(texts: list[str]):
    labels = clusters(texts, 3, 0)
    assert len(labels) == len(texts)
    assert set(labels) == set(range(len(set(labels))))
    assert len(clustering(texts, 3, 0).nearest(["", "what"])) == 2


def test_scripts_without_spaces_have_topics():
    texts = [
        "请问如何重置密码",
        "密码忘记了怎么重置",
        "发票金额不对",
        "这张发票金额错误",
        "重置密码失败",
        "发票没有收到",
    ]
    labels = clusters(texts, 2, 1)
    assert labels == [0, 0, 1, 1, 0, 1]


def test_others_are_nearest_to_their_topic():
    texts, names = _texts(30)
    found = clustering(texts, 4, 0)
    of = {names[at]: label for at, label in enumerate(found.labels)}
    asked = ["My refund and the invoice", "an airport hotel", "whisk butter and sugar", "zzz qqq"]
    assert found.nearest(asked) == [of["bills"], of["travel"], of["cooking"], None]
    assert found.nearest(texts) == found.labels
    assert found.nearest([]) == []


def test_no_cluster_is_refused():
    with pytest.raises(ValueError, match="count=0"):
        clusters(["a"], 0, 0)


def test_many_clusters_of_few_words_end():
    rng = random.Random(3)
    texts = [" ".join(rng.choices("abcdef", k=3)) for _ in range(300)]
    labels = clusters(texts, 60, 1)
    assert len(set(labels)) == 60
