"""From a data source to a CoverageDataset: read, check, split.

The split is by prompt: a prompt's place is drawn from its own hash and the seed, so equal prompts can't
fall apart. With fractions, rows that are added later move no other row; with fixed numbers they can.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamaduo.config import Data, DataSource, Experiment, GateSplit
from llamaduo.data.formats import read_example, read_rows
from llamaduo.errors import InputError, ServiceError
from llamaduo.records import CoverageDataset, Example, prompt_id

SPLITS = ("train", "dev", "test")


def load_coverage(experiment: Experiment, pocket_pairs: list[tuple[str, str]]) -> CoverageDataset:
    """Return the experiment's coverage data; `pocket_pairs` are used when it asks for the pocket tasks.

    Raises InputError where data can't be used, ServiceError where the Hub can't be reached.
    """
    data = experiment.data
    if data.source is DataSource.pocket:
        rows = [_pair(prompt, response) for prompt, response in pocket_pairs]
        dataset = _split(rows, data, test_rows=data.test_rows)
    elif data.source is DataSource.file:
        dataset = _from_file(data)
    else:
        dataset = _from_hub(data)
    _check(dataset, experiment)
    return dataset


def _pair(prompt: str, response: str) -> Example:
    messages = ({"role": "user", "content": prompt},)
    return Example(prompt_id(messages), messages, response)


def _place(seed: int, prompt: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the prompt alone."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _split(rows: list[Example], data: Data, *, test_rows: int | None) -> CoverageDataset:
    """Cut the rows, in the order of their places, into test, dev and train; a number overrides a fraction."""
    rows = sorted(rows, key=lambda row: _place(data.seed, row.prompt_id))
    places = [_place(data.seed, row.prompt_id) for row in rows]
    test_end = bisect_left(places, data.test_fraction) if test_rows is None else min(test_rows, len(rows))
    begin = data.test_fraction if test_rows is None else (places[test_end - 1] if test_end else 0.0)
    by_fraction = bisect_left(places, begin + data.dev_fraction, lo=test_end)
    dev_end = by_fraction if data.dev_rows is None else min(test_end + data.dev_rows, len(rows))
    train = rows[dev_end:]
    return CoverageDataset(
        train=tuple(train[: data.train_rows]), dev=tuple(rows[test_end:dev_end]), test=tuple(rows[:test_end])
    )


def _from_file(data: Data) -> CoverageDataset:
    assert data.path is not None  # checked by config.problems
    path = Path(data.path)
    placed = [(place, row) for place, row in read_rows(path) if _wanted(row, data.category)]
    if not placed:
        raise InputError(f"{path}: no row has category {data.category!r}; set data.category to one that exists.")
    examples = _distinct([(place, read_example(row, place)) for place, row in placed])
    if any(row.get("split") for _, row in placed):
        return _by_name(examples, [(place, row.get("split")) for place, row in placed], data)
    return _split(examples, data, test_rows=data.test_rows)


def _wanted(row: dict[str, Any], category: str | None) -> bool:
    return category is None or row.get("category") == category


def _distinct(placed: Iterable[tuple[str, Example]]) -> list[Example]:
    """Return the examples; raises InputError when a prompt is there twice."""
    seen: dict[str, str] = {}
    examples = []
    for place, example in placed:
        first = seen.setdefault(example.prompt_id, place)
        if first is not place:
            raise InputError(f"{place}: the same prompt as {first}; keep one of the two rows.")
        examples.append(example)
    return examples


def _by_name(examples: list[Example], named: list[tuple[str, Any]], data: Data) -> CoverageDataset:
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


def _from_hub(data: Data) -> CoverageDataset:
    from datasets import get_dataset_split_names, load_dataset

    assert data.path is not None
    try:
        names = get_dataset_split_names(data.path, revision=data.revision)
        tables = {name: load_dataset(data.path, split=name, revision=data.revision) for name in names}
    except Exception as error:  # the Hub client raises many kinds
        reason = " ".join(str(error).split())[:200]
        raise ServiceError(
            f"data set {data.path}@{data.revision} can't be loaded ({type(error).__name__}: {reason}). "
            "Check the network and the name, or take data=file."
        ) from error
    return _from_tables(tables, data)


def _from_tables(tables: Mapping[str, Iterable[Any]], data: Data) -> CoverageDataset:
    """Return the data of a Hub data set's tables by split; a prompt that a split repeats is kept once, and said."""
    rows: dict[str, list[Example]] = {name: [] for name in tables}
    seen: dict[str, str] = {}
    kept: set[str] = set()
    repeated = 0
    for name, table in tables.items():
        for number, row in enumerate(table):
            place = f"{data.path} {name}[{number}]"
            if not _wanted(row, data.category):
                continue
            example = read_example(dict(row), place)
            first = seen.setdefault(example.prompt_id, name)
            if first != name:
                raise InputError(f"{place}: its prompt is in the split {first} too; take another data set or revision.")
            if example.prompt_id in kept:
                repeated += 1
                continue
            kept.add(example.prompt_id)
            rows[name].append(example)
    test = next((rows[name] for name in rows if name.startswith("test")), [])
    train = [row for name in rows if name.startswith("train") for row in rows[name]]
    notes = (f"{repeated} rows repeat a prompt of {data.path}: the first of each is kept.",) if repeated else ()
    if not test:
        return replace(_split(train, data, test_rows=data.test_rows), notes=notes)
    test = sorted(test, key=lambda row: _place(data.seed, row.prompt_id))[: data.test_rows]
    return replace(_split(train, data, test_rows=0), test=tuple(test), notes=notes)


def _check(dataset: CoverageDataset, experiment: Experiment) -> None:
    sizes = {name: len(getattr(dataset, name)) for name in SPLITS}
    needed = ["test"] + (["dev"] if experiment.protocol.gate_split is GateSplit.dev else [])
    if experiment.loop.growth.include_coverage or experiment.synthesis.enabled:
        needed.append("train")
    empty = [name for name in needed if sizes[name] == 0]
    if empty:
        have = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise InputError(
            f"the {empty[0]} split is empty ({have}): add rows, or change data.{empty[0]}_rows or data.*_fraction."
        )
