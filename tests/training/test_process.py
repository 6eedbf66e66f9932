"""Training in another process, or in two: the same result, notes and errors as in this one, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Isolation, Launch, LocalModel, Runtime, Train, conf_dir
from llamaduo.errors import ConfigError, InputError
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Adapter, Example, prompt_id
from llamaduo.training.fit import train
from llamaduo.training.job import TrainJob
from llamaduo.training.process import _stop, _Teller, train_apart, trains_apart

MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)
RUNTIME = Runtime(threads=1, device="cpu")
TWO = Runtime(threads=1, device="cpu", launch=Launch.accelerate)


def examples(count: int) -> list[Example]:
    made = []
    for prompt, response in make_pairs("closed_qa", count, seed=3):
        messages = ({"role": "user", "content": prompt},)
        made.append(Example(prompt_id(messages), messages, response))
    return made


class Job:
    """A training in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "adapter").mkdir()
        self.progress: list[tuple[int, int]] = []
        self.notes: list[str] = []

    def __call__(self, how: Any, runtime: Runtime, rows: list[Example] | None = None, **options: Any) -> Adapter:
        config = Train(
            **{"learning_rate": 3e-3, "max_length": 512, "epochs": 1, "batch_size": 2, "accumulation": 3} | options
        )
        return how(
            TrainJob(self.path / "adapter", MODEL, config, runtime),
            rows if rows is not None else examples(16),
            progress=lambda done, total: self.progress.append((done, total)),
            note=self.notes.append,
        )

    @property
    def weights(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.path / "adapter" / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Adapter]:
    job = Job(tmp_path_factory.mktemp("here") / "run")
    return job, job(train, RUNTIME)


def test_another_process_trains_the_same_adapter_and_leaves_nothing(here: tuple[Job, Adapter], tmp_path: Path) -> None:
    whole, adapter = here
    job = Job(tmp_path / "run")
    assert job(train_apart, RUNTIME) == adapter
    assert job.progress[-1] == (3, 3)
    first, second = (one.path / "adapter" / "adapter_model.safetensors" for one in (whole, job))
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in job.path.iterdir()] == ["adapter"]


def test_two_processes_come_to_the_loss_of_one(here: tuple[Job, Adapter], tmp_path: Path) -> None:
    import torch

    whole, adapter = here
    job = Job(tmp_path / "run")
    both = job(train_apart, TWO)
    assert job.notes == ["training on 2 devices."]
    assert both.loss == pytest.approx(adapter.loss, abs=1e-5)
    assert (both.steps, both.tokens, both.train_rows) == (adapter.steps, adapter.tokens, adapter.train_rows)
    one, two = whole.weights, job.weights
    assert one.keys() == two.keys()
    # AdamW's first steps are the gradient's sign: where a gradient is near zero its sign is rounding.
    close = [torch.isclose(one[name], two[name], atol=1e-4).float().mean() for name in one]
    assert min(close) > 0.95


def test_an_error_comes_back_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.target_modules=\['no_such'\]"):
        Job(tmp_path / "a")(train_apart, TWO, target_modules=["no_such"])
    long = Example("long", ({"role": "user", "content": "ba " * 600},), "x")
    with pytest.raises(InputError, match="exceed 512 tokens"):
        Job(tmp_path / "b")(train_apart, RUNTIME, rows=[long])


def test_a_process_that_dies_is_an_error_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaduo.training.process._command", lambda *_: ["sh", "-c", "echo 'no memory'; kill -9 $$"])
    with pytest.raises(InputError, match=r"ended with signal SIGKILL \(out of memory\?\): no memory"):
        Job(tmp_path / "run")(train_apart, RUNTIME)


def test_an_unknown_accelerate_configuration_is_refused_with_those_there_are(tmp_path: Path) -> None:
    runtime = Runtime(device="cpu", launch=Launch.accelerate, accelerate="dpp")
    with pytest.raises(ConfigError, match=r"runtime\.accelerate=dpp: take ddp, deepspeed, fsdp, or a file"):
        Job(tmp_path / "run")(train_apart, runtime)


def test_every_accelerate_configuration_is_one_that_accelerate_reads() -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    files = sorted((conf_dir() / "accelerate").glob("*.yaml"))
    kinds = [str(load_config_from_file(str(file)).distributed_type.value) for file in files]
    assert kinds == ["MULTI_GPU", "DEEPSPEED", "FSDP"]


