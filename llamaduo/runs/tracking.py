"""Metrics: `metrics.jsonl` always, Weights & Biases beside it.

`metrics.jsonl` is the record; W&B is a view of it, fed by a thread of its own, so that a slow, broken
or absent W&B changes neither result nor exit code. Every start sends all iterations again under the
run's one id, `<study>-<folder>`, each with its explicit step. `send` does the same for a finished run,
from its files, and only once: `wandb.json` in the run's folder says which steps W&B has.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.config import Experiment, Privacy, WandbMode, plain
from llamaduo.errors import InputError, ServiceError
from llamaduo.files.regular import read_json
from llamaduo.files.writing import write_text
from llamaduo.privacy.hiding import Hider
from llamaduo.privacy.secret import secret_of
from llamaduo.records import Prediction, Verdict, to_json
from llamaduo.redaction import redact
from llamaduo.runs import layout
from llamaduo.runs.folder import read_rows, write_kept
from llamaduo.runs.state import Iteration
from llamaduo.runs.swept_keys import in_plan, shown

KEY = "WANDB_API_KEY"
_ID_LENGTH = 128
_PATIENCE_S = 20.0
_SEND_PATIENCE_S = 120.0


def write_metrics(folder: Path, history: Sequence[Iteration]) -> None:
    """Replace `metrics.jsonl`: one line an iteration."""
    write_kept(folder / layout.METRICS, "".join(to_json(iteration) + "\n" for iteration in history).encode())


def read_metrics(folder: Path) -> list[Iteration]:
    """Return the iterations of a run's `metrics.jsonl`; none if there is no such file."""
    path = folder / layout.METRICS
    return read_rows(path, Iteration) if path.exists() else []


class Tracker:
    """Copies a run to W&B; with `tracking=files` it does nothing."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._config, self._folder = experiment.tracking, folder
        self._hider = _hider(experiment.privacy, folder)
        self._steps: list[int] = []
        self._feed: _Feed | None = None
        self.problem: str | None = None
        """Why W&B has nothing of this run, if it hasn't."""
        if self._config.wandb is not WandbMode.off:
            offline = self._config.wandb is WandbMode.offline or not os.environ.get(KEY)
            self._target = Target(self._config.project, self._config.entity, offline)
            self._feed = _Feed(
                _settings(self._target, experiment.study, folder, _hidden(plain(experiment), self._hider))
            )

    def log(self, iteration: Iteration, predictions: Sequence[Prediction], verdicts: Sequence[Verdict]) -> None:
        """Send one iteration and a table of sample answers."""
        if self._feed is not None:
            answers = _hidden(_sample_answers(self._config.answers, predictions, verdicts), self._hider)
            self._feed.put(_Step(iteration.iteration, _metrics(iteration), answers))
            self._steps.append(iteration.iteration)

    def close(self) -> None:
        """Let W&B finish, but not for long, and write down what it has."""
        if self._feed is None:
            return
        self.problem = self._feed.close(_PATIENCE_S)
        if not self.problem and self._steps:
            try:
                _Sent(self._folder, self._target).keep(self._steps, None)
            except InputError as error:
                self.problem = f"W&B: {error}"


@dataclass(frozen=True)
class Target:
    """Where W&B's copy goes."""

    project: str
    entity: str | None
    """Null for the key's own."""
    offline: bool
    """Whether to write W&B's own folder for `wandb sync`, instead of sending."""

    def __str__(self) -> str:
        return f"{'offline' if self.offline else 'online'} {self.entity or ''}/{self.project}"


def send(
    target: Target,
    study: str,
    folder: Path,
    config: dict[str, Any],
    history: Sequence[Iteration],
    *,
    answers: int,
    privacy: Privacy | None = None,
) -> int:
    """Send a finished run's iterations that were not sent before; return how many there were.

    Reads predictions and verdicts for tables of sample answers. What was sent is kept in `wandb.json`, written when
    W&B has taken all of it. Raises ServiceError if W&B is absent, broken or doesn't finish.
    """
    sent = _Sent(folder, target)
    left = [line for line in history if line.iteration not in sent.steps]
    if left:
        hider = _hider(privacy, folder)
        feed = _Feed(_settings(target, study, folder, _hidden(config, hider)))
        for line in left:
            feed.put(
                _Step(line.iteration, _metrics(line), _hidden(_answers_of(folder, line.iteration, answers), hider))
            )
        _finish(feed, folder)
        sent.keep([*sent.steps, *(line.iteration for line in left)], None)
    return len(left)


