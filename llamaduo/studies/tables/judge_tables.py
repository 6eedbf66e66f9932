"""What judges make of the same answers: agreement, rank correlation, strictness and noise, the family of the generator.

The answers of all finished runs that one panel judged are put together; studies with several panels get a row each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

from llamaduo.config import answering_server
from llamaduo.evidence.agreement import alpha, family_gap, rank_correlation, self_noise, strictness
from llamaduo.evidence.compare import ByPrompt, by_prompt, difference, holm, mean, p_value, together
from llamaduo.evidence.resample import NOTHING, Measure
from llamaduo.runs.record import RunRecord
from llamaduo.studies.factors import setting
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.study import Study
from llamaduo.studies.tables.cells import INTERVALS, SCORES, count, number
from llamaduo.studies.tidy import identity

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """The answers that the same judges looked at, of all finished runs."""

    judges: tuple[str, ...]
    runs: tuple[RunRecord, ...]
    study: Study

    def values(self, score: str, runs: Sequence[RunRecord] | None = None) -> Floats:
        """Return (answers, judges): each judge's mean over its repeats."""
        import numpy as np

        return np.concatenate([self._of(run, self.study.scores[run.name].by_judge[score]) for run in runs or self.runs])

    def repeats(self, score: str, judge: int) -> Floats:
        """Return (answers, repeats) of one judge; runs with fewer repeats are filled up with nan."""
        import numpy as np

        parts = [self._of(run, getattr(self.study.scores[run.name], score))[:, judge] for run in self.runs]
        most = max(part.shape[1] for part in parts)
        return np.concatenate([np.pad(p, ((0, 0), (0, most - p.shape[1])), constant_values=np.nan) for p in parts])

    def _of(self, run: RunRecord, found: Floats) -> Floats:
        """Return a run's scores, (answers, judges, ...), with the judges in the panel's order."""
        named = self.study.scores[run.name].judges
        return found[:, [named.index(judge) for judge in self.judges]]

    def ids(self, runs: Sequence[RunRecord] | None = None) -> NDArray[Any]:
        """Return (answers,): the prompts, told apart by task; near copies go by one name."""
        import numpy as np

        chosen = runs or self.runs
        return np.concatenate([np.char.add(f"{_task(run)}/", self.study.scores[run.name].clusters) for run in chosen])

    def gap(self, score: str, runs: Sequence[RunRecord], kin: NDArray[np.bool_]) -> ByPrompt:
        """Return the mean of the judges in `kin`, (judges,), less that of the others, of the answers of some runs."""
        parts = [by_prompt(self.ids([run]), family_gap(self.values(score, [run]), kin)) for run in runs]
        return together(parts, [setting(identity(run) | {"judges": self.judges}) for run in runs])

    @cached_property
    def prompts(self) -> NDArray[Any]:
        """`ids` of all runs."""
        return self.ids()

    @cached_property
    def tasks(self) -> NDArray[Any]:
        """(answers,): the task of each answer of all runs."""
        import numpy as np

        sizes = [len(self.study.scores[run.name].prompt_ids) for run in self.runs]
        return np.repeat([_task(run) for run in self.runs], sizes)


def _task(run: RunRecord) -> str:
    return run.experiment.task.name


def panels(study: Study) -> list[Panel]:
    """Return the panels of a study, with the runs that each judged; runs without scores are left out."""
    by_judges: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in study.runs:
        scores = study.scores.get(run.name)
        if run.state.status == "done" and scores is not None and len(scores.prompt_ids):
            by_judges.setdefault(tuple(sorted(scores.judges)), []).append(run)
    return [Panel(judges, tuple(by_judges[judges]), study) for judges in sorted(by_judges)]


def judge_tables(study: Study) -> Iterator[Table]:
    """Yield the tables of a study's judges; those that compare judges only where a panel has two or more."""
    found = panels(study)
    several = [panel for panel in found if len(panel.judges) > 1]
    rows = [row for panel in several for row in _agreement(panel, named=len(several) > 1)]
    if rows:
        labels = ("panel", "task") if len(several) > 1 else ("task",)
        yield Table("judges_agreement", "Agreement between judges", _AGREEMENT, (*labels, *SCORES, "prompts", "n"),
                    tuple(rows), labels=len(labels))  # fmt: skip
    rows = [row for panel in several for row in _correlations(panel)]
    if rows:
        kinds = [f"{score}, {kind}" for score in SCORES for kind in ("Spearman", "Kendall", "runs (Kendall)")]
        yield Table("judges_correlation", "Rank correlation of judges", _CORRELATION,
                    ("judge", "and", *kinds, "prompts", "n", "runs"), tuple(rows), labels=2)  # fmt: skip
    rows = [row for panel in found for row in _habits(panel, named=len(found) > 1)]
    if any(cell.text for row in rows for cell in row[2 if len(found) > 1 else 1 :]):
        labels = ("panel", "judge") if len(found) > 1 else ("judge",)
        kinds = [f"{score}, {kind}" for kind in ("strictness", "noise") for score in SCORES]
        yield Table("judges_habits", "Strictness and noise of judges", _HABITS, (*labels, *kinds, "prompts", "n"),
                    tuple(rows), labels=len(labels))  # fmt: skip
    rows = list(_families(several))
    if rows:
        yield Table("judges_family", "Judges of the generator's family", _FAMILY,
                    ("generator's family", "judges of it", "other judges", "score", "gap", "reference gap",
                     "difference", "prompts", "n", "prompts of reference", "n of reference"),
                    tuple(rows), labels=4)  # fmt: skip


