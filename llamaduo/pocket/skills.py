"""The generic skills that the pocket base models are made of: short questions about lists of made-up words.

None of them is one of the four pocket tasks. Two items, as drawn:

    Vimo = Vari, muvi = Zozufi, Fesu = resi      riva Beva sagulu -> sagulu (riva)
                                                 tafe kuva dobi
    Fesu?
    -> resi                                      -> dobi (tafe)
"""

from __future__ import annotations

import random

from llamaduo.pocket.words import ENGLISH, made_up_word

_ORDINARY = (*ENGLISH.split(), *"0123456789")


def _some_words(rng: random.Random, low: int, high: int) -> list[str]:
    words: dict[str, None] = {}
    count = rng.randint(low, high)
    while len(words) < count:
        word = rng.choice(_ORDINARY) if rng.random() < 0.2 else made_up_word(rng)
        words[word.capitalize() if rng.random() < 0.4 else word] = None
    return list(words)


def _repeat(rng: random.Random) -> tuple[str, str]:
    text = " ".join(_some_words(rng, 2, 6))
    return f"{rng.choice(('repeat', 'say', 'copy'))}: {text}", text


def _look_up(rng: random.Random) -> tuple[str, str]:
    words = _some_words(rng, 4, 10)
    pairs = list(zip(words[::2], words[1::2], strict=False))
    key, value = rng.choice(pairs)
    joint = rng.choice((": ", " is ", " = ", " -> "))
    listing = rng.choice((", ", "; ", ". ", "\n")).join(k + joint + v for k, v in pairs)
    return f"{listing}\n\n{key}?", value


def _first_or_last(rng: random.Random) -> tuple[str, str]:
    words = _some_words(rng, 3, 7)
    index, name = rng.choice(((0, "first"), (-1, "last"), (1, "second"), (2, "third")))
    return f"{' '.join(words)}\n\n{name}?", words[index]


def _neighbour(rng: random.Random) -> tuple[str, str]:
    words = _some_words(rng, 3, 8)
    index = rng.randrange(1, len(words))
    if rng.random() < 0.5:
        return f"{' '.join(words)}\n\nafter {words[index - 1]}?", words[index]
    return f"{' '.join(words)}\n\nbefore {words[index]}?", words[index - 1]


def _fill(rng: random.Random) -> tuple[str, str]:
    words = _some_words(rng, 3, 6)
    gap = rng.randrange(len(words))
    holed = [*words[:gap], "_", *words[gap + 1 :]]
    return f"{' '.join(holed)}\n\n_ = {words[gap]}", " ".join(words)


def _swap(rng: random.Random) -> tuple[str, str]:
    words = _some_words(rng, 2, 5)
    return f"{rng.choice(('swap', 'reverse'))}: {' '.join(words)}", " ".join(reversed(words))


_MARKS = (" ", ", ", ": ", " (", ") ", "; ", " - ", " = ", ". ", " + ", "\n", " [", "] ", " / ", "(", "):")


def _pattern(rng: random.Random) -> tuple[str, str]:
    """One or two worked examples of a made-up rewriting, then a new line to rewrite."""
    slots = rng.randint(1, 4)
    carrier = _some_words(rng, 0, 5)
    spots = sorted(rng.randint(0, len(carrier)) for _ in range(slots))
    chosen = [rng.randrange(slots) for _ in range(rng.randint(1, slots + 1))]
    marks = [rng.choice(_MARKS) for _ in range(len(chosen) + 1)]
    literal = _some_words(rng, 0, 2)
    where = rng.randint(0, len(chosen))

    def line(fillers: list[str]) -> str:
        words = list(carrier)
        for spot, filler in reversed(list(zip(spots, fillers, strict=True))):
            words.insert(spot, filler)
        return " ".join(words)

    def rewritten(fillers: list[str]) -> str:
        parts = [fillers[i] for i in chosen]
        parts.insert(where, " ".join(literal))
        text = "".join(part + marks[i % len(marks)] for i, part in enumerate(parts) if part)
        return text.strip()

    shown = []
    for _ in range(rng.randint(1, 2)):
        fillers = _some_words(rng, slots, slots)
        shown.append(f"{line(fillers)} -> {rewritten(fillers)}")
    fillers = _some_words(rng, slots, slots)
    return "\n".join([*shown, line(fillers)]), rewritten(fillers)


SKILLS = (_repeat, _look_up, _first_or_last, _neighbour, _fill, _swap, _pattern, _pattern, _pattern)
