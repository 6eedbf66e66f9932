"""How many rows a pocket model needs to pass the gate: `targeted` seeds beside seeds in turn, on the same data.

    python benchmarks/synthesis_strategies.py                  experiments/synthesis_strategies.yaml, two hours or so; a
                                                               run that is done already is not made again
    python benchmarks/synthesis_strategies.py --quick          one pair of two small volumes

Each pair of runs shares task, seed, coverage data and volumes. The figure is the geometric mean of rows needed by
`targeted` over rows needed by `default`, with a 95% interval (Student's t of the pairs' logarithms). A run that has not
passed at the last volume counts with half as many rows again, and is told. The claim holds if the interval's upper end
is at most 0.7; whatever comes out is the result.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from measure import ROOT, Options, Result, conclude, folder, llamaduo, options, say

NAME = "synthesis_strategies"
TARGET = "aim: 30% fewer rows (a ratio of 0.7)"
QUICK = (
    "task=coding", "runtime.seed=1", "loop.growth.volumes=[64,96]", "data.dev_rows=8", "data.test_rows=4",
    "train.min_steps=2", "infer.samples=1",
)  # fmt: skip


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    with folder() as place:
        results = place / "results" if wanted.quick or wanted.overrides else ROOT / "results"
        changed = [*(QUICK if wanted.quick else ()), *wanted.overrides, f"runtime.results={results}"]
        study = ("run", "-cd", str(ROOT / "experiments"), "-cn", NAME, "launch=joblib")
        ran = llamaduo(*study, *changed, cwd=ROOT, home=place / "home")
        if ran.exit_code:
            sys.exit(ran.stdout[-2000:] + ran.stderr[-2000:])
        rows = needed(results / NAME)
    conclude(result(rows, wanted), rows, wanted, load)


def needed(study: Path) -> list[dict[str, Any]]:
    """Return for each run its task, seed and strategy, the rows of its last iteration, and whether it passed."""
    from llamaduo.runs.record import read_runs

    return [
        {
            "task": run.experiment.task.name,
            "seed": run.experiment.runtime.seed,
            "strategy": str(run.experiment.synthesis.strategy),
            "rows": run.history[-1].train_rows,
            "passed": run.state.stop_reason == "passed",
        }
        for run in read_runs(study)
        if run.state.status == "done"
    ]


def pairs(rows: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Return the ratio of rows needed of every pair, by task and seed."""
    by_run = {(row["task"], row["seed"], row["strategy"]): row["rows"] * (1 if row["passed"] else 1.5) for row in rows}
    settings = sorted({(task, seed) for task, seed, _ in by_run})
    return {
        (task, seed): by_run[task, seed, "targeted"] / by_run[task, seed, "default"]
        for task, seed in settings
        if {(task, seed, "targeted"), (task, seed, "default")} <= by_run.keys()
    }


def mean_ratio(ratios: list[float]) -> tuple[float, float | None, float | None]:
    """Return the geometric mean of ratios with its 95% limits; None for both of a single one."""
    from scipy.stats import t

    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.fmean(logs)
    if len(logs) < 2:
        return math.exp(middle), None, None
    reach = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def result(rows: list[dict[str, Any]], wanted: Options) -> Result:
    """Print a line a task and return the figure over all pairs."""
    found = pairs(rows)
    spread = {}
    for task in (*sorted({task for task, _ in found}), "all"):
        ratios = [ratio for (of, _), ratio in found.items() if task in (of, "all")]
        middle, low, high = mean_ratio(ratios)
        limits = {"mean": middle, "low": low, "high": high}
        spread[task] = {name: value and round(value, 3) for name, value in limits.items()}
        told = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        say(f"{task}: {middle:.2f}{told} of the rows, {len(ratios)} pairs")
    late = sum(not row["passed"] for row in rows)
    high = spread["all"]["high"]
    holds = None if wanted.quick or high is None else high <= 0.7
    note = f"{late} of {len(rows)} runs had not passed at the last volume"
    return Result(
        NAME, spread["all"]["mean"], "of the rows that seeds in turn need", TARGET, holds, len(found), spread, note
    )


if __name__ == "__main__":
    main()
