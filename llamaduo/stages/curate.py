"""Curate: remove duplicates and whatever resembles dev or test from synthetic rows.

Reads new examples and all that they must differ from; returns the survivors and, for every row that
was removed, why and what it matched. Two texts are alike by the Jaccard index of their word sets; the
search is exact (prefix filtering, Bayardo et al. 2007: with a threshold t, sets that are alike share
one of their n - ceil(t n) + 1 rarest words). Of a group of near-duplicates the first survives.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamaduo.config import Curation, DuplicateText
from llamaduo.records import Example


@dataclass(frozen=True)
class Removal:
    """A row that was taken out."""

    row: int
    """Its place among the new rows, from 0."""
    prompt_id: str
    """Its prompt."""
    reason: str
    """`duplicate` of a training row, or `contamination`: it resembles a dev or test row."""
    match: str
    """The prompt that it matched."""
    similarity: float
    """Jaccard index of the compared word sets, 0 to 1."""


@dataclass(frozen=True)
class Curated:
    """What curation left, and what it took."""

    kept: tuple[Example, ...]
    removed: tuple[Removal, ...]


def words(text: str) -> frozenset[str]:
    """Return a text's word set: Unicode words and single signs, case folded."""
    return frozenset(re.findall(r"\w+|[^\w\s]", text.casefold()))


class Index:
    """Texts that a new text may be too much like; finds the first such text, exactly."""

    def __init__(self, texts: Iterable[str], threshold: float) -> None:
        self._threshold = threshold
        self._frequency: Counter[str] = Counter()
        texts = list(texts)
        for text in texts:
            self._frequency.update(words(text))
        self._sets: list[frozenset[str]] = []
        self._postings: dict[str, list[int]] = defaultdict(list)

    def _prefix(self, bag: frozenset[str]) -> list[str]:
        ordered = sorted(bag, key=lambda word: (self._frequency[word], word))
        return ordered[: len(bag) - math.ceil(self._threshold * len(bag) - 1e-9) + 1]

    def add(self, text: str) -> None:
        """Put a text into the index."""
        bag = words(text)
        for word in self._prefix(bag):
            self._postings[word].append(len(self._sets))
        self._sets.append(bag)

    def matches(self, text: str) -> list[tuple[int, float]]:
        """Return (place, Jaccard index) of every text at least as alike as the threshold, in order."""
        bag = words(text)
        places = {place for word in self._prefix(bag) for place in self._postings.get(word, ())}
        found = []
        for place in sorted(places):
            other = self._sets[place]
            shared = len(bag & other)
            alike = shared / (len(bag) + len(other) - shared)
            if alike >= self._threshold:
                found.append((place, alike))
        return found


def curate(
    new: Sequence[Example], *, known: Sequence[Example], held_out: Sequence[Example], config: Curation
) -> Curated:
    """Return the new rows that are neither like a known row nor like a held-out one.

    `known` are the rows trained on so far; `held_out` are dev and test. Order is kept.
    """

    def text(example: Example) -> str:
        if config.duplicate_text is DuplicateText.response:
            return example.response
        return f"{_asked(example)}\n{example.response}"

    everything = [*known, *new]
    seen = Index((text(example) for example in everything), config.duplicate_jaccard)
    for example in known:
        seen.add(text(example))
    in_index = list(known)
    kept_out = Index((_asked(example) for example in [*held_out, *new]), config.contamination_jaccard)
    for example in held_out:
        kept_out.add(_asked(example))
    prompts = {example.prompt_id for example in known}
    kept, removed = [], []
    for row, example in enumerate(new):
        leaks = kept_out.matches(_asked(example))
        if leaks:
            place, alike = max(leaks, key=lambda match: match[1])
            removed.append(Removal(row, example.prompt_id, "contamination", held_out[place].prompt_id, round(alike, 4)))
            continue
        if example.prompt_id in prompts:
            removed.append(Removal(row, example.prompt_id, "duplicate", example.prompt_id, 1.0))
            continue
        twin = _twin(example, seen.matches(text(example)), in_index, config)
        if twin is not None:
            removed.append(Removal(row, example.prompt_id, "duplicate", twin[0].prompt_id, round(twin[1], 4)))
            continue
        kept.append(example)
        prompts.add(example.prompt_id)
        seen.add(text(example))
        in_index.append(example)
    return Curated(tuple(kept), tuple(removed))


def _asked(example: Example) -> str:
    """Return what is compared of a prompt: the user's last turn, since a system prompt is common to all rows."""
    return example.messages[-1]["content"]


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
