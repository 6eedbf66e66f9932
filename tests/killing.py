"""Whole runs whose process is killed again and again, and what has to hold afterwards, by the server's own bill.

    with stand(place, quick=True, latency_s=0.05) as runs:
        found = runs.series([Kill(point=17), Kill(after_s=0.8)])
        assert not found.violations

A run is made in forked children of this process, one after another in the same folder with the same journal: each
dies by a signal, after some time, at its n-th *point* or once so many calls have come to the server, and the next one
resumes; the last one is left alone. Points lie before each fsync and each rename, before each COMMIT of the journal,
and after it. Judge and teacher are the pocket LLM behind the double over HTTP, which bills each call whether or not
anybody is left to read the answer.

Who dies by SIGKILL leaves calls in flight. SIGHUP and SIGTERM end a process in peace, with 130 and none in flight.
SIGTSTP stops it: others work meanwhile (see `stopping`), and then it is killed or continued.

Whoever forks must not have started threads: `warm_up` and `preload` import what a run imports, and start none.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import hashlib
import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from stopping import is_stopped, neighbours, while_stopped, with_timeouts
from wire_double import Double, Settings, body_hash, serving

from llamaduo.commands.signals import interrupt_on_signals
from llamaduo.compose import compose
from llamaduo.config import Experiment
from llamaduo.display import Display
from llamaduo.environment import settle_libraries
from llamaduo.files.writing import write_text
from llamaduo.loop import run
from llamaduo.records import to_json
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import RunDir, _complete, read_rows
from llamaduo.runs.layout import CHECKSUMS, marker
from llamaduo.service import attempts, journal, loading, schema, transport
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.steps import steps

CONCURRENCY = 3
PATIENCE_S = 120.0
PEACEFUL = (signal.SIGHUP, signal.SIGTERM)
_DOLLARS = {"input": 100.0, "output": 300.0}
"""For a million tokens."""
_SIZE = (
    "preset=smoke", "judge=endpoint", "service_llm=endpoint", "infer.samples=2", "synthesis.pairs_per_request=2",
    "runtime.device=cpu", "runtime.threads=1", "loop.budget_usd=1000",
)  # fmt: skip
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Kill:
    """When and how a process dies, unless it is done before; with neither moment it is left alone."""

    after_s: float | None = None
    """Seconds."""
    point: int | None = None
    """Its n-th point."""
    calls: int | None = None
    """How many calls have come to the server since it began."""
    by: signal.Signals = signal.SIGKILL
    then: signal.Signals = signal.SIGKILL
    """What follows a SIGTSTP: SIGKILL or SIGCONT."""

    @property
    def is_peaceful(self) -> bool:
        """Whether calls in flight are awaited."""
        return self.by in PEACEFUL

    @property
    def leaves(self) -> int:
        """The exit code of a process that dies so."""
        return 130 if self.is_peaceful else -signal.SIGKILL


@dataclass(frozen=True)
class Death:
    """What a killed process left: its journal, looked at in a copy, and the server's books at that moment."""

    replies: frozenset[str]
    """Keys whose replies are recorded."""
    in_flight: dict[int, str]
    """The key of each attempt that this death left open, by its number."""
    attempts: Counter[str]
    """Attempts a key, this death's and those before it."""
    arrived: Counter[str]
    """Calls that came to the server, by their body."""
    unanswered: int
    """Calls that the server was working on."""
    by: signal.Signals


@dataclass
class Found:
    """What came of a run that was killed and resumed until it was done."""

    deaths: list[Death] = field(default_factory=list)
    continued: list[frozenset[str]] = field(default_factory=list)
    """The keys of what was in flight in each process that was stopped for a while, when it was."""
    bought: int = 0
    """Calls that the server billed."""
    again: int = 0
    """Calls among them whose request it had billed before."""
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0
    points: int = 0
    """Points that the last process passed."""

    @property
    def in_flight(self) -> int:
        """Calls in flight at all kills together."""
        return sum(len(death.in_flight) for death in self.deaths)


@dataclass(frozen=True)
class Undisturbed:
    """What every run has to come to."""

    files: dict[str, bytes]
    """The run's folder, apart from times, costs and addresses."""
    replies: dict[str, str]
    """The text of each reply, by its key."""
    bodies: dict[str, str]
    """The double's hash of what was sent, by the request's key."""
    cost_usd: float
    seconds: float
    points: int


Mutant = Callable[[], None]
"""Breaks the package, in the process in which it is called."""


