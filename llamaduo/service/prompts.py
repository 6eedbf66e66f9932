"""The prompts that service LLMs get, as files beside this one, and how data enter them.

Text that a person or a model wrote goes in as data. The `blind` and `default` prompts fence it with a
mark that is derived from that very text and can't occur in it, so that no answer can close its own
fence and write a verdict. The `paper` prompts are the paper's, word for word, fences of three
back-quotes included: use them to reproduce, not to decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.resources import files
from string import Template
from typing import Any

from llamaduo.config import JudgePrompt
from llamaduo.errors import InputError
from llamaduo.service import rubric


def verdict_schema(criteria: Sequence[str] = ()) -> dict[str, Any]:
    """Return the JSON schema of a judge's reply: similarity, precision, and the criteria."""
    score = {
        "type": "object",
        "properties": {"reason": {"type": "string"}, "score": {"type": "number"}},
        "required": ["reason", "score"],
        "additionalProperties": False,
    }
    names = [*rubric.SCORES, *criteria]
    return {
        "type": "object",
        "properties": dict.fromkeys(names, score),
        "required": names,
        "additionalProperties": False,
    }


VERDICT_SCHEMA = verdict_schema()
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
"""JSON schema of the reply that the synthesis prompts of our own ask for."""

PICK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "best": {"type": "integer"}},
    "required": ["reason", "best"],
    "additionalProperties": False,
}
"""JSON schema of the reply that the prompt for picking an answer asks for."""


RESPONSE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"response": {"type": "string"}},
    "required": ["response"],
    "additionalProperties": False,
}
"""JSON schema of the reply that the `correct` prompt asks for."""


_TOPIC = "The topic is $topic. "
"""The sentence that names the topic in the synthesis prompts."""
_DESCRIPTION = "The task, as its owner describes it: $description "
_SENTENCE_ENDS = (".", "!", "?", ":", "…", "。", "\uff01", "\uff1f")
_REFERENCE = """An earlier answer that was accepted, for its form, style and length:

<<$mark reference
$reference
$mark>>

"""
"""The part of the `correct` prompt that shows a reference."""
_SHIPPED = frozenset(prompt.value for prompt in JudgePrompt)


@cache
def _template(name: str) -> str:
    return (files("llamaduo.service") / "templates" / f"{name}.txt").read_text(encoding="utf-8")


def template_hash(name: str) -> str:
    """Return the first 16 hex digits of the sha256 of a prompt's file, such as `judge_blind`."""
    return text_hash(_template(name))


def text_hash(template: str) -> str:
    """Return the first 16 hex digits of the sha256 of a prompt's text, its places open."""
    return hashlib.sha256(template.encode()).hexdigest()[:16]


def mark_of(*texts: str) -> str:
    """Return a mark of 16 hex digits that occurs in none of the texts; the same texts give the same mark."""
    digest = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).hexdigest()
    while any(digest[:16] in text for text in texts):
        digest = hashlib.sha256(digest.encode()).hexdigest()
    return digest[:16]


def judge_template(prompt: str, criteria: Sequence[str] = ()) -> str:
    """Return the text of a judge prompt, its places open: `blind`, `paper`, or the path of a rubric's file.

    It asks for the criteria too; the paper's has none. Raises InputError for a file that can't be read or used.
    """
    if prompt in _SHIPPED:
        text = _template(f"judge_{prompt}")
        return rubric.whole(text, criteria) if criteria else text
    return rubric.whole(_own(prompt, rubric.stamp(prompt)), criteria)


@lru_cache(maxsize=8)
def _own(path: str, _stamp: tuple[int, int]) -> str:
    """Return the text of a rubric's file; it is read again when its stamp has changed."""
    text = rubric.read(path)
    problems = rubric.faults(text)
    if problems:
        raise InputError(f"judge.prompt={path}: {problems[0]}.")
    return text


def judge_prompt(variant: str, *, instruction: str, reference: str, candidate: str, template: str | None = None) -> str:
    """Return the judge prompt of a variant for one answer; `template` is its text where that is at hand already."""
    mark = mark_of(instruction, reference, candidate)
    return Template(template or judge_template(variant)).substitute(
        mark=mark, instruction=instruction, reference=reference, candidate=candidate
    )


def synthesis_prompt(
    variant: str,
    *,
    instruction: str,
    response: str,
    topic: str | None,
    count: int,
    description: str | None = None,
) -> str:
    """Return the synthesis prompt of a variant (`default`, `paper`, `evolve`) for one seed pair.

    The task's description stands in the topic's place; without either it names none. The paper's prompt names no
    count: how many pairs come back is the model's choice.
    """
    mark, text = mark_of(instruction, response), _template(f"synthesis_{variant}")
    words = " ".join((description or "").split())
    if words:
        text = text.replace(_TOPIC, _DESCRIPTION)
    elif not topic:
        text = text.replace(_TOPIC, "")
    return Template(text).substitute(
        mark=mark,
        instruction=instruction,
        response=response,
        topic=topic,
        description=words if words.endswith(_SENTENCE_ENDS) else f"{words}.",
        count=count,
    )


def pick_prompt(instruction: str, answers: Sequence[str]) -> str:
    """Return the prompt that asks which of several answers is the best; they are numbered from 1."""
    mark = mark_of(instruction, *answers)
    fenced = [f"<<{mark} answer_{number}\n{text}\n{mark}>>" for number, text in enumerate(answers, 1)]
    return Template(_template("pick")).substitute(
        mark=mark, instruction=instruction, count=len(answers), answers="\n\n".join(fenced)
    )


def correction_prompt(*, instruction: str, candidate: str, reference: str | None = None) -> str:
    """Return the prompt that asks what should have been said instead of a failed answer, `candidate`.

    Without a reference it shows none. Its reply is read with `replies.read_response`.
    """
    mark, text = mark_of(instruction, candidate, reference or ""), _template("correct")
    if reference is None:
        text = text.replace(_REFERENCE, "")
    return Template(text).substitute(mark=mark, instruction=instruction, candidate=candidate, reference=reference)
