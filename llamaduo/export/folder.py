"""A data set's folder: written whole, and never over what is something else.

    written = export_data(run, Path("tickets"), form="messages", held_out=False)

The last line of its README.md says which run it is of, and the sha256 of all that was written: a folder is written
again only where it holds that and nothing more.

    <!-- llamaduo export data pocket_llama-classification-1a2b3c4d 5b1f... -->
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from llamaduo.errors import InputError, not_there
from llamaduo.export.card import card, file_name
from llamaduo.export.columns import messages_table, paper_table, parquet, turn_keys
from llamaduo.export.prompts import prompts_of
from llamaduo.export.rows import Rows, rows_of
from llamaduo.files.regular import read
from llamaduo.files.writing import private, sync, write_bytes, writing
from llamaduo.redaction import one_line
from llamaduo.runs.record import RunRecord

README = "README.md"
_MARK = re.compile(r"<!-- llamaduo export data (.+) ([0-9a-f]{64}) -->\n\Z")


def export_data(run: RunRecord, target: Path, *, form: str, held_out: bool, license_told: str) -> Rows:
    """Write a run's rows into a folder as a data set; return what was written.

    Raises InputError where there are no rows, or the folder holds something else.
    """
    name = one_line(run.folder.resolve().name).replace("--", "- ")
    _refuse_others(target, name)
    given = rows_of(run, held_out=held_out)
    every = [row for rows in given.splits.values() for row in rows]
    keys = turn_keys(every)
    table = partial(messages_table, keys=keys, offers=any(row.example.tools for row in every))
    if form == "paper":
        task = run.experiment.task
        wanted = {row.provenance.request for row in given.train if row.provenance}
        known = prompts_of(run.experiment, wanted)
        missing = len(wanted - known.keys())
        if missing:
            told = f"{missing:,} of {len(wanted):,} requests are not in the journal: their seed_prompt is null."
            given = given.noted(told)
        table = partial(paper_table, keys=keys, category=task.topic or task.name, prompts=known.get)
    tables = {split: parquet(rows, table) for split, rows in given.splits.items()}
    files = {file_name(split): content for split, content in tables.items()}
    readme = f"{card(run, given, tables, license_told)}\n".encode()
    files[README] = readme + f"<!-- llamaduo export data {name} {_digest(readme, files)} -->\n".encode()
    _write(target, files)
    return given


def _digest(readme: bytes, files: Mapping[str, bytes]) -> str:
    found = hashlib.sha256(readme)
    for name in sorted(files):
        if name != README:
            found.update(f"{name}\0{len(files[name])}\0".encode() + files[name])
    return found.hexdigest()


def _refuse_others(target: Path, name: str) -> None:
    """Raise InputError where a folder holds anything but an export of this run, as it was written."""
    if target.is_symlink() or target.exists():
        if not target.is_dir():
            raise InputError(not_there(target, "folder") if target.exists() else f"{target}: leads nowhere.")
        there = {path.relative_to(target).as_posix(): path for path in target.rglob("*") if not path.is_dir()}
        if there and not _is_ours(there, name):
            raise InputError(
                f"{target}: it holds something else than an export of {name} as it was written; name another folder "
                "(-o FOLDER), or move it elsewhere."
            )


def _is_ours(there: Mapping[str, Path], name: str) -> bool:
    known = {README, *map(file_name, ("train", "dev", "test"))}
    if README not in there or not there.keys() <= known:
        return False
    try:
        files = {file: read(path) for file, path in there.items()}
        text = files[README].decode()
    except (OSError, ValueError):
        return False
    mark = _MARK.search(text)
    return mark is not None and mark[1] == name and mark[2] == _digest(text[: mark.start()].encode(), files)


def _write(target: Path, files: Mapping[str, bytes]) -> None:
    """Write the files: into a folder that appears whole, or in place of what an earlier export has written."""
    with writing(target):
        if target.exists():
            for old in (README, *map(file_name, ("train", "dev", "test"))):
                if old not in files:
                    (target / old).unlink(missing_ok=True)
            _put(target, files)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden = private(target)
        shutil.rmtree(hidden, ignore_errors=True)
        try:
            hidden.mkdir()
            _put(hidden, files)
            os.replace(hidden, target)
            sync(target.parent)
        finally:
            shutil.rmtree(hidden, ignore_errors=True)


def _put(folder: Path, files: Mapping[str, bytes]) -> None:
    (folder / "data").mkdir(exist_ok=True)
    for name, content in files.items():
        write_bytes(folder / name, content)
