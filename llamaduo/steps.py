"""The verbs of the loop, each tied to its artifact in the run's folder.

A method asks the folder for an artifact; only where its marker is missing is the stage called. What a
stage needs of the configuration is handed to it here, so that no stage knows the whole of it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from operator import itemgetter
from pathlib import Path
from typing import Any

from llamaduo.config import (
    FEW_SHOTS,
    Backend,
    Beside,
    DataSource,
    Experiment,
    GateSplit,
    Growth,
    Infer,
    JudgeKind,
    ServiceLLM,
    Start,
    beside,
    has_own_rubric,
    plain,
)
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import FILE as ACCOUNT
from llamaduo.data.dataset import Account, CoverageDataset
from llamaduo.display import Display, Progress, headline, many_removed, missing_answers, span
from llamaduo.environment import describe
from llamaduo.errors import InputError, ServiceError
from llamaduo.evidence import gate, reach
from llamaduo.evidence.economy import Round
from llamaduo.evidence.reference import METRICS
from llamaduo.evidence.scorecard import clusters, of_answers, score, unanswered, unscored
from llamaduo.evidence.stop import Scores, best, by_means, gained, least_gained, stop_reason
from llamaduo.evidence.watch import Watch
from llamaduo.files.contents import home
from llamaduo.local.memory import refuse_if_too_large
from llamaduo.local.vllm_server import program
from llamaduo.pocket import teacher
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Adapter, Estimate, Example, GateLook, Judged, Prediction, Scorecard, Verdict
from llamaduo.runs import identity
from llamaduo.runs.folder import Again, RunDir, write_kept
from llamaduo.runs.marks import kept_fault
from llamaduo.runs.state import Iteration, RunState
from llamaduo.runs.tracking import Tracker, write_metrics
from llamaduo.service import rubric, transport
from llamaduo.service.addresses import address, headers
from llamaduo.service.client import Failure, Outcome, Request, Service
from llamaduo.service.journal import Journal, default_path
from llamaduo.service.prices import tariff
from llamaduo.service.trusted import trusted
from llamaduo.service.unusable import Told, of_judges, of_server
from llamaduo.stages.check import check
from llamaduo.stages.curate import Curated, curate
from llamaduo.stages.infer import infer
from llamaduo.stages.judge import calls_there_are, judge
from llamaduo.stages.synthesize import Batch, requests, synthesize
from llamaduo.training.fit import SKIPPED, Places, train
from llamaduo.training.process import train_apart, trains_apart

SYNTHESIS_ROUNDS = 3


class Steps:
    """One run under way; use it as a context manager."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunDir,
        state: RunState,
        display: Display,
        dataset: CoverageDataset | None = None,
    ) -> None:
        _settle_libraries()
        experiment = _with_reasks_of(folder.path, experiment)
        self.experiment = experiment
        self.display = display
        self.history: list[Iteration] = []
        self._folder = folder
        self._state = state
        self._service = open_service(experiment, folder.path)
        try:
            self.dataset = dataset or load_data(experiment)
            self._outlook_told = self._outlook()
            self._account = self._checked()
        except BaseException:
            if self._service:
                self._service.close()
            raise
        self._sure = False
        self._used_usd: dict[str, float] = {}
        """Price of each answer and each judgement that was used, by its request's key."""
        self._grown_usd = 0.0
        self._beside: dict[tuple[str, str], list[Verdict]] = {}
        """Verdicts on those that are judged beside the iterations, by name and split."""
        self._beside_usd = 0.0
        self._completed: dict[int, int] = {}
        """Verdicts that were asked for later, by iteration."""
        self._tables: dict[int, Scores] = {}
        """Each iteration's scores, answer by answer: what gains are measured by where not all was judged."""
        self._requests = 0
        """Synthesis requests made so far."""
        folder.tell = display.note
        if self._service:
            folder.mending = self._service.from_the_journal_alone

    def __enter__(self) -> Steps:
        self._refuse_other_models()
        write_kept(self._folder.path / "config.yaml", _as_yaml(self.experiment).encode())
        self._folder.write_state(self._state)
        self._tracker = Tracker(self.experiment, self._folder.path)
        self.experiment = _with_rubric_in(self.experiment, self._folder.path)
        environment = self._folder.path / "environment.json"
        if kept_fault(environment):
            self._tell_of_environment(environment)
        told = headline(self.experiment, self.dataset, self._folder.path)
        if self._account:
            write_kept(self._folder.path / ACCOUNT, f"{json.dumps(self._account.tree(), indent=1)}\n".encode())
            told += self._account.lines()
        self.display.start(told, [])
        imported = []
        if self._service:
            self._service.says, imported = self.display.note, self._service.outlook
        for note in [*self.dataset.notes, *self._outlook_told, *imported]:
            self.display.note(note)
        return self

    def __exit__(self, *_: object) -> None:
        self._tracker.close()
        for note in self._service.notes if self._service else []:
            self.display.note(note)
        for remark in self._service.remarks if self._service else []:
            self.display.remark(remark)
        if self._tracker.problem:
            self.display.note(f"{self._tracker.problem}; the run is not affected.")
        if self._service:
            self._service.close()

    def _tell_of_environment(self, file: Path) -> None:
        """Write down where the run is made; what was damaged can't be had again, and is said."""
        if file.exists():
            self.display.note(f"{file}: damaged ({kept_fault(file)}); it tells of this machine as it is today.")
        told = describe(runtime=self.experiment.runtime.seed, data=self.experiment.data.seed)
        write_kept(file, told.encode())

    def _refuse_other_models(self) -> None:
        """Raise InputError where a model or data are others than the run began with; remember what is known of them."""
        folder = self._folder.path
        known = identity.refuse_others(self.experiment, folder)
        if known != identity.recorded(folder):
            write_kept(folder / identity.NAME, f"{json.dumps(known, indent=1)}\n".encode())

    @property
    def gate_split(self) -> tuple[Example, ...]:
        """The rows that the gate looks at."""
        return gate_rows(self.experiment, self.dataset)

    def _checked(self) -> Account | None:
        """Return the account of the data with what the model can't use; raises InputError for what nobody could."""
        account, setup = self.dataset.account, self.experiment
        bought = gate.asked(setup.loop.gate) and setup.synthesis.enabled
        return account and check(
            self.dataset,
            account,
            model=setup.local_model,
            train=setup.train,
            infer=setup.infer,
            learned=setup.loop.growth.include_coverage,
            most_missing={setup.protocol.gate_split.value: setup.judge.max_unscored} if bought else {},
        )

    def _outlook(self) -> list[str]:
        """Return what the gate can see with so many prompts; raises InputError where it can only buy data in vain."""
        setup = self.experiment
        told = [] if setup.service.replay else trusted(setup, asked_llms(setup))
        return [*told, *odd_stops(setup.infer.stop), *gate_outlook(setup, self.dataset)]

    def volume(self, number: int) -> int:
        """Return how many synthetic rows iteration `number` wants."""
        return volume(self.experiment.loop.growth, len(self.dataset.train), number)

    def rows(self, number: int, pool: list[Example]) -> list[Example]:
        """Return what iteration `number` trains on: coverage rows, then a prefix of the synthetic pool."""
        coverage = self.dataset.train if self.experiment.loop.growth.include_coverage else ()
        return [*coverage, *pool[: self.volume(number)]]

    def adapter(self, number: int) -> Path:
        """Return the folder of an iteration's adapter."""
        return self._folder.iteration(number) / "adapter"

    def train(self, number: int, rows: list[Example], start_from: Path | None) -> Adapter:
        """Fine-tune; restarts from the base model unless `loop.start=last`. An untrained baseline stays as it is."""
        if not self.experiment.train.enabled:
            return Adapter(0, 0, 0, 0, 0, None)
        origin = str(start_from) if start_from and self.experiment.loop.start is Start.last else None

        trained = self._folder.folder(
            self.adapter(number), Adapter, lambda folder: self._trained_to(folder, number, rows, origin), Again.never
        )
        shutil.rmtree(self._folder.iteration(number) / "checkpoints", ignore_errors=True)
        if trained.skipped_rows:
            reasons = {
                f"exceed {self.experiment.train.max_length} tokens": trained.too_long_rows,
                "hold an end mark": trained.end_mark_rows,
                "are refused or changed by the chat template": trained.template_rows,
            }
            told = " and ".join(f"{count} {reason}" for reason, count in reasons.items() if count)
            self.display.note(
                f"{trained.skipped_rows} of {len(rows)} training rows are left out whole: {told}; see "
                f"{self.adapter(number) / SKIPPED}."
            )
        return trained

    def _trained_to(self, folder: Path, number: int, rows: list[Example], origin: str | None) -> Adapter:
        """Train into a folder, with the adapter at `origin` to begin with if there is one."""
        self._make_sure()
        self._refuse_other_models()
        here, runtime = self._folder.iteration(number), self.experiment.runtime
        places = Places(here / "checkpoints", Path(runtime.cache) if runtime.cache else home() / "rows")
        how = partial(train_apart, within=here) if trains_apart(runtime) else train
        with self.display.stage("train", _place(number)) as progress:
            trained = how(
                rows,
                folder,
                model=self.experiment.local_model,
                config=self.experiment.train,
                runtime=runtime,
                start_from=origin,
                progress=progress,
                dev=self.dataset.dev,
                places=places,
                note=self.display.note,
            )
        self._refuse_other_models()
        return trained

    def infer(
        self, where: int | str, examples: tuple[Example, ...], adapter: Path | None, beside: Beside | None = None
    ) -> list[Prediction]:
        """Answer the prompts of a split, K samples each: the model with this adapter, or who stands beside it."""
        path = self._folder.iteration(where) / "predictions.jsonl"
        served = answering(self.experiment, beside).backend is Backend.endpoint
        predictions = self._folder.rows(
            path,
            Prediction,
            lambda: self._answered(where, examples, adapter, beside),
            Again.same if served else Again.never,
        )
        self._used_usd.update({p.request: p.cost_usd for p in predictions if p.request})
        too_long = sum(p.finish_reason == "prompt_too_long" for p in predictions)
        if too_long:
            self._refuse_if_hopeless(where, too_long, len(predictions))
        for note in missing_answers(self.experiment, predictions):
            self.display.note(note)
        return predictions

    def _answered(
        self, where: int | str, examples: tuple[Example, ...], adapter: Path | None, beside: Beside | None
    ) -> list[Prediction]:
        """Answer now; raises ServiceError when too few answers came."""
        troubles: list[Outcome] = []
        self._make_sure()
        self._refuse_other_models()
        with self.display.stage("infer", _place(where)) as progress:
            made = infer(
                examples,
                str(adapter) if adapter and self.experiment.train.enabled else None,
                model=self.experiment.local_model,
                config=answering(self.experiment, beside),
                runtime=self.experiment.runtime,
                quantization=self.experiment.train.quantization,
                progress=progress,
                pool=self.dataset.train,
                note=self.display.note,
                service=self._service,
                troubled=troubles.append,
            )
        self._refuse_other_models()
        self._refuse_if_unanswered(made, troubles)
        return made

    def _refuse_if_unanswered(self, predictions: list[Prediction], troubles: Sequence[Outcome]) -> None:
        """Keep a server's outage from becoming an artifact: the same command asks again."""
        reasons, limit = unanswered(predictions), self.experiment.judge.max_unscored
        if reasons.total() > limit * len(predictions):
            failures = [one.message for one in troubles if isinstance(one, Failure)]
            replies = [
                Told("It", "infer.server", one.text or one.aside) for one in troubles if not isinstance(one, Failure)
            ]
            raise ServiceError(
                of_server(
                    reasons,
                    len(predictions),
                    limit=limit,
                    told=replies[0] if replies else None,
                    failure=failures[-1] if failures else None,
                )
            )

    def _refuse_if_hopeless(self, where: int | str, too_long: int, answers: int) -> None:
        """Buy no data for a gate that can't be passed: which prompts are too long doesn't change with training."""
        limit = self.experiment.judge.max_unscored
        gated = gate.asked(self.experiment.loop.gate)
        if isinstance(where, int) and gated and self.experiment.synthesis.enabled and too_long > limit * answers:
            raise InputError(
                f"{too_long} of {answers} answers at the gate are missing: prompts exceed the model's context, so "
                "it can't pass. Take a longer context, a smaller infer.max_new_tokens, or synthesis=none."
            )

    def judge(self, where: int | str, predictions: list[Prediction]) -> list[Verdict]:
        """Let the panel score the answers; raises ServiceError when too few of its replies can be read.

        An iteration's are asked about in rounds, until the gate's decision depends on nothing that is left.
        """
        watch = self._watch(predictions) if isinstance(where, int) and judges_in_rounds(self.experiment) else None

        def judged() -> list[Verdict]:
            made = self._ask_judges(
                where, predictions, watch.rounds if watch else None, watch.enough if watch else None
            )
            self._refuse_if_unreadable(made)
            return made

        return self._verdicts(where, "verdicts.jsonl", judged)

    def _watch(self, predictions: list[Prediction]) -> Watch:
        settings = self.experiment.judge
        return Watch(
            self.experiment.loop.gate,
            gate.error_at_a_look(self.experiment),
            predictions,
            repeats=settings.repeats,
            size=settings.round_prompts,
            seed=self.experiment.runtime.seed,
            service_llm=self._beside.get((Beside.service_llm, "gate")),
        )

    def _ask_judges(
        self,
        where: int | str,
        predictions: list[Prediction],
        rounds: list[Round] | None = None,
        enough: Callable[[Sequence[Verdict]], bool] | None = None,
    ) -> list[Verdict]:
        with self.display.stage("judge", _place(where)) as progress:
            return judge(
                predictions,
                config=self.experiment.judge,
                service=self._service,
                progress=progress,
                seed=self.experiment.runtime.seed,
                rounds=rounds,
                enough=enough,
            )

    def _verdicts(self, where: int | str, name: str, make: Callable[[], list[Verdict]]) -> list[Verdict]:
        verdicts = self._folder.rows(self._folder.iteration(where) / name, Verdict, make, Again.same)
        self._used_usd.update({v.request: v.cost_usd for v in verdicts if v.request})
        return verdicts

    def judge_rest(self) -> bool:
        """Judge once what was left out of the iterations that a plateau is about; tell whether there was any.

        Their lines of metrics and what the gate saw stay as they are: this is for gains alone.
        """
        patience = self.experiment.loop.patience
        late = [iteration.iteration for iteration in self.history[-patience:]]
        left = [
            number
            for number in (best(self.history[:-patience], self.gain), *late)
            if self.history[number].unjudged and number not in self._completed
        ]
        for number in left:
            predictions = self.infer(number, self.gate_split, self.adapter(number))
            verdicts = self.judge(number, predictions)
            rest = self.rest(number, predictions, verdicts)
            self._tables[number] = _tables([*verdicts, *rest])
            self._completed[number] = len(rest)
        return bool(left)

    @property
    def asked_later(self) -> int:
        """Verdicts that were left out at first and asked for since a plateau depended on them."""
        return sum(self._completed.values())

    def rest(self, number: int, predictions: list[Prediction], verdicts: list[Verdict]) -> list[Verdict]:
        """Return the verdicts on answers that were left out, one repeat each."""
        judged = {verdict.prompt_id for verdict in verdicts}
        others = list(dict.fromkeys(p.prompt_id for p in predictions if p.prompt_id not in judged))

        def asked() -> list[Verdict]:
            made = self._ask_judges(number, predictions, [Round(tuple(others), (0,))])
            self._refuse_if_unreadable(made)
            return made

        return self._verdicts(number, REST, asked)

    def gain(self, later: Iteration, earlier: Iteration) -> float:
        """Return by how many points an iteration is better than another, over the prompts that were judged in both."""
        if not later.unjudged and not earlier.unjudged:
            return by_means(later, earlier)
        return gained(self._tables[later.iteration], self._tables[earlier.iteration])

    def least_gain(self, later: Iteration, earlier: Iteration) -> float:
        """Return the least that the gain may be over all prompts."""
        if all(not one.unjudged or one.iteration in self._completed for one in (later, earlier)):
            return self.gain(later, earlier)
        return least_gained(self._tables[later.iteration], self._tables[earlier.iteration])

    def stop_reason(self) -> str | None:
        """Return which rule ends the loop now, or None to go on."""
        unscored = self.experiment.judge.max_unscored
        return stop_reason(self.history, self.experiment.loop, unscored, self.gain, self.least_gain)

    def _refuse_if_unreadable(self, verdicts: list[Verdict]) -> None:
        dear, limit = self.experiment.judge.dear, self.experiment.judge.max_unscored
        tiers = ([v for v in verdicts if (v.judge in dear) is tier] for tier in (False, True))
        share, counts = max(map(unscored, tiers), key=itemgetter(0))
        if share > limit:
            failures = [v.reasons["unscored"] for v in verdicts if "unscored" in v.reasons]
            last = failures[-1] if failures else None
            raise ServiceError(of_judges(share, counts, limit=limit, told=self._unreadable(verdicts), failure=last))

    def _unreadable(self, verdicts: Sequence[Verdict]) -> Told | None:
        """Return a reply that could not be read, None where none came."""
        for verdict in verdicts:
            stored = self._service.stored(verdict.request) if self._service and verdict.request else None
            if verdict.unscored and stored:
                return Told(verdict.judge, f"judge.panel.{verdict.judge}", stored.text or stored.aside)
        return None

    def score(self, where: int | str, predictions: list[Prediction], verdicts: list[Verdict]) -> Scorecard:
        """Return the scorecard of a split's verdicts."""
        there = len(predictions), verdicts_there_are(self.experiment, predictions)
        cut, dear = self.experiment.loop.coverage_cut, self.experiment.judge.dear
        made = partial(score, verdicts, coverage_cut=cut, clusters=clusters(predictions), there=there, dear=dear)
        path = self._folder.iteration(where) / "scorecard.json"
        tree = self._folder.tree(path, lambda: plain(made()), Again.same)
        return _scorecard(tree)

    def look(
        self,
        split: str,
        predictions: list[Prediction],
        verdicts: list[Verdict],
        error: float,
        method: str | None = None,
    ) -> GateLook | None:
        """Return what the gate sees of a model on a split (`gate` or `test`); None where it asks for nothing.

        On test a difference is limited as it was on dev, by `method`.
        """
        asks = self.experiment.loop.gate
        if not gate.asked(asks):
            return None
        theirs = self._beside.get((Beside.service_llm, split))
        near = clusters(predictions)
        judged = {near.get(v.prompt_id, v.prompt_id) for v in verdicts}
        unjudged = len({near.get(p.prompt_id, p.prompt_id) for p in predictions} - judged)
        return gate.look(
            verdicts,
            asks,
            error=error,
            clusters=near,
            service_llm=theirs,
            unjudged=unjudged,
            method=method,
            dear=self.experiment.judge.dear,
        )

    def judge_beside(self, split: str, examples: tuple[Example, ...]) -> None:
        """Answer and judge a split (`gate` or `test`) once by those who stand beside the iterations' models."""
        before = self.cost_usd()
        for name in beside(self.experiment):
            where = name.value if split == "gate" else f"{split}_{name}"
            predictions = self.infer(where, examples, None, name)
            verdicts = self.judge(where, predictions)
            self._beside[name, split] = verdicts
            card = self.score(where, predictions, verdicts)
            self._state.beside.setdefault(name, {})[split] = plain(card)
        self._beside_usd += self.cost_usd() - before

    def record(
        self,
        number: int,
        trained: Adapter,
        predictions: list[Prediction],
        verdicts: list[Verdict],
    ) -> None:
        """Close an iteration: scorecard, metrics, state, W&B."""
        card = self.score(number, predictions, verdicts)
        seen = self.look("gate", predictions, verdicts, gate.error_at_a_look(self.experiment))
        here, before = self._folder.iteration(number), self._folder.iteration(number - 1 if number else "start")
        made = [here / name for name in ("adapter", "predictions.jsonl", "verdicts.jsonl", "scorecard.json")]
        grown = [before / name for name in ("synthesis.json", "synthetic.jsonl", "curation.json")]
        iteration = Iteration(
            iteration=number,
            train_rows=trained.train_rows,
            synthetic_rows=trained.synthetic_rows,
            skipped_rows=trained.skipped_rows,
            **{
                f"{name}_{limit}": getattr(getattr(card, name), limit)
                for name in ("similarity", "precision")
                for limit in ("mean", "low", "high")
            },
            coverage=card.coverage,
            answers=card.answers,
            unanswered=card.unanswered,
            scored=card.scored,
            unscored=card.unscored,
            train_loss=trained.loss,
            cost_usd=round(self.cost_usd() - self._beside_usd - sum(line.cost_usd for line in self.history), 10),
            seconds=self._folder.seconds(*made, *grown),
            judges=card.judges,
            prompts=max(card.similarity.prompts, card.precision.prompts),
            unjudged=card.unjudged,
            spared=card.spared,
            gate=plain(seen) if seen else None,
        )
        self.history.append(iteration)
        self._tables[number] = _tables(verdicts)
        write_metrics(self._folder.path, self.history)
        self._state.iterations = len(self.history)
        self._state.cost_usd = self.cost_usd()
        self._folder.write_state(self._state)
        self._tracker.log(iteration, predictions, verdicts)
        self.display.iteration(iteration)
        if card.criteria:
            told = (f"{name} {span(c['mean'], c['low'], c['high'])}" for name, c in card.criteria.items())
            self.display.note(f"iteration {number}: {', '.join(told)}")

    def cost_usd(self) -> float:
        """Return the price of all replies that this run has used so far, each distinct request once."""
        return round(sum(self._used_usd.values()) + self._grown_usd, 10)

    def grow(self, where: int | str, pool: list[Example], volume: int) -> list[Example]:
        """Return new curated rows, so that the synthetic pool reaches `volume`; none if synthesis is off."""
        wanted = volume - len(pool)
        if wanted <= 0 or not self.experiment.synthesis.enabled:
            return []
        folder = self._folder.iteration(where)
        asked = self._folder.tree(
            folder / "synthesis.json", lambda: plain(self._synthesize(where, pool, wanted)), Again.same
        )
        self._grown_usd += asked["cost_usd"]
        self._requests += asked["requests"]
        raw = [example_from(row) for row in asked.pop("examples")]

        @cache
        def curated() -> Curated:
            with self.display.stage("curate", _place(where)):
                return self._curate(raw, pool)

        def funnel() -> dict[str, Any]:
            rows = {"parsed": len(raw), "kept": len(curated().kept), "removed": plain(curated().removed)}
            return {"wanted": wanted, **asked, **rows}

        kept = self._folder.rows(folder / "synthetic.jsonl", Example, lambda: curated().kept, Again.same)
        counts = self._folder.tree(folder / "curation.json", funnel, Again.same)
        if len(kept) < 0.9 * wanted:
            reasons = Counter(entry["reason"] for entry in counts["removed"])
            self.display.note(
                f"{wanted:,} synthetic rows were wanted, {len(kept):,} are left: {counts['requests']} requests "
                f"({counts['failed']} failed), {counts['parsed']:,} rows read, {counts['dropped']} unreadable, "
                f"{reasons['duplicate']} duplicates, {reasons['contamination']} like dev or test."
            )
        return kept

    def _synthesize(self, where: int | str, pool: list[Example], wanted: int) -> Batch:
        """Ask until `wanted` rows survive curation, in a bounded number of rounds."""
        assert self._service is not None
        self._make_sure()
        total = Batch((), 0, 0, 0, 0.0)
        missing = wanted
        with self.display.stage("synthesize", _place(where)) as progress:
            for _ in range(SYNTHESIS_ROUNDS):
                asked = synthesis_requests(self.experiment, self.dataset, missing, self._requests + total.requests)
                batch = synthesize(
                    asked,
                    self._service,
                    partial(_from, progress, total.requests),
                    before=len(total.examples),
                    note=self.display.note,
                )
                total = Batch(
                    total.examples + batch.examples,
                    total.requests + batch.requests,
                    total.failed + batch.failed,
                    total.dropped + batch.dropped,
                    total.cost_usd + batch.cost_usd,
                )
                curated = self._curate(total.examples, pool)
                self._tell_of_removals(batch.examples, curated, pool)
                missing = wanted - len(curated.kept)
                if missing <= 0 or not batch.examples:
                    break
        return total

    def _tell_of_removals(self, came: Sequence[Example], curated: Curated, pool: list[Example]) -> None:
        """Say so if curation took many of the rows that came last, before more are bought."""
        earlier = len(curated.kept) + len(curated.removed) - len(came)
        removed = [removal for removal in curated.removed if removal.row >= earlier]
        others = [*self.dataset.train, *self.dataset.dev, *self.dataset.test, *pool, *curated.kept]
        for note in many_removed(came, removed, others):
            self.display.note(note)

    def _curate(self, raw: list[Example] | tuple[Example, ...], pool: list[Example]) -> Curated:
        held_out = [*self.dataset.dev, *self.dataset.test]
        known = [*self.dataset.train, *pool]
        return curate(raw, known=known, held_out=held_out, config=self.experiment.curation)

    def _make_sure(self) -> None:
        """Raise ConfigError, before anything is bought or loaded, for what would fail on this machine afterwards."""
        if not self._sure:
            refuse_if_too_large(self.experiment)
            if self.experiment.infer.backend is Backend.vllm:
                program(self.experiment.infer)
            self._sure = True

    def report_test(self, chosen: int | None) -> Judged | None:
        """Under `protocol=clean`, answer and judge the test split once, with the model that was chosen."""
        if chosen is None or self.experiment.protocol.gate_split is GateSplit.test:
            return None
        predictions = self.infer("test", self.dataset.test, self.adapter(chosen))
        verdicts = self.judge("test", predictions)
        self.judge_beside("test", self.dataset.test)
        on_dev = self.history[chosen].gate
        method = on_dev["method"] if on_dev else None
        seen = self.look("test", predictions, verdicts, self.experiment.loop.gate.error, method)
        return Judged(predictions, verdicts, self.score("test", predictions, verdicts), seen)

    def judged(self, number: int) -> Judged:
        """Return what is known of an iteration's answers at the gate."""
        predictions = self.infer(number, self.gate_split, self.adapter(number))
        verdicts = self.judge(number, predictions)
        return Judged(predictions, verdicts, self.score(number, predictions, verdicts))

    def verdicts_beside(self, split: str) -> dict[str, list[Verdict]]:
        """Return the verdicts on those who stand beside the iterations' models on a split, by name."""
        return {name: verdicts for (name, of), verdicts in self._beside.items() if of == split}

    def account(self, test: Scorecard | None) -> None:
        """Put the test split's scorecard and all costs into the state, those of a stage that broke off included."""
        self._state.test = plain(test) if test else None
        bought = self._service.spent_usd if self._service else 0.0
        self._state.cost_usd = max(self.cost_usd(), bought)


