"""The main tables: what is swept in the rows, tasks and judges in the columns, a mean with its interval in each field.

A field may stand for several runs that repeat each other (another seed): their answers are put together, and how far
the runs lie apart widens its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from llamaduo.evidence.compare import ByPrompt, by_prompt, mean
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.studies.cells import (
    BOLD,
    INTERVALS,
    SCORES,
    Scored,
    best,
    grouped,
    label,
    number,
    odd_n,
    row_names,
    said_n,
    usual_n,
)
from llamaduo.studies.parts import Table
from llamaduo.studies.study import Study
from llamaduo.studies.swept import NAMES, identities
from llamaduo.studies.tidy import Row, coverage_cut, coverage_of

_COVERAGE = (
    "Percent of answers whose precision and similarity both reach the run's coverage cut (70 by default), with its 95% "
    f"interval over prompts. {INTERVALS} Training noise is in the fields of several seeds alone."
)
_BOLD = f"Bold: the best of its column. {BOLD}"


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


Place = tuple[object, ...]
Found = dict[tuple[Place, Column], Measure]


@dataclass(frozen=True)
class Grid:
    """Rows and columns of the main tables."""

    scored: Scored
    names: list[str]
    """The swept columns that name the rows."""
    groups: dict[Place, list[Row]]
    """The runs of each row."""
    across: list[Column]

    def done(self, place: Place, column: Column) -> list[str]:
        """Return the finished runs of a field."""
        return [run for run in column.runs(self.groups[place]) if self.scored.row(run, column.judge)]

    def filled(self, measured: Callable[[list[str], str], Measure]) -> Found:
        """Return what is measured of the runs of each field, and of a judge."""
        found = {}
        for place in self.groups:
            for column in self.across:
                runs = self.done(place, column)
                found[place, column] = measured(runs, column.judge) if runs else NOTHING
        return found

    def best(self, found: Found, score: str) -> set[tuple[Place, Column]]:
        """Return the field of each column that is better than all others by more than noise, where one is."""
        columns = {}
        for column in self.across:
            behind = [self.scored.by_prompt(self.done(place, column), score, column.judge) for place in self.groups]
            means = [found[place, column].value for place in self.groups]
            columns[column] = list(zip(means, behind, strict=True))
        return {(list(self.groups)[at], column) for column, at in best(columns).items()}

    def table(self, name: str, note: str, found: Found, bold: Container[tuple[Place, Column]] = ()) -> Iterator[Table]:
        """Yield the table, without empty rows and columns; nothing if nothing is left."""
        across = [c for c in self.across if any(found[place, c].value is not None for place in self.groups)]
        places = [p for p in self.groups if any(found[p, column].value is not None for column in across)]
        if not places:
            return
        usual = usual_n(found.values())
        rows = []
        for place in places:
            fields = [
                number(found[place, c], bold=(place, c) in bold, note=odd_n(found[place, c], usual)) for c in across
            ]
            rows.append((*map(label, place), *fields))
        header = (*(NAMES.get(column, column) for column in self.names), *(column.header for column in across))
        title = name.removeprefix("main_").capitalize()
        yield Table(name, title, f"{note} {said_n(usual)}", header, tuple(rows), labels=len(self.names))


def score_tables(study: Study, scored: Scored) -> Iterator[Table]:
    """Yield a table a score and one of coverage; none that would be empty."""
    rows = identities(study)
    names = row_names(rows, "task", "judges")
    grid = Grid(scored, names, grouped(rows, names), columns(study, rows))
    for score in SCORES:
        found = grid.filled(partial(scored.measure, score=score))
        note = f"Mean {score}, 0 to 100, with its 95% interval over prompts. {INTERVALS} {scored.training} {_BOLD}"
        yield from grid.table(f"main_{score}", note, found, grid.best(found, score))
    yield from grid.table("coverage", _COVERAGE, grid.filled(partial(coverage, study, scored)))


def coverage(study: Study, scored: Scored, runs: Sequence[str], judge: str) -> Measure:
    """Return the percent of answers that reach the cut in both scores, as `evidence.scorecard` counts them."""
    if len(runs) == 1:
        row = scored.row(runs[0], judge)
        return coverage_of(row) if row is not None else NOTHING
    found: dict[str, ByPrompt] = {}
    for run in study.runs:
        scores = study.scores.get(run.name) if run.name in runs else None
        if scores is None or (judge != "all" and judge not in scores.judges):
            continue
        reached = scores.covered(coverage_cut(run.config), None if judge == "all" else judge)
        found[run.name] = by_prompt(scores.clusters, reached)
    return mean(scored.together(list(found), list(found.values()))) if found else NOTHING
