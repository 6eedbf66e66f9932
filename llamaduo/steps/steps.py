"""The verbs of the loop, each tied to its artifact in the run's folder.

A method asks the folder for an artifact; only where its marker is missing is the stage called. What a
stage needs of the configuration is handed to it here, so that no stage knows the whole of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from llamaduo.config import Beside, GateSplit, Start, Strategy, beside, plain
from llamaduo.display import left_out, missing_answers, place
from llamaduo.evidence import gate
from llamaduo.evidence.economy import Round
from llamaduo.evidence.scorecard import clusters, from_tree, iteration_of, score
from llamaduo.evidence.stop import stop_reason
from llamaduo.evidence.watch import Watch, judges_in_rounds
from llamaduo.files.contents import home
from llamaduo.records import Adapter, Example, GateLook, Judged, Prediction, Scorecard, Verdict
from llamaduo.runs import identity, layout
from llamaduo.runs.folder import Again
from llamaduo.runs.layout import LOSSES, PREDICTIONS, REST, SCORECARD, TEST, TRAIN_PREDICTIONS, VERDICTS
from llamaduo.runs.tracking import write_metrics
from llamaduo.service.requests import Outcome
from llamaduo.stages.infer import answer_job, answering, infer, refuse_hopeless, refuse_unanswered
from llamaduo.stages.judge import judge, refuse_unreadable, verdicts_there_are
from llamaduo.stages.train import train
from llamaduo.stages.weigh import RowLoss, weigh
from llamaduo.steps import auditing
from llamaduo.steps.growth import volume
from llamaduo.steps.opening import OpenRun
from llamaduo.steps.student import Student, failed_by, hard_for
from llamaduo.synthesis.strategies import named
from llamaduo.training.fit import SKIPPED
from llamaduo.training.job import TrainJob


class Steps(OpenRun):
    """The verbs of one run."""

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
        origin = start_from if self.experiment.loop.start is Start.last else None

        trained = self._folder.folder(
            self.adapter(number), Adapter, lambda folder: self._trained_to(folder, number, rows, origin), Again.never
        )
        shutil.rmtree(self._folder.iteration(number) / "checkpoints", ignore_errors=True)
        for note in left_out(self.experiment, trained, len(rows), self.adapter(number) / SKIPPED):
            self.display.note(note)
        return trained

    def _trained_to(self, folder: Path, number: int, rows: list[Example], origin: Path | None) -> Adapter:
        """Train into a folder, with the adapter at `origin` to begin with if there is one."""
        self._make_sure()
        identity.remember(self.experiment, self._folder.path)
        here, runtime = self._folder.iteration(number), self.experiment.runtime
        job = TrainJob(
            folder,
            self.experiment.local_model,
            self.experiment.train,
            runtime,
            start_from=origin,
            checkpoints=here / "checkpoints",
            cache=Path(runtime.cache) if runtime.cache else home() / "rows",
        )
        with self.display.stage("train", place(number)) as progress:
            trained = train(job, rows, self.dataset.dev, progress=progress, note=self.display.note)
        identity.remember(self.experiment, self._folder.path)
        return trained

    def infer(
        self, where: int | str, examples: tuple[Example, ...], adapter: Path | None, beside: Beside | None = None
    ) -> list[Prediction]:
        """Answer the prompts of a split, K samples each: the model with this adapter, or who stands beside it."""
        served = answering(self.experiment, beside).served
        predictions = self._folder.rows(
            self._folder.iteration(where) / PREDICTIONS,
            Prediction,
            lambda: self._answered(where, examples, adapter, beside),
            Again.same if served else Again.never,
        )
        self._used_usd.update({p.request: p.cost_usd for p in predictions if p.request})
        if isinstance(where, int) and gate.asked(self.experiment.loop.gate) and self.experiment.synthesis.enabled:
            refuse_hopeless(predictions, self.experiment.judge.max_unscored)
        for note in missing_answers(self.experiment, predictions):
            self.display.note(note)
        return predictions

    def _answered(
        self, where: int | str, examples: tuple[Example, ...], adapter: Path | None, beside: Beside | None
    ) -> list[Prediction]:
        """Answer now; raises ServiceError when too few answers came."""
        troubles: list[Outcome] = []
        job = answer_job(self.experiment, adapter, beside)
        self._make_sure()
        identity.remember(self.experiment, self._folder.path)
        with self.display.stage("infer", place(where)) as progress:
            made = infer(
                job,
                examples,
                progress=progress,
                pool=self.dataset.train,
                note=self.display.note,
                service=self._service,
                troubled=troubles.append,
            )
        identity.remember(self.experiment, self._folder.path)
        refuse_unanswered(made, troubles, self.experiment.judge.max_unscored)
        return made

    def judge(self, where: int | str, predictions: list[Prediction]) -> list[Verdict]:
        """Let the panel score the answers; raises ServiceError when too few of its replies can be read.

        An iteration's are asked about in rounds, until the gate's decision depends on nothing that is left.
        """
        if not isinstance(where, int) or not judges_in_rounds(self.experiment):
            return self._verdicts(where, VERDICTS, predictions)
        watch = Watch.of(self.experiment, predictions, self._beside.get((Beside.service_llm, "gate")))
        return self._verdicts(where, VERDICTS, predictions, watch.rounds, watch.enough)

    def rest(self, number: int, predictions: Sequence[Prediction], verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Return the verdicts on answers that were left out, one repeat each."""
        judged = {verdict.prompt_id for verdict in verdicts}
        others = dict.fromkeys(p.prompt_id for p in predictions if p.prompt_id not in judged)
        return self._verdicts(number, REST, predictions, [Round(tuple(others), (0,))])

    def _verdicts(
        self,
        where: int | str,
        name: str,
        predictions: Sequence[Prediction],
        rounds: list[Round] | None = None,
        enough: Callable[[Sequence[Verdict]], bool] | None = None,
    ) -> list[Verdict]:
        config = self.experiment.judge

        def judged() -> list[Verdict]:
            with self.display.stage("judge", place(where)) as progress:
                made = judge(
                    predictions,
                    config=config,
                    service=self._service,
                    progress=progress,
                    seed=self.experiment.runtime.seed,
                    rounds=rounds,
                    enough=enough,
                )
            refuse_unreadable(made, config, self._service)
            return made

        verdicts = self._folder.rows(self._folder.iteration(where) / name, Verdict, judged, Again.same)
        self._used_usd.update({v.request: v.cost_usd for v in verdicts if v.request})
        return verdicts

    def judge_rest(self) -> bool:
        """Judge once what was left out of the iterations that a plateau is about; tell whether there was any.

        Their lines of metrics and what the gate saw stay as they are: this is for gains alone.
        """
        left = self.gains.left(self.history, self.experiment.loop.patience)
        for number in left:
            answers = self.judged(number)
            self.gains.know(number, answers.verdicts, self.rest(number, answers.predictions, answers.verdicts))
        return bool(left)

    def stop_reason(self) -> str | None:
        """Return which rule ends the loop now, or None to go on."""
        unscored = self.experiment.judge.max_unscored
        told = self.gains.gain, self.gains.least
        return stop_reason(self.history, self.experiment.loop, unscored, *told, refused=self.audit_faults)

    def audit_faults(self, number: int) -> list[str]:
        """Return, and tell, what the audit that the gate asks for has against an iteration's model."""
        found = auditing.faults(self._folder, self.experiment, self.dataset, number)
        for fault in found:
            self.display.note(f"iteration {number} is not accepted: {fault}.")
        return found

    def score(self, where: int | str, predictions: list[Prediction], verdicts: list[Verdict]) -> Scorecard:
        """Return the scorecard of a split's verdicts."""
        config = self.experiment.judge
        there = len(predictions), verdicts_there_are(predictions, config, self.experiment.runtime.seed)
        cut, near = self.experiment.loop.coverage_cut, clusters(predictions)
        made = partial(score, verdicts, coverage_cut=cut, clusters=near, there=there, dear=config.dear)
        path = self._folder.iteration(where) / SCORECARD
        return from_tree(self._folder.tree(path, lambda: plain(made()), Again.same))

    def look(
        self, split: str, predictions: list[Prediction], verdicts: list[Verdict], method: str | None = None
    ) -> GateLook | None:
        """Return what the gate sees of a model on a split (`gate` or `test`); None where it asks for nothing.

        On test it looks once, and a difference is limited as it was on dev, by `method`.
        """
        error = gate.error_at_a_look(self.experiment) if split == "gate" else self.experiment.loop.gate.error
        theirs = self._beside.get((Beside.service_llm, split))
        return gate.seen(self.experiment, predictions, verdicts, error=error, service_llm=theirs, method=method)

    def judge_beside(self, split: str, examples: tuple[Example, ...]) -> None:
        """Answer and judge a split (`gate` or `test`) once by those who stand beside the iterations' models."""
        before = self.cost_usd()
        for name in beside(self.experiment):
            where = layout.beside(name.value, split)
            predictions = self.infer(where, examples, None, name)
            self._beside[name, split] = verdicts = self.judge(where, predictions)
            self._state.beside.setdefault(name, {})[split] = plain(self.score(where, predictions, verdicts))
        self._beside_usd += self.cost_usd() - before

    def record(self, number: int, trained: Adapter, predictions: list[Prediction], verdicts: list[Verdict]) -> None:
        """Close an iteration: scorecard, metrics, state, W&B."""
        card = self.score(number, predictions, verdicts)
        iteration = iteration_of(
            number,
            trained,
            card,
            self.look("gate", predictions, verdicts),
            cost_usd=round(self.cost_usd() - self._beside_usd - sum(line.cost_usd for line in self.history), 10),
            seconds=layout.seconds(*layout.behind(self._folder.path, number)),
        )
        self.history.append(iteration)
        self.gains.know(number, verdicts)
        write_metrics(self._folder.path, self.history)
        self._state.iterations = len(self.history)
        self._state.cost_usd = self.cost_usd()
        self._folder.write_state(self._state)
        self._tracker.log(iteration, predictions, verdicts)
        self.display.iteration(iteration)
        self.display.criteria(number, card)

    def cost_usd(self) -> float:
        """Return the price of all replies that this run has used so far, each distinct request once."""
        return round(sum(self._used_usd.values()) + self._growing.cost_usd, 10)

    def grow(self, where: int | str, pool: list[Example], volume: int) -> list[Example]:
        """Return new curated rows, so that the synthetic pool reaches `volume`; none if synthesis is off."""
        return self._growing.new_rows(where, pool, volume)

    def _student(self, number: int) -> Student:
        """Look at the training rows with an iteration's model: how hard they are, or which it fails."""
        folder, train, config = self._folder.iteration(number), self.dataset.train, self.experiment.synthesis
        if named(config) is Strategy.correct:
            answered = partial(self._answered, number, train, self.adapter(number), None)
            return failed_by(self._folder.rows(folder / TRAIN_PREDICTIONS, Prediction, answered, Again.never), train)
        losses = self._folder.rows(folder / LOSSES, RowLoss, partial(self._weighed, number), Again.never)
        verdicts, seed = self.judged(number).verdicts, self.experiment.runtime.seed
        return hard_for(losses, train, self.gate_split, verdicts, even=config.even, seed=seed)

    def _weighed(self, number: int) -> list[RowLoss]:
        """Weigh the training rows now."""
        self._make_sure()
        with self.display.stage("weigh", place(number)) as progress:
            job = answer_job(self.experiment, self.adapter(number))
            return weigh(job, self.dataset.train, self.experiment.train, progress=progress)

    def report_test(self, chosen: int | None) -> Judged | None:
        """Under `protocol=clean`, answer and judge the test split once, with the model that was chosen."""
        if chosen is None or self.experiment.protocol.gate_split is GateSplit.test:
            return None
        predictions = self.infer(TEST, self.dataset.test, self.adapter(chosen))
        verdicts = self.judge(TEST, predictions)
        self.judge_beside("test", self.dataset.test)
        on_dev = self.history[chosen].gate
        seen = self.look("test", predictions, verdicts, on_dev["method"] if on_dev else None)
        return Judged(predictions, verdicts, self.score(TEST, predictions, verdicts), seen)

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
