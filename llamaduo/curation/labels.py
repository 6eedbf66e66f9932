"""Labels: where coverage answers with one of a few labels, so must new rows.

    coverage answers "billing", "returns", "billing", ...      "Billing question" goes, and "refund" does

Coverage answers with labels if each response comes four times on average, and at most 5% of the rows have one that no
other row has (Good and Turing's estimate of how often a further row would have a new one). Where that isn't so, but
holds of what stands between commas, semicolons and line ends, every such part has to be a label. `curation.labels`
names labels besides, and then every response has to be one, whatever coverage does. Case, or a full stop at the end,
means nothing only where coverage itself has a label both ways.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.filters import Filter, Found, Known, Reason
from llamaduo.records import Example

_TIMES = 4
"""How often each label comes, on average, at least."""
_ROWS = 8
"""Coverage rows below which nothing is taken for a label."""
_ONCE = 0.05
"""Share of rows that may have a label which no other has."""
_BETWEEN = re.compile(r"[,;\n]")


class Labels(Filter):
    """Removes rows whose response is none of the labels."""

    name: ClassVar = CurationFilter.labels
    reason: ClassVar = Reason(
        "labels", "with no label of coverage", "with no label of coverage", "No label", "with no label of coverage",
        "name their labels in curation.labels",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        coverage = [row.response for row in rows.coverage]
        whole, parts = ([split(text) for text in coverage] for split in (_whole, _parts))
        self._split = _parts if few(parts) and not few(whole) else _whole
        usual = parts if self._split is _parts else whole
        found = [*config.labels, *(label for labels in usual for label in labels if few(usual))]
        self._case = _both_ways(found, str.casefold)
        self._stop = _both_ways(found, lambda label: label.removesuffix("."))
        self._labels = {self._folded(label) for label in found}

    def _folded(self, label: str) -> str:
        label = label.removesuffix(".") if self._stop else label
        return label.casefold() if self._case else label

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return a find if a response isn't a label where all have to be."""
        if not self._labels or {self._folded(label) for label in self._split(example.response)} <= self._labels:
            return None
        return Found(shown=example.response)


def few(texts: Sequence[Sequence[str]]) -> bool:
    """Tell whether texts, each given as its parts, are made of a few that come again and again."""
    count = Counter(part for parts in texts for part in parts)
    once = sum(number == 1 for number in count.values())
    return count.total() >= max(_ROWS, _TIMES * len(count)) and once <= _ONCE * count.total()


def _whole(text: str) -> list[str]:
    return [" ".join(text.split())]


def _parts(text: str) -> list[str]:
    return [" ".join(part.split()) for part in _BETWEEN.split(text) if part.strip()] or [""]


def _both_ways(labels: Iterable[str], fold: Callable[[str], str]) -> bool:
    """Tell whether two of the labels differ in nothing but what is folded."""
    found = set(labels)
    return len({fold(label) for label in found}) < len(found)
