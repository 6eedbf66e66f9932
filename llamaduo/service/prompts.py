"""The prompts that service LLMs get, as files beside this one, and how data enter them.

Text that a person or a model wrote goes in as data. The `blind` and `default` prompts fence it with a
mark that is derived from that very text and can't occur in it, so that no answer can close its own
fence and write a verdict. The `paper` prompts are the paper's, word for word, fences of three
back-quotes included: use them to reproduce, not to decide.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any

VERDICT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        score: {
            "type": "object",
            "properties": {"reason": {"type": "string"}, "score": {"type": "number"}},
            "required": ["reason", "score"],
            "additionalProperties": False,
        }
        for score in ("similarity", "precision")
    },
    "required": ["similarity", "precision"],
    "additionalProperties": False,
}
"""JSON schema of the reply that the `blind` judge prompt asks for."""

PAIRS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "contents": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"instruction": {"type": "string"}, "response": {"type": "string"}},
                "required": ["instruction", "response"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["contents"],
    "additionalProperties": False,
}
"""JSON schema of the reply that the `default` synthesis prompt asks for."""


@cache
def _template(name: str) -> str:
    return (files("llamaduo.service") / "templates" / f"{name}.txt").read_text(encoding="utf-8")


def template_hash(name: str) -> str:
    """Return the first 16 hex digits of the sha256 of a prompt's file, such as `judge_blind`."""
    return hashlib.sha256(_template(name).encode()).hexdigest()[:16]


def _mark(*texts: str) -> str:
    """Return a mark of 16 hex digits that occurs in none of the texts; the same texts give the same mark."""
    digest = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()
    while any(digest[:16] in text for text in texts):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return digest[:16]


def judge_prompt(variant: str, *, instruction: str, reference: str, candidate: str) -> str:
    """Return the judge prompt of a variant (`blind` or `paper`) for one answer."""
    mark = _mark(instruction, reference, candidate)
    return Template(_template(f"judge_{variant}")).substitute(
        mark=mark, instruction=instruction, reference=reference, candidate=candidate
    )


def synthesis_prompt(variant: str, *, instruction: str, response: str, topic: str, count: int) -> str:
    """Return the synthesis prompt of a variant (`default` or `paper`) for one seed pair.

    The paper's prompt names no count: how many pairs come back is the model's choice.
    """
    mark = _mark(instruction, response)
    return Template(_template(f"synthesis_{variant}")).substitute(
        mark=mark, instruction=instruction, response=response, topic=topic, count=count
    )
