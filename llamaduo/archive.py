"""Archives of studies: what a stranger needs to derive every number again, in one file.

    pack(Path("results/main_table"), Path("results/main_table/runs.tar.xz"), keys, journals)
    with unpacked(Path("results/main_table/runs.tar.xz")) as (folder, journal): ...

An archive holds the run folders without the adapters' weights, checkpoints and pages, and `replies.jsonl`: the
journal's rows of all replies that they used. The same folders make the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from llamaduo.errors import InputError
from llamaduo.run_dir import write_bytes
from llamaduo.service.journal import Journal
from llamaduo.service.ledger import export, take_in

NAME = "runs.tar.xz"
"""What a study's archive is called beside its tables."""
_REPLIES = "replies.jsonl"
_RUN_FILES = ("config.yaml", "environment.json", "state.json", "metrics.jsonl", "judge_prompt.txt", "data.json")
_LARGEST = 4 << 30
"""Bytes that an archive may come to when it is unpacked."""


def pack(root: Path, file: Path, folders: Iterable[Path], keys: Collection[str], journals: Iterable[Path]) -> int:
    """Write the archive of run folders at or below `root`; return its bytes."""
    members = {path.relative_to(root).as_posix(): path.read_bytes() for f in folders for path in _worth_keeping(f)}
    members[_REPLIES] = _replies(keys, journals)
    out = io.BytesIO()
    with (
        lzma.open(out, "wb", preset=9) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(members[name]), 0o644, 0
            tar.addfile(entry, io.BytesIO(members[name]))
    write_bytes(file, out.getvalue())
    return len(out.getvalue())


def _worth_keeping(folder: Path) -> Iterator[Path]:
    """Yield the files of a run that its numbers are made of."""
    yield from (folder / name for name in _RUN_FILES if (folder / name).exists())
    for path in sorted(folder.glob("iterations/*/*")):
        if path.is_file():
            yield path
        elif path.name == "adapter" and (path / "record.json").exists():
            yield path / "record.json"


def _replies(keys: Collection[str], journals: Iterable[Path]) -> bytes:
    """Return the rows of these keys, one JSON object a line, sorted."""
    rows: dict[bytes, None] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, path in enumerate(sorted(set(journals))):
            journal = Journal(path, read_only=True)
            file = Path(scratch) / f"{number}.jsonl"
            export(journal, file, keys)
            journal.close()
            rows.update(dict.fromkeys(file.read_bytes().splitlines(keepends=True)))
    return b"".join(sorted(rows))


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of an archive's runs and a journal of its replies; both are gone afterwards.

    Raises InputError for what is no such archive, and for members that would leave the folder.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / (file.parent.resolve().name or "study")
        try:
            with tarfile.open(file, "r:xz") as tar:
                members = tar.getmembers()
                if sum(member.size for member in members) > _LARGEST:
                    raise InputError(f"{file}: comes to more than {_LARGEST >> 30} GiB; it is not unpacked.")
                tar.extractall(folder, members, filter="data")
        except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
            raise InputError(f"{file}: no archive of a study ({error}).") from error
        replies = folder / _REPLIES
        if not replies.is_file():
            raise InputError(f"{file}: no archive of a study: it has no {_REPLIES}.")
        journal = Journal(Path(scratch) / "journal.sqlite")
        taken = take_in(journal, replies)
        journal.close()
        if taken.refused:
            raise InputError(f"{file}: {taken.refused:,} of its replies are damaged.")
        yield folder, Path(scratch) / "journal.sqlite"
