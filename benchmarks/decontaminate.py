"""Decontamination: what becomes of 500 dev and test items that are planted among 50,000 rows, and of 5,000 clean ones.

    python benchmarks/decontaminate.py [ROWS.jsonl]

Made-up rows: prompts of 3 to 60 words by Zipf's law from one of forty topics, a tenth with several turns, responses of
1 to 80 words, a fifth of them labels. Of 300 dev and test rows, items are planted verbatim, normalised (case, signs,
white space, Unicode forms), contained in other prose, short ones (three to seven words) both ways, with one word
changed, added or left out, and wrapped (broken lines, quotation marks, code fences, comments, escapes, speakers).
Which rows the filter takes is asked in two orders (the first seed). With a file of real rows (`messages`), its rows are
the dev and test items and the rest is as made; nothing of it is stored.
"""

from __future__ import annotations

import json
import os
import random
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import measure

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.curate import Curator
from llamaduo.records import Example, prompt_id

PLANTED, ROWS, CLEAN, HELD_OUT, TRAIN = 500, 50_000, 5_000, 300, 300
ALL_OF = ("verbatim", "normalised", "contained", "short", "short, contained")
MOST_OF = ("one word changed", "one word added", "one word left out", "wrapped")
MOST, LOST = 0.95, 0.01
TARGET = (
    "all verbatim, normalised, contained and short items; 95% of one-word edits and of wrapped ones; 1% of 5,000 lost"
)
LABELS = ("billing", "delivery", "returns", "account", "yes", "no", "I don't know.")


