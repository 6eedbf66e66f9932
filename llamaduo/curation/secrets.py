"""Secrets: rows with something that has a key's shape, which a student would learn and tell to anybody who asks.

The shapes are those of `redaction.py`. The examples of what was removed have `[key]` in place of the key; the filter
stands first, so that no other one shows a row that holds a key.
"""

from __future__ import annotations

from typing import Any, ClassVar

from llamaduo.config import CurationFilter
from llamaduo.curation.filters import Filter, Found, Reason
from llamaduo.records import Example
from llamaduo.redaction import shape_in, without_keys


class Secrets(Filter):
    """Removes what holds a key."""

    name: ClassVar = CurationFilter.secrets
    reason: ClassVar = Reason(
        "secrets", "with what looks like a key", "with what looks like a key", "With a key", "with a key in it",
        "look for keys in the coverage rows that they were made from",
    )  # fmt: skip

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return what the first key in the row is called, and the row's last turn without it."""
        texts = [example.messages[-1]["content"], example.response, *(turn["content"] for turn in example.messages)]
        for text in texts:
            found = shape_in(text)
            if found:
                return Found(why=found, shown=without_keys(text))
        return None
