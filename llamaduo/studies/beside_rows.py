"""The rows of the main tables for those who stand beside the models: ceilings above them, floors below.

    beside = BesideRows(study, ["local_model"])
    beside.rows(beside.ceilings, columns, measured)     [(("ceiling: gpt_4o",), {column: Measure(...)})]
    beside.ceiling_of(runs, rows, column)               whose scores are 100% for a field

Runs that differ in what was trained buy the same ceiling and the same floor: those with the same scores are one. Others
that agree in all that names a row (another seed, other prompts) are put together as runs are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256

from llamaduo.config import Beside
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.studies.beside import own_name
from llamaduo.studies.cells import SCORES, Scored
from llamaduo.studies.columns import Column
from llamaduo.studies.study import Study
from llamaduo.studies.swept import identities, in_order, key, shown
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
        who = {row["run"]: Beside(row["beside"]) for row in self.study.rows}
        rows = [row | {"beside": who[row["run"]]} for row in identities(self.study)]
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

    def ceiling_of(self, runs: Sequence[str], rows: Sequence[Row], column: Column) -> list[str]:
        """Return the ceiling of a field that stands for some runs: theirs, else the only one that agrees with its row.

        `rows` are the runs' identities; none where there is no ceiling, or several.
        """
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
        scores = self.study.scores.get(run)
        if scores is None:
            row = self.scored.row(run) or {}
            return tuple(row.get(f"{score}_{what}") for score in SCORES for what in ("mean", "low", "high", "n"))
        parts = (scores.prompt_ids, scores.clusters, scores.samples, scores.similarity, scores.precision)
        return scores.judges, sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
