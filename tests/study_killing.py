"""Whole studies whose processes are all killed and which are resumed, and what has to hold afterwards.

    with serving(Settings(says="pocket", median_s=0.1)) as double:
        study = Study(place, double, LIGHT)
        found = study.killed_at([2.0, 5.5])
        assert not found.violations

A study is a sweep through joblib in a process of its own, by the command line. A kill is a SIGKILL to its process group
and to every descendant; `by=signal.SIGHUP` closes its terminal in its place, which it has to take in peace: it ends
with 130 and leaves no call in flight. Judge, teacher and, in a light study, the model that answers are the pocket LLM
behind the double, which bills each call whether or not anybody is left to read the answer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from killing import _differences, _files
from wire_double import Double

PATIENCE_S = 900.0
WHOLE = ("preset=smoke", "infer.samples=2", "runtime.device=cpu", "runtime.threads=1")
"""Cells that train and answer with a pocket model."""
LIGHT = ("preset=smoke", "infer.samples=2", "train=none", "synthesis=none", "infer=endpoint")
"""Cells without any model: a server answers."""


def ends(double: Double, *, concurrency: int = 3) -> list[str]:
    """Return the overrides that let the double judge, teach and answer, at prices."""
    found = ["judge=endpoint", "service_llm=endpoint"]
    for llm in ("judge.panel.endpoint", "service_llm"):
        told = {"base_url": double.url("openai"), "model": "m", "max_tokens": 400, "concurrency": concurrency}
        told |= {"price.input": 100.0, "price.output": 300.0}
        found += [f"{llm}.{name}={value}" for name, value in told.items()]
    return found


@dataclass(frozen=True)
class Calls:
    """The moment at which this many calls have come to the server since the process began."""

    number: int


@dataclass
class Death:
    """What a kill left behind."""

    recorded: set[str]
    """Keys whose replies the journal holds."""
    in_flight: int
    """Attempts that it left open."""
    by: signal.Signals


@dataclass
class Found:
    """What came of a study."""

    seconds: float = 0.0
    kills: int = 0
    in_flight: int = 0
    bought: int = 0
    again: int = 0
    violations: list[str] = field(default_factory=list)


class Study:
    """One study, made undisturbed first; each further one begins with nothing."""

    def __init__(self, place: Path, double: Double, size: Sequence[str], grid: Sequence[str]) -> None:
        self._place, self._double = place, double
        server = [f"infer.server.{name}" for name in ("base_url", "model")] if "infer=endpoint" in size else []
        answers = [f"{name}={value}" for name, value in zip(server, (double.url("openai"), "m"), strict=False)]
        self._arguments = [*size, *answers, *ends(double), *grid]
        self.expected: dict[str, bytes] = {}
        self.undisturbed = self.killed_at([])

    def killed_at(self, moments: Sequence[float | Calls], by: signal.Signals = signal.SIGKILL) -> Found:
        """Make the study, killed at each of these moments (seconds, or calls), and look whether all holds."""
        place = self._place / f"study{len(list(self._place.iterdir()))}"
        place.mkdir()
        self._double.control(reset=True)
        found, deaths, start = Found(), [], time.monotonic()
        for moment in moments:
            process = self.start(place)
            self._await(process, moment)
            if process.returncode is not None:
                break
            if by == signal.SIGKILL:
                kill_all(process)
            else:
                found.violations += _ended(process, by)
            deaths.append(_death(place / "journal.sqlite", sum(death.in_flight for death in deaths), by))
        code = self.start(place).wait(PATIENCE_S)
        found.seconds, found.kills = time.monotonic() - start, len(deaths)
        found.in_flight = sum(death.in_flight for death in deaths)
        if code:
            found.violations.append(f"the study ended with {code}: {(place / 'errors').read_text()[-300:]}")
        self._settle(place, deaths, found)
        shutil.rmtree(place)
        return found

    def _await(self, process: subprocess.Popen[bytes], moment: float | Calls) -> None:
        """Wait until the process has ended, or its moment has come."""
        if not isinstance(moment, Calls):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            return
        before = len(self._double.bill()["calls"])
        while process.poll() is None and len(self._double.bill()["calls"]) < before + moment.number:
            time.sleep(0.02)

    def start(self, place: Path) -> subprocess.Popen[bytes]:
        """Start the sweep in a folder, in a process group of its own."""
        own = [f"runtime.results={place}/results", f"service.journal={place}/journal.sqlite"]
        command = [sys.executable, "-m", "llamaduo", "run", "-m", "launch=joblib", *own, *self._arguments]
        with open(place / "errors", "ab") as errors:
            return subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=errors, cwd=place, start_new_session=True
            )

    def _settle(self, place: Path, deaths: list[Death], found: Found) -> None:
        """Compare the study with the undisturbed one, and the journal with the server's bill."""
        bill = settled_bill(self._double)
        billed = Counter(line["body"] for line in bill["billed"])
        found.bought, found.again = billed.total(), billed.total() - len(billed)
        tables = dict(_tables(place))
        if not self.expected:
            self.expected = tables
        found.violations += _differences(self.expected, tables)
        for death in deaths:
            if death.in_flight and death.by != signal.SIGKILL:
                found.violations.append(f"{death.by.name} left {death.in_flight} calls in flight")
        if found.again > found.in_flight:
            found.violations.append(f"{found.again} bought twice, {found.in_flight} were in flight at kills")
        found.violations += _by_the_journal(place / "journal.sqlite", deaths, bill)