def send_tables(target: Target, study: str, folder: Path, files: Sequence[Path]) -> int:
    """Send a study's tables as one artifact, unless these very contents were sent; return how many files there were."""
    digest, sent = _digest(folder, files), _Sent(folder, target)
    if not files or digest == sent.tables:
        return 0
    name = f"{study}-report"
    settings = _settings(target, study, folder, {"study": study}) | {"id": _wandb_id(name), "name": name}
    feed = _Feed(settings | {"job_type": "report"})
    feed.put(_Files(_wandb_id(name), {path.relative_to(folder).as_posix(): path for path in files}))
    _finish(feed, folder)
    sent.keep([], digest)
    return len(files)


def _finish(feed: _Feed, folder: Path) -> None:
    problem = feed.close(_SEND_PATIENCE_S)
    if problem:
        told = " ".join(problem.removeprefix("W&B: ").split())
        mend = "pip install wandb" if "ModuleNotFoundError" in problem else "run the same command again"
        raise ServiceError(f"{folder}: not sent to W&B ({told}). What helps: {mend}.")


class _Sent:
    """What a folder's `wandb.json` says was sent to a target: `{"online me/llamaduo": {"steps": [0, 1]}}`."""

    def __init__(self, folder: Path, target: Target) -> None:
        self._path, self._target = folder / "wandb.json", str(target)
        try:
            self._all: dict[str, Any] = read_json(self._path)
            known = self._all.get(self._target, {})
            self.steps: list[int] = list(known.get("steps", []))
            self.tables: str | None = known.get("tables")
        except FileNotFoundError:
            self._all, self.steps, self.tables = {}, [], None
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{self._path}: can't be read ({error}); remove it to send all again.") from error

    def keep(self, steps: list[int], tables: str | None) -> None:
        """Write down what was sent."""
        known = {"steps": sorted(steps)} if tables is None else {"tables": tables}
        write_text(self._path, json.dumps(self._all | {self._target: known}, indent=1, sort_keys=True) + "\n")


@dataclass(frozen=True)
class _Step:
    """One iteration on its way to W&B."""

    number: int
    metrics: dict[str, float | None]
    answers: list[dict[str, Any]]

    def give(self, wandb: Any, run: Any) -> None:
        """Log numbers and the table of answers under the iteration's step."""
        columns = list(self.answers[0]) if self.answers else []
        rows = [[row.get(name) for name in columns] for row in self.answers]
        table = {"sample_answers": wandb.Table(columns=columns, data=rows)} if rows else {}
        run.log({**self.metrics, **table}, step=self.number)


@dataclass(frozen=True)
class _Files:
    """Files on their way to W&B, by their names in the artifact."""

    name: str
    files: dict[str, Path]

    def give(self, wandb: Any, run: Any) -> None:
        """Log the files as one artifact."""
        artifact = wandb.Artifact(self.name, type="report")
        for name, path in self.files.items():
            artifact.add_file(str(path), name=name)
        run.log_artifact(artifact)


