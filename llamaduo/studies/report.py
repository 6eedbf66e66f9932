"""Report: summary tables of all runs below a folder, as text and CSV, from what the runs recorded.

Writes `summary.csv` (a row a run) and `iterations.csv` (a row an iteration) into the folder; returns the
text. Reads `config.yaml`, `state.json` and `metrics.jsonl`; calls no model and loads none.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from llamaduo.display import iterations_table, span
from llamaduo.run_dir import write_text
from llamaduo.studies.runs import RunRecord, read_runs
from llamaduo.studies.study import Study, read_study
from llamaduo.studies.tidy import write


def report(directory: str) -> str:
    """Write the CSV tables into the folder and return them as text."""
    root = Path(directory)
    write_report(read_study(root), root)
    runs = read_runs(root)
    summary = [_summary(run, root) for run in runs]
    write_text(root / "summary.csv", _csv(summary))
    write_text(root / "iterations.csv", _csv([row for run in runs for row in _iterations(run, root)]))
    out = io.StringIO()
    console = Console(file=out, width=160, highlight=False, markup=False)
    console.print(_summary_table(runs, root))
    for run in runs:
        console.print()
        console.print(iterations_table(run.history, title=str(run.folder.relative_to(root))))
        console.print(run.state.verdict or f"status: {run.state.status}")
    console.print(f"\n{root / 'summary.csv'}\n{root / 'iterations.csv'}")
    return out.getvalue()


def _identity(run: RunRecord, root: Path) -> dict[str, Any]:
    config = run.config
    judge = config["judge"]
    return {
        "run": str(run.folder.relative_to(root)),
        "task": config["task"]["name"],
        "local_model": config["local_model"]["name"],
        "service_llm": config["service_llm"]["name"] if config["synthesis"]["enabled"] else "",
        "judges": " ".join(judge["panel"]) if judge["kind"] == "service" else "chrf rouge_l",
        "protocol": config["protocol"]["name"],
        "lora_r": config["train"]["lora_r"],
    }


def _summary(run: RunRecord, root: Path) -> dict[str, Any]:
    chosen = run.chosen
    row = _identity(run, root) | {
        "status": run.state.status,
        "stop_reason": run.state.stop_reason,
        "iterations": run.state.iterations,
        "accepted_iteration": run.state.accepted_iteration,
        "best_iteration": run.state.best_iteration,
        "cost_usd": run.state.cost_usd,
        "seconds": round(sum(line.seconds for line in run.history), 1),
    }
    for name in ("train_rows", "similarity_mean", "similarity_low", "similarity_high", "precision_mean",
                 "precision_low", "precision_high", "coverage", "answers", "unanswered", "unscored"):  # fmt: skip
        row[name] = getattr(chosen, name) if chosen else None
    for name in ("similarity", "precision"):
        found = (run.state.test or {}).get(name) or {}
        row |= {f"test_{name}_{limit}": found.get(limit) for limit in ("mean", "low", "high")}
    return row


def _iterations(run: RunRecord, root: Path) -> list[dict[str, Any]]:
    rows = []
    for line in run.history:
        tree = asdict(line)
        judges = tree.pop("judges")
        rows.append(_identity(run, root) | {"judge": "all"} | tree)
        for name, scores in judges.items():
            rows.append(_identity(run, root) | {"judge": name} | dict.fromkeys(tree) | _of_iteration(tree) | scores)
    return rows


def _of_iteration(tree: dict[str, Any]) -> dict[str, Any]:
    return {name: tree[name] for name in ("iteration", "train_rows", "synthetic_rows")}


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _summary_table(runs: list[RunRecord], root: Path) -> Table:
    table = Table(title=f"{len(runs)} runs in {root}", title_justify="left", box=None, pad_edge=False)
    for name in ("task", "local model", "judges", "stopped by", "iterations", "rows", "similarity [95%]",
                 "precision [95%]", "test precision", "cost"):  # fmt: skip
        table.add_column(name)
    for run in runs:
        chosen, identity = run.chosen, _identity(run, root)
        test = (run.state.test or {}).get("precision") or {}
        table.add_row(
            identity["task"],
            identity["local_model"],
            identity["judges"],
            run.state.stop_reason or run.state.status,
            str(run.state.iterations),
            f"{chosen.train_rows:,}" if chosen else "",
            span(chosen.similarity_mean, chosen.similarity_low, chosen.similarity_high) if chosen else "",
            span(chosen.precision_mean, chosen.precision_low, chosen.precision_high) if chosen else "",
            span(test["mean"], test["low"], test["high"]) if test else "",
            f"${run.state.cost_usd:.2f}",
        )
    return table


def write_report(study: Study, out: Path) -> None:
    """Write the report of a study into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    write(study.rows, out)
