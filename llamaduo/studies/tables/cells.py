"""Fields of tables, and the scores behind them: of one run as it recorded them, of several put together.

scored = Scored(study)
scored.measure(["gemma_2b-coding-1a2b3c4d"], "gpt_4o", score="precision")     mean, interval, n
number(measure)                                                         Cell("86.2 [81.0, 90.3]", 86.2)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from llamaduo.evidence.compare import ByPrompt, by_prompt, cut, difference, holm, mean, p_value, together, widened
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.studies.factors import REPEATS, identities, in_order, key, setting, shown, varying
from llamaduo.studies.parts import Cell
from llamaduo.studies.study import Study
from llamaduo.studies.tidy import Row, training_sd

SCORES = ("precision", "similarity")
INTERVALS = "Intervals hold for few prompts, too (Gaffke's): they allow for failures that no prompt has shown."
"""Which intervals means and differences of tables have."""
BOLD = (
    "Bold type is a claim that the best is better than every other: a test that swaps two models' answers to the same "
    "prompts tells them apart, training noise included, and Holm's correction over all of a table's claims keeps false "
    "ones to 5% of tables. The test takes equal models to fail alike: of two that fail in different ways, with equal "
    "means, it tells up to 21 of 100 apart with 15 prompts, 9 with 25, 7 with 50."
)
"""What bold fields of tables claim."""


class Scored:
    """The scores of finished runs, by run, score and judge; `all` is the panel's mean."""

    def __init__(self, study: Study) -> None:
        self._scores = study.scores
        self._reported = {(row["run"], row["judge"]): row for row in study.rows if row["reported"]}
        self._settings = {row["run"]: setting(row) for row in identities(study)}
        self._training_sd = {run.name: training_sd(run.experiment) for run in study.runs}
        self._by_prompt: dict[tuple[str, str, str], ByPrompt | None] = {}

    @property
    def training(self) -> str:
        """Say in a sentence what of training noise fields hold; empty where nothing was trained."""
        found = sorted({self._training_sd[run] for run, judge in self._reported if judge == "all"} - {0.0})
        if not found:
            return ""
        points = " to ".join(f"{sd:g}" for sd in dict.fromkeys((found[0], found[-1])))
        return (
            f"Fields of one run are widened by training noise of {points} points (SD between seeds, assumed: "
            "evidence.training_noise_sd), those of several seeds by how far these lie apart."
        )

    def row(self, run: str, judge: str = "all") -> Row | None:
        """Return the row that stands for a run, None for one that isn't done or that this judge never saw."""
        return self._reported.get((run, judge))

    def by_prompt(self, runs: Sequence[str], score: str, judge: str = "all") -> ByPrompt | None:
        """Return the scores of all answers of some runs; None where one of them has none."""
        parts = [self._one(run, score, judge) for run in runs]
        found = [part for part in parts if part is not None]
        return self.together(runs, found) if found and len(found) == len(parts) else None

    def together(self, runs: Sequence[str], parts: Sequence[ByPrompt]) -> ByPrompt:
        """Put the scores of some runs together; those that differ in their seeds alone are repeats of each other."""
        return together(parts, [self._settings[run] for run in runs])

    def _one(self, run: str, score: str, judge: str) -> ByPrompt | None:
        where = (run, score, judge)
        if where not in self._by_prompt:
            scores = self._scores.get(run) if self.row(run, judge) else None
            known = scores is not None and (judge == "all" or judge in scores.judges)
            found = None
            if scores is not None and known:
                values = scores.of_answers(score, None if judge == "all" else judge)
                found = by_prompt(scores.clusters, values, training_sd=self._training_sd[run])
            self._by_prompt[where] = found if found is not None and found.n else None
        return self._by_prompt[where]

    def measure(self, runs: Sequence[str], judge: str = "all", *, score: str) -> Measure:
        """Return the mean score over all answers: one run's as it is recorded, several runs' put together.

        The limits allow for training noise.
        """
        if len(runs) == 1:
            return cut(widened(self.recorded(runs[0], judge, score=score), self._training_sd[runs[0]]))
        scores = self.by_prompt(runs, score, judge)
        return mean(scores) if scores is not None else NOTHING

    def recorded(self, run: str, judge: str = "all", *, score: str) -> Measure:
        """Return the mean score of one run as it is recorded: training noise is no part of it."""
        row = self.row(run, judge)
        if row is None or row[f"{score}_mean"] is None:
            return NOTHING
        scores = self.by_prompt([run], score, judge)
        prompts = len(scores.prompts) if scores is not None else 0
        mean_, low, high, n = (row[f"{score}_{name}"] for name in ("mean", "low", "high", "n"))
        return Measure(mean_, low, high, n or 0, prompts)

    def difference(self, runs: Sequence[str], others: Sequence[str], score: str) -> Measure:
        """Return how much better the answers of some runs are than those of others, for the whole panel."""
        a, b = self.by_prompt(runs, score), self.by_prompt(others, score)
        return difference(a, b) if a is not None and b is not None else NOTHING


