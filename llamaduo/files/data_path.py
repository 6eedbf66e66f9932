"""The files that `data.path` names: one file, those of a folder, or those that a pattern finds.

    named("pairs.jsonl").files               (Path("pairs.jsonl"),)
    named("shards").files                    its data files, those of folders in it too, by path
    named("shards/*.parquet").files
    named("saved").files                     what `Dataset.save_to_disk` wrote, as its state.json lists them
    content_hash("shards")                   a hash of their names and contents; of one file, of its content alone

Names that begin with `.` or `_` (`_SUCCESS`) belong to whoever wrote the folder; files of another kind are passed over,
and said. Raises InputError where nothing can be read, where kinds are mixed, and where a shard is missing.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamaduo.errors import InputError
from llamaduo.files.folders import below

KINDS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".arrow")
PACKED = (".gz", ".bz2", ".xz", ".zst")
"""Compressed files have one of these behind their kind: `log.jsonl.gz`."""
_ARROW = ".arrow"
_STATE = "state.json"
_OF_A_SAVED_SET = {_STATE, "dataset_info.json", "dataset_dict.json"}
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)(\..*)")
_SPLIT = re.compile(r"(train|dev|validation|valid|val|eval|test)(?![a-z])", re.IGNORECASE)
_NAMED = 3


@dataclass(frozen=True)
class Named:
    """What a path names."""

    files: tuple[Path, ...]
    passed_over: tuple[str, ...] = ()
    """Files beside them that hold no rows, by name."""


def kind(path: Path) -> str:
    """Return the kind that a file's name tells, such as `.csv`; compression left out."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def named(path: str | Path) -> Named:
    """Return the files that a path names."""
    place = Path(path)
    if place.is_file():
        return Named((place,))
    if place.is_dir():
        return _chosen(str(path), list(_files_of(place)), whole=True)
    if glob.has_magic(str(path)):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
        if not found:
            raise InputError(f"{path}: no file matches.")
        return _chosen(str(path), [file for file in found if not file.is_dir() and _is_data(file)], whole=False)
    raise InputError(f"{path}: no such file.")


def _is_data(file: Path) -> bool:
    return not file.name.startswith((".", "_"))


def _files_of(root: Path) -> Iterator[Path]:
    for folder, names in below(root):
        if not any(part.startswith((".", "_")) for part in folder.relative_to(root).parts):
            yield from (folder / name for name in names if _is_data(Path(name)))


def _chosen(path: str, there: list[Path], *, whole: bool) -> Named:
    """Return the files of one kind among those that are there; all shards have to be, of a `whole` folder."""
    about = {file for file in there if file.name in _OF_A_SAVED_SET}
    by_kind: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(set(there) - about):
        if kind(file) in KINDS:
            by_kind[kind(file)].append(file)
    if not by_kind:
        has = ", ".join(file.name for file in there[:_NAMED]) or "nothing"
        raise InputError(f"{path}: a folder without data files (it has {has}); it needs {', '.join(KINDS)}.")
    if len(by_kind) > 1:
        pattern = f"{path}/**/*{min(by_kind)}" if whole else f"*{min(by_kind)}"
        raise InputError(
            f"{path}: holds {' and '.join(sorted(by_kind))} files; name those of one kind, such as {pattern}"
        )
    ((found, files),) = by_kind.items()
    if lost := next((file for file in files if not file.is_file()), None):
        what = "a link to nothing" if lost.is_symlink() else "no plain file"
        raise InputError(f"{lost}: is {what}; mend or remove it, or name the files that are meant by a pattern.")
    if found == _ARROW:
        files, there = _saved(files), sorted(set(there) - about)
    if whole:
        _refuse_missing(path, files)
    return Named(tuple(files), tuple(file.name for file in there if file not in files))


def _saved(files: list[Path]) -> list[Path]:
    """Return the Arrow files that belong to saved data sets, caches left out; all of them where nothing tells."""
    kept: list[Path] = []
    for folder in dict.fromkeys(file.parent for file in files):
        try:
            listed = json.loads((folder / _STATE).read_text(encoding="utf-8"))["_data_files"]
            kept += [folder / entry["filename"] for entry in listed]
        except (OSError, ValueError, KeyError, TypeError):
            kept += [file for file in files if file.parent == folder]
    lost = [file for file in kept if not file.is_file()]
    if lost:
        raise InputError(f"{lost[0]}: is missing, and {_STATE} beside it lists it; save the data set again.")
    return kept


def _refuse_missing(path: str, files: list[Path]) -> None:
    """Raise InputError where names such as `train-00000-of-00003.parquet` tell of shards that are not there."""
    there: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for file in files:
        if shard := _SHARD.fullmatch(str(file)):
            there[shard[1], shard[3], shard[4]].add(int(shard[2]))
    for (name, count, _), numbers in there.items():
        lost = sorted(set(range(int(count))) - numbers)
        if lost:
            first = f"{Path(name).name}-{lost[0]:0{len(count)}d}-of-{count}"
            raise InputError(
                f"{path}: {len(lost)} of the {int(count)} shards of {Path(name).name} are missing ({first}); complete "
                "the folder, or name the files that are meant by a pattern."
            )


def split_names(path: Path) -> dict[Path, str]:
    """Return the split that the name of each of several files tells, as `test.jsonl` or `validation/part-0.parquet`.

    Empty where they don't tell different ones; raises InputError where some do, and others tell nothing.
    """
    files = named(path).files
    root = os.path.commonpath([file.parent for file in files])
    told = {file: _split_of(file.relative_to(root)) for file in files}
    if len({name for name in told.values() if name}) < 2:
        return {}
    silent = next((file for file, name in told.items() if name is None), None)
    if silent is not None:
        known = next(file for file, name in told.items() if name)
        raise InputError(
            f"{path}: {known.name} tells its split by its name, {silent.name} doesn't: begin its name with train, dev "
            "or test, or give every row a `split`."
        )
    return {file: name for file, name in told.items() if name}


def _split_of(file: Path) -> str | None:
    for part in reversed(file.parts):
        if word := split_word(part):
            return word
    return None


def split_word(name: str) -> str | None:
    """Return the split that a name begins with: train, dev or test; None where it begins with none."""
    found = _SPLIT.match(name)
    word = found[1].lower() if found else None
    return "dev" if word not in (None, "train", "test") else word


def content_hash(path: str | Path) -> str:
    """Return a hash of what a path names; raises InputError for what can't be read."""
    files = named(path).files
    digests = [_digest(file) for file in files]
    if files == (Path(path),):
        return digests[0]
    names = [file.relative_to(path).as_posix() if Path(path).is_dir() else file.name for file in files]
    return hashlib.sha256(json.dumps(list(zip(names, digests, strict=True))).encode()).hexdigest()


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error.strerror}).") from error
