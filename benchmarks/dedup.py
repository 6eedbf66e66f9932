"""Near-duplicates: whether all are found and nothing else, how time and memory grow, and today's peers beside it.

    python benchmarks/dedup.py

5,000 rows against all pairs, exactly; then 10,000 to 256,000 rows of about 300 characters through the filter `near` as
a run asks it, tokenising included, each in a process of its own: as `curation=default` compares (words and pairs of
words, 0.9) and by words alone (0.8). Beside it stand `data/alike.py`'s index and datasketch's LSH with the exact check
behind it, as far as they come in a minute. Rows are made up: words by Zipf's law, a fifth copied from earlier rows with
up to three words changed. The machine may be shared: processor seconds tell more than wall time.
"""

from __future__ import annotations

import functools
import itertools
import math
import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import measure

from llamaduo.config import Curation, CurationFilter, DuplicateText
from llamaduo.curation.curate import Curator
from llamaduo.data.alike import bag, index, turns, words
from llamaduo.records import Example

SIZES = (10_000, 32_000, 100_000, 256_000)
PEERS = {"alike.Index": 32_000, "datasketch": 32_000}
"""The most rows that each peer is given."""
HOW = {
    "default": Curation(DuplicateText.pair, 0.9, None, 0.8, [CurationFilter.near]),
    "words": Curation(DuplicateText.response, 0.8, None, 0.8, [CurationFilter.near]),
}
SECONDS, BYTES, RECALL, EXPONENT = 20.0, 2e9, 0.995, 1.2
TARGET = (
    f"256,000 rows within {SECONDS:g} s and 2 GB, exponent from 10,000 rows on at most {EXPONENT:g}; "
    f"of 5,000 rows recall at least {RECALL:g}, precision 1"
)
VOCABULARY = 60_000


def made(count: int, seed: int) -> Iterator[Example]:
    """Yield rows of about 300 characters, a fifth of them near others."""
    import numpy as np

    draw, rng = random.Random(seed), np.random.default_rng(seed)
    word = ["".join(draw.choice("bcdfglmnprst") + draw.choice("aeiou") for _ in range(draw.choice((1, 2, 2, 3))))
            for _ in range(VOCABULARY)]  # fmt: skip
    zipf = np.cumsum(1 / np.arange(1, VOCABULARY + 1))
    texts: list[Any] = []
    for number in range(count):
        if texts and draw.random() < 0.22:
            text = draw.choice(texts).copy()
            for _ in range(draw.randrange(4)):
                text[draw.randrange(len(text))] = draw.randrange(VOCABULARY)
        else:
            text = np.searchsorted(zipf, rng.random(draw.randrange(40, 78)) * zipf[-1]).astype(np.int32)
        texts.append(text)
        spelled = [word[at] for at in text]
        half = len(spelled) // 3
        messages = ({"role": "user", "content": " ".join(spelled[:half])},)
        yield Example(f"{number:016x}", messages, " ".join(spelled[half:]))


def curated(how: str, rows: list[Example]) -> set[int]:
    """Return the rows that the filter takes."""
    return {one.row for one in Curator(known=[], held_out=[], config=HOW[how]).take(rows).removed}


def bags(how: str, rows: list[Example]) -> list[frozenset[str]]:
    """Return what is compared of rows."""
    if HOW[how].duplicate_text is DuplicateText.response:
        return [frozenset(words(row.response)) for row in rows]
    return [bag([*turns(row), row.response]) for row in rows]


def by_index(how: str, rows: list[Example]) -> set[int]:
    """Return the rows that `data/alike.py`'s index takes."""
    asked, removed = bags(how, rows), set()
    kept = index([], asked, HOW[how].duplicate_jaccard)
    for number, one in enumerate(asked):
        if kept.matches(one):
            removed.add(number)
        else:
            kept.add(one)
    return removed


def by_datasketch(how: str, rows: list[Example]) -> set[int]:
    """Return the rows that datasketch's candidates and the exact check take."""
    from datasketch import MinHash, MinHashLSH

    least = HOW[how].duplicate_jaccard
    asked, removed = bags(how, rows), set()
    lsh = MinHashLSH(threshold=least, num_perm=128)
    hashes = MinHash.bulk([[member.encode() for member in one] for one in asked], num_perm=128)
    for number, (one, its) in enumerate(zip(asked, hashes, strict=True)):
        if any(len(one & asked[at]) >= least * len(one | asked[at]) for at in lsh.query(its)):
            removed.add(number)
        else:
            lsh.insert(number, its)
    return removed


