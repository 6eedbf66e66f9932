"""Metrics: `metrics.jsonl` always, Weights & Biases beside it.

`metrics.jsonl` is the record; W&B is a view of it, fed by a thread of its own, so that a slow, broken
or absent W&B changes neither result nor exit code. Every start sends all iterations again under the
run's one id, each with its explicit step.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamaduo.config import Experiment, Tracking, WandbMode, plain
from llamaduo.records import Iteration, Prediction, Verdict, to_json
from llamaduo.redaction import redact
from llamaduo.run_dir import read_rows, write_text

_PATIENCE_S = 20.0


def write_metrics(folder: Path, history: Sequence[Iteration]) -> None:
    """Replace `metrics.jsonl`: one line an iteration."""
    write_text(folder / "metrics.jsonl", "".join(to_json(iteration) + "\n" for iteration in history))


def read_metrics(folder: Path) -> list[Iteration]:
    """Return the iterations of a run's `metrics.jsonl`; none if there is no such file."""
    path = folder / "metrics.jsonl"
    return read_rows(path, Iteration) if path.exists() else []


class Tracker:
    """Copies a run to W&B; with `tracking=files` it does nothing."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self._config = experiment.tracking
        self.problem: str | None = None
        """Why W&B has nothing of this run, if it hasn't."""
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if self._config.wandb is not WandbMode.off:
            settings = _settings(experiment, folder)
            self._thread = threading.Thread(target=self._feed, args=(settings,), daemon=True)
            self._thread.start()

    def log(self, iteration: Iteration, predictions: Sequence[Prediction], verdicts: Sequence[Verdict]) -> None:
        """Send one iteration and a table of sample answers."""
        if self._thread is not None:
            answers = _sample_answers(self._config, predictions, verdicts)
            total = iteration.scored + iteration.unscored
            share = {"unscored_share": iteration.unscored / total if total else 0.0}
            metrics = _flat(plain(iteration)) | share
            self._queue.put({"step": iteration.iteration, "metrics": metrics, "answers": answers})

    def close(self) -> None:
        """Let W&B finish, but not for long."""
        if self._thread is None:
            return
        self._queue.put(None)
        self._thread.join(_PATIENCE_S)
        if self._thread.is_alive():
            self.problem = f"W&B did not finish within {_PATIENCE_S:.0f} s"

    def _feed(self, settings: dict[str, Any]) -> None:
        for name in ("WANDB_DEBUG", "WANDB_CORE_DEBUG"):
            os.environ.pop(name, None)  # W&B's own debug log has its key in it
        try:
            import wandb

            quiet = wandb.Settings(
                console="off", silent=True, x_disable_meta=True, disable_git=True, disable_code=True,
                disable_job_creation=True, init_timeout=_PATIENCE_S,
            )  # fmt: skip
            run = wandb.init(**settings, settings=quiet)
            while item := self._queue.get():
                rows = [list(row.values()) for row in item["answers"]]
                columns = list(item["answers"][0]) if item["answers"] else []
                table = {"sample_answers": wandb.Table(columns=columns, data=rows)} if rows else {}
                run.log({**item["metrics"], **table}, step=item["step"])
            run.finish()
        except BaseException as error:  # whatever W&B raises, SystemExit too, the run goes on
            self.problem = redact(f"W&B: {type(error).__name__}: {error}")


def _settings(experiment: Experiment, folder: Path) -> dict[str, Any]:
    tracking = experiment.tracking
    offline = tracking.wandb is WandbMode.offline or not os.environ.get("WANDB_API_KEY")
    return {
        "project": tracking.project,
        "entity": tracking.entity,
        "group": experiment.study,
        "id": folder.name,
        "name": folder.name,
        "config": plain(experiment),
        "dir": str(folder),
        "mode": "offline" if offline else "online",
        "resume": None if offline else "allow",
    }


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, float | None]:
    """Return numbers under names such as `judges/gpt_4o/precision_mean`; null has no place in W&B."""
    flat: dict[str, float | None] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}/")
        elif value is not None:
            flat[prefix + key] = value
    return flat


def _sample_answers(
    config: Tracking, predictions: Sequence[Prediction], verdicts: Sequence[Verdict]
) -> list[dict[str, Any]]:
    """Return the first answers with what each judge made of them in its first repeat."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for prediction in predictions[: config.answers]:
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
