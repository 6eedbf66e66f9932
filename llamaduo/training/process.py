"""The train stage in a process of its own, or in all that `accelerate launch` starts.

    adapter = train_apart(job, rows, dev, progress=progress, note=note)

What is to be done goes into a private folder beside the adapter's, as `job.json` (a `TrainJob`), `rows.jsonl` and
`dev.jsonl`; what happens comes back as lines of `events.jsonl` (progress, notes, the adapter's record or an error), and
what is printed as `output.log`. The GPU's memory is free again when the process has ended. It ends too when whoever
waits for it has died, and when whoever started it has.

On further machines of an `accelerate` configuration, run there:

    accelerate launch --config_file CONFIG --machine_rank N -m llamaduo.training.process JOB_FOLDER
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import llamaduo
from llamaduo import errors
from llamaduo.config import Isolation, Launch, Runtime, conf_dir, plain
from llamaduo.environment import gpus
from llamaduo.errors import ConfigError, InputError, LlamaduoError
from llamaduo.records import Adapter, Example, to_json
from llamaduo.runs.folder import read_rows
from llamaduo.training.fit import train
from llamaduo.training.job import TrainJob
from llamaduo.training.tuning import Progress

_LOOK_S = 0.1
_PATIENCE_S = 10.0


def trains_apart(runtime: Runtime) -> bool:
    """Tell whether training gets a process of its own: on several devices, where that is asked for, or on a GPU."""
    if runtime.launch is Launch.accelerate or runtime.isolation is Isolation.process:
        return True
    return runtime.isolation is Isolation.auto and runtime.device != "cpu" and bool(gpus())


def train_apart(
    job: TrainJob,
    examples: Sequence[Example],
    dev: Sequence[Example] = (),
    *,
    progress: Progress,
    note: Callable[[str], None],
) -> Adapter:
    """Do what `train` does, in another process; what passes between the two goes into a private folder."""
    place = job.folder.parent / f".training.{socket.gethostname()}.{os.getpid()}.tmp"
    place.mkdir(parents=True)
    for name, rows in (("rows", examples), ("dev", dev)):
        (place / f"{name}.jsonl").write_text("".join(to_json(row) + "\n" for row in rows), encoding="utf-8")
    (place / "job.json").write_text(job.written(), encoding="utf-8")
    with (place / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [*_command(job.runtime, place), str(place), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": _path()},
            start_new_session=True,
        )
        try:
            return _followed(process, place, progress, note)
        finally:
            _stop(process)
            shutil.rmtree(place, ignore_errors=True)


def _command(runtime: Runtime, job: Path) -> list[str]:
    worker = ["-m", "llamaduo.training.process"]
    if runtime.launch is Launch.single:
        return [sys.executable, *worker]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(_configuration(runtime, job))]
    return [*launcher, *worker]


def _configuration(runtime: Runtime, job: Path) -> Path:
    """Return accelerate's configuration file, the number of processes filled in where it is left open."""
    import yaml

    shipped = conf_dir() / "accelerate" / f"{runtime.accelerate}.yaml"
    path = shipped if shipped.is_file() else Path(runtime.accelerate).expanduser()
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        known = ", ".join(sorted(file.stem for file in shipped.parent.glob("*.yaml")))
        raise ConfigError(
            f"runtime.accelerate={runtime.accelerate}: take {known}, or a file of accelerate's ({error})."
        ) from error
    if settings.get("num_processes", -1) == -1:
        settings["num_processes"] = 2 if runtime.device == "cpu" else max(1, len(gpus()))
    made = job / "accelerate.yaml"
    made.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return made


