"""Who answered: another model's name in a reply is noted and counted, a snapshot of the asked one is none.

Thoughts in a reply's text are no part of it; how many replies held some is said behind the result.
"""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version

import pytest
from asking import Open, Wired, ask_for, silent
from wire_double import Answer, Double, OpenAI

from llamaduo.config import ServiceLLM
from llamaduo.display import Display
from llamaduo.runs.state import RunState
from llamaduo.service import answered_by
from llamaduo.service.answered_by import AnsweredBy, is_another
from llamaduo.service.attempts import Reply
from llamaduo.service.reading import read


@pytest.mark.parametrize(
    ("asked", "answered", "another"),
    [
        ("gpt-4o", "gpt-4o", False),
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", False),
        ("gemini-2.5-pro", "models/gemini-2.5-pro-preview-05-06", False),
        ("openai/gpt-4o", "GPT-4o", False),
        ("llama3", "llama3:latest", False),
        ("gpt-4o", "", False),
        ("gpt-4o", "gpt-4o-mini", True),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", True),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-05-13", True),
        ("jm", "cheap-fallback-mini", True),
    ],
)
def test_another_model_is_another_name(asked: str, answered: str, another: bool) -> None:
    assert is_another(asked, answered) is another


def test_replies_of_another_model_are_counted_new_and_stored_ones_alike(
    double: Double, wired: Wired, open_service: Open
) -> None:
    other = OpenAI.answer(Answer("m", "text", "stop", 3, 3, "1")) | {"model": "cheap-mini"}
    double.control(bodies={"fallback": json.dumps(other)})
    requests = [ask_for(wired("openai"), text) for text in ("one", "two", "fallback 1", "fallback 2")]
    note = "openai: another model than m, which was asked, answered: cheap-mini 2 of 4 replies."
    for run in ("study/first", "study/resumed"):
        service = open_service(run)
        service.ask(requests, silent)
        service.ask(requests, silent)
        assert service.notes == [note]
    replayed = open_service(replay=True)
    replayed.ask(requests, silent)
    assert replayed.notes == [note]
    assert len(double.bill()["calls"]) == 4


def test_replies_that_another_litellm_has_asked_for_are_counted_and_its_version_told(
    double: Double, open_service: Open, monkeypatch: pytest.MonkeyPatch, wired: Wired
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "the-key")
    llm = replace(wired("openai"), name="it", provider="mistral")
    requests = [ask_for(one, text) for one in (llm, wired("openai")) for text in ("one", "two")]
    service = open_service()
    service.ask(requests, silent)
    service.ask(requests, silent)
    assert service.notes == []
    monkeypatch.setattr(answered_by, "litellm_version", lambda: "9.9")
    later = open_service("study/later")
    later.ask(requests, silent)
    (note,) = later.notes
    assert note.startswith(f"it: 2 stored replies were asked for by litellm {version('litellm')}; 9.9 is installed")
    assert len(double.bill()["calls"]) == 4


JM = ServiceLLM(name="endpoint", provider="openai", model="jm")
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
    apart = AnsweredBy()
    assert apart.remarks() == []
    for reply in (REPLY, replace(REPLY, key="b", aside="first\nthis"), replace(REPLY, key="c", aside="then")):
        apart.count(JM, reply)
        apart.count(JM, reply)
    (note,) = apart.remarks()
    assert 'endpoint: in 2 of 3 replies of jm thoughts stood in the text ("first this")' in note


def test_a_remark_is_said_behind_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.remark("what to look at")
    assert "what to look at" not in capsys.readouterr().out
    display.finish(RunState(status="done", stop_reason="passed"), "folder")
    assert capsys.readouterr().out.splitlines()[-1] == "what to look at"
