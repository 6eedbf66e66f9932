"""Kill, end and stop whole runs, resume them, and look whether anything was lost, changed or paid for twice.

    python benchmarks/kills.py              100 kills at random moments, one at every n-th point, more by other signals
    python benchmarks/kills.py --quick      a few of each, within some minutes; the whole takes some twenty
    python benchmarks/kills.py --mutants    whether the proof finds six faults that are put into the package

The run is a real one, shrunk to a few seconds: `preset=smoke`, real training and answering by a pocket model, judged
and taught by the pocket LLM over HTTP, at most three calls at once with a median latency of 0.1 s. The server is
`tests/wire_double.py`, whose bill has each call that it answered, whoever read the answer. Each process is forked and
killed; the next one resumes in the same folder with the same journal.

    random   each run is killed up to eight times, each time after a random share of its time
    point    every run is killed at its n-th point, each n once: before each fsync and each rename, before and after
             each COMMIT of the journal; the process that resumes is killed at one of its first forty points as well
    SIGHUP, SIGTERM    the same at random moments and at some of the points: the process ends in peace, with 130
    SIGTSTP  a run is stopped once so many calls have come to the server. Meanwhile a second process on the same run is
             refused, and another run gets its replies from the same service LLM: the slots of what the stopped one has
             in flight are free once those calls have timed out. Then it is killed and resumed, or continued

After each run: every file of its folder is that of the undisturbed run (times, and what lost calls may have cost,
apart); no request was sent again whose reply was recorded at an earlier kill; each request was billed at most once more
than it was in flight at a kill by SIGKILL, so none that SIGHUP or SIGTERM ended and none that was stopped and went on;
at most three were in flight at any; each sending has its attempt in the journal; the journal accounts for at least what
the server billed. The figure is the number of violations.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from measure import ROOT, Options, Result, conclude, folder, options, private, say, summary

sys.path.insert(0, str(ROOT / "tests"))

from killing import MUTANTS, PEACEFUL, Found, Kill, Runs, caught, stand, warm_up

LATENCY_S = 0.1
RANDOM_KILLS, RANDOM_KILLS_QUICK, KILLS_A_RUN = 100, 8, 8
ENDS, ENDS_QUICK = 40, 4
"""At random moments, by each of SIGHUP and SIGTERM."""
END_POINTS = 6
"""At each how manyth point runs are ended by these."""
STOPS, STOPS_QUICK = 24, 4
POINTS_QUICK = 8
RESUMING_POINTS = 40
TRIES = 40
SEED = 1
SUMMED = ("kills", "in_flight", "unanswered", "again")
TARGET = "0 violations: results identical, no recorded reply bought again, at most those in flight bought again"


@dataclass(frozen=True)
class Line:
    """What is told of a run: a line of output, and a row of the raw figures."""

    series: str
    by: str
    """The signal, and what followed it."""
    what: str
    kills: int
    in_flight: int
    """Calls in flight at its kills, by the journal."""
    unanswered: int
    """Calls that the server was working on when it was asked after its kills."""
    bought: int
    again: int
    seconds: float
    violations: list[str]

    def __str__(self) -> str:
        said = "; ".join(self.violations) or "no violation"
        return (
            f"{self.series:6} {self.by:15} {self.what:18} {self.kills} kills, {self.in_flight} calls in flight, "
            f"{self.bought} billed, {self.again} of them again, {self.seconds:.1f} s, {said}"
        )


Part = Callable[[Runs, int, int], Iterator[Line]]
"""Takes runs, which lane this is, and how many there are."""


def main() -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--mutants", action="store_true")
    mine, rest = own.parse_known_args()
    wanted = options(__doc__, rest)
    if wanted.overrides:
        sys.exit(f"kills: {' '.join(wanted.overrides)}: the run is part of the proof, so nothing can be overridden.")
    load = os.getloadavg()
    with folder() as place:
        alone(place / "home")
        warm_up(quick=False)
        if mine.mutants:
            for line in in_lanes(mutants, place):
                say(line)
            return
        lines = []
        for line in in_lanes(quick if wanted.quick else everything, place):
            say(str(line))
            lines.append(line)
    conclude(result(lines, wanted), [asdict(line) for line in lines], wanted, load)


def alone(home: Path) -> None:
    """Take this process out of the user's home, keys and network."""
    for name in [name for name in os.environ if name.endswith("_API_KEY")]:
        del os.environ[name]
    os.environ.update(private(home) | {"HF_HUB_OFFLINE": "1"})


def in_lanes(part: Callable[[Runs, int, int], Iterator[Any]], place: Path) -> Iterator[Any]:
    """Work in as many forked processes as there are cores, each with a server of its own; yield what they tell."""
    lanes = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    fork = multiprocessing.get_context("fork")
    ends: list[Connection] = []
    processes = []
    for lane in range(lanes):
        receiving, sending = fork.Pipe(duplex=False)
        own = place / f"lane{lane}"
        own.mkdir()
        processes.append(fork.Process(target=work, args=(part, own, lane, lanes, sending)))
        processes[-1].start()
        sending.close()
        ends.append(receiving)
    while ends:
        for end in wait(ends):
            assert isinstance(end, Connection)
            try:
                yield end.recv()
            except EOFError:
                ends.remove(end)
    for process in processes:
        process.join()
        if process.exitcode:
            sys.exit(f"kills: a lane ended with {process.exitcode}.")


