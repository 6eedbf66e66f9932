"""A study as reports see it: its runs, their tidy rows and the scores of the answers that each is reported by.

study = read_study(Path("results/main_table"))
study.reported("all")                 the rows that stand for runs in tables, scored by the whole panel
study.beside                          the ceilings and floors that runs bought, as a study of their own
study.scores["gemma_2b-coding-1a2b3c4d"].of_answers("precision")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from llamaduo.errors import InputError
from llamaduo.runs.record import RunRecord, read_runs
from llamaduo.studies.answers import Scores, read_scores, reported_scores
from llamaduo.studies.beside import own_name, stand_ins
from llamaduo.studies.tidy import Row, tidy


@dataclass(frozen=True)
class Study:
    """All that tables, figures and pages are made of."""

    root: Path
    """The folder that was asked for: a study's, a run's, or one above them."""
    runs: list[RunRecord]
    rows: list[Row]
    """The tidy rows of all runs."""
    scores: dict[str, Scores]
    """By the run's name: the scores of the answers that it is reported by; none for a run without such answers."""
    scores_beside: dict[str, Scores] = field(default_factory=dict)
    """The same of those who were judged beside a run's models, by their own names."""

    def reported(self, judge: str = "all") -> list[Row]:
        """Return the rows that stand for their runs, as one judge scored them; `all` is the panel's mean."""
        return [row for row in self.rows if row["reported"] and row["judge"] == judge]

    def row(self, run: str) -> Row | None:
        """Return the row that stands for a run, as the whole panel scored it; None for one that isn't done."""
        return self._by_run.get(run)

    @cached_property
    def _by_run(self) -> dict[str, Row]:
        return {row["run"]: row for row in self.reported()}

    @cached_property
    def beside(self) -> Study:
        """Those who were judged beside the models of finished runs: each is a run of its own, reported by its rows."""
        done = [run for run in self.runs if run.state.status == "done"]
        runs = [one.run for run in done for one in stand_ins(run)]
        names = {run.name for run in runs}
        theirs = [row | {"run": own_name(row["run"], row["beside"])} for row in self.rows if row["beside"]]
        rows = [row | {"reported": True} for row in theirs if row["run"] in names]
        return Study(self.root, runs, rows, self.scores_beside)


def read_study(root: Path) -> Study:
    """Return the study in a folder; raises InputError if there is no run or one is damaged."""
    runs = read_runs(root)
    scores: dict[str, Scores] = {}
    beside: dict[str, Scores] = {}
    for run in runs:
        try:
            found = reported_scores(run)
            theirs = {one.run.name: read_scores(one.verdicts) for one in stand_ins(run) if one.verdicts.exists()}
        except (OSError, ValueError) as error:
            raise InputError(f"{run.folder}: its verdicts can't be read ({error}); move the run elsewhere.") from error
        if found is not None:
            scores[run.name] = found
        beside |= theirs
    return Study(root, runs, tidy(runs, scores | beside), scores, beside)
