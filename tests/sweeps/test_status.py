"""Status: what a study's folder says of its runs, without touching or loading anything."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from llamaduo.commands.status import as_json, rendered
from llamaduo.errors import InputError
from llamaduo.records import to_json
from llamaduo.runs.folder import RunDir
from llamaduo.runs.state import RunState
from llamaduo.sweeps.plan import FAILED, RUNNING, Note, PlannedRun, add_to_grid, read_grid, write_note
from llamaduo.sweeps.status import RunStatus, Status, status


def planned(run: str, task: str = "coding", model: str = "m") -> PlannedRun:
    return PlannedRun(run, [f"task={task}"], task, model, None, ["j"], "clean", 8)


def made(study: Path, run: str, state: RunState, seconds: float | None = None) -> Path:
    folder = study / run
    (folder / "iterations").mkdir(parents=True)
    (folder / "state.json").write_text(to_json(state))
    if seconds is not None:
        (folder / "metrics.jsonl").write_text(json.dumps({"iteration": 0, "seconds": seconds}) + "\n")
    return folder


def of(found: Status, run: str) -> RunStatus:
    return next(cell for cell in found.cells if cell.run == run)


DONE = RunState(status="done", stop_reason="passed", iterations=1, cost_usd=0.5)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a study with a run in each state but `running`."""
    study = tmp_path / "results" / "s"
    runs = ("done", "broken-off", "waiting", "failed", "refused")
    add_to_grid(study, [planned(run) for run in runs])
    made(study, "done", DONE, 100.0)
    made(study, "broken-off", RunState(status="running", iterations=1, cost_usd=0.25), 30.0)
    made(study, "failed", RunState(status="failed", error="401: no such key"))
    write_note(study / "refused", Note(FAILED, 2, "folder is read-only", 1, "h", 1))
    made(study, "not-planned", DONE, 300.0)
    return study


def test_every_state_is_told_with_its_reason(study: Path) -> None:
    found = status(str(study))
    told = {cell.run: cell.status for cell in found.cells}
    assert told == {
        "done": "done", "broken-off": "interrupted", "waiting": "waiting", "failed": "failed", "refused": "failed",
        "not-planned": "done",
    }  # fmt: skip
    assert of(found, "done").stop_reason == "passed"
    assert of(found, "failed").error == "401: no such key"
    assert of(found, "refused").error == "folder is read-only"
    assert found.cost_usd == 1.25
    assert found.counts == {"done": 2, "interrupted": 1, "waiting": 1, "failed": 2}


def test_a_sum_over_runs_says_that_shared_replies_count_in_each(study: Path) -> None:
    told = " ".join(str(line) for line in rendered(status(str(study))))
    assert "Cost so far $1.25 (a reply that runs share counts in each)" in told
    told = " ".join(str(line) for line in rendered(status(str(study / "done"))))
    assert "Cost so far $0.50, " in told


def test_a_run_whose_lock_is_held_is_running_and_stays_unharmed(study: Path) -> None:
    with RunDir(study / "broken-off") as folder:
        (folder.iteration(1) / "adapter").mkdir()
        (folder.iteration(1) / "adapter.done").touch()
        cell = of(status(str(study)), "broken-off")
        assert (cell.status, cell.stage) == ("running", "infer")
        assert cell.where is not None
        assert str(os.getpid()) in cell.where
    assert of(status(str(study)), "broken-off").status == "interrupted"


def test_a_run_on_another_machine_counts_as_running_while_its_folder_changes(study: Path) -> None:
    folder = study / "broken-off"
    (folder / ".lock").write_text("pid 1 on elsewhere")
    assert "elsewhere" in (of(status(str(study)), "broken-off").where or "")
    for place in (folder, folder / "iterations"):
        os.utime(place, (1, 1))
    assert of(status(str(study)), "broken-off").status == "interrupted"


def test_the_time_left_comes_from_finished_runs_of_the_same_kind(tmp_path: Path) -> None:
    study = tmp_path / "s"
    add_to_grid(study, [planned("a"), planned("b"), planned("c", "closed_qa"), planned("d", "coding", "other")])
    made(study, "a", DONE, 100.0)
    found = status(str(study))
    assert [(of(found, run).seconds_left, of(found, run).basis) for run in "bcd"] == [
        (100.0, "same model and task"), (100.0, "same model"), (100.0, "whole study"),
    ]  # fmt: skip
    assert (found.seconds_left, found.at_once) == (300.0, 1)
    made(study, "b", RunState(iterations=1), 60.0)
    assert of(status(str(study)), "b").seconds_left == 40.0


def test_without_a_finished_run_nothing_is_estimated(tmp_path: Path) -> None:
    add_to_grid(tmp_path / "s", [planned("a")])
    found = status(str(tmp_path))
    assert found.seconds_left is None
    assert "Time left unknown" in str(rendered(found)[-1])


def test_a_cell_that_is_only_just_beginning_is_running_while_its_process_lives(study: Path) -> None:
    here = socket.gethostname()
    write_note(study / "waiting", Note(RUNNING, None, None, os.getpid(), here, os.getpid()))
    cell = of(status(str(study)), "waiting")
    assert (cell.status, cell.stage, cell.where) == ("running", "start", f"pid {os.getpid()} on {here}")
    for pid, host in ((gone(), here), (os.getpid(), "elsewhere")):
        write_note(study / "waiting", Note(RUNNING, None, None, pid, host, 1))
        assert of(status(str(study)), "waiting").status == "waiting"


