"""Fields of tables, and the scores behind them: of one run as it recorded them, of several put together.

scored = Scored(study)
scored.measure(["gemma_2b-coding-1a2b3c4d"], "gpt_4o", score="precision")     mean, interval, n
number(measure)                                                         Cell("86.2 [81.0, 90.3]", 86.2)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from llamaduo.evidence.compare import ByPrompt, by_prompt, difference, differs, mean, together
from llamaduo.evidence.resample import NOTHING, Measure, on_scale
from llamaduo.studies.parts import Cell
from llamaduo.studies.study import Study
from llamaduo.studies.swept import REPEATS, identities, in_order, key, setting, shown, swept
from llamaduo.studies.tidy import Row

SCORES = ("precision", "similarity")
NOISE = (
    "Noise is that of prompts and answers only, not of training, unless a field holds several runs: run several seeds "
    "for that. Equal scores give an interval without width."
)
"""What intervals and bold fields of tables are about."""


class Scored:
    """The scores of finished runs, by run, score and judge; `all` is the panel's mean."""

    def __init__(self, study: Study) -> None:
        self._scores = study.scores
        self._reported = {(row["run"], row["judge"]): row for row in study.rows if row["reported"]}
        self._settings = {row["run"]: setting(row) for row in identities(study)}
        self._by_prompt: dict[tuple[str, str, str], ByPrompt | None] = {}

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
                found = by_prompt(scores.prompt_ids, scores.of_answers(score, None if judge == "all" else judge))
            self._by_prompt[where] = found if found is not None and found.n else None
        return self._by_prompt[where]

    def measure(self, runs: Sequence[str], judge: str = "all", *, score: str) -> Measure:
        """Return the mean score over all answers: one run's as it is recorded, several runs' put together."""
        scores = self.by_prompt(runs, score, judge)
        if len(runs) != 1:
            return on_scale(mean(scores)) if scores is not None else NOTHING
        row = self.row(runs[0], judge)
        if row is None or row[f"{score}_mean"] is None:
            return NOTHING
        prompts = len(scores.prompts) if scores is not None else 0
        mean_, low, high, n = (row[f"{score}_{name}"] for name in ("mean", "low", "high", "n"))
        return Measure(mean_, low, high, n or 0, prompts)

    def difference(self, runs: Sequence[str], others: Sequence[str], score: str) -> Measure:
        """Return how much better the answers of some runs are than those of others, for the whole panel."""
        a, b = self.by_prompt(runs, score), self.by_prompt(others, score)
        return difference(a, b) if a is not None and b is not None else NOTHING


def best(candidates: Sequence[tuple[float | None, ByPrompt | None]]) -> int | None:
    """Return which candidate, a mean and its scores, is better than every other by more than noise; None if none is.

    Without a second candidate, or without the scores behind a mean, nothing can be said.
    """
    found = [(value, at) for at, (value, _) in enumerate(candidates) if value is not None]
    if len(found) < 2:
        return None
    (_, first), *rest = sorted(found, key=lambda item: (-item[0], item[1]))
    ours = candidates[first][1]
    if ours is None:
        return None
    for _, at in rest:
        theirs = candidates[at][1]
        if theirs is None or not differs(ours, theirs):
            return None
    return first


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
    return f"n = {usual[0]:,} answers to {usual[1]:,} prompts where a field says no other." if usual else ""


def odd_n(one: Measure, usual: tuple[int, int] | None) -> str:
    """Return what a field says of its n, where that is not the usual one."""
    if one.value is None or (one.n, one.prompts) == usual:
        return ""
    if not one.prompts:
        return f"n = {one.n or 'unknown'}: verdicts.jsonl is missing"
    return f"n = {one.n:,} answers to {one.prompts:,} prompts"


def usual_n(found: Iterable[Measure]) -> tuple[int, int] | None:
    """Return the answers and prompts that most fields stand for."""
    counted = Counter((one.n, one.prompts) for one in found if one.value is not None and one.prompts)
    return max(counted, key=lambda pair: (counted[pair], pair)) if counted else None


def row_names(rows: Sequence[Row], *columns: str) -> list[str]:
    """Return the columns that name the rows of a table: what is swept, without its columns and without repeats."""
    names = [name for name in swept(rows) if name not in (*REPEATS, *columns)]
    return names or ["local_model"]


def grouped(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[object, ...], list[Row]]:
    """Return rows by the values of some columns, in order."""
    groups: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row, names), []).append(row)
    return {place: groups[place] for place in sorted(groups, key=in_order)}
