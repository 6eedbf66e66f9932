"""Curate: ask each filter of new rows, and tell what became of them.

    curate(new, known=train, held_out=dev_and_test, config=curation)      Curated(kept=(...), removed=(...))
    curator = Curator(known=train, ...); curator.take(new); curator.take(more)      each row is looked at once

Reads new examples and all that they must differ from; returns the survivors and, for every row that was removed, why
and what it matched, and of every filter what it saw (`Report`). Which filters there are and their order is declared in
`order.py`. What becomes of a row depends on those before it alone, never on those that come after it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from llamaduo.config import Curation
from llamaduo.curation.filters import Filter, Found, Known
from llamaduo.curation.order import chosen
from llamaduo.records import IF_ANY, Example

_EXAMPLES = 3
_SHOWN = 160
"""Characters of a text in an example."""


@dataclass(frozen=True)
class Removal:
    """A row that was taken out."""

    row: int
    """Its place among the new rows, from 0."""
    prompt_id: str
    """Its prompt."""
    reason: str
    """The name of the reason of the filter that took it."""
    match: str = field(default="", metadata=IF_ANY)
    """The prompt that it matched, if it went because of one."""
    similarity: float | None = field(default=None, metadata=IF_ANY)
    """Jaccard index of what was compared, 0 to 1; of a dev or test text that the row holds, the share that it holds."""
    why: str = field(default="", metadata=IF_ANY)
    """What was wrong, where the reason doesn't say all."""


@dataclass(frozen=True)
class Shown:
    """A row that was taken out, for people."""

    row: int
    """Its place among the new rows, from 0."""
    text: str
    """Its last turn, shortened, or what the filter shows in its place."""
    match: str = field(default="", metadata=IF_ANY)
    """The last turn of the row that it matched, shortened."""
    similarity: float | None = field(default=None, metadata=IF_ANY)
    """How closely, 0 to 1."""
    why: str = field(default="", metadata=IF_ANY)
    """What was wrong."""

    @property
    def told(self) -> str:
        """The example in a few words."""
        alike = "" if self.similarity is None else f" ({self.similarity:.0%})"
        match = f" matches {self.match!r}{alike}" if self.match else ""
        return f"{self.text!r}{match}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True)
class Report:
    """What one filter saw."""

    name: str
    """The filter."""
    rows_in: int
    """Rows that it was asked of."""
    rows_out: int
    """Those that it let pass."""
    reasons: dict[str, int]
    """What was wrong with the others, and with how many."""
    examples: tuple[Shown, ...]
    """The first three of them."""
    seconds: float = field(default=0.0, metadata=IF_ANY, compare=False)
    """Wall time."""

    def __add__(self, later: Report) -> Report:
        """Return what it saw in these rows and in later ones."""
        return Report(
            self.name,
            self.rows_in + later.rows_in,
            self.rows_out + later.rows_out,
            dict(Counter(self.reasons) + Counter(later.reasons)),
            (self.examples + later.examples)[:_EXAMPLES],
            self.seconds + later.seconds,
        )


@dataclass(frozen=True)
class Curated:
    """What curation left, and what it took."""

    kept: tuple[Example, ...] = ()
    removed: tuple[Removal, ...] = ()
    reports: tuple[Report, ...] = field(default=(), compare=False)
    """Of each filter, in their order."""

    def __add__(self, later: Curated) -> Curated:
        """Return what became of these rows and of later ones."""
        both = zip(self.reports, later.reports, strict=True) if self.reports and later.reports else ()
        reports = tuple(one + other for one, other in both) or self.reports or later.reports
        return Curated(self.kept + later.kept, self.removed + later.removed, reports)


def curate(
    new: Sequence[Example], *, known: Sequence[Example], held_out: Sequence[Example], config: Curation
) -> Curated:
    """Return the new rows that pass all filters.

    `known` are the rows trained on so far; `held_out` are dev and test. Order is kept.
    """
    return Curator(known=known, held_out=held_out, config=config).take(new)


class Curator:
    """Looks at new rows as they come."""

    def __init__(self, *, known: Sequence[Example], held_out: Sequence[Example], config: Curation) -> None:
        rows = Known(tuple(known), tuple(held_out))
        self._filters = [kind(rows, config) for kind in chosen(config)]
        self._taken = 0

    def take(self, new: Sequence[Example]) -> Curated:
        """Return what becomes of more new rows; their places are counted on."""
        seen = [_Seen(one) for one in self._filters]
        compared = [one.compared(new) for one in seen]
        kept, removed = [], []
        for row, (example, *bags) in enumerate(zip(new, *compared, strict=True), self._taken):
            asking = list(zip(seen, bags, strict=True))
            found = next((taken for one, its in asking if (taken := one.removal(row, example, its))), None)
            if found:
                removed.append(found)
                continue
            kept.append(example)
            for one, its in asking:
                one.filter.keep(example, its)
        self._taken += len(new)
        return Curated(tuple(kept), tuple(removed), tuple(one.report() for one in seen))


class _Seen:
    """A filter, and what it saw in one lot of rows."""

    def __init__(self, its: Filter) -> None:
        self.filter = its
        self._rows = 0
        self._reasons: Counter[str] = Counter()
        self._examples: list[Shown] = []
        self._seconds = 0.0

    def compared(self, new: Sequence[Example]) -> Sequence[object]:
        start = time.perf_counter()
        found = self.filter.compared(new)
        self._seconds += time.perf_counter() - start
        return found

    def removal(self, row: int, example: Example, compared: object) -> Removal | None:
        """Ask the filter of a row."""
        start = time.perf_counter()
        found = self.filter.match(example, compared)
        self._seconds += time.perf_counter() - start
        self._rows += 1
        if found is None:
            return None
        reason = self.filter.reason
        self._reasons[found.why or reason.counted] += 1
        alike = None if found.similarity is None else round(found.similarity, 4)
        if len(self._examples) < _EXAMPLES:
            self._examples.append(_shown(row, example, found, alike))
        match = found.match.prompt_id if found.match else ""
        return Removal(row, example.prompt_id, reason.name, match, alike, found.why)

    def report(self) -> Report:
        """Return what it saw."""
        left = self._rows - self._reasons.total()
        name = self.filter.name.value
        return Report(name, self._rows, left, dict(self._reasons), tuple(self._examples), round(self._seconds, 3))


def _shown(row: int, example: Example, found: Found, alike: float | None) -> Shown:
    text = example.messages[-1]["content"] if found.shown is None else found.shown
    match = found.match.messages[-1]["content"] if found.match else ""
    return Shown(row, shortened(text, _SHOWN), shortened(match, _SHOWN), alike, found.why)


def shortened(text: str, most: int) -> str:
    """Return a text in a few words: its end, before which a common instruction often stands."""
    folded = " ".join(text.split())
    return folded if len(folded) <= most else f"...{folded[-(most - 3) :]}"
