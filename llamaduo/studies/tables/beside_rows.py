"""The rows of the main tables for those who stand beside the models: ceilings above them, floors below.

    beside = BesideRows(study, ["local_model"])
    beside.rows(beside.ceilings, columns, measured)     [(("ceiling: gpt_4o",), {column: Measure(...)})]
    beside.reached(scores, runs, rows, column, "precision")     how many percent of their ceiling some runs reach

Runs that differ in what was trained buy the same ceiling and the same floor: those with the same scores are one. Others
that agree in all that names a row (another seed, other prompts) are put together as runs are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256

from llamaduo.config import Beside
from llamaduo.evidence.compare import ByPrompt
from llamaduo.evidence.ratio import ratio
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.studies.beside import own_name, stand_ins
from llamaduo.studies.factors import identities, in_order, key, shown
from llamaduo.studies.study import Study
from llamaduo.studies.tables.cells import SCORES, Scored
from llamaduo.studies.tables.columns import Column
from llamaduo.studies.tidy import Row

Place = tuple[object, ...]
_NAMING = ("local_model", "method")
"""Columns of which the first field of such a row says it all."""


class BesideRows:
    """Those who stand beside a study's models, by the rows of its main tables."""

    def __init__(self, study: Study, names: Sequence[str]) -> None:
        self.study = study.beside
        """Those who stand there, as a study of their own."""
        self.scored = Scored(self.study)
        self._names = names
        self._contents: dict[str, object] = {}
        who = {one.run.name: (one.name, run.name) for run in study.runs for one in stand_ins(run)}
        rows = [row | dict(zip(("beside", "of"), who[row["run"]], strict=True)) for row in identities(self.study)]
        rows.sort(key=lambda row: (row["local_model"], list(Beside).index(row["beside"]), in_order(key(row, names))))
        self.ceilings = self._placed(row for row in rows if row["beside"] is Beside.service_llm)
        self.floors = self._placed(row for row in rows if row["beside"] is not Beside.service_llm)

    def _placed(self, rows: Iterable[Row]) -> dict[Place, list[Row]]:
        """Return rows by what names them: who it is, then the columns that name a table's rows."""
        groups: dict[Place, list[Row]] = {}
        for row in rows:
            ceiling = row["beside"] is Beside.service_llm
            who = f"ceiling: {row['local_model']}" if ceiling else f"floor: {row['local_model']}, {row['method']}"
            first, *rest = self._names
            if first not in _NAMING and row[first] is not None:
                who += f", {shown(row[first])}"
            groups.setdefault((who, *key(row, rest)), []).append(row)
        return groups

    def rows(
        self, groups: Mapping[Place, list[Row]], across: Sequence[Column], measured: Callable[[list[str], str], Measure]
    ) -> list[tuple[Place, dict[Column, Measure]]]:
        """Return what is measured of ceilings or floors in each of some columns."""
        return [
            (place, {c: measured(runs, c.judge) if (runs := self._done(rows, c)) else NOTHING for c in across})
            for place, rows in groups.items()
        ]

    def reached(
        self, scores: ByPrompt | None, runs: Sequence[str], rows: Sequence[Row], column: Column, score: str
    ) -> Measure:
        """Return some scores' mean as percent of the ceiling's; nothing where there is no such ceiling.

        The scores are of `runs`, or of who stands beside them, and `rows` tell who that is.
        """
        theirs = self.scored.by_prompt(self._ceiling(runs, rows, column), score, column.judge)
        return ratio(scores, theirs) if scores is not None and theirs is not None else NOTHING

    def floors_reached(self, across: Sequence[Column], score: str) -> list[tuple[Place, dict[Column, Measure]]]:
        """Return how many percent of their ceiling the floors reach in each of some columns."""

        def percent(rows: list[Row], column: Column) -> Measure:
            scores = self.scored.by_prompt(self._done(rows, column), score, column.judge)
            return self.reached(scores, [row["of"] for row in rows], rows, column, score)

        return [(place, {c: percent(rows, c) for c in across}) for place, rows in self.floors.items()]

    def _ceiling(self, runs: Sequence[str], rows: Sequence[Row], column: Column) -> list[str]:
        """Return the ceiling that some runs bought, else the only one that agrees with their row, else none."""
        names = {own_name(run, Beside.service_llm) for run in runs}
        every = [row for group in self.ceilings.values() for row in group]
        own = self._done([row for row in every if row["run"] in names], column)
        fitting = [group for group in self.ceilings.values() if self._agree(group[0], rows[0])]
        found = [done for group in fitting if (done := self._done(group, column))]
        return own or (found[0] if len(found) == 1 else [])

    def _agree(self, ceiling: Row, row: Row) -> bool:
        names = [name for name in self._names if name not in _NAMING]
        return all(ceiling[name] in (None, row[name]) for name in names)

    def _done(self, rows: Sequence[Row], column: Column) -> list[str]:
        """Return who of some rows has scores of the column's judge, those with the same scores once."""
        found: dict[object, str] = {}
        for run in column.runs(rows):
            if self.scored.row(run, column.judge):
                found.setdefault(self._content(run), run)
        return list(found.values())

    def _content(self, run: str) -> object:
        """Return what is equal for two that have the same scores."""
        if run not in self._contents:
            scores, row = self.study.scores.get(run), self.scored.row(run) or {}
            if scores is None:
                recorded = [f"{score}_{what}" for score in SCORES for what in ("mean", "low", "high", "n")]
                self._contents[run] = tuple(row.get(name) for name in recorded)
            else:
                parts = (scores.prompt_ids, scores.clusters, scores.samples, scores.similarity, scores.precision)
                self._contents[run] = scores.judges, sha256(b"".join(part.tobytes() for part in parts)).digest()
        return self._contents[run]
