"""Curate: remove duplicates and whatever resembles dev or test from synthetic rows.

    curate(new, known=train, held_out=dev_and_test, config=curation)      Curated(kept=(...), removed=(...))
    curator = Curator(known=train, ...); curator.take(new); curator.take(more)      each row is looked at once

Reads new examples and all that they must differ from; returns the survivors and, for every row that was removed, why
and what it matched. Compared are the words and the pairs of neighbouring words (`data/alike.py`) of all turns, without
what more than half of the coverage rows share. A row goes if its prompt is like a dev or test prompt, if it holds such
a prompt or its response (`data/passages.py`), or if prompt and response together are like those of a training row.
`duplicate_text=response` compares responses alone, by their words, as the paper does. Of a group of near-duplicates the
first survives. What becomes of a row depends on those before it alone, never on those that come after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar, Protocol

from llamaduo.config import Curation, DuplicateText
from llamaduo.data.alike import Bag, Index, bag, shared, turns, without, words
from llamaduo.data.passages import Passages
from llamaduo.records import COVERAGE, Example


@dataclass(frozen=True)
class Removal:
    """A row that was taken out."""

    row: int
    """Its place among the new rows, from 0."""
    prompt_id: str
    """Its prompt."""
    reason: str
    """The name of the filter that took it, one of `REASONS`."""
    match: str
    """The prompt that it matched."""
    similarity: float
    """Jaccard index of what was compared, 0 to 1; of a dev or test text that the row holds, the share that it holds."""


@dataclass(frozen=True)
class Curated:
    """What curation left, and what it took."""

    kept: tuple[Example, ...] = ()
    removed: tuple[Removal, ...] = ()

    def __add__(self, later: Curated) -> Curated:
        """Return what became of these rows and of later ones."""
        return Curated(self.kept + later.kept, self.removed + later.removed)


@dataclass(frozen=True)
class Reason:
    """Why a filter removes rows, as records, notes and tables say it."""

    name: str
    counted: str
    """Behind how many rows it took of a growth."""
    of_a_round: str
    """Behind how many rows it took of a round."""
    heading: str
    """Above its column in a table."""
    legend: str
    """Beside its colour in a picture."""


Match = tuple[Example, float] | None
"""The row that a new one matches, and how closely."""


class Filter(Protocol):
    """What a new row has to pass."""

    reason: ClassVar[Reason]

    def compared(self, new: Sequence[Example], asked: Mapping[str, Bag]) -> list[Bag]:
        """Return what is compared of new rows, `asked` being the bags of their prompts."""

    def match(self, example: Example, compared: Bag) -> Match:
        """Return why a row is removed; None where it isn't."""

    def keep(self, example: Example, compared: Bag) -> None:
        """Take a row that passed all filters: later ones have to differ from it."""


def curate(
    new: Sequence[Example], *, known: Sequence[Example], held_out: Sequence[Example], config: Curation
) -> Curated:
    """Return the new rows that are neither like a known row nor like a held-out one.

    `known` are the rows trained on so far; `held_out` are dev and test. Order is kept.
    """
    return Curator(known=known, held_out=held_out, config=config).take(new)


class Curator:
    """Looks at new rows as they come."""

    def __init__(self, *, known: Sequence[Example], held_out: Sequence[Example], config: Curation) -> None:
        asked = {row.prompt_id: bag(turns(row)) for row in (*known, *held_out)}
        coverage = [row for row in known if row.generator == COVERAGE]
        self._filters: tuple[Filter, ...] = (
            _Contamination(coverage, held_out, asked, config),
            _Duplicates(known, coverage, held_out, asked, config),
        )
        self._taken = 0

    def take(self, new: Sequence[Example]) -> Curated:
        """Return what becomes of more new rows; their places are counted on."""
        asked = {row.prompt_id: bag(turns(row)) for row in new}
        compared = [one.compared(new, asked) for one in self._filters]
        kept, removed = [], []
        for row, (example, *bags) in enumerate(zip(new, *compared, strict=True), self._taken):
            asking = list(zip(self._filters, bags, strict=True))
            for one, its in asking:
                found = one.match(example, its)
                if found is not None:
                    like, alike = found
                    removed.append(Removal(row, example.prompt_id, one.reason.name, like.prompt_id, round(alike, 4)))
                    break
            else:
                kept.append(example)
                for one, its in asking:
                    one.keep(example, its)
        self._taken += len(new)
        return Curated(tuple(kept), tuple(removed))


