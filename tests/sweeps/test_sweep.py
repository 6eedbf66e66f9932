"""Sweeps: what is left of them is run, everything ends together, what broke is retried or named.

Cells are light: a server answers, so that no test loads torch. Launchers are the real ones where a process matters.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from study_killing import LIGHT, Calls, Study, descendants, lives, settled_bill
from wire_double import Double, Settings, serving

from llamaduo.compose import Composed, Sweep, compose
from llamaduo.config import Experiment, fingerprint
from llamaduo.data import coverage
from llamaduo.data.dataset import CoverageDataset
from llamaduo.errors import ConfigError, InputError
from llamaduo.evidence import reach
from llamaduo.records import to_json
from llamaduo.runs.finished import run_folder
from llamaduo.runs.state import RunState
from llamaduo.sweeps.job import Work
from llamaduo.sweeps.plan import FAILED, INTERRUPTED, RUNNING, Note, read_grid, read_note, write_note
from llamaduo.sweeps.sweep import run_all

GRID = ("task=coding,classification",)


@pytest.fixture
def double() -> Iterator[Double]:
    with serving(Settings(says="pocket", median_s=0.05)) as made:
        yield made


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[Any]]]:
    """Lend a list of sweeps, which are ended with the test."""
    processes: list[subprocess.Popen[Any]] = []
    yield processes
    for process in processes:
        for pid in [process.pid, *descendants(process.pid), *at_work()]:
            if lives(pid):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def light(double: Double, *more: str) -> list[str]:
    from study_killing import ends

    server = [f"infer.server.base_url={double.url('openai')}", "infer.server.model=m"]
    gate = ["loop.gate.rule=mean", "loop.gate.similarity=90", "loop.gate.precision=90"]
    return [*LIGHT, *server, *ends(double), *gate, "service.journal=journal.sqlite", *more]


def sweep(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "llamaduo", "run", "-m", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def notes() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in Path().glob("results/*/.sweep/notes/*.json")]


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def at_work() -> list[int]:
    return [note["pid"] for note in notes() if note["result"] == RUNNING]


class TestJoblib:
    def test_a_term_of_the_sweep_ends_its_workers_in_peace(
        self, double: Double, started: list[subprocess.Popen[Any]]
    ) -> None:
        double.control(median_s=0.4)
        arguments = ("launch=joblib", *light(double, "judge.repeats=5"), *GRID)
        process = sweep(*arguments)
        started.append(process)
        workers = wait_for(lambda: len(at_work()) == 2 and at_work())
        wait_for(lambda: len(double.bill()["calls"]) > 6)
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "the same command goes on" in errors
        assert "Traceback" not in errors
        assert not any(lives(pid) for pid in workers)
        assert {note["result"] for note in notes()} == {"interrupted"}
        with sqlite3.connect("journal.sqlite") as db:
            assert db.execute("SELECT COUNT(*) FROM attempts WHERE outcome IS NOT 'replied'").fetchone() == (0,)
        bill = settled_bill(double)
        assert len(bill["billed"]) == len({line["body"] for line in bill["billed"]})

    def test_workers_do_not_outlive_a_killed_sweep(self, double: Double, started: list[subprocess.Popen[Any]]) -> None:
        double.control(median_s=0.3)
        process = sweep("launch=joblib", *light(double, "judge.repeats=40"), *GRID)
        started.append(process)
        workers = wait_for(lambda: len(at_work()) == 2 and at_work())
        wait_for(lambda: len(double.bill()["calls"]) > 4)
        process.kill()
        wait_for(lambda: not any(lives(pid) for pid in workers), 30)
        bought = len(settled_bill(double)["calls"])
        time.sleep(1)
        assert len(double.bill()["calls"]) == bought

    def test_a_killed_worker_takes_no_other_cell_with_it(
        self, double: Double, started: list[subprocess.Popen[Any]]
    ) -> None:
        double.control(median_s=0.2)
        process = sweep("launch=joblib", *light(double, "judge.repeats=3"), *GRID)
        started.append(process)
        os.kill(wait_for(at_work)[0], signal.SIGKILL)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert output.count("  passed  ") == 2

    @pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGHUP])
    def test_a_study_that_is_killed_comes_to_the_same_tables_and_buys_nothing_twice(
        self, by: signal.Signals, tmp_path: Path, double: Double
    ) -> None:
        (tmp_path / "studies").mkdir()
        study = Study(tmp_path / "studies", double, (*LIGHT, "judge.repeats=2"), GRID)
        found = study.killed_at([Calls(study.undisturbed.bought // 2)], by)
        assert study.undisturbed.violations == found.violations == []
        assert len({name.split("/")[0] for name in study.expected}) == 2
        assert found.kills == 1


class Scripted:
    """A launcher that does what a script says: per launch, what becomes of each cell, and what it raises."""

    def __init__(self, *script: tuple[dict[int, str | Note], Exception | None]) -> None:
        self._script = list(script)
        self.launched: list[list[int]] = []
        self.experiments: list[Experiment] = []

    def __call__(self, task: Any, numbers: Sequence[int]) -> None:
        self.launched.append(list(numbers))
        results, error = self._script.pop(0)
        for number in numbers:
            if number in results:
                result = results[number]
                made = result if isinstance(result, Note) else Note(result, None, None, 1, "here", 1)
                folder = run_folder(self.experiments[number])
                write_note(folder, made)
                folder.mkdir(exist_ok=True)
                status = "done" if made.exit_code in (0, 3) else "running"
                (folder / "state.json").write_text(to_json(RunState(status=status, stop_reason=made.result)))
        if error:
            raise error


@pytest.fixture
def scripted(experiment: Experiment) -> Callable[..., int]:
    """Return a function that runs a sweep of three cells by a script."""
    import copy

    def run(launcher: Scripted, *, retries: int = 0) -> int:
        for name in ("coding", "closed_qa", "summarization"):
            cell = copy.deepcopy(experiment)
            cell.task.name, cell.runtime.retries = name, retries
            launcher.experiments.append(cell)
        sweep = Sweep([[f"task={cell.task.name}"] for cell in launcher.experiments], {}, launcher)
        return run_all(Composed(launcher.experiments, sweep))

    return run


def ended(code: int, error: str | None = None, result: str = FAILED) -> Note:
    return Note(result, code, error, 1, "here", 1)


PASSED = ended(0, result="passed")


class TestRetries:
    def test_a_crash_is_pinned_on_the_cell_that_crashes_alone(
        self, scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        launcher = Scripted(
            ({0: RUNNING, 1: RUNNING}, BrokenProcessPool("gone")),
            ({0: PASSED}, None),
            ({1: RUNNING}, BrokenProcessPool("gone")),
            ({2: PASSED}, None),
        )
        assert scripted(launcher) == 4
        assert launcher.launched == [[0, 1, 2], [0], [1], [2]]
        assert "1 of 3 runs did not finish: pocket_llama-classification" in capsys.readouterr().err

    def test_what_may_pass_is_tried_again_at_the_end_and_what_may_not_is_not(
        self, scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        launcher = Scripted(
            ({0: ended(4, "an outage"), 1: ended(2, "no such file"), 2: ended(4, "an outage")}, None),
            ({0: PASSED, 2: ended(4, "still an outage")}, None),
            ({2: ended(4, "down for good")}, None),
        )
        assert scripted(launcher, retries=2) == 2
        assert launcher.launched == [[0, 1, 2], [0, 2], [2]]
        told = capsys.readouterr().err
        assert "no such file" in told
        assert "down for good" in told

    def test_what_was_swept_has_a_column(
        self, scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        scripted(Scripted(({0: PASSED, 1: PASSED, 2: PASSED}, None)))
        header, *rows = capsys.readouterr().out.strip().splitlines()
        assert header.split()[:3] == ["run", "task", "result"]
        assert [row.split()[1] for row in rows] == ["coding", "closed_qa", "summarization"]

    def test_without_retries_nothing_is_tried_again(self, scripted: Callable[..., int]) -> None:
        launcher = Scripted(({0: ended(4, "an outage"), 1: PASSED, 2: PASSED}, None))
        assert scripted(launcher) == 4

    def test_a_budget_is_no_reason_to_try_again(self, scripted: Callable[..., int]) -> None:
        stopped = ended(3, result="budget")
        launcher = Scripted(({0: stopped, 1: stopped, 2: PASSED}, None))
        scripted(launcher, retries=3)
        assert launcher.launched == [[0, 1, 2]]

    def test_a_cancelled_cell_is_a_failure_and_not_tried_again(
        self, scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        cancelled = ended(130, result=INTERRUPTED)
        launcher = Scripted(({0: PASSED, 1: cancelled, 2: PASSED}, RuntimeError("job was cancelled")))
        assert scripted(launcher, retries=3) == 130
        assert launcher.launched == [[0, 1, 2]]
        told = capsys.readouterr()
        assert "interrupted" in told.out
        assert "1 of 3 runs did not finish: pocket_llama-classification" in told.err
        assert "the same command goes on" in told.err

    def test_a_note_of_success_without_a_finished_folder_is_a_failure(
        self, scripted: Callable[..., int], capsys: pytest.CaptureFixture[str]
    ) -> None:
        lost = Note("passed", None, None, 1, "here", 1)
        assert scripted(Scripted(({0: PASSED, 1: lost, 2: PASSED}, None))) == 1
        assert "its folder has no end" in capsys.readouterr().err

    def test_a_launcher_that_begins_nothing_is_an_error(self, scripted: Callable[..., int]) -> None:
        with pytest.raises(ConfigError, match="no run could be begun"):
            scripted(Scripted(({}, RuntimeError("no srun"))))

    def test_retries_are_no_part_of_the_fingerprint(self, experiment: Experiment) -> None:
        before = fingerprint(experiment)
        experiment.runtime.retries = 5
        assert fingerprint(experiment) == before


class TestChecks:
    def test_two_cells_that_would_be_one_run_are_refused_by_name(self) -> None:
        found = compose(["-m", "serving=default,l4", "task=coding"])
        assert found is not None
        with pytest.raises(
            ConfigError, match=r"'serving=default task=coding' and 'serving=l4 task=coding' would be one"
        ):
            run_all(found)
        assert not Path("results").exists()

    def test_a_file_is_read_once_for_equal_settings_and_before_anything_is_planned(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = [{"prompt": f"p{n}", "response": "r"} for n in range(40)]
        Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        found = compose(
            [
                "-m",
                "data=file",
                "data.path=rows.jsonl",
                "judge=reference",
                "synthesis=none",
                "data.test_rows=4,null",
                "train.lora_r=4,8,16",
            ]
        )
        assert found is not None
        read: list[int | None] = []

        def load(experiment: Experiment) -> CoverageDataset:
            read.append(experiment.data.test_rows)
            assert not Path("results").exists()
            if experiment.data.test_rows is None:
                raise InputError("no good")
            return CoverageDataset((), (), ())

        monkeypatch.setattr(coverage, "load_coverage", load)
        monkeypatch.setattr(reach, "told_of", lambda *_: [])
        with pytest.raises(InputError, match="no good"):
            run_all(found)
        assert read == [4, None]
        assert not Path("results").exists()


def here(found: Composed, task: Any, numbers: Sequence[int]) -> None:
    """Launch in this process, without Hydra."""
    for number in numbers:
        task(found.experiments[number])


class TestPlan:
    def test_sweeps_of_a_study_add_up(self, double: Double) -> None:
        for tasks in ("task=coding", "task=coding,classification"):
            found = compose(["-m", *light(double), tasks])
            assert found is not None
            assert found.sweep is not None
            found.sweep.launch = partial(here, found)
            assert run_all(found) == 0
        cells = read_grid(Path("results/runs"))
        assert [cell.task for cell in cells] == ["coding", "classification"]
        assert cells[0].overrides[-1] == "task=coding"
        assert {(cell.configuration, cell.sweep) for cell in cells} == {
            ("config", f"pid {os.getpid()} on {socket.gethostname()}")
        }
        assert all((Path("results/runs") / cell.run / "state.json").exists() for cell in cells)
        note = read_note(Path("results/runs") / cells[0].run)
        assert note is not None
        assert (note.result, note.exit_code) == ("passed", 0)

    def test_finished_cells_load_nothing_and_start_no_worker(self, double: Double) -> None:
        arguments = light(double, "launch=joblib", *GRID)
        found = compose(["-m", *arguments])
        assert found is not None
        for experiment in found.experiments:
            Work.of_this_process()(experiment)
        code = (
            "import sys; from llamaduo.cli import main; code = main(['run', '-m', *sys.argv[1:]]); "
            "print('LOADED', code, *({'torch', 'transformers', 'litellm', 'joblib'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "LOADED 0"
        assert "2 of 2 were finished already" in done.stdout
        header, *lines = (line.split() for line in done.stdout.splitlines() if line.strip())
        assert header[:5] == ["run", "task", "result", "answers", "(n)"]
        for experiment, line in zip(found.experiments, lines, strict=False):
            card = json.loads((run_folder(experiment) / "iterations/00/scorecard.json").read_text())
            assert line[3] == str(card["precision"]["n"])

    def test_a_missing_package_is_named_with_its_command(self) -> None:
        with pytest.raises(ConfigError, match="pip install hydra-ray-launcher"):
            compose(["-m", "launch=ray", "task=coding"])
