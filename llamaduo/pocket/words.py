"""Made-up words: the names, places and goods of the pocket tasks.

A word is two or three open syllables (`bako`, `rimutu`), so a small tokenizer spells it in two or
three tokens and no base model can have met it with a meaning. The lists are closed and fixed: they
depend on the constants below and on nothing else.
"""

from __future__ import annotations

import random

CONSONANTS = "bdfgklmnprstvz"
VOWELS = "aeiou"
SYLLABLES = tuple(c + v for c in CONSONANTS for v in VOWELS)


def made_up_word(rng: random.Random) -> str:
    """Return one made-up word of two (three times in four) or three syllables."""
    return "".join(rng.choice(SYLLABLES) for _ in range(rng.choice((2, 2, 2, 3))))


def _closed_list(seed: int, size: int) -> tuple[str, ...]:
    rng = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < size:
        words[made_up_word(rng)] = None
    return tuple(words)


NAMES = tuple(word.capitalize() for word in _closed_list(1, 300))
CITIES = tuple(word.capitalize() for word in _closed_list(2, 300))
GOODS = _closed_list(3, 300)
IDENTIFIERS = _closed_list(4, 300)
