"""API logs: the turns of a request and its answer, and what the log says about them.

    {"request": {"messages": [...]}, "response": {"choices": [{"message": {...}, "finish_reason": "stop"}]}}
    {"request": {"system": "...", "messages": [...]}, "response": {"content": [{...}], "stop_reason": "end_turn"}}
    {"request": {"contents": [...]}, "response": {"candidates": [{"content": {...}, "finishReason": "STOP"}]}}
    {"request": {"input": "..."}, "response": {"status": "completed", "output": [{"type": "message", ...}]}}

OpenAI's chat completions, Anthropic's messages, Gemini's, and OpenAI's responses; request and response may be wrapped
in `body` (batch files, proxies) or be JSON text (CSV). An answer that its log calls cut, filtered, failed or a call of
tools is no reference: `SetAside` says why, and who reads the data counts it. A finish reason that isn't known to mean
"finished" means that it isn't; where a log has no such field, nothing is known against its answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from llamaduo.data.readers import parsed
from llamaduo.errors import InputError

Turns = list[Any]

_FINISHED = {"stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed"}
_TOOLS = {"tool_calls", "tool_call", "tool_use", "function_call", "malformed_function_call"}
_FILTERED = {"content_filter", "content_filtered", "refusal", "safety", "recitation", "prohibited_content", "blocklist",
             "spii", "blocked", "guardrail_intervened"}  # fmt: skip
_CUT = {"length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded", "incomplete"}
_FAILED = {"failed", "failure", "error", "errored", "cancelled", "canceled", "timeout", "expired"}
REASONS = ("finish_reason", "stop_reason", "finishReason")
_ERRORS, _STATUSES = ("error", "exception"), ("status", "status_code", "http_status", "level")
AROUND = {*_ERRORS, *_STATUSES}
"""Columns beside request and response that are heeded."""
_LONGEST = 40


class SetAside(InputError):  # noqa: N818 (no error of the file's)
    """A row that says itself that its answer is none to learn from."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}; leave the row out.")
        self.reason = reason


def turns_of_log(row: Mapping[str, Any], place: str) -> Turns:
    """Return the turns of a row with `request` and `response`, the answer last.

    Raises SetAside for an answer that isn't whole, InputError for what is no log.
    """
    request, response = (_unwrapped(row[name], place) for name in ("request", "response"))
    _heed(row, place)
    _heed_call(row["response"], response, place)
    for knows, reads in _KINDS:
        if isinstance(response, dict) and knows in response:
            try:
                asked, answer, reason = reads(request, response)
            except (TypeError, KeyError, IndexError, AttributeError) as error:
                raise InputError(f"{place}: no OpenAI log: it needs {_SHAPES}.") from error
            _heed_word(reason, "finish_reason", place)
            _refuse_no_text(answer, place)
            return [*asked, {"role": "assistant", "content": answer}]
    raise InputError(f"{place}: no OpenAI log: it needs {_SHAPES}.")


_SHAPES = "request.messages and response.choices[0].message.content (or what Anthropic, Gemini and Responses call them)"


def heed_reason(row: Mapping[str, Any], place: str) -> None:
    """Raise SetAside where a row has a finish reason that doesn't say that its answer is finished."""
    for name in REASONS:
        if row.get(name) not in (None, ""):
            _heed_word(row[name], name, place)


def heed_turn(turn: Any, place: str) -> None:
    """Raise SetAside where an answer's turn holds more than its text: calls of tools, or a refusal."""
    if isinstance(turn, dict) and (turn.get("tool_calls") or turn.get("function_call")):
        raise SetAside(place, "the answer is a call of tools")
    if isinstance(turn, dict) and turn.get("refusal"):
        raise SetAside(place, "the answer is a refusal")


def _heed(row: Mapping[str, Any], place: str) -> None:
    """Raise SetAside where what surrounds an answer calls it cut, filtered or failed."""
    heed_reason(row, place)
    for name in _ERRORS:
        if row.get(name) not in (None, "", {}, [], False):
            raise SetAside(place, "the log says that the call failed")
    for name in _STATUSES:
        _heed_status(row.get(name), place)


def models(row: Mapping[str, Any], place: str) -> tuple[str, str]:
    """Return the names of the models that a log says were asked and answered; empty where it doesn't say."""
    request, response = (_unwrapped(row[name], place) for name in ("request", "response"))
    told = request.get("model"), response.get("model") or response.get("modelVersion")
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


def _unwrapped(value: Any, place: str) -> Any:
    value = parsed(value, place) if isinstance(value, str) else value
    inner = value.get("body", value) if isinstance(value, dict) else value
    return parsed(inner, place) if isinstance(inner, str) else inner


def _heed_call(wrapped: Any, response: Any, place: str) -> None:
    """Raise SetAside for a call that failed, as its status or its body says."""
    for part in (wrapped, response):
        if isinstance(part, dict):
            _heed(part, place)


