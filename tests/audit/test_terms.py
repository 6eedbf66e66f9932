"""Identity terms in each other's place: what a text reads like then, and when it is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamaduo.audit.terms import IN_A_NAME, IN_CODE, NO_TERM, TIED, TWO, UNCLEAR, read_categories, swapped
from llamaduo.errors import InputError
from llamaduo.records import Example

SHIPPED = {category.name: category for category in read_categories(None)}


def _example(prompt: str, response: str = "Yes.") -> Example:
    return Example("0" * 16, ({"role": "user", "content": prompt},), response)


@pytest.mark.parametrize(
    ("category", "text", "term", "expected"),
    [
        ("gender", "A woman asks whether her parcel came.", "male", "A man asks whether his parcel came."),
        ("gender", "The man lost his keys. Help him.", "female", "The woman lost her keys. Help her."),
        ("gender", "Is this his?", "female", "Is this hers?"),
        ("gender", "WOMEN in tech", "male", "MEN in tech"),
        ("gender", "Her sister's dog is ill.", "male", "His brother's dog is ill."),
        ("gender", "She likes the man-made lake.", "male", "He likes the man-made lake."),
        ("origin", "An American engineer asks.", "Mexican", "A Mexican engineer asks."),
        ("origin", "a German engineer from Germany", "Indian", "an Indian engineer from India"),
        ("religion", "Write for a Muslim family.", "atheist", "Write for an atheist family."),
        ("religion", "Atheists are invited.", "Jewish", "Jews are invited."),
        ("age", "an elderly patient", "young", "a young patient"),
    ],
)
def test_case_plural_and_article_are_kept_right(category: str, text: str, term: str, expected: str):
    made = swapped(_example(text, text), SHIPPED[category])
    assert not isinstance(made, str)
    assert made[term].prompt == made[term].response == expected
    assert text in {one.prompt for one in made.values()}
    assert len({one.prompt_id for one in made.values()}) == len(made)


@pytest.mark.parametrize(
    ("category", "text", "why"),
    [
        ("gender", "My wife and my husband disagree.", TWO),
        ("gender", "Wonder Woman is a film.", IN_A_NAME),
        ("gender", "Explain `man ls` to a man.", IN_CODE),
        ("gender", "The pregnant woman asks.", TIED),
        ("gender", "Help her find it.", UNCLEAR),
        ("gender", "The manager wants mankind to heal.", NO_TERM),
        ("origin", "My German Shepherd barks.", IN_A_NAME),
        ("religion", "Is Christian Bale an actor?", IN_A_NAME),
        ("ethnicity", "Paint the white wall black.", NO_TERM),
    ],
)
def test_what_would_hardly_make_sense_is_left_alone(category: str, text: str, why: str):
    assert swapped(_example(text), SHIPPED[category]) == why


def test_every_turn_and_the_reference_are_changed_alike():
    messages = (
        {"role": "system", "content": "You help women."},
        {"role": "user", "content": "I am a woman."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "What now?"},
    )
    made = swapped(Example("1" * 16, messages, "A woman can do that."), SHIPPED["gender"])
    assert [message["content"] for message in made["male"].messages] == [
        "You help men.", "I am a man.", "Hello.", "What now?",
    ]  # fmt: skip
    assert made["male"].response == "A man can do that."
    assert made["female"].messages == messages


def test_lists_of_ones_own(tmp_path: Path):
    own = tmp_path / "terms.yaml"
    own.write_text(
        "plan:\n  terms: [free, paid]\n  rows:\n    - forms: [free plan, paid plan]\n"
        "herkunft:\n  terms: [türkisch, polnisch]\n  rows:\n    - forms: [Türke, Pole]\n    - forms: [中国人, 日本人]\n"
        "gender: null\n"
    )
    found = {category.name: category for category in read_categories(own)}
    assert "gender" not in found
    assert "religion" in found
    assert swapped(_example("My free plan ends."), found["plan"])["paid"].prompt == "My paid plan ends."
    assert swapped(_example("他是中国人。"), found["herkunft"])["polnisch"].prompt == "他是日本人。"


@pytest.mark.parametrize(
    "text", ["[", "- a", "x: {terms: [a]}", "x: {terms: [a, b], rows: [{forms: [a]}]}", "x: 3", "", "x: {rows: []}"]
)
def test_lists_of_another_form_are_refused(text: str, tmp_path: Path):
    own = tmp_path / "terms.yaml"
    own.write_text(text)
    with pytest.raises(InputError, match=r"audit\.terms|terms\.yaml"):
        read_categories(own)


def test_a_list_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"can't be read"):
        read_categories(tmp_path / "none.yaml")
