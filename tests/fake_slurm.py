"""A stand-in for SLURM's commands: sbatch, srun, scancel, scontrol and sacct on one machine, without a daemon.

    commands(folder)      writes them into `folder`, which goes in front of PATH; jobs are kept in `folder/jobs`

Every task of an array runs at once, in a session of its own. A signal goes to what srun has started, as SLURM's does;
a cancelled task gets SIGTERM, and SIGKILL two seconds later. A requeued task is begun again when it has ended.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

COMMANDS = ("sbatch", "srun", "scancel", "scontrol", "sacct")
KILL_WAIT_S = 2.0


def commands(folder: Path) -> None:
    (folder / "jobs").mkdir(parents=True)
    for name in COMMANDS:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "{folder}/jobs" "$@"\n')
        script.chmod(0o755)


def sbatch(jobs: Path, script: str) -> None:
    number = str(1 + len(list(jobs.glob("*.sh"))))
    text = Path(script).read_text()
    copied = jobs / f"{number}.sh"
    copied.write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    for task in range(int(array[1]) + 1) if array else [None]:
        command = [sys.executable, __file__, "task", str(jobs), number, "" if task is None else str(task)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
    print(f"Submitted batch job {number}")


def task(jobs: Path, number: str, index: str) -> None:
    """Run one task, again as often as it is requeued."""
    name = f"{number}_{index}" if index else number
    told = {"SLURM_JOB_ID": name.replace("_", "0"), "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    told |= {"SLURM_NTASKS": "1", "SLURM_JOB_NUM_NODES": "1", "FAKE_SLURM_TASK": name}
    if index:
        told |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    while True:
        process = subprocess.Popen(["bash", str(jobs / f"{number}.sh")], env=os.environ | told, start_new_session=True)
        (jobs / f"{name}.session").write_text(str(process.pid))
        (jobs / f"{name}.state").write_text("RUNNING")
        process.wait()
        requeued = jobs / f"{name}.requeued"
        if not requeued.exists():
            break
        requeued.unlink()
    cancelled = (jobs / f"{name}.cancelled").exists()
    (jobs / f"{name}.state").write_text("CANCELLED" if cancelled else "FAILED" if process.returncode else "COMPLETED")


def srun(jobs: Path, *arguments: str) -> None:
    """Become the command; its output goes to the file that was named."""
    given, output = list(arguments), None
    while given and given[0].startswith("-"):
        option = given.pop(0)
        if option == "--output":
            output = given.pop(0)
        elif option == "--error":
            given.pop(0)
    name = os.environ["FAKE_SLURM_TASK"]
    (jobs / f"{name}.step").write_text(str(os.getpid()))
    if output:
        path = output.replace("%A_%a", name).replace("%j", name).replace("%t", "0")
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    os.execvp(given[0], given)


def scancel(jobs: Path, *arguments: str) -> None:
    given = list(arguments)
    number = signal.SIGTERM
    if "--signal" in given:
        at = given.index("--signal")
        number = signal.Signals["SIG" + given[at + 1].removeprefix("SIG")]
        del given[at : at + 2]
        for name in given:
            os.kill(int((jobs / f"{name}.step").read_text()), number)
        return
    for name in given:
        (jobs / f"{name}.cancelled").touch()
        with suppress(OSError):
            os.kill(int((jobs / f"{name}.step").read_text()), number)
    time.sleep(KILL_WAIT_S)
    for name in given:
        with suppress(OSError):
            os.killpg(int((jobs / f"{name}.session").read_text()), signal.SIGKILL)


def scontrol(jobs: Path, verb: str, name: str) -> None:
    assert verb == "requeue"
    (jobs / f"{name}.requeued").touch()


def sacct(jobs: Path, *_: str) -> None:
    print("JobID|State|NodeList")
    for path in jobs.glob("*.state"):
        print(f"{path.stem}|{path.read_text()}|here")


if __name__ == "__main__":
    doing = {"sbatch": sbatch, "task": task, "srun": srun, "scancel": scancel, "scontrol": scontrol, "sacct": sacct}
    doing[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
