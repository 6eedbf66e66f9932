"""From a data source (the pocket tasks, files, the Hub) to a CoverageDataset: read, check, split (`splits.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llamaduo.config import Data, DataSource, Experiment, GateSplit, Strategy
from llamaduo.data.dataset import CoverageDataset
from llamaduo.data.formats import Read, read_files, read_row
from llamaduo.data.keys import refuse_keys
from llamaduo.data.splits import (
    SPLITS,
    by_column,
    by_name,
    clustered,
    grouped,
    near_duplicates_told,
    split,
    with_own_test,
)
from llamaduo.data.tables import HEADER_AGAIN
from llamaduo.data.tally import Tally
from llamaduo.data.unlabelled import read_unlabelled
from llamaduo.data.unusable import UnusableError, shown
from llamaduo.errors import InputError, ServiceError
from llamaduo.files.data_path import named, split_names, split_word
from llamaduo.pocket.tasks import make_pairs
from llamaduo.privacy.found import KEY
from llamaduo.privacy.search import hidden_types
from llamaduo.records import Example, prompt_id

_NAMED = 3


def load_coverage(experiment: Experiment) -> CoverageDataset:
    """Return the experiment's coverage data, split.

    Raises InputError where data can't be used, ServiceError where the Hub can't be reached.
    """
    data = experiment.data
    tally = _tally(data)
    if KEY in hidden_types(experiment.privacy):  # they are not sent
        data = replace(data, allow_keys=True)
    if data.source is DataSource.pocket:
        dataset = _from_pocket(experiment.task.name, data, tally)
    elif data.source is DataSource.file:
        dataset = _from_file(data, tally)
    else:
        dataset = _from_hub(data, tally)
    refuse_empty(dataset, experiment, tally.reasons())
    if data.unlabelled and experiment.synthesis.enabled and experiment.synthesis.strategy is Strategy.label:
        known = {row.prompt_id for name in SPLITS for row in getattr(dataset, name)}
        rows, told = read_unlabelled(Path(data.unlabelled), data, known)
        dataset = replace(dataset, unlabelled=rows)
        tally.note(told)
    return replace(
        dataset,
        notes=near_duplicates_told(dataset),
        account=tally.account(dataset),
        places=tally.places,
        unused=tuple(tally.unused),
    )


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
    rows = [_pair(prompt, response) for prompt, response in make_pairs(task, count, data.seed, slices=data.slices)]
    for number, row in enumerate(rows):
        tally.take(row, {}, f"made-up row {number}")
    return split(clustered(rows), data, test_rows=data.test_rows)


def _pair(prompt: str, response: str) -> Example:
    messages = ({"role": "user", "content": prompt},)
    return Example(prompt_id(messages), messages, response)


def _from_file(data: Data, tally: Tally) -> CoverageDataset:
    assert data.path is not None  # checked by config.problems
    path = Path(data.path)
    placed: _Placed = {
        taken.example.prompt_id: (place, taken.example, name) for place, taken, name in taken_rows(data, tally)
    }
    if not placed:
        raise InputError(f"{path}: {_none_used(data, tally)}")
    splits = _splits(placed, data, tally)
    examples = clustered([example for _, example, _ in placed.values()])
    parts = grouped(examples, [name for _, name in splits])
    if parts.keys() == {"train", "test"} and split_names(path):
        return with_own_test(parts["train"], parts["test"], data)
    if any(parts):
        return by_name(examples, splits, data)
    return split(examples, data, test_rows=data.test_rows)


def taken_rows(
    data: Data, tally: Tally, first: dict[str, tuple[str, Any]] | None = None
) -> Iterator[tuple[str, Read, Any]]:
    """Yield place, row and name of the split of each row of a file that is used; the tally has the others.

    `first` has place and split of prompts that were there before, and gets those that are read.

    Raises InputError for a prompt that is in two splits, and with `data.strict` for the first row that can't be used.
    """
    path = Path(str(data.path))
    told = split_names(path)
    first = {} if first is None else first
    for file, place, row in read_files(path):
        read = _wanted(row, place, data, tally)
        if read is None:
            continue
        name = read.row.get("split") or told.get(file)
        before = first.setdefault(read.example.prompt_id, (place, name))
        if before[0] is place:
            tally.take(read.example, read.row, place)
            yield place, read, name
        elif data.strict or (name != before[1] and name in SPLITS and before[1] in SPLITS):
            raise InputError(f"{place}: the same prompt as {before[0]}; keep one of the two rows.")
        else:
            tally.leave_out(AGAIN, place)


_Placed = dict[str, tuple[str, Example, Any]]
"""Place, example and name of the split of each row that is taken, by its prompt's id."""
AGAIN = "the prompt of an earlier row: the first one is kept"


