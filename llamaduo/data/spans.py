"""OpenTelemetry's spans of calls of LLMs (`gen_ai.*`), as messages; and objects that have many rows in them.

    {"name": "chat gpt-4o", "attributes": {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text",
     "content": "..."}]}], "gen_ai.output.messages": [{"role": "assistant", "parts": [...], "finish_reason": "stop"}]}}
    {"attributes": [{"key": "gen_ai.prompt.0.content", "value": {"stringValue": "..."}}, ...]}
    {"resourceSpans": [{"scopeSpans": [{"spans": [...]}]}]}

Attributes are an object (flat or nested), a list of keys and values as in OTLP, or the columns of a table; lists of
messages may be JSON text. What an older convention wrote into events is read as if it stood among the attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from llamaduo.data.heeded import is_null
from llamaduo.data.shapes import Row, value_of
from llamaduo.data.texts import WRAPPERS
from llamaduo.data.unusable import SetAside

_INPUT, _OUTPUT, _SYSTEM = "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions"
_INDEXED = (
    ("gen_ai.prompt", "gen_ai.completion"),
    ("llm.prompts", "llm.completions"),
    ("llm.input_messages", "llm.output_messages"),
)
"""Older names of what was asked and answered, a number and a field behind them."""
_ATTRIBUTES = ("attributes", "SpanAttributes", "span_attributes", "LogAttributes")
_CALLS_OF_AN_LLM = {"chat", "text_completion", "generate_content", "completion", "message", "responses", ""}
_WITH_CONTENT = ("gen_ai.content.prompt", "gen_ai.content.completion", "gen_ai.client.inference.operation.details")
_DEEPEST = 6
_LONGEST = 40
_VALUES = ("stringValue", "string_value", "intValue", "int_value", "boolValue", "bool_value", "doubleValue",
           "double_value")  # fmt: skip


def nested(row: Row, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the rows of an object that has many in it, such as resourceSpans; the object itself where it has none."""
    if row.keys().isdisjoint(WRAPPERS) or not (inner := list(_inner(row, 0))):
        yield place, row
        return
    for number, one in enumerate(inner):
        yield f"{place} span {number}" if len(inner) > 1 else place, one


def _inner(row: Any, depth: int) -> Iterator[Any]:
    """Yield what lies at the bottom of a wrapper."""
    if not isinstance(row, dict) or depth > _DEEPEST:
        return
    names = (*WRAPPERS, "scopeSpans", "scope_spans", "instrumentationLibrarySpans", "scopeLogs", "logRecords")
    for name in names:
        for one in row[name] if isinstance(row.get(name), list) else ():
            if name in ("spans", "logRecords", "data", "runs"):
                deeper = list(_inner(one, depth + 1)) if isinstance(one, dict) and "spans" in one else []
                yield from deeper or [one]
            else:
                yield from _inner(one, depth + 1)


def is_span(row: Mapping[str, Any]) -> bool:
    """Tell whether a row is a span."""
    return any(name in row for name in _ATTRIBUTES) or any(name in row for name in (_INPUT, "gen_ai.prompt.0.content"))


def span(row: Mapping[str, Any], place: str) -> Row:
    """Return a span as a row with messages, and what it says of its answer."""
    told = _attributes(row)
    operation = str(told.get("gen_ai.operation.name") or told.get("llm.request.type") or "").lower()
    kind = str(told.get("openinference.span.kind") or "LLM").upper()
    if operation not in _CALLS_OF_AN_LLM or kind != "LLM":
        raise SetAside(place, f"a span that is no call of an LLM ({(operation or kind.lower())[:_LONGEST]})")
    status = row.get("status") if isinstance(row.get("status"), dict) else {}
    code = str((status or {}).get("code") or row.get("StatusCode") or row.get("status_code") or "").upper()
    if code in ("2", "ERROR", "STATUS_CODE_ERROR") or told.get("error.type"):
        raise SetAside(place, "the log says that the call failed (status)")
    asked, answered = _messages(told)
    if not asked or not answered:
        some = any(str(name).startswith(("gen_ai.", "llm.")) for name in told)
        raise SetAside(place, "a span without the messages" if some else "a span that is no call of an LLM")
    return {**_about(told), "messages": [*asked, answered], "tools": told.get("gen_ai.tool.definitions")}


def _about(told: Row) -> Row:
    reasons = value_of(told.get("gen_ai.response.finish_reasons"))
    first = reasons[0] if isinstance(reasons, list) and reasons else reasons
    return {} if is_null(first) else {"finish_reason": first}


def _attributes(row: Mapping[str, Any]) -> Row:
    """Return all attributes of a span by their full names, those of its events too."""
    told: Row = {name: value for name, value in row.items() if str(name).startswith(("gen_ai.", "llm."))}
    for name in _ATTRIBUTES:
        told |= _flat(value_of(row.get(name)))
    events = value_of(row.get("events"))
    numbers = {"prompt": 0, "completion": 0}
    for event in events if isinstance(events, list) else ():
        if not isinstance(event, dict):
            continue
        name, inner = str(event.get("name")), _flat(value_of(event.get("attributes")))
        if name in _WITH_CONTENT:
            told |= inner
        elif found := re.fullmatch(r"gen_ai\.(system|user|assistant|tool)\.message|gen_ai\.choice", name):
            _add_event(told, inner, found[1], numbers)
    return told