def by_pairs(how: str, rows: list[Example]) -> set[int]:
    """Return the rows that comparing all pairs takes."""
    least = HOW[how].duplicate_jaccard
    asked, kept, removed = bags(how, rows), [], set()
    for number, one in enumerate(asked):
        if any(
            (both := len(one & other)) and both / (len(one) + len(other) - both) >= least
            for other in kept
            if least * len(one) <= len(other) + 1e-9 and least * len(other) <= len(one) + 1e-9
        ):
            removed.add(number)
        else:
            kept.append(one)
    return removed


METHODS: dict[str, Callable[[str, list[Example]], set[int]]] = {
    "llamaduo": curated, "alike.Index": by_index, "datasketch": by_datasketch, "all pairs": by_pairs,
}  # fmt: skip


def measured(method: str, how: str, count: int) -> dict[str, Any]:
    """Return what a method took, in this process, and which rows."""
    rows = list(made(count, seed=count))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.perf_counter(), time.process_time()
    removed = METHODS[method](how, rows)
    spent = {"seconds": round(time.perf_counter() - wall, 2), "cpu_seconds": round(time.process_time() - cpu, 2)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "method": method, "how": how, "rows": count, "characters": sum(map(len, map(_text, rows))) // count, **spent,
        "peak_bytes": peak * unit, "bytes_before": before * unit, "removed": sorted(removed),
    }  # fmt: skip


def _text(row: Example) -> str:
    return row.prompt + row.response


def alone(method: str, how: str, count: int) -> dict[str, Any]:
    """Measure in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(functools.partial(measured, method, how, count))
    measure.say(
        f"{method}, {how}, {count:,} rows of {found['characters']} characters: {found['seconds']} s, "
        f"{found['cpu_seconds']} s of the processor, {found['peak_bytes'] / 1e9:.2f} GB, "
        f"{len(found['removed']):,} removed"
    )
    return found


def accuracy(how: str, count: int) -> dict[str, Any]:
    """Compare with all pairs."""
    truth, ours = (set(alone(method, how, count)["removed"]) for method in ("all pairs", "llamaduo"))
    both = len(truth & ours)
    return {"how": how, "rows": count, "truth": len(truth), "removed": len(ours), "recall": both / len(truth),
            "precision": both / len(ours)}  # fmt: skip


def exponent(found: list[dict[str, Any]]) -> float:
    """Return the slope of processor time over rows, both as logarithms."""
    x, y = ([math.log(row[name]) for row in found] for name in ("rows", "cpu_seconds"))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    return round(slope, 3)


def main() -> int:
    """Measure, print and conclude."""
    wanted, load = measure.options(__doc__ or ""), os.getloadavg()
    sizes = SIZES[:1] if wanted.quick else SIZES
    exact = [accuracy(how, 2_000 if wanted.quick else 5_000) for how in HOW]
    ours = {how: [alone("llamaduo", how, size) for size in sizes] for how in HOW}
    peers = [alone(peer, how, size) for peer, how, size in itertools.product(PEERS, HOW, sizes) if size <= PEERS[peer]]
    exponents = {how: exponent(found) for how, found in ours.items()} if len(sizes) > 1 else {}
    last = [found[-1] for found in ours.values()]
    holds = all(one["recall"] >= RECALL and one["precision"] == 1 for one in exact) and (
        wanted.quick
        or (all(one["cpu_seconds"] <= SECONDS and one["peak_bytes"] <= BYTES for one in last)
            and max(exponents.values()) <= EXPONENT)
    )  # fmt: skip
    raw = {"accuracy": exact, "ours": ours, "peers": peers, "exponents": exponents}
    for row in (*itertools.chain(*ours.values()), *peers):
        row["removed"] = len(row["removed"])
    spread = {"cpu_seconds": {one["how"]: one["cpu_seconds"] for one in last},
              "wall_seconds": {one["how"]: one["seconds"] for one in last},
              "gigabytes": {one["how"]: round(one["peak_bytes"] / 1e9, 2) for one in last}, "exponents": exponents,
              **{name: min(one[name] for one in exact) for name in ("recall", "precision")}}  # fmt: skip
    note = f"one process, load {load[0]:.1f} before; --quick leaves out all but 10,000 rows" if wanted.quick else (
        f"one process and one core, its processor seconds; load {load[0]:.1f} before")  # fmt: skip
    figure = max(one["cpu_seconds"] for one in last)
    result = measure.Result("dedup", figure, f"s for {sizes[-1]:,} rows", TARGET, None if wanted.quick else holds,
                            sizes[-1], spread, note)  # fmt: skip
    measure.conclude(result, raw, wanted, load)
    return int(not holds)


if __name__ == "__main__":
    raise SystemExit(main())
