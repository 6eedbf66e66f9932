"""`llamaduo export data RUN`: what of a run goes to others, as a folder that the Hub takes as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from llamaduo.commands.arguments import Given, told_apart
from llamaduo.display import plain_console
from llamaduo.environment import settle_libraries
from llamaduo.errors import ConfigError, InputError
from llamaduo.export.columns import FORMATS
from llamaduo.export.folder import export_data
from llamaduo.runs.record import RunRecord, read_runs

USAGE = """\
usage: llamaduo export data RUN [-o FOLDER] [--format messages|paper] [--split] [data.license=TEXT]

A run's training rows, coverage and synthetic, as a data set: data/*.parquet and a card (README.md) that says what was
sent to whom, what was removed and why, and how the run came out. FOLDER is by default RUN's name with -data behind it.
--format paper has the paper's columns; --split adds dev and test, which are the evaluation; data.license says what the
configuration doesn't. docs/export.md says more."""


def main(arguments: Sequence[str]) -> int:
    """Write what is asked for, say so and return the exit code."""
    given = told_apart(arguments, flags=("--split",), values=("-o", "--output", "--format", "data.license"))
    match given.words:
        case ["data", place] if not place.startswith("-"):
            return _data(place, given)
        case [kind, *_] if kind != "data" and not kind.startswith("-"):
            raise ConfigError(f"export {kind}: what can be exported is data.\n{USAGE.splitlines()[0]}.")
        case _:
            raise ConfigError(f"{USAGE.splitlines()[0]}.")


def _data(place: str, given: Given) -> int:
    form = given.options.get("--format", FORMATS[0])
    if form not in FORMATS:
        raise ConfigError(f"--format={form}: there is no such format; take {' or '.join(FORMATS)}.")
    settle_libraries()
    console, run = plain_console(), _run(Path(place))
    target = given.path("-o") or given.path("--output") or Path(f"{run.folder.resolve().name}-data")
    told = given.options.get("data.license", run.experiment.data.license or "").strip()
    done = export_data(run, target, form=form, held_out="--split" in given.options, license_told=told)
    for note in done.notes:
        console.print(note, highlight=False, markup=False)
    counts = ", ".join(f"{name} {len(rows):,}" for name, rows in done.splits.items())
    sources = [row.source for row in done.train]
    kinds = ", ".join(f"{sources.count(name):,} {name}" for name in ("coverage", "synthetic"))
    console.print(f"{target}: {counts} rows ({kinds} to train on).", highlight=False, markup=False)
    return 0


def _run(folder: Path) -> RunRecord:
    runs = read_runs(folder)
    if len(runs) > 1:
        raise InputError(f"{folder}: {len(runs)} runs; name one of them, such as {runs[0].folder}.")
    return runs[0]
