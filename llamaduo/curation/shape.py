"""Shape: rows whose form tells that something went wrong when they were written.

    prompt or response empty            a response without a letter or a digit
    response too short or too long      beside the coverage rows' responses, by `curation.length_factor`
    response repeats the prompt         all of it, or begins with it
    a code fence that isn't closed      by Markdown's rule
    a mark of a prompt's form           "$instruction", "Instruction:", "[Your name]", "<|im_end|>", "### Response:"
    broken JSON                         cut, or with members of the reply that it came in: '"}, {"instruction": "'
    a loop                              the same few words six times and more in a row (`loops.py`)

Whatever more than `curation.usual` of the coverage rows have is right here and no fault; nor is a mark that the prompt
itself has, outside of which it would be nothing to answer with. Marks, escapes and loops within code are content.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.fences import fenced
from llamaduo.curation.filters import Filter, Found, Known, Reason, usual
from llamaduo.curation.loops import loops
from llamaduo.data.alike import words
from llamaduo.records import Example

_FACTOR = 4.0
_ROWS = 8
"""Coverage rows from which they tell how long a response is, and whether it is JSON."""
_NEARLY_ALL = 0.95
_ECHO = 4
"""Words from which a prompt at the response's beginning is a repetition."""
_ESCAPES = 3
_ASCII = 127

_MARKS = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|end_of_text|begin_of_text|start_header_id|end|user|assistant|system)\|>"
    r"|\A<s>|</s>\s*\Z|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>"
    r"|^#{2,4} ?(?:Instruction|Response|Input):?[ \t]*$"
    r"|^<<\w* ?(?:instruction|response|candidate|reference)\b|^[0-9a-f]{16}>>"
    r"|\[(?:your|insert|recipient(?:'s)?|sender(?:'s)?|company|customer(?:'s)?)(?: [\w'/-]+){1,4}\]"
    r"|\{\{ ?(?:instruction|response) ?\}\}|\{instruction\}"
    r"|^[ \t]*\$\{?(?:instruction|response|topic|count|mark)\}?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
_PLACEHOLDER = re.compile(r"(?<![\w$\"'(\[{=,.>])\$\{?(?:instruction|response|topic)\}?(?![\w\"')\]}=;,]|->| *[=;\[])")
"""One of our prompts' places within a sentence; not a variable of a shell or of PHP."""
_ASSIGNED = re.compile(r"\b(?:instruction|response|topic)\s*=")
_HEADING = re.compile(r"[\s*_#>]*(?:example |new )?(?:instruction|response|pair)(?: ?#?\d+)?[*_ ]*:", re.IGNORECASE)
_REPLY = re.compile(
    r"[\"']\s*\}?\s*,\s*\{?\s*[\"'](?:instruction|response)[\"']\s*:|\A\s*[\"'](?:instruction|response)[\"']\s*:"
    r"|\A\s*[\[{][\s{\[]*\"(?:instruction|contents)\"\s*:"
)
_TAIL = re.compile(r"[^\s\"{}\[\]]\"\s*\}\s*(?:\]\s*\}?|,\s*\{?)?\s*\Z")
_ESCAPED = re.compile(r"[^\W\d_]\\u00[0-9a-f]{2}|\\u[0-9a-f]{4}\\u[0-9a-f]{4}", re.IGNORECASE)


