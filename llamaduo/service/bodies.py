"""Bodies: what is sent to OpenAI-compatible servers, Anthropic and Gemini, to the byte.

    sending = sending_of(llm, turns, schema=None, seed=0)    # a Sending: format, address, body, headers

Everything in it comes from what a request's key covers and from this file: no library adds a default, so that an
upgrade can't send something else under an old key. Parameters go out under their own names; the few that every
provider has are given OpenAI's and put into the provider's words here. Other providers are left to litellm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError
from llamaduo.service.addresses import address

ADDRESSES = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
}
"""The providers' own, said in so many words: no variable of the environment may change what the key covers."""

TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
"""Names of the limit of a reply; one of them among the parameters takes the place of `max_tokens`."""
_OTHER_LIMITS = ("maxOutputTokens", "max_output_tokens", "maxTokens", "max_new_tokens", "num_predict")
_CHOICES = ("n", "best_of", "candidateCount", "candidate_count", "num_return_sequences")
"""Names of the number of replies to one request: all of them are billed, and the first is read."""
_ENDPOINT = {"openai": "/chat/completions", "anthropic": "/v1/messages"}
_NEWER = re.compile(r"(.*/)?(o\d|gpt-[5-9]|gpt-\d\d)")
"""OpenAI's models that refuse `max_tokens`."""
_GEMINI_NAMES = {
    "top_p": "topP",
    "top_k": "topK",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
    "thinking_config": "thinkingConfig",
}
_GEMINI_OUTSIDE = ("safetySettings", "systemInstruction", "cachedContent", "labels", "toolConfig")
"""What is no part of Gemini's `generationConfig`."""
_GEMINI_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""Tokens of thought of the models before Gemini 3, as its OpenAI-compatible endpoint has them."""


@dataclass(frozen=True)
class Sending:
    """One HTTP request, but for the key."""

    form: str
    """Format of the body and of its reply: openai, anthropic or gemini."""
    url: str
    body: dict[str, Any]
    headers: dict[str, str]


def is_own(llm: ServiceLLM) -> bool:
    """Tell whether what is sent to a service LLM is made here, and not by litellm."""
    return llm.provider in ADDRESSES


def most_tokens(llm: ServiceLLM) -> int:
    """Return the most tokens that a reply may have: a limit among the parameters takes the place of `max_tokens`."""
    return max(token_limits(llm), default=llm.max_tokens)


def most_billed(llm: ServiceLLM) -> int:
    """Return the most tokens that a request is billed at: whatever the limit is called, all its replies together."""
    limits = [most_tokens(llm), *_numbers(llm.parameters, _OTHER_LIMITS)]
    return max(limits) * max([1, *_numbers(llm.parameters, _CHOICES)])


def _numbers(tree: Any, names: Sequence[str]) -> Iterator[int]:
    """Yield the whole numbers that stand under one of the names, at any depth."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            if name in names and isinstance(value, int):
                yield value
            yield from _numbers(value, names)


def token_limits(llm: ServiceLLM) -> list[int]:
    """Return the limits of a reply that are among the parameters."""
    places = (llm.parameters, llm.parameters.get("extra_body") or {})
    return [place[name] for place in places for name in TOKEN_LIMITS if isinstance(place.get(name), int)]


def parameters(llm: ServiceLLM) -> dict[str, Any]:
    """Return the configured parameters that are sent: null unsets one."""
    return {name: value for name, value in llm.parameters.items() if value is not None}


def sending_of(
    llm: ServiceLLM, turns: Sequence[Mapping[str, str]], *, schema: Mapping[str, Any] | None, seed: int
) -> Sending:
    """Return what is sent for a request; `turns` are its messages."""
    given = parameters(llm)
    extra = dict(given.pop("extra_body", None) or {})
    headers = {str(name): str(value) for name, value in (given.pop("extra_headers", None) or {}).items()}
    schema = schema if llm.json_schema else None
    make = _MAKERS[llm.provider]
    body = _merged(make(llm, list(turns), given, schema, seed if llm.send_seed else None), extra)
    return Sending(llm.provider, _url(llm), body, {**_VERSIONS.get(llm.provider, {}), **headers})


def key_header(llm: ServiceLLM, key: str | None) -> dict[str, str]:
    """Return the header that carries the key."""
    if not key:
        return {}
    return {
        "openai": {"Authorization": f"Bearer {key}"},
        "anthropic": {"x-api-key": key},
        "gemini": {"x-goog-api-key": key},
    }[llm.provider]


def encoded(body: Mapping[str, Any]) -> bytes:
    """Return a body's bytes; half a surrogate in it is sent as its JSON escape."""
    return json.dumps(body).encode()


_VERSIONS = {"anthropic": {"anthropic-version": "2023-06-01"}}


