"""What holds a held-out text: dev and test prompts and responses found within longer texts, by runs of eight words.

    passages = Passages(held_out, train, common)     # common: what most prompts share, see `alike.shared`
    passages.found(row)                              # (3, 0.9): nine tenths of held_out[3] are in the row; or None

A text counts as held by the share of its words that lie in runs of eight which the other text has, too (as in the
Llama 3 report, arXiv 2407.21783, section 5.1.4), words that most prompts share left out on both sides. A prompt shorter
than eight words has to be there whole, word for word, and needs three: shorter ones say too little. So do responses of
fewer than eight words, since labels and short answers are the same in many rows. Runs that a training row holds anyway
tell nothing, whatever the reason: a template, a boilerplate, a near-duplicate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from llamaduo.data.alike import Bag, words
from llamaduo.records import Example, turn_text

_RUN = 8
_LEAST = 3
_END_OF_TURN = "\n"

Words = Sequence[str]
Run = tuple[str, ...]
_Wholes = dict[Run, list[tuple[Run, int]]]
"""Short texts with the held-out rows they belong to, by their first three words."""


class Passages:
    """Held-out texts that no new text may hold."""

    def __init__(self, held_out: Sequence[Example], train: Iterable[Example], common: Bag) -> None:
        """Take the rows to protect, the coverage rows that are trained on, and what most prompts share."""
        self._common = common
        self._owners: list[int] = []
        """The held-out row of each text of eight words or more."""
        self._runs: dict[Run, list[tuple[int, int]]] = defaultdict(list)
        """Runs of eight words, with the texts that have them and where they begin there."""
        self._wholes: tuple[_Wholes, _Wholes] = (defaultdict(list), defaultdict(list))
        """Shorter prompts, as they are and without what is common."""
        for owner, example in enumerate(held_out):
            self._add_prompt(owner, _trimmed(_prompt(example)))
            response = _trimmed(self._left(words(example.response)))
            if _spoken(response) >= _RUN:
                self._add_runs(owner, response)
        self._forget(train)
        self._sizes = self._covered(self._runs)

    def found(self, example: Example) -> tuple[int, float] | None:
        """Return the held-out row of which the example holds most, and that share; None where it holds nothing.

        The share is that of the words of the row's prompt or of its response, from 0 to 1.
        """
        shares: dict[int, float] = {}
        runs: set[Run] = set()
        for text in _texts(example):
            left = self._left(text)
            runs.update(run for run in _windows(left, _RUN) if run in self._runs)
            for wholes, row in zip(self._wholes, (text, left), strict=True):
                shares.update(dict.fromkeys((owner for _, owner in _held(wholes, row)), 1.0))
        for text_, covered in self._covered(runs).items():
            owner = self._owners[text_]
            shares[owner] = max(shares.get(owner, 0.0), covered / self._sizes[text_])
        return max(shares.items(), key=lambda item: (item[1], -item[0]), default=None)

    def _left(self, text: Words) -> list[str]:
        return [word for word in text if word not in self._common]

    def _add_prompt(self, owner: int, text: Words) -> None:
        left = _trimmed(self._left(text))
        if len(left) >= _RUN:
            self._add_runs(owner, left)
        elif left:
            whole = text if len(text) < _RUN else left
            if _spoken(whole) >= _LEAST:
                self._wholes[whole is left][tuple(whole[:_LEAST])].append((tuple(whole), owner))

    def _add_runs(self, owner: int, text: Words) -> None:
        for start, run in enumerate(_windows(text, _RUN)):
            self._runs[run].append((len(self._owners), start))
        self._owners.append(owner)

    def _forget(self, train: Iterable[Example]) -> None:
        """Take out what training rows hold anyway."""
        for example in train:
            for text in _texts(example):
                left = self._left(text)
                for run in _windows(left, _RUN):
                    self._runs.pop(run, None)
                for wholes, row in zip(self._wholes, (text, left), strict=True):
                    for entry in set(_held(wholes, row)):
                        wholes[entry[0][:_LEAST]].remove(entry)

    def _covered(self, runs: Iterable[Run]) -> dict[int, int]:
        """Return how many words of each text lie in the runs, for the texts that have any of them."""
        places: dict[int, set[int]] = defaultdict(set)
        for run in runs:
            for text, start in self._runs[run]:
                places[text].update(range(start, start + _RUN))
        return {text: len(found) for text, found in places.items()}


def _texts(example: Example) -> tuple[list[str], list[str]]:
    """Return the words of a row's prompt and of its response."""
    return _prompt(example), words(example.response)


def _prompt(example: Example) -> list[str]:
    """Return the words of a prompt's turns, those of a system apart, with a mark between two of them."""
    row: list[str] = []
    for message in example.messages:
        if message["role"] not in ("system", "developer"):
            row += [_END_OF_TURN, *words(turn_text(message))]
    return row[1:]


def _trimmed(text: Words) -> list[str]:
    """Return a text from its first word to its last, without the signs around them."""
    spoken = [place for place, word in enumerate(text) if _is_word(word)]
    return list(text[spoken[0] : spoken[-1] + 1]) if spoken else []


def _spoken(text: Words) -> int:
    return sum(map(_is_word, text))


def _is_word(word: str) -> bool:
    return word[0].isalnum()


def _windows(text: Words, size: int) -> Iterator[Run]:
    return zip(*(text[start:] for start in range(size)), strict=False)


def _held(wholes: _Wholes, text: Words) -> Iterator[tuple[Run, int]]:
    """Yield the short texts that a text holds, with their rows."""
    for start, head in enumerate(_windows(text, _LEAST) if wholes else ()):
        for whole, owner in wholes.get(head, ()):
            if tuple(text[start : start + len(whole)]) == whole:
                yield whole, owner