def gone() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_a_run_broken_off_in_the_test_split_says_so(study: Path) -> None:
    (study / "broken-off" / "iterations" / "test").mkdir()
    assert of(status(str(study)), "broken-off").stage == "test split"


def test_what_the_newest_sweep_of_a_configuration_no_longer_asks_for_is_left_over(tmp_path: Path) -> None:
    study = tmp_path / "s"
    ended, alive = (f"pid {pid} on {socket.gethostname()}" for pid in (gone(), os.getpid()))

    def plan(configuration: str, sweep: str, *runs: str) -> None:
        add_to_grid(study, [replace(planned(run), configuration=configuration, sweep=sweep) for run in runs])

    plan("grid", ended, "a", "b", "c", "d")
    plan("other", ended, "e")
    plan("other", alive, "f")
    made(study, "a", DONE, 100.0)
    made(study, "b", RunState(status="running"), 30.0)
    assert status(str(study)).counts == {"done": 1, "interrupted": 1, "waiting": 3, "left over": 1}
    plan("grid", alive, "a", "d")
    found = status(str(study))
    told = {cell.run: cell.status for cell in found.cells}
    assert told == {"a": "done", "b": "left over", "c": "left over", "d": "waiting", "e": "left over", "f": "waiting"}
    assert found.seconds_left == 200.0
    assert "6 runs: 1 done, 3 left over, 2 waiting" in str(rendered(found)[-2])
    plan("grid", ended, "c", "e")
    plan("grid", ended, "c")
    assert {cell.run: cell.left_over for cell in read_grid(study)} == {
        "a": True,
        "b": True,
        "c": False,
        "d": True,
        "e": True,
        "f": False,
    }
    assert of(status(str(study)), "d").status == "waiting"


def test_a_link_that_leads_back_is_not_followed(study: Path) -> None:
    (study.parent / "again").symlink_to(study.parent, target_is_directory=True)
    (study / "up").symlink_to(study.parent, target_is_directory=True)
    assert len(status(str(study.parent)).cells) == 6


def test_a_single_run_and_a_folder_of_studies_work_too(study: Path) -> None:
    (cell,) = status(str(study / "done")).cells
    assert (cell.run, cell.status) == ("done", "done")
    made(study.parent / "other", "x", DONE)
    assert {cell.study for cell in status(str(study.parent)).cells} == {"s", "other"}
    with pytest.raises(InputError, match="no run folder"):
        status(str(study / "done" / "iterations"))


def test_machines_get_json_and_the_command_loads_nothing_heavy(study: Path) -> None:
    assert json.loads(as_json(status(str(study))))["counts"]["failed"] == 2
    code = (
        "import sys; from llamaduo.cli import main; main(['status', *sys.argv[1:]]); "
        "print('LOADED', *({'torch', 'transformers', 'litellm', 'hydra', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(study)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"
    assert "401: no such key" in done.stdout
    assert "6 runs: 2 done, 1 interrupted, 1 waiting, 2 failed" in done.stdout


def test_it_writes_nothing(study: Path) -> None:
    def everything() -> dict[Path, float]:
        return {path: path.stat().st_mtime for path in study.rglob("*")}

    before = everything()
    status(str(study))
    assert everything() == before


def test_five_hundred_cells(tmp_path: Path) -> None:
    """How long it takes is printed, not judged."""
    study = tmp_path / "s"
    add_to_grid(study, [planned(f"run{number}") for number in range(500)])
    for number in range(400):
        made(study, f"run{number}", DONE if number % 2 else RunState(), 50.0)
    start = time.monotonic()
    found = status(str(study))
    print(f"500 cells in {time.monotonic() - start:.3f} s")
    assert found.counts == {"interrupted": 200, "done": 200, "waiting": 100}


def test_what_was_swept_is_in_columns() -> None:
    cells = [PlannedRun(f"m-coding-0000000{r}", [f"train.lora_r={r}", "a=1"], "coding", "m", None, ["j"], "clean", r)
             for r in (4, 8)]  # fmt: skip
    add_to_grid(Path("results/s"), cells)
    found = status("results")
    assert [cell.swept for cell in found.cells] == [{"train.lora_r": "4"}, {"train.lora_r": "8"}]
    table = rendered(found)[0]
    assert [column.header for column in table.columns][:3] == ["run", "train.lora_r", "state"]  # type: ignore[union-attr]


def test_single_runs_that_read_alike_are_told_apart_by_their_configurations() -> None:
    for number, rank in enumerate((4, 16)):
        folder = Path("results/s") / f"m-coding-0000000{number}"
        folder.mkdir(parents=True)
        (folder / "state.json").write_text(to_json(RunState()))
        names = "task: {name: coding}\nlocal_model: {name: m}\n"
        (folder / "config.yaml").write_text(f"{names}train: {{lora_r: {rank}, lora_alpha: 32}}\n")
    assert [cell.swept for cell in status("results").cells] == [{"train.lora_r": "4"}, {"train.lora_r": "16"}]
