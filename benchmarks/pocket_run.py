"""Measure the default run: `llamaduo run` in an empty folder, without a key, a GPU or anything kept from before.

    python benchmarks/pocket_run.py             three runs, one after the other
    python benchmarks/pocket_run.py --quick     one run, ended after one iteration

The claim has five conditions. The median wall time, start of the process to its end, is at most 120 s; and in every
run the largest process holds at most 2 GB (2e9 bytes) of memory, at least three iterations are made, the gate is
passed, and the overall score (mean of the two mean scores, of 100) of the first iteration lies at least 20 points
below the last one's. The figure is the median wall time in seconds.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

from measure import Options, Ran, Result, conclude, folder, llamaduo, options, say, summary

SECONDS, BYTES, ITERATIONS, GAIN = 120, 2e9, 3, 20
TARGET = (
    f"median <= {SECONDS} s; in every run: <= {BYTES / 1e9:g} GB, >= {ITERATIONS} iterations, gate passed, "
    f"first overall score >= {GAIN} points below the last"
)


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    raw = []
    for number in range(1 if wanted.quick else 3):
        raw.append(measured(wanted))
        say(f"run {number}: {json.dumps({key: value for key, value in raw[-1].items() if key != 'metrics'})}")
    conclude(result(raw, wanted), raw, wanted, load)


def measured(wanted: Options) -> dict[str, Any]:
    """Run once in an empty folder and return what it took and what it left behind."""
    limit = ["loop.max_iterations=1"] if wanted.quick else []
    with folder() as place:
        work = place / "work"
        work.mkdir()
        ran = llamaduo("run", *limit, *wanted.overrides, cwd=work, home=place / "home")
        return figures(ran, work / "results")


def figures(ran: Ran, results: Path) -> dict[str, Any]:
    """Return a run's figures; a run that failed has no state to speak of, and its error."""
    states = list(results.glob("*/*/state.json"))
    state = json.loads(states[0].read_text(encoding="utf-8")) if len(states) == 1 else {}
    metrics = _lines(states[0].with_name("metrics.jsonl")) if state else []
    scores = [overall(line) for line in metrics]
    return {
        "seconds": round(ran.seconds, 2),
        "peak_bytes": ran.peak_bytes,
        "exit_code": ran.exit_code,
        "error": ran.stderr.strip()[-500:] if ran.exit_code else None,
        "iterations": state.get("iterations", 0),
        "stop_reason": state.get("stop_reason"),
        "overall": scores,
        "gain": gain(scores),
        "metrics": metrics,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def overall(line: dict[str, Any]) -> float | None:
    """Return the mean of an iteration's two mean scores; None unless both exist."""
    means = [line["similarity_mean"], line["precision_mean"]]
    return None if None in means else round(sum(means) / 2, 3)


def gain(scores: list[float | None]) -> float | None:
    """Return by how many points the last iteration beats the first; None if one of them has no score."""
    if not scores or scores[0] is None or scores[-1] is None:
        return None
    return round(scores[-1] - scores[0], 3)


def conditions(raw: list[dict[str, Any]]) -> dict[str, bool]:
    """Return the claim's five conditions, and whether each of them held."""
    return {
        "seconds": statistics.median(run["seconds"] for run in raw) <= SECONDS,
        "memory": all(run["peak_bytes"] <= BYTES for run in raw),
        "iterations": all(run["iterations"] >= ITERATIONS for run in raw),
        "passed": all(run["exit_code"] == 0 and run["stop_reason"] == "passed" for run in raw),
        "gain": all(run["gain"] is not None and run["gain"] >= GAIN for run in raw),
    }


def result(raw: list[dict[str, Any]], wanted: Options) -> Result:
    """Sum the runs up."""
    held, seconds = conditions(raw), [run["seconds"] for run in raw if run["exit_code"] == 0]
    missed = [name for name, holds in held.items() if not holds]
    if wanted.quick:
        holds = None
        note = "quick: ended after one iteration, so wall time and memory are those of a part, and the claim stays open"
    else:
        holds = not missed
        note = f"missed: {', '.join(missed)}" if missed else "all five conditions held"
    failed = [run["error"] for run in raw if run["exit_code"]]
    if failed:
        holds, note = False, f"{len(failed)} of {len(raw)} runs failed; the last said: {failed[-1]}"
    spread = {
        "seconds": summary(seconds) if seconds else None,
        "peak_gb": summary([run["peak_bytes"] / 1e9 for run in raw]),
        "iterations": summary([run["iterations"] for run in raw]),
        "gain_points": [run["gain"] for run in raw],
    }
    figure = round(statistics.median(seconds), 2) if seconds else None
    return Result("pocket_run", figure, "s", TARGET, holds, len(raw), spread, note)


if __name__ == "__main__":
    main()
