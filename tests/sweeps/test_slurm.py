"""Runs as SLURM jobs, through submitit: a stand-in for SLURM's commands, everything else is real."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_slurm import commands
from test_sweep import light, notes, sweep, wait_for
from wire_double import Double, Settings, serving

from llamaduo.errors import ConfigError
from llamaduo.sweeps.cluster import jobs_broken_off

SLURM = ("launch=slurm", "hydra.launcher.gpus_per_node=null")


@pytest.fixture
def double() -> Iterator[Double]:
    with serving(Settings(says="pocket", median_s=0.3)) as made:
        yield made


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the stand-in on PATH; return the folder of its jobs."""
    commands(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{tmp_path / 'slurm'}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "slurm" / "jobs"


def test_a_preempted_job_goes_back_into_the_queue_and_goes_on_without_buying_twice(slurm: Path, double: Double) -> None:
    process = sweep(*SLURM, *light(double, "judge.repeats=4"), "task=coding,classification")
    wait_for(lambda: len([note for note in notes() if note["result"] == "running"]) == 2)
    wait_for(lambda: len(double.bill()["calls"]) > 6)
    for name in ("TERM", "USR2"):  # as SLURM does it
        subprocess.run(["scancel", "1_0", "--signal", name], check=True)
    output, errors = process.communicate(timeout=150)
    assert process.returncode == 0, errors
    assert len(re.findall(r"  passed  ", output)) == 2
    log = "".join(path.read_text() for path in Path().glob("results/runs/.sweep/.submitit/1_0/*.out"))
    assert log.count("Starting with JobEnvironment") == 2
    bill = double.bill()
    assert len(bill["billed"]) == len({line["body"] for line in bill["billed"]})


def broken_off(job: Path, error: BaseException) -> None:
    """Submit a job, then fail."""
    job.mkdir()
    raise error


def test_an_interrupted_sweep_cancels_its_jobs_and_no_others(slurm: Path, tmp_path: Path) -> None:
    named = str(tmp_path / "submitit" / "%j")
    (tmp_path / "submitit" / "7_0").mkdir(parents=True)
    settings = {"submitit_folder": named, "_target_": "x.SlurmLauncher"}
    with pytest.raises(KeyboardInterrupt), jobs_broken_off(settings):
        broken_off(tmp_path / "submitit" / "8_0", KeyboardInterrupt())
    assert [path.name for path in slurm.glob("*.cancelled")] == ["8_0.cancelled"]


def test_other_jobs_are_waited_for_when_one_has_broken(tmp_path: Path) -> None:
    settings = {"submitit_folder": str(tmp_path / "%j"), "_target_": "x.LocalLauncher"}
    with subprocess.Popen(["sleep", "1"]) as job:
        start = time.monotonic()
        with pytest.raises(ConfigError), jobs_broken_off(settings):
            broken_off(tmp_path / str(job.pid), ConfigError("broken"))
        assert time.monotonic() - start > 0.5
        with pytest.raises(ProcessLookupError):
            os.kill(job.pid, signal.SIGCONT)
