"""`llamaduo status DIR`: how a study's runs stand, for people or, with `--json`, for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from llamaduo.commands.arguments import told_apart
from llamaduo.display import plain_console
from llamaduo.sweeps.plan import FAILED
from llamaduo.sweeps.status import DONE, INTERRUPTED, LEFT_OVER, RUNNING, RunStatus, Status, status

if TYPE_CHECKING:
    from rich.console import RenderableType

_USAGE = "usage: llamaduo status DIR [--json] (a run's folder, a study's, or results/)."


def main(arguments: Sequence[str]) -> int:
    """Print how the runs below a folder stand and return the exit code."""
    given = told_apart(arguments, flags=("--json",))
    found = status(given.place(_USAGE))
    if "--json" in given.options:
        print(as_json(found))
    else:
        console = plain_console()
        for part in rendered(found):
            console.print(part)
    return 0


def as_json(found: Status) -> str:
    """Return the status as JSON, for machines."""
    return json.dumps(asdict(found), indent=1, ensure_ascii=False)


def rendered(found: Status) -> list[RenderableType]:
    """Return the grid as a table, and what it comes to in words."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    several = len({cell.study for cell in found.cells}) > 1
    swept = list(dict.fromkeys(name for cell in found.cells for name in cell.swept))
    columns = [("run", "left"), *((name, "left") for name in swept), ("state", "left")]
    for name, side in (*columns, ("it.", "right"), ("cost", "right"), ("time", "right")):
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("left", justify="right", no_wrap=True)
    table.add_column("what", overflow="fold")
    for cell in found.cells:
        table.add_row(
            f"{cell.study}/{cell.run}" if several else cell.run,
            *(cell.swept.get(name, "") for name in swept),
            cell.status,
            str(cell.iterations),
            f"${cell.cost_usd:.2f}",
            _duration(cell.seconds),
            "" if cell.status in (DONE, FAILED, LEFT_OVER) else _duration(cell.seconds_left),
            _what(cell),
        )
    counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
    shared = " (a reply that runs share counts in each)" if len(found.cells) > 1 and found.cost_usd else ""
    cost = f"Cost so far ${found.cost_usd:.2f}{shared}"
    lines = [f"{len(found.cells)} runs: {counts}. {cost}, {_duration(found.seconds)} of work."]
    if found.seconds_left:
        lines.append(f"About {_duration(found.seconds_left)} left ({found.basis}).")
    elif found.seconds_left is None:
        lines.append(f"Time left unknown: {found.basis}.")
    return [table, "", *lines]


def _what(cell: RunStatus) -> str:
    if cell.status == DONE:
        return f"stopped by {cell.stop_reason}"
    if cell.status == RUNNING:
        return f"{cell.stage} ({cell.where})"
    if cell.status == INTERRUPTED:
        return f"at {cell.stage}; the same command goes on"
    if cell.status == LEFT_OVER:
        return f"{'broken off at ' + cell.stage if cell.stage else 'never begun'}; the newest sweep doesn't ask for it"
    return (cell.error or "").splitlines()[0] if cell.error else ""


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
