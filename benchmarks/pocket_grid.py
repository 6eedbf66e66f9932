"""Measure whether the loop moves every pocket task to every pocket model, and that it takes synthetic data to do so.

    python benchmarks/pocket_grid.py             both studies, 16 runs, one after the other
    python benchmarks/pocket_grid.py --quick     one run of each, with preset=smoke: what it scores means nothing

Runs the studies experiments/pocket_main_table.yaml (three local models x four tasks, judged by a panel of three) and
pocket_no_synthesis.yaml (one local model x four tasks, coverage data alone, the same panel), and prints a table of
every cell: the rule that stopped it, iterations, and the scores of its chosen iteration. The figure is the number of
cells that passed the gate, of 12; the claim holds if all 12 did and none of the 4 without synthesis. The table is kept
in results/pocket_grid.md beside the JSON.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from measure import RESULTS, ROOT, Options, Ran, Result, conclude, folder, llamaduo, options, say, summary

CELLS = {"pocket_main_table": 12, "pocket_no_synthesis": 4}
TARGET = "12 of 12 cells pass the gate; 0 of 4 without synthesis do"
ONE_CELL = {"local_model": "pocket_llama", "task": "classification", "preset": "smoke"}
SCORES = ("similarity", "precision", "test similarity", "test precision")


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    cells: list[dict[str, Any]] = []
    studies = {}
    with folder() as place:
        for study in CELLS:
            say(f"running the study {study} ...")
            ran = llamaduo(*arguments(study, place, wanted), cwd=place, home=place / study)
            studies[study] = {"exit_code": ran.exit_code, "seconds": round(ran.seconds, 1), "error": error(ran)}
            cells += [cell | {"study": study} for cell in read(place / "results" / study)]
    text = table(cells)
    say(text)
    if wanted.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "pocket_grid.md").write_text(text + "\n", encoding="utf-8")
    conclude(result(cells, studies, wanted), {"studies": studies, "cells": cells}, wanted, load)


def arguments(study: str, place: Path, wanted: Options) -> list[str]:
    """Return the command that runs a study; a home of its own keeps it from finding the other one's replies."""
    changed = dict(ONE_CELL) if wanted.quick else {}
    changed |= dict(override.split("=", 1) for override in wanted.overrides)
    changed["runtime.results"] = str(place / "results")
    return [
        "run",
        "-cd",
        str(ROOT / "experiments"),
        "-cn",
        study,
        *(f"{key}={value}" for key, value in changed.items()),
    ]


def error(ran: Ran) -> str | None:
    """Return what a study that failed said."""
    return ran.stderr.strip()[-500:] if ran.exit_code else None


def read(study: Path) -> list[dict[str, Any]]:
    """Return the cells of a study, a run each; none if it never began."""
    from llamaduo.errors import InputError
    from llamaduo.runs.record import read_runs

    try:
        runs = read_runs(study)
    except InputError:
        return []
    return [cell(run) for run in runs]


def cell(run: Any) -> dict[str, Any]:
    """Return what a run's folder says of its cell; the scores are the chosen iteration's."""
    best = run.state.best_iteration
    line = run.history[best] if best is not None else None
    limits = ("mean", "low", "high")
    dev = {name: {limit: getattr(line, f"{name}_{limit}", None) for limit in limits} for name in SCORES[:2]}
    found = run.state.test or {}
    test = {f"test {name}": {limit: found.get(name, {}).get(limit) for limit in limits} for name in SCORES[:2]}
    return {
        "local_model": run.config["local_model"]["name"],
        "task": run.config["task"]["name"],
        "synthesis": run.config["synthesis"]["enabled"],
        "status": run.state.status,
        "stop_reason": run.state.stop_reason,
        "error": run.state.error,
        "iterations": run.state.iterations,
        "train_rows": line.train_rows if line else None,
        "answers": line.answers if line else None,
        "test_answers": found.get("answers"),
        "unscored": line.unscored if line else None,
        "seconds": round(artifact_seconds(run.folder), 1),
        **dev,
        **test,
    }


def artifact_seconds(run: Path) -> float:
    """Return how long a run's artifacts took, all iterations and the test split together."""
    markers = sorted((run / "iterations").rglob("*.done"))
    return float(sum(json.loads(marker.read_text(encoding="utf-8"))["seconds"] for marker in markers))


def table(cells: list[dict[str, Any]]) -> str:
    """Return the cells as a Markdown table."""
    names = [
        "local model",
        "task",
        "synthesis",
        "stopped by",
        "iterations",
        "rows",
        *SCORES,
        "answers (test)",
        "seconds",
    ]
    lines = [
        "Scores of the chosen iteration: mean of 100 with its 95% interval, on dev and on test; answers are their n.",
        "",
        "| " + " | ".join(names) + " |",
        "|" + " --- |" * len(names),
    ]
    for row in cells:
        values = [
            row["local_model"], row["task"], "yes" if row["synthesis"] else "no", row["stop_reason"] or row["status"],
            row["iterations"], row["train_rows"], *(score(row[name]) for name in SCORES),
            f"{row['answers']} ({row['test_answers']})", row["seconds"],
        ]  # fmt: skip
        lines.append("| " + " | ".join("none" if value is None else str(value) for value in values) + " |")
    return "\n".join(lines)


def score(estimate: dict[str, float | None]) -> str:
    """Return a mean with its interval."""
    mean, low, high = (estimate[limit] for limit in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return "not scored"
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def result(cells: list[dict[str, Any]], studies: dict[str, dict[str, Any]], wanted: Options) -> Result:
    """Sum the cells up."""
    made = Counter(row["study"] for row in cells)
    passed = Counter(row["study"] for row in cells if row["stop_reason"] == "passed")
    expected = dict.fromkeys(CELLS, 1) if wanted.quick else CELLS
    complete = all(made[study] == count for study, count in expected.items())
    broken = [f"{study}: {found['error']}" for study, found in studies.items() if found["exit_code"]]
    grid, bare = (passed[study] for study in CELLS)
    count, bare_count = expected.values()
    holds: bool | None = complete and not broken and (grid, bare) == (count, 0)
    notes = [f"{bare} of {bare_count} without synthesis passed", *broken]
    if not complete:
        notes.append(f"cells found: {dict(made)}")
    if wanted.quick:
        holds = None if complete and not broken else False
        notes.insert(0, "quick: one cell of each study, with preset=smoke, so whether 12 pass stays open")
    by_model = Counter({row["local_model"]: 0 for row in cells if row["study"] == "pocket_main_table"})
    by_model.update(
        row["local_model"] for row in cells if row["study"] == "pocket_main_table" and row["stop_reason"] == "passed"
    )
    spread = {
        "passed_by_model": dict(by_model),
        "passed_without_synthesis": bare,
        "cell_seconds": summary([row["seconds"] for row in cells]) if cells else None,
    }
    unit = f"cells passed of {count}"
    return Result("pocket_grid", grid, unit, TARGET, holds, count, spread, "; ".join(notes))


if __name__ == "__main__":
    main()
