"""Bodies: what is sent, to the byte, and nothing that the configuration doesn't say."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from asking import Open, Wired, reply_of, rows, silent
from wire_double import PROVIDERS, Double

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError
from llamaduo.service.bodies import encoded, most_tokens, sending_of
from llamaduo.service.requests import Request

SCHEMA = {"type": "object", "additionalProperties": False}
TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
]


def body_of(provider: str, turns: Any = None, schema: Any = None, **fields: Any) -> dict[str, Any]:
    llm = ServiceLLM(**({"name": "it", "provider": provider, "model": "m", "max_tokens": 9} | fields))
    return sending_of(llm, turns or TURNS, schema=schema, seed=3).body


def test_openais_body() -> None:
    assert body_of("openai", temperature=0.5, send_seed=True, parameters={"top_p": 0.9, "gone": None}) == {
        "model": "m", "messages": TURNS, "max_tokens": 9, "temperature": 0.5, "seed": 3, "top_p": 0.9,
    }  # fmt: skip
    told = body_of("openai", schema=SCHEMA, parameters={"extra_body": {"stop_token_ids": [1]}, "min_p": 0.1})
    named = {"name": "reply", "schema": SCHEMA, "strict": True}
    assert told["response_format"] == {"type": "json_schema", "json_schema": named}
    assert (told["stop_token_ids"], told["min_p"], "extra_body" in told) == ([1], 0.1, False)
    assert "response_format" not in body_of("openai", schema=SCHEMA, json_schema=False)


def test_anthropics_body() -> None:
    assert body_of("anthropic", temperature=0.0, parameters={"stop": "x", "top_k": 5}) == {
        "model": "m", "max_tokens": 9, "system": "be brief", "messages": TURNS[1:], "temperature": 0.0,
        "stop_sequences": ["x"], "top_k": 5,
    }  # fmt: skip
    told = body_of("anthropic", schema=SCHEMA, parameters={"reasoning_effort": "low"})
    assert told["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}
    assert body_of("anthropic", parameters={"reasoning_effort": "none"})["thinking"] == {"type": "disabled"}
    with pytest.raises(ConfigError, match="takes no seed"):
        body_of("anthropic", send_seed=True)


def test_geminis_body() -> None:
    given = {"stop": ["x"], "top_p": 0.9, "safetySettings": [1], "extra_body": {"generationConfig": {"topK": 4}}}
    assert body_of("gemini", TURNS[1:], temperature=0.5, send_seed=True, parameters=given) == {
        "contents": [
            {"role": "user", "parts": [{"text": "one"}]},
            {"role": "model", "parts": [{"text": "two"}]},
            {"role": "user", "parts": [{"text": "three"}]},
        ],
        "generationConfig": {
            "maxOutputTokens": 9, "temperature": 0.5, "seed": 3, "stopSequences": ["x"], "topP": 0.9, "topK": 4,
        },
        "safetySettings": [1],
    }  # fmt: skip
    told = body_of("gemini", schema=SCHEMA, parameters={"reasoning_effort": "low"}, model="gemini-3.8-flash")
    assert told["systemInstruction"] == {"parts": [{"text": "be brief"}]}
    assert told["generationConfig"] == {
        "maxOutputTokens": 9, "thinkingConfig": {"thinkingLevel": "low"}, "responseMimeType": "application/json",
        "responseJsonSchema": SCHEMA,
    }  # fmt: skip
    older = body_of("gemini", parameters={"reasoning_effort": "low"}, model="gemini-2.5-pro")
    assert older["generationConfig"]["thinkingConfig"] == {"thinkingBudget": 1024}


@pytest.mark.parametrize(
    ("model", "parameters", "sent"),
    [
        ("m", {}, {"max_tokens": 9}),
        ("m", {"max_completion_tokens": 500}, {"max_completion_tokens": 500}),
        ("m", {"extra_body": {"max_completion_tokens": 500}}, {"max_completion_tokens": 500}),
        ("m", {"max_completion_tokens": None}, {"max_tokens": 9}),
        ("o3-mini", {}, {"max_completion_tokens": 9}),
        ("openai/gpt-6-luna", {}, {"max_completion_tokens": 9}),
        ("o3-mini", {"max_tokens": 7}, {"max_tokens": 7}),
        ("gpt-4o-2024-08-06", {}, {"max_tokens": 9}),
    ],
)
def test_the_limit_of_a_reply_goes_out_under_the_name_that_is_set(
    model: str, parameters: dict[str, Any], sent: dict[str, int]
) -> None:
    body = body_of("openai", model=model, parameters=parameters)
    assert {name: value for name, value in body.items() if name.startswith("max_")} == sent
    llm = ServiceLLM(name="it", provider="openai", model=model, max_tokens=9, parameters=parameters)
    assert most_tokens(llm) == max(sent.values())


@pytest.mark.parametrize(("provider", "where"), [("anthropic", "max_tokens"), ("gemini", "maxOutputTokens")])
def test_other_formats_have_one_name_for_it(provider: str, where: str) -> None:
    body = body_of(provider, parameters={"max_completion_tokens": 500})
    assert body.get("generationConfig", body)[where] == 500
    assert "max_completion_tokens" not in json.dumps(body)


@pytest.mark.parametrize(
    ("provider", "base", "url"),
    [
        ("openai", None, "https://api.openai.com/v1/chat/completions"),
        ("openai", "http://h/v1/", "http://h/v1/chat/completions"),
        ("openai", "http://h/v1/chat/completions", "http://h/v1/chat/completions"),
        ("anthropic", None, "https://api.anthropic.com/v1/messages"),
        ("anthropic", "http://h", "http://h/v1/messages"),
        ("anthropic", "http://h/v1", "http://h/v1/messages"),
        ("anthropic", "http://h/v1/messages", "http://h/v1/messages"),
        ("gemini", None, "https://generativelanguage.googleapis.com/v1beta/models/m:generateContent"),
        ("gemini", "http://h/v1beta", "http://h/v1beta/models/m:generateContent"),
    ],
)
def test_the_address(provider: str, base: str | None, url: str) -> None:
    llm = ServiceLLM(name="it", provider=provider, model="m", base_url=base)
    assert sending_of(llm, TURNS, schema=None, seed=0).url == url


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_arrives_is_that_body_and_no_header_of_a_library_changes_what_is_asked(
    double: Double, wired: Wired, open_service: Open, tmp_path: Path, provider: str
) -> None:
    double.control(keep_requests=True)
    models = {"openai": "gpt-6-luna", "anthropic": "claude-sonnet-5-5", "gemini": "gemini-3.8-flash"}
    given = {"reasoning_effort": "low", "extra_headers": {"x-route": "a"}}
    llm = wired(provider, model=models[provider], json_schema=True, parameters=given)
    request = Request(llm, "a prompt", SCHEMA, 3, "judge", tuple(TURNS[:3]))
    open_service().ask([request], silent)
    (call,) = double.bill()["calls"]
    turns = [*TURNS[:3], {"role": "user", "content": "a prompt"}]
    assert call["request"]["body"] == sending_of(llm, turns, schema=SCHEMA, seed=3).body
    ((raw,),) = rows(tmp_path, "SELECT raw FROM replies")
    told = encoded(sending_of(llm, turns, schema=SCHEMA, seed=3).body)
    assert json.loads(raw)["sent"] == hashlib.sha256(told).hexdigest()
    said = json.dumps(call["request"]["body"])
    assert not any(word in said for word in ("temperature", "includeThoughts", "output_format", "stream"))
    headers = {name.lower(): value for name, value in call["request"]["headers"].items()}
    assert "anthropic-beta" not in headers
    assert headers["x-route"] == "a"


PLAIN = {
    "openai": {"model": "m", "messages": [{"role": "user", "content": "a prompt"}], "max_tokens": 64},
    "anthropic": {"model": "m", "messages": [{"role": "user", "content": "a prompt"}], "max_tokens": 64},
    "gemini": {
        "contents": [{"role": "user", "parts": [{"text": "a prompt"}]}], "generationConfig": {"maxOutputTokens": 64},
    },
}  # fmt: skip
"""All that a request which sets nothing sends, by provider."""


@pytest.mark.parametrize(
    ("provider", "model", "given", "sent"),
    [
        *((provider, "m", {}, {}) for provider in PROVIDERS),
        ("gemini", "gemini-3.8-flash", {}, {}),
        ("anthropic", "claude-sonnet-5-5", {}, {"model": "claude-sonnet-5-5"}),
        ("openai", "m", {"a_name_that_nobody_lists": 3}, {"a_name_that_nobody_lists": 3}),
        ("anthropic", "m", {"a_name_that_nobody_lists": 3}, {"a_name_that_nobody_lists": 3}),
        ("openai", "m", {"max_completion_tokens": 77}, {"max_tokens": None, "max_completion_tokens": 77}),
        ("openai", "m", {"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ("anthropic", "m", {"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
        ("anthropic", "m", {"thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
        ("openai", "m", {"extra_body": {"min_p": 0.1}}, {"min_p": 0.1}),
        *(
            ("gemini", "m", given, {"generationConfig": {"maxOutputTokens": 64, "topK": 4}})
            for given in ({"topK": 4}, {"generationConfig": {"topK": 4}})
        ),
    ],
)
def test_a_server_gets_what_is_set_and_nothing_else(
    double: Double,
    wired: Wired,
    open_service: Open,
    provider: str,
    model: str,
    given: dict[str, Any],
    sent: dict[str, Any],
) -> None:
    double.control(keep_requests=True)
    llm = wired(provider, model=model, parameters=given)
    reply_of(open_service(), Request(llm, "a prompt", None, 0, "judge"))
    (call,) = double.bill()["calls"]
    body = {name: value for name, value in (PLAIN[provider] | sent).items() if value is not None}
    assert call["request"]["body"] == body
