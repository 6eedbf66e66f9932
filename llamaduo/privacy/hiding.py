"""Hiding: texts that are sent, with made-up values in the place of real ones, and the way back.

    hider = Hider(Privacy(enabled=True), secret)
    hidden = hider.hide(["You are Maria's helper.", "Write to maria@firm.de"])
    hidden.texts                                  ("You are Maria's helper.", "Write to greta.hartwick41@example.com")
    hidden.restore("Sent to Greta.Hartwick41@Example.com.").text          "Sent to maria@firm.de."

A made-up value follows from the real one and a secret (`secret.py`): it is the same in every request, run and
process, so that nothing is bought twice, and tells nothing of the real one. It is nowhere in the texts that it is put
into; where two values of one request would meet, the later one takes another. Texts of a request are hidden together: a
value that is found in one of them is replaced wherever it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from llamaduo.config import Privacy
from llamaduo.privacy.draws import Draws
from llamaduo.privacy.found import Found, apart
from llamaduo.privacy.made_up import made_up
from llamaduo.privacy.restoring import Restored, Restorer
from llamaduo.privacy.search import Search

_MOST_TRIES = 2000
_SHORTEST = 3
"""Signs of a value that is looked for in the other texts too."""


@dataclass(frozen=True)
class Pair:
    """A value, and what stands in its place."""

    type: str
    real: str
    """As it is written."""
    made: str


@dataclass(frozen=True)
class Hidden:
    """Texts as they are sent."""

    texts: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    """Each writing of each value once."""
    counts: Counter[str] = field(default_factory=Counter)
    """How many values were replaced, by type, every place counted."""

    @cached_property
    def _restorer(self) -> Restorer:
        return Restorer([(pair.type, pair.real, pair.made) for pair in self.pairs])

    def restore(self, text: str) -> Restored:
        """Return a text that came back, with the real values in it."""
        return self._restorer.restore(text) if self.pairs else Restored(text)


class Hider:
    """Hides what a configuration names."""

    def __init__(self, wanted: Privacy, secret: bytes) -> None:
        self._search, self._secret = Search(wanted), secret
        self._drawn: dict[tuple[str, ...], str] = {}

    def hide(self, texts: Sequence[str]) -> Hidden:
        """Return texts as they may be sent."""
        found = [self._search.find(text) for text in texts]
        if not any(found):
            return Hidden(tuple(texts))
        found = _everywhere(texts, found)
        chosen = _Chosen(texts, self._made)
        sent, counts = [], Counter[str]()
        for text, some in zip(texts, found, strict=True):
            parts, at = [], 0
            for one in some:
                parts += [text[at : one.start], chosen.of(one, text[one.start : one.end])]
                counts[one.type] += 1
                at = one.end
            sent.append("".join([*parts, text[at:]]))
        pairs = (Pair(type_, real, made) for (type_, real), made in chosen.made.items())
        return Hidden(tuple(sent), tuple(pairs), counts)

    def find(self, text: str) -> list[Found]:
        """Return what would be replaced in a text."""
        return self._search.find(text)

    def tree(self, tree: Any) -> Any:
        """Return a tree of dicts, lists and texts with what is in its texts hidden."""
        if isinstance(tree, dict):
            return {self.tree(name): self.tree(value) for name, value in tree.items()}
        if isinstance(tree, list | tuple):
            return [self.tree(value) for value in tree]
        return self.hide([tree]).texts[0] if isinstance(tree, str) else tree

    def _made(self, found: Found, written: str, turn: int) -> str:
        """Return the made-up value of a turn: 0 is the one that is taken unless it is there already."""
        key = (found.type, found.value, written, str(turn))
        if key not in self._drawn:
            if len(self._drawn) > 100_000:
                self._drawn.clear()
            self._drawn[key] = made_up(found, written, Draws(self._secret, found.type, found.value, turn), turn)
        return self._drawn[key]


def _everywhere(texts: Sequence[str], found: Sequence[list[Found]]) -> list[list[Found]]:
    """Return what was found, and the same values wherever else they are written in the same way."""
    values = {text[one.start : one.end]: one for text, some in zip(texts, found, strict=True) for one in some}
    longest = sorted((written for written in values if len(written) >= _SHORTEST), key=len, reverse=True)
    if not longest:
        return list(found)
    any_of = re.compile("|".join(map(_alone, longest)))

    def again(text: str, some: list[Found]) -> list[Found]:
        places = [(match.start(), match.end()) for match in any_of.finditer(text)]
        known = {(one.start, one.end) for one in some}
        more = [replace(values[text[start:end]], start=start, end=end) for start, end in places]
        return apart([*some, *(one for one in more if (one.start, one.end) not in known)])

    return [again(text, some) for text, some in zip(texts, found, strict=True)]


def _alone(written: str) -> str:
    """Return an expression that finds a value which no digit or letter goes on with."""
    before = r"(?<![^\W_])" if written[0].isalnum() else ""
    return before + re.escape(written) + (r"(?![^\W_])" if written[-1].isalnum() else "")


class _Chosen:
    """The made-up values of one request, as they are chosen one after the other."""

    def __init__(self, texts: Sequence[str], make: Callable[[Found, str, int], str]) -> None:
        self._there = "\0".join(map(signs, texts))
        self._make = make
        self._turns: dict[tuple[str, str], int] = {}
        self._owners: dict[str, tuple[str, str]] = {}
        """Whose the letters and digits of each made-up value are."""
        self.made: dict[tuple[str, str], str] = {}
        """By type and writing."""

    def of(self, found: Found, written: str) -> str:
        """Return what stands in the place of a value."""
        if (found.type, written) not in self.made:
            self.made[found.type, written] = self._choose(found, written)
        return self.made[found.type, written]

    def _choose(self, found: Found, written: str) -> str:
        owner = (found.type, found.value)
        used = set(self.made.values())
        for turn in range(self._turns.get(owner, 0), _MOST_TRIES):
            made = self._make(found, written, turn)
            if made not in used and self._is_free(signs(made), owner):
                break
        else:
            made, turn = f"{found.type}{len(used)}x{'x' * max(map(len, self._there.split('x')))}", 0
        self._turns[owner] = turn
        self._owners[signs(made)] = owner
        return made

    def _is_free(self, made: str, owner: tuple[str, str]) -> bool:
        """Tell whether a made-up value is nowhere in the texts, and none of another value's is part of it."""
        if not made or made in self._there:
            return False
        others = (other for other, whose in self._owners.items() if whose != owner)
        return not any(made in other or other in made for other in others)


def signs(text: str) -> str:
    """Return the letters and digits of a text as they are compared."""
    return "".join(filter(str.isalnum, text)).casefold()
