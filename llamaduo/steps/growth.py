"""Growth of the synthetic pool: how many rows an iteration wants, and the rounds of asking and curating to get them.

    growth.new_rows("start", pool=[], volume=48)      at most so many rounds until as many rows are left

Into the folder of the iteration after which they are wanted go `synthesis.json` (what came, raw), `synthetic.jsonl`
(what curation left of it) and `curation.json` (what became of each row).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

from llamaduo.config import CurationFilter, Experiment, Growth, Pick, ServiceLLM, Strategy, Synthesis, plain
from llamaduo.curation.curate import Curated, Curator, Report
from llamaduo.curation.notes import many_removed
from llamaduo.curation.order import ORDER, chosen, reasons_told
from llamaduo.data.dataset import CoverageDataset
from llamaduo.display import Display, Progress, place
from llamaduo.errors import CurationError, InputError
from llamaduo.records import Example
from llamaduo.runs.folder import Again, RunDir
from llamaduo.runs.layout import CURATION, PROVENANCE, SYNTHESIS, SYNTHETIC
from llamaduo.service.client import Service
from llamaduo.steps.student import Student
from llamaduo.synthesis.asking import Batch, Origin, synthesize
from llamaduo.synthesis.best_of import best_of
from llamaduo.synthesis.strategies import LOOKS, STRATEGIES, named
from llamaduo.synthesis.strategy import Asked, Situation

_ROUNDS = 3
_MOST = 4
"""What a growth with rounds by yield asks for at most, as a multiple of its first round."""
_ENOUGH = 16
"""Rows of which none is left: no more are bought, where filters are named."""
_FEW = 0.9
"""Of the rows that were wanted: with fewer left, it is said what became of them."""


def volume(growth: Growth, coverage_rows: int, number: int) -> int:
    """Return how many synthetic rows iteration `number` wants."""
    if growth.volumes:
        return growth.volumes[min(number, len(growth.volumes) - 1)]
    return round(coverage_rows * growth.factor**number) - coverage_rows


def rounds(config: Synthesis) -> int:
    """Return how many rounds of asking a growth has at most."""
    return config.rounds or _ROUNDS


def most_asked(config: Synthesis) -> int:
    """Return what a growth asks for at most, as a multiple of its first round."""
    return _MOST if config.rounds else _ROUNDS


def seeds(dataset: CoverageDataset) -> tuple[Example, ...]:
    """Return the training rows that new pairs are asked for with: those that call no tools."""
    plain = tuple(row for row in dataset.train if not row.with_tools)
    if dataset.train and not plain:
        raise InputError("every training row calls tools, and new pairs are asked for without: take synthesis=none.")
    return plain


def situation(experiment: Experiment, dataset: CoverageDataset) -> Situation:
    """Return what a strategy knows before any student is trained."""
    return Situation(
        config=experiment.synthesis,
        llm=experiment.service_llm,
        task=experiment.task,
        seed=experiment.runtime.seed,
        train=seeds(dataset),
        unlabelled=dataset.unlabelled,
    )


def planned(known: Situation, missing: int, first: int) -> list[Asked]:
    """Return what a growth's first round asks so that about `missing` rows survive curation."""
    strategy, config = STRATEGIES[named(known.config)], known.config
    return strategy.plan(known, round(missing * config.overdraw), first)


@dataclass(frozen=True)
class Provenance:
    """Where a synthetic row comes from: a line of `provenance.jsonl`, in the order of `synthetic.jsonl`."""

    prompt_id: str
    generator: str
    """The service LLM that wrote it."""
    strategy: str
    request: str
    """The key in the journal of the request whose reply holds it."""
    seeds: tuple[str, ...]
    """The prompts of the rows that the request was made from."""
    round: int
    """Which round of the growth asked for it, from 0."""
    filters: tuple[str, ...]
    """The filters of curation that it passed."""


