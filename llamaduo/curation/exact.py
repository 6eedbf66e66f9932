"""Exact duplicates: rows whose turns and response are those of a training row to the word, white space aside."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.filters import Filter, Found, Known, Reason
from llamaduo.records import Example


class Exact(Filter):
    """Removes rows that are there already."""

    name: ClassVar = CurationFilter.exact
    reason: ClassVar = Reason(
        "exact", "the same as others", "the same as other rows", "The same", "the same as a training row",
        "ask for fewer of the same: more coverage rows as seeds, or a higher service_llm.temperature",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        self._seen: dict[bytes, Example] = {}
        for row in rows.known:
            self.keep(row, None)

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return the first row that is the same."""
        found = self._seen.get(_identity(example))
        return Found(match=found, similarity=1.0) if found else None

    def keep(self, example: Example, compared: Any) -> None:
        """Let later rows differ from this one."""
        self._seen.setdefault(_identity(example), example)


def _identity(example: Example) -> bytes:
    """Return 16 bytes over a row's prompt and response; the prompt's id folds white space as well."""
    response = " ".join(example.response.split())
    return hashlib.blake2b(f"{example.prompt_id} {response}".encode(errors="surrogatepass"), digest_size=16).digest()
