"""The command line as a user meets it: exit codes, two-line errors, resume, sweeps, real pocket models.

Every command runs in a process of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llamaduo import cli
from llamaduo.cli import main
from llamaduo.sweeps.plan import PlannedRun, add_to_grid
from tests.made_runs import make_run

NO_ROBOTS = Path(__file__).parents[3] / "shared/data/no_robots_coding.jsonl"
SMOKE = ("run", "preset=smoke")
OFFLINE = ("judge=reference", "synthesis=none")


def llamaduo(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "llamaduo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def run_folders() -> list[Path]:
    return sorted(path.parent for path in Path("results").rglob("state.json"))


def loaded_modules(*arguments: str) -> set[str]:
    """Return which heavy packages a command has imported when it ends."""
    code = (
        "import sys; from llamaduo.cli import main; main(sys.argv[1:]); "
        "print('LOADED', *({'torch', 'transformers', 'litellm', 'wandb', 'datasets'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_help_version_and_light_commands_load_nothing_heavy() -> None:
    assert "llamaduo run" in llamaduo("--help").stdout
    assert llamaduo("--version").stdout.startswith("llamaduo ")
    for arguments in (
        ("--help",),
        ("run", "--cfg", "job"),
        ("run", "task=nosuch"),
        ("doctor",),
        ("quote",),
        ("judge-audit", "--quote"),
        ("journal",),
    ):
        assert loaded_modules(*arguments) == set(), arguments


@pytest.mark.parametrize("command", cli.COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help(command: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, flag]) == 0
    told = capsys.readouterr().out
    assert told.startswith(("llamaduo moves a prompt", f"usage: llamaduo {command}"))


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("arguments", [("status", "results"), ("status", "results", "--json"), ("--help",)])
def test_a_reader_that_goes_away_is_no_fault(
    arguments: tuple[str, ...], buffered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    add_to_grid(
        Path("results/s"), [PlannedRun(f"run{n}", [], "coding", "m", None, ["j"], "clean", 8) for n in range(2000)]
    )
    command = [sys.executable, "-m", "llamaduo", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 2),
        (("status", "results"), 2),
        (("status", "results", "--json"), 2),
        (("report", "results"), 2),
        (("quote",), 2),
        (("run", "--cfg", "job"), 0),
        (("rnu",), 2),
    ],
)
def test_a_full_disk_behind_stdout_is_one_line_when_all_is_done(arguments: tuple[str, ...], code: int) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    if arguments[0] == "report":
        make_run(Path("results/s/a"))
    else:
        add_to_grid(Path("results/s"), [PlannedRun("a", [], "coding", "m", None, ["j"], "clean", 8)])
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "llamaduo", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert ("No space left" in done.stderr) == (arguments != ("rnu",))
    assert (arguments[0] == "report") == Path("results/report.html").exists()


def test_a_full_disk_behind_stderr_leaves_the_exit_code_alone() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "llamaduo", "run", "train.epoch=3"]
        assert subprocess.run(command, stderr=full, check=False, timeout=60).returncode == 2


def test_a_broken_pipe_that_is_not_the_readers_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: list[str]) -> int:
        raise BrokenPipeError("a worker's")

    monkeypatch.setattr("llamaduo.commands.status.main", broken)
    assert main(["status", "results"]) == 1
    assert "a worker's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("rnu",), 2, ["rnu", "Did you mean run"]),
        (("run", "task=clasification"), 2, ["Did you mean classification"]),
        (("run", "loop.gat.similarity=5"), 2, ["loop.gat.similarity", "loop.gate.similarity"]),
        (("run", "infer.samples=two"), 2, ["infer.samples", "two"]),
        (("run", "infer.samples=0", "loop.gate.precision=101"), 2, ["infer.samples=0", "loop.gate.precision=101"]),
        (("run", "data.dev_rows=0"), 2, ["dev split", "data.dev_rows"]),
        (("run", "train.quantization=int8", "runtime.device=cpu"), 2, ["int8", "nf4"]),
        (("run", "data=file", "data.path=nosuch.jsonl", *OFFLINE), 2, ["nosuch.jsonl", "no such file"]),
        (("run", "data=file", "data.path=empty.jsonl", *OFFLINE), 2, ["empty.jsonl", "empty"]),
        (("run", "data=file", "data.path=broken.jsonl", *OFFLINE), 2, ["broken.jsonl:2"]),
        (("run", "data=file", "data.path=latin.jsonl", *OFFLINE), 2, ["latin.jsonl:1", "UTF-8"]),
        (("run", "data=file", "data.path=twice.jsonl", *OFFLINE), 2, ["twice.jsonl:2", "the prompt of an earlier row"]),
        (
            ("run", "data=file", "data.path=twice.jsonl", "data.strict=true", *OFFLINE),
            2,
            ["twice.jsonl:2", "twice.jsonl:1"],
        ),
        (("run", "local_model.path=./nosuch"), 2, ["local_model.path=./nosuch", "no such folder"]),
        (("run", "local_model.path=pickled"), 2, ["local_model.path=pickled", "no safetensors", "pickle"]),
        (("run", "local_model=gemma_7b"), 2, ["local_model.path=google/gemma-7b", "cache", "hf download"]),
        (("run", "train.target_modules=[wq]"), 2, ["train.target_modules=['wq']", "llama has no wq", "q_proj"]),
        (("run", "runtime.results=empty.jsonl"), 2, ["empty.jsonl", "runtime.results"]),
        (("run", "service_llm.api_key=sk-1234"), 2, ["environment", "api_key_env"]),
        (("run", "-m", "task=coding,nosuch"), 2, ["nosuch"]),
        (("run", "-m", "infer.samples=1,0"), 2, ["infer.samples=0"]),
        (("report", "nosuch"), 2, ["nosuch"]),
        (("doctor", "x"), 2, ["doctor"]),
    ],
)
def test_bad_input_is_two_lines_and_touches_nothing(arguments: tuple[str, ...], code: int, words: list[str]) -> None:
    Path("empty.jsonl").touch()
    row = '{"prompt": "a", "response": "b"}\n'
    Path("broken.jsonl").write_text(row + '{"prompt": \n')
    Path("latin.jsonl").write_bytes('{"prompt": "é", "response": "b"}\n'.encode("latin-1"))
    Path("twice.jsonl").write_text(row + row)
    Path("pickled").mkdir()
    Path("pickled/config.json").write_text("{}")
    Path("pickled/pytorch_model.bin").touch()
    done = llamaduo(*arguments)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2
    assert all(word in done.stderr for word in words), done.stderr
    assert "sk-1234" not in done.stdout
    assert not list(Path().rglob("adapter"))


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("judge=gpt_6_luna",), "gpt_6_luna: the environment variable OPENAI_API_KEY is not set"),
        (("judge=gpt_6_luna", "-m", "infer.samples=1,2"), "gpt_6_luna: the environment variable OPENAI_API_KEY"),
        (("service.journal=broken.jsonl",), "journal broken.jsonl"),
        (("loop.gate.similarity=90",), "the dev split has 4 prompts"),
        (("data=file", "data.path=broken.jsonl", "data.strict=true", *OFFLINE), "broken.jsonl:2"),
    ],
)
def test_a_run_that_never_began_tells_its_cause_alone_and_leaves_no_folder(
    arguments: tuple[str, ...], cause: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    Path("broken.jsonl").write_text('{"prompt": "a", "response": "b"}\n{"prompt": \n')
    assert main([*SMOKE, *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"llamaduo: {cause}"), told
    assert len(told.splitlines()) == 1
    assert not Path("results").exists()


def test_smoke_run_then_no_op_then_report() -> None:
    done = llamaduo(*SMOKE)
    assert done.returncode == 0, done.stderr
    assert "POCKET PROFILE" in done.stdout
    assert done.stderr == ""
    (folder,) = run_folders()
    state = json.loads((folder / "state.json").read_text())
    assert (state["status"], state["stop_reason"]) == ("done", "max_iterations")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 1]
    for name in ("config.yaml", "environment.json", "iterations/00/adapter/adapter_model.safetensors"):
        assert (folder / name).exists()
    for name in (
        "adapter",
        "predictions.jsonl",
        "verdicts.jsonl",
        "scorecard.json",
        "synthetic.jsonl",
        "curation.json",
    ):
        assert (folder / f"iterations/00/{name}.done").exists()
    assert loaded_modules(*SMOKE) == set()
    again = llamaduo(*SMOKE)
    assert again.returncode == 0
    assert state["verdict"] in " ".join(again.stdout.split())
    report = llamaduo("report", "results")
    assert report.returncode == 0
    assert "pocket_llama" in report.stdout
    assert len((Path("results") / "tables/runs.csv").read_text().splitlines()) == 2
    assert loaded_modules("report", "results") == set()


def test_ctrl_c_leaves_a_resumable_folder_and_says_so() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llamaduo", "run", "preset=smoke", "train.min_steps=2000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(Path().glob("results/runs/*/iterations/00/.adapter*")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    second = llamaduo("run", "preset=smoke", "train.min_steps=2000")
    assert second.returncode == 2
    assert "another process" in second.stderr
    time.sleep(5)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "same command" in errors
    assert "Traceback" not in errors
    (folder,) = run_folders()
    assert json.loads((folder / "state.json").read_text())["status"] == "running"
    assert not list(folder.glob("iterations/00/adapter*"))


def test_a_sweep_gives_a_folder_a_run_and_one_failure_does_not_stop_the_others() -> None:
    os.environ.pop("OPENAI_API_KEY", None)
    done = llamaduo(*SMOKE, "-m", "judge=gpt_6_luna,reference", "synthesis=none", "task=coding,classification")
    assert done.returncode == 2
    assert "2 of 4 runs did not finish" in done.stderr
    assert "OPENAI_API_KEY" in done.stderr
    states = [json.loads((folder / "state.json").read_text())["status"] for folder in run_folders()]
    assert sorted(states) == ["done", "done"]  # those without a key never began
    counts = json.loads(llamaduo("status", "results", "--json").stdout)["counts"]
    assert counts == {"done": 2, "failed": 2}


@pytest.mark.skipif(not NO_ROBOTS.exists(), reason=f"{NO_ROBOTS.name} is not beside the project")
def test_real_coding_data_with_the_reference_judge_runs_to_the_end() -> None:
    done = llamaduo(
        "run", "data=file", f"data.path={NO_ROBOTS}", *OFFLINE, "task=coding", "train.min_steps=1", "train.epochs=1",
        "infer.samples=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = run_folders()
    state = json.loads((folder / "state.json").read_text())
    assert (state["status"], state["stop_reason"]) == ("done", "no_new_data")
    predictions = [json.loads(line) for line in (folder / "iterations/00/predictions.jsonl").read_text().splitlines()]
    too_long = [p for p in predictions if p["finish_reason"] == "prompt_too_long"]
    assert 0 < len(too_long) < len(predictions)
    assert all(p["prompt_tokens"] > 512 - 96 and p["text"] == "" for p in too_long)
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert line["unanswered"] == len(too_long)
    assert line["skipped_rows"] > 0
    assert line["precision_mean"] is None
    assert set(line["judges"]) == {"chrf", "rouge_l"}
    assert "answers are missing" in done.stdout
    assert "training rows are left out whole" in done.stdout
    skipped = [json.loads(row) for row in (folder / "iterations/00/adapter/skipped.jsonl").read_text().splitlines()]
    assert len(skipped) == line["skipped_rows"]
    assert all(row["tokens"] > 512 for row in skipped if row["reason"] == "too_long")
    verdicts = [json.loads(row) for row in (folder / "iterations/00/verdicts.jsonl").read_text().splitlines()]
    assert all(v["precision"] is None for v in verdicts)
