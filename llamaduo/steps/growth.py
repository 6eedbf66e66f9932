"""Growth of the synthetic pool: how many rows an iteration wants, and the rounds of asking and curating to get them.

    growth.new_rows("start", pool=[], volume=48)      at most so many rounds until as many rows are left

Into the folder of the iteration after which they are wanted go `synthesis.json` (what came, raw), `synthetic.jsonl`
(what curation left of it) and `curation.json` (what became of each row).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from llamaduo.config import Experiment, Growth, plain
from llamaduo.data.dataset import CoverageDataset
from llamaduo.display import Display, Progress, many_removed, place
from llamaduo.records import Example
from llamaduo.runs.folder import Again, RunDir
from llamaduo.runs.layout import CURATION, SYNTHESIS, SYNTHETIC
from llamaduo.service.client import Service
from llamaduo.service.requests import Request
from llamaduo.stages.curate import REASONS, Curated, Curator
from llamaduo.stages.synthesize import Batch, requests, synthesize

ROUNDS = 3
_FEW = 0.9
"""Of the rows that were wanted: with fewer left, it is said what became of them."""


def volume(growth: Growth, coverage_rows: int, number: int) -> int:
    """Return how many synthetic rows iteration `number` wants."""
    if growth.volumes:
        return growth.volumes[min(number, len(growth.volumes) - 1)]
    return round(coverage_rows * growth.factor**number) - coverage_rows


def synthesis_requests(
    experiment: Experiment, dataset: CoverageDataset, missing: int, first_request: int
) -> list[tuple[Example, Request]]:
    """Return what is asked so that about `missing` rows survive curation, each request with its seed pair."""
    return requests(
        dataset.train,
        round(missing * experiment.synthesis.overdraw),
        llm=experiment.service_llm,
        config=experiment.synthesis,
        topic=experiment.task.topic,
        first_request=first_request,
        seed=experiment.runtime.seed,
    )


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
    ) -> None:
        """`make_sure` is called before anything is bought, and may raise."""
        self._experiment, self._dataset, self._service = experiment, dataset, service
        self._folder, self._display, self._make_sure = folder, display, make_sure
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

        @cache
        def curated() -> Curated:
            with self._display.stage("curate", place(where)):
                if made and made[0][0].examples == raw:  # not where another machine was first
                    return made[0][1]
                return self._curator(pool).take(raw)

        def funnel() -> dict[str, Any]:
            rows = {"parsed": len(raw), "kept": len(curated().kept), "removed": plain(curated().removed)}
            return {"wanted": wanted, **asked, **rows}

        kept = self._folder.rows(folder / SYNTHETIC, Example, lambda: curated().kept, Again.same)
        counts = self._folder.tree(folder / CURATION, funnel, Again.same)
        if len(kept) < _FEW * wanted:
            self._display.note(_what_became_of(wanted, len(kept), counts))
        return kept

    def _asked(self, where: int | str, pool: list[Example], wanted: int) -> tuple[Batch, Curated]:
        """Ask until `wanted` rows survive curation, in at most so many rounds; return what came, and what of it did."""
        assert self._service is not None
        self._make_sure()
        total, curated, curator = Batch((), 0, 0, 0, 0.0), Curated(), self._curator(pool)
        missing = wanted
        with self._display.stage("synthesize", place(where)) as progress:
            for _ in range(ROUNDS):
                first = self._requests + total.requests
                batch = synthesize(
                    synthesis_requests(self._experiment, self._dataset, missing, first),
                    self._service,
                    partial(_from, progress, total.requests),
                    before=len(total.examples),
                    note=self._display.note,
                )
                total += batch
                came = curator.take(batch.examples)
                curated += came
                others = (*self._dataset.train, *self._dataset.dev, *self._dataset.test, *pool, *curated.kept)
                for note in many_removed(batch.examples, came.removed, others):  # before more are bought
                    self._display.note(note)
                missing = wanted - len(curated.kept)
                if missing <= 0 or not batch.examples:
                    break
        return total, curated

    def _curator(self, pool: list[Example]) -> Curator:
        held_out = [*self._dataset.dev, *self._dataset.test]
        return Curator(known=[*self._dataset.train, *pool], held_out=held_out, config=self._experiment.curation)


def _what_became_of(wanted: int, kept: int, counts: dict[str, Any]) -> str:
    """Return a sentence on where rows that were wanted have gone."""
    reasons = Counter(entry["reason"] for entry in counts["removed"])
    removed = ", ".join(f"{reasons[reason.name]} {reason.counted}" for reason in REASONS)
    return (
        f"{wanted:,} synthetic rows were wanted, {kept:,} are left: {counts['requests']} requests "
        f"({counts['failed']} failed), {counts['parsed']:,} rows read, {counts['dropped']} unreadable, {removed}."
    )


def _from(progress: Progress, before: int, done: int, count: int) -> None:
    """Show the progress of a round as part of all rounds."""
    progress(before + done, before + count)