def answering(experiment: Experiment, beside: Beside | None) -> Infer:
    """Return how the prompts are answered by the model, or by who stands beside it."""
    infer = experiment.infer
    if beside is Beside.service_llm:
        llm = experiment.service_llm
        return replace(
            infer, backend=Backend.endpoint, server=llm, temperature=None, max_new_tokens=llm.max_tokens, shots=0
        )
    return replace(infer, shots=FEW_SHOTS) if beside is Beside.few_shot else infer


def odd_stops(stops: Sequence[str]) -> list[str]:
    """Return a sentence on stop strings with a backslash where a line break may be meant."""
    odd = [text for text in stops if re.search(r"\\[ntr]", text)]
    told = (
        f'infer.stop: {", ".join(odd)}: a backslash and a letter, no line break; in YAML "\\n" in double quotes is one.'
    )
    return [told] if odd else []


def gate_outlook(experiment: Experiment, dataset: CoverageDataset) -> list[str]:
    """Return what the gate can see with so many prompts, a sentence each.

    Raises InputError where no model can pass, and data would be bought for it in vain.
    """
    prompts = clusters_of(gate_rows(experiment, dataset))
    test = clusters_of(dataset.test)
    refused = reach.refusal(experiment, prompts, test)
    if refused and experiment.synthesis.enabled:
        raise InputError(refused)
    told = [f"No model can pass: {refused}"] if refused else reach.outlook(experiment, prompts, test)
    return [*reach.left_out(experiment), *told]


