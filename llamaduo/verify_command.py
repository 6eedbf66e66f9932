"""`llamaduo verify`: a folder, an archive, or an archive beside its report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llamaduo.archive import NAME, pack, unpacked
from llamaduo.differences import Verified, summary
from llamaduo.errors import ConfigError, DifferenceError, InputError
from llamaduo.studies.runs import read_runs
from llamaduo.verify import verify, verify_report

if TYPE_CHECKING:
    from rich.console import Console

USAGE = "usage: llamaduo verify DIR | FILE.tar.xz [--archive FILE.tar.xz] [service.journal=PATH]"


def verify_command(arguments: list[str], console: Console) -> int:
    """Verify, say what was found, and pack an archive if that is asked for; raises DifferenceError."""
    named = [a.partition("=")[2] for a in arguments if a.startswith("service.journal=")]
    words = [a for a in arguments if not a.startswith("service.journal=")]
    if {"-h", "--help"} & set(words):
        console.print(USAGE)
        return 0
    match words:
        case [place] if not place.startswith("-"):
            target = None
        case [place, "--archive", file] | ["--archive", file, place]:
            target = Path(file)
        case _:
            raise ConfigError(f"{USAGE}.")
    journal = Path(named[-1]).expanduser() if named else None
    with _opened(Path(place), journal) as (folder, journal, archived):
        found = verify(folder, journal=journal, whole=archived)
        if Path(place).is_dir():
            verify_report(folder, Path(place), found)
        for line in summary(found):
            console.print(line)
        if found.differences:
            raise DifferenceError(f"{place}: {len(found.differences):,} differences from what its replies come to.")
        if target is not None:
            _pack(folder, target, found, console)
    return 0


@contextlib.contextmanager
def _opened(place: Path, journal: Path | None) -> Iterator[tuple[Path, Path | None, bool]]:
    """Yield the folder of the runs, the journal, and whether they come out of an archive."""
    file = place if place.is_file() else place / NAME
    if not place.exists():
        raise InputError(f"{place}: no such folder or archive.")
    if file.is_file() and not any(place.glob("*/state.json")) and not (place / "state.json").exists():
        with unpacked(file) as (folder, replies):
            yield folder, replies, True
    else:
        yield place, journal, False


def _pack(folder: Path, target: Path, found: Verified, console: Console) -> None:
    size = pack(folder, target, [run.folder for run in read_runs(folder)], found.keys, found.journals)
    console.print(f"{target}: {size:,} bytes, with {len(found.keys):,} replies.")
