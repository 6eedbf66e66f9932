"""Tracking: `metrics.jsonl` is the record; whatever W&B does, no result, no file and no exit code changes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sample_records import iteration, prediction

from llamaduo.config import Experiment, Tracking, WandbMode
from llamaduo.records import Verdict
from llamaduo.runs import tracking
from llamaduo.runs.tracking import Tracker, read_metrics, write_metrics


def online(
    experiment: Experiment, mode: WandbMode = WandbMode.auto, *, answers: int = 20, study: str = "runs"
) -> Experiment:
    """Return the experiment with W&B on."""
    experiment.tracking = Tracking(wandb=mode, answers=answers)
    experiment.study = study
    return experiment


class FakeWandb(SimpleNamespace):
    """A wandb that takes everything down; `faults` names the calls that raise, `release` lets hanging ones go on."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, BaseException] = {}
        self.hangs: set[str] = set()
        self.release = threading.Event()
        self.settings: dict[str, Any] = {}
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = False

    def _call(self, name: str) -> None:
        if name in self.hangs:
            self.release.wait(10)
        if name in self.faults:
            raise self.faults[name]

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802
        self._call("settings")
        return settings

    def Table(self, *, columns: list[str], data: list[list[Any]]) -> list[dict[str, Any]]:  # noqa: N802
        self._call("table")
        return [dict(zip(columns, row, strict=True)) for row in data]

    def init(self, **settings: Any) -> FakeWandb:
        self._call("init")
        self.settings = settings
        return self

    def log(self, values: dict[str, Any], *, step: int) -> None:
        self._call("log")
        self.logged.append((step, values))

    def finish(self) -> None:
        self._call("finish")
        self.finished = True


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(tracking, "_PATIENCE_S", 0.3)
    yield fake
    fake.release.set()


ANSWERS = [prediction("p", "one", 0), prediction("p", "two", 1), prediction("q", "three")]
VERDICTS = [
    Verdict(a.prompt_id, a.sample, judge, repeat, 50.0 + repeat, None, {}, None, None, None)
    for a in ANSWERS
    for judge in ("j", "k")
    for repeat in range(2)
]
JUDGES = {"gpt_4o": {"precision_mean": 70.0, "precision_low": None, "scored": 3}}


def tracked(experiment: Experiment, folder: Path) -> Tracker:
    """Track two iterations, as a run would."""
    tracker = Tracker(experiment, folder)
    history = [iteration(0, 50, None, judges=JUDGES), iteration(1, 60, 70)]
    for line in history:
        write_metrics(folder, history[: line.iteration + 1])
        tracker.log(line, ANSWERS, VERDICTS)
    tracker.close()
    return tracker


class TestMetrics:
    def test_they_read_back_equal_and_are_replaced_as_a_whole(self, tmp_path: Path) -> None:
        history = [iteration(0, 50.123456789, None, judges=JUDGES), iteration(1, 1 / 3, 70)]
        write_metrics(tmp_path, history)
        assert read_metrics(tmp_path) == history
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
        write_metrics(tmp_path, history[:1])
        assert read_metrics(tmp_path) == history[:1]

    def test_no_file_is_no_iteration(self, tmp_path: Path) -> None:
        assert read_metrics(tmp_path) == []

    def test_a_score_that_does_not_exist_is_null(self, tmp_path: Path) -> None:
        write_metrics(tmp_path, [iteration(0, None, 50)])
        assert '"similarity_mean": null, "similarity_low": null' in (tmp_path / "metrics.jsonl").read_text()