def clusters_of(examples: tuple[Example, ...]) -> int:
    """Return how many prompts there are, near copies of one counted once."""
    return len({example.cluster or example.prompt_id for example in examples})


def _with_rubric_in(experiment: Experiment, folder: Path) -> Experiment:
    """Return the experiment with the user's own rubric read from its copy in the run's folder, which is made here.

    So the run judges with one text to its end, and `verify` and an archive have it.
    """
    if not has_own_rubric(experiment.judge):
        return experiment
    copy = rubric.copy_in(folder)
    if kept_fault(copy):
        write_kept(copy, Path(experiment.judge.prompt).expanduser().read_bytes())
    return replace(experiment, judge=replace(experiment.judge, prompt=str(copy)))


def _with_reasks_of(folder: Path, experiment: Experiment) -> Experiment:
    """Return the experiment with `service.reasks` as it once was for this run: what was read by it is part of it."""
    stored = folder / "config.yaml"
    if kept_fault(stored):
        return experiment  # none is there, or what is there is named by who reads it next
    from omegaconf import OmegaConf

    earlier = OmegaConf.select(OmegaConf.load(stored), "service.reasks") or 0
    service = replace(experiment.service, reasks=max(experiment.service.reasks, int(earlier)))
    return replace(experiment, service=service)


