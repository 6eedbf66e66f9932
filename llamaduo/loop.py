"""The paper's loop: fine-tune, answer, judge, synthesise, curate, again, until the evidence says stop.

    state = run(experiment, display=Display())

`_iterate` is the loop; the methods of `_Run` tie each of its verbs to a stage and to an artifact in the
run's folder, so that a run that was broken off goes on at the first artifact without a marker.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from llamaduo.config import DataSource, Experiment, GateSplit, JudgeKind, Start, fingerprint, plain
from llamaduo.data.coverage import load_coverage
from llamaduo.display import Display
from llamaduo.environment import describe
from llamaduo.errors import BudgetError, LlamaduoError, ServiceError
from llamaduo.evidence.scorecard import score, unscored_share
from llamaduo.evidence.stop import best, stop_reason
from llamaduo.evidence.verdict import verdict
from llamaduo.pocket import teacher
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import (
    Adapter,
    CoverageDataset,
    Example,
    Iteration,
    Prediction,
    RunState,
    Scorecard,
    Verdict,
    from_json,
    to_json,
)
from llamaduo.run_dir import RunDir, read_state, write_text
from llamaduo.service import client
from llamaduo.service.journal import Journal, default_path
from llamaduo.stages.curate import Curated, curate
from llamaduo.stages.infer import infer
from llamaduo.stages.judge import judge
from llamaduo.stages.synthesize import Batch, synthesize
from llamaduo.stages.train import train
from llamaduo.tracking import Tracker, write_metrics

_SYNTHESIS_ROUNDS = 3


def _iterate(run: _Run) -> str:
    """The loop. Fills `run.history` and returns which rule stopped it."""
    pool = run.grow("start", [], run.volume(0))
    adapter: Path | None = None
    while True:
        number = len(run.history)
        rows = run.rows(number, pool)
        trained = run.train(number, rows, start_from=adapter)
        adapter = run.adapter(number)
        predictions = run.infer(number, run.gate_split, adapter)
        verdicts = run.judge(number, predictions)
        run.record(number, rows, trained, predictions, verdicts)
        reason = stop_reason(run.history, run.experiment.loop, run.experiment.judge.max_unscored)
        if reason:
            return reason
        pool = pool + run.grow(number, pool, run.volume(number + 1))
        if len(run.rows(number + 1, pool)) <= len(rows):
            return "no_new_data"


def run_folder(experiment: Experiment) -> Path:
    """Return where a run lies: `<results>/<study>/<name>-<fingerprint>`."""
    return Path(experiment.runtime.results) / experiment.study / f"{experiment.name}-{fingerprint(experiment)}"


def finished(experiment: Experiment) -> RunState | None:
    """Return the state of a run that has nothing left to do, or None."""
    state = read_state(run_folder(experiment))
    return state if state.status == "done" and state.stop_reason != "budget" else None


def run(experiment: Experiment, *, display: Display) -> RunState:
    """Run one experiment to its end, from wherever it stands, and return its state.

    Raises LlamaduoError; the folder is resumable after any error and any interruption.
    """
    done = finished(experiment)
    if done:
        return done
    _quiet_libraries()
    with RunDir(run_folder(experiment)) as folder:
        state = folder.read_state()
        state.status, state.stop_reason, state.error = "running", None, None
        try:
            current = _Run(experiment, folder, state, display)
            try:
                return current.to_the_end()
            finally:
                current.close()
        except LlamaduoError as error:
            state.status, state.error = "failed", str(error)
            folder.write_state(state)
            raise


class _Run:
    """One run under way: the experiment, its folder, and each verb of the loop as a method."""

    def __init__(self, experiment: Experiment, folder: RunDir, state: RunState, display: Display) -> None:
        self.experiment = experiment
        self.history: list[Iteration] = []
        self._folder = folder
        self._state = state
        self._display = display
        self._service = _open_service(experiment, folder.path)
        self.dataset = _dataset(experiment)
        self._tracker = Tracker(experiment, folder.path)

    def close(self) -> None:
        """Let go of W&B and of the service."""
        self._tracker.close()
        if self._tracker.problem:
            self._display.note(f"{self._tracker.problem}; the run is not affected.")
        if self._service:
            self._service.close()

    def to_the_end(self) -> RunState:
        """Run the loop, report the test split, write the verdict."""
        self._begin()
        test: Scorecard | None = None
        try:
            self._state.stop_reason = _iterate(self)
            test = self.report_test()
        except BudgetError as error:
            self._display.note(str(error))
            self._state.stop_reason = "budget"
        self._state.best_iteration = best(self.history) if self.history else None
        if self._state.stop_reason == "passed":
            self._state.accepted_iteration = self._state.best_iteration = len(self.history) - 1
        self._state.test = plain(test) if test else None
        self._state.cost_usd += test.cost_usd if test else 0.0
        self._state.verdict = verdict(
            self.experiment, self.history, self._state.stop_reason, self._state.best_iteration, test
        )
        self._state.status = "done"
        self._folder.write_state(self._state)
        return self._state

    def _begin(self) -> None:
        path = self._folder.path
        write_text(path / "config.yaml", _as_yaml(self.experiment))
        environment = path / "environment.json"
        if not environment.exists():
            write_text(environment, describe(self.experiment.runtime.seed))
        self._folder.write_state(self._state)
        self._display.start(_headline(self.experiment, self.dataset, path), [])

    @property
    def gate_split(self) -> tuple[Example, ...]:
        """The rows that the gate looks at."""
        return self.dataset.dev if self.experiment.protocol.gate_split is GateSplit.dev else self.dataset.test

    def volume(self, number: int) -> int:
        """Return how many synthetic rows iteration `number` wants."""
        growth = self.experiment.loop.growth
        if growth.volumes:
            return growth.volumes[min(number, len(growth.volumes) - 1)]
        start = len(self.dataset.train)
        return round(start * growth.factor**number) - start

    def rows(self, number: int, pool: list[Example]) -> list[Example]:
        """Return what iteration `number` trains on: coverage rows, then a prefix of the synthetic pool."""
        coverage = self.dataset.train if self.experiment.loop.growth.include_coverage else ()
        return [*coverage, *pool[: self.volume(number)]]

    def adapter(self, number: int) -> Path:
        """Return the folder of an iteration's adapter."""
        return self._folder.iteration(number) / "adapter"

    def train(self, number: int, rows: list[Example], start_from: Path | None) -> Adapter:
        """Fine-tune; restarts from the base model unless `loop.start=last`."""
        origin = str(start_from) if start_from and self.experiment.loop.start is Start.last else None
        with self._display.stage("train", f"iteration {number}") as progress:
            trained = self._folder.folder(
                self.adapter(number),
                Adapter,
                lambda folder: train(
                    rows,
                    folder,
                    model=self.experiment.local_model,
                    config=self.experiment.train,
                    runtime=self.experiment.runtime,
                    start_from=origin,
                    progress=progress,
                ),
            )
        if trained.skipped_rows:
            limit = self.experiment.train.max_length
            self._display.note(f"{trained.skipped_rows} of {len(rows)} training rows exceed {limit} tokens: left out whole.")
        return trained

    def infer(self, where: int | str, examples: tuple[Example, ...], adapter: Path) -> list[Prediction]:
        """Answer the prompts of a split, K samples each."""
        with self._display.stage("infer", _place(where)) as progress:
            predictions = self._folder.rows(
                self._folder.iteration(where) / "predictions.jsonl",
                Prediction,
                lambda: infer(
                    examples,
                    str(adapter),
                    model=self.experiment.local_model,
                    config=self.experiment.infer,
                    runtime=self.experiment.runtime,
                    quantization=self.experiment.train.quantization,
                    progress=progress,
                ),
            )
        too_long = sum(p.finish_reason == "prompt_too_long" for p in predictions)
        if too_long:
            room = self.experiment.local_model.context - self.experiment.infer.max_new_tokens
            self._display.note(
                f"{too_long} of {len(predictions)} answers are missing: their prompts exceed the {room} tokens that the "
                "model's context leaves for them. Nothing was cut."
            )
        return predictions

    def judge(self, where: int | str, predictions: list[Prediction]) -> list[Verdict]:
        """Let the panel score the answers; raises ServiceError when too few of its replies can be read."""

        def judged() -> list[Verdict]:
            with self._display.stage("judge", _place(where)) as progress:
                made = judge(predictions, config=self.experiment.judge, service=self._service, progress=progress)
            self._refuse_if_unreadable(made)
            return made

        return self._folder.rows(self._folder.iteration(where) / "verdicts.jsonl", Verdict, judged)

    def _refuse_if_unreadable(self, verdicts: list[Verdict]) -> None:
        card = score(verdicts, coverage_cut=self.experiment.loop.coverage_cut)
        share, limit = unscored_share(card), self.experiment.judge.max_unscored
        if share > limit:
            reasons = ", ".join(f"{name} {count}" for name, count in card.reasons.items())
            raise ServiceError(
                f"{share:.0%} of the judges' verdicts are unscored ({reasons}); with more than {limit:.0%} nothing is "
                "decided. Replies are kept: run again after an outage, or change judge.panel or judge.max_unscored."
            )

    def score(self, where: int | str, verdicts: list[Verdict]) -> Scorecard:
        """Return the scorecard of a split's verdicts."""
        cut = self.experiment.loop.coverage_cut
        path = self._folder.iteration(where) / "scorecard.json"
        tree = self._folder.tree(path, lambda: plain(score(verdicts, coverage_cut=cut)))
        return _scorecard(tree)

    def record(
        self,
        number: int,
        rows: list[Example],
        trained: Adapter,
        predictions: list[Prediction],
        verdicts: list[Verdict],
    ) -> None:
        """Close an iteration: scorecard, metrics, state, W&B."""
        card = self.score(number, verdicts)
        here, before = self._folder.iteration(number), self._folder.iteration(number - 1 if number else "start")
        made = [here / name for name in ("adapter", "predictions.jsonl", "verdicts.jsonl", "scorecard.json")]
        grown = [before / "synthetic.jsonl", before / "curation.json"]
        coverage = len(self.dataset.train) if self.experiment.loop.growth.include_coverage else 0
        iteration = Iteration(
            iteration=number,
            train_rows=len(rows),
            synthetic_rows=len(rows) - coverage,
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
            cost_usd=card.cost_usd + self._growth_cost(before),
            seconds=self._folder.seconds(*made, *grown),
            judges=card.judges,
        )
        self.history.append(iteration)
        write_metrics(self._folder.path, self.history)
        self._state.iterations = len(self.history)
        self._state.cost_usd = sum(line.cost_usd for line in self.history)
        self._folder.write_state(self._state)
        self._tracker.log(iteration, predictions, verdicts)
        self._display.iteration(iteration)

    def _growth_cost(self, folder: Path) -> float:
        path = folder / "curation.json"
        return float(self._folder.tree(path, dict)["cost_usd"]) if path.exists() else 0.0

    def grow(self, where: int | str, pool: list[Example], volume: int) -> list[Example]:
        """Return new curated rows, so that the synthetic pool reaches `volume`; none if synthesis is off."""
        wanted = volume - len(pool)
        if wanted <= 0 or not self.experiment.synthesis.enabled:
            return []
        folder = self._folder.iteration(where)

        @cache
        def asked() -> Batch:
            return self._synthesize(where, pool, wanted)

        raw = self._folder.rows(folder / "synthetic.jsonl", Example, lambda: asked().examples)

        def curated() -> dict[str, Any]:
            with self._display.stage("curate", _place(where)):
                result = self._curate(raw, pool)
            batch = asked()
            counts = {"requests": batch.requests, "failed": batch.failed, "dropped": batch.dropped}
            rows = {"parsed": len(raw), "kept": len(result.kept), "removed": plain(result.removed)}
            return {"wanted": wanted, **counts, **rows, "cost_usd": batch.cost_usd}

        removed = {entry["row"] for entry in self._folder.tree(folder / "curation.json", curated)["removed"]}
        return [example for row, example in enumerate(raw) if row not in removed]

    def _synthesize(self, where: int | str, pool: list[Example], wanted: int) -> Batch:
        """Ask until `wanted` rows survive curation, in a bounded number of rounds."""
        config = self.experiment.synthesis
        assert self._service is not None
        total = Batch((), 0, 0, 0, 0.0)
        missing = wanted
        with self._display.stage("synthesize", _place(where)) as progress:
            for _ in range(_SYNTHESIS_ROUNDS):
                batch = synthesize(
                    self.dataset.train,
                    round(missing * config.overdraw),
                    llm=self.experiment.service_llm,
                    config=config,
                    topic=self.experiment.task.topic,
                    first_request=self._requests_before(where) + total.requests,
                    seed=self.experiment.runtime.seed,
                    service=self._service,
                    progress=progress,
                )
                total = Batch(
                    total.examples + batch.examples,
                    total.requests + batch.requests,
                    total.failed + batch.failed,
                    total.dropped + batch.dropped,
                    total.cost_usd + batch.cost_usd,
                )
                missing = wanted - len(self._curate(total.examples, pool).kept)
                if missing <= 0 or not batch.examples:
                    break
        return total

    def _requests_before(self, where: int | str) -> int:
        """Return how many synthesis requests were made before those of `where`."""
        earlier = [] if where == "start" else ["start", *range(int(where))]
        paths = [self._folder.iteration(place) / "curation.json" for place in earlier]
        return sum(self._folder.tree(path, dict)["requests"] for path in paths if path.exists())

    def _curate(self, raw: list[Example] | tuple[Example, ...], pool: list[Example]) -> Curated:
        held_out = [*self.dataset.dev, *self.dataset.test]
        known = [*self.dataset.train, *pool]
        return curate(raw, known=known, held_out=held_out, config=self.experiment.curation)

    def report_test(self) -> Scorecard | None:
        """Under `protocol=clean`, answer and judge the test split once, with the model that was chosen."""
        if self.experiment.protocol.gate_split is GateSplit.test:
            return None
        chosen = len(self.history) - 1 if self._state.stop_reason == "passed" else best(self.history)
        predictions = self.infer("test", self.dataset.test, self.adapter(chosen))
        return self.score("test", self.judge("test", predictions))


