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
from llamaduo.data.texts import parsed
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
        if _is_object(row.get(response)) and _is_asking(row.get(request)):
            rest = {name: value for name, value in row.items() if name not in (request, response)}
            return {**rest, "request": _request(row[request]), "response": row[response]}
    return row


_ALIKE = (("request_body", "response_body"), ("input", "output"), ("messages", "response"))
"""What gateways call `request` and `response`; in a row with `messages` and a text for a `response` it is no log's."""


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
    for layer in layers:
        heed(layer, place, tells=layer is response)
    for knows, reads in _KINDS:
        if isinstance(response, dict) and knows in response:
            try:
                asked, answer = reads(request, response, place)
            except (TypeError, KeyError, IndexError, AttributeError) as error:
                raise _no_log(place) from error
            if answer is None or (isinstance(answer, str) and not answer.strip()):
                raise SetAside(place, "the answer is empty")
            return [*asked, {"role": "assistant", "content": answer}]
    raise _no_log(place)


def _no_log(place: str) -> UnusableError:
    return UnusableError(place, "no OpenAI log", f": it needs {_SHAPES}; or leave the row out.")


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
"""The turns that were asked with, and the answer."""
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def _text(content: Any) -> Any:
    """Return the text of content that comes in parts, if all of them are text or thoughts; else what it was."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if not _is_thought(part)]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


def _is_thought(part: Any) -> bool:
    return part.get("type") in _THOUGHTS or part.get("thought") is True


def _answer(content: Any, place: str) -> Any:
    """Return the text of an answer; raises SetAside for one that is more than text."""
    for part in content if isinstance(content, list) else ():
        if not _is_thought(part) and not isinstance(part.get("text"), str):
            kind = str(part.get("type") or next(iter(part), "nothing"))[:_LONGEST]
            called = kind.lower().replace("_", "").endswith(("tooluse", "toolcall", "functioncall"))
            raise SetAside(place, f"the answer is {'a call of tools' if called else 'more than text'} ({kind})")
    return _text(content)


def _plain(turns: Any) -> Turns:
    return [{**turn, "content": _text(turn.get("content"))} for turn in turns]


def _completion(request: Any, response: Any, place: str) -> _Read:
    choice = sorted(response["choices"], key=lambda one: one.get("index") or 0)[0]
    message = choice.get("message") or {}
    if message.get("refusal"):
        choice = {**choice, "finish_reason": "refusal"}
    heed({**choice, **{name: message[name] for name in ("tool_calls", "function_call") if name in message}}, place,
         tells=True)  # fmt: skip
    turns = request["messages"]
    asked = _plain(turns) if isinstance(turns, list) else list(turns)
    return asked, _answer(message["content"], place)


def _message(request: Any, response: Any, place: str) -> _Read:
    system = _text(request.get("system"))
    asked = [{"role": "system", "content": system}] if system else []
    return asked + _plain(request["messages"]), _answer(response["content"], place)


def _gemini(request: Any, response: Any, place: str) -> _Read:
    candidate = response["candidates"][0]
    heed(candidate, place, tells=True)
    parts = (candidate.get("content") or {}).get("parts") or []
    told = request.get("systemInstruction") or request.get("system_instruction")
    asked = [{"role": "system", "content": _text(told["parts"])}] if told else []
    roles = {"model": "assistant", None: "user"}
    for turn in request["contents"]:
        role = turn.get("role")
        asked.append({"role": roles.get(role, role), "content": _text(turn["parts"])})
    return asked, _answer(parts, place)


def _response(request: Any, response: Any, place: str) -> _Read:
    """Read what OpenAI's Responses API gave; its `status` is heeded as every status is."""
    items = [item for item in response["output"] if item.get("type") != "reasoning"]
    for item in items:
        heed(item, place)
        if item.get("type") != "message":
            raise SetAside(place, f"the answer is a call of tools ({str(item.get('type'))[:_LONGEST]})")
    parts = [part for item in items for part in item.get("content") or []]
    if any(part.get("type") == "refusal" for part in parts):
        heed({"finish_reason": "refusal"}, place)
    asked = request["input"]
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else _plain(asked)
    system = [{"role": "system", "content": request["instructions"]}] if request.get("instructions") else []
    return system + turns, _answer(parts, place)


_KINDS: tuple[tuple[str, Callable[[Any, Any, str], _Read]], ...] = (
    ("choices", _completion),
    ("candidates", _gemini),
    ("output", _response),
    ("content", _message),
)
"""The field of a response that tells its kind, and how it is read."""
