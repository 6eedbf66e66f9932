"""`llamaduo verify`: a folder, an archive, or an archive beside its report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamaduo.commands.arguments import told_apart
from llamaduo.display import plain_console
from llamaduo.environment import settle_libraries
from llamaduo.errors import DifferenceError, InputError
from llamaduo.runs.layout import STATE, is_run
from llamaduo.runs.record import read_runs
from llamaduo.verify.archive import NAME, pack, unpacked
from llamaduo.verify.compare import Verified, summary
from llamaduo.verify.verify import verify, verify_report

if TYPE_CHECKING:
    from rich.console import Console

USAGE = "usage: llamaduo verify DIR | FILE.tar.xz [--archive FILE.tar.xz] [service.journal=PATH]"


def main(arguments: Sequence[str]) -> int:
    """Verify, say what was found, and pack an archive if that is asked for; raises DifferenceError."""
    given, console = told_apart(arguments, values=("--archive", "service.journal")), plain_console()
    place, target, journal = given.place(f"{USAGE}."), given.path("--archive"), given.path("service.journal")
    settle_libraries()
    places = _places(Path(place))
    different = 0
    for each in places:
        if len(places) > 1:
            console.print(f"{each}:")
        different += _verify(each, journal, target, console)
    if different:
        raise DifferenceError(f"{place}: {different:,} differences from what its replies come to.")
    return 0


def _places(place: Path) -> list[Path]:
    """Return what is verified: the place itself, or the archived studies in it if it has no runs."""
    if not place.exists():
        raise InputError(f"{place}: no such folder or archive.")
    archived = sorted(file.parent for file in place.glob(f"*/{NAME}")) if place.is_dir() else []
    return archived if archived and not (place / NAME).exists() and not any(place.glob(f"*/*/{STATE}")) else [place]


def _verify(place: Path, journal: Path | None, target: Path | None, console: Console) -> int:
    """Verify one place, say what was found and pack it if it is sound; return the number of differences."""
    with _opened(place, journal) as (folder, replies, archived):
        found = verify(folder, journal=replies, whole=archived)
        if place.is_dir():
            verify_report(folder, place, found)
        for line in summary(found):
            console.print(line)
        if target is not None and not found.differences:
            _pack(folder, target, found, console)
    return len(found.differences)


@contextlib.contextmanager
def _opened(place: Path, journal: Path | None) -> Iterator[tuple[Path, Path | None, bool]]:
    """Yield the folder of the runs, the journal, and whether they come out of an archive."""
    file = place if place.is_file() else place / NAME
    if file.is_file() and not any(place.glob(f"*/{STATE}")) and not is_run(place):
        with unpacked(file) as (folder, replies):
            yield folder, replies, True
    else:
        yield place, journal, False


def _pack(folder: Path, target: Path, found: Verified, console: Console) -> None:
    root = folder.parent if is_run(folder) else folder
    size = pack(root, target, [run.folder for run in read_runs(folder)], found.keys, found.journals)
    console.print(f"{target}: {size:,} bytes, with {len(found.keys):,} replies.")
