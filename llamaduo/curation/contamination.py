"""Decontamination: rows that are like a dev or test row, or hold one, go.

A row goes if its prompt is like a dev or test prompt (`data/alike.py`: words and pairs of neighbouring words, without
what more than half of the coverage rows share), or if it holds such a prompt or its response: most of it in runs of
eight words (`data/passages.py`), or, with `dressed` or where filters are named, all of it written otherwise or all but
one word (`leaks.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.filters import Filter, Found, Known, Reason
from llamaduo.curation.leaks import Leaks
from llamaduo.data.alike import Bag, Index, bag, index, shared, turns, without
from llamaduo.data.passages import Passages
from llamaduo.records import Example


class Contamination(Filter):
    """Removes what resembles a dev or test row, or holds one."""

    name: ClassVar = CurationFilter.contamination
    reason: ClassVar = Reason(
        "contamination", "like dev or test", "like dev or test", "Like dev or test", "like a dev or test row",
        "set curation.contamination_jaccard higher",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        asked = [bag(turns(row)) for row in (*rows.coverage, *rows.held_out)]
        self._common = shared(asked)
        self._protected = [without(one, self._common) for one in asked[len(rows.coverage) :]]
        thorough = config.dressed or bool(config.filters)
        self._searches: list[Passages | Leaks] = [Passages(rows.held_out, rows.coverage, self._common)]
        self._searches += [Leaks(rows.held_out, rows.coverage)] if thorough else []
        self._prompts: Index | None = None

    def compared(self, new: Sequence[Example]) -> list[Bag]:
        """Return the prompts' bags without what is common."""
        bags = [without(bag(turns(row)), self._common) for row in new]
        self._prompts = self._prompts or index(self._protected, bags, self.config.contamination_jaccard)
        return bags

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return the closest held-out row, if it is close enough."""
        assert self._prompts is not None
        least = self.config.contamination_jaccard
        like = max(self._prompts.matches(compared), key=lambda match: match[1], default=None)
        if not like:
            asked = (search.found(example) for search in self._searches)
            like = next((found for found in asked if found and found[1] >= least), None)
        if like and like[1] >= least:
            return Found(match=self.rows.held_out[like[0]], similarity=like[1])
        return None
