"""`llamaduo journal`: what was spent; the journal out, in, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llamaduo.commands.arguments import told_apart
from llamaduo.display import plain_console
from llamaduo.errors import ConfigError, InputError, not_there
from llamaduo.service.journal import Journal, default_path
from llamaduo.service.ledger import export, spend, take_in, verify

if TYPE_CHECKING:
    from rich.console import Console

USAGE = "usage: llamaduo journal [export FILE | import FILE | verify] [service.journal=PATH]"
_FAULTS_SHOWN = 20


def main(arguments: Sequence[str]) -> int:
    """Carry out one of the commands and return the exit code; raises InputError for a damaged journal or file."""
    given, console = told_apart(arguments, values=("service.journal",)), plain_console()
    path = given.path("service.journal") or default_path()
    match given.words:
        case []:
            _show_spend(_existing(path), console)
        case ["export", file]:
            console.print(f"{export(_existing(path), Path(file)):,} requests: {file}")
        case ["import", file]:
            if not Path(file).is_file():
                raise InputError(not_there(Path(file), "file"))
            _import(path, Path(file), console)
        case ["verify"]:
            _verify(_existing(path), console)
        case _:
            raise ConfigError(f"{USAGE}.")
    return 0


def _existing(path: Path) -> Journal:
    if path.is_dir():
        raise InputError(f"journal {not_there(path, 'file')}")
    if not path.is_file():
        raise InputError(f"journal {path}: no such file; nothing has been asked yet.")
    return Journal(path, read_only=True)


def _import(path: Path, file: Path, console: Console) -> None:
    into = Journal(path)
    try:
        taken = take_in(into, file)
    finally:
        into.close()
    console.print(
        f"{taken.new:,} requests are new, {taken.known:,} were here already, {taken.refused:,} rows are refused: {path}"
    )
    if taken.new:
        console.print("Imported replies are used in replay alone (service.replay=true), or with service.imported=true.")
    if not taken.new + taken.known + taken.refused:
        raise InputError(f"{file}: it has no rows; llamaduo journal export writes one a request.")
    if taken.refused:
        others = "the others are taken in" if taken.new + taken.known else "nothing is taken in"
        words = f" ({taken.other_words:,} have other words than their raw reply)" if taken.other_words else ""
        raise InputError(f"{file}: {taken.refused:,} rows are damaged or no rows of a journal{words}; {others}.")


def _verify(checked: Journal, console: Console) -> None:
    found = verify(checked)
    for fault in found.faults[:_FAULTS_SHOWN]:
        console.print(fault)
    console.print(
        f"{found.requests:,} requests, {found.replies:,} replies, {len(found.faults):,} faults: {checked.path}"
    )
    if found.faults:
        raise InputError("the journal is damaged: the next run sets the bad rows aside, and buys them again if needed.")


def _show_spend(shown: Journal, console: Console) -> None:
    from rich.table import Table

    rows = spend(shown)
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in ("run", "stage", "service LLM", "day"):
        table.add_column(name, overflow="fold")
    for name in ("calls", "replies", "unknown", "in flight", "tokens in", "tokens out", "US$"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        counts = (row.calls, row.replies, row.unknown, row.in_flight, row.prompt_tokens, row.completion_tokens)
        table.add_row(row.run, row.stage, row.llm, row.day, *(f"{count:,}" for count in counts), f"{row.usd:,.4f}")
    sums = (sum(getattr(row, name) for row in rows) for name in ("calls", "replies", "unknown", "in_flight"))
    tokens = (sum(getattr(row, name) for row in rows) for name in ("prompt_tokens", "completion_tokens"))
    counts_text = [f"{count:,}" for count in (*sums, *tokens)]
    table.add_row("all", "", "", "", *counts_text, f"{sum(row.usd for row in rows):,.4f}", style="bold")
    console.print(table)
    console.print(f"Unknown outcomes (timeouts, broken connections, kills) count at their worst. {shown.path}")
