"""Rows of trainers and of tracing tools, as turns: ShareGPT, Alpaca, Langfuse and LangSmith.

    {"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}], "system": "..."}
    {"instruction": "...", "input": "...", "output": "..."}
    {"type": "GENERATION", "traceId": "...", "input": [{"role": "user", ...}], "output": {"role": "assistant", ...}}
    {"run_type": "llm", "inputs": {"messages": [[{"lc": 1, "kwargs": {...}}]]}, "outputs": {"generations": [[{...}]]}}

Each function returns what `logs` reads, a row with `request` and `response`, or with `messages` and the `tools` that
were offered. Objects may be JSON text, as in tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamaduo.data.heeded import is_null
from llamaduo.data.texts import whole
from llamaduo.data.unusable import SetAside, UnusableError

Row = dict[str, Any]

_ROLES = {
    **dict.fromkeys(("human", "user", "prompter", "HumanMessage", "HumanMessageChunk"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "assistant", "ai"), "assistant"),
    **dict.fromkeys(("AIMessage", "AIMessageChunk"), "assistant"),
    **dict.fromkeys(("system", "SystemMessage"), "system"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    **dict.fromkeys(("ToolMessage", "FunctionMessage"), "tool"),
    "developer": "developer",
}  # fmt: skip
_LONGEST = 40


def value_of(value: Any) -> Any:
    """Return what a field holds: of JSON text of an object or a list, that."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        found = whole(value)
        return value if found is None else found
    return value


def share_gpt(row: Mapping[str, Any], place: str) -> Row:
    """Return a ShareGPT row as messages."""
    told = value_of(row["conversations"])
    if not isinstance(told, list):
        raise UnusableError(place, "`conversations` must be a list of turns")
    turns: list[Any] = []
    for turn in told:
        if not isinstance(turn, dict):
            turns.append(turn)
            continue
        who, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if who in ("function_call", "tool_call"):
            calls = value_of(text)
            turns.append(
                {"role": "assistant", "content": None, "tool_calls": calls if isinstance(calls, list) else [calls]}
            )
        else:
            turns.append({"role": _ROLES.get(who, who) if isinstance(who, str) else who, "content": text})
    system = row.get("system")
    if isinstance(system, str) and system:
        turns.insert(0, {"role": "system", "content": system})
    return {"messages": turns, "tools": row.get("tools")}


def alpaca(row: Mapping[str, Any], place: str) -> Row:
    """Return an Alpaca row as messages: instruction and input are one prompt, with an empty line between them."""
    parts = [row["instruction"], row.get("input")]
    texts = [part for part in parts if not (part is None or part == "")]
    if not all(isinstance(text, str) for text in [*texts, row["output"]]):
        raise UnusableError(place, "`instruction`, `input` and `output` must be text")
    turns: list[Any] = []
    if isinstance(row.get("system"), str) and row["system"]:
        turns.append({"role": "system", "content": row["system"]})
    for pair in value_of(row.get("history")) or ():
        if not (isinstance(pair, list | tuple) and len(pair) == 2):
            raise UnusableError(place, "`history` must be pairs of texts")
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    prompt = "\n\n".join(texts)
    return {"messages": [*turns, {"role": "user", "content": prompt}, {"role": "assistant", "content": row["output"]}]}


def _answered(asked: Any, told: Any, about: Row) -> Row:
    """Return what was asked and what came, in whichever of their many forms, as a row that is read further."""
    if (
        isinstance(asked, dict)
        and isinstance(asked.get("input"), list)
        and "messages" not in asked
        and "output" not in (told if isinstance(told, dict) else {})
    ):
        asked = {**asked, "messages": asked["input"]}
    request = asked if isinstance(asked, dict) else {"messages": asked}
    if isinstance(asked, str):
        request = {"messages": [{"role": "user", "content": asked}]}
    if "messages" not in request and "contents" not in request and "input" not in request:
        prompt = next(
            (request[name] for name in ("prompt", "question", "query", "text") if isinstance(request.get(name), str)),
            None,
        )
        if prompt is not None and not (isinstance(told, dict) and "choices" in told):
            request = {**request, "messages": [{"role": "user", "content": prompt}]}
    if isinstance(told, list) and told and isinstance(told[-1], dict):
        told = told[-1]
    if isinstance(told, dict) and not {"choices", "candidates", "output", "content"} & told.keys():
        inner = next(
            (
                told[name]
                for name in ("message", "messages", "completion", "response", "answer", "text")
                if told.get(name)
            ),
            None,
        )
        told = inner[-1] if isinstance(inner, list) and inner else told if inner is None else inner
    if isinstance(told, dict) and isinstance(told.get("output"), dict | str):
        told = told["output"]
    if isinstance(told, str):
        told = {"role": "assistant", "content": told}
    if isinstance(told, dict) and not is_null(told.get("tool_calls")) and "content" not in told:
        told = {**told, "content": None}
    return {**about, "request": request, "response": told}