_AGREEMENT = (
    "Krippendorff's alpha on the interval scale, over the judges' means of each answer, with its 95% interval over "
    "prompts (bootstrap: approximate for few prompts): 1 is agreement, 0 is chance. n: answers that two judges or more "
    "scored. Models that differ much in how good they are raise it."
)


def _agreement(panel: Panel, *, named: bool) -> Iterator[tuple[Cell, ...]]:
    tasks = sorted({_task(run) for run in panel.runs})
    places = [("all tasks", list(panel.runs))] if len(tasks) > 1 else []
    places += [(task, [run for run in panel.runs if _task(run) == task]) for task in tasks]
    for place, runs in places:
        ids = panel.ids(runs)
        found = [alpha(ids, panel.values(score, runs)) for score in SCORES]
        if any(one.value is not None for one in found):
            first = [Cell(" + ".join(panel.judges))] if named else []
            yield (*first, Cell(place), *(number(one, 2) for one in found), *_behind(found))


def _behind(found: Sequence[Measure]) -> tuple[Cell, Cell]:
    """Return the fields with the prompts and the answers behind some numbers."""
    return count(max(one.prompts for one in found)), count(max(one.n for one in found))


_CORRELATION = (
    "Rank correlation of two judges' scores over answers (Spearman's rho, Kendall's tau-b) and over runs' means "
    "(Kendall: do both put the models in the same order), each within every task, then the mean over tasks; with 95% "
    "intervals by a jackknife over prompts or runs, approximate for few. n: answers that both scored; of more than "
    "20,000 an even part. "
    "Runs: those of tasks with three or more; without a fourth in each, and where nothing "
    "scatters, there is no interval."
)


def _correlations(panel: Panel) -> Iterator[tuple[Cell, ...]]:
    import numpy as np

    values = {score: panel.values(score) for score in SCORES}
    sizes = [len(panel.study.scores[run.name].prompt_ids) for run in panel.runs]
    ends = np.cumsum(sizes)[:-1]
    means = {score: np.array([_means(part) for part in np.split(values[score], ends)]) for score in SCORES}
    names, tasks = (np.array([told(run) for run in panel.runs]) for told in (lambda run: run.name, _task))
    for a, b in combinations(range(len(panel.judges)), 2):
        found: list[Measure] = []
        for score in SCORES:
            x, y = values[score][:, a], values[score][:, b]
            found += [rank_correlation(panel.prompts, x, y, kind, panel.tasks) for kind in ("spearman", "kendall")]
            found.append(rank_correlation(names, means[score][:, a], means[score][:, b], "kendall", tasks))
        if any(one.value is not None for one in found):
            yield (Cell(panel.judges[a]), Cell(panel.judges[b]), *(number(one, 2) for one in found),
                   *_behind((found[0], found[3])), _runs((found[2], found[5]), tasks))  # fmt: skip


def _runs(found: Sequence[Measure], tasks: NDArray[Any]) -> Cell:
    """Return of how many runs and tasks correlations of runs are at most; empty where there is none."""
    import numpy as np

    n, of = max(one.n for one in found), int((np.unique(tasks, return_counts=True)[1] >= 3).sum())
    return Cell(f"{n} in {of} task{'' if of == 1 else 's'}", float(n)) if n else Cell("")


def _means(values: Floats) -> Floats:
    """Return (judges,): the means over answers, nan where a judge scored none."""
    import numpy as np

    there = ~np.isnan(values)
    sums, counts = np.where(there, values, 0.0).sum(0), there.sum(0)
    found: Floats = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return found


_HABITS = (
    "Strictness: a judge's mean minus the panel's over answers that all its judges scored, in points of 100; below "
    "zero is strict. Noise: standard deviation between one judge's repeats on the same answer, in points; empty "
    "without repeats. 95% intervals over prompts: of strictness Gaffke's, which hold for few prompts, too; of noise a "
    "bootstrap's, approximate for few. n: answers that the judge scored."
)


