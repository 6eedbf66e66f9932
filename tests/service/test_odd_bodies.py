"""Odd bodies: whatever a server answers with success is stored to the byte, is final, and is bought once.

Each value in a whole reply of three wire formats is taken away or put in another type's place, one at a time; real
gateways' bodies and one-off kinds come besides. litellm's converters raise at many of these.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import Open, Wired, ask_for, reply_of, rows, silent
from wire_double import PROVIDERS, Answer, Anthropic, Double, Gemini, OpenAI

from llamaduo.config import Price, ServiceLLM
from llamaduo.service.attempts import Reply
from llamaduo.service.requests import Failure

ANSWER = Answer("m", "a whole reply", "stop", 30, 7, "00000001")
WHOLE = {"openai": OpenAI.answer(ANSWER), "anthropic": Anthropic.answer(ANSWER), "gemini": Gemini.answer(ANSWER)}
IN_PLACE: tuple[Any, ...] = (None, [], {}, "", "a text", 3, 2.5, -1, True, [{"type": "text", "text": "a part"}])
GONE = object()
THOUGHTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "let me see"}]}, {"type": "text", "text": "yes"}]


def paths(tree: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a body but the whole."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield (*at, name)
        yield from paths(value, (*at, name))


def changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a body with another value at a path, or with none."""
    made = copy.deepcopy(tree)
    place = made
    for step in path[:-1]:
        place = place[step]
    if value is GONE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return made