def warm_up(quick: bool) -> None:
    """Import what every child needs."""
    settle_libraries()
    loading.load_litellm()
    if not quick:
        for name in ("torch", "transformers", "peft", "safetensors.torch"):
            importlib.import_module(name)


def forked(work: Callable[[], Any], error: Path) -> Any:
    """Start a process that does some work and exits with the number that it returns; an exception goes to a file."""

    def guarded() -> None:
        try:
            os._exit(int(work() or 0))
        except KeyboardInterrupt:
            os._exit(130)
        except BaseException:
            error.write_text(traceback.format_exc(), encoding="utf-8")
            os._exit(1)

    process = _FORK.Process(target=guarded)
    process.start()
    return process


def preload(work: Callable[[], Any], place: Path) -> None:
    """Import whatever some work imports, without doing it here."""
    imported, error = place / "imported", place / "error"

    def listed() -> None:
        before = set(sys.modules)
        work()
        imported.write_text(" ".join(sorted(set(sys.modules) - before)), encoding="utf-8")

    forked(listed, error).join()
    assert imported.exists(), error.read_text(encoding="utf-8")
    for name in imported.read_text(encoding="utf-8").split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


@contextmanager
def stand(place: Path, *, quick: bool, latency_s: float) -> Iterator[Runs]:
    """Lend runs in an empty folder, with a double of their own; `quick` takes stand-ins for training and answering."""
    with serving(Settings(says="pocket", median_s=latency_s, sigma=0.5)) as double:
        yield Runs(place, double, quick)


