"""What holds a dev or test text in another dress: written otherwise, wrapped in other text, or with one word changed.

    leaks = Leaks(held_out, coverage)
    leaks.found(row)                     (3, 0.92): held_out[3] is in the row but for one word of twelve; or None

Compared are words alone: Unicode forms, case, signs, invisible signs, white space, line breaks, quotation and
comment marks, escapes and names of speakers make no difference. Three ways to be found:

- the whole prompt has the same letters as a held-out one, however short;
- a prompt of three words or more, or a turn or response of eight or more, is in the row with all its letters in a row;
- of six words or more, all are there in a row but for one that was changed, added or left out.

For numbers of words, and for the last way, words that more than half of the prompts share don't count: a template is no
leak. Labels and short responses never count. What a coverage row holds in one of these ways tells nothing in that way;
nor does one word's difference where two held-out prompts differ by one, or where another prompt of coverage has all but
two words of a short one, as templates have that were filled in.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from llamaduo.data.alike import UNSPACED, least_shared
from llamaduo.records import Example

_LEAST, _LONG, _EDITED = 3, 8, 6
"""Words that a prompt, another text, and one with a word changed has to have of its own."""
_SHORT = 12
"""Words up to which a text may be a template that was filled in."""
_HEAD = 12
"""Letters by which a text is looked up."""
_SURE = 24
"""Letters of a text from which it is found across the borders of words, too."""
_RUN = 3
"""Words by which a half of a text is looked up."""

_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_SIGN, _ASCII_SIGN = re.compile(r"[^\w\s]|_"), re.compile(r"[^a-z0-9\s]+")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]"
)
_WITHIN = re.compile(r"(?<=\w)['\u2019\u02bc\u00b4`](?=\w)|(?<=\w)-[ \t]*\r?\n[ \t>#*/|]*(?=\w)")
"""An apostrophe, and a hyphen at the end of a line: the word goes on."""
_SPEAKER = re.compile(r"(?im)^(?:[^\w\n]|_)*(?:user|assistant|human|ai|bot|model|system)[\W_]*:")
_CODED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
"""Signs as JSON in ASCII has them."""
_ESCAPED = re.compile(r"\\[nrt\"'/]")


@dataclass(frozen=True)
class _Text:
    """A held-out text."""

    owner: int
    """Its row."""
    letters: str
    """All its words without anything between them."""
    own: tuple[str, ...]
    """Its words without those that most prompts share."""


class Leaks:
    """Held-out texts that no new row may hold."""

    def __init__(self, held_out: Sequence[Example], coverage: Sequence[Example]) -> None:
        """Take the rows to protect, and the coverage rows that are trained on."""
        prompts = [_prompt(row) for row in (*coverage, *held_out)]
        shared = Counter(word for one in prompts for word in set(one.words))
        self._common = {word for word, count in shared.items() if count >= least_shared(len(prompts))}
        self._wholes: dict[str, int] = {}
        self._heads: dict[int, dict[str, list[_Text]]] = defaultdict(lambda: defaultdict(list))
        """Texts to be found whole, by their first letters."""
        self._runs: dict[tuple[str, ...], list[tuple[_Text, int]]] = defaultdict(list)
        """Texts to be found but for a word, by the first three words of either half, with the half's place."""
        self._untold: set[_Text] = set()
        """Texts of which one word's difference tells nothing."""
        for owner, (row, prompt) in enumerate(zip(held_out, prompts[len(coverage) :], strict=True)):
            self._wholes.setdefault(prompt.letters, owner)
            for text, least in _protected(row, prompt):
                self._add(owner, text, least)
        self._wholes.pop("", None)
        self._forget(coverage, held_out)
        self._forget_templates(prompts, len(coverage))

    def found(self, example: Example) -> tuple[int, float] | None:
        """Return the held-out row of which the example holds most, and that share of its words, from 0 to 1."""
        prompt = _prompt(example)
        if (owner := self._wholes.get(prompt.letters)) is not None:
            return owner, 1.0
        texts = (prompt, *_others(example))
        whole = min((text.owner for plain in texts for text in self._whole(plain.pieces)), default=None)
        if whole is not None:
            return whole, 1.0
        edited = [text for plain in texts for text in self._edited(plain.words) if text not in self._untold]
        best = max(edited, key=lambda text: (len(text.own), -text.owner), default=None)
        return (best.owner, 1 - 1 / len(best.own)) if best else None

    def _add(self, owner: int, plain: Plain, least: int) -> None:
        text = _Text(owner, plain.letters, tuple(word for word in plain.words if word not in self._common))
        size = len(text.own)
        if size and len(plain.words) >= _LEAST and (least == _LEAST or size >= least):
            head = text.letters[:_HEAD]
            self._heads[len(head)][head].append(text)
        if size >= _EDITED and (least == _LEAST or size >= least):
            for place in (0, size // 2):
                self._runs[text.own[place : place + _RUN]].append((text, place))

    def _forget(self, coverage: Sequence[Example], held_out: Sequence[Example]) -> None:
        """Leave out what coverage rows hold anyway."""
        for row in coverage:
            prompt = _prompt(row)
            self._wholes.pop(prompt.letters, None)
            for plain in (prompt, *_others(row)):
                self._untold.update(self._edited(plain.words))
                for text in set(self._whole(plain.pieces)):
                    self._heads[min(len(text.letters), _HEAD)][text.letters[:_HEAD]].remove(text)
        for owner, row in enumerate(held_out):
            for plain in (_prompt(row), *_others(row)):
                self._untold.update(text for text in self._edited(plain.words) if text.owner != owner)

    def _forget_templates(self, prompts: Sequence[Plain], held_out: int) -> None:
        """Take one word's difference for nothing in short texts of which another prompt has all words but two."""
        bags = [set(plain.words) - self._common for plain in prompts]
        rows: dict[str, list[int]] = defaultdict(list)
        for row, bag in enumerate(bags):
            for word in bag:
                rows[word].append(row)
        for text in {text for texts in self._runs.values() for text, _ in texts if len(text.own) <= _SHORT}:
            own = set(text.own)
            shared = Counter(row for word in own for row in rows[word] if row - held_out != text.owner)
            if any(count >= len(own) - 2 and len(bags[row]) <= len(own) + 2 for row, count in shared.items()):
                self._untold.add(text)

    def _whole(self, pieces: Sequence[str]) -> Iterator[_Text]:
        """Yield the texts whose letters are all in a row among those of some words or pieces of them."""
        letters, ends = "".join(pieces), list(accumulate(map(len, pieces), initial=0))
        borders = set(ends)
        for size, heads in self._heads.items():
            for start in ends:
                for text in heads.get(letters[start : start + size], ()):
                    end = start + len(text.letters)
                    if letters.startswith(text.letters, start) and (end in borders or len(text.letters) >= _SURE):
                        yield text

    def _edited(self, words: Sequence[str]) -> Iterator[_Text]:
        """Yield the texts whose own words are among some words in a row, but for at most one."""
        own = [word for word in words if word not in self._common] if self._runs else []
        for start, run in enumerate(zip(*(own[at:] for at in range(_RUN)), strict=False)):
            for text, place in self._runs.get(run, ()):
                if _but_for_one(text.own, place, own, start):
                    yield text


def _but_for_one(text: Sequence[str], place: int, own: Sequence[str], start: int) -> bool:
    """Tell whether a text is in a row of words but for one, where its word at a place is the one at `start`."""
    behind = _edits(text[place:], own[start : start + len(text) - place + 1])
    before = _edits(text[:place][::-1], own[max(0, start - place - 1) : start][::-1])
    return behind + before <= 1


def _edits(text: Sequence[str], words: Sequence[str]) -> int:
    """Return 0 if the words begin with a text, 1 if they do when one is changed, added or left out, else 2."""
    same = next((at for at, pair in enumerate(zip(text, words, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        missing = len(text) - len(words)
        return min(max(missing, 0), 2)
    rest = tuple(text[same:])
    changed, added, left_out = words[same + 1 :], words[same + 1 :], words[same:]
    found = _begins(changed, rest[1:]) or _begins(added, rest) or _begins(left_out, rest[1:])
    return 1 if found else 2


def _begins(words: Sequence[str], text: Sequence[str]) -> bool:
    return tuple(words[: len(text)]) == tuple(text)


def _protected(row: Example, prompt: Plain) -> Iterator[tuple[Plain, int]]:
    """Yield a held-out row's texts and how many words of its own each has to have."""
    yield prompt, _LEAST
    turns = [message["content"] for message in row.messages if message["role"] not in _INSTRUCTING]
    for text in (*(turns if len(turns) > 1 else ()), row.response):
        yield plain(text), _LONG


_INSTRUCTING = ("system", "developer")


def _prompt(row: Example) -> Plain:
    """Return the words of all turns but the system's."""
    turns = [plain(message["content"]) for message in row.messages if message["role"] not in _INSTRUCTING]
    return Plain([word for turn in turns for word in turn.words], [piece for turn in turns for piece in turn.pieces])


def _others(row: Example) -> Iterator[Plain]:
    """Yield the words of the other texts of a row."""
    yield plain(row.response)
    yield from (plain(message["content"]) for message in row.messages if message["role"] in _INSTRUCTING)


class Plain(NamedTuple):
    """A text without its dress."""

    words: list[str]
    """What stands between white space, without signs: `well-known` is one word."""
    pieces: list[str]
    """What stands between signs, too: `well-known` is two."""

    @property
    def letters(self) -> str:
        """All of them in a row."""
        return "".join(self.pieces)


def _decoded(found: re.Match[str]) -> str:
    """Return the signs that a row of escapes stands for."""
    return bytes.fromhex(found[0].replace("\\u", "")).decode("utf-16-be", errors="replace")


def plain(text: str) -> Plain:
    """Return a text's words in order, however they are dressed."""
    if "&" in text:
        text = html.unescape(text)
    if "\\" in text:
        text = _ESCAPED.sub(" ", _CODED.sub(_decoded, text))
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    text = _SPEAKER.sub(" ", text) if ":" in text else text
    folded = unicodedata.normalize("NFKC", _WITHIN.sub("", text).casefold())
    if folded.isascii():
        return Plain(_ASCII_SIGN.sub("", folded).split(), _ASCII_WORD.findall(folded))
    return Plain(_WORD.findall(_SIGN.sub("", folded)), _WORD.findall(folded))
