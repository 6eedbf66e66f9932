"""From a data source to a CoverageDataset: read, check, split.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from llamaduo.config import Data, DataSource, Experiment, GateSplit
from llamaduo.data.alike import bag, groups, turns
from llamaduo.data.dataset import CoverageDataset
from llamaduo.data.formats import read_example, read_files
from llamaduo.data.heeded import SetAside
from llamaduo.data.keys import refuse_keys
from llamaduo.data.readers import HEADER_AGAIN
from llamaduo.data.tally import Tally
from llamaduo.errors import InputError, ServiceError
from llamaduo.files.data_path import named, split_names, split_word
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example, prompt_id

SPLITS = ("train", "dev", "test")
_NAMED = 3


def load_coverage(experiment: Experiment) -> CoverageDataset:
    """Return the experiment's coverage data, split.

    Raises InputError where data can't be used, ServiceError where the Hub can't be reached.
    """
    data = experiment.data
    tally = _tally(data)
    if data.source is DataSource.pocket:
        dataset = _from_pocket(experiment.task.name, data, tally)
    elif data.source is DataSource.file:
        dataset = _from_file(data, tally)
    else:
        dataset = _from_hub(data, tally)
    _check(dataset, experiment, tally)
    return replace(dataset, notes=_notes(dataset), account=tally.account(dataset), places=tally.places)


def _tally(data: Data) -> Tally:
    if data.source is DataSource.pocket:
        return Tally("the pocket tasks, made up")
    if data.source is DataSource.hub:
        return Tally(f"{data.path}@{data.revision}")
    found = named(str(data.path))
    shown = ", ".join(found.passed_over[:_NAMED]) + (" ..." if len(found.passed_over) > _NAMED else "")
    notes = [f"files that are not read: {len(found.passed_over)} ({shown})."] if found.passed_over else []
    files = f" ({len(found.files)} files)" if len(found.files) > 1 else ""
    return Tally(f"{data.path}{files}", notes)


def _from_pocket(task: str, data: Data, tally: Tally) -> CoverageDataset:
    count = (data.train_rows or 0) + (data.dev_rows or 0) + (data.test_rows or 0)
    rows = [_pair(prompt, response) for prompt, response in make_pairs(task, count, data.seed)]
    for number, row in enumerate(rows):
        tally.take(row, {}, f"made-up row {number}")
    return _split(_clustered(rows), data, test_rows=data.test_rows)


def _pair(prompt: str, response: str) -> Example:
    messages = ({"role": "user", "content": prompt},)
    return Example(prompt_id(messages), messages, response)


def _place(seed: int, prompt: str) -> float:
    """Return a number in [0, 1) that depends on the seed and the prompt alone."""
    digest = hashlib.sha256(f"{seed} {prompt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _clustered(rows: Sequence[Example]) -> list[Example]:
    """Return the rows, each with its cluster: the smallest id among its near-duplicates and its own."""
    members: dict[int, list[str]] = defaultdict(list)
    numbers = groups([bag(turns(row)) for row in rows])
    for row, number in zip(rows, numbers, strict=True):
        members[number].append(row.prompt_id)
    names = {number: min(ids) if len(ids) > 1 else None for number, ids in members.items()}
    return [replace(row, cluster=names[number]) for row, number in zip(rows, numbers, strict=True)]


def _split(rows: Sequence[Example], data: Data, *, test_rows: int | None) -> CoverageDataset:
    """Cut the clusters, in the order of their places, into test, dev and train; a number overrides a fraction."""
    rows = sorted(rows, key=lambda row: _place(data.seed, row.prompt_id))
    sizes = Counter(_cluster(row) for row in rows)
    places = {name: _place(data.seed, name) for name in sizes}
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


def _notes(dataset: CoverageDataset) -> tuple[str, ...]:
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


def _from_file(data: Data, tally: Tally) -> CoverageDataset:
    assert data.path is not None  # checked by config.problems
    path = Path(data.path)
    told = split_names(path)
    placed: list[tuple[str, Example]] = []
    splits: list[tuple[str, Any]] = []
    for file, place, row in read_files(path):
        example = _wanted(row, place, data, tally)
        if example is not None:
            tally.take(example, row, place)
            placed.append((place, example))
            splits.append((place, row.get("split") or told.get(file)))
    if not placed:
        raise InputError(f"{path}: {_none_used(data, tally)}")
    examples = _clustered(_distinct(placed))
    by_name = _grouped(examples, [name for _, name in splits])
    if told and by_name.keys() == {"train", "test"}:
        return _with_own_test(by_name["train"], by_name["test"], data)
    if any(by_name):
        return _by_name(examples, splits, data)
    return _split(examples, data, test_rows=data.test_rows)


def _other_category(data: Data) -> str:
    return f"another category than {data.category!r}"


def _none_used(data: Data, tally: Tally) -> str:
    if tally.left.keys() == {_other_category(data)}:
        return f"no row has category {data.category!r}; set data.category to one that exists."
    return f"no row can be used ({tally.reasons()})."


def _grouped(examples: Sequence[Example], names: Sequence[Any]) -> dict[Any, list[Example]]:
    groups: dict[Any, list[Example]] = defaultdict(list)
    for example, name in zip(examples, names, strict=True):
        groups[name].append(example)
    return groups


def _wanted(row: dict[str, Any], place: str, data: Data, tally: Tally) -> Example | None:
    """Return the pair of a row; None where the row is left out, which the tally counts."""
    if row is HEADER_AGAIN:
        tally.leave_out("the header of a CSV file, again", place)
    elif data.category is not None and row.get("category") != data.category:
        tally.leave_out(_other_category(data), place)
    else:
        try:
            example = read_example(row, place)
        except SetAside as told:
            tally.leave_out(told.reason, place)
        else:
            refuse_keys(example, place, data)
            return example
    return None


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


def _from_hub(data: Data, tally: Tally) -> CoverageDataset:
    from llamaduo.environment import settle_hub

    settle_hub()
    from datasets import get_dataset_split_names, load_dataset

    assert data.path is not None
    try:
        names = get_dataset_split_names(data.path, revision=data.revision)
        tables = {name: load_dataset(data.path, split=name, revision=data.revision) for name in names}
    except Exception as error:  # the Hub client raises many kinds
        from huggingface_hub import constants

        given, reason = f"data set {data.path}@{data.revision}", " ".join(str(error).split())[:200]
        if constants.HF_HUB_OFFLINE and isinstance(error, ConnectionError | FileNotFoundError):
            raise ServiceError(
                f"{given} is not in the Hub's cache on this machine, and the Hub can't be reached: run once with a "
                "network (HF_HUB_OFFLINE unset), or take data=file."
            ) from error
        raise ServiceError(
            f"{given} can't be loaded ({type(error).__name__}: {reason}). Check the name and the network, or take "
            "data=file."
        ) from error
    return _from_tables(tables, data, tally)


def _from_tables(tables: Mapping[str, Iterable[Any]], data: Data, tally: Tally | None = None) -> CoverageDataset:
    """Return the data of a Hub data set's tables by split; a prompt that a split repeats is kept once, and counted."""
    tally = tally or _tally(data)
    rows: dict[str, list[Example]] = {name: [] for name in tables}
    seen: dict[str, str] = {}
    told: list[tuple[str, Any]] = []
    for name, table in tables.items():
        for number, row in enumerate(table):
            place = f"{data.path} {name}[{number}]"
            example = _wanted(dict(row), place, data, tally)
            if example is None:
                continue
            first = seen.setdefault(example.prompt_id, name)
            if first != name:
                raise InputError(f"{place}: its prompt is in the split {first} too; take another data set or revision.")
            if example.prompt_id in tally.places:
                tally.leave_out("the prompt of another row of the split: the first one is kept", place)
                continue
            tally.take(example, row, place)
            rows[name].append(example)
            told.append((place, split_word(str(row["split"])) or row["split"] if row.get("split") else None))
    if any(split for _, split in told):
        if len(tables) == 1:
            return _by_column(_clustered(next(iter(rows.values()))), told, data)
        tally.note(f"the column split is not read: the data set's own splits count ({', '.join(tables)}).")
    own = next((name for name in rows if name.startswith("test")), None)
    for name, others in rows.items():
        if name != own and not name.startswith("train"):
            tally.drop(others, f"the split {name}, which is neither train nor the first test split")
    test = rows[own] if own else []
    given = [row for name in rows if name.startswith("train") for row in rows[name]]
    clustered = _clustered([*test, *given])
    if not test:
        return _split(clustered, data, test_rows=data.test_rows)
    return _with_own_test(clustered[len(test) :], clustered[: len(test)], data)