def _splits(placed: _Placed, data: Data, tally: Tally) -> list[tuple[str, Any]]:
    """Return (place, name of the split) of each row; rows that name none that there is are taken out of the others."""
    named = {prompt: (place, name) for prompt, (place, _, name) in placed.items()}
    known = [*SPLITS] if any(name in SPLITS for _, name in named.values()) else [None]
    if any(name in known for _, name in named.values()):
        for prompt, (place, name) in named.items():
            if name in known:
                continue
            odd = UnusableError(
                place, "`split` is none of train, dev and test, as that of other rows is", f": {name!r}; mend the row."
            )
            if data.strict:
                raise odd
            tally.drop([placed.pop(prompt)[1]], odd.reason, listed=True)
    return [(place, name) for place, _, name in placed.values()]


def _other_category(data: Data) -> str:
    return f"another category than {data.category!r}"


def _none_used(data: Data, tally: Tally) -> str:
    if tally.left.keys() == {_other_category(data)}:
        return f"no row has category {data.category!r}; set data.category to one that exists."
    return f"no row can be used ({tally.reasons()})."


def _wanted(row: dict[str, Any] | UnusableError, place: str, data: Data, tally: Tally) -> Read | None:
    """Return a row as it was read; None where the row is left out, which the tally counts and lists."""
    if row is HEADER_AGAIN:
        tally.leave_out("the header of a CSV file, again", place)
        return None
    try:
        if isinstance(row, UnusableError):
            raise row
        if data.category is not None and row.get("category") != data.category:
            tally.leave_out(_other_category(data), place, listed=False)
            return None
        found = read_row(row, place)
    except UnusableError as told:
        if data.strict:
            raise
        tally.leave_out(told.reason, place, told.excerpt or shown(row))
        return None
    refuse_keys(found.example, place, data)
    return found


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
            read = _wanted(dict(row), place, data, tally)
            if read is None:
                continue
            example = read.example
            first = seen.setdefault(example.prompt_id, name)
            if first != name:
                raise InputError(f"{place}: its prompt is in the split {first} too; take another data set or revision.")
            if example.prompt_id in tally.places:
                tally.leave_out("the prompt of another row of the split: the first one is kept", place)
                continue
            tally.take(example, read.row, place)
            rows[name].append(example)
            told.append((place, split_word(str(row["split"])) or row["split"] if row.get("split") else None))
    if any(name for _, name in told):
        if len(tables) == 1:
            return by_column(clustered(next(iter(rows.values()))), told, data)
        tally.note(f"the column split is not read: the data set's own splits count ({', '.join(tables)}).")
    own = next((name for name in rows if name.startswith("test")), None)
    for name, others in rows.items():
        if name != own and not name.startswith("train"):
            tally.drop(others, f"the split {name}, which is neither train nor the first test split")
    test = rows[own] if own else []
    given = [row for name in rows if name.startswith("train") for row in rows[name]]
    every = clustered([*test, *given])
    if not test:
        return split(every, data, test_rows=data.test_rows)
    return with_own_test(every[len(test) :], every[: len(test)], data)


def refuse_empty(dataset: CoverageDataset, experiment: Experiment, left_out: str = "") -> None:
    """Raise InputError for a split that the run needs and that is empty."""
    sizes = {name: len(getattr(dataset, name)) for name in SPLITS}
    needed = ["test"] + (["dev"] if experiment.protocol.gate_split is GateSplit.dev else [])
    if experiment.loop.growth.include_coverage or experiment.synthesis.enabled:
        needed.append("train")
    empty = [name for name in needed if sizes[name] == 0]
    if empty:
        have = ", ".join(f"{name} {size}" for name, size in sizes.items())
        reasons = [f"{one.rows:,}: {one.reason}" for one in (dataset.account.left_out if dataset.account else ())]
        told = left_out or ", ".join(reasons)
        left = f" Left out: {told}." if told else ""
        raise InputError(
            f"the {empty[0]} split is empty ({have}): add rows, or change data.{empty[0]}_rows or data.*_fraction."
            f"{left}"
        )