_OBSERVED = {"traceId", "trace_id", "observation_type", "statusMessage", "completionStartTime"}
_OBSERVATIONS = {
    "GENERATION",
    "SPAN",
    "EVENT",
    "AGENT",
    "TOOL",
    "CHAIN",
    "RETRIEVER",
    "EVALUATOR",
    "EMBEDDING",
    "GUARDRAIL",
}


def is_observation(row: Mapping[str, Any]) -> bool:
    """Tell an observation of Langfuse's from any other row with `input` and `output`."""
    return not _OBSERVED.isdisjoint(row) or str(row.get("type")).upper() in _OBSERVATIONS


def langfuse(row: Mapping[str, Any], place: str) -> Row:
    """Return an observation of Langfuse's as a log, in the names of its API or of its exports."""
    kind = row.get("type") or row.get("observation_type") or "GENERATION"
    if str(kind).upper() != "GENERATION":
        raise SetAside(place, f"an observation that is no call of an LLM ({str(kind)[:_LONGEST]})")
    told = value_of(row.get("output"))
    about = {name: value for name, value in row.items() if name not in ("input", "output")}
    if is_null(row.get("input")) or is_null(told):
        raise SetAside(place, "the log holds no request" if is_null(row.get("input")) else "the log holds no response")
    return _answered(value_of(row["input"]), told, about)


def langsmith(row: Mapping[str, Any], place: str) -> Row:
    """Return a run of LangSmith's as a log; LangChain's own messages become OpenAI's."""
    kind = row.get("run_type") or "llm"
    if kind != "llm":
        raise SetAside(place, f"a run that is no call of an LLM ({str(kind)[:_LONGEST]})")
    asked, told, extra = (value_of(row.get(name)) for name in ("inputs", "outputs", "extra"))
    about = {name: value for name, value in row.items() if name not in ("inputs", "outputs", "extra")}
    if not isinstance(asked, dict) or is_null(told):
        raise SetAside(place, "the log holds no response" if isinstance(asked, dict) else "the log holds no request")
    turns = asked.get("messages") or asked.get("prompts")
    if isinstance(turns, list):
        turns = turns[0] if turns and isinstance(turns[0], list) else turns
        if all(isinstance(turn, str) for turn in turns):
            turns = [{"role": "user", "content": turn} for turn in turns[:1]]
        asked = {**asked, "messages": [langchain_turn(turn) for turn in turns]}
    given = extra.get("invocation_params") if isinstance(extra, dict) else None
    if isinstance(given, dict) and not asked.get("tools") and given.get("tools"):
        asked = {**asked, "tools": given["tools"]}
    return _answered(asked, _generation(told), about)


def _generation(told: Any) -> Any:
    """Return the answer of a run: of several generations the first."""
    if not isinstance(told, dict):
        return told
    if isinstance(told.get("generations"), list) and told["generations"]:
        first = told["generations"][0]
        first = first[0] if isinstance(first, list) and first else first
        if not isinstance(first, dict):
            return first
        message = langchain_turn(first.get("message")) if first.get("message") else {"content": first.get("text")}
        if not isinstance(message, dict):
            return message
        about = first.get("generation_info") or message.get("response_metadata") or {}
        reason = {
            name: about[name]
            for name in ("finish_reason", "stop_reason")
            if isinstance(about, dict) and about.get(name)
        }
        return {
            "choices": [
                {
                    "message": {"role": "assistant", **message},
                    **({"finish_reason": next(iter(reason.values()))} if reason else {}),
                }
            ]
        }
    return {name: _turn_or(value) for name, value in told.items()} if "choices" not in told else told


def _turn_or(value: Any) -> Any:
    if isinstance(value, list):
        return [langchain_turn(one) for one in value]
    return langchain_turn(value)


def langchain_turn(turn: Any) -> Any:
    """Return a message of LangChain's, in any of its three forms, as one of OpenAI's; others stay as they are."""
    if not isinstance(turn, dict) or "role" in turn:
        return turn
    inner = turn.get("kwargs") if isinstance(turn.get("kwargs"), dict) else turn.get("data")
    names = turn.get("id")
    who = names[-1] if "kwargs" in turn and isinstance(names, list) and names else turn.get("type")
    role = _ROLES.get(who) if isinstance(who, str) else None
    told = inner if isinstance(inner, dict) else turn
    if role is None or "content" not in told:
        return turn
    more = told.get("additional_kwargs") if isinstance(told.get("additional_kwargs"), dict) else {}
    calls = told.get("tool_calls") or (more or {}).get("tool_calls")
    made = {"role": role, "content": told["content"]}
    if calls:
        made["tool_calls"] = calls
        if isinstance(made["content"], list):  # the same calls are among its parts
            made["content"] = [
                part for part in made["content"] if not (isinstance(part, dict) and part.get("type") == "tool_use")
            ]
    return made | {name: told[name] for name in ("tool_call_id", "name", "response_metadata") if told.get(name)}