def _habits(panel: Panel, *, named: bool) -> Iterator[tuple[Cell, ...]]:
    import numpy as np

    values = {score: panel.values(score) for score in SCORES}
    for at, judge in enumerate(panel.judges):
        alone = len(panel.judges) < 2
        strict = [NOTHING if alone else strictness(panel.prompts, values[score], at) for score in SCORES]
        noise = [self_noise(panel.prompts, panel.repeats(score, at)) for score in SCORES]
        known = [~np.isnan(values[score][:, at]) for score in SCORES]
        behind = [count(max(len(np.unique(panel.prompts[there])) for there in known)),
                  count(max(int(there.sum()) for there in known))]  # fmt: skip
        first = [Cell(" + ".join(panel.judges))] if named else []
        yield (*first, Cell(judge), *(number(one, 2, sign=True) for one in strict),
               *(number(one, 2) for one in noise), *behind)  # fmt: skip


_FAMILY = (
    "Gap: mean score by the judges of the family minus the mean by the others, over the answers of models fine-tuned "
    "on data that the family's service LLM wrote. Reference gap: the same judges' gap over the answers, to the same "
    "tasks, of models that are not of the family and learnt from nobody's or another family's synthetic data. "
    "Difference: gap minus reference gap; above zero, judges favour their own family's students (preference leakage). "
    "It is no proof where the models compared differ much in how good they are. A family is a service LLM's provider, "
    "and the local models that it made (Gemma is Google's, as Gemini is). "
    "Points of 100, 95% intervals over prompts (and over runs, where some differ in their seeds alone); only answers "
    f"that all judges scored. {INTERVALS} Bold: a difference that a permutation test over prompts tells from none, "
    "with Holm's correction over the table's differences. Empty without a reference."
)


def _families(several: Sequence[Panel]) -> Iterator[tuple[Cell, ...]]:
    gaps = [gap for panel in several for gap in _gaps(panel)]
    stands = holm([gap.chance for gap in gaps])
    for gap, bold in zip(gaps, stands, strict=True):
        fields = (number(one, 2, sign=True) for one in (gap.gap, gap.reference))
        apart = number(gap.apart, 2, sign=True, bold=bold and gap.apart.value is not None)
        yield (*map(Cell, gap.labels), *fields, apart, *_behind([gap.gap]), *_behind([gap.reference]))


@dataclass(frozen=True)
class _Gap:
    """What the judges of a family give more than the others."""

    labels: tuple[str, ...]
    """The family, its judges, the others, the score."""
    gap: Measure
    reference: Measure
    apart: Measure
    chance: float
    """The p-value of no difference; 1 without a reference."""


def _gaps(panel: Panel) -> Iterator[_Gap]:
    import numpy as np

    taught = {run.name: _teacher(run) for run in panel.runs}
    for family in sorted({name for name in taught.values() if name}):
        kin = np.array([_provider(panel.runs[0], judge) == family for judge in panel.judges])
        if kin.all() or not kin.any():
            continue
        students = [run for run in panel.runs if taught[run.name] == family]
        tasks = {_task(run) for run in students}
        strangers = [r for r in panel.runs if family not in (taught[r.name], _answers(r)) and _task(r) in tasks]
        for score in SCORES:
            gap = panel.gap(score, students, kin)
            reference, apart, chance = NOTHING, NOTHING, 1.0
            if strangers:
                other = panel.gap(score, strangers, kin)
                reference, apart = mean(other, low=-100), difference(gap, other, low=-100)
                chance = p_value(gap, other)
            if not gap.n:
                continue
            sides = [" + ".join(j for j, is_kin in zip(panel.judges, kin, strict=True) if is_kin is same)
                     for same in (np.True_, np.False_)]  # fmt: skip
            yield _Gap((family, *sides, score), mean(gap, low=-100), reference, apart, chance)


def _teacher(run: RunRecord) -> str | None:
    """Return the provider of the service LLM whose data a model was fine-tuned on."""
    made = run.experiment
    learns = made.synthesis.enabled and made.train.enabled and not made.infer.served
    return str(made.service_llm.provider) if learns else None


_MAKERS = {"google/": "gemini", "mistralai/": "mistral", "openai/": "openai", "Qwen/": "dashscope",
           "meta-llama/": "meta_llama"}  # fmt: skip
"""Who made a local model, by how its path begins, as the provider of its maker's service LLMs."""


def _answers(run: RunRecord) -> str | None:
    """Return the family of who answers: a service LLM's provider, or a local model's maker where it is known."""
    if server := answering_server(run.experiment):
        return str(server.provider)
    path = str(run.experiment.local_model.path)
    return next((family for start, family in _MAKERS.items() if path.startswith(start)), None)


def _provider(run: RunRecord, judge: str) -> str | None:
    member = run.experiment.judge.panel.get(judge)
    return member.provider if member else None
