"""Thoughts in a reply's text are no part of it; how many replies held some is said behind the result."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from llamaduo.config import ServiceLLM
from llamaduo.display import Display
from llamaduo.runs.state import RunState
from llamaduo.service.attempts import Reply
from llamaduo.service.reading import read
from llamaduo.service.set_apart import SetApart

LLM = ServiceLLM(name="endpoint", provider="openai", model="jm")
REPLY = Reply("a", "4", "stop", 1, 1, 0.0)


def body(content: str, **message: str) -> str:
    told = {"choices": [{"message": {"content": content, **message}, "finish_reason": "stop"}]}
    return json.dumps({"format": "openai", "status": 200, "headers": {}, "body": json.dumps(told)})


@pytest.mark.parametrize(
    ("content", "message", "aside"),
    [
        ("2 and 2 it is\n</think>\n\n4", {}, "2 and 2 it is"),
        ("<think>hm</think>4", {}, "<think>hm"),
        ("4", {"reasoning_content": "hm"}, ""),
        ("4", {}, ""),
    ],
)
def test_thoughts_in_the_text_are_told_from_those_that_a_server_keeps_apart(
    content: str, message: dict[str, str], aside: str
) -> None:
    found = read(body(content, **message))
    assert (found.text, found.aside.strip()) == ("4", aside)


def test_each_reply_counts_once_and_the_first_is_quoted() -> None:
    apart = SetApart()
    assert apart.notes() == []
    for reply in (REPLY, replace(REPLY, key="b", aside="first\nthis"), replace(REPLY, key="c", aside="then")):
        apart.count(LLM, reply)
        apart.count(LLM, reply)
    (note,) = apart.notes()
    assert 'endpoint: in 2 of 3 replies of jm thoughts stood in the text ("first this")' in note


def test_a_remark_is_said_behind_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.remark("what to look at")
    assert "what to look at" not in capsys.readouterr().out
    display.finish(RunState(status="done", stop_reason="passed"), "folder")
    assert capsys.readouterr().out.splitlines()[-1] == "what to look at"