class _Contamination:
    """Removes what resembles a dev or test row, or holds one."""

    reason: ClassVar = Reason(
        "contamination", "like dev or test", "like dev or test", "Like dev or test", "like a dev or test row"
    )

    def __init__(
        self, coverage: Sequence[Example], held_out: Sequence[Example], asked: Mapping[str, Bag], config: Curation
    ) -> None:
        self._held_out, self._least = held_out, config.contamination_jaccard
        self._common = shared([asked[row.prompt_id] for row in (*coverage, *held_out)])
        self._protected = [without(asked[row.prompt_id], self._common) for row in held_out]
        self._passages = Passages(held_out, coverage, self._common)
        self._prompts: Index | None = None

    def compared(self, new: Sequence[Example], asked: Mapping[str, Bag]) -> list[Bag]:
        """Return the prompts' bags without what is common."""
        bags = [without(asked[row.prompt_id], self._common) for row in new]
        self._prompts = self._prompts or _index(self._protected, bags, self._least)
        return bags

    def match(self, example: Example, compared: Bag) -> Match:
        """Return the closest held-out row, if it is close enough."""
        assert self._prompts is not None
        found = max(self._prompts.matches(compared), key=lambda match: match[1], default=None)
        found = found or self._passages.found(example)
        if found is None or found[1] < self._least:
            return None
        return self._held_out[found[0]], found[1]

    def keep(self, example: Example, compared: Bag) -> None:
        """Dev and test stay what they are."""


class _Duplicates:
    """Removes what a training row has already."""

    reason: ClassVar = Reason("duplicate", "duplicates", "like other rows", "Duplicates", "duplicate of a training row")

    def __init__(
        self,
        known: Sequence[Example],
        coverage: Sequence[Example],
        held_out: Sequence[Example],
        asked: Mapping[str, Bag],
        config: Curation,
    ) -> None:
        self._config, self._indexed = config, list(known)
        self._prompts = {row.prompt_id for row in known}
        whole = [asked[row.prompt_id] | bag([row.response]) for row in (*coverage, *held_out)]
        self._common = frozenset() if config.duplicate_text is DuplicateText.response else shared(whole)
        self._known = self._bags(known, asked)
        self._index: Index | None = None

    def _bags(self, rows: Sequence[Example], asked: Mapping[str, Bag]) -> list[Bag]:
        if self._config.duplicate_text is DuplicateText.response:
            return [frozenset(words(row.response)) for row in rows]
        return [without(asked[row.prompt_id] | bag([row.response]), self._common) for row in rows]

    def compared(self, new: Sequence[Example], asked: Mapping[str, Bag]) -> list[Bag]:
        """Return the bags of prompts and responses without what is common, or of responses alone."""
        bags = self._bags(new, asked)
        self._index = self._index or _index(self._known, bags, self._config.duplicate_jaccard)
        return bags

    def match(self, example: Example, compared: Bag) -> Match:
        """Return the first row that it is a duplicate of, confirmed by ROUGE-L where that is asked for."""
        assert self._index is not None
        if example.prompt_id in self._prompts:
            return example, 1.0
        least = self._config.confirm_rouge_l
        for place, alike in self._index.matches(compared):
            other = self._indexed[place]
            if least is not None:
                from llamaduo.evidence.reference import rouge_l

                if rouge_l(other.response, example.response) <= 100 * least:
                    continue
            return other, alike
        return None

    def keep(self, example: Example, compared: Bag) -> None:
        """Let later rows differ from this one."""
        assert self._index is not None
        self._prompts.add(example.prompt_id)
        self._index.add(compared)
        self._indexed.append(example)


def _index(held: Sequence[Bag], soon: Sequence[Bag], threshold: float) -> Index:
    """Return an index of bags that knows how frequent words are in those that will be asked for first."""
    index = Index(chain(held, soon), threshold)
    for one in held:
        index.add(one)
    return index


REASONS = (_Duplicates.reason, _Contamination.reason)
"""Why rows are removed, in the order in which it is told."""