def test_the_reason_of_a_worker_counts_and_not_what_its_launcher_says_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(script: str) -> str:
        monkeypatch.setattr("llamaduo.training.process._command", lambda *_: ["sh", "-c", f'cd "$0"; {script}'])
        with pytest.raises(InputError) as error:
            Job(tmp_path / f"run{len(list(tmp_path.iterdir()))}")(train_apart, RUNTIME)
        return str(error.value)

    first, second = '{"died": "ValueError: the reason"}', '{"died": "RuntimeError: connection closed by peer"}'
    script = f"echo '{first}' >>events.jsonl; echo '{second}' >>events.jsonl; echo ====; exit 1"
    assert told(script) == "the training process ended with exit code 1: ValueError: the reason"
    summary = "  exitcode  : -15 (pid: 7)\\n  exitcode  : -9 (pid: 8)\\n"
    script = f"echo '{second}' >>events.jsonl; printf '{summary}no memory'; exit 1"
    assert told(script) == "the training process ended with signal SIGKILL (out of memory?): no memory"


def test_a_worker_that_fails_says_why_whichever_it_is(tmp_path: Path) -> None:
    teller = _Teller(tmp_path / "events.jsonl")
    teller.speaks = False
    teller.tell(note="not from here")
    teller.tell(failed="ConfigError", message="out of memory on device 1 of 2")
    assert [json.loads(line)["failed"] for line in (tmp_path / "events.jsonl").open()] == ["ConfigError"]


TESTS = ":".join(map(str, Path(__file__).parents[:2]))
_ORPHAN = """
import sys, time; sys.path[:0] = sys.argv[2].split(':')
from pathlib import Path
from test_process import Job, RUNTIME, TWO, examples
from llamaduo.errors import LlamaduoError
from llamaduo.training.process import train_apart
try:
    Job(Path(sys.argv[1]))(train_apart, TWO if sys.argv[3:] else RUNTIME, rows=examples(400), epochs=50)
except LlamaduoError as error:
    print(error, flush=True)
    time.sleep(120)
"""


def test_it_ends_when_whoever_waits_for_it_has_died(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ORPHAN, str(tmp_path / "run"), TESTS]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_until(lambda: list((tmp_path / "run").glob(".training.*.tmp/events.jsonl")))
    (job,) = map(str, (tmp_path / "run").glob(".training.*.tmp"))
    assert _workers(job)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _wait_until(lambda: not _workers(job))


def test_workers_end_when_their_launcher_is_killed_and_others_live_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ORPHAN, str(tmp_path / "run"), TESTS, "two"]
    waiting = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        _wait_until(lambda: list((tmp_path / "run").glob(".training.*.tmp/events.jsonl")))
        (job,) = map(str, (tmp_path / "run").glob(".training.*.tmp"))
        (launcher,) = _workers(job, launching=True)
        assert len(_workers(job)) == 2
        os.kill(launcher, signal.SIGKILL)
        _wait_until(lambda: not _workers(job))
        assert waiting.stdout is not None
        assert waiting.stdout.readline().startswith("the training process ended with signal SIGKILL")
    finally:
        waiting.kill()
        waiting.communicate()


def test_what_outlives_its_leader_in_a_group_is_killed(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 100 & echo $! >$0; exit 0"
    leader = subprocess.Popen(["sh", "-c", script, str(tmp_path / "left")], start_new_session=True)
    leader.wait()
    left = int((tmp_path / "left").read_text())
    _stop(leader)
    _wait_until(lambda: not _lives(left))


def _lives(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def _workers(job: str, *, launching: bool = False) -> list[int]:
    """Return the processes that work on a job, or the one that launches those."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().split(b"\0")
        except OSError:
            continue
        launches = b"accelerate.commands.launch" in words
        if b"llamaduo.training.process" in words and job.encode() in words and launches is launching:
            found.append(int(place.parent.name))
    return found


def _wait_until(holds: Any) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("runtime", "apart"),
    [
        (Runtime(device="cpu"), False),
        (Runtime(device="cpu", isolation=Isolation.process), True),
        (Runtime(device="cpu", isolation=Isolation.none, launch=Launch.accelerate), True),
        (Runtime(device="cuda:0"), True),
        (Runtime(device="cuda:0", isolation=Isolation.none), False),
    ],
)
def test_training_is_apart_on_a_gpu_or_when_asked_for(
    runtime: Runtime, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamaduo.training.process.gpus", lambda: ["one"])
    assert trains_apart(runtime) is apart


def test_a_job_comes_out_of_its_file_as_it_went_in(tmp_path: Path) -> None:
    job = TrainJob(
        tmp_path / "adapter",
        MODEL,
        Train(learning_rate=3e-3, max_length=512),
        TWO,
        start_from=tmp_path / "00",
        cache=tmp_path,
    )
    assert TrainJob.read(job.written()) == job
