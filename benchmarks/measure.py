"""What the benchmarks share: a command line, a private home, running llamaduo, and the record of a result.

Every benchmark ends with one line of JSON (`Result`). Unless it is told `--quick`, `--no-save` or overrides, it also
writes that, its raw figures, the date and the machine to `results/NAME.json`. What is measured is the checkout that
the benchmarks lie in, installed or not.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import site
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(ROOT))
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Options:
    """What the command line of a benchmark says."""

    quick: bool
    """Measure less, within a minute."""
    save: bool
    """Whether the result goes to `results/`."""
    overrides: list[str]
    """Hydra overrides of what is measured: for trying a script out, so nothing is saved."""


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    exit_code: int
    seconds: float
    """Wall time, from before its start to its end."""
    peak_bytes: int
    """Resident memory of the largest process among it and its descendants."""
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Result:
    """The last line of output."""

    name: str
    figure: float | None
    """The number that the claim is about; null if nothing could be measured."""
    unit: str
    target: str
    holds: bool | None
    """Whether every condition of the claim held; null where `--quick` can't tell."""
    n: int
    spread: dict[str, Any]
    note: str
    """What a reader has to know, above all what `--quick` left out."""


def options(doc: str, argv: Sequence[str] | None = None) -> Options:
    """Read the command line; `doc` is the script's docstring."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="measure less, within a minute; saves nothing")
    parser.add_argument("--no-save", action="store_true", help="leave results/ alone")
    parser.add_argument("overrides", nargs="*", help="key=value for llamaduo run, to try the script out; saves nothing")
    found = parser.parse_intermixed_args(argv)
    return Options(found.quick, not (found.quick or found.no_save or found.overrides), found.overrides)


@contextmanager
def folder() -> Iterator[Path]:
    """Lend an empty temporary folder."""
    with tempfile.TemporaryDirectory(prefix="llamaduo-benchmark-") as name:
        yield Path(name)


def private(home: Path) -> dict[str, str]:
    """Return the variables that keep llamaduo and its libraries out of the user's home."""
    home.mkdir(parents=True, exist_ok=True)
    return {"HOME": str(home), "LLAMADUO_HOME": str(home / "llamaduo"), "PYTHONUSERBASE": site.getuserbase()}


def run(command: Sequence[str], *, cwd: Path, home: Path) -> Ran:
    """Run a command in a folder, with a home of its own, and wait for it."""
    searched = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | private(home) | {"PYTHONPATH": searched}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        return Ran(process.returncode, seconds, usage.ru_maxrss * _RSS_UNIT, out.read(), err.read())


def llamaduo(*arguments: str, cwd: Path, home: Path, python: Sequence[str] = ()) -> Ran:
    """Run `llamaduo ARGUMENTS` under this Python; `python` holds options for the interpreter."""
    return run([sys.executable, *python, "-m", "llamaduo", *arguments], cwd=cwd, home=home)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    return {"min": round(min(values), 4), "median": round(statistics.median(values), 4), "max": round(max(values), 4)}


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def conclude(result: Result, raw: Any, wanted: Options, load: tuple[float, float, float]) -> None:
    """Save the result with its raw figures, if that is wanted, and print it as the last line of output."""
    if wanted.overrides:
        result = replace(result, note=f"changed by {' '.join(wanted.overrides)}: no figure of the claim; {result.note}")
    if wanted.save:
        RESULTS.mkdir(exist_ok=True)
        record = {"date": _now(), **asdict(result), "machine": machine(), "load_before": load, "raw": raw}
        path = RESULTS / f"{result.name}.json"
        path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        say(f"saved {path}")
    say(json.dumps(asdict(result), allow_nan=False))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def machine() -> dict[str, Any]:
    """Return cores, memory, Python, versions and code revision."""
    from llamaduo.environment import describe

    tree = json.loads(describe())
    del tree["seeds"]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return tree | {"usable_cpus": usable, "cpu_model": _cpu_model()}


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)
