"""Parts: what of a reply's content is text and what is thought, in whichever format.

text_and_thoughts([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}])     ("yes", "hm")
without_thoughts("<think>hm</think>yes")                                                         ("yes", "<think>hm")
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def at(tree: Any, *path: str | int) -> Any:
    """Return what lies at a path of names and places, None where there is no such thing."""
    for step in path:
        if isinstance(step, int):
            tree = tree[step] if isinstance(tree, list) and len(tree) > step else None
        else:
            tree = tree.get(step) if isinstance(tree, Mapping) else None
    return tree


_PARTS = (
    "type", "text", "functionCall", "functionResponse", "inlineData", "fileData", "executableCode",
    "codeExecutionResult", "thoughtSignature", "toolUse", "image", "citationsContent",
)  # fmt: skip
"""Names by which a part is known, so that it isn't an object in a text's place."""


def text_and_thoughts(content: Any) -> tuple[str, str]:
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
        return text_and_thoughts(part)
    if not isinstance(part, Mapping):
        return (part or "", "") if isinstance(part, str | None) else (json.dumps(part), "")
    thought = part.get("thought") is True or "reasoningContent" in part
    if thought or part.get("type") in ("thinking", "reasoning", "redacted_thinking"):
        names = ("thinking", "text", "reasoning", "summary", "reasoningContent")
        shown = (part[name] for name in names if part.get(name))
        return "", _joined(next(shown, ""))
    if isinstance(part.get("text"), str):
        return part["text"], ""
    if part.get("type") == "text" and isinstance(at(part, "text", "value"), str):
        return part["text"]["value"], ""
    known = any(name in part for name in _PARTS)
    return "" if known or not part else json.dumps(part, ensure_ascii=False), ""


def has_part(content: Any, kind: str) -> bool:
    """Tell whether a content has a part of a type, which in Gemini's format is its name."""
    parts = content if isinstance(content, list) else [content]
    return any(isinstance(part, Mapping) and (kind in part or part.get("type") == kind) for part in parts)


def refusal_among(content: Any) -> Any:
    """Return the words of a refusal among the parts of a content."""
    parts = content if isinstance(content, list) else []
    return next((said for part in parts if (said := at(part, "refusal"))), None)


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


def without_thoughts(text: str) -> tuple[str, str]:
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
