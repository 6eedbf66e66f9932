"""Who answered: another model's name in a reply is noted and counted, a snapshot of the asked one is none."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version

import pytest
from asking import Open, Wired, ask_for, silent
from wire_double import Answer, Double, OpenAI

from llamaduo.service import answered_by
from llamaduo.service.answered_by import is_another


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
