"""API logs: the turns of a request and its answer, and what the log says about them.

    {"request": {"messages": [...]}, "response": {"choices": [{"message": {...}, "finish_reason": "stop"}]}}
    {"request": {"system": "...", "messages": [...]}, "response": {"content": [{...}], "stop_reason": "end_turn"}}
    {"request": {"contents": [...]}, "response": {"candidates": [{"content": {...}, "finishReason": "STOP"}]}}
    {"request": {"input": "..."}, "response": {"status": "completed", "output": [{"type": "message", ...}]}}

OpenAI's chat completions, Anthropic's messages, Gemini's, and OpenAI's responses; request and response may be wrapped
in `body` (batch files, proxies) or be JSON text (CSV). `as_log` finds them
under the names that gateways and exports give them. An answer that its log calls cut, filtered, failed or a call of
tools is no reference: `SetAside` says why (`heeded`), and who reads the data counts it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llamaduo.data.heeded import heed, is_null
from llamaduo.data.shapes import is_observation
from llamaduo.data.texts import parsed, whole
from llamaduo.data.turns import answer, plain_turns, tools_of
from llamaduo.data.unusable import SetAside, UnusableError

Turns = list[Any]

_LONGEST = 40
_SHAPES = "request.messages and response.choices[0].message.content (or what Anthropic, Gemini and Responses call them)"


def as_log(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of Helicone's, Langfuse's or litellm's, or a stored completion, with `request` and `response`."""
    asked: Any = row.get("messages") or row.get("input")
    if "choices" in row and not {"request", "response"} & row.keys():
        about = {name: value for name, value in row.items() if name in ("category", "split")}
        return {**about, "request": _request(asked), "response": row}
    for request, response in _ALIKE:
        if request == "input" and is_observation(row):
            continue
        if _is_object(row.get(response)) and _is_asking(row.get(request)):
            rest = {name: value for name, value in row.items() if name not in (request, response)}
            return {**rest, "request": _request(row[request]), "response": row[response]}
    return row


_ALIKE = (("request_body", "response_body"), ("input", "output"), ("messages", "response"))
"""What gateways call `request` and `response`; in a row with `messages` and a text for a `response` it is no log's."""


def name_of_log(row: Mapping[str, Any]) -> str:
    """Return what a row is called that is read as a log."""
    if "request_body" in row:
        return "Helicone"
    if "choices" in row and not {"request", "response"} & row.keys():
        return "OpenAI's stored completions"
    if "messages" in row and "response" in row:
        return "litellm"
    response = row.get("response")
    response = whole(response) if isinstance(response, str) else response
    told = response.get("body", response) if isinstance(response, dict) else {}
    kinds = {"choices": "OpenAI", "candidates": "Gemini", "output": "OpenAI's responses", "content": "Anthropic"}
    return next((name for knows, name in kinds.items() if isinstance(told, dict) and knows in told), "a log")


def _request(asked: Any) -> Any:
    return {"messages": asked} if isinstance(asked, list) else asked


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, str) and value.lstrip().startswith("{"))


def _is_asking(value: Any) -> bool:
    """Tell whether a value is a request, or turns without their answer."""
    if isinstance(value, list):
        return bool(value) and isinstance(value[-1], dict) and value[-1].get("role") != "assistant"
    return _is_object(value)


def turns_of_log(row: Mapping[str, Any], place: str) -> Turns:
    """Return the turns of a row with `request` and `response`, the answer last.

    Raises SetAside for an answer that isn't whole, InputError for what is no log.
    """
    heed(row, place)
    if not isinstance(row["response"], dict | list) and is_null(row["response"]) and not is_null(row["request"]):
        raise SetAside(place, "the log holds no response")
    request, layers = _unwrapped(row["request"], place), list(_layers(row["response"], place))
    response = layers[-1]
    calls = isinstance(response, dict) and _calls(response)
    for layer in layers:
        heed(layer, place, tells=layer is response, calls=calls)
    for knows, reads in _KINDS:
        if isinstance(response, dict) and knows in response:
            try:
                asked, answered = reads(request, response, place)
                turns = plain_turns([*asked, {**answered, "role": "assistant"}], place)
            except (TypeError, KeyError, IndexError, AttributeError) as error:
                raise _no_log(place) from error
            content = turns[-1].get("content")
            if "tool_calls" not in turns[-1] and (
                content is None or (isinstance(content, str) and not content.strip())
            ):
                raise SetAside(place, "the answer is empty")
            return turns
    if told := _another_endpoint(row, request, response):
        raise SetAside(place, told)
    raise _no_log(place)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _calls(message: Mapping[str, Any]) -> bool:
    """Tell whether a message has calls of tools in it."""
    parts = [part for part in _listed(message.get("content")) if isinstance(part, dict)]
    return any(part.get("type") == "tool_use" for part in parts) or not is_null(message.get("tool_calls"))


_CHUNK = "a chunk of a stream, no whole answer"
_ENDPOINTS = re.compile("embedding|image|moderation|transcription|speech|audio|rerank|file|batch", re.IGNORECASE)


def _another_endpoint(row: Mapping[str, Any], request: Any, response: Any) -> str:
    """Return what a log is of, if it is surely of no chat."""
    told = response if isinstance(response, dict) else {}
    kinds = [row.get("call_type"), told.get("object"), told.get("type")]
    data = _listed(told.get("data"))
    kinds += [
        one.get("object") or next((k for k in one if k in ("b64_json", "embedding")), "")
        for one in data[:1]
        if isinstance(one, dict)
    ]
    if any(
        isinstance(kind, str) and (kind.endswith((".chunk", ".delta", "_delta")) or kind == "message_start")
        for kind in kinds
    ):
        return _CHUNK
    found = next((kind for kind in kinds if isinstance(kind, str) and _ENDPOINTS.search(kind)), None)
    return f"a log of another endpoint ({found[:_LONGEST]})" if found else ""