REST = "rest.jsonl"
"""Verdicts on what an iteration's judging had left out, asked for because a plateau depends on them."""


def judges_in_rounds(experiment: Experiment) -> bool:
    """Tell whether iterations are judged in rounds: service LLMs judge them for a gate that looks at dev.

    With dear judges they aren't: what ends the rounds knows no limit of two tiers.
    """
    judges = experiment.judge
    dev = experiment.protocol.gate_split is GateSplit.dev
    service = judges.kind is JudgeKind.service and not judges.dear
    return judges.economy and dev and service and bool(gate.asked(experiment.loop.gate))


def verdicts_there_are(experiment: Experiment, predictions: Sequence[Prediction]) -> int:
    """Return how many verdicts there are on answers if nothing is left out."""
    if experiment.judge.kind is not JudgeKind.service:
        return len(predictions) * len(METRICS)
    return len(calls_there_are(predictions, experiment.judge, experiment.runtime.seed))


def _tables(verdicts: Sequence[Verdict]) -> Scores:
    return {name: of_answers(verdicts, name) for name in gate.SCORES}


def gate_rows(experiment: Experiment, dataset: CoverageDataset) -> tuple[Example, ...]:
    """Return the rows that the gate looks at."""
    return dataset.dev if experiment.protocol.gate_split is GateSplit.dev else dataset.test


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


