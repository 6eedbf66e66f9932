"""Turns in one form, whoever logged them: text, calls of tools in OpenAI's form, and what the tools replied.

    plain_turns([{"role": "assistant", "content": [{"type": "tool_use", "name": "look", "input": {}}]}], "x:1")
    [{"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function":
      {"name": "look", "arguments": "{}"}}]}]

Reads content as text or in parts (OpenAI, Anthropic, Gemini, OpenTelemetry); thoughts are left out. Arguments of calls
stay the text that they are. What is neither text nor a call, such as an image, raises SetAside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from llamaduo.data.heeded import is_null
from llamaduo.data.texts import whole
from llamaduo.data.unusable import SetAside

Turn = dict[str, Any]

_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
_TEXTS = ("text", "input_text", "output_text", None)
_CALLS = ("tool_use", "tool_call", "tool-call", "functionCall", "function_call")
_REPLIES = ("tool_result", "tool_call_response", "tool-result", "functionResponse", "function_response")
_LONGEST = 40
UNKNOWN_CALL = "in a form that is not known"


def plain_turns(turns: list[Any], place: str) -> list[Any]:
    """Return turns in one form, the answer last; what is no turn stays as it is."""
    found: list[Any] = []
    for turn in turns[:-1]:
        found += _plain(turn, place, "a turn calls tools", "a turn holds more than text")
    return [*found, answer(turns[-1], place)] if turns else found


def answer(turn: Any, place: str) -> Any:
    """Return the turn of an answer in one form."""
    found = _plain(turn, place, "the answer is a call of tools", "the answer is more than text")
    return found[-1] if len(found) == 1 else turn


def _plain(turn: Any, place: str, calls_tools: str, more: str) -> list[Any]:
    if not isinstance(turn, dict):
        return [turn]
    content = turn.get("parts") or turn.get("content")
    if isinstance(content, str) and len(turn) == 2:  # as most are
        return [turn]
    calls = list(_calls(turn, place, calls_tools))
    replies: list[Turn] = []
    if isinstance(content, list):
        texts: list[str] = []
        for part in content:
            _take(part, place, (texts, calls, replies), (calls_tools, more))
        if replies and not texts and not calls:
            return replies
        content = "".join(texts)
    role = turn.get("role")
    plain = {"role": "tool" if role == "function" else role, "content": "" if content is None and calls else content}
    if calls:
        plain["tool_calls"] = calls
    names = ("tool_call_id", "name") if role in ("tool", "function") else ()
    plain |= {name: str(turn[name]) for name in names if isinstance(turn.get(name), str | int) and turn[name] != ""}
    return [*replies, plain]


def _take(part: Any, place: str, found: tuple[list[str], list[Turn], list[Turn]], words: tuple[str, str]) -> None:
    """Put a part of a turn where it belongs: among its texts, its calls or the replies of tools."""
    texts, calls, replies = found
    if isinstance(part, str):
        texts.append(part)
        return
    if not isinstance(part, dict):
        raise SetAside(place, f"{words[1]} ({type(part).__name__})")
    kind = part.get("type") or next((name for name in (*_CALLS, *_REPLIES) if name in part), None)
    text = part.get("text", part.get("content") if kind == "text" else None)
    if kind in _THOUGHTS or part.get("thought") is True:
        return
    if kind in _TEXTS and isinstance(text, str):
        texts.append(text)
    elif kind in _CALLS:
        calls.append(_call(part.get(str(kind), part), place, words[0]))
    elif kind in _REPLIES:
        replies.append(_reply(part.get(str(kind), part)))
    else:
        shown = str(kind or next(iter(part), "nothing"))[:_LONGEST]
        called = shown.lower().replace("_", "").endswith(("tooluse", "toolcall", "functioncall"))
        raise SetAside(place, f"{words[0] if called else words[1]} ({shown})")


def _calls(turn: Mapping[str, Any], place: str, words: str) -> list[Turn]:
    """Return the calls that a turn has beside its content."""
    made = turn.get("tool_calls")
    made = whole(made) if isinstance(made, str) else made
    if is_null(made) and not is_null(turn.get("function_call")):
        made = [turn["function_call"]]
    if is_null(made):
        return []
    if not isinstance(made, list):
        raise SetAside(place, f"{words} {UNKNOWN_CALL}")
    return [_call(one, place, words) for one in made]


def _call(told: Any, place: str, words: str) -> Turn:
    """Return a call in OpenAI's form."""
    told = told if isinstance(told, dict) else {}
    inner = told.get("function") if isinstance(told.get("function"), dict) else told
    name = inner.get("name") or inner.get("toolName")
    keys = ("arguments", "args", "input", "parameters")
    given: Any = next((inner[key] for key in keys if inner.get(key) is not None), {}) or {}
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    if not isinstance(name, str) or not name or not isinstance(whole(arguments), dict):
        raise SetAside(place, f"{words} {UNKNOWN_CALL}")
    known = next((told[key] for key in ("id", "call_id", "tool_call_id", "toolCallId") if told.get(key)), None)
    return {**({"id": str(known)} if known else {}), "type": "function",
            "function": {"name": name, "arguments": arguments}}  # fmt: skip


def _reply(told: Any) -> Turn:
    """Return what a tool replied as a turn."""
    told = told if isinstance(told, dict) else {"content": told}
    keys = ("content", "response", "result", "output")
    content = next((told[key] for key in keys if told.get(key) is not None), "")
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        content = "".join(part["text"] for part in content)
    known = next(
        (told[key] for key in ("tool_use_id", "tool_call_id", "toolCallId", "call_id", "id") if told.get(key)), None
    )
    about = {"tool_call_id": str(known)} if known else {}
    about |= {"name": told["name"]} if isinstance(told.get("name"), str) else {}
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    return {"role": "tool", "content": text, **about}


def tools_of(offered: Any) -> tuple[Turn, ...]:
    """Return the functions that a request offers, in OpenAI's form; what is no function is left out."""
    offered = whole(offered) if isinstance(offered, str) else offered
    found = []
    for one in offered if isinstance(offered, list | tuple) else ():
        for told in (
            (one.get("functionDeclarations") or one.get("function_declarations") or [one])
            if isinstance(one, dict)
            else ()
        ):
            inner = told.get("function") if isinstance(told.get("function"), dict) else told
            if isinstance(inner.get("name"), str):
                takes = inner.get("parameters") or inner.get("input_schema") or {"type": "object", "properties": {}}
                says = inner.get("description") or ""
                function = {"name": inner["name"], "description": says, "parameters": takes}
                found.append({"type": "function", "function": function})
    return tuple(found)
