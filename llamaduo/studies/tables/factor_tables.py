"""One table for each thing that is swept besides task and model: its levels below each other, each against the first.

A row is a level of the factor within one setting of everything else (task, model, ...); the difference is that of the
answers to the same prompts. Rows that begin with `all` put together the settings in which every level was run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llamaduo.studies.factors import NAMES, REPEATS, contexts, identities, varying
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.study import Study
from llamaduo.studies.tables.cells import BOLD, INTERVALS, SCORES, Candidates, Scored, best, count, label, number
from llamaduo.studies.tidy import Row

_NOTE = (
    "Mean scores of the panel, 0 to 100, with 95% intervals over prompts; the difference is to the first level above "
    f"it that has scores, over the same prompts. {INTERVALS} n: answers. Bold: the best level of its setting. {BOLD}"
)
Levels = dict[Any, list[str]]
"""The runs of each level, in order."""


def factor_tables(study: Study, scored: Scored) -> Iterator[Table]:
    """Yield the tables of a study's factors; none for a factor that never varies within one setting."""
    rows = identities(study)
    names = varying(rows)
    done = [row for row in rows if scored.row(row["run"])]
    for factor in names:
        if factor in ("task", "local_model", "judges", "study", *REPEATS):
            continue
        others = [name for name in names if name != factor and name not in REPEATS]
        settings = {place: _levels(found) for place, found in contexts(done, names, factor).items()}
        if settings:
            yield _table(factor, others, settings, scored)


def _levels(found: dict[Any, list[Row]]) -> Levels:
    return {level: [row["run"] for row in rows] for level, rows in found.items()}


def _table(factor: str, others: Sequence[str], settings: dict[tuple[Any, ...], Levels], scored: Scored) -> Table:
    name = NAMES.get(factor, factor)
    header = [*(NAMES.get(other, other) for other in others), name]
    for score in SCORES:
        header += [score, f"{score}, difference"]
    blocks: list[tuple[list[Cell], Levels]] = []
    whole = _whole(settings)
    if whole and others:
        blocks.append(([Cell("all"), *[Cell("")] * (len(others) - 1)], whole))
    blocks += [([label(value) for value in place], levels) for place, levels in settings.items()]
    bold = best({(at, score): _candidates(levels, score, scored)
                 for at, (_, levels) in enumerate(blocks) for score in SCORES})  # fmt: skip
    rows: list[tuple[Cell, ...]] = []
    for at, (labels, levels) in enumerate(blocks):
        marked = {score: list(levels)[bold[at, score]] for score in SCORES if (at, score) in bold}
        rows += _rows(labels, levels, scored, marked)
    title = f"{name[0].upper()}{name[1:]}"
    note = f"{_NOTE} {scored.training}".rstrip()
    return Table(f"by_{factor}", title, note, (*header, "prompts", "n"), tuple(rows), labels=len(others) + 1)


def _candidates(levels: Levels, score: str, scored: Scored) -> Candidates:
    """Return the levels of one setting as they stand side by side."""
    return [(scored.measure(runs, score=score).value, scored.by_prompt(runs, score)) for runs in levels.values()]


def _whole(settings: dict[tuple[Any, ...], Levels]) -> Levels:
    """Return, by level, the runs of all settings in which every level was run; empty unless there are two such."""
    every = {level for levels in settings.values() for level in levels}
    full = [levels for levels in settings.values() if levels.keys() == every]
    if len(full) < 2:
        return {}
    return {level: list(dict.fromkeys(run for levels in full for run in levels[level])) for level in full[0]}


def _rows(
    labels: Sequence[Cell], levels: Levels, scored: Scored, bold: Mapping[str, Any]
) -> Iterator[tuple[Cell, ...]]:
    """Yield the rows of one setting; `bold` is by score the level that is better than every other."""
    means = {(level, score): scored.measure(runs, score=score) for level, runs in levels.items() for score in SCORES}
    first = {score: next((one for one in levels if means[one, score].value is not None), None) for score in SCORES}
    for level, runs in levels.items():
        fields = [*labels, label(level)]
        for score in SCORES:
            one = means[level, score]
            apart = Cell("")
            if level != first[score] and one.value is not None:
                apart = number(scored.difference(runs, levels[first[score]], score), sign=True)
            is_best = score in bold and bold[score] == level and one.value is not None
            fields += [number(one, bold=is_best), apart]
        n, prompts = (max(getattr(means[level, score], of) for score in SCORES) for of in ("n", "prompts"))
        many = f"{len(runs)} runs put together" if len(runs) > 1 else ""
        yield (*fields, count(prompts or None), Cell(f"{n:,}", float(n), note=many) if n else count(None))
