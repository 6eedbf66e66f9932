"""Reading: what a raw reply of the journal says, by the format of whoever sent it.

    {"format": "openai", "status": 200, "headers": {...}, "body": "..."}    the body as the server sent it
    {"custom_id": ..., "response": {"status_code": 200, "body": {...}}}     a row of a batch's file
    {"choices": ...}                                 litellm's dump: of a program, or of an older journal

    read(raw).text               what was answered, without the thoughts before it
    read(raw).finish_reason      `stop` for what is known to be finished, and for nothing else

The formats are `openai` (and all that are compatible), `anthropic`, `gemini` and `bedrock` (Converse); `litellm` is
read from the dump that lies beside the body. Nothing is raised: a body that says nothing reads as nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llamaduo.service.received import parsed, received

MOST_TOKENS = 10**9
"""No count is taken for more: this is far beyond what any request allows."""

_LONGEST_VERSION = 40
NO_CONTENT = "no_content"
"""The finish reason of a reply that has thoughts alone, or nothing where its text should be."""
NO_CHOICES = "no_choices"
"""That of a reply which holds no message at all."""

_WORDS = {
    "openai": {
        "stop": ("stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete", "completed"),
        "length": ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"),
        "content_filter": (
            "content_filter",
            "safety",
            "recitation",
            "blocklist",
            "prohibited_content",
            "spii",
            "error_toxic",
        ),
        "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
        "refusal": ("refusal",),
    },
    "anthropic": {
        "stop": ("end_turn", "stop_sequence"),
        "length": ("max_tokens", "model_context_window_exceeded", "pause_turn"),
        "content_filter": ("refusal",),
        "tool_calls": ("tool_use",),
    },
    "gemini": {
        "stop": ("stop",),
        "length": ("max_tokens",),
        "content_filter": ("safety", "recitation", "blocklist", "prohibited_content", "spii", "language"),
        "tool_calls": ("malformed_function_call", "unexpected_tool_call"),
    },
    "bedrock": {
        "stop": ("end_turn", "stop_sequence"),
        "length": ("max_tokens", "model_context_window_exceeded"),
        "content_filter": ("guardrail_intervened", "content_filtered"),
        "tool_calls": ("tool_use",),
    },
}
"""What each format's words for the end of a reply are in OpenAI's; any other word stays as it is: not finished."""
_OURS = {name: {word: ours for ours, words in table.items() for word in words} for name, table in _WORDS.items()}


@dataclass(frozen=True)
class Said:
    """What a raw reply says."""

    text: str
    """What was answered, without thoughts; empty where there is nothing."""
    finish_reason: str
    """`stop`, `length`, `content_filter`, `tool_calls`, `no_choices`, `no_content`, `unknown`, or the sender's word."""
    prompt_tokens: int
    """Tokens sent, as billed; 0 where that is not told, or can't be."""
    completion_tokens: int
    """The same of the reply, thoughts included."""
    model: str
    """Which model says it answered; empty where no server told it."""
    thoughts: str
    """What was thought before the answer, where it is shown."""
    aside: str = field(default="", compare=False)
    """The part of it that stood in the text itself."""
    sender: str = field(default="", compare=False)
    """Which version of litellm made what was sent; empty where that was made here."""


def read(raw: str) -> Said:
    """Return what a raw reply of the journal says."""
    tree = parsed(raw)
    if not isinstance(tree, Mapping):
        return read_body("openai", None)
    if isinstance(tree.get("format"), str):
        body = received(str(tree.get("body")))
        if tree["format"] == "litellm":
            said = _by_its_word(_dumped(tree.get("dump")), body)
        elif tree["format"] in _READERS:
            said = read_body(tree["format"], body)
        else:  # a stranger's
            said = read_body("openai", None)
        return replace(said, sender=str(tree.get("sender", ""))[:_LONGEST_VERSION])
    if "custom_id" in tree:
        return read_body("openai", _at(tree, "response", "body"))
    return _dumped(tree)