class _Feed:
    """W&B in a thread of its own: whatever it raises or hangs in stays there."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._problem: str | None = None
        self._queue: queue.SimpleQueue[_Step | _Files | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(settings,), daemon=True)
        self._thread.start()

    def put(self, item: _Step | _Files) -> None:
        """Send something, later."""
        self._queue.put(item)

    def close(self, patience_s: float) -> str | None:
        """Let W&B finish; return what went wrong, if anything did."""
        self._queue.put(None)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            return f"W&B did not finish within {patience_s:.0f} s"
        return self._problem

    def _work(self, settings: dict[str, Any]) -> None:
        for name in ("WANDB_DEBUG", "WANDB_CORE_DEBUG"):
            os.environ.pop(name, None)  # W&B's own debug log has its key in it
        try:
            import wandb

            quiet = wandb.Settings(
                console="off", silent=True, x_disable_meta=True, disable_git=True, disable_code=True,
                disable_job_creation=True, init_timeout=_PATIENCE_S,
            )  # fmt: skip
            hook = sys.excepthook
            run = wandb.init(**settings, settings=quiet)
            sys.excepthook = hook  # W&B's own prints tracebacks as they are
            while item := self._queue.get():
                item.give(wandb, run)
            run.finish()
        except BaseException as error:  # whatever W&B raises, SystemExit too, the run goes on
            self._problem = redact(f"W&B: {type(error).__name__}: {error}")


def _settings(target: Target, study: str, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "project": target.project,
        "entity": target.entity,
        "group": study,
        "id": _wandb_id(f"{study}-{folder.name}"),
        "name": shown(in_plan(folder), folder.name),
        "config": config,
        "dir": str(folder),
        "mode": "offline" if target.offline else "online",
        "resume": None if target.offline else "allow",
    }


def _hider(privacy: Privacy | None, folder: Path) -> Hider | None:
    """Return what hides what W&B gets of a run, None with privacy=off."""
    return Hider(privacy, secret_of(folder, None)) if privacy else None


def _hidden(tree: Any, hider: Hider | None) -> Any:
    """Return a configuration or rows of a table as they may be sent; the user's own patterns stay here."""
    if hider is None:
        return tree
    if isinstance(tree, dict) and tree.get("privacy"):
        tree = tree | {"privacy": tree["privacy"] | {"patterns": len(tree["privacy"].get("patterns") or {})}}
    return hider.tree(tree)


def _wandb_id(name: str) -> str:
    """Return a name as W&B takes it for an id: at most 128 letters, digits, `-` and `_`; other names get a hash."""
    plain_name = re.sub(r"[^A-Za-z0-9_-]", "-", name)
    if plain_name == name and len(name) <= _ID_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{plain_name[: _ID_LENGTH - 9]}-{digest}"


def _metrics(iteration: Iteration) -> dict[str, float | None]:
    """Return an iteration's numbers under the names of `metrics.jsonl`, and the share of unscored verdicts."""
    total = iteration.scored + iteration.unscored
    return _flat(plain(iteration)) | {"unscored_share": iteration.unscored / total if total else 0.0}


def _answers_of(folder: Path, number: int, count: int) -> list[dict[str, Any]]:
    """Return sample answers of an iteration from its files; none where these are gone."""
    here = layout.place(folder, number)
    try:
        predictions = read_rows(here / layout.PREDICTIONS, Prediction)
        return _sample_answers(count, predictions, read_rows(here / layout.VERDICTS, Verdict))
    except FileNotFoundError:
        return []


def _digest(folder: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, float | None]:
    """Return numbers under names such as `judges/gpt_4o/precision_mean`; null has no place in W&B."""
    flat: dict[str, float | None] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        elif value is not None:
            flat[prefix + key] = value
    return flat


def _sample_answers(count: int, predictions: Sequence[Prediction], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return the first answers that were judged with what each judge made of them in its first repeat."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    judged = {(verdict.prompt_id, verdict.sample) for verdict in verdicts}
    for prediction in [p for p in predictions if (p.prompt_id, p.sample) in judged][:count]:
        rows[prediction.prompt_id, prediction.sample] = {
            "prompt": prediction.prompt,
            "reference": prediction.reference,
            "answer": prediction.text,
        }
    for verdict in verdicts:
        row = rows.get((verdict.prompt_id, verdict.sample))
        if row is not None and verdict.repeat == 0:
            row[f"{verdict.judge} similarity"] = verdict.similarity
            row[f"{verdict.judge} precision"] = verdict.precision
            row[f"{verdict.judge} unscored"] = verdict.unscored
    return list(rows.values())