def _by_column(examples: list[Example], named: list[tuple[str, Any]], data: Data) -> CoverageDataset:
    """Return the data of a Hub data set of one table, whose rows name their splits."""
    by_name = _grouped(examples, [name for _, name in named])
    if by_name.keys() <= {"train", "test"} and "test" in by_name:
        return _with_own_test(by_name["train"], by_name["test"], data)
    return (
        _split(examples, data, test_rows=data.test_rows)
        if by_name.keys() == {"train"}
        else _by_name(examples, named, data)
    )


def _with_own_test(train: list[Example], test: list[Example], data: Data) -> CoverageDataset:
    """Return the data of rows that come with a test split, which is completed from the others up to `test_least`."""
    test = sorted(test, key=lambda row: _place(data.seed, row.prompt_id))[: data.test_rows]
    more = max(0, min(data.test_least, (len(train) + len(test)) // 4) - len(test))
    dataset = _split(train, data, test_rows=more)
    return replace(dataset, test=(*test, *dataset.test))


def _check(dataset: CoverageDataset, experiment: Experiment, tally: Tally) -> None:
    sizes = {name: len(getattr(dataset, name)) for name in SPLITS}
    needed = ["test"] + (["dev"] if experiment.protocol.gate_split is GateSplit.dev else [])
    if experiment.loop.growth.include_coverage or experiment.synthesis.enabled:
        needed.append("train")
    empty = [name for name in needed if sizes[name] == 0]
    if empty:
        have = ", ".join(f"{name} {size}" for name, size in sizes.items())
        left = f" Left out: {tally.reasons()}." if tally.reasons() else ""
        raise InputError(
            f"the {empty[0]} split is empty ({have}): add rows, or change data.{empty[0]}_rows or data.*_fraction."
            f"{left}"
        )
