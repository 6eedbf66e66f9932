"""The columns of the main tables: each task as each judge scored it.

columns(study, identities(study))[0]      Column("coding", "all", "gpt_4o + claude_3_sonnet", "panel")
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llamaduo.studies.study import Study
from llamaduo.studies.tidy import Row


@dataclass(frozen=True)
class Column:
    """A task as a judge scored it."""

    task: str
    judge: str
    """A judge's name, or `all` for the mean of a panel."""
    panel: str | None
    """Which panel the mean is of; null for a single judge."""
    header: str

    def runs(self, rows: Sequence[Row]) -> list[str]:
        """Return the runs among some rows that this column is about."""
        return [row["run"] for row in rows if row["task"] == self.task and self.panel in (None, row["judges"])]


def columns(study: Study, rows: Sequence[Row]) -> list[Column]:
    """Return a column for each task and judge, a panel's mean before its members."""
    tasks = sorted({row["task"] for row in rows})
    panels = sorted({row["judges"] for row in rows if " + " in row["judges"]})
    judges = list(dict.fromkeys(judge for run in study.runs for judge in run.judges))
    ways = [("all", panel, "panel" if len(panels) == 1 else panel) for panel in panels]
    ways += [(judge, None, judge) for judge in judges]
    found = []
    for task in tasks:
        for judge, panel, name in ways:
            header = ", ".join(part for part, many in ((task, len(tasks) > 1), (name, len(ways) > 1)) if many)
            found.append(Column(task, judge, panel, header or f"{task}, {name}"))
    return found
