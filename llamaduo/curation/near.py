"""Near-duplicates: of a group of rows that are alike the first survives.

Compared are the words and the pairs of neighbouring words (`data/alike.py`) of prompt and response together, without
what more than half of the coverage rows share; `duplicate_text=response` compares responses alone, by their words, as
the paper does, and `confirm_rouge_l` asks for ROUGE-L besides. The same prompt is a duplicate whatever the response.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from llamaduo.config import Curation, CurationFilter, DuplicateText
from llamaduo.curation.filters import Filter, Found, Known, Reason
from llamaduo.data.alike import Bag, Index, bag, index, shared, turns, without, words
from llamaduo.records import CORRECTION, Example


class Near(Filter):
    """Removes what a training row has already."""

    name: ClassVar = CurationFilter.near
    reason: ClassVar = Reason(
        "duplicate", "duplicates", "like other rows", "Duplicates", "duplicate of a training row",
        "set curation.duplicate_jaccard higher",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        self._indexed = list(rows.known)
        self._prompts = {row.prompt_id for row in rows.known}
        whole = () if self._responses else (*rows.coverage, *rows.held_out)
        self._common = shared([_whole(row) for row in whole])
        self._known = self._bags(rows.known)
        self._index: Index | None = None

    @property
    def _responses(self) -> bool:
        return self.config.duplicate_text is DuplicateText.response

    def _bags(self, rows: Sequence[Example]) -> list[Bag]:
        if self._responses:
            return [frozenset(words(row.response)) for row in rows]
        return [without(_whole(row), self._common) for row in rows]

    def compared(self, new: Sequence[Example]) -> list[Bag]:
        """Return the bags of prompts and responses without what is common, or of responses alone."""
        bags = self._bags(new)
        self._index = self._index or index(self._known, bags, self.config.duplicate_jaccard)
        return bags

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return the first row that it is a duplicate of, confirmed by ROUGE-L where that is asked for."""
        assert self._index is not None
        if example.prompt_id in self._prompts and example.kind != CORRECTION:
            return Found(match=example, similarity=1.0)
        least = self.config.confirm_rouge_l
        for place, alike in self._index.matches(compared):
            other = self._indexed[place]
            if least is not None:
                from llamaduo.evidence.reference import rouge_l

                if rouge_l(other.response, example.response) <= 100 * least:
                    continue
            return Found(match=other, similarity=alike)
        return None

    def keep(self, example: Example, compared: Any) -> None:
        """Let later rows differ from this one."""
        assert self._index is not None
        self._prompts.add(example.prompt_id)
        self._index.add(compared)
        self._indexed.append(example)


def _whole(row: Example) -> Bag:
    return bag([*turns(row), row.response])
