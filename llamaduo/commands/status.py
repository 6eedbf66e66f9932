"""`llamaduo status DIR`: how a study's runs stand, for people or, with `--json`, for machines."""

from __future__ import annotations

from collections.abc import Sequence

from llamaduo.commands.arguments import told_apart
from llamaduo.display import plain_console
from llamaduo.sweeps.status import as_json, rendered, status

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
