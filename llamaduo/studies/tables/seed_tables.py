"""Training noise: how far the scores of runs lie apart that differ in their seeds alone.

    for table in seed_tables(study, scored): print(markdown(table))

A row is a setting (model, task, ...) with two finished runs or more; the first puts all settings together. It is what
a report may assume of studies that ran one seed: `evidence.training_noise_sd`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from llamaduo.evidence.compare import ByPrompt, Repeats
from llamaduo.evidence.resample import NOTHING, Measure, rounded
from llamaduo.studies.factors import NAMES, identities
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.study import Study
from llamaduo.studies.tables.cells import SCORES, Scored, count, grouped, label, number, row_names

_NOTE = (
    "Standard deviation between the mean scores of runs that differ in their seeds alone, in points of 100, with its "
    "95% interval (chi-square: means of seeds are taken to be normal). A seed decides which synthetic rows are asked "
    "for, training, and the drawing of answers; prompts are the same, so that their noise is no part of it. All: "
    "pooled over settings. Seeds: runs; n: their answers, to so many prompts."
)


def seed_tables(study: Study, scored: Scored) -> Iterator[Table]:
    """Yield the table of training noise; nothing where no setting has two finished runs."""
    done = [row for row in identities(study) if scored.row(row["run"])]
    names = list(dict.fromkeys(["task", *row_names(done, "task")])) if done else []
    settings = {place: [row["run"] for row in rows] for place, rows in grouped(done, names).items()}
    found = {place: [scored.by_prompt(runs, score) for score in SCORES] for place, runs in settings.items()}
    noisy = {place: [one for one in sides if one is not None and one.repeats.degrees] for place, sides in found.items()}
    places = [place for place in settings if noisy[place]]
    if not places:
        return
    rows = [(*map(label, place), *_fields(len(settings[place]), [[one] for one in found[place]])) for place in places]
    if len(places) > 1:
        runs = sum(len(settings[place]) for place in places)
        pooled = [[found[place][at] for place in places] for at in range(len(SCORES))]
        rows.insert(0, (Cell("all"), *[Cell("")] * (len(names) - 1), *_fields(runs, pooled)))
    header = (
        *(NAMES.get(name, name) for name in names),
        *(f"{score}, SD" for score in SCORES),
        "seeds",
        "prompts",
        "n",
    )
    yield Table("seeds", "Training noise", _NOTE, header, tuple(rows), labels=len(names))


def _fields(runs: int, sides: Sequence[Sequence[ByPrompt | None]]) -> Iterator[Cell]:
    """Yield the fields of a row: of each score the SD over its settings, then what stands behind them."""
    known = [[one for one in side if one is not None] for side in sides]
    yield from (number(spread([one.repeats for one in side])) for side in known)
    yield count(runs)
    yield count(max(sum(len(one.prompts) for one in side) for side in known))
    yield count(max(sum(one.n for one in side) for side in known))


def spread(repeats: Sequence[Repeats]) -> Measure:
    """Return the standard deviation between seeds, pooled over settings; n is the degrees of freedom."""
    from scipy.special import chdtri

    degrees = sum(one.degrees for one in repeats)
    if not degrees:
        return NOTHING
    squares = sum(one.squares for one in repeats)
    low, high = (math.sqrt(squares / float(chdtri(degrees, beyond))) for beyond in (0.025, 0.975))
    return Measure(rounded(math.sqrt(squares / degrees)), rounded(low), rounded(high), degrees, 0)