def _place(where: int | str) -> str:
    return f"iteration {where}" if isinstance(where, int) else {"start": "before", "test": "test split"}[where]


def _scorecard(tree: dict[str, Any]) -> Scorecard:
    from llamaduo.records import Estimate

    estimates = {name: Estimate(**tree[name]) for name in ("similarity", "precision")}
    return Scorecard(**{**tree, **estimates})


def _dataset(experiment: Experiment) -> CoverageDataset:
    data, pairs = experiment.data, []
    if data.source is DataSource.pocket:
        count = (data.train_rows or 0) + (data.dev_rows or 0) + (data.test_rows or 0)
        pairs = make_pairs(experiment.task.name, count, data.seed)
    return load_coverage(experiment, pairs)


def _open_service(experiment: Experiment, folder: Path) -> client.Service | None:
    """Return access to service LLMs, keys and prices checked; None if nobody will be asked."""
    llms = list(experiment.judge.panel.values()) if experiment.judge.kind is JudgeKind.service else []
    llms += [experiment.service_llm] if experiment.synthesis.enabled else []
    if not llms:
        return None
    client.register("pocket", teacher.reply)
    for llm in llms:
        client.api_key(llm)
        client.prices(llm)
    journal = Path(experiment.service.journal).expanduser() if experiment.service.journal else default_path()
    run_name = f"{folder.parent.name}/{folder.name}"
    return client.Service(Journal(journal), run=run_name, budget_usd=experiment.loop.budget_usd)