Place = TypeVar("Place", bound=Hashable)
Candidates = Sequence[tuple[float | None, ByPrompt | None]]
"""What stands side by side: a mean and the scores behind it, null where there is none."""


def best(columns: Mapping[Place, Candidates]) -> dict[Place, int]:
    """Return of a table's columns the candidate that is better than every other by more than noise, where one is.

    A column's claim, that its best is better than each of the others, is as sure as the least sure of these comparisons
    (Berger 1982); Holm's correction is over the claims of all columns. Without a second candidate there is none, and
    without the scores behind a mean nothing can be said.
    """
    claims = {place: found for place, column in columns.items() if (found := _claim(column)) is not None}
    stands = holm([chance for _, chance in claims.values()])
    return {place: first for (place, (first, _)), sure in zip(claims.items(), stands, strict=True) if sure}


def _claim(candidates: Candidates) -> tuple[int, float] | None:
    """Return which candidate has the highest mean, and how likely chance alone sets it apart from all the others."""
    found = [(value, at) for at, (value, _) in enumerate(candidates) if value is not None]
    if len(found) < 2:
        return None
    (_, first), *rest = sorted(found, key=lambda item: (-item[0], item[1]))
    ours, chance = candidates[first][1], 0.0
    for _, at in rest:
        theirs = candidates[at][1]
        chance = max(chance, p_value(ours, theirs) if ours is not None and theirs is not None else 1.0)
        if chance > _NEVER:
            break
    return first, chance


_NEVER = 0.05
"""No correction lets a claim stand whose p-value is above this: its other comparisons needn't be made."""


def number(found: Measure, digits: int = 1, *, bold: bool = False, sign: bool = False, note: str = "") -> Cell:
    """Return a field with a number and its interval; an empty one where there is no number."""
    if found.value is None:
        return Cell("", note=note)
    form = f"{'+' if sign else ''}.{digits}f"
    text = f"{found.value:{form}}"
    if found.low is not None and found.high is not None:
        text += f" [{found.low:{form}}, {found.high:{form}}]"
    return Cell(text, found.value, bold, note)


def count(n: int | None) -> Cell:
    """Return a field with a count; empty where it isn't known."""
    return Cell("") if n is None else Cell(f"{n:,}", float(n))


def label(value: object) -> Cell:
    """Return a field that names a row; numbers are sorted as numbers."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return Cell(shown(value), float(value) if numeric else None)  # type: ignore[arg-type]


def said_n(usual: tuple[int, int] | None) -> str:
    """Return the n that most fields have, as a sentence; those that differ say so themselves (`odd_n`)."""
    return f"{told_n(*usual)} where a field says no other." if usual else ""


def odd_n(one: Measure, usual: tuple[int, int] | None) -> str:
    """Return what a field says of its n, where that is not the usual one."""
    if one.value is None or (one.n, one.prompts) == usual:
        return ""
    if not one.prompts:
        return f"n = {one.n or 'unknown'}: verdicts.jsonl is missing, or dear judges saw some answers only"
    return told_n(one.n, one.prompts)


def told_n(answers: int, prompts: int) -> str:
    """Return what stands behind a number, such as `n = 32 prompts, 128 answers`."""
    return f"n = {prompts:,} prompt{'' if prompts == 1 else 's'}, {answers:,} answer{'' if answers == 1 else 's'}"


def usual_n(found: Iterable[Measure]) -> tuple[int, int] | None:
    """Return the answers and prompts that most fields stand for."""
    counted = Counter((one.n, one.prompts) for one in found if one.value is not None and one.prompts)
    return max(counted, key=lambda pair: (counted[pair], pair)) if counted else None


def row_names(rows: Sequence[Row], *columns: str) -> list[str]:
    """Return the columns that name the rows of a table: what is swept, without its columns and without repeats."""
    names = [name for name in varying(rows) if name not in (*REPEATS, *columns)]
    return names or ["local_model"]


def grouped(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[object, ...], list[Row]]:
    """Return rows by the values of some columns, in order."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row, names), []).append(row)
    return {place: groups[place] for place in sorted(groups, key=in_order)}
