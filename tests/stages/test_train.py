"""Train: the same job goes to a process of its own or is done here, as the runtime says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Isolation, LocalModel, Runtime, Train
from llamaduo.stages import train as stage
from llamaduo.training.job import TrainJob


@pytest.mark.parametrize(("isolation", "where"), [(Isolation.process, "apart"), (Isolation.none, "here")])
def test_a_job_is_done_where_the_runtime_says(
    isolation: Isolation, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[Any, ...]] = []
    monkeypatch.setattr(stage, "train_apart", lambda *given, **_: done.append(("apart", *given)))
    monkeypatch.setattr(stage.fit, "train", lambda *given, **_: done.append(("here", *given)))
    model = LocalModel(name="pocket_llama", path="pocket:llama", context=512)
    config = Train(learning_rate=1e-3, max_length=512)
    job = TrainJob(tmp_path, model, config, Runtime(device="cpu", isolation=isolation))
    stage.train(job, [], [], progress=lambda done, total: None, note=lambda text: None)
    assert done == [(where, job, [], [])]