class Runs:
    """Runs of one experiment, each from nothing."""

    def __init__(self, place: Path, double: Double, quick: bool) -> None:
        self._place, self._double, self._quick = place, double, quick
        self._experiment = _experiment(place, double)
        self._numbers = count()
        preload(lambda: self._run(self._experiment_in(place / "first")), place)
        assert threading.active_count() == 1 or quick
        self.expected = self._undisturbed()

    def series(self, kills: Iterable[Kill], mutant: Mutant | None = None) -> Found:
        """Start a run, kill it as told, resume it after each kill until it is done, and look whether all held."""
        place = self._place / f"run{next(self._numbers)}"
        experiment = self._experiment_in(place)
        self._double.control(reset=True)
        found, start = Found(), time.monotonic()
        code: int | None = None
        for kill in [*kills, Kill()]:
            code = self._life(experiment, kill, mutant, found)
            if code != kill.leaves:
                break
            found.deaths.append(self._death(place / "journal.sqlite", found.deaths, kill.by))
        found.points = _number(place / "points")
        found.seconds = time.monotonic() - start
        bill = self._settled_bill()
        billed = Counter(line["body"] for line in bill["billed"])
        found.bought, found.again = billed.total(), billed.total() - len(billed)
        if code != 0:
            error = place / "error"
            said = error.read_text(encoding="utf-8").strip().splitlines()[-1:] if error.exists() else []
            found.violations.append(f"a process ended with {code}: {' '.join(said)}")
        else:
            found.violations += self._violations(experiment, place, found, bill)
        shutil.rmtree(place)
        return found

    # A process

    def _experiment_in(self, place: Path) -> Experiment:
        place.mkdir()
        experiment = copy.deepcopy(self._experiment)
        experiment.runtime.results = str(place / "results")
        experiment.service.journal = str(place / "journal.sqlite")
        return experiment

    def _life(self, experiment: Experiment, kill: Kill, mutant: Mutant | None, found: Found) -> int | None:
        """Let one process work on a run; return its exit code, None if it had to be ended."""
        place = Path(experiment.service.journal or "").parent
        begun = place / "begun"
        begun.unlink(missing_ok=True)
        stops = kill.by == signal.SIGTSTP

        def work() -> None:
            if stops:
                os.setpgid(0, 0)  # the kernel stops nobody whose group is orphaned
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever began this may be under nohup
            interrupt_on_signals()
            begun.touch()
            if mutant:
                mutant()
            points = _Points(kill)
            self._run(with_timeouts(experiment) if stops else experiment)
            (place / "points").write_text(str(points.passed), encoding="utf-8")

        before = len(self._double.bill()["calls"])
        process = forked(work, place / "error")
        _await(process, begun.exists)
        if kill.calls is not None:
            most = before + kill.calls
            _await(process, lambda: len(self._double.bill()["calls"]) >= most)
        if kill.after_s is not None:
            process.join(kill.after_s)
        if (kill.after_s is not None or kill.calls is not None) and process.exitcode is None:
            os.kill(process.pid, kill.by)
        if stops and process.exitcode is None and is_stopped(process.pid):
            self._meanwhile(experiment, kill, found)
            os.kill(process.pid, kill.then)
        process.join(PATIENCE_S)
        code: int | None = process.exitcode
        process.kill()
        process.join()
        return code

    def _meanwhile(self, experiment: Experiment, kill: Kill, found: Found) -> None:
        """Look at what a stopped process has in flight, and let others work beside it."""
        if kill.then == signal.SIGCONT:
            left = self._death(Path(experiment.service.journal or ""), found.deaths, kill.by)
            found.continued.append(frozenset(left.in_flight.values()))
        asked = with_timeouts(experiment)
        found.violations += while_stopped(asked, lambda: self._run(asked), forked, PATIENCE_S)

    def _run(self, experiment: Experiment) -> None:
        if self._quick:
            from fakes import quick_infer, quick_train

            steps.train, steps.infer = quick_train, quick_infer  # type: ignore[assignment]
        run(experiment, display=Display(quiet=True))

    # Books

    def _undisturbed(self) -> Undisturbed:
        place = self._place / "undisturbed"
        experiment = self._experiment_in(place)
        self._double.control(reset=True)
        start = time.monotonic()
        code = self._life(experiment, Kill(), None, Found())
        seconds = time.monotonic() - start
        assert code == 0, (place / "error").read_text(encoding="utf-8")
        bill = self._settled_bill()
        with contextlib.closing(sqlite3.connect(place / "journal.sqlite")) as db:
            requests = {key: json.loads(sent) for key, sent in db.execute("SELECT key, request FROM requests")}
        bodies = {key: _body(experiment, sent) for key, sent in requests.items()}
        billed = Counter(line["body"] for line in bill["billed"])
        assert billed == Counter(bodies.values()), "the bodies of the bill aren't those of the journal"
        points = _number(place / "points")
        return Undisturbed(
            _files(run_folder(experiment), place), _replies(place), bodies, _price(bill), seconds, points
        )

    def _settled_bill(self) -> dict[str, Any]:
        """Return the run's own bill once the server has finished what dead processes asked for."""
        theirs = {_body(self._experiment, request.sent) for request in neighbours(self._experiment)}
        while True:
            bill = self._double.bill()
            if all(call["answered"] is not None for call in bill["calls"]):
                return {name: [one for one in bill[name] if one["body"] not in theirs] for name in ("calls", "billed")}
            time.sleep(0.02)

    def _death(self, journal: Path, before: Sequence[Death], by: signal.Signals) -> Death:
        bill = self._double.bill()
        replies: list[Any] = []
        attempts: list[Any] = []
        copied = journal.with_name("copy.sqlite")
        for end in ("", "-wal"):
            Path(f"{copied}{end}").unlink(missing_ok=True)
            if Path(f"{journal}{end}").exists():
                shutil.copyfile(f"{journal}{end}", f"{copied}{end}")
        with contextlib.closing(sqlite3.connect(copied)) as db:
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone():
                replies = db.execute("SELECT key FROM replies").fetchall()
                attempts = db.execute("SELECT id, key, outcome FROM attempts").fetchall()
        known = {number for death in before for number in death.in_flight}
        left = {number: key for number, key, outcome in attempts if outcome is None and number not in known}
        return Death(
            frozenset(key for (key,) in replies),
            left,
            Counter(key for _, key, _ in attempts),
            Counter(call["body"] for call in bill["calls"]),
            sum(call["answered"] is None for call in bill["calls"]),
            by,
        )

    def _violations(self, experiment: Experiment, place: Path, found: Found, bill: dict[str, Any]) -> list[str]:
        """Say what doesn't hold."""
        expected, bodies = self.expected, self.expected.bodies
        arrived = Counter(call["body"] for call in bill["calls"])
        billed = Counter(line["body"] for line in bill["billed"])
        last = self._death(place / "journal.sqlite", found.deaths, signal.SIGKILL)
        said = [*_differences(expected.files, _files(run_folder(experiment), place))]
        if _replies(place) != expected.replies:
            said.append("the journal's replies differ")
        if set(billed) - set(bodies.values()):
            said.append("requests were made that the undisturbed run doesn't make")
        for number, death in enumerate(found.deaths, 1):
            if resent := sum(arrived[bodies[key]] != death.arrived[bodies[key]] for key in death.replies):
                said.append(f"kill {number}: {resent} recorded replies were asked for again")
            if death.in_flight and death.by in PEACEFUL:
                said.append(f"kill {number}: {death.by.name} left {len(death.in_flight)} calls in flight")
            if len(death.in_flight) > CONCURRENCY:
                said.append(f"kill {number}: {len(death.in_flight)} calls in flight, {CONCURRENCY} are allowed")
        for key, body in bodies.items():
            lost = sum(key in death.in_flight.values() for death in found.deaths)
            if billed[body] > 1 + lost:
                said.append(f"request {key[:8]}: billed {billed[body]} times, in flight at {lost} kills")
            if arrived[body] > last.attempts[key]:
                said.append(f"request {key[:8]}: sent {arrived[body]} times, {last.attempts[key]} attempts stored")
        if last.in_flight:
            said.append(f"{len(last.in_flight)} attempts are still open after the end")
        with contextlib.closing(sqlite3.connect(place / "journal.sqlite")) as db:
            folder = run_folder(experiment)
            row = db.execute("SELECT usd FROM spent WHERE scope = ?", (f"{folder.parent.name}/{folder.name}",))
            spent = (row.fetchone() or (0.0,))[0]
        state = json.loads((run_folder(experiment) / "state.json").read_text(encoding="utf-8"))
        if min(spent, state["cost_usd"]) < _price(bill) - 1e-9:
            said.append(f"${_price(bill):.4f} are billed; the journal has ${spent:.4f}, the state {state['cost_usd']}")
        if not (found.deaths or found.continued) and abs(spent - _price(bill)) > 1e-9:
            said.append(f"undisturbed, ${spent:.6f} are accounted for and ${_price(bill):.6f} billed")
        return said