def _no_log(place: str) -> UnusableError:
    return UnusableError(place, "no OpenAI log", f": it needs {_SHAPES}; or leave the row out.")


def tools(row: Mapping[str, Any], place: str) -> tuple[dict[str, Any], ...]:
    """Return the functions that a log's request offers."""
    request = _unwrapped(row["request"], place)
    return tools_of(request.get("tools") or request.get("functions")) if isinstance(request, dict) else ()


def models(row: Mapping[str, Any], place: str) -> tuple[str, str]:
    """Return the names of the models that a log says were asked and answered; empty where it doesn't say."""
    request, response = (_unwrapped(row[name], place) for name in ("request", "response"))
    told = request.get("model"), response.get("model") or response.get("modelVersion") or response.get("model_version")
    asked, answered = (name[:_LONGEST].split("/")[-1] if isinstance(name, str) else "" for name in told)
    return asked, answered


def is_another(asked: str, answered: str) -> bool:
    """Tell whether a model answered that is neither the one that was asked, nor a dated version of it."""
    return bool(asked and answered) and not re.fullmatch(rf"{re.escape(asked)}([-@:.](\d[\w.-]*|latest))?", answered)


def remarks(row: Mapping[str, Any], place: str) -> list[str]:
    """Return what of a log is not read although its answer is."""
    request, response = (_unwrapped(row[name], place) for name in ("request", "response"))
    answers = response.get("choices") or response.get("candidates") or ()
    more = [f"{len(answers) - 1} more answers, which are not read"] if len(answers) > 1 else []
    offered = request.get("tools") or request.get("functions")
    return more + (["tools offered, which the local model won't have"] if offered else [])


def _layers(value: Any, place: str) -> Iterator[Any]:
    """Yield a value and what is wrapped in it, from outside to inside; JSON text is read."""
    value = parsed(value, place) if isinstance(value, str) else value
    yield value
    if isinstance(value, dict) and "body" in value:
        yield from _layers(value["body"], place)


def _unwrapped(value: Any, place: str) -> Any:
    return list(_layers(value, place))[-1]


_Read = tuple[Turns, Any]
"""The turns that were asked with, and the turn of the answer."""


def _completion(request: Any, response: Any, place: str) -> _Read:
    choice = sorted(response["choices"], key=lambda one: one.get("index") or 0)[0]
    if "delta" in choice and "message" not in choice:
        raise SetAside(place, _CHUNK)
    if isinstance(choice.get("text"), str) and isinstance(request.get("prompt"), str):  # the endpoint before chats
        heed(choice, place, tells=True)
        return [{"role": "user", "content": request["prompt"]}], {"content": choice["text"]}
    message = choice.get("message") or {}
    if message.get("refusal"):
        choice = {**choice, "finish_reason": "refusal"}
    answered = answer({"role": "assistant", **message}, place)
    heed(choice, place, tells=True, calls="tool_calls" in answered)
    turns = request["messages"]
    message["content"]
    return list(turns), answered


def _message(request: Any, response: Any, place: str) -> _Read:
    system = request.get("system")
    asked = [{"role": "system", "content": system}] if system else []
    return asked + request["messages"], {**response, "role": "assistant"}


def _gemini(request: Any, response: Any, place: str) -> _Read:
    candidate = response["candidates"][0]
    heed(candidate, place, tells=True)
    parts = (candidate.get("content") or {}).get("parts") or []
    told = request.get("systemInstruction") or request.get("system_instruction")
    asked: Turns = [{"role": "system", "parts": told["parts"]}] if told else []
    roles = {"model": "assistant", None: "user"}
    for turn in request["contents"]:
        role = turn.get("role")
        asked.append({"role": roles.get(role, role), "parts": turn["parts"]})
    return asked, {"parts": parts}


def _response(request: Any, response: Any, place: str) -> _Read:
    """Read what OpenAI's Responses API gave; its `status` is heeded as every status is."""
    items = [item for item in response["output"] if item.get("type") != "reasoning"]
    parts: list[Any] = []
    for item in items:
        kind = item.get("type")
        heed(item, place)
        if kind not in ("message", "function_call"):
            raise SetAside(place, f"the answer is a call of tools ({str(kind)[:_LONGEST]})")
        parts += [item] if kind == "function_call" else item.get("content") or []
    if any(part.get("type") == "refusal" for part in parts):
        heed({"finish_reason": "refusal"}, place)
    asked = request["input"]
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else _items(asked, place)
    system = [{"role": "system", "content": request["instructions"]}] if request.get("instructions") else []
    return system + turns, {"content": parts}


def _items(items: Turns, place: str) -> Turns:
    """Return the turns of a list of what was said, called and replied."""
    turns: Turns = []
    for item in items:
        kind = item.get("type")
        if kind == "function_call":
            if not (turns and turns[-1].get("called")):
                turns.append({"role": "assistant", "content": [], "called": True})
            turns[-1]["content"].append(item)
        elif kind == "function_call_output":
            turns.append({"role": "tool", "content": item.get("output"), "tool_call_id": item.get("call_id")})
        elif kind in ("message", None):
            turns.append(item)
        elif kind != "reasoning":
            raise SetAside(place, f"a turn holds more than text ({str(kind)[:_LONGEST]})")
    return turns


_KINDS: tuple[tuple[str, Callable[[Any, Any, str], _Read]], ...] = (
    ("choices", _completion),
    ("candidates", _gemini),
    ("output", _response),
    ("content", _message),
)
"""The field of a response that tells its kind, and how it is read."""