def read_body(form: str, body: Any) -> Said:
    """Return what a server's body says; `form` is openai, anthropic or gemini."""
    said = _READERS[form](body if isinstance(body, Mapping) else {})
    text, aside = _without_thoughts(said.text)
    thoughts = "\n".join(part for part in (said.thoughts, aside) if part)
    reason = said.finish_reason
    if thoughts and not text.strip() and reason not in ("content_filter", "refusal", "tool_calls"):
        text, reason = "", NO_CONTENT
    made = _storable(text, reason, (said.prompt_tokens, said.completion_tokens), said.model, thoughts)
    return replace(made, aside=aside.encode("utf-8", "replace").decode())


def form_of(body: Any) -> str | None:
    """Return the format that a body has the shape of, None where it is no reply in any."""
    if not isinstance(body, Mapping):
        return None
    if "choices" in body:
        return "openai"
    if "candidates" in body or "promptFeedback" in body or "usageMetadata" in body:
        return "gemini"
    if body.get("type") == "message" or "stop_reason" in body or ("content" in body and "usage" in body):
        return "anthropic"
    if "stopReason" in body and "output" in body:
        return "bedrock"
    return "openai" if "usage" in body and "object" in body else None


def billed(usage: Any) -> tuple[int, int]:
    """Return how many tokens the prompt and the reply are billed at; 0 for what is no count."""
    if not isinstance(usage, Mapping):
        return 0, 0
    prompt, reply = (
        max(_count(usage.get(name)) for name in names)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    return prompt, reply


def _count(value: Any) -> int:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return math.ceil(min(value, MOST_TOKENS)) if number and value > 0 else 0


def _at(tree: Any, *path: str | int) -> Any:
    """Return what lies at a path of names and places, None where there is no such thing."""
    for step in path:
        if isinstance(step, int):
            tree = tree[step] if isinstance(tree, list) and len(tree) > step else None
        else:
            tree = tree.get(step) if isinstance(tree, Mapping) else None
    return tree


def _reason(form: str, word: Any) -> str:
    """Return OpenAI's word for the end of a reply; one that nobody knows stays, and none is `unknown`."""
    if not isinstance(word, str) or not word:
        return "unknown"
    return _OURS[form].get(word.lower(), word)


def _storable(text: str, reason: str, tokens: tuple[int, int], model: Any, thoughts: str) -> Said:
    """Return what is said, half a surrogate as `?`."""
    words = (text, reason, model if isinstance(model, str) else "", thoughts)
    text, reason, model, thoughts = (word.encode("utf-8", "replace").decode() for word in words)
    return Said(text, reason, *tokens, model, thoughts)


# ---------------------------------------------------------------- the formats


def _openai(body: Mapping[str, Any]) -> Said:
    choices = body.get("choices")
    choice = _at(choices if isinstance(choices, list) else [choices], 0)
    tokens, model = billed(body.get("usage")), body.get("model", "")
    if not isinstance(choice, Mapping):
        return Said("", NO_CHOICES, *tokens, model, "")
    message = choice.get("message", choice.get("delta"))
    content = message.get("content") if isinstance(message, Mapping) else message
    content = choice.get("text") if message is None else content
    text, thoughts = _parts(content)
    shown = ("reasoning_content", "reasoning", "thinking")
    told = next((found for name in shown if isinstance(found := _at(message, name), str) and found), "")
    reason = _reason("openai", choice.get("finish_reason"))
    if reason == "stop" and isinstance(choice.get("native_finish_reason"), str):
        reason = _reason("openai", choice["native_finish_reason"])
    refusal = _at(message, "refusal") or _refusal_part(content)
    thought = _at(message, "reasoning_details") or _at(body, "usage", "completion_tokens_details", "reasoning_tokens")
    if reason == "stop" and (_at(message, "tool_calls") or _at(message, "function_call")):
        reason = "tool_calls"
    elif reason == "stop" and not text and choice.get("error"):
        reason = "error"
    elif refusal and not text and reason == "stop":
        text, reason = str(refusal), "refusal"
    elif reason in ("stop", "length") and not text.strip() and (content is None or thought):
        reason = NO_CONTENT
    return Said(text, reason, *tokens, model, told + thoughts)


def _anthropic(body: Mapping[str, Any]) -> Said:
    usage = body.get("usage")
    cached = sum(_count(_at(usage, f"cache_{what}_input_tokens")) for what in ("creation", "read"))
    prompt, reply = billed(usage)
    text, thoughts = _parts(body.get("content"))
    reason = _reason("anthropic", body.get("stop_reason"))
    if reason == "stop" and _has_part(body.get("content"), "tool_use"):
        reason = "tool_calls"
    elif reason == "stop" and body.get("content") is None:
        reason = NO_CONTENT
    return Said(text, reason, prompt + cached, reply, body.get("model", ""), thoughts)


def _gemini(body: Mapping[str, Any]) -> Said:
    usage, candidate = body.get("usageMetadata"), _at(body, "candidates", 0)
    prompt = sum(_count(_at(usage, name)) for name in ("promptTokenCount", "toolUsePromptTokenCount"))
    thought_tokens = _count(_at(usage, "thoughtsTokenCount"))
    tokens = prompt, _count(_at(usage, "candidatesTokenCount")) + thought_tokens
    model = body.get("modelVersion", "")
    if not isinstance(candidate, Mapping):
        blocked = _at(body, "promptFeedback", "blockReason")
        return Said("", "content_filter" if blocked else NO_CHOICES, *tokens, model, "")
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else content
    text, thoughts = _parts(parts)
    reason = _reason("gemini", candidate.get("finishReason"))
    if reason == "stop" and _has_part(parts, "functionCall"):
        reason = "tool_calls"
    elif reason in ("stop", "length") and not text.strip() and (thought_tokens or not parts):
        reason = NO_CONTENT
    return Said(text, reason, *tokens, model, thoughts)


def _bedrock(body: Mapping[str, Any]) -> Said:
    usage, content = body.get("usage"), _at(body, "output", "message", "content")
    prompt = sum(_count(_at(usage, f"{name}InputTokens")) for name in ("cacheRead", "cacheWrite"))
    tokens = prompt + _count(_at(usage, "inputTokens")), _count(_at(usage, "outputTokens"))
    text, thoughts = _parts(content)
    reason = _reason("bedrock", body.get("stopReason"))
    return Said(text, NO_CONTENT if reason == "stop" and not content else reason, *tokens, "", thoughts)


_READERS: dict[str, Callable[[Mapping[str, Any]], Said]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "bedrock": _bedrock,
}


def _dumped(dump: Any) -> Said:
    """Return what litellm's dump says, text as it came: litellm says `stop` for every reason that it doesn't know."""
    choice = _at(dump, "choices", 0)
    tokens = billed(_at(dump, "usage"))
    if not isinstance(choice, Mapping):
        return _storable("", NO_CHOICES, tokens, "", "")
    text, thoughts = _parts(_at(choice, "message", "content"))
    told = _at(choice, "message", "reasoning_content")
    reason = choice.get("finish_reason") or "unknown"
    if reason == "stop":
        native = _at(choice, "provider_specific_fields", "native_finish_reason")
        refusal = _at(choice, "message", "provider_specific_fields", "refusal")
        if isinstance(native, str) and _reason("openai", native) != "stop":
            reason = native
        elif refusal and not text:
            text, reason = str(refusal), "refusal"
        elif told and not text.strip():
            reason = NO_CONTENT
    return _storable(text, str(reason), tokens, "", (told if isinstance(told, str) else "") + thoughts)


_ENDS = ("finish_reason", "stop_reason", "done_reason", "stopReason", "finishReason")
"""What formats call the word for a reply's end."""


def _by_its_word(said: Said, body: Any) -> Said:
    """Return what litellm's dump says, with the sender's own word for its end where litellm calls it `stop`."""
    places = (body, _at(body, "choices", 0), _at(body, "results", 0), _at(body, "generations", 0))
    told = [place[name] for place in places if isinstance(place, Mapping) for name in _ENDS if name in place]
    return replace(said, finish_reason=_reason("openai", told[0])) if told and said.finish_reason == "stop" else said


# ---------------------------------------------------------------- text and thoughts


_PARTS = (
    "type", "text", "functionCall", "functionResponse", "inlineData", "fileData", "executableCode",
    "codeExecutionResult", "thoughtSignature", "toolUse", "image", "citationsContent",
)  # fmt: skip
"""Names by which a part is known, so that it isn't an object in a text's place."""


def _parts(content: Any) -> tuple[str, str]:
    """Return text and thoughts of a content: a string, parts, one part, or an object in a text's place (as JSON)."""
    if content is None or isinstance(content, str):
        return content or "", ""
    if not isinstance(content, list):
        content = [content]
    text, thoughts = "", ""
    for part in content:
        found, thought = _part(part)
        text, thoughts = text + found, thoughts + thought
    return text, thoughts


def _part(part: Any) -> tuple[str, str]:
    if isinstance(part, list):
        return _parts(part)
    if not isinstance(part, Mapping):
        return (part or "", "") if isinstance(part, str | None) else (json.dumps(part), "")
    thought = part.get("thought") is True or "reasoningContent" in part
    if thought or part.get("type") in ("thinking", "reasoning", "redacted_thinking"):
        names = ("thinking", "text", "reasoning", "summary", "reasoningContent")
        shown = (part[name] for name in names if part.get(name))
        return "", _joined(next(shown, ""))
    if isinstance(part.get("text"), str):
        return part["text"], ""
    if part.get("type") == "text" and isinstance(_at(part, "text", "value"), str):
        return part["text"]["value"], ""
    known = any(name in part for name in _PARTS)
    return "" if known or not part else json.dumps(part, ensure_ascii=False), ""


def _has_part(content: Any, kind: str) -> bool:
    """Tell whether a content has a part of a type, which in Gemini's format is its name."""
    parts = content if isinstance(content, list) else [content]
    return any(isinstance(part, Mapping) and (kind in part or part.get("type") == kind) for part in parts)


def _refusal_part(content: Any) -> Any:
    """Return the words of a refusal among the parts of a content."""
    parts = content if isinstance(content, list) else []
    return next((said for part in parts if (said := _at(part, "refusal"))), None)


def _joined(content: Any) -> str:
    """Return the text of a thought, which may have parts of its own."""
    if isinstance(content, list):
        return "".join(map(_joined, content))
    if isinstance(content, Mapping):
        return str(content.get("text") or _joined(content.get("reasoningText")))
    return str(content or "")


_TAG = r"think|thinking|thought|thoughts|reasoning"
_OPENED = re.compile(rf"\s*(?:<({_TAG})>|\[(THINK)\])", re.IGNORECASE)
_CLOSED = re.compile(rf"(?:\A|\n)[ \t]*</({_TAG})>|</({_TAG})>[ \t]*(?:\n|\Z)", re.IGNORECASE)


def _without_thoughts(text: str) -> tuple[str, str]:
    """Return a text without the block of thoughts before it, and that block.

    One that is never closed is all thoughts. Where the opening mark was part of the prompt, a closing one that ends or
    begins a line closes the block.
    """
    if text.lstrip().startswith("<|channel|>"):
        thoughts, final, answer = text.rpartition("<|channel|>final<|message|>")
        return (answer.removesuffix("<|return|>").removesuffix("<|end|>"), thoughts) if final else ("", text)
    opened = _OPENED.match(text)
    if opened:
        end = f"</{opened[1]}>" if opened[1] else "[/THINK]"
        at = text.lower().find(end.lower(), opened.end())
        return (text[at + len(end) :].lstrip(), text[:at]) if at >= 0 else ("", text)
    closed = _CLOSED.search(text)
    if closed and not re.search(rf"<({_TAG})>", text[: closed.start()], re.IGNORECASE):
        return text[closed.end() :].lstrip(), text[: closed.start()]
    return text, ""
