"""Measure what a sweep costs beyond the runs that it makes.

    python benchmarks/sweep.py             five rounds of eight runs
    python benchmarks/sweep.py --quick     one round of four runs

The runs are small real ones: no training, a server answers (`tests/wire_double.py`, at once), metrics score, so that
one takes a fraction of a second once its libraries are loaded, and what a launcher adds can be seen. In every round
the same runs are made in an empty folder in three ways: in one process, one after the other, without a launcher; as a
sweep with the basic launcher; as a sweep through joblib, two at once. Every one of them runs as a process of its own
from its start, so each pays for loading what runs need once (joblib: once a worker).

    overhead a run = (wall time of the sweep - wall time of the runs without a launcher) / number of runs

joblib's is taken against the same sum, although it has two workers, so it can be negative. The command is also given
once more when all is finished: what that takes a run is told beside. The figure is the larger of the two medians.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import Any

from measure import ROOT, Ran, Result, conclude, folder, llamaduo, options, run, say, summary

sys.path.insert(0, str(ROOT / "tests"))

from wire_double import Settings, serving

ROUNDS, RUNS, RUNS_QUICK = 5, 8, 4
LIMIT_S = 1.0
TARGET = f"median overhead <= {LIMIT_S:g} s a run, basic and joblib"
WAYS = ("basic", "joblib")
ALONE = """
import sys
from llamaduo.sweeps.job import run_one
from llamaduo.compose import compose
for experiment in compose(["-m", *sys.argv[1:]]).experiments:
    run_one(experiment, quiet=True)
"""


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    runs, rounds = (RUNS_QUICK, 1) if wanted.quick else (RUNS, ROUNDS)
    seconds: dict[str, list[float]] = {name: [] for name in ("alone", *WAYS, "finished")}
    with folder() as place, serving(Settings(says="pocket")) as double:
        seeds = ",".join(str(seed) for seed in range(runs))
        small = [
            "preset=smoke", "train=none", "synthesis=none", "judge=reference", "infer=endpoint", "infer.samples=1",
            f"infer.server.base_url={double.url('openai')}", "infer.server.model=m", f"runtime.seed={seeds}",
        ]  # fmt: skip
        for number in range(rounds + 1):
            timed = one_round(place / f"round{number}", [*small, *wanted.overrides])
            if number:  # the first warms the disk cache
                for name, value in timed.items():
                    seconds[name].append(value)
    conclude(result(seconds, runs, quick=wanted.quick), {"seconds": seconds, "runs": runs}, wanted, load)


def one_round(place: Path, small: list[str]) -> dict[str, float]:
    """Return the wall time of each way of making the runs."""
    timed = {}
    for name in ("alone", *WAYS, "finished"):
        own = place / ("joblib" if name == "finished" else name)
        own.mkdir(parents=True, exist_ok=True)
        if name == "alone":
            ran = run([sys.executable, "-c", ALONE, *small], cwd=own, home=own / "home")
        else:
            launch = "joblib" if name == "finished" else name
            ran = llamaduo("run", "-m", f"launch={launch}", *small, cwd=own, home=own / "home")
        timed[name] = round(checked(ran, name).seconds, 4)
    return timed


def checked(ran: Ran, name: str) -> Ran:
    """Return what ran, if it ended well; otherwise end the benchmark."""
    if ran.exit_code:
        sys.exit(f"sweep: {name} ended with {ran.exit_code}: {(ran.stderr or ran.stdout).strip()[-500:]}")
    return ran


def result(seconds: dict[str, list[float]], runs: int, *, quick: bool) -> Result:
    """Sum the rounds up."""
    spread: dict[str, Any] = {name: summary(values) for name, values in seconds.items()}
    medians = {}
    for way in WAYS:
        over = [(sweep - alone) / runs for sweep, alone in zip(seconds[way], seconds["alone"], strict=True)]
        spread[f"overhead {way}"] = summary(over)
        medians[way] = statistics.median(over)
        say(f"{way:7} {medians[way]:.3f} s a run beyond the run [{min(over):.3f}, {max(over):.3f}], n = {len(over)}")
    done = statistics.median(seconds["finished"])
    say(f"all finished: {done:.2f} s for {runs} runs")
    figure = max(medians.values())
    note = f"{runs} runs a sweep; all finished already: {done:.2f} s for the lot"
    note = f"quick: {note}" if quick else note
    rounds = len(seconds["alone"])
    return Result("sweep", round(figure, 4), "s a run", TARGET, figure <= LIMIT_S, rounds, spread, note)


if __name__ == "__main__":
    main()