def _as_yaml(experiment: Experiment) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(plain(replace(experiment))))


def _headline(experiment: Experiment, dataset: CoverageDataset, folder: Path) -> list[str]:
    teacher_name = experiment.service_llm.name if experiment.synthesis.enabled else "no synthesis"
    panel = ", ".join(experiment.judge.panel) if experiment.judge.kind is JudgeKind.service else "chrF and ROUGE-L"
    sizes = f"{len(dataset.train):,} train, {len(dataset.dev):,} dev, {len(dataset.test):,} test"
    lines = []
    if experiment.local_model.path.startswith("pocket:") and experiment.data.source is DataSource.pocket:
        lines += [
            "POCKET PROFILE: a program plays the service LLM, the local model has one million parameters, the task is",
            "made up. Prompts, JSON, journal, LoRA training, judging and stop rules are the real ones.",
        ]
    return [
        *lines,
        f"{experiment.task.name}: {teacher_name} -> {experiment.local_model.name}, judged by {panel} ({sizes})",
        f"{folder}",
    ]


def _quiet_libraries() -> None:
    """Keep the libraries' own bars and notices out of the display."""
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for name in ("transformers", "peft", "bitsandbytes", "httpx", "datasets", "absl"):
        logging.getLogger(name).setLevel(logging.ERROR)


def iteration_from_json(line: str) -> Iteration:
    """Return an iteration out of a line of `metrics.jsonl`."""
    return from_json(Iteration, line)


__all__ = ["finished", "run", "run_folder", "to_json"]