def _experiment(place: Path, double: Double) -> Experiment:
    ends = []
    for llm in ("judge.panel.endpoint", "service_llm"):
        told = {"base_url": double.url("openai"), "model": "m", "max_tokens": 400, "concurrency": CONCURRENCY}
        told |= {f"price.{name}": value for name, value in _DOLLARS.items()}
        ends += [f"{llm}.{name}={value}" for name, value in told.items()]
    found = compose([*_SIZE, f"runtime.results={place}", *ends])
    assert found is not None
    return found.experiments[0]


def _body(experiment: Experiment, sent: dict[str, Any]) -> str:
    """Return the double's hash of a request that the journal holds."""
    prompt = sent["messages"][-1]["content"]
    llm = experiment.service_llm
    return body_hash(llm.model, transport.batch_body(llm, prompt, schema=sent["schema"], seed=sent["repeat"]))


def _price(bill: dict[str, Any]) -> float:
    return float(sum(line[f"{side}_tokens"] * _DOLLARS[end] for line in bill["billed"] for side, end in _SIDES) / 1e6)


_SIDES = (("prompt", "input"), ("completion", "output"))


def _replies(place: Path) -> dict[str, str]:
    with contextlib.closing(sqlite3.connect(place / "journal.sqlite")) as db:
        return dict(db.execute("SELECT key, text FROM replies"))


_SKIPPED = {"environment.json", "config.yaml", ".lock", "report.html", CHECKSUMS}
"""What holds versions, places and times, or is made of them, and says nothing about results that the others do not."""


def _files(folder: Path, place: Path) -> dict[str, bytes]:
    """Return the content of every file of a run, apart from times and from what was paid for lost calls."""
    found = {}
    for path in folder.rglob("*"):
        if not path.is_file() or path.name in _SKIPPED:
            continue
        content = path.read_bytes()
        if path.name == "metrics.jsonl":
            content = b"".join(_without(line, "seconds") for line in content.splitlines())
        elif path.name.endswith(".done"):
            content = _without(content, "seconds")
        elif path.name == "state.json":
            content = _without(content, "cost_usd")
        found[str(path.relative_to(folder))] = content.replace(str(place).encode(), b"PLACE")
    return found


def _without(text: bytes, name: str) -> bytes:
    tree = json.loads(text)
    del tree[name]
    return json.dumps(tree).encode()


def _differences(expected: dict[str, bytes], found: dict[str, bytes]) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        if name not in found:
            yield f"{name} is missing"
        elif name not in expected:
            yield f"{name} is left over"
        elif expected[name] != found[name]:
            yield f"{name} differs"


