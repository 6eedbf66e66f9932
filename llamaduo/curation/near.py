"""Near-duplicates: of a group of rows that are alike the first survives.

Compared are the words and the pairs of neighbouring words (`data/alike.py`) of prompt and response together, without
what more than half of the coverage rows share; `duplicate_text=response` compares responses alone, by their words, as
the paper does, and `confirm_rouge_l` asks for ROUGE-L besides. The same prompt is a duplicate whatever the response.

Rows become numbers (`bags.py`) and are looked at in blocks (`blocks.py`) by an exact search (`join.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llamaduo.config import Curation, CurationFilter, DuplicateText
from llamaduo.curation.filters import Filter, Found, Known, Reason
from llamaduo.data.alike import turns
from llamaduo.records import CORRECTION, Example

if TYPE_CHECKING:
    from llamaduo.curation.bags import Bags
    from llamaduo.curation.blocks import Blocks


class Near(Filter):
    """Removes what a training row has already."""

    name: ClassVar = CurationFilter.near
    reason: ClassVar = Reason(
        "duplicate", "duplicates", "like other rows", "Duplicates", "duplicate of a training row",
        "set curation.duplicate_jaccard higher",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        from llamaduo.curation.bags import Vocabulary
        from llamaduo.curation.join import Join

        super().__init__(rows, config)
        self._kept = list(rows.known)
        self._prompts = {row.prompt_id for row in rows.known}
        responses = config.duplicate_text is DuplicateText.response
        self._text = _response if responses else _whole
        self._vocabulary = Vocabulary(pairs=not responses)
        shared_by = () if responses else (*rows.coverage, *rows.held_out)
        self._common = self._vocabulary.bags(map(self._text, shared_by)).shared()
        self._join = Join(config.duplicate_jaccard)
        known = self._bags(rows.known)
        self._join.expect(known)
        self._join.add(known)
        self._blocks = self._coming(())

    def _bags(self, rows: Sequence[Example]) -> Bags:
        return self._vocabulary.bags(map(self._text, rows)).without(self._common)

    def compared(self, new: Sequence[Example]) -> Sequence[int]:
        """Return the rows' numbers among those that are coming."""
        self._blocks.finish()
        self._blocks = self._coming(new)
        return range(len(new))

    def _coming(self, new: Sequence[Example]) -> Blocks:
        from llamaduo.curation.blocks import Blocks

        return Blocks(self._join, self._bags(new), confirms=self.config.confirm_rouge_l is not None)

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return the first row that it is a duplicate of, confirmed by ROUGE-L where that is asked for."""
        if example.prompt_id in self._prompts and example.kind != CORRECTION:
            return Found(match=example, similarity=1.0)
        least = self.config.confirm_rouge_l
        for place, alike in self._blocks.matches(compared):
            other = self._kept[place]
            if least is not None:
                from llamaduo.evidence.reference import rouge_l

                if rouge_l(other.response, example.response) <= 100 * least:
                    continue
            return Found(match=other, similarity=alike)
        return None

    def keep(self, example: Example, compared: Any) -> None:
        """Let later rows differ from this one."""
        self._blocks.keep(compared, len(self._kept))
        self._prompts.add(example.prompt_id)
        self._kept.append(example)


def _whole(row: Example) -> list[str]:
    return [*turns(row), row.response]


def _response(row: Example) -> list[str]:
    return [row.response]
