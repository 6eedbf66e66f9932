"""Rows with something that has a key's shape: a model that learns it would tell it to anybody who asks.

refuse_keys(example, "pairs.jsonl:7", data)      raises InputError with the row's place, never with the key
"""

from __future__ import annotations

from llamaduo.config import Data
from llamaduo.errors import InputError
from llamaduo.records import Example, turn_text
from llamaduo.redaction import shape_in


def refuse_keys(example: Example, place: str, data: Data) -> None:
    """Raise InputError where a row holds what looks like a key, unless `data.allow_keys` lets it in."""
    if data.allow_keys:
        return
    texts = {"response": example.response, **{f"{turn['role']} turn": turn_text(turn) for turn in example.messages}}
    for where, text in texts.items():
        found = shape_in(text)
        if found:
            raise InputError(
                f"{place}: the {where} holds what looks like {found}, which would be sent to service LLMs and learned. "
                "Remove the row or the key, or take such rows as they are with data.allow_keys=true."
            )
