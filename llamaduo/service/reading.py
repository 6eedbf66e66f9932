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

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from llamaduo.service.parts import at, has_part, refusal_among, text_and_thoughts, without_thoughts
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
        return read_body("openai", at(tree, "response", "body"))
    return _dumped(tree)


def read_body(form: str, body: Any) -> Said:
    """Return what a server's body says; `form` is openai, anthropic or gemini."""
    said = _READERS[form](body if isinstance(body, Mapping) else {})
    text, aside = without_thoughts(said.text)
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
    choice = at(choices if isinstance(choices, list) else [choices], 0)
    tokens, model = billed(body.get("usage")), body.get("model", "")
    if not isinstance(choice, Mapping):
        return Said("", NO_CHOICES, *tokens, model, "")
    message = choice.get("message", choice.get("delta"))
    content = message.get("content") if isinstance(message, Mapping) else message
    content = choice.get("text") if message is None else content
    text, thoughts = text_and_thoughts(content)
    shown = ("reasoning_content", "reasoning", "thinking")
    told = next((found for name in shown if isinstance(found := at(message, name), str) and found), "")
    reason = _reason("openai", choice.get("finish_reason"))
    if reason == "stop" and isinstance(choice.get("native_finish_reason"), str):
        reason = _reason("openai", choice["native_finish_reason"])
    refusal = at(message, "refusal") or refusal_among(content)
    thought = at(message, "reasoning_details") or at(body, "usage", "completion_tokens_details", "reasoning_tokens")
    if reason == "stop" and (at(message, "tool_calls") or at(message, "function_call")):
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
    cached = sum(_count(at(usage, f"cache_{what}_input_tokens")) for what in ("creation", "read"))
    prompt, reply = billed(usage)
    text, thoughts = text_and_thoughts(body.get("content"))
    reason = _reason("anthropic", body.get("stop_reason"))
    if reason == "stop" and has_part(body.get("content"), "tool_use"):
        reason = "tool_calls"
    elif reason == "stop" and body.get("content") is None:
        reason = NO_CONTENT
    return Said(text, reason, prompt + cached, reply, body.get("model", ""), thoughts)


def _gemini(body: Mapping[str, Any]) -> Said:
    usage, candidate = body.get("usageMetadata"), at(body, "candidates", 0)
    prompt = sum(_count(at(usage, name)) for name in ("promptTokenCount", "toolUsePromptTokenCount"))
    thought_tokens = _count(at(usage, "thoughtsTokenCount"))
    tokens = prompt, _count(at(usage, "candidatesTokenCount")) + thought_tokens
    model = body.get("modelVersion", "")
    if not isinstance(candidate, Mapping):
        blocked = at(body, "promptFeedback", "blockReason")
        return Said("", "content_filter" if blocked else NO_CHOICES, *tokens, model, "")
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, Mapping) else content
    text, thoughts = text_and_thoughts(parts)
    reason = _reason("gemini", candidate.get("finishReason"))
    if reason == "stop" and has_part(parts, "functionCall"):
        reason = "tool_calls"
    elif reason in ("stop", "length") and not text.strip() and (thought_tokens or not parts):
        reason = NO_CONTENT
    return Said(text, reason, *tokens, model, thoughts)


def _bedrock(body: Mapping[str, Any]) -> Said:
    usage, content = body.get("usage"), at(body, "output", "message", "content")
    prompt = sum(_count(at(usage, f"{name}InputTokens")) for name in ("cacheRead", "cacheWrite"))
    tokens = prompt + _count(at(usage, "inputTokens")), _count(at(usage, "outputTokens"))
    text, thoughts = text_and_thoughts(content)
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
    choice = at(dump, "choices", 0)
    tokens = billed(at(dump, "usage"))
    if not isinstance(choice, Mapping):
        return _storable("", NO_CHOICES, tokens, "", "")
    text, thoughts = text_and_thoughts(at(choice, "message", "content"))
    told = at(choice, "message", "reasoning_content")
    reason = choice.get("finish_reason") or "unknown"
    if reason == "stop":
        native = at(choice, "provider_specific_fields", "native_finish_reason")
        refusal = at(choice, "message", "provider_specific_fields", "refusal")
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
    places = (body, at(body, "choices", 0), at(body, "results", 0), at(body, "generations", 0))
    told = [place[name] for place in places if isinstance(place, Mapping) for name in _ENDS if name in place]
    return replace(said, finish_reason=_reason("openai", told[0])) if told and said.finish_reason == "stop" else said