class Growing:
    """The growth of one run's pool."""

    def __init__(
        self,
        experiment: Experiment,
        dataset: CoverageDataset,
        *,
        service: Service | None,
        folder: RunDir,
        display: Display,
        make_sure: Callable[[], None],
        student: Callable[[int], Student],
    ) -> None:
        """`make_sure` is called before anything is bought, and may raise; `student` looks at an iteration's model."""
        self._experiment, self._dataset, self._service = experiment, dataset, service
        self._folder, self._display, self._make_sure, self._student = folder, display, make_sure, student
        self._requests = 0
        """Synthesis requests made so far."""
        self.cost_usd = 0.0
        """Price of their replies."""

    def new_rows(self, where: int | str, pool: list[Example], volume: int) -> list[Example]:
        """Return new curated rows, so that the pool reaches `volume`; none if synthesis is off."""
        wanted = volume - len(pool)
        if wanted <= 0 or not self._experiment.synthesis.enabled:
            return []
        folder = self._folder.iteration(where)
        made: list[tuple[Batch, Curated]] = []

        def bought() -> Any:
            made.append(self._asked(where, pool, wanted))
            return plain(made[0][0])

        asked = self._folder.tree(folder / SYNTHESIS, bought, Again.same)
        self.cost_usd += asked["cost_usd"]
        self._requests += asked["requests"]
        raw = tuple(Example(**{**row, "messages": tuple(row["messages"])}) for row in asked.pop("examples"))
        origins = [Origin(**{**one, "seeds": tuple(one["seeds"])}) for one in asked.pop("origins", [])]

        @cache
        def curated() -> Curated:
            with self._display.stage("curate", place(where)):
                if made and made[0][0].examples == raw:  # not where another machine was first
                    return made[0][1]
                return self._curator(pool).take(raw)

        def funnel() -> dict[str, Any]:
            found = curated()
            rows = {"parsed": len(raw), "kept": len(found.kept), "removed": plain(found.removed)}
            return {"wanted": wanted, **asked, **rows, **_by_round(asked, origins, found), **self._told(found.reports)}

        kept = self._folder.rows(folder / SYNTHETIC, Example, lambda: curated().kept, Again.same)
        counts = self._folder.tree(folder / CURATION, funnel, Again.same)
        if origins:
            self._folder.rows(
                folder / PROVENANCE, Provenance, lambda: self._provenance(raw, origins, curated()), Again.same
            )
        for note in _by_filter(made[0][1].reports) if made and self._named else ():
            self._display.note(note)
        if len(kept) < _FEW * wanted:
            self._display.note(_what_became_of(wanted, len(kept), counts))
        return kept

    def _provenance(self, raw: Sequence[Example], origins: Sequence[Origin], curated: Curated) -> list[Provenance]:
        """Return where each row comes from that curation left."""
        gone = {removal.row for removal in curated.removed}
        strategy = named(self._experiment.synthesis).value
        passed = tuple(one.name.value for one in chosen(self._experiment.curation))
        return [
            Provenance(row.prompt_id, row.generator, strategy, from_.request, from_.seeds, from_.round, passed)
            for at, (row, from_) in enumerate(zip(raw, origins, strict=True))
            if at not in gone
        ]

    def _asked(self, where: int | str, pool: list[Example], wanted: int) -> tuple[Batch, Curated]:
        """Ask until `wanted` rows survive curation, in at most so many rounds; return what came, and what of it did."""
        assert self._service is not None
        self._make_sure()
        known, strategy = self._situation(where, pool), STRATEGIES[named(self._experiment.synthesis)]
        total, curated, curator, pairs = Batch(), Curated(), self._curator(pool), 0
        each_once = named(known.config) is Strategy.label  # the last few prompts may well bring nothing
        with self._display.stage("synthesize", place(where)) as progress:
            for number in range(rounds(known.config)):
                more = self._more(known, wanted, len(curated.kept), pairs)
                asked = strategy.plan(known, more, self._requests + total.requests)
                if not asked:
                    break
                pairs += more
                batch = synthesize(
                    asked,
                    strategy,
                    self._service,
                    partial(_from, progress, total.requests),
                    number=number,
                    before=len(total.examples) + (len(pool) if each_once else 0),
                    note=self._display.note,
                )
                if known.config.candidates > 1:
                    batch = best_of(batch, known, judge=self._picker(), service=self._service, progress=progress)
                total += batch
                came = curator.take(batch.examples)
                curated += came
                others = (*self._dataset.train, *self._dataset.dev, *self._dataset.test, *pool, *curated.kept)
                for note in many_removed(batch.examples, came.removed, others):  # before more are bought
                    self._display.note(note)
                if self._named and not pool:
                    refuse_none(curated, _ENOUGH if batch.examples and number < rounds(known.config) - 1 else 1)
                if len(curated.kept) >= wanted or not batch.examples:
                    break
        return total, curated

    @property
    def _named(self) -> bool:
        """Whether the configuration names filters."""
        return bool(self._experiment.curation.filters)

    def _told(self, reports: Sequence[Report]) -> dict[str, Any]:
        """Return what each filter saw, where filters are named; seconds differ from time to time and are no part."""
        return {"filters": [plain(replace(report, seconds=0.0)) for report in reports]} if self._named else {}

    def _situation(self, where: int | str, pool: Sequence[Example]) -> Situation:
        """Return what the strategy knows: of the student only what it looks at, and nothing before there is one."""
        known = replace(situation(self._experiment, self._dataset), pool=pool, begun=self._requests)
        if not isinstance(where, int) or named(known.config) not in LOOKS:
            return known
        student = self._student(where)
        train, weights = self._dataset.train, student.weights
        weights = weights and [one for one, row in zip(weights, train, strict=True) if not row.with_tools]
        failed = [one for one in student.failed if not one.row.with_tools]
        return replace(known, weights=weights, failed=failed)

    def _more(self, known: Situation, wanted: int, kept: int, asked: int) -> int:
        """Return how many pairs the next round asks for: after the first, by what curation left of those before it.

        `asked` are the pairs asked for so far; all rounds together ask for a bounded number of them.
        """
        config = known.config
        if not config.rounds or not asked:
            return round((wanted - kept) * config.overdraw)
        left = round(_MOST * wanted * config.overdraw) - asked
        return max(0, min(left, round((wanted - kept) * config.overdraw * asked / max(1, kept))))

    def _picker(self) -> ServiceLLM | None:
        """Return the judge that picks the best of several answers; None where agreement does."""
        if self._experiment.synthesis.pick is Pick.agreement:
            return None
        return next(iter(self._experiment.judge.panel.values()))

    def _curator(self, pool: list[Example]) -> Curator:
        held_out = [*self._dataset.dev, *self._dataset.test]
        return Curator(known=[*self._dataset.train, *pool], held_out=held_out, config=self._experiment.curation)


