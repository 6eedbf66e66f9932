"""Strict reading: a reply gives the scores that it states, or none and a reason out of a closed list.

No cut, noise, wrong type or hostile shape may turn into a number that the judge did not write; nothing is
repaired. Of synthesised pairs whole ones are taken and everything else is counted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamaduo.records import UNSCORED_REASONS
from llamaduo.service.replies import Scores, UnreadableError, read_pairs, read_scores

OURS = '{"similarity": {"reason": "close, but \\"late\\"", "score": 88}, "precision": {"reason": "ok", "score": 92.5}}'
PAPER = json.dumps(
    {
        "similarity_assessment": {"score": 88, "reason": "close"},
        "precision_assessment": {"score": 92.5, "reason": "ok"},
    },
    indent=2,
)
BARE = '{"similarity": 88, "precision": 92.5}'
VALID = {
    "ours": OURS,
    "paper": PAPER,
    "bare": BARE,
    "fenced": f"```json\n{OURS}\n```",
    "fenced, no language": f"\n```\n{PAPER}\n```\n",
    "fenced, lines of Windows": f"```json\r\n{OURS}\r\n```\r\n",
    "white space around": f"\n\n  {OURS}\t\n",
}


def read(text: str, finish_reason: str = "stop") -> Scores | None:
    """Return the scores, or None where there is a reason out of the list for not having any."""
    try:
        return read_scores(text, finish_reason)
    except UnreadableError as error:
        if error.reason not in UNSCORED_REASONS:
            raise
    return None


def reason_of(text: str, finish_reason: str = "stop") -> str:
    with pytest.raises(UnreadableError) as caught:
        read_scores(text, finish_reason)
    assert caught.value.reason in UNSCORED_REASONS
    return caught.value.reason


def scored(similarity: str, precision: str = "50") -> str:
    return f'{{"similarity": {{"reason": "r", "score": {similarity}}}, "precision": {{"score": {precision}}}}}'


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_every_valid_shape_gives_the_scores_and_the_words(text: str) -> None:
    found = read_scores(text, "stop")
    assert (found.similarity, found.precision) == (88.0, 92.5)
    if "reason" in text:
        assert found.reasons["precision"] == "ok"
        assert found.reasons["similarity"].startswith("close")


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_a_prefix_is_unreadable_or_says_the_same(text: str) -> None:
    readable = 0
    for end in range(len(text)):
        found = read(text[:end])
        if found is not None:
            readable += 1
            assert (found.similarity, found.precision) == (88.0, 92.5)
            assert text[:end].rstrip().endswith(("}", "```"))
    assert readable <= 6  # white space after the object, the end of its fence, and nothing else, may be missing


@pytest.mark.parametrize("text", VALID.values(), ids=VALID)
def test_a_reply_cut_at_its_limit_is_truncated_however_well_it_reads(text: str) -> None:
    assert reason_of(text, "length") == "truncated"


@pytest.mark.parametrize(
    ("finish_reason", "reason"),
    [
        *(("length", "truncated"), ("content_filter", "refused"), ("refusal", "refused")),
        *(("no_choices", "no_reply"), ("no_content", "no_content")),
        *((word, "unfinished") for word in ("tool_calls", "function_call", "error")),
        *((word, "truncated") for word in ("unknown", "a new word", "Stop", "stop ", "")),
    ],
)
def test_a_reply_that_did_not_finish_is_what_its_finish_reason_says(finish_reason: str, reason: str) -> None:
    for text in (*VALID.values(), "", "prose"):
        assert reason_of(text, finish_reason) == reason


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        *((value, "not_a_number") for value in ("NaN", "Infinity", "-Infinity", "1e-400", "1e" + "9" * 20)),
        *((value, "not_a_number") for value in ("1e-" + "9" * 20, '"88"', '"88/100"', "true", "false", "null")),
        *((value, "not_a_number") for value in ("[88]", "{}")),
        *((value, "out_of_range") for value in ("-1", "-0.001", "101", "100.0000001", "100.00000000000000001")),
        *((value, "out_of_range") for value in ("-1e-400", "1e999", "-1e999", "9" * 400)),
        *((value, "not_json") for value in ("088", "+88", "88.", "0x58", "88%", "٨٨", "")),
    ],
)
def test_what_is_no_score_is_unscored(value: str, reason: str) -> None:
    assert reason_of(scored(value)) == reason
    assert reason_of(scored("50", value)) == reason


@pytest.mark.parametrize(
    ("value", "number"), [("0", 0.0), ("-0.0", 0.0), ("100", 100.0), ("1e2", 100.0), ("0.5", 0.5), ("0e5", 0.0)]
)
def test_the_ends_of_the_scale_belong_to_it(value: str, number: float) -> None:
    assert repr(read_scores(scored(value), "stop").similarity) == repr(number)


@pytest.mark.parametrize("digits", [400, 5_000, 100_000])
def test_a_huge_whole_number_is_unscored(digits: int) -> None:
    assert reason_of(scored("9" * digits)) == "out_of_range"
    beside = f'{{"tokens": {"9" * digits}, "similarity": 1, "precision": 2}}'
    assert read_scores(beside, "stop") == Scores(1.0, 2.0)


@pytest.mark.parametrize("opening", ["[", '{"similarity":', '{"similarity": {"score": ['])
def test_nesting_without_end_is_unscored(opening: str) -> None:
    assert reason_of(opening * 100_000) == "not_json"
    assert reason_of(f'{{"similarity": 1, "precision": {"[" * 100_000}') == "not_json"


def test_how_deep_values_may_nest_does_not_depend_on_the_caller() -> None:
    def deeper(text: str, calls: int) -> Scores | None:
        return deeper(text, calls - 1) if calls else read(text)

    for depth, readable in ((99, True), (100, False), (400, False)):
        text = f'{{"similarity": 1, "precision": 2, "more": {"[" * depth}{"]" * depth}}}'
        assert {deeper(text, calls) is not None for calls in (0, 300)} == {readable}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *((text, "empty") for text in ("", " \n\t\u00a0 ")),
        *((text, "not_json") for text in ("\u200b", "```json\n```", "I can't help with this.", "88", '"88"', "null")),
        *((text, "not_json") for text in (f"{BARE}\nI hope this helps!", f"```json\n{BARE}\n```\nDone.")),
        *((text, "not_json") for text in (f"{BARE}{BARE}", f"{BARE[:-1]},}}", BARE.replace('"', "'"), f"[{BARE}]")),
        *((text, "missing_score") for text in ("{}", '{"similarity": 88}', '{"precision": 88}')),
        ('{"Similarity": 88, "Precision": 88}', "missing_score"),
        ('{"similarity": {"reason": "r"}, "precision": 1}', "missing_score"),
        ('{"scores": {"similarity": 88, "precision": 88}}', "missing_score"),
        ('{"similarity": 88, "similarity_assessment": {"score": 12}, "precision": 1}', "duplicate_key"),
        ('{"similarity": 88, "similarity": 12, "precision": 1}', "duplicate_key"),
        ('{"similarity": 88, "precision": {"score": 1, "score": 1}}', "duplicate_key"),
        ('{"a": {"b": 1, "b": 2}, "similarity": 88, "precision": 1}', "duplicate_key"),
    ],
)
def test_anything_else_is_unscored_with_its_reason(text: str, reason: str) -> None:
    assert reason_of(text) == reason


def test_a_reply_of_megabytes_is_unscored_and_soon() -> None:
    assert reason_of(f'{{"similarity": 1, "precision": 1, "more": "{"x" * 2_000_000}"}}') == "not_json"
    assert reason_of("```\n" * 200_000) == "not_json"


def test_words_that_are_no_text_are_left_out() -> None:
    found = read_scores('{"similarity": {"score": 1, "reason": 5}, "precision": {"score": 2}}', "stop")
    assert found == Scores(1.0, 2.0, {})


def test_a_lone_surrogate_in_the_words_can_still_be_stored() -> None:
    reply = '{"similarity": {"score": 1, "reason": "half of an emoji: \\ud83d"}, "precision": 2}'
    found = read(reply)
    if found is not None:
        assert (found.similarity, found.precision) == (1.0, 2.0)
        "".join(found.reasons.values()).encode()


PAIRS = [{"instruction": f"question {n}", "response": f'answer "{n}" }} ]'} for n in range(3)]
READ = [(pair["instruction"], pair["response"]) for pair in PAIRS]
LIST = json.dumps({"contents": PAIRS})


def test_whole_lists_are_read_with_a_fence_or_without() -> None:
    for text in (LIST, f"```json\n{LIST}\n```", json.dumps(PAIRS)):
        assert read_pairs(text) == (READ, 0)


def test_a_cut_list_gives_the_pairs_before_the_cut_and_counts_one() -> None:
    ends = [LIST.index(json.dumps(pair)) + len(json.dumps(pair)) for pair in PAIRS]
    for cut in range(len(LIST)):
        assert read_pairs(LIST[:cut]) == (READ[: sum(end <= cut for end in ends)], 1)


def test_a_cut_list_without_a_name_gives_the_pairs_before_the_cut_too() -> None:
    text = json.dumps(PAIRS)
    assert read_pairs(text[:-20])[0] == READ[:2]


@pytest.mark.parametrize(
    "item",
    [
        *({"instruction": "q"}, {"response": "a"}, "q: a", None, ["q", "a"]),
        *({"instruction": "q", "response": response} for response in ("", None, ["a"], "half an emoji \ud83d")),
        *({"instruction": instruction, "response": "a"} for instruction in (" \n", 3, "q \ufffd")),
    ],
)
def test_an_item_that_is_no_whole_pair_is_dropped_and_counted(item: Any) -> None:
    text = json.dumps({"contents": [PAIRS[0], item, PAIRS[1]]})
    assert read_pairs(text) == (READ[:2], 1)


@pytest.mark.parametrize("text", ["", "I can't do that.", "{}", '{"contents": 5}', '{"pairs": []}', "[" * 100_000])
def test_a_reply_without_a_list_counts_as_one_dropped_item(text: str) -> None:
    assert read_pairs(text) == ([], 1)


@pytest.mark.parametrize(
    "item",
    [
        '{"instruction": "q", "instruction": "other", "response": "a"}',
        '{"instruction": "q", "response": "a", "from": {"page": 1, "page": 2}}',
        '{"instruction": "q", "response": "a", "weight": NaN}',
        '{"instruction": "q", "response": "a", "weights": [1, -Infinity]}',
    ],
)
def test_a_well_formed_item_that_is_not_strict_is_dropped_alone(item: str) -> None:
    text = f'{{"contents": [{json.dumps(PAIRS[0])}, {item}, {json.dumps(PAIRS[1])}]}}'
    assert read_pairs(text) == (READ[:2], 1)
    assert read_pairs(f"```json\n{text}\n```") == (READ[:2], 1)
    assert read_pairs(text[:-2]) == (READ[:2], 2)


@pytest.mark.parametrize("between", [" ", ",,", ";", "\n\n", '"', "]["])
def test_a_broken_list_gives_what_comes_before_the_fault_and_counts_one(between: str) -> None:
    text = f'{{"contents": [{json.dumps(PAIRS[0])}{between}{json.dumps(PAIRS[1])}]}}'
    assert read_pairs(text) == (READ[:1], 1)


def test_prose_behind_a_list_counts_as_one_dropped_item_and_before_it_as_none() -> None:
    for text in (f"{LIST}\nShall I go on?", f"Here:\n```json\n{LIST}\n```\nDone."):
        assert read_pairs(text) == (READ, 1)
    for text in (f"Here you are:\n{LIST}", f"Here:\n```json\n{LIST}\n```"):
        assert read_pairs(text) == (READ, 0)


@pytest.mark.parametrize("finish_reason", ["length", "tool_calls", "error", "unknown", ""])
def test_a_list_that_did_not_finish_gives_its_whole_pairs_and_counts_its_end(finish_reason: str) -> None:
    assert read_pairs(LIST, finish_reason) == (READ, 1)
    assert read_pairs(LIST[:-20], finish_reason) == (READ[:2], 1)


@pytest.mark.parametrize("finish_reason", ["content_filter", "refusal", "no_choices"])
def test_a_refused_list_gives_no_pair(finish_reason: str) -> None:
    assert read_pairs(LIST, finish_reason) == ([], 1)
