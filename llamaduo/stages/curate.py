"""Curate: remove duplicates and whatever resembles dev or test from synthetic rows.

Reads new examples and all that they must differ from; returns the survivors and, for every row that was removed, why
and what it matched. Compared are the words and the pairs of neighbouring words (`data/alike.py`) of all turns, without
what more than half of the coverage rows share. A row goes if its prompt is like a dev or test prompt, if it holds such
a prompt or its response (`data/passages.py`), or if prompt and response together are like those of a training row.
`duplicate_text=response` compares responses alone, by their words, as the paper does. Of a group of near-duplicates the
first survives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamaduo.config import Curation, DuplicateText
from llamaduo.data.alike import Bag, Index, bag, shared, turns, without, words
from llamaduo.data.passages import Passages
from llamaduo.records import COVERAGE, Example

DUPLICATE, CONTAMINATION = "duplicate", "contamination"
"""Why a row is removed."""


@dataclass(frozen=True)
class Removal:
    """A row that was taken out."""

    row: int
    """Its place among the new rows, from 0."""
    prompt_id: str
    """Its prompt."""
    reason: str
    """`duplicate` of a training row, or `contamination`: it resembles a dev or test row, or holds one."""
    match: str
    """The prompt that it matched."""
    similarity: float
    """Jaccard index of what was compared, 0 to 1; of a dev or test text that the row holds, the share that it holds."""


@dataclass(frozen=True)
class Curated:
    """What curation left, and what it took."""

    kept: tuple[Example, ...]
    removed: tuple[Removal, ...]


def curate(
    new: Sequence[Example], *, known: Sequence[Example], held_out: Sequence[Example], config: Curation
) -> Curated:
    """Return the new rows that are neither like a known row nor like a held-out one.

    `known` are the rows trained on so far; `held_out` are dev and test. Order is kept.
    """
    coverage = [row for row in known if row.generator == COVERAGE]
    asked = {row.prompt_id: bag(turns(row)) for row in (*known, *held_out, *new)}
    leaks = _Leaks(new, coverage, held_out, asked, config.contamination_jaccard)
    everything = _compared([*known, *new], [*coverage, *held_out], asked, config)
    told, bags = everything[: len(known)], everything[len(known) :]
    seen = Index(everything, config.duplicate_jaccard)
    for one in told:
        seen.add(one)
    in_index = list(known)
    prompts = {example.prompt_id for example in known}
    kept, removed = [], []
    for row, (example, one) in enumerate(zip(new, bags, strict=True)):
        leak = leaks.of(row, example)
        if leak is not None:
            removed.append(Removal(row, example.prompt_id, CONTAMINATION, leak[0].prompt_id, round(leak[1], 4)))
            continue
        if example.prompt_id in prompts:
            removed.append(Removal(row, example.prompt_id, DUPLICATE, example.prompt_id, 1.0))
            continue
        twin = _twin(example, seen.matches(one), in_index, config)
        if twin is not None:
            removed.append(Removal(row, example.prompt_id, DUPLICATE, twin[0].prompt_id, round(twin[1], 4)))
            continue
        kept.append(example)
        prompts.add(example.prompt_id)
        seen.add(one)
        in_index.append(example)
    return Curated(tuple(kept), tuple(removed))


def _compared(
    rows: Sequence[Example], coverage: Sequence[Example], asked: Mapping[str, Bag], config: Curation
) -> list[Bag]:
    """Return what is compared of each row to find duplicates; `asked` are the bags of all prompts."""
    if config.duplicate_text is DuplicateText.response:
        return [frozenset(words(row.response)) for row in rows]
    common = shared([asked[row.prompt_id] | bag([row.response]) for row in coverage])
    return [without(asked[row.prompt_id] | bag([row.response]), common) for row in rows]


class _Leaks:
    """Finds the dev or test row that a new row resembles or holds."""

    def __init__(
        self,
        new: Sequence[Example],
        train: Sequence[Example],
        held_out: Sequence[Example],
        asked: Mapping[str, Bag],
        least: float,
    ) -> None:
        self._held_out, self._least = held_out, least
        common = shared([asked[row.prompt_id] for row in (*train, *held_out)])
        protected = [without(asked[row.prompt_id], common) for row in held_out]
        self._new = [without(asked[row.prompt_id], common) for row in new]
        self._prompts = Index([*protected, *self._new], least)
        for one in protected:
            self._prompts.add(one)
        self._passages = Passages(held_out, train, common)

    def of(self, row: int, example: Example) -> tuple[Example, float] | None:
        """Return the closest held-out row, if it is close enough, and how close it is."""
        found = max(self._prompts.matches(self._new[row]), key=lambda match: match[1], default=None)
        found = found or self._passages.found(example)
        if found is None or found[1] < self._least:
            return None
        return self._held_out[found[0]], found[1]


def _twin(
    example: Example, matches: list[tuple[int, float]], indexed: list[Example], config: Curation
) -> tuple[Example, float] | None:
    """Return the first match that is a duplicate, confirmed by ROUGE-L where that is asked for."""
    for place, alike in matches:
        other = indexed[place]
        if config.confirm_rouge_l is not None:
            from llamaduo.evidence.reference import rouge_l

            if rouge_l(other.response, example.response) <= 100 * config.confirm_rouge_l:
                continue
        return other, alike
    return None
