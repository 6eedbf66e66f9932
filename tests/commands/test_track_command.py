"""`llamaduo track`: finished runs reach W&B from their own records, each step once, and nothing else changes.

`FakeWandb` takes everything down; the last tests let the real W&B write its offline folders and fail to connect.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_runs import configuration, make_run

from llamaduo.commands.track import track
from llamaduo.errors import ConfigError, InputError, ServiceError
from llamaduo.runs import tracking
from llamaduo.runs.tracking import read_metrics


class FakeWandb(SimpleNamespace):
    """A wandb that takes everything down; `faults` names the call that raises, `hangs` the one that doesn't return."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: dict[str, BaseException] = {}
        self.hangs: set[str] = set()
        self.release = threading.Event()
        self.runs: list[dict[str, Any]] = []

    def _call(self, name: str) -> None:
        if name in self.hangs:
            self.release.wait(10)
        if name in self.faults:
            raise self.faults[name]

    def Settings(self, **settings: Any) -> dict[str, Any]:  # noqa: N802
        return settings

    def Table(self, *, columns: list[str], data: list[list[Any]]) -> list[dict[str, Any]]:  # noqa: N802
        return [dict(zip(columns, row, strict=True)) for row in data]

    def Artifact(self, name: str, *, type: str) -> SimpleNamespace:  # noqa: N802
        files: dict[str, str] = {}
        add = lambda path, *, name: files.update({name: Path(path).read_text()})  # noqa: E731
        return SimpleNamespace(name=name, type=type, files=files, add_file=add)

    def init(self, **settings: Any) -> SimpleNamespace:
        self._call("init")
        taken: dict[str, Any] = {"settings": settings, "logged": {}, "artifacts": []}
        self.runs.append(taken)

        def log(values: dict[str, Any], *, step: int) -> None:
            self._call("log")
            assert step not in taken["logged"]
            taken["logged"][step] = values

        return SimpleNamespace(log=log, log_artifact=taken["artifacts"].append, finish=lambda: self._call("finish"))

    @property
    def ids(self) -> list[str]:
        """The ids of the runs that were begun."""
        return [run["settings"]["id"] for run in self.runs]


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)  # type: ignore[arg-type]
    monkeypatch.setattr(tracking, "_SEND_PATIENCE_S", 0.3)
    monkeypatch.setenv("WANDB_API_KEY", "secret-key")
    yield fake
    fake.release.set()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a study of two runs of two iterations, made once."""
    root = tmp_path_factory.mktemp("made") / "study"
    config = configuration("preset=service", "judge=paper_panel", "service.replay=true", "study=mine")
    for number, name in enumerate(("one-00000001", "two-00000002")):
        make_run(root / name, config=config, prompts=3, samples=2, seed=number)
    return root


@pytest.fixture
def study(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "results" / "mine"))


def logged(run: dict[str, Any]) -> list[int]:
    return sorted(run["logged"])


class TestIds:
    def test_they_are_those_that_wandb_takes_and_tell_all_names_apart(self) -> None:
        names = ["main_table-gemma-1a2b3c4d", "my study/é", "my study/e", "my-study-e", "x" * 128, "x" * 129, "x" * 130]
        ids = [tracking._wandb_id(name) for name in names]
        assert len(set(ids)) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,128}", made) for made in ids)
        assert (ids[0], ids[3], ids[4]) == (names[0], names[3], names[4])
        assert ids[1] == "my-study---9675ab20"


class TestSending:
    def test_every_run_has_its_steps_under_its_id_and_its_study(self, wandb: FakeWandb, study: Path) -> None:
        text = track([str(study)])
        assert wandb.ids == ["mine-one-00000001", "mine-two-00000002"]
        assert [run["settings"]["name"] for run in wandb.runs] == ["one-00000001", "two-00000002"]
        for run in wandb.runs:
            assert logged(run) == [0, 1]
            settings = run["settings"]
            assert (settings["group"], settings["project"], settings["mode"]) == ("mine", "llamaduo", "online")
            assert settings["resume"] == "allow"
            assert settings["config"]["task"]["name"] == "classification"
        assert text == "one-00000001: 2 steps sent.\ntwo-00000002: 2 steps sent.\n"

    def test_the_names_and_numbers_are_those_of_the_metrics(self, wandb: FakeWandb, study: Path) -> None:
        track([str(study / "one-00000001")])
        line = read_metrics(study / "one-00000001")[1]
        values = wandb.runs[0]["logged"][1]
        for name in ("similarity_mean", "precision_low", "train_rows", "cost_usd", "seconds", "coverage"):
            assert values[name] == getattr(line, name)
        assert values["judges/gpt_4o/precision_mean"] == line.judges["gpt_4o"]["precision_mean"]
        assert values["unscored_share"] == line.unscored / (line.scored + line.unscored)

    def test_sample_answers_come_from_the_files(self, wandb: FakeWandb, study: Path) -> None:
        track([str(study / "one-00000001")])
        rows = wandb.runs[0]["logged"][0]["sample_answers"]
        first = json.loads((study / "one-00000001/iterations/00/predictions.jsonl").read_text().splitlines()[0])
        assert len(rows) == 6
        assert (rows[0]["prompt"], rows[0]["answer"]) == (first["prompt"], first["text"])
        assert "gpt_4o precision" in rows[0]

    def test_answers_that_are_gone_leave_the_numbers(self, wandb: FakeWandb, study: Path) -> None:
        (study / "one-00000001/iterations/00/verdicts.jsonl").unlink()
        track([str(study / "one-00000001")])
        assert logged(wandb.runs[0]) == [0, 1]
        assert "sample_answers" not in wandb.runs[0]["logged"][0]

    def test_the_key_is_not_among_what_is_sent_or_written(self, wandb: FakeWandb, study: Path) -> None:
        text = track([str(study)])
        assert "secret-key" not in text + repr(wandb.runs)
        assert not any("secret-key" in path.read_text() for path in study.rglob("wandb.json"))


class TestOnce:
    def test_a_second_time_nothing_is_sent(self, wandb: FakeWandb, study: Path) -> None:
        track([str(study)])
        wandb.runs.clear()
        text = track([str(study)])
        assert wandb.runs == []
        assert text.count("0 steps sent, W&B has them all.") == 2

    def test_only_what_is_missing_is_sent(self, wandb: FakeWandb, study: Path) -> None:
        folder = study / "one-00000001"
        (folder / "wandb.json").write_text('{"online /llamaduo": {"steps": [0]}}')
        track([str(folder)])
        assert logged(wandb.runs[0]) == [1]
        assert json.loads((folder / "wandb.json").read_text()) == {"online /llamaduo": {"steps": [0, 1]}}

    def test_what_went_to_an_offline_folder_still_goes_online(self, wandb: FakeWandb, study: Path) -> None:
        track([str(study), "--offline"])
        assert {run["settings"]["mode"] for run in wandb.runs} == {"offline"}
        assert wandb.runs[0]["settings"]["resume"] is None
        wandb.runs.clear()
        track([str(study)])
        assert [logged(run) for run in wandb.runs] == [[0, 1], [0, 1]]
        wandb.runs.clear()
        track([str(study), "--offline"])
        assert wandb.runs == []

    @pytest.mark.parametrize("where", ["init", "log", "finish"])
    @pytest.mark.parametrize("how", ["fails", "hangs"])
    def test_what_w_and_b_did_not_finish_is_sent_again(
        self, where: str, how: str, wandb: FakeWandb, study: Path
    ) -> None:
        if how == "fails":
            wandb.faults[where] = RuntimeError("down\nfor good")
        else:
            wandb.hangs.add(where)
        with pytest.raises(ServiceError, match=r"one-00000001: not sent to W&B \(") as caught:
            track([str(study)])
        assert "\n" not in str(caught.value)
        assert not list(study.rglob("wandb.json"))
        wandb.faults, wandb.hangs, wandb.runs = {}, set(), []
        track([str(study)])
        assert [logged(run) for run in wandb.runs] == [[0, 1], [0, 1]]

    def test_a_failure_keeps_what_was_sent_before(self, wandb: FakeWandb, study: Path) -> None:
        track([str(study / "one-00000001")])
        wandb.faults["init"] = RuntimeError("down")
        with pytest.raises(ServiceError, match="two-00000002"):
            track([str(study)])
        wandb.faults, wandb.runs = {}, []
        track([str(study)])
        assert wandb.ids == ["mine-two-00000002"]

    def test_a_run_that_was_tracked_while_it_ran_is_not_sent_again(
        self, wandb: FakeWandb, study: Path, experiment: Any
    ) -> None:
        folder = study / "one-00000001"
        experiment.tracking.wandb = tracking.WandbMode.auto
        live = tracking.Tracker(experiment, folder)
        for line in read_metrics(folder):
            live.log(line, [], [])
        live.close()
        assert live.problem is None
        assert track([str(folder)]).endswith("W&B has them all.\n")
        assert len(wandb.runs) == 1

    def test_a_marker_that_can_not_be_read_is_named(self, wandb: FakeWandb, study: Path) -> None:
        (study / "one-00000001/wandb.json").write_text("{")
        with pytest.raises(InputError, match=r"wandb\.json: can't be read .* remove it to send all again"):
            track([str(study)])


class TestTables:
    @pytest.fixture
    def reported(self, study: Path) -> Path:
        (study / "tables").mkdir()
        (study / "tables/main.csv").write_text("a,b\n")
        (study / "tables/main.md").write_text("| a | b |\n")
        (study / "runs.csv").write_text("run\n")
        return study

    def test_they_are_one_artifact_of_one_run_of_the_study(self, wandb: FakeWandb, reported: Path) -> None:
        text = track([str(reported.parent)])
        assert wandb.ids == ["mine-one-00000001", "mine-two-00000002", "mine-report"]
        (artifact,) = wandb.runs[-1]["artifacts"]
        assert (artifact.name, artifact.type) == ("mine-report", "report")
        assert artifact.files == {"tables/main.csv": "a,b\n", "runs.csv": "run\n"}
        assert wandb.runs[-1]["settings"]["group"] == "mine"
        assert text.endswith("mine: 2 tables sent.\n")

    def test_they_are_sent_again_only_if_they_changed(self, wandb: FakeWandb, reported: Path) -> None:
        track([str(reported)])
        wandb.runs.clear()
        assert "0 tables sent, W&B has them all." in track([str(reported)])
        assert wandb.runs == []
        (reported / "tables/main.csv").write_text("a,c\n")
        track([str(reported)])
        assert wandb.ids == ["mine-report"]


class TestRefusals:
    def test_a_run_that_is_not_finished_is_left_out_and_named(self, wandb: FakeWandb, study: Path) -> None:
        state = study / "one-00000001/state.json"
        state.write_text(json.dumps(json.loads(state.read_text()) | {"status": "running"}))
        assert "one-00000001: running, left out: only finished runs are sent." in track([str(study)])
        assert wandb.ids == ["mine-two-00000002"]

    def test_no_key_is_said_before_anything_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(ConfigError, match=r"WANDB_API_KEY is not set.*--offline"):
            track(["nowhere"])

    @pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--online", "a"], ["--offline"]])
    def test_wrong_arguments_are_told_the_right_ones(self, arguments: list[str]) -> None:
        with pytest.raises(ConfigError, match="usage: llamaduo track DIR"):
            track(arguments)

    def test_a_folder_without_runs_is_refused(self, wandb: FakeWandb) -> None:
        Path("empty").mkdir()
        with pytest.raises(InputError, match="no run folder"):
            track(["empty"])

    def test_w_and_b_that_is_absent_is_one_line(
        self, wandb: FakeWandb, study: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "wandb", None)
        with pytest.raises(ServiceError, match="What helps: pip install wandb"):
            track([str(study), "--offline"])


def llamaduo(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llamaduo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.mark.slow
def test_the_real_w_and_b_writes_an_offline_folder_once(study: Path) -> None:
    (study / "runs.csv").write_text("run\n")
    before = {path: path.read_bytes() for path in study.rglob("*") if path.is_file()}
    done = llamaduo("track", str(study), "--offline")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "one-00000001: 2 steps sent.", "two-00000002: 2 steps sent.", "mine: 1 table sent.",
    ]  # fmt: skip
    folders = [folder.parent.parent.name for folder in study.rglob("offline-run-*") if folder.is_dir()]
    assert sorted(folders) == ["mine", "one-00000001", "two-00000002"]
    assert "W&B has them all" in llamaduo("track", str(study), "--offline").stdout
    assert len([folder for folder in study.rglob("offline-run-*") if folder.is_dir()]) == 3
    assert {path: path.read_bytes() for path in before} == before