def work(part: Part, place: Path, lane: int, lanes: int, told: Connection) -> None:
    with stand(place, quick=False, latency_s=LATENCY_S) as runs:
        for line in part(runs, lane, lanes):
            told.send(line)


def everything(runs: Runs, lane: int, lanes: int) -> Iterator[Line]:
    points = range(1 + lane, 1 + runs.expected.points, lanes)
    yield from stopped(runs, lane, STOPS, lanes)
    for number, by in enumerate(PEACEFUL):
        yield from at_random(runs, lane, ENDS, lanes, by)
        yield from at_points(runs, points[number * END_POINTS // 2 :: END_POINTS], by)
    yield from at_random(runs, lane, RANDOM_KILLS, lanes)
    yield from at_points(runs, points)


def quick(runs: Runs, lane: int, lanes: int) -> Iterator[Line]:
    points = range(10, runs.expected.points, runs.expected.points // POINTS_QUICK)
    yield from stopped(runs, lane, STOPS_QUICK, lanes)
    for number, by in enumerate(PEACEFUL):
        yield from at_random(runs, lane, ENDS_QUICK, lanes, by)
        yield from at_points(runs, points[number::2][lane::lanes], by)
    yield from at_random(runs, lane, RANDOM_KILLS_QUICK, lanes)
    yield from at_points(runs, points[lane::lanes])


def at_random(runs: Runs, lane: int, kills: int, lanes: int, by: signal.Signals = signal.SIGKILL) -> Iterator[Line]:
    """Kill until this lane has its share of the kills."""
    rng = random.Random(f"{SEED} {lane}")
    left = len(range(lane, kills, lanes))
    while left:
        times = [rng.uniform(0.02, 0.7) * runs.expected.seconds for _ in range(min(left, KILLS_A_RUN))]
        found = runs.series([Kill(after_s=seconds, by=by) for seconds in times])
        left -= len(found.deaths)
        made = times[: len(found.deaths)]
        yield line("random", by.name, "after " + " ".join(f"{seconds:.1f}" for seconds in made) + " s", found)


def at_points(runs: Runs, points: Sequence[int], by: signal.Signals = signal.SIGKILL) -> Iterator[Line]:
    """Kill at each of the points, in a run of its own."""
    for point in points:
        resuming = 1 + point % RESUMING_POINTS
        found = runs.series([Kill(point=point, by=by), Kill(point=resuming, by=by)])
        yield line("point", by.name, f"{point}, then {resuming}", found)


def stopped(runs: Runs, lane: int, stops: int, lanes: int) -> Iterator[Line]:
    """Stop this lane's share of runs, each once so many calls have come; every other one is continued."""
    rng = random.Random(f"{SEED} {lane} stops")
    for number in range(lane, stops, lanes):
        then = (signal.SIGKILL, signal.SIGCONT)[number // lanes % 2]
        calls = rng.randint(1, int(0.9 * len(runs.expected.bodies)))
        found = runs.series([Kill(calls=calls, by=signal.SIGTSTP, then=then)])
        yield line("stop", f"SIGTSTP {then.name}", f"after {calls} calls", found)


def line(series: str, by: str, what: str, found: Found) -> Line:
    unanswered = sum(death.unanswered for death in found.deaths)
    kills = len(found.deaths) + len(found.continued)
    figures = (kills, found.in_flight, unanswered, found.bought, found.again, round(found.seconds, 2))
    return Line(series, by, what, *figures, found.violations)


def mutants(runs: Runs, lane: int, lanes: int) -> Iterator[str]:
    """Put each fault in, and tell after how many killed runs something was found."""
    for name in list(MUTANTS)[lane::lanes]:
        whole = len(runs.series([], MUTANTS[name]).violations)
        tries, violations = caught(runs, MUTANTS[name], TRIES)
        said = f"caught by killed run {tries}: {violations[0]}" if violations else f"NOT CAUGHT in {tries} killed runs"
        yield f"{name:15} {said} ({len(violations)} violations; {whole} in a run that nobody killed)"


def result(lines: Sequence[Line], wanted: Options) -> Result:
    """Sum the runs up."""
    violations = sum(len(line.violations) for line in lines)
    spread: dict[str, Any] = {}
    for name in sorted({(line.series, line.by) for line in lines}):
        these = [line for line in lines if (line.series, line.by) == name]
        totals = {key: sum(getattr(line, key) for line in these) for key in SUMMED}
        spread[" ".join(name)] = {"runs": len(these)} | totals | {"seconds": summary([line.seconds for line in these])}
    kills, in_flight, _, again = (sum(spread[name][key] for name in spread) for key in SUMMED)
    randomly = spread["random SIGKILL"]["kills"]
    each = ", ".join(f"{spread[name]['kills']} {name}" for name in spread)
    note = f"{len(lines)} runs; {each}; {in_flight} calls were in flight at them, {again} were bought again"
    if wanted.quick:
        note = f"quick: {POINTS_QUICK} points or a few more in place of all; {note}"
    holds = violations == 0 and (wanted.quick or randomly >= RANDOM_KILLS)
    return Result("kills", violations, "violations", TARGET, holds, kills, spread, note)


if __name__ == "__main__":
    main()
