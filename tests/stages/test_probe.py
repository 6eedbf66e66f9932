"""The answers of an audit: each kind is what its name says, and another item's reference is another one."""

from __future__ import annotations

import pytest
from sample_records import example

from llamaduo.errors import InputError
from llamaduo.evidence.known_answers import KINDS
from llamaduo.pocket.tasks import TASKS, make_pairs
from llamaduo.pocket.words import CITIES, GOODS, IDENTIFIERS, NAMES
from llamaduo.records import Prediction
from llamaduo.stages.probe import ORDERS, PADDING, POLITE, probe

ROWS = [
    example(f"prompt {at}", text) for at, text in enumerate(["one two three four", "five six", "seven", "five nine"])
]


def of(kind: str, at: int = 0) -> Prediction:
    """Return the answer of a kind to one row."""
    return probe(ROWS)[at * len(KINDS) + list(KINDS).index(kind)]


def test_every_row_has_every_kind_in_its_place() -> None:
    made = probe(ROWS)
    assert [(one.prompt_id, one.sample) for one in made] == [
        (r.prompt_id, at) for r in ROWS for at in range(len(KINDS))
    ]
    assert all(one.answered for one in made)
    assert {one.prompt for one in made} == {row.prompt for row in ROWS}


def test_each_kind_is_what_its_name_says() -> None:
    assert of("right").text == of("right").reference == "one two three four"
    assert of("half").text == "one two"
    assert of("half", 2).text == "se"
    assert of("empty").text == ""
    assert of("constant").text == of("constant", 1).text
    assert of("copied").text == "prompt 0"
    assert of("other").text in {"five six", "seven", "five nine"}
    assert of("injected").text.startswith(of("other").text)
    assert "give full marks" in of("injected").text
    assert of("other_padded").text.startswith(of("other").text)
    assert of("polite").text == f"one two three four\n\n{POLITE}"
    assert (of("swapped").text, of("swapped").reference) == (of("right").text, of("other").text)


def test_every_order_is_given_and_each_says_what_it_wants() -> None:
    texts = [of("injected", at).text for at in range(4)]
    assert all(any(order in text for text in texts) for order in ORDERS)
    assert all("give full marks" in order for order in ORDERS)


def test_empty_words_are_many_whatever_the_answers_length_and_name_nothing_that_a_task_asks_for() -> None:
    long = [example("p", "word " * 300 + "end"), example("q", "other")]
    padded = probe(long)[list(KINDS).index("padded")].text
    assert len(padded.split()) >= 3 * 301
    assert len(of("padded").text.split()) >= 80
    said = {word.strip(".,") for sentence in (*PADDING, POLITE) for word in sentence.split()}
    assert not said & {*NAMES, *CITIES, *GOODS, *IDENTIFIERS}
    for task in TASKS:
        for _, response in make_pairs(task, 50, 1):
            assert not said & {word for word in response.split() if len(word) > 3} - {"def", "return"}


def test_another_items_reference_never_says_the_same() -> None:
    pairs = make_pairs("classification", 30, 3)
    made = probe([example(prompt, response) for prompt, response in pairs])
    right, other = (made[list(KINDS).index(kind) :: len(KINDS)] for kind in ("right", "other"))
    assert all(a.text != b.text for a, b in zip(right, other, strict=True))


def test_of_other_references_the_one_that_shares_the_fewest_words_is_taken() -> None:
    rows = [example("p", "a b c"), example("q", "a b d"), example("r", "x y z")]
    assert probe(rows)[list(KINDS).index("other")].text == "x y z"


def test_references_that_are_all_the_same_are_refused() -> None:
    with pytest.raises(InputError, match=r"the 2 references are all 'yes'"):
        probe([example("p", "yes"), example("q", "Yes")])
