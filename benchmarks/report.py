"""Measure the report of a large study: 500 runs of 60 answers, each judged by 3 judges 10 times, 900,000 verdicts.

    python benchmarks/report.py             500 runs, made in about a minute, then reported three times
    python benchmarks/report.py --quick     50 runs, reported once

The runs are made without a model: 4 tasks x 5 models x 5 LoRA ranks x 5 generators, all finished, with the verdicts of
one iteration each. 20 of them are drawn, the others are copies of these under another configuration. `llamaduo report`
then runs as its own process, start and imports included, and writes all that a report consists of. The figure is the
median wall time in seconds; memory is the resident peak of that process.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from itertools import product
from pathlib import Path
from typing import Any

from measure import Options, Result, conclude, folder, llamaduo, options, say, summary

SECONDS, PEAK_GB = 20.0, 1.5
TASKS = ("classification", "closed_qa", "coding", "summarization")
MODELS = ("gemma_2b", "gemma_7b", "mistral_7b_v0_3", "llama3_8b", "llama3_2_3b")
RANKS = (4, 8, 16, 32, 64)
GENERATORS = (
    ("gpt_4o", "openai"), ("gpt_6_luna", "openai"), ("claude_3_sonnet", "anthropic"),
    ("claude_sonnet_5_5", "anthropic"), ("gemini_1_5_flash", "gemini"),
)  # fmt: skip
PROMPTS, SAMPLES, REPEATS, JUDGES = 15, 4, 10, 3


def main() -> None:
    wanted = options(__doc__)
    load = os.getloadavg()
    if wanted.overrides:
        sys.exit("report: there is no run here whose settings could be changed; leave them out.")
    runs, rounds = (50, 1) if wanted.quick else (500, 3)
    with folder() as place:
        verdicts = made(place, runs)
        say(f"{runs} runs with {verdicts:,} verdicts made")
        raw = [measured(place, number) for number in range(rounds)]
    conclude(result(raw, runs, verdicts, wanted), raw, wanted, load)


def made(place: Path, runs: int) -> int:
    """Write the runs below `place/study`; return the number of their verdicts."""
    from tests.made_runs import configuration, make_run

    known = configuration("preset=service", "protocol=paper", "judge=paper_panel", "service.replay=true", "study=study")
    drawn: dict[tuple[str, str], Path] = {}
    # Quick or not, all tasks and models take part: the first runs are those of the first generator and rank.
    grid = list(product(GENERATORS, RANKS, TASKS, MODELS))[:runs]
    for number, (generator, rank, task, model) in enumerate(grid):
        config = configured(known, task, model, rank, generator)
        target = place / "study" / f"{model}-{task}-{number:08x}"
        if (task, model) not in drawn:
            level = 60.0 + 4 * MODELS.index(model) + 3 * TASKS.index(task)
            drawn[task, model] = make_run(
                target, config=config, level=level, gains=(0.0,), prompts=PROMPTS, samples=SAMPLES, repeats=REPEATS,
                seed=number,
            )  # fmt: skip
            without_test(target)
        else:
            shutil.copytree(drawn[task, model], target)
            (target / "config.yaml").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    return len(grid) * PROMPTS * SAMPLES * REPEATS * JUDGES


def configured(known: dict[str, Any], task: str, model: str, rank: int, generator: tuple[str, str]) -> dict[str, Any]:
    """Return the configuration of one run; a generator is its name and provider."""
    return known | {
        "task": known["task"] | {"name": task},
        "local_model": known["local_model"] | {"name": model},
        "train": known["train"] | {"lora_r": rank, "lora_alpha": 2 * rank},
        "service_llm": known["service_llm"] | {"name": generator[0], "provider": generator[1]},
    }


def without_test(run: Path) -> None:
    """Leave the iteration's answers as the ones that count, as under `protocol=paper`."""
    shutil.rmtree(run / "iterations/test")
    state = json.loads((run / "state.json").read_text(encoding="utf-8"))
    (run / "state.json").write_text(json.dumps(state | {"test": None}), encoding="utf-8")


def measured(place: Path, number: int) -> dict[str, Any]:
    """Report once, over nothing that a report wrote before."""
    for left in ("tables", "figures"):
        shutil.rmtree(place / "study" / left, ignore_errors=True)
    ran = llamaduo("report", "study", cwd=place, home=place / "home")
    if ran.exit_code:
        sys.exit(f"report: exit code {ran.exit_code}: {ran.stderr.strip()[-500:]}")
    written = [file for file in (place / "study").rglob("*") if file.suffix in (".md", ".html", ".svg", ".parquet")]
    found = {
        "seconds": round(ran.seconds, 3), "peak_gb": round(ran.peak_bytes / 1e9, 3), "files": len(written),
        "lines": ran.stdout.count("\n"),
    }  # fmt: skip
    say(f"round {number}: {found['seconds']:.1f} s, {found['peak_gb']:.2f} GB, {found['files']} files")
    return found


def result(raw: list[dict[str, Any]], runs: int, verdicts: int, wanted: Options) -> Result:
    """Sum the rounds up."""
    figure = statistics.median(run["seconds"] for run in raw)
    peak = max(run["peak_gb"] for run in raw)
    spread = {"seconds": summary([run["seconds"] for run in raw]), "peak_gb": summary([run["peak_gb"] for run in raw])}
    note = f"{runs} runs, {verdicts:,} verdicts, one process, start included"
    if wanted.quick:
        note = f"quick: {note}"
    holds = None if wanted.quick else figure <= SECONDS and peak <= PEAK_GB
    target = f"<= {SECONDS:g} s (median) and <= {PEAK_GB:g} GB"
    return Result("report", round(figure, 2), "s", target, holds, len(raw), spread, note)


if __name__ == "__main__":
    main()