def _from(progress: Progress, before: int, done: int, count: int) -> None:
    """Show the progress of a round as part of all rounds."""
    progress(before + done, before + count)


def _place(where: int | str) -> str:
    if isinstance(where, int):
        return f"iteration {where}"
    return {"start": "before", "test": "test split"}.get(where, where.replace("_", " "))


def example_from(row: dict[str, Any]) -> Example:
    """Return the example that a JSON artifact holds."""
    return Example(**{**row, "messages": tuple(row["messages"])})


def _scorecard(tree: dict[str, Any]) -> Scorecard:
    estimates = {name: Estimate(**tree[name]) for name in ("similarity", "precision")}
    return Scorecard(**{**tree, **estimates})


def load_data(experiment: Experiment) -> CoverageDataset:
    """Return the experiment's coverage data, split; raises InputError where they can't be used."""
    data, pairs = experiment.data, []
    if data.source is DataSource.pocket:
        count = (data.train_rows or 0) + (data.dev_rows or 0) + (data.test_rows or 0)
        pairs = make_pairs(experiment.task.name, count, data.seed)
    return load_coverage(experiment, pairs)


def open_service(experiment: Experiment, folder: Path, llms: Sequence[ServiceLLM] | None = None) -> Service | None:
    """Return access to service LLMs, by default all of the experiment's, keys and prices checked; None for nobody."""
    llms = asked_llms(experiment) if llms is None else llms
    if not llms:
        return None
    settings = experiment.service
    refuse_missing_keys(experiment, llms)
    for llm in llms:
        tariff(llm, experiment.prices)
    return Service(
        Journal(journal_path(experiment), read_only=settings.replay, imported=settings.replay or settings.imported),
        run=f"{folder.parent.name}/{folder.name}",
        budget_usd=experiment.loop.budget_usd,
        study_budget_usd=settings.study_budget_usd,
        prices=experiment.prices,
        replay=settings.replay,
        reasks=settings.reasks,
    )


