"""Rehearse the studies with pocket models, and measure how long the main table's rehearsal takes.

    python benchmarks/rehearsals.py                           all of experiments/pocket_*.yaml, about an hour
    python benchmarks/rehearsals.py --only pocket_judges      one of them
    python benchmarks/rehearsals.py --homes DIR               keep each study's journal in DIR/STUDY
    python benchmarks/rehearsals.py --quick                   one cell of the main table with preset=smoke

Runs each study with `launch=joblib` (two jobs side by side) from nothing, with a journal of its own, into `results/`;
then `llamaduo report`, `llamaduo verify --archive`, and once more `llamaduo verify` on the archive alone. Tables,
figures, pages and archives are kept in `results/`. The figure is the minutes of the main table's rehearsal, its report
and its verification included; the claim holds if that is at most 25 on two cores, and all outputs were made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from measure import ROOT, Options, Ran, Result, conclude, folder, llamaduo, options, say

MAIN = "pocket_main_table"
STUDIES = (
    MAIN, "pocket_volume_scaling", "pocket_generators", "pocket_ranks", "pocket_judges", "pocket_cost",
    "pocket_few_shot", "pocket_continue_or_restart", "pocket_judge_prompt", "pocket_ceiling", "pocket_small_models",
    "pocket_seeds", "pocket_no_synthesis",
)  # fmt: skip
OUTPUTS = ("runs.csv", "runs.parquet", "report.html", "tables/main_precision.tex", "figures", "runs.tar.xz")
ONE_CELL = ("local_model=pocket_llama", "task=classification", "preset=smoke")
TARGET = "at most 25 minutes on 2 cores; all outputs made, and verified"


def main() -> None:
    picking = argparse.ArgumentParser(add_help=False)
    picking.add_argument("--only", nargs="+", default=list(STUDIES))
    picking.add_argument("--homes", type=Path)
    picked, rest = picking.parse_known_args()
    wanted = options(__doc__, rest)
    load = os.getloadavg()
    if wanted.quick:
        with folder() as place:
            done = {MAIN: rehearse(MAIN, place / "results", place, wanted, ONE_CELL)}
    else:
        with folder() as place:
            homes = (picked.homes or place).resolve()
            done = {name: rehearse(name, ROOT / "results", homes, wanted, ()) for name in picked.only}
    conclude(result(done, wanted), done, wanted, load)


def rehearse(name: str, results: Path, homes: Path, wanted: Options, changed: tuple[str, ...]) -> dict[str, Any]:
    """Run a study from nothing, report on it, verify it, and verify its archive where nothing else is."""
    study, archive = results / name, results / name / "runs.tar.xz"
    shutil.rmtree(study, ignore_errors=True)
    with folder() as place:
        home, alone = homes / name, place / "alone" / name
        command = ("run", "-cd", str(ROOT / "experiments"), "-cn", name, "launch=joblib", *changed, *wanted.overrides)
        steps = {
            "run": lambda: llamaduo(*command, *_elsewhere(results), cwd=ROOT, home=home),
            "report": lambda: llamaduo("report", _shown(study), cwd=ROOT, home=home),
            "verify": lambda: llamaduo("verify", _shown(study), "--archive", str(archive), cwd=ROOT, home=home),
            "archive": lambda: _alone(study, alone, place / "another home"),
        }
        made: dict[str, Any] = {}
        for step, work in steps.items():
            ran = work()
            made[step] = {"exit_code": ran.exit_code, "seconds": round(ran.seconds, 1)}
            say(f"{name}, {step}: {ran.seconds:.0f} s, exit code {ran.exit_code}")
            if ran.exit_code:
                say(ran.stdout[-2000:] + ran.stderr[-2000:])
    made["missing"] = [output for output in OUTPUTS if not (study / output).exists()]
    made["bytes"] = archive.stat().st_size if archive.exists() else None
    return made


def _elsewhere(results: Path) -> tuple[str, ...]:
    return () if results == ROOT / "results" else (f"runtime.results={results}",)


def _shown(study: Path) -> str:
    return str(study.relative_to(ROOT)) if study.is_relative_to(ROOT) else str(study)


def _alone(study: Path, alone: Path, home: Path) -> Ran:
    """Verify report and archive without the run folders and the journal that they were made of."""
    keep = ("runs.*", "tables", "figures", "report.html")
    for path in (path for pattern in keep for path in study.glob(pattern)):
        target = alone / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target)
    return llamaduo("verify", str(alone), cwd=alone, home=home)


def result(done: dict[str, dict[str, Any]], wanted: Options) -> Result:
    """Return the figure of the main table's rehearsal, and whether everything came out."""
    steps = ("run", "report", "verify", "archive")
    sound = all(not made["missing"] and not any(made[step]["exit_code"] for step in steps) for made in done.values())
    found = done.get(MAIN)
    minutes = round(sum(found[step]["seconds"] for step in steps) / 60, 2) if found else None
    holds = None if wanted.quick or minutes is None else sound and minutes <= 25
    note = "one run of the smoke preset" if wanted.quick else f"{len(done)} rehearsals, two jobs side by side"
    spread = {name: round(sum(made[step]["seconds"] for step in steps) / 60, 2) for name, made in done.items()}
    return Result("rehearsals", minutes, "minutes", TARGET, holds, len(done), spread, note)


if __name__ == "__main__":
    sys.exit(main())