class World:
    """Words, topics and rows made of them."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        syllables = [first + vowel for first in "bcdfglmnprstvz" for vowel in "aeiou"]
        self.words = ["".join(self.draw.choices(syllables, k=self.draw.choice((1, 2, 2, 3)))) for _ in range(8_000)]
        self.topics = [self.draw.sample(range(8_000), 300) for _ in range(40)]

    def text(self, count: int, topic: Sequence[int]) -> str:
        """Return words of a topic between frequent ones, with signs as people set them."""
        draw, found = self.draw, []
        for _ in range(count):
            at = draw.choice(topic) if draw.random() < 0.6 else min(int(draw.paretovariate(0.8)), 7_999)
            found.append(self.words[at] + draw.choice(("", "", "", "", "", ",", ".", "'s", "?")))
        return " ".join(found).capitalize()

    def row(self, count: int | None = None) -> Example:
        """Return a pair; `count` is of the words of its prompt."""
        draw, topic = self.draw, self.draw.choice(self.topics)
        several = count is None and draw.random() < 0.1
        turns = [self.text(count or draw.randrange(8, 60), topic) for _ in range(3 if several else 1)]
        messages = [{"role": ("user", "assistant")[at % 2], "content": turn} for at, turn in enumerate(turns)]
        response = draw.choice(LABELS) if draw.random() < 0.2 else self.text(draw.randrange(1, 80), topic)
        return pair(messages, response)


def pair(messages: Sequence[dict[str, str]], response: str) -> Example:
    """Return a row of a service LLM."""
    return Example(prompt_id(tuple(messages)), tuple(messages), response, "made")


def single(text: str, response: str) -> Example:
    """Return a row of one turn."""
    return pair([{"role": "user", "content": text}], response)


def normalised(text: str, draw: random.Random) -> str:
    """Return a text written otherwise, in one to three ways."""
    ways: list[Callable[[str], str]] = [
        str.upper,
        lambda text: "".join(" " if unicodedata.category(c)[0] == "P" else c for c in text),
        lambda text: text.replace(" ", draw.choice(("  ", "\n", "\t", "\u00a0", "\u3000"))),
        lambda text: unicodedata.normalize(draw.choice(("NFD", "NFKD")), text),
        lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        lambda text: text.replace("e", "e\u200b", 2),
        lambda text: text.replace("'", "\u2019"),
        lambda text: text.rstrip(".?!") + "!!",
    ]
    for way in draw.sample(ways, draw.randrange(1, 4)):
        text = way(text)
    return text


def wrapped(text: str, draw: random.Random) -> str:
    """Return a text in another dress."""
    lines = textwrap.wrap(text, draw.choice((24, 40, 72))) or [text]
    return draw.choice((
        lambda: "\n".join(lines),
        lambda: "\n".join(f"> {line}" for line in lines),
        lambda: f'Somebody asked: "{text}" What would you say?',
        lambda: f"```\n{text}\n```\nExplain this.",
        lambda: "def ask():\n" + "\n".join(f"    # {line}" for line in lines),
        lambda: json.dumps({"question": "\n".join(lines)}),
        lambda: f"User: {text}\nAssistant:",
        lambda: f"\u201c{text}\u201d \u2014 please, answer in one line.",
        lambda: f"- **{text}**\n- and something else",
    ))()  # fmt: skip


def edited(text: str, kind: str, world: World) -> str:
    """Return a text with one word changed, added or left out."""
    words, draw = text.split(), world.draw
    at, new = draw.randrange(len(words)), draw.choice(world.words)
    words[at : at + (kind != "one word added")] = [] if kind == "one word left out" else [new]
    return " ".join(words)


def planted(world: World, held_out: Sequence[Example], count: int) -> Iterator[tuple[str, str, Example]]:
    """Yield how an item is planted, which one it is, and the row that holds it."""
    draw, kinds = world.draw, (*ALL_OF, *MOST_OF)
    short = [row for row in held_out if len(row.messages) == 1 and 3 <= len(row.prompt.split()) < 8]
    long = [row for row in held_out if len(row.messages) > 1 or len(row.prompt.split()) >= 8]
    for number in range(count):
        kind = kinds[number % len(kinds)]
        its = draw.choice(short if kind.startswith("short") and short else long)
        of_response = not kind.startswith("short") and draw.random() < 0.3 and len(its.response.split()) >= 12
        text = its.response if of_response else "\n".join(turn["content"] for turn in its.messages)
        around = [world.text(draw.randrange(8, 30), draw.choice(world.topics)) for _ in range(2)]
        if kind == "verbatim":
            made = pair(its.messages, around[0]) if not of_response else single(around[0], text)
            yield kind, its.prompt_id, made
            continue
        if kind in {"short", "normalised"}:
            shown = normalised(text, draw)
        elif kind.endswith("contained"):
            shown = f"{around[0]}. {text} {around[1]}"
        elif kind == "wrapped":
            shown = wrapped(text, draw)
        else:
            shown = edited(text, kind, world)
        in_response = kind not in ("short", "normalised") and draw.random() < 0.3
        yield kind, its.prompt_id, single(around[0], shown) if in_response else single(shown, around[1])


def taken(rows: Sequence[Example], train: Sequence[Example], held_out: Sequence[Example]) -> tuple[set[int], float]:
    """Return the rows that the filter takes, and its processor seconds."""
    start = time.process_time()
    config = Curation(filters=[CurationFilter.contamination])
    found = Curator(known=train, held_out=held_out, config=config).take(rows)
    return {removal.row for removal in found.removed}, time.process_time() - start


def real(path: str) -> list[Example]:
    """Return the rows of a file of messages."""
    lines = (json.loads(line)["messages"] for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [pair([{"role": one["role"], "content": one["content"]} for one in turns[:-1]], turns[-1]["content"])
            for turns in lines]  # fmt: skip


def measured(seed: int, quick: bool, files: Sequence[str]) -> dict[str, Any]:
    """Plant, curate in two orders, and count."""
    world = World(seed)
    rows, clean, count = (2_000, 1_000, 180) if quick else (ROWS, CLEAN, PLANTED)
    train = [world.row() for _ in range(TRAIN)]
    train = [Example(row.prompt_id, row.messages, row.response) for row in train]
    held_out = [row for file in files for row in real(file)] or [
        world.row(world.draw.randrange(3, 8) if number % 5 == 0 else None) for number in range(HELD_OUT)
    ]
    leaks = list(planted(world, held_out, count))
    others = [world.row(world.draw.randrange(3, 8) if number % 9 == 0 else None) for number in range(rows - count)]
    kinds: list[str | None] = [*(kind for kind, _, _ in leaks), *[None] * len(others)]
    everything = [*(row for _, _, row in leaks), *others]
    order = world.draw.sample(range(len(everything)), len(everything))
    removed, seconds = taken([everything[at] for at in order], train, held_out)
    first = {order[at] for at in removed}
    second = first if seed else taken(everything, train, held_out)[0]
    shares = {kind: [at in first for at, its in enumerate(kinds) if its == kind] for kind in (*ALL_OF, *MOST_OF)}
    lost = sum(at in first for at in range(count, count + clean))
    return {
        "seed": seed, "found": {kind: sum(hits) / len(hits) for kind, hits in shares.items()},
        "n": {kind: len(hits) for kind, hits in shares.items()}, "lost": lost, "clean": clean,
        "same_in_another_order": first == second, "cpu_seconds": round(seconds, 1), "rows": rows,
        "missed": [everything[at].messages[-1]["content"][:200] for at in range(count) if at not in first][:5]
        if not files else [],
    }  # fmt: skip


def main() -> int:
    """Measure, print and conclude."""
    wanted, load = measure.options(__doc__ or ""), os.getloadavg()
    found = [measured(seed, wanted.quick, wanted.overrides) for seed in range(1 if wanted.quick else 3)]
    for one in found:
        told = ", ".join(f"{kind} {share:.1%} of {one['n'][kind]}" for kind, share in one["found"].items())
        measure.say(f"seed {one['seed']}: {told}; {one['lost']} of {one['clean']:,} clean rows lost; "
                    f"{one['rows']:,} rows in {one['cpu_seconds']} s of the processor")  # fmt: skip
    least = {kind: min(one["found"][kind] for one in found) for kind in (*ALL_OF, *MOST_OF)}
    lost = max(one["lost"] / one["clean"] for one in found)
    same = all(one["same_in_another_order"] for one in found)
    holds = (
        all(least[kind] == 1 for kind in ALL_OF)
        and all(least[kind] >= MOST for kind in MOST_OF)
        and lost <= LOST
        and same
    )
    spread = {**{kind: round(share, 4) for kind, share in least.items()}, "clean_lost": lost, "order": same}
    note = f"the worst of {len(found)} seeds; {found[0]['n']} items by kind"
    figure = round(min(least.values()), 4)
    result = measure.Result("decontaminate", figure, "least share found of a kind", TARGET, holds,
                            sum(found[0]["n"].values()), spread, note)  # fmt: skip
    measure.conclude(result, found, wanted, load)
    return int(not holds)


if __name__ == "__main__":
    raise SystemExit(main())
