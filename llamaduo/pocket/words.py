"""Made-up words: the names, places and goods of the pocket tasks.

A word is two or three open syllables (`bako`, `rimutu`), so a small tokenizer spells it in two or
three tokens and no base model can have met it with a meaning. The lists are closed and fixed: they
depend on the constants below and on nothing else. Each list is cut into three regions of 100 words, its
vocabulary regions: an item of a slice takes all its words from one.
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

REGIONS = ("north", "middle", "south")
"""The thirds of each list, by the place of their words in it."""


def of_region(words: tuple[str, ...], region: str) -> tuple[str, ...]:
    """Return a region's third of one of the lists above."""
    size = len(words) // len(REGIONS)
    start = REGIONS.index(region) * size
    return words[start : start + size]


# Ordinary words, so that plain English is spelled in pieces of some length. No task sentence is here.
ENGLISH = """the a an and or of to in on at by for with from is are was were be been has have had it its
this that these those he she they we you i his her their our your my me them us as if then else when where
which who what why how not no yes all any some each every more most less few many much one two three four
five six seven eight nine ten first last next before after about into over under between during without
can could will would should may might must do does did done make made take takes taken give gave given get
got go went gone come came see saw seen know knew known think thought say said tell told ask asked write
wrote written read work worked use used find found want wanted need needed help call called try tried
order ordered send sent show shown look looked turn start stop open close change create return returns
function value list string number name text word line code file data user answer question example
please thank time day week month year monday tuesday wednesday thursday friday saturday sunday morning
evening red green blue white black yellow good bad new old large small long short high low right wrong
city country house street people person customer company product price service account system problem
summarize classify ticket category label print import class def true false none plus minus times"""