def refuse_missing_keys(experiment: Experiment, llms: Sequence[ServiceLLM] | None = None) -> None:
    """Raise ConfigError where a key is missing of a service LLM, by default of all that the experiment asks."""
    transport.register("pocket", teacher.reply)
    if not experiment.service.replay:
        for llm in asked_llms(experiment) if llms is None else llms:
            transport.api_key(llm)
            address(llm)
            headers(llm)


def asked_llms(experiment: Experiment) -> list[ServiceLLM]:
    """Return every service LLM that the experiment asks."""
    llms = list(experiment.judge.panel.values()) if experiment.judge.kind is JudgeKind.service else []
    llms += [experiment.service_llm] if experiment.synthesis.enabled or Beside.service_llm in beside(experiment) else []
    server = experiment.infer.server
    return llms + ([server] if experiment.infer.backend is Backend.endpoint and server else [])


def journal_path(experiment: Experiment) -> Path:
    """Return where the experiment's journal lies."""
    named = experiment.service.journal
    return Path(named).expanduser() if named else default_path()


def _as_yaml(experiment: Experiment) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(_literal(plain(experiment))))


def _literal(tree: Any) -> Any:
    """Return a tree whose texts are read as what they are: no `${` in it is an interpolation."""
    if isinstance(tree, dict):
        return {name: _literal(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_literal(value) for value in tree]
    return _BEFORE_BRACE.sub(r"\1\1\\${", tree) if isinstance(tree, str) else tree


_BEFORE_BRACE = re.compile(r"(\\*)\$\{")


def _settle_libraries() -> None:
    """Keep the libraries' own bars and notices out of the display, and their threads from spinning.

    libgomp's threads spin while they wait: on two cores of which another program uses one, that made
    training of a pocket model 15 times slower. A short spin costs a fifth on idle cores.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("transformers", "peft", "bitsandbytes", "httpx", "datasets", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("transformers", "peft", "bitsandbytes", "torch", "litellm", "pydantic"):
        warnings.filterwarnings("ignore", module=name)
