"""How coverage rows are split into train, dev and test, near-duplicates together.

The split is by cluster: near-duplicate prompts (`alike.py`) go into one split together. A cluster's place is drawn from
the seed and the hash of its member with the smallest prompt id, so the order of rows doesn't matter. With fractions,
rows that are added later move no row that they are not alike to. One that joins a cluster of k moves it in one case of
k + 1 (when its own id is the smallest), and can make one of two clusters; and what most prompts share, which doesn't
make them alike, is asked of all rows. With fixed numbers, rows that are added can move any other. There whole clusters
are taken until the number is reached; one that is larger than what is missing is passed over, as long as there is
another that fits: more rows than were asked for come only where all clusters that are left are too large.

With `data.dev_least` and `data.test_least`, these splits get more than their fraction of few rows, at most a quarter of
all: limits need prompts. Rows that are added later then move some to train. The Hub's test split is completed likewise.

Rows with a `split` of their own (on the Hub: of a data set with one table), and the Hub's test split, stay where they
are; near-duplicates in two splits are counted and noted.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from llamaduo.config import Data
from llamaduo.data.alike import bag, groups, turns
from llamaduo.data.dataset import CoverageDataset
from llamaduo.errors import InputError
from llamaduo.records import Example

SPLITS = ("train", "dev", "test")


def place_of(seed: int, prompt: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the prompt alone."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def clustered(rows: Sequence[Example]) -> list[Example]:
    """Return the rows, each with its cluster: the smallest id among its near-duplicates and its own."""
    members: dict[int, list[str]] = defaultdict(list)
    numbers = groups([bag(turns(row)) for row in rows])
    for row, number in zip(rows, numbers, strict=True):
        members[number].append(row.prompt_id)
    names = {number: min(ids) if len(ids) > 1 else None for number, ids in members.items()}
    return [replace(row, cluster=names[number]) for row, number in zip(rows, numbers, strict=True)]


def split(rows: Sequence[Example], data: Data, *, test_rows: int | None) -> CoverageDataset:
    """Cut the clusters, in the order of their places, into test, dev and train; a number overrides a fraction."""
    rows = sorted(rows, key=lambda row: place_of(data.seed, row.prompt_id))
    sizes = Counter(_cluster(row) for row in rows)
    places = {name: place_of(data.seed, name) for name in sizes}
    left = dict(sorted(sizes.items(), key=lambda item: places[item[0]]))
    quarter = len(rows) // 4
    test = _part(left, places, 0.0, _Wanted(test_rows, data.test_fraction, min(data.test_least, quarter)))
    begin = max([data.test_fraction if test_rows is None else 0.0, *(places[name] for name in test)])
    left = {name: size for name, size in left.items() if name not in test}
    dev = _part(left, places, begin, _Wanted(data.dev_rows, data.dev_fraction, min(data.dev_least, quarter)))
    train = [row for row in rows if _cluster(row) not in test | dev]
    return CoverageDataset(
        train=tuple(train[: data.train_rows]),
        dev=tuple(row for row in rows if _cluster(row) in dev),
        test=tuple(row for row in rows if _cluster(row) in test),
    )


class _Wanted(NamedTuple):
    """How many rows a split gets: a number, or a fraction of all and at least so many."""

    rows: int | None
    fraction: float
    least: int


def _part(sizes: Mapping[str, int], places: Mapping[str, float], begin: float, wanted: _Wanted) -> set[str]:
    """Return the clusters of a split, those whose places come first from `begin` on."""
    if wanted.rows is not None:
        return _whole(sizes, wanted.rows)
    found = {name for name in sizes if begin <= places[name] < begin + wanted.fraction}
    if not wanted.fraction or sum(sizes[name] for name in found) >= wanted.least:
        return found
    return _whole({name: size for name, size in sizes.items() if places[name] >= begin}, wanted.least)


def _cluster(row: Example) -> str:
    return row.cluster or row.prompt_id


def _whole(sizes: Mapping[str, int], wanted: int) -> set[str]:
    """Return the first clusters that have `wanted` rows together, without any that is larger than what is missing.

    Where only larger ones are left, the first of them is taken.
    """
    taken, passed = [], []
    for name, size in sizes.items():
        if size <= wanted:
            taken.append(name)
            wanted -= size
        else:
            passed.append(name)
    return {*taken, *(passed[:1] if wanted else [])}


def by_name(examples: list[Example], named: list[tuple[str, Any]], data: Data) -> CoverageDataset:
    """Return the data of rows that name their splits; raises InputError where one names none or another."""
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for example, (place, name) in zip(examples, named, strict=True):
        if name not in splits:
            raise InputError(f"{place}: `split` is {name!r}; every row needs train, dev or test, or no row any.")
        splits[name].append(example)
    return CoverageDataset(
        train=tuple(splits["train"][: data.train_rows]),
        dev=tuple(splits["dev"][: data.dev_rows]),
        test=tuple(splits["test"][: data.test_rows]),
    )


def by_column(examples: list[Example], named: list[tuple[str, Any]], data: Data) -> CoverageDataset:
    """Return the data of a Hub data set of one table, whose rows name their splits."""
    rows = grouped(examples, [name for _, name in named])
    if rows.keys() <= {"train", "test"} and "test" in rows:
        return with_own_test(rows["train"], rows["test"], data)
    return (
        split(examples, data, test_rows=data.test_rows) if rows.keys() == {"train"} else by_name(examples, named, data)
    )


def with_own_test(train: list[Example], test: list[Example], data: Data) -> CoverageDataset:
    """Return the data of rows that come with a test split, which is completed from the others up to `test_least`."""
    test = sorted(test, key=lambda row: place_of(data.seed, row.prompt_id))[: data.test_rows]
    more = max(0, min(data.test_least, (len(train) + len(test)) // 4) - len(test))
    dataset = split(train, data, test_rows=more)
    return replace(dataset, test=(*test, *dataset.test))


def grouped(examples: Sequence[Example], names: Sequence[Any]) -> dict[Any, list[Example]]:
    """Return the examples by the names of their splits."""
    found: dict[Any, list[Example]] = defaultdict(list)
    for example, name in zip(examples, names, strict=True):
        found[name].append(example)
    return found


def near_duplicates_told(dataset: CoverageDataset) -> tuple[str, ...]:
    """Return what there is to say about near-duplicates."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in SPLITS:
        for row in getattr(dataset, name):
            members[_cluster(row)].append(name)
    rows = sum(map(len, members.values()))
    alike = sum(len(names) for names in members.values() if len(names) > 1)
    held_out = len(dataset.dev) + len(dataset.test)
    astray = sum(len(names) - names.count("train") for names in members.values() if len(set(names)) > 1)
    notes = []
    if alike:
        notes.append(
            f"{alike:,} of {rows:,} coverage rows are near-duplicates of others: together they are {len(members):,} "
            "requests, and intervals are over requests."
        )
    if astray:
        notes.append(
            f"{astray:,} of {held_out:,} dev and test rows have a near-duplicate in another split, so that memory can "
            "pass for skill: they stay where the data put them; move them, or leave the split to llamaduo."
        )
    return tuple(notes)