def odd(provider: str) -> dict[str, str]:
    """Return odd bodies by what is odd about them."""
    whole = WHOLE[provider]
    found = {}
    for path in paths(whole):
        for value in (*IN_PLACE, GONE):
            name = "gone" if value is GONE else json.dumps(value)
            found[f"{provider} {'.'.join(map(str, path))} = {name};"] = json.dumps(changed(whole, path, value))
    found[f"{provider} a mark at its begin;"] = "\ufeff" + json.dumps(whole)
    found[f"{provider} a number beyond all;"] = json.dumps({"cost": "@@"} | whole).replace('"@@"', "9" * 5000)
    found[f"{provider} other keys;"] = json.dumps({**whole, "x_gateway": {"cost": 1e-7, "route": ["a", "b"]}})
    found[f"{provider} no ascii;"] = json.dumps(changed(whole, ("model",), "m\u00e4\u2028"), ensure_ascii=False)
    text = json.dumps(whole)
    found |= {
        f"{provider} {text[:9]!r} and {more!r};": text + more for more in ("garbage", ",", "\0", "<!-- -->", text)
    }
    found |= {f"{provider} cut at {share}%;": text[: len(text) * share // 100] for share in (30, 50, 70, 90, 99)}
    found[f"{provider} an event;"] = f"event: message\ndata: {text}\n\ndata: [DONE]\n\n"
    found[f"{provider} in an envelope;"] = json.dumps({"data": whole})
    found[f"{provider} too deep;"] = json.dumps({"x": "@@"} | whole).replace('"@@"', "[" * 10**5 + "]" * 10**5)
    for encoding in ("utf-16", "utf-32-be"):
        found[f"{provider} {encoding};"] = text.encode(encoding).decode("utf-8", "surrogateescape")
    found[f"{provider} gzip;"] = gzip.compress(text.encode(), mtime=0).decode("utf-8", "surrogateescape")
    found[f"{provider} a byte that is no text;"] = json.dumps({"x": "@@"} | whole).replace("@@", "\udcff")
    return found


def stored(tmp_path: Path) -> dict[str, str]:
    """Return the body of every reply in the journal, by its key."""
    return {key: json.loads(raw)["body"] for key, raw in rows(tmp_path, "SELECT key, raw FROM replies")}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_an_odd_body_is_stored_as_it_came_and_bought_once(
    double: Double, wired: Wired, open_service: Open, tmp_path: Path, provider: str
) -> None:
    bodies = odd(provider)
    assert len(bodies) >= 100  # of each of the three: 300 and more
    double.control(bodies=bodies)
    llm = wired(provider, max_attempts=3)
    requests = {text: ask_for(llm, text) for text in bodies}
    outcomes = open_service().ask(list(requests.values()), silent)
    again = open_service("study/again").ask(list(requests.values()), silent)
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert again == outcomes
    arrived = Counter(call["body"] for call in double.bill()["calls"])
    assert (len(arrived), set(arrived.values())) == (len(bodies), {1})
    assert stored(tmp_path) == {requests[text].key: body for text, body in bodies.items()}
    for outcome in outcomes:
        assert isinstance(outcome, Reply)
        assert outcome.text in ("a whole reply", "a part", "a text", "", "3", "2.5", "-1", "true"), outcome


@pytest.mark.parametrize(
    ("body", "text", "reason", "tokens"),
    [
        (
            OpenAI.answer(ANSWER) | {"usage": {"prompt_tokens": 30.5, "completion_tokens": 7.0}},
            "a whole reply",
            "stop",
            31,
        ),
        ({**OpenAI.answer(ANSWER), "usage": None}, "a whole reply", "stop", 0),
        (changed(WHOLE["openai"], ("choices", 0, "message", "content"), THOUGHTS), "yes", "stop", 30),
        (changed(WHOLE["openai"], ("choices", 0, "message"), None), "", "no_content", 30),
        (changed(WHOLE["openai"], ("choices", 0, "message", "content"), {"a": 1}), '{"a": 1}', "stop", 30),
        (changed(WHOLE["openai"], ("choices", 0, "finish_reason"), None), "a whole reply", "unknown", 30),
    ],
)
@pytest.mark.parametrize("provider", ["openai", "mistral", "groq", "hosted_vllm"])
def test_what_litellm_can_not_convert_is_read(
    double: Double,
    open_service: Open,
    monkeypatch: pytest.MonkeyPatch,
    provider: str,
    body: Any,
    text: str,
    reason: str,
    tokens: int,
) -> None:
    """A provider that is left to litellm, too: what came is kept before it converts it."""
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "the-key")
    double.control(bodies={"odd": json.dumps(body)})
    llm = ServiceLLM(
        name="it", provider=provider, model="m", base_url=double.url("openai"), json_schema=False, max_attempts=3,
        price=Price(5.0, 20.0, "a test"), parameters={"a_name_that_nobody_lists": 3},
    )  # fmt: skip
    service = open_service()
    reply = reply_of(service, ask_for(llm, "odd"))
    assert (reply.text, reply.finish_reason, reply.prompt_tokens) == (text, reason, tokens)
    assert len(double.bill()["calls"]) == 1
    assert service.spent_usd == reply.cost_usd > 0


ENDS = {
    "openai": (("choices", 0, "finish_reason"), [None, "model_context_window_exceeded", "pause_turn", "a new word"]),
    "anthropic": (("stop_reason",), [None, "model_context_window_exceeded", "pause_turn", "a new word"]),
    "gemini": (("candidates", 0, "finishReason"), [None, "MALFORMED_FUNCTION_CALL", "OTHER", "A_NEW_WORD"]),
}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_reply_whose_end_is_not_known_arrives_as_unfinished(
    double: Double, wired: Wired, open_service: Open, provider: str
) -> None:
    path, words = ENDS[provider]
    double.control(bodies={f"ends {word};": json.dumps(changed(WHOLE[provider], path, word)) for word in words})
    llm = wired(provider)
    found = open_service().ask([ask_for(llm, f"ends {word};") for word in words], silent)
    assert [isinstance(one, Reply) and one.text for one in found] == ["a whole reply"] * 4
    assert "stop" not in [isinstance(one, Reply) and one.finish_reason for one in found]


@pytest.mark.parametrize("body", ['{"detail": "Not Found"}', "<html>log in</html>", "", "[]", '"text"', "data: [DONE]"])
def test_what_is_no_reply_is_said_and_not_tried_again(
    double: Double, wired: Wired, open_service: Open, body: str
) -> None:
    double.control(bodies={"odd": body})
    llm = wired("openai", max_attempts=4)
    failed, fine = open_service().ask([ask_for(llm, "odd"), ask_for(llm, "plain")], silent)
    assert isinstance(failed, Failure)
    assert isinstance(fine, Reply)
    assert failed.message.startswith("openai: the server answered 200, and no reply: ")
    assert (body.strip('{"[]') or "nothing")[:9] in failed.message or "nothing at all" in failed.message or body == "[]"
    assert len(double.bill()["calls"]) == 2
    double.control(bodies={})
    reply_of(open_service(), ask_for(llm, "odd"))


@pytest.mark.parametrize("body", ["<html>log in</html>", "", '{"detail": "Not Found"}'])
def test_what_is_no_reply_is_not_tried_again_by_a_provider_of_litellms_either(
    double: Double, open_service: Open, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY", "the-key")
    double.control(bodies={"odd": body})
    llm = ServiceLLM(
        name="it", provider="mistral", model="m", base_url=double.url("openai"), json_schema=False, max_attempts=3,
        price=Price(5.0, 20.0, "a test"),
    )  # fmt: skip
    (failed,) = open_service().ask([ask_for(llm, "odd")], silent)
    assert isinstance(failed, Failure)
    assert failed.message.startswith("it: the server answered 200, and no reply: ")
    assert len(double.bill()["calls"]) == 1