def _by_round(asked: Mapping[str, Any], origins: Sequence[Origin], curated: Curated) -> dict[str, Any]:
    """Return the rounds with what curation left of each; nothing where an earlier version has asked."""
    if not origins:
        return {}
    kept = Counter(origin.round for origin in origins)
    kept.subtract(origins[removal.row].round for removal in curated.removed)
    return {"rounds": [{**one, "kept": kept[number]} for number, one in enumerate(asked["rounds"])]}


def _what_became_of(wanted: int, kept: int, counts: dict[str, Any]) -> str:
    """Return a sentence on where rows that were wanted have gone."""
    reasons = Counter(entry["reason"] for entry in counts["removed"])
    removed = ", ".join(f"{reasons[reason.name]} {reason.counted}" for reason in reasons_told(reasons))
    return (
        f"{wanted:,} synthetic rows were wanted, {kept:,} are left: {counts['requests']} requests "
        f"({counts['failed']} failed), {counts['parsed']:,} rows read, {counts['dropped']} unreadable, {removed}."
    )


def refuse_none(curated: Curated, enough: int) -> None:
    """Raise CurationError if of that many rows none is left, and say which filter took the last of them."""
    if curated.kept or len(curated.removed) < enough:
        return
    last = next(report for report in reversed(curated.reports) if report.rows_in)
    mend = next(one.reason.mend for one in ORDER if one.name.value == last.name)
    always = last.name == CurationFilter.contamination.value
    left_out = "" if always else f", or leave {last.name} out of curation.filters"
    before = "".join(f" {report.rows_in - report.rows_out:,} by {report.name}," for report in curated.reports
                     if report is not last and report.rows_in > report.rows_out)  # fmt: skip
    why = ", ".join(f"{count:,} {why}" for why, count in last.reasons.items())
    shown = "; ".join(example.told for example in last.examples)
    raise CurationError(
        f"curation left none of {len(curated.removed):,} rows:{before} all {last.rows_in:,} that reached the filter "
        f"{last.name} were removed by it ({why}), such as {shown}.\n"
        f"If they are good rows, {mend}{left_out}; if not, look at what service_llm was "
        "asked for. The replies stay in the journal and cost nothing again."
    )


def _by_filter(reports: Sequence[Report]) -> list[str]:
    """Return how many rows came to each filter and passed it, in how long."""
    told = (f"{one.name} {one.rows_in:,} -> {one.rows_out:,} ({one.seconds:.2g} s)" for one in reports)
    return [f"curation, rows in and out by filter: {', '.join(told)}."]


def _from(progress: Progress, before: int, done: int, count: int) -> None:
    """Show the progress of a round as part of all rounds."""
    progress(before + done, before + count)
