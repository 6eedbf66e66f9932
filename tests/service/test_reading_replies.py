"""What counts of a reply is its last whole value: drafts, thoughts and prose before it never do, for judge and teacher.

Replies are put together from parts, so that what they come to is known beforehand.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import NAUGHTY, Case
from slow_reader import slow_scores
from test_malformed import Reply, audit, audit_pairs

from llamaduo.service.prompts import judge_prompt, synthesis_prompt
from llamaduo.service.replies import Scores, UnreadableError, read_pairs, read_scores

DRAFT = {"similarity": {"reason": "a draft", "score": 11}, "precision": {"reason": "a draft", "score": 12}}
FINAL = {
    "similarity": {"reason": "{so} [it] is", "score": 88},
    "precision": {"reason": 'a "word" </think>', "score": 92},
}
SAID = Scores(88.0, 92.0, {name: part["reason"] for name, part in FINAL.items()})
DRAFTS = {"contents": [{"instruction": "draft question", "response": "draft answer"}]}
PROPER = {"contents": [{"instruction": f"q{n} <think>", "response": f'a{n}: {{"x": [{n}]}}'} for n in range(3)]}
PAIRS = [(pair["instruction"], pair["response"]) for pair in PROPER["contents"]]
MAKERS = {"judge": (DRAFT, FINAL), "teacher": (DRAFTS, PROPER)}


def comes_to(who: str, text: str) -> Any:
    """Return what a judge's or a teacher's reply comes to, None for nothing."""
    if who == "teacher":
        return read_pairs(text)[0] or None
    try:
        return read_scores(text, "stop")
    except UnreadableError:
        return None


def said(who: str) -> Any:
    return SAID if who == "judge" else PAIRS


def written(tree: Any, form: int = 0) -> str:
    text = json.dumps(tree, indent=2 if form % 2 else None)
    return f"```json\n{text}\n```" if form // 2 % 2 else text


both = pytest.mark.parametrize("who", MAKERS)
BEFORE = {
    "prose": "Here it is: ",
    "a line of prose": "Let me see, 40 of 100 perhaps.\n",
    "a draft in prose": "A first try: {draft} That is no good.\n",
    "a closing tag alone": "A first try: {draft} That is no good.\n</think>\n\n",
    "thoughts": "<think>\n{draft}\n</think>\n",
    "thoughts in brackets": "[THINK]{draft}[/THINK]",
    "two thoughts": "<thinking>one {draft}</thinking><think>two {draft}</think>",
    "a draft in a fence": "```json\n{draft}\n```\nNo, that is wrong.\n",
    "a draft that breaks off": "{cut} ... no.\n\n",
    "a draft that breaks off in a thought": "<think>{cut}</think>",
    "two drafts, a line each": "{draft}\n{draft}\n",
    "braces in prose": "Of {{x}} and [1] and {{ }}: ",
    "a broken brace": '{{"oops\n',
    "a tag around it": "<answer>",
}
AFTER = {"nothing": "", "white space": " \n\n", "the end of a fence": "\n```\n", "the end of a tag": "</answer>"}


@both
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE)
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("form", range(4))
def test_the_last_whole_value_counts_behind_whatever_stands_before_it(
    who: str, before: str, after: str, form: int
) -> None:
    draft, final = MAKERS[who]
    told = before.format(draft=written(draft), cut=written(draft)[:-9])
    assert comes_to(who, told + written(final, form) + after) == said(who)
    if who == "teacher":
        assert read_pairs(told + written(final, form) + after) == (PAIRS, 0)


NO_ANSWER = {
    "thoughts that never end": "<think>\nA draft: {draft}",
    "thoughts that never end, behind prose": "Well.\n<think>{draft}\n",
    "thoughts alone": "<think>{draft}</think>",
    "a closing tag and nothing more": "{draft}\n</think>\n",
    "a closing tag and prose": "{draft}\n</think>\n\nI would say so.",
    "the first of two tags": "<think>{draft}",
    "no value at all": "It is right.",
    "within another object": '{{"answer": {draft}}}',
    "within another object that breaks off": '{{"note": "n", "answer": {draft}',
    "within a list that breaks off": "[1, {draft}",
    "a value that is no answer": '{draft}\n{{"done": true}}',
    "an empty object": "{draft}\n{{}}",
}


@both
@pytest.mark.parametrize("shape", NO_ANSWER.values(), ids=NO_ANSWER)
def test_a_draft_never_takes_the_place_of_an_answer_that_is_not_there(who: str, shape: str) -> None:
    assert comes_to(who, shape.format(draft=written(MAKERS[who][0]))) is None


@pytest.mark.parametrize("cut", range(3, len(json.dumps(FINAL))))
def test_a_judge_whose_last_object_breaks_off_has_said_nothing(cut: int) -> None:
    broken = json.dumps(FINAL)[:cut]
    for text in (f"{json.dumps(DRAFT)}\n{broken}", f"<think>{json.dumps(DRAFT)}</think>{broken}"):
        assert comes_to("judge", text) is None


@pytest.mark.parametrize("cut", range(0, len(json.dumps(PROPER)), 3))
def test_of_a_teachers_last_list_that_breaks_off_whole_pairs_count_and_no_draft(cut: int) -> None:
    pairs, dropped = read_pairs(f"A try: {json.dumps(DRAFTS)}\n</think>\n{json.dumps(PROPER)[:cut]}")
    assert pairs == PAIRS[: len(pairs)]
    assert dropped == 1


NOT_STRICT = {
    "a comma too many": ('{{"similarity": 1, "precision": 2,}}', "not_json"),
    "a key named twice": ('{{"similarity": 1, "precision": 2, "precision": 3}}', "duplicate_key"),
    "NaN": ('{{"similarity": NaN, "precision": 2}}', "not_a_number"),
    "Infinity": ('{{"similarity": 1, "precision": Infinity}}', "not_a_number"),
    "a number as text": ('{{"similarity": "88", "precision": 2}}', "not_a_number"),
    "out of range": ('{{"similarity": 880, "precision": 2}}', "out_of_range"),
    "one score": ('{{"similarity": 88}}', "missing_score"),
    "prose behind": ("{draft} No: 40.", "not_json"),
    "a sentence behind": ("{draft}\nI hope this helps!", "not_json"),
    "two in a row": ("{draft}{draft}", "not_json"),
    "a list": ("[{draft}]", "not_json"),
}


@pytest.mark.parametrize(("shape", "reason"), NOT_STRICT.values(), ids=NOT_STRICT)
@pytest.mark.parametrize("before", ["", "Here it is:\n", "{draft}\n</think>\n\n", "<think>{draft}</think>"])
def test_what_is_not_strict_has_no_score_whatever_stands_before_it(shape: str, reason: str, before: str) -> None:
    with pytest.raises(UnreadableError) as caught:
        read_scores((before + shape).format(draft=json.dumps(DRAFT)), "stop")
    assert caught.value.reason == reason


def test_the_form_that_a_prompt_shows_is_no_reply() -> None:
    texts = {"instruction": "i", "reference": "r", "candidate": "c"}
    form = judge_prompt("blind", **texts).splitlines()[-1]
    pairs_form = synthesis_prompt("default", instruction="i", response="r", topic="t", count=8).splitlines()[-1]
    assert comes_to("judge", f"I answer in the form {form}") is None
    assert comes_to("judge", form) is None
    assert read_pairs(f"I answer in the form {pairs_form}") == ([], 1)
    assert comes_to("judge", form.replace("one sentence", "nothing in common")) is not None
    assert comes_to("teacher", f"I answer in the form {pairs_form}:\n\n{json.dumps(PROPER)}") == PAIRS


PARTS = st.sampled_from(
    [
        *(json.dumps(DRAFT), json.dumps(FINAL), json.dumps(FINAL, indent=1), json.dumps(DRAFTS), json.dumps(PROPER)),
        *(json.dumps(DRAFT)[:40], json.dumps(PROPER)[:60], json.dumps(PROPER)[30:], json.dumps(FINAL)[20:]),
        *("<think>", "</think>", "[THINK]", "[/think]", "<thinking>", "</Thoughts>", "```json\n", "```", "\n", "\n\n"),
        *('{"similarity": 1, "precision": 2}', '{"a": 1, "a": 2}', "[1]", "[", "]", "{", "}", "{}", "[]", ",", ":"),
        *("Here it is: ", "No.", "</answer>", "{x}", '"key": ', '{"a": NaN}', "[{}]", "[[", '{"', '"', " ", '", '),
    ]
)
MIXED = st.lists(PARTS | st.sampled_from(NAUGHTY), max_size=8).map("".join)


@settings(max_examples=400, deadline=None)
@given(MIXED)
def test_parts_in_any_order_are_read_as_the_second_reader_does(text: str) -> None:
    audit(read_scores, [(Case("found", text), slow_scores(text, "stop"))])
    audit_pairs(read_pairs, [Reply(text)])


@settings(max_examples=200, deadline=None)
@given(st.lists(PARTS, max_size=6).map("".join), st.sampled_from(["judge", "teacher"]), st.integers(0, 3))
def test_behind_a_closing_tag_nothing_before_it_matters(before: str, who: str, form: int) -> None:
    assert comes_to(who, f"{before}\n</think>\n{written(MAKERS[who][1], form)}") == said(who)


def first_value(text: str) -> str:
    """Return a reply cut down to the first value in it, as a reader would that takes the first that it finds."""
    start = text.find("{")
    return text[start : json.JSONDecoder().raw_decode(text, start)[1]]


def any_tag(text: str) -> str:
    return text.rpartition("<think>")[2]


@pytest.mark.parametrize("broken", [first_value, any_tag])
def test_these_replies_tell_a_reader_that_takes_drafts(broken: Callable[[str], str]) -> None:
    shapes = [
        shape.format(draft=written(DRAFT))
        for shape in (*list(BEFORE.values())[2:5], *NO_ANSWER.values())
        if "cut" not in shape
    ]
    assert any(comes_to("judge", broken(shape)) for shape in shapes)