def _number(path: Path) -> int:
    return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def _await(process: Any, come: Callable[[], bool]) -> None:
    """Wait until a process has ended, or something has come."""
    while process.exitcode is None and not come():
        time.sleep(0.02)


class _Points:
    """Counts this process's points, and dies at one of them."""

    def __init__(self, kill: Kill) -> None:
        self.passed = 0
        self._kill = kill
        self._lock = threading.Lock()
        for name in ("fsync", "replace", "rename"):
            setattr(os, name, self._before(getattr(os, name)))
        connect = sqlite3.connect
        points = self

        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
                if statement != "COMMIT":
                    return super().execute(statement, *values)
                points.pass_one()
                cursor = super().execute(statement)
                points.pass_one()
                return cursor

        sqlite3.connect = lambda *given, **named: connect(*given, factory=Connection, **named)

    def _before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any, **named: Any) -> Any:
            self.pass_one()
            return function(*given, **named)

        return counted

    def pass_one(self) -> None:
        with self._lock:
            self.passed += 1
            if self.passed == self._kill.point:
                os.kill(os.getpid(), self._kill.by)
                if self._kill.by == signal.SIGKILL:
                    time.sleep(PATIENCE_S)  # never over


# Mutants: each breaks one promise, and has to be caught


def in_a_hurry() -> None:
    """When told to end, wait for no call in flight."""

    async def wind_up(_: Service, tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()

    Service._wind_up = wind_up  # type: ignore[method-assign]


def no_intent() -> None:
    """Send without storing the attempt first."""
    numbers = count(-1, -1)

    async def begin(self: Journal, *_: Any) -> int:
        return next(numbers)

    Journal.begin = begin  # type: ignore[method-assign]


def recorded_late() -> None:
    """Store a stage's replies at its end."""
    waiting: list[tuple[Any, ...]] = []
    record, ask = Journal.record, Service.ask

    async def keep(*given: Any) -> None:
        waiting.append(given)

    def asked(self: Service, *given: Any) -> Any:
        outcomes = ask(self, *given)
        while waiting:
            self._runner.run(record(*waiting.pop(0)))
        return outcomes

    Journal.record, Service.ask = keep, asked  # type: ignore[method-assign]


def never_recorded() -> None:
    """Settle an attempt without storing its reply."""

    async def record(self: Journal, attempt: int, reply: Any, _: str) -> None:
        await self.fail(attempt, cost_usd=reply.cost_usd, outcome="replied")

    Journal.record = record  # type: ignore[method-assign]


def bought_again() -> None:
    """Look for no stored reply before buying."""
    none = f"SELECT {', '.join(schema.REPLY)}, raw, checksum FROM (SELECT * FROM replies WHERE 0)"
    attempts.SELECT_REPLY = journal.SELECT_REPLY = none


def marker_first() -> None:
    """Mark a list of records as complete, then write it, a line at a time."""

    def rows(_: Any, path: Path, kind: Any, make: Callable[[], Iterable[Any]]) -> Any:
        if not _complete(path):
            lines = [to_json(record) + "\n" for record in make()]
            text = "".join(lines).encode()
            digest = hashlib.sha256(text).hexdigest()
            with open(path, "w", encoding="utf-8") as file:
                told = {"bytes": len(text), "sha256": digest, "seconds": 0.0}
                write_text(marker(path), json.dumps(told))
                for line in lines:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
        return read_rows(path, kind)

    RunDir.rows = rows  # type: ignore[method-assign]


MUTANTS: dict[str, Mutant] = {
    mutant.__name__: mutant
    for mutant in (in_a_hurry, no_intent, recorded_late, never_recorded, bought_again, marker_first)
}


def spread_out(most: int) -> Iterator[int]:
    """Yield the numbers from 1 to `most`, each as far from those before it as it can be (golden section)."""
    seen: set[int] = set()
    for number in count(1):
        if len(seen) == most:
            return
        point = 1 + int(number * 0.6180339887498949 % 1 * most)
        if point not in seen:
            seen.add(point)
            yield point


def caught(runs: Runs, mutant: Mutant, tries: int) -> tuple[int, list[str]]:
    """Kill runs of a mutant, each at another point, until something is found; return how many it took, and what."""
    for number, point in enumerate(spread_out(runs.expected.points), 1):
        in_flight = Kill(calls=3, by=signal.SIGHUP)
        found = runs.series([Kill(point=point), in_flight, Kill(point=point, by=signal.SIGHUP)], mutant)
        if found.violations or number == tries:
            return number, found.violations
    raise AssertionError("there are points")
