"""Shape: what went wrong in writing is seen, and what people write is not."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_records import example

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.curate import curate
from llamaduo.curation.fences import Block, fenced
from llamaduo.curation.loops import loops
from llamaduo.curation.shape import faults
from llamaduo.records import Example

ASK = "How do I list the files of a folder?"
MARK = "a response with a mark of a prompt's form"


def taken(new: Example, known: list[Example] | None = None, **config: float) -> str:
    """Return why a row goes; empty where it stays."""
    shape = Curation(filters=[CurationFilter.shape], **config)  # type: ignore[arg-type]
    removed = curate([new], known=known or [], held_out=[], config=shape).removed
    return removed[0].why if removed else ""


@pytest.mark.parametrize(
    ("prompt", "response", "why"),
    [
        ("", "Yes.", "an empty prompt"),
        (" \u200b\n", "Yes.", "an empty prompt"),
        (ASK, "", "an empty response"),
        (ASK, " \ufeff\t", "an empty response"),
        (ASK, "...", "a response without a word"),
        (ASK, f" {ASK.upper()}\n", "a response that is its prompt"),
        (ASK, "How do I list the files of a folder", "a response that is its prompt"),
        (ASK, f"{ASK} Type ls.", "a response that repeats its prompt"),
        (ASK, "Type this:\n```sh\nls\n", "an open code fence"),
        (ASK, "1. Type:\n   ```sh\n   ls\n   ```\n2. Then:\n   ```sh\n   cd", "an open code fence"),
        (ASK, "~~~\nls\n```", "an open code fence"),
        ("Instruction: list the files.", "ls", "a prompt with a mark of its form"),
        ("Explain $instruction in few words.", "ls", "a prompt with a mark of its form"),
        (ASK, "**Response:** ls", MARK),
        (ASK, "Pair 2: ls", MARK),
        (ASK, "Dear [Your Name],\nls lists them.", MARK),
        (ASK, "Write to [insert company name] about it.", MARK),
        (ASK, "ls lists them.<|im_end|>", MARK),
        (ASK, "[INST] What is ls? [/INST] A command.", MARK),
        (ASK, "ls lists them.\n### Instruction:\nAnd now?", MARK),
        (ASK, "As it says in\n$response\nit is ls.", MARK),
        (ASK, "0123456789abcdef>>\nls", MARK),
        (ASK, 'ls lists them."}, {"instruction": "And hidden ones?', "broken JSON"),
        (ASK, 'ls lists them."}]}', "broken JSON"),
        (ASK, '{"contents": [{"instruction": "a", "response": "b"}]}', "broken JSON"),
        (ASK, '{"files": ["a.txt", "b.t', "broken JSON"),
        (ASK, "First open a shell.\\nThen type ls.\\n\\nThat is all.", "broken JSON"),
        (ASK, "In a caf\\u00e9 type ls.", "broken JSON"),
        (ASK, "Type ls. " + "And then type it again. " * 8, "a loop"),
        (ASK, "列出文件。" * 12, "a loop"),
        (ASK, "ha" * 60, "a loop"),
    ],
)
def test_what_went_wrong_is_seen(prompt: str, response: str, why: str) -> None:
    assert taken(example(prompt, response)) == why


@pytest.mark.parametrize(
    ("prompt", "response"),
    [
        ("Which one, 👍 or 👎?", "👍"),
        ("Which sign?", "東京"),
        ("Say yes.", "Yes."),
        ("What is a hinge?", "A hinge joins two things."),
        (ASK, "Type `ls`:\n```sh\nls $response; echo '$instruction'\n```\nor ```ls -a```."),
        (ASK, "````md\n```\nls\n```\n````"),
        (ASK, "```md\nText\n```sh\nls\n```\n```"),
        (ASK, "```\nls```"),
        (ASK, '$response = curl_exec($ch);\necho "$response";'),
        (ASK, "response=$(ls)\necho $response"),
        (ASK, "Instructions: 1. Open a shell. 2. Type ls."),
        (ASK, "[Primary]\nRed, blue"),
        (ASK, "x = [1, 2, 3]\ny = x[your_index]"),
        (ASK, '{"files": ["a.txt", "b.txt"]}'),
        (ASK, '{"a": 1}\n{"a": 2}'),
        ("What does [Your Name] stand for?", "You write your own in place of [Your Name]."),
        ("Print lines.", 'print("a\\nb\\nc\\nd")\nprint("e")'),
        (ASK, "| a | b |\n| --- | --- |\n" + "| 0 | 0 |\n" * 20),
        (ASK, "```\n" + "x = 1\n" * 40 + "```"),
        (ASK, "la la la la la la la la"),
    ],
)
def test_what_people_write_stays(prompt: str, response: str) -> None:
    assert taken(example(prompt, response)) == ""


def answers(*lengths: int) -> list[Example]:
    return [example(f"prompt {n}", "word " * (length // 5)) for n, length in enumerate(lengths)]


def test_length_is_beside_coverages() -> None:
    known = answers(*range(100, 200, 5))
    assert taken(example(ASK, "Yes."), known) == "too short beside coverage"
    long = example(ASK, " ".join(f"word{n}" for n in range(120)))
    assert taken(long, known) == "too long beside coverage"
    assert taken(long, known, length_factor=6.0) == ""
    assert taken(long, known[:7]) == taken(example(ASK, "Yes."), known[:7]) == ""


def test_what_coverage_does_is_no_fault() -> None:
    mails = [example(f"Write mail {n}", f"Dear [Your Name], this is mail {n}.") for n in range(3)]
    known = [*mails, *answers(*[30] * 97)]
    new = example(ASK, "Dear [Your Name], type ls.")
    assert taken(new, known) == ""
    assert taken(new, known, usual=0.05) == MARK


def test_where_coverage_answers_in_json_so_do_new_rows() -> None:
    known = [example(f"JSON, please: {n}", json.dumps({"label": "a" * 20, "n": n})) for n in range(10)]
    assert taken(example(ASK, '{"label": "aaaaaaaaaaaaa", "n": }'), known) == "no JSON, as coverage answers"
    assert taken(example(ASK, '```json\n{"label": "aaaaaaaaaaaaa", "n": 3}\n```'), known) == ""


def test_the_response_is_shown_from_what_is_wrong_with_it() -> None:
    found = curate([example(ASK, "Dear [Your Name]")], known=[], held_out=[],
                   config=Curation(filters=[CurationFilter.shape]))  # fmt: skip
    (report,) = (one for one in found.reports if one.name == "shape")
    assert [shown.told for shown in report.examples] == [f"'Dear [Your Name]': {MARK}"]


@given(st.text("`~ \nab{}[]\"':$<|>\\", max_size=80), st.text("`~ \nab", max_size=40))
@settings(max_examples=200)
def test_any_text_has_a_reading(response: str, prompt: str) -> None:
    assert all(why for why in faults(example(prompt, response)))
    parts = fenced(response)
    assert len(parts.prose) <= len(response)


@given(st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=6), min_size=4, max_size=40, unique=True))
def test_different_words_are_no_loop_and_six_times_the_same_are(words: list[str]) -> None:
    text = " ".join(words)
    assert not loops(text)
    assert loops(f"{text} {(text + ' ') * 6}")


def test_blocks_are_read_with_their_language() -> None:
    parts = fenced("Run `a`:\n``` Python3 title=x\nprint(1)\n```\nor\n~~~~\n```\n~~~~\nand")
    assert parts.blocks == [Block("python3", "print(1)"), Block("", "```")]
    assert (parts.prose, parts.unclosed) == ("Run :\nor\nand", False)


def test_a_fence_with_a_long_row_of_spaces_behind_it_is_read_in_a_moment() -> None:
    assert not fenced(f"```{' ' * 20_000}x` y").blocks
    assert fenced(f"```{' ' * 20_000}py\nx\n```{' ' * 20_000}").blocks == [Block("py", "x")]