def _tables(place: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file of every run, apart from times and from what was paid for lost calls."""
    for state in sorted((place / "results").rglob("state.json")):
        for name, content in _files(state.parent, place).items():
            yield f"{state.parent.name}/{name}", content


def _by_the_journal(journal: Path, deaths: Sequence[Death], bill: dict[str, Any]) -> Iterator[str]:
    with contextlib.closing(sqlite3.connect(journal)) as db:
        outcomes = Counter(outcome for (outcome,) in db.execute("SELECT outcome FROM attempts"))
        replied = Counter(key for (key,) in db.execute("SELECT key FROM attempts WHERE outcome = 'replied'"))
        after = {}
        for number, death in enumerate(deaths, 1):
            after[number] = sum(replied[key] > 1 for key in death.recorded)
    if twice := sum(count > 1 for count in replied.values()):
        yield f"{twice} requests have two replies that were paid"
    for number, resent in after.items():
        if resent:
            yield f"kill {number}: {resent} recorded replies were bought again"
    if outcomes[None]:
        yield f"{outcomes[None]} attempts are still open after the end"
    if len(bill["calls"]) > sum(outcomes.values()):
        yield f"{len(bill['calls'])} calls came to the server, {sum(outcomes.values())} attempts are stored"


def settled_bill(double: Double) -> dict[str, Any]:
    """Return the bill once the server has finished what dead processes asked for."""
    while True:
        bill = double.bill()
        if all(call["answered"] is not None for call in bill["calls"]):
            return bill
        time.sleep(0.02)


def _ended(process: subprocess.Popen[bytes], by: signal.Signals) -> Iterator[str]:
    """Send a signal to a process's group, wait for its end and that of all that descend from it."""
    family = descendants(process.pid)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, by)
    code = process.wait(PATIENCE_S)
    if code not in (0, 130):
        yield f"by {by.name} it ended with {code}"
    while any(lives(pid) for pid in family):
        time.sleep(0.02)


def _death(journal: Path, known: int, by: signal.Signals) -> Death:
    """Look at the journal in a copy: opening it would settle what the dead have left open."""
    copied = journal.with_name("copy.sqlite")
    for end in ("", "-wal"):
        Path(f"{copied}{end}").unlink(missing_ok=True)
        if Path(f"{journal}{end}").exists():
            shutil.copyfile(f"{journal}{end}", f"{copied}{end}")
    with contextlib.closing(sqlite3.connect(copied)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone():
            return Death(set(), 0, by)
        recorded = {key for (key,) in db.execute("SELECT key FROM replies")}
        lost = "SELECT COUNT(*) FROM attempts WHERE outcome IS NULL OR outcome = 'unknown'"
        return Death(recorded, db.execute(lost).fetchone()[0] - known, by)


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Send SIGKILL to a process, its group, and all that descend from it."""
    family = [process.pid, *descendants(process.pid)]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    while any(lives(pid) for pid in family):
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Return the processes that descend from one."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(folder.name))
    found, waiting = [], [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def lives(pid: int) -> bool:
    """Tell whether a process runs: a zombie doesn't."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