def _heed_status(status: Any, place: str) -> None:
    text = str(status).strip().lower().removesuffix(".0")
    if text.isdecimal() and len(text) == 3 and not text.startswith("2"):
        raise SetAside(place, f"the log says status {text}")
    if text in _FAILED | {"incomplete", "in_progress", "queued"}:
        raise SetAside(place, f"the log says status {text}")


def _heed_word(reason: Any, name: str, place: str) -> None:
    """Raise SetAside unless a finish reason says that the answer is finished; a field that is absent says nothing."""
    if reason is _ABSENT:
        return
    word = str(reason).lower() if isinstance(reason, str) else ""
    if word in _FINISHED:
        return
    shown = json.dumps(reason)[:_LONGEST].strip('"')
    kinds = ((_CUT, "cut off"), (_FILTERED, "held back by a filter"), (_TOOLS, "a call of tools"), (_FAILED, "failed"))
    what = next((what for words, what in kinds if word in words), "not known to be finished")
    raise SetAside(place, f"the answer is {what} ({name}: {shown})" if what != "failed" else "the call failed")


def _refuse_no_text(answer: Any, place: str) -> None:
    if answer is None or (isinstance(answer, str) and not answer.strip()):
        raise SetAside(place, "the answer is empty")


_ABSENT = object()
_Read = tuple[Turns, Any, Any]
"""The turns that were asked with, the answer, and the finish reason; `_ABSENT` where there is none."""


def _text(content: Any) -> Any:
    """Return the text of content that comes in parts, if all of them are text or thoughts; else what it was."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") for part in content if not _is_thought(part)]
    return "".join(texts) if all(isinstance(text, str) for text in texts) else content


def _is_thought(part: Any) -> bool:
    return part.get("type") in ("thinking", "redacted_thinking", "reasoning") or part.get("thought") is True


def _plain(turns: Any) -> Turns:
    return [{**turn, "content": _text(turn.get("content"))} for turn in turns]


def _completion(request: Any, response: Any) -> _Read:
    choice = response["choices"][0]
    message = choice["message"]
    reason = choice.get("finish_reason", _ABSENT)
    if message.get("tool_calls") or message.get("function_call"):
        reason = "tool_calls"
    filters = choice.get("content_filter_results") or {}
    filtered = any(isinstance(one, dict) and one.get("filtered") for one in filters.values())
    if filtered or message.get("refusal"):
        reason = "content_filter" if filtered else "refusal"
    turns = request["messages"]
    return (_plain(turns) if isinstance(turns, list) else list(turns)), _text(message["content"]), reason


def _message(request: Any, response: Any) -> _Read:
    system = _text(request.get("system"))
    asked = [{"role": "system", "content": system}] if system else []
    called = any(part.get("type") == "tool_use" for part in response["content"])
    reason = "tool_use" if called else response.get("stop_reason", _ABSENT)
    return asked + _plain(request["messages"]), None if called else _text(response["content"]), reason


def _gemini(request: Any, response: Any) -> _Read:
    blocked = (response.get("promptFeedback") or {}).get("blockReason")
    if blocked:
        return [], None, "blocked"
    candidate = response["candidates"][0]
    parts = (candidate.get("content") or {}).get("parts") or []
    called = any("functionCall" in part for part in parts)
    reason = "function_call" if called else candidate.get("finishReason", _ABSENT)
    told = request.get("systemInstruction") or request.get("system_instruction")
    asked = [{"role": "system", "content": _text(told["parts"])}] if told else []
    roles = {"model": "assistant", None: "user"}
    for turn in request["contents"]:
        role = turn.get("role")
        asked.append({"role": roles.get(role, role), "content": _text(turn["parts"])})
    return asked, None if called else _text(parts), reason


def _response(request: Any, response: Any) -> _Read:
    """Read what OpenAI's Responses API gave; its `status` is heeded as every status is."""
    items = [item for item in response["output"] if item.get("type") != "reasoning"]
    called = any(item.get("type") != "message" for item in items)
    parts = [part for item in items for part in item.get("content") or []]
    refused = any(part.get("type") == "refusal" for part in parts)
    asked = request["input"]
    turns = [{"role": "user", "content": asked}] if isinstance(asked, str) else _plain(asked)
    system = [{"role": "system", "content": request["instructions"]}] if request.get("instructions") else []
    reason = "tool_calls" if called else "refusal" if refused else _ABSENT
    return system + turns, None if called or refused else _text(parts), reason


_KINDS: tuple[tuple[str, Callable[[Any, Any], _Read]], ...] = (
    ("choices", _completion),
    ("candidates", _gemini),
    ("promptFeedback", _gemini),
    ("output", _response),
    ("content", _message),
)
"""The field of a response that tells its kind, and how it is read."""