def _add_event(told: Row, inner: Row, role: str | None, numbers: dict[str, int]) -> None:
    """Add the message of an event as if it were an attribute with a number."""
    side = "prompt" if role else "completion"
    begin = f"gen_ai.{side}.{numbers[side]}"
    numbers[side] += 1
    message = value_of(inner.get("message"))
    inner = {**inner, **message} if isinstance(message, dict) else inner
    told[f"{begin}.role"] = inner.get("role") or role or "assistant"
    for name in ("content", "tool_calls", "tool_call_id", "finish_reason"):
        if name in inner:
            told[f"{begin}.{name}"] = inner[name]
    if "id" in inner and role == "tool":
        told[f"{begin}.tool_call_id"] = inner["id"]


def _flat(told: Any) -> Row:
    """Return attributes as one object of full names."""
    if isinstance(told, list):
        pairs = [(one.get("key"), _value(one.get("value"))) if isinstance(one, dict) else one for one in told]
        return {str(one[0]): one[1] for one in pairs if isinstance(one, tuple) and len(one) == 2}
    if not isinstance(told, dict):
        return {}
    found: Row = {}
    for name, value in told.items():
        if name in ("gen_ai", "llm", "error", "openinference"):
            found |= _deeper(str(name), value)
        else:
            found[str(name)] = value
    return found


def _deeper(begin: str, value: Any) -> Row:
    """Return an object within attributes by full names; lists of messages stay what they are."""
    if not isinstance(value, dict):
        return {begin: value}
    found: Row = {}
    for name, inner in value.items():
        found |= _deeper(f"{begin}.{name}", inner)
    return found


def _value(value: Any) -> Any:
    """Return what OTLP wraps a value in."""
    if not isinstance(value, dict):
        return value
    for name in _VALUES:
        if name in value:
            return value[name]
    many = value.get("arrayValue") or value.get("array_value")
    if isinstance(many, dict):
        return [_value(one) for one in many.get("values") or ()]
    pairs = value.get("kvlistValue") or value.get("kvlist_value")
    if isinstance(pairs, dict):
        return {one.get("key"): _value(one.get("value")) for one in pairs.get("values") or () if isinstance(one, dict)}
    return value


def _messages(told: Row) -> tuple[list[Any], Any]:
    """Return the turns that were asked with, and the first answer."""
    asked, answered = value_of(told.get(_INPUT)), value_of(told.get(_OUTPUT))
    if asked is None or answered is None:
        for before, after in _INDEXED:
            if any(str(name).startswith(f"{before}.0.") for name in told):
                asked, answered = asked or _numbered(told, before), answered or _numbered(told, after)
                break
        else:
            asked = asked or value_of(told.get("gen_ai.prompt") or told.get("input.value"))
            answered = answered or value_of(told.get("gen_ai.completion") or told.get("output.value"))
    if isinstance(asked, dict):
        asked = asked.get("messages")
    asked = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    answered = answered[0] if isinstance(answered, list) and answered else answered
    answered = {"content": answered} if isinstance(answered, str) else answered
    if not isinstance(asked, list) or not isinstance(answered, dict):
        return [], None
    system = value_of(told.get(_SYSTEM))
    system = [{"role": "system", "content": system}] if isinstance(system, str | list) and system else []
    reason = {"finish_reason": answered["finish_reason"]} if answered.get("finish_reason") else {}
    return [*system, *map(_turn, asked)], {**_turn(answered), "role": "assistant", **reason}


def _turn(turn: Any) -> Any:
    """Return a message with its parts as content."""
    if not isinstance(turn, dict):
        return turn
    made = {name: value for name, value in turn.items() if name != "parts"}
    if isinstance(turn.get("parts"), list):
        made["content"] = turn["parts"]
    if isinstance(made.get("content"), str) and made["content"].startswith(
        '[{"type"'
    ):  # parts, as OpenLLMetry has them
        made["content"] = value_of(made["content"])
    roles = {"model": "assistant", "human": "user", "ai": "assistant"}
    return made | {"role": roles.get(str(turn.get("role")), turn.get("role"))}


def _numbered(told: Row, begin: str) -> list[Any]:
    """Return the messages of attributes such as `gen_ai.prompt.0.content`."""
    found: dict[int, Row] = {}
    pattern = re.compile(rf"{re.escape(begin)}\.(\d+)\.(?:message\.)?(.+)")
    for name, value in told.items():
        if match := pattern.fullmatch(str(name)):
            turn = found.setdefault(int(match[1]), {})
            call = re.fullmatch(r"tool_calls\.(\d+)\.(?:tool_call\.)?(?:function\.)?(.+)", match[2])
            if call:
                turn.setdefault("calls", {}).setdefault(int(call[1]), {})[call[2]] = value
            else:
                turn[match[2]] = value_of(value) if match[2] == "tool_calls" else value
    turns = []
    for number in sorted(found):
        turn = found[number]
        calls = turn.pop("calls", None)
        if calls:
            turn["tool_calls"] = [calls[at] for at in sorted(calls)]
            turn.setdefault("content", None)
        turns.append({"role": "user" if begin.endswith(("prompt", "prompts")) else "assistant"} | turn)
    return turns