class TestWandb:
    def test_off_starts_nothing(self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path) -> None:
        tracker = tracked(experiment, tmp_path)
        assert (tracker.problem, wandb.settings, wandb.logged) == (None, {}, [])

    def test_off_does_not_even_import_it(
        self, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "wandb", None)
        assert tracked(experiment, tmp_path).problem is None

    def test_each_iteration_has_its_step_and_its_numbers(
        self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path
    ) -> None:
        tracker = tracked(online(experiment, study="mine"), tmp_path)
        assert tracker.problem is None
        assert wandb.finished
        assert [step for step, _ in wandb.logged] == [0, 1]
        first, second = (values for _, values in wandb.logged)
        assert first["similarity_mean"] == 50
        assert "precision_mean" not in first  # null has no place there
        assert second["precision_mean"] == 70
        assert first["judges/gpt_4o/precision_mean"] == 70.0
        assert "judges/gpt_4o/precision_low" not in first
        assert wandb.settings["group"] == "mine"
        assert (wandb.settings["id"], wandb.settings["name"]) == (f"mine-{tmp_path.name}", tmp_path.name)

    def test_sample_answers_come_with_the_first_verdicts(
        self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path
    ) -> None:
        tracked(online(experiment, answers=2), tmp_path)
        (table,) = (value for value in wandb.logged[0][1].values() if isinstance(value, list))
        assert [row["answer"] for row in table] == ["one", "two"]
        assert table[0]["prompt"] == "p"
        assert (table[0]["j similarity"], table[0]["k similarity"], table[0]["j precision"]) == (50.0, 50.0, None)

    def test_no_answers_are_no_table(self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path) -> None:
        assert tracked(online(experiment, answers=0), tmp_path).problem is None
        assert not any(isinstance(value, list) for _, values in wandb.logged for value in values.values())

    def test_the_number_of_answers_is_there_beside_the_table(
        self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path
    ) -> None:
        tracked(online(experiment), tmp_path)
        assert wandb.logged[0][1]["answers"] == 100

    @pytest.mark.parametrize(
        ("override", "key", "mode"),
        [("auto", None, "offline"), ("auto", "k", "online"), ("offline", "k", "offline"), ("auto", "", "offline")],
    )
    def test_it_is_online_with_a_key_only(
        self, override: str, key: str | None, mode: str, wandb: FakeWandb, experiment: Experiment, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        if key is not None:
            monkeypatch.setenv("WANDB_API_KEY", key)
        tracked(online(experiment, WandbMode(override)), tmp_path)
        assert wandb.settings["mode"] == mode
        assert wandb.settings["resume"] == ("allow" if mode == "online" else None)

    def test_the_key_is_not_among_what_is_sent(
        self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", "secret-key")
        tracked(online(experiment), tmp_path)
        assert "secret-key" not in repr((wandb.settings, wandb.logged))

    @pytest.mark.parametrize("where", ["settings", "init", "log", "table", "finish"])
    @pytest.mark.parametrize(
        "error", [RuntimeError("W&B is down"), OSError(28, "No space left on device"), TypeError("new API")]
    )
    def test_whatever_it_raises_the_run_goes_on(
        self, where: str, error: Exception, wandb: FakeWandb, experiment: Experiment, tmp_path: Path
    ) -> None:
        wandb.faults[where] = error
        tracker = tracked(online(experiment), tmp_path)
        assert tracker.problem == f"W&B: {type(error).__name__}: {error}"
        assert [line.iteration for line in read_metrics(tmp_path)] == [0, 1]

    @pytest.mark.parametrize("where", ["init", "log", "finish"])
    def test_it_may_hang_and_the_run_does_not(
        self, where: str, wandb: FakeWandb, experiment: Experiment, tmp_path: Path
    ) -> None:
        wandb.hangs.add(where)
        start = time.monotonic()
        tracker = tracked(online(experiment), tmp_path)
        assert time.monotonic() - start < 5
        assert tracker.problem is not None
        assert "did not finish within" in tracker.problem
        assert len(read_metrics(tmp_path)) == 2

    def test_it_may_be_absent(self, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "wandb", None)
        tracker = tracked(online(experiment), tmp_path)
        assert tracker.problem is not None
        assert tracker.problem.startswith("W&B: ModuleNotFoundError: ")

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_it_may_try_to_exit_and_that_is_said(
        self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path
    ) -> None:
        wandb.faults["init"] = SystemExit(1)
        assert tracked(online(experiment), tmp_path).problem is not None
        assert len(read_metrics(tmp_path)) == 2

    def test_what_is_recorded_is_the_same_with_and_without_it(
        self, wandb: FakeWandb, experiment: Experiment, tmp_path: Path
    ) -> None:
        contents = []
        for name, fault in {"well": None, "broken": RuntimeError("down")}.items():
            folder = tmp_path / name
            folder.mkdir()
            wandb.faults = {"init": fault} if fault else {}
            tracked(online(experiment), folder)
            contents.append((folder / "metrics.jsonl").read_bytes())
        off = tmp_path / "off"
        off.mkdir()
        experiment.tracking = Tracking()
        tracked(experiment, off)
        assert contents == [(off / "metrics.jsonl").read_bytes()] * 2