def _url(llm: ServiceLLM) -> str:
    base = (address(llm) or ADDRESSES[llm.provider]).rstrip("/")
    if llm.provider == "gemini":
        return f"{base}/models/{llm.model.removeprefix('models/')}:generateContent"
    end = _ENDPOINT[llm.provider]
    if base.endswith(end):
        return base
    return base + (end.removeprefix("/v1") if base.endswith("/v1") else end)


def _merged(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body with `extra_body` in it, objects within objects."""
    for name, value in extra.items():
        inner = body.get(name)
        body[name] = _merged(dict(inner), value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return body


def _limit(given: dict[str, Any], llm: ServiceLLM) -> int:
    """Take the limit of a reply out of the parameters."""
    most = most_tokens(llm)
    for name in TOKEN_LIMITS:
        given.pop(name, None)
    return most


def _openai(
    llm: ServiceLLM, turns: list[Any], given: dict[str, Any], schema: Mapping[str, Any] | None, seed: int | None
) -> dict[str, Any]:
    body: dict[str, Any] = {"model": llm.model, "messages": [dict(turn) for turn in turns]}
    in_extra = any(name in (llm.parameters.get("extra_body") or {}) for name in TOKEN_LIMITS)
    if not in_extra and not any(name in given for name in TOKEN_LIMITS):
        body["max_completion_tokens" if _NEWER.match(llm.model) else "max_tokens"] = llm.max_tokens
    body |= given
    if llm.temperature is not None:
        body["temperature"] = llm.temperature
    if seed is not None:
        body["seed"] = seed
    if schema is not None:
        named = {"name": "reply", "schema": dict(schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    return body


def _anthropic(
    llm: ServiceLLM, turns: list[Any], given: dict[str, Any], schema: Mapping[str, Any] | None, seed: int | None
) -> dict[str, Any]:
    if seed is not None:
        raise ConfigError(f"{llm.name}: Anthropic takes no seed; set send_seed=false.")
    body: dict[str, Any] = {"model": llm.model, "max_tokens": _limit(given, llm)}
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    if system:
        body["system"] = system
    body["messages"] = [dict(turn) for turn in turns if turn["role"] != "system"]
    if "stop" in given:
        body["stop_sequences"] = _listed(given.pop("stop"))
    effort = given.pop("reasoning_effort", None)
    if effort == "none":
        given.setdefault("thinking", {"type": "disabled"})
    elif effort:
        body["output_config"] = {"effort": effort}
    if llm.temperature is not None:
        body["temperature"] = llm.temperature
    if schema is not None:
        asked = {"format": {"type": "json_schema", "schema": dict(schema)}}
        body["output_config"] = {**body.get("output_config", {}), **asked}
    return _merged(body, given)


def _gemini(
    llm: ServiceLLM, turns: list[Any], given: dict[str, Any], schema: Mapping[str, Any] | None, seed: int | None
) -> dict[str, Any]:
    roles = {"assistant": "model"}
    said = [turn for turn in turns if turn["role"] != "system"]
    body: dict[str, Any] = {
        "contents": [{"role": roles.get(turn["role"], "user"), "parts": [{"text": turn["content"]}]} for turn in said]
    }
    system = [{"text": turn["content"]} for turn in turns if turn["role"] == "system"]
    if system:
        body["systemInstruction"] = {"parts": system}
    config: dict[str, Any] = {"maxOutputTokens": _limit(given, llm)}
    if llm.temperature is not None:
        config["temperature"] = llm.temperature
    if seed is not None:
        config["seed"] = seed
    if "stop" in given:
        config["stopSequences"] = _listed(given.pop("stop"))
    effort = given.pop("reasoning_effort", None)
    if effort:
        older = re.search(r"gemini-[12]\b", llm.model)
        budget = {"thinkingBudget": _GEMINI_BUDGETS.get(effort, -1)}
        config["thinkingConfig"] = budget if older else {"thinkingLevel": effort}
    if schema is not None:
        config |= {"responseMimeType": "application/json", "responseJsonSchema": dict(schema)}
    config = _merged(config, given.pop("generationConfig", None) or {})
    outside = {name: given.pop(name) for name in _GEMINI_OUTSIDE if name in given}
    config = _merged(config, {_GEMINI_NAMES.get(name, name): value for name, value in given.items()})
    return _merged({**body, "generationConfig": config}, outside)


def _listed(stop: Any) -> list[Any]:
    return [stop] if isinstance(stop, str) else list(stop)


_Maker = Callable[[ServiceLLM, list[Any], dict[str, Any], Mapping[str, Any] | None, int | None], dict[str, Any]]
_MAKERS: dict[str, _Maker] = {"openai": _openai, "anthropic": _anthropic, "gemini": _gemini}