class Shape(Filter):
    """Removes what is malformed."""

    name: ClassVar = CurationFilter.shape
    reason: ClassVar = Reason(
        "shape", "of the wrong shape", "of the wrong shape", "Wrong shape", "of the wrong shape",
        "set curation.length_factor or curation.usual higher",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        self._shortest, self._longest = _lengths(rows, config.length_factor or _FACTOR)
        answered = [_is_json(row.response) for row in rows.coverage]
        self._json = len(answered) >= _ROWS and sum(answered) >= _NEARLY_ALL * len(answered)
        self._usual = usual(rows, faults, config.usual)

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return the first fault that isn't usual in coverage."""
        why = next((fault for fault in faults(example) if fault not in self._usual), None) or self._beside(example)
        return Found(why=why, shown=None if why in _OF_PROMPTS else example.response) if why else None

    def _beside(self, example: Example) -> str | None:
        """Return what is wrong beside the responses of coverage."""
        length = len(example.response.strip())
        if length < self._shortest:
            return "too short beside coverage"
        if length > self._longest:
            return "too long beside coverage"
        return "no JSON, as coverage answers" if self._json and not _is_json(example.response) else None


_OF_PROMPTS = frozenset({"an empty prompt", "a prompt with a mark of its form", "a response that is its prompt"})
"""Faults of which the prompt is shown, and not the response."""


def faults(row: Example) -> Iterator[str]:
    """Yield what is wrong with a row by itself."""
    prompt, response = row.messages[-1]["content"], row.response
    if not _shows(prompt):
        yield "an empty prompt"
    if not _shows(response):
        yield "an empty response"
    elif not any(mark.isalnum() or ord(mark) > _ASCII for mark in response):
        yield "a response without a word"
    asked, said = words(prompt), words(response)
    if asked and _without_stop(asked) == _without_stop(said):
        yield "a response that is its prompt"
    elif len(asked) >= _ECHO and asked == said[: len(asked)]:
        yield "a response that repeats its prompt"
    yield from _leftovers(prompt, response)


def _without_stop(row: list[str]) -> list[str]:
    """Return words without a sign at their end, unless that is all there is."""
    return row[:-1] if len(row) > 1 and not row[-1].isalnum() else row


def _leftovers(prompt: str, response: str) -> Iterator[str]:
    """Yield what went wrong in writing: an open fence, marks of a form, pieces of JSON, loops."""
    parts = fenced(response)
    if parts.unclosed:
        yield "an open code fence"
    if _HEADING.match(prompt) or _has_place(fenced(prompt).prose):
        yield "a prompt with a mark of its form"
    marks = {found[0].strip().casefold() for found in _MARKS.finditer(parts.prose)} - {""}
    marked = any(mark not in prompt.casefold() for mark in marks)
    if marked or _HEADING.match(response) or _has_place(parts.prose):
        yield "a response with a mark of a prompt's form"
    if _broken_json(prompt, response, parts.prose):
        yield "broken JSON"
    if loops(parts.prose):
        yield "a loop"


def _has_place(prose: str) -> bool:
    return bool(_PLACEHOLDER.search(prose)) and not _ASSIGNED.search(prose)


def _broken_json(prompt: str, response: str, prose: str) -> bool:
    """Tell whether a response has pieces of the JSON that it came in, or is JSON that was cut."""
    if _ESCAPED.search(prose) and "\\u" not in prompt:
        return True
    if "\n" not in response.strip() and prose.count("\\n") >= _ESCAPES and "\\n" not in prompt:
        return True
    if response.lstrip()[:1] in ("{", "[") and _is_cut(response.strip()):
        return True
    if "json" in prompt.casefold():
        return False
    return bool(_REPLY.search(prose)) or (bool(_TAIL.search(prose)) and prose.count("{") < prose.count("}"))


def _is_cut(text: str) -> bool:
    """Tell whether a text is JSON up to its end, which is missing."""
    try:
        json.JSONDecoder().raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) or error.msg.startswith("Unterminated")
    except (RecursionError, ValueError):
        pass
    return False


def _is_json(text: str) -> bool:
    """Tell whether a text is a JSON object or list, perhaps fenced."""
    blocks = fenced(text).blocks
    try:
        return isinstance(json.loads(blocks[0].code if len(blocks) == 1 else text), dict | list)
    except (RecursionError, ValueError):
        return False


def _shows(text: str) -> bool:
    return any(mark.isprintable() and not mark.isspace() for mark in text)


def _lengths(rows: Known, factor: float) -> tuple[float, float]:
    """Return how short and how long a response may be; all is allowed with few coverage rows."""
    lengths = sorted(len(row.response.strip()) for row in rows.coverage)
    if len(lengths) < _ROWS:
        return 0, math.inf
    left_out = (len(lengths) - 1) // 100
    return lengths[left_out] / factor, lengths[-1 - left_out] * factor
