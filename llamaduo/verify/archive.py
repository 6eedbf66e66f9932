"""Archives of studies: what a stranger needs to derive every number again, in one file.

    pack(Path("results/main_table"), Path("results/main_table/runs.tar.xz"), keys, journals)
    with unpacked(Path("results/main_table/runs.tar.xz")) as (folder, journal): ...

An archive holds the run folders without the adapters' weights, checkpoints and pages, and `replies.jsonl`: the
journal's rows of all replies that they used. The same folders make the same bytes. An archive that is unpacked may be
a stranger's: see `members`.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import tarfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from llamaduo.errors import InputError
from llamaduo.files.scratch import scratch_folder
from llamaduo.files.writing import write_bytes
from llamaduo.runs.layout import places
from llamaduo.service.journal import Journal
from llamaduo.service.ledger import export, take_in
from llamaduo.verify.members import INSIDE, REPLIES, RUN_FILES, is_member, write_members

NAME = "runs.tar.xz"
"""What a study's archive is called beside its tables."""


def pack(root: Path, file: Path, folders: Iterable[Path], keys: Collection[str], journals: Iterable[Path]) -> int:
    """Write the archive of run folders at or below `root`; return its bytes."""
    members = {path.relative_to(root).as_posix(): path.read_bytes() for f in folders for path in _worth_keeping(f)}
    odd = next((name for name in members if not is_member(name)), None)
    if odd:
        raise InputError(
            f"{odd}: a name that no archive may hold, such as one with control characters; rename the run."
        )
    members[REPLIES] = _replies(keys, journals)
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
    yield from (folder / name for name in RUN_FILES if (folder / name).exists())
    for place in places(folder):
        paths = (place / name for name in sorted(INSIDE))
        yield from (path for path in paths if path.is_file())


def _replies(keys: Collection[str], journals: Iterable[Path]) -> bytes:
    """Return the rows of these keys, one JSON object a line, sorted."""
    rows: dict[bytes, None] = {}
    with scratch_folder() as scratch:
        for number, path in enumerate(sorted(set(journals))):
            journal = Journal(path, read_only=True)
            file = scratch / f"{number}.jsonl"
            export(journal, file, keys)
            journal.close()
            rows.update(dict.fromkeys(file.read_bytes().splitlines(keepends=True)))
    return b"".join(sorted(rows))


@contextlib.contextmanager
def unpacked(file: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of an archive's runs and a journal of its replies; both are gone afterwards.

    Raises InputError for what is no such archive, and for members that are none of a run.
    """
    with scratch_folder() as scratch:
        folder = scratch / (file.parent.resolve().name or "study")
        write_members(file, folder)
        replies = folder / REPLIES
        if not replies.is_file():
            raise InputError(f"{file}: no archive of a study: it has no {REPLIES}.")
        journal = Journal(scratch / "journal.sqlite")
        taken = take_in(journal, replies)
        journal.close()
        if taken.refused:
            raise InputError(f"{file}: {taken.refused:,} of its replies are damaged.")
        yield folder, scratch / "journal.sqlite"
