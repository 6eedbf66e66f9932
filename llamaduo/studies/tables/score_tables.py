"""The main tables: what is swept in the rows, tasks and judges in the columns, a mean with its interval in each field.

Who was judged beside the models has rows of its own, the ceiling first and the floors last, and a table says how many
percent of its ceiling each model reaches. Bold type compares models alone.

A field may stand for several runs that repeat each other (another seed): their answers are put together, and how far
the runs lie apart widens its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from llamaduo.evidence.compare import ByPrompt, by_prompt, mean
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.studies.factors import NAMES, identities
from llamaduo.studies.parts import Table
from llamaduo.studies.study import Study
from llamaduo.studies.tables.beside_rows import BesideRows, Place
from llamaduo.studies.tables.cells import (
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
from llamaduo.studies.tables.columns import Column, columns
from llamaduo.studies.tidy import Row, coverage_of

_COVERAGE = (
    "Percent of answers whose precision and similarity both reach the run's coverage cut (70 by default), with its 95% "
    f"interval over prompts. {INTERVALS} Training noise is in the fields of several seeds alone."
)
_BOLD = f"Bold: the best of its column. {BOLD}"
_CEILING = "Ceiling: the service LLM's own answers."
_FLOOR = "Floor: the base model's answers, before any training; N-shot: with N training pairs before the prompt."
_OTHERS = (
    "The same judges scored these; runs that bought the same scores share a row. They are compared with nothing here: "
    "bold is the best of the models."
)
_OF_CEILING = (
    "The mean score as percent of the service LLM's, over the same prompts and by the same judges: of the ceiling that "
    "the row's own runs bought, else of the only one there is; empty where the prompts differ. 100: as good as the "
    "service LLM. The 95% interval is the ratio's, prompt by prompt (Gaffke's limits, inverted as Fieller did): it "
    "allows for failures of either that no prompt has shown."
)

Measured = Callable[[list[str], str], Measure]
Found = dict[tuple[Place, Column], Measure]
Rows = Sequence[tuple[Place, dict[Column, Measure]]]
"""Rows of a table: what names each, and its fields."""


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

    def filled(self, measured: Measured) -> Found:
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

    def table(self, name: str, note: str, found: Found, bold: Container[tuple[Place, Column]] = (), *,
              title: str | None = None, above: Rows = (), below: Rows = ()) -> Iterator[Table]:  # fmt: skip
        """Yield the table, without empty rows and columns; nothing if nothing is left.

        `above` and `below` are rows of others, with fields in these columns.
        """
        across = [c for c in self.across if any(found[place, c].value is not None for place in self.groups)]
        if not across:
            return
        usual = usual_n(found.values())
        placed = [*above, *((place, {c: found[place, c] for c in across}) for place in self.groups), *below]
        rows = []
        for place, fields in placed:
            if any(fields[c].value is not None for c in across):
                shown = [number(fields[c], bold=(place, c) in bold, note=odd_n(fields[c], usual)) for c in across]
                rows.append((*map(label, place), *shown))
        header = (*(NAMES.get(column, column) for column in self.names), *(column.header for column in across))
        title = title or name.removeprefix("main_").capitalize()
        yield Table(name, title, f"{note} {said_n(usual)}", header, tuple(rows), labels=len(self.names))


def score_tables(study: Study, scored: Scored) -> Iterator[Table]:
    """Yield a table a score and one of coverage; none that would be empty."""
    rows = identities(study)
    names = row_names(rows, "task", "judges")
    grid = Grid(scored, names, grouped(rows, names), columns(study, rows))
    beside = BesideRows(study, names)
    told = [text for text, there in ((_CEILING, beside.ceilings), (_FLOOR, beside.floors)) if there]
    others = " ".join(["", *told, _OTHERS]) if told else ""

    def with_others(name: str, note: str, found: Found, bold: Container[tuple[Place, Column]], theirs: Measured
                    ) -> Iterator[Table]:  # fmt: skip
        above, below = (beside.rows(groups, grid.across, theirs) for groups in (beside.ceilings, beside.floors))
        return grid.table(name, note + others, found, bold, above=above, below=below)

    for score in SCORES:
        found = grid.filled(partial(scored.measure, score=score))
        note = f"Mean {score}, 0 to 100, with its 95% interval over prompts. {INTERVALS} {scored.training} {_BOLD}"
        theirs = partial(beside.scored.measure, score=score)
        yield from with_others(f"main_{score}", note, found, grid.best(found, score), theirs)
    found, theirs = grid.filled(partial(coverage, study, scored)), partial(coverage, beside.study, beside.scored)
    yield from with_others("coverage", _COVERAGE, found, (), theirs)
    for score in SCORES if beside.ceilings else ():
        note = f"{_OF_CEILING} {scored.training}".rstrip()
        reached, below = of_ceiling(grid, beside, score), beside.floors_reached(grid.across, score)
        title = f"{score.capitalize()}, % of ceiling"
        yield from grid.table(f"ceiling_{score}", note, reached, title=title, below=below)


def of_ceiling(grid: Grid, beside: BesideRows, score: str) -> Found:
    """Return of each field how many percent of its ceiling's mean score it reaches."""
    found = {}
    for place, rows in grid.groups.items():
        for column in grid.across:
            runs = grid.done(place, column)
            ours = grid.scored.by_prompt(runs, score, column.judge)
            found[place, column] = beside.reached(ours, runs, rows, column, score)
    return found


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
        reached = scores.covered(run.experiment.loop.coverage_cut, None if judge == "all" else judge)
        found[run.name] = by_prompt(scores.clusters, reached)
    return mean(scored.together(list(found), list(found.values()))) if found else NOTHING