def _path() -> str:
    here = str(Path(llamaduo.__file__).parent.parent)
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _followed(process: subprocess.Popen[bytes], job: Path, progress: Progress, note: Callable[[str], None]) -> Adapter:
    """Pass on what the process tells, until it is done."""
    died = None
    for event in _events(job / "events.jsonl", process):
        match event:
            case {"progress": [done, total]}:
                progress(done, total)
            case {"note": text}:
                note(text)
            case {"failed": kind, "message": message}:
                raise getattr(errors, kind, InputError)(message)
            case {"adapter": record}:
                return Adapter(**record)
            case {"died": words}:
                died = died or words
    said = (job / "output.log").read_text(encoding="utf-8", errors="replace").strip()
    code = _code(process.returncode, said)
    last = said.splitlines()[-1] if said else "it said nothing"
    raise InputError(f"the training process ended with {_ending(code)}: {(died if code > 0 and died else last)[:300]}")


def _code(code: int, said: str) -> int:
    """Return the exit code of the process, or of the worker that its launcher says was killed first."""
    killed = [int(found) for found in re.findall(r"^ *exitcode *: (-\d+) ", said, re.MULTILINE)]
    return next((found for found in killed if found != -signal.SIGTERM), code)


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name} (out of memory?)" if code < 0 else f"exit code {code}"


def _events(path: Path, process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the events of a process as they come, until it has ended."""
    read = 0
    while True:
        ended = process.poll() is not None
        content = path.read_bytes()[read:] if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        read += len(whole)
        yield from map(json.loads, whole.splitlines())
        if ended:
            return
        if not whole:
            time.sleep(_LOOK_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process, and whoever of its group is still there; those of other groups look after themselves."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
    with suppress(ProcessLookupError, PermissionError):  # there is none, or only what has ended (macOS)
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE_S)


# in the other process


class _Teller:
    """Writes events; of several processes the first one does, but each tells why it fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.speaks = True
        self._last = 0.0

    def tell(self, **event: Any) -> None:
        """Append an event: one write, so that those of several processes don't mix."""
        if self.speaks or event.keys() & {"failed", "died"}:
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, (json.dumps(event) + "\n").encode())
            os.close(handle)

    def progress(self, done: int, total: int) -> None:
        """Tell of progress, not more often than anybody can look at it."""
        if done == total or time.monotonic() - self._last > _LOOK_S:
            self._last = time.monotonic()
            self.tell(progress=[done, total])

    def note(self, text: str) -> None:
        """Tell what a reader should know."""
        self.tell(note=text)


def work(place: Path, starter: int | None = None) -> int:
    """Train as a job's folder says, for a process of this machine; return the exit code."""
    threading.Thread(target=_end_with, args=(os.getppid(), starter), daemon=True).start()
    teller = _Teller(place / "events.jsonl")
    try:
        teller.tell(adapter=plain(_trained(place, teller)))
    except LlamaduoError as error:
        teller.tell(failed=type(error).__name__, message=str(error))
        return error.exit_code
    except Exception as error:
        teller.tell(died=" ".join(f"{type(error).__name__}: {error}".split()))
        raise
    return 0


def _trained(place: Path, teller: _Teller) -> Adapter:
    """Train on this process's device."""
    from llamaduo.training.devices import Devices, Launched

    job = TrainJob.read((place / "job.json").read_text(encoding="utf-8"))
    several = job.runtime.launch is Launch.accelerate
    devices = Launched(cpu=job.runtime.device == "cpu") if several else Devices()
    teller.speaks = devices.rank == 0
    if devices.count > 1:
        kept = "" if devices.replicated else "; no checkpoints are taken, since each holds a part only"
        teller.note(f"training on {devices.count} devices{kept}.")
    return train(
        replace(job, runtime=devices.placed(job.runtime)),
        read_rows(place / "rows.jsonl", Example),
        read_rows(place / "dev.jsonl", Example),
        progress=teller.progress,
        devices=devices,
        note=teller.note,
    )


def _end_with(starter: int, watched: int | None) -> None:
    """End this process when the one that started it has ended, or another one of this machine has."""
    while True:
        try:
            if watched is not None:
                os.kill(watched, 0)
        except ProcessLookupError:
            os._exit(1)
        if os.getppid() != starter:
            os._exit(1)
        time.sleep(1.0)


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), *map(int, sys.argv[2:])))
