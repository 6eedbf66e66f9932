"""Stand-ins at the seams, for tests of what lies between: quick stages, and programs as service LLMs.

`quick_stages` replaces training and answering by functions without a model: the "model" of an iteration
answers with the number of rows it was trained on, so a judge program can score by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Backend
from llamaduo.display import Display
from llamaduo.local.job import AnswerJob
from llamaduo.records import Adapter, Example, Prediction
from llamaduo.service import loading
from llamaduo.training.job import TrainJob

PROVIDER = "scripted"
JUDGED_BY_SCRIPT = (
    "judge=endpoint",
    f"judge.panel.endpoint.provider={PROVIDER}",
    "judge.panel.endpoint.base_url=http://localhost:9",
    "judge.panel.endpoint.model=script",
    "judge.panel.endpoint.concurrency=4",
)
SMALL = (
    "data.train_rows=8",
    "data.dev_rows=6",
    "data.test_rows=6",
    "loop.growth.factor=2",
    "loop.gate.rule=mean",
    "loop.beside=[]",
    "infer.samples=2",
)
"""A run of few prompts: no limit could pass its gate, so that it looks at means."""


def quick_train(job: TrainJob, examples: Any, dev: Any, *, progress: Any, **_: Any) -> Adapter:
    """Write the number of rows, and what was started from, where weights would be."""
    origin = job.start_from and str(job.start_from)
    (job.folder / "weights.json").write_text(json.dumps({"rows": len(examples), "start_from": origin}))
    progress(1, 1)
    synthetic = sum(example.generator != "coverage" for example in examples)
    return Adapter(len(examples), synthetic, 0, 1, 1, 0.5)


def quick_infer(job: AnswerJob, examples: tuple[Example, ...], *, progress: Any, **_: Any) -> list[Prediction]:
    """Answer every prompt with the number of rows trained on: 0 for the base model, 1,000 for a service LLM."""
    rows = json.loads((Path(job.adapter) / "weights.json").read_text())["rows"] if job.adapter else 0
    rows = 1000 if job.config.backend is Backend.endpoint else rows
    progress(1, 1)
    return [
        Prediction(e.prompt_id, k, e.prompt, e.response, f"rows={rows} sample={k}", "stop", 3, 3, cluster=e.cluster)
        for e in examples
        for k in range(job.config.samples)
    ]


@pytest.fixture
def quick_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace training and answering; the rest of the loop is real."""
    monkeypatch.setattr("llamaduo.steps.steps.train", quick_train)
    monkeypatch.setattr("llamaduo.steps.steps.infer", quick_infer)


def rows_of(prompt: str) -> int:
    """Return the number of rows behind the answer that a judge prompt asks about."""
    found = re.search(r"rows=(\d+)", prompt)
    assert found is not None
    return int(found[1])


def verdict(similarity: float, precision: float | None = None) -> str:
    """Return a judge's reply."""
    precision = similarity if precision is None else precision
    return json.dumps(
        {"similarity": {"reason": "r", "score": similarity}, "precision": {"reason": "r", "score": precision}}
    )


def script_judge(program: Callable[[str, Mapping[str, Any]], str]) -> None:
    """Let a program answer for the provider `scripted`."""
    loading.TEXT_PROGRAMS[PROVIDER] = program


def quiet() -> Display:
    """Return a display that shows nothing."""
    return Display(quiet=True)
