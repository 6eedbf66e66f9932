"""`llamaduo report DIR`: tables, figures and pages from run folders."""

from __future__ import annotations

from collections.abc import Sequence

from llamaduo.commands.arguments import told_apart
from llamaduo.studies.report import report

_USAGE = "usage: llamaduo report DIR (a run's folder, a study's, or results/)."


def main(arguments: Sequence[str]) -> int:
    """Write the report, print it in short and return the exit code."""
    print(report(told_apart(arguments).place(_USAGE)), end="")
    return 0
