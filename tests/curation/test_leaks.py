"""Dev and test texts in another dress: written otherwise, wrapped, contained, or with one word changed."""

from __future__ import annotations

import json
import unicodedata

import pytest
from sample_records import example

from llamaduo.config import Curation
from llamaduo.curation.curate import curate
from llamaduo.curation.leaks import Leaks, plain
from llamaduo.records import Example, prompt_id

LONG = "Where in Lima can I buy the blue shoes that I saw on Monday, in the shop next to the old station?"
SHORT = "Who wrote the old Faust?"
RESPONSE = "You'll find them behind the market, in the second street, where the well-known cinema was."
HELD_OUT = [
    example("Another prompt of dev."),
    example(LONG, RESPONSE),
    example(SHORT, "Goethe"),
    example("Hello", "Hi"),
]


def found(new: Example, coverage: list[Example] | None = None) -> tuple[int, float] | None:
    return Leaks(HELD_OUT, coverage or []).found(new)


@pytest.mark.parametrize("owner", [1, 2, 3])
@pytest.mark.parametrize(
    "dress",
    [
        str.upper,
        lambda text: f"  {text}!!! ",
        lambda text: text.replace(" ", "\u3000\n"),
        lambda text: text.replace(",", "").replace("'", ""),
        lambda text: text.replace("e", "e\u200b").replace("o", "\u00ado"),
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        lambda text: f"> {text.replace(' ', chr(10) + '> ')}",
        lambda text: f'"{text}"',
        lambda text: f"User: {text}",
    ],
)
def test_a_whole_prompt_is_found_however_it_is_written_and_however_short(owner: int, dress) -> None:  # type: ignore[no-untyped-def]
    assert found(example(dress(HELD_OUT[owner].prompt))) == (owner, 1.0)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: f"```\n{text}\n```\nExplain this.",
        lambda text: "def f():\n" + "\n".join(f"    # {line}" for line in text.split(", ")),
        lambda text: json.dumps({"asked": text.replace(" in ", "\nin ")}),
        lambda text: f"Somebody said \u201c{text}\u201d \u2014 and left.",
        lambda text: text.replace("Monday", "Mon-\n> day").replace("cinema", "cin-\nema"),
        lambda text: f"<p>{text.replace(chr(39), '&#39;')}</p>",
    ],
)
@pytest.mark.parametrize("text", [LONG, RESPONSE])
def test_a_long_text_is_found_in_prompts_and_responses(wrap, text: str) -> None:  # type: ignore[no-untyped-def]
    assert found(example(wrap(text))) == (1, 1.0)
    assert found(example("What did they say?", f"Well. {wrap(text)} So it was.")) == (1, 1.0)


@pytest.mark.parametrize("text", [LONG, RESPONSE, "Which of the old bridges is open today?"])
def test_one_word_makes_no_difference_wherever_it_is_and_two_do(text: str) -> None:
    rows = [example("Another prompt of dev."), example(text if text != RESPONSE else LONG, text)]
    words, leaks = text.split(), Leaks(rows, [])
    for at in range(len(words)):
        for edit in ([], ["new"], ["new", words[at]]):
            its = leaks.found(example("p", f"Before. {' '.join([*words[:at], *edit, *words[at + 1 :]])} Behind."))
            assert its is not None
            assert its[0] == 1
            assert its[1] >= 1 - 1 / 7
    far = " ".join([*words[:1], "new", *words[2:-2], "newer", words[-1]])
    assert leaks.found(example("p", far)) is None


@pytest.mark.parametrize(
    "new",
    [
        example("Say hello to her, please", "Goethe"),
        example("Who wrote the old Hamlet?"),
        example("Is it true that he wrote the old faust"),
        example("Explain the word whowrotetheoldfaustian"),
        example("Which label?", "Hi"),
        example("", ""),
        example("\u200b", "!"),
    ],
)
def test_what_only_looks_alike_stays(new: Example) -> None:
    assert found(new) is None


def test_what_coverage_holds_anyway_tells_nothing() -> None:
    assert found(example(f"He said: {LONG}"), [example(f"Again: {LONG}")]) is None
    one_off = LONG.replace("Lima", "Rome")
    assert found(example(one_off), [example(LONG.replace("Lima", "Bonn"))]) is None
    assert found(example(LONG.lower()), [example(LONG.replace("Lima", "Bonn"))]) == (1, 1.0)


def test_a_template_that_was_filled_in_is_no_leak() -> None:
    cities = ["Lima", "Rome", "Bonn", "Oslo", "Baku", "Kiel"]
    rows = [example(f"What is the best way from the {a} station to the {b} harbour?") for a in cities for b in cities]
    new = example("What is the best way from the Lima station to the Paris harbour?")
    leaks = Leaks(rows[:3], rows[10:])
    assert leaks.found(new) is None
    assert leaks.found(rows[2]) == (2, 1.0)


def conversation(*texts: str, response: str = "Done.") -> Example:
    turns = tuple({"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts))
    return Example(prompt_id(turns), turns, response)


def test_turns_are_found_apart_and_together() -> None:
    held_out = [conversation("Cancel my order", "Shall I send the money back?", "Yes, please do that.")]
    flat = "User: Cancel my order\nAssistant: Shall I send the money back?\nUser: Yes, please do that.\nAssistant:"
    assert Leaks(held_out, []).found(example(flat)) == (0, 1.0)
    last = conversation("What is a hinge?", "Do you want a picture?", "Yes, please do that.")
    assert Leaks(held_out, []).found(last) is None
    long = [conversation("Hi", "What is it?", LONG)]
    assert Leaks(long, []).found(example(f"Tell me. {LONG}")) == (0, 1.0)
    system = Example("x", ({"role": "system", "content": LONG}, {"role": "user", "content": "Hi"}), "r")
    assert found(system) == (1, 1.0)


def test_the_order_of_rows_changes_nothing() -> None:
    new = [example(f"{LONG} {n}") if n % 3 else example(f"A question of its own, number {n}") for n in range(12)]
    for rows in (new, new[::-1]):
        kept = curate(rows, known=[], held_out=HELD_OUT, config=Curation(duplicate_jaccard=1.0, dressed=True)).kept
        assert {row.prompt_id for row in kept} == {row.prompt_id for n, row in enumerate(new) if not n % 3}


@pytest.mark.parametrize(
    ("text", "words", "pieces"),
    [
        ("Don\u2019t stop\u2026", ["dont", "stop"], ["dont", "stop"]),
        ("a_b C-d", ["ab", "cd"], list("abcd")),
        ("\uff21\u00adb\u200bc 1,000", ["abc", "1000"], ["abc", "1", "000"]),
        ("天気, ok", ["天", "気", "ok"], ["天", "気", "ok"]),
        (json.dumps("O\u00f9? 天気 😀 fin"), ["o\u00f9", "天", "気", "fin"], ["o\u00f9", "天", "気", "fin"]),
    ],
)
def test_words_without_their_dress(text: str, words: list[str], pieces: list[str]) -> None:
    assert plain(text) == (words, pieces)


@pytest.mark.parametrize("line", ["\n", "-\n", "_\n", "user\n", "> "])
def test_a_long_row_of_empty_lines_is_read_in_a_moment(line: str) -> None:
    assert plain(f"a: {line * 40_000} b").words[-1] == "b"
    assert plain(f"\n{line}\n** User **: hello").words[-1] == "hello"
