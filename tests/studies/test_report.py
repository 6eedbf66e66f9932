"""The report: tables from what runs recorded, whole or broken off, without asking any model.

Run folders are written by hand here, so that the format is tested and not the code that writes it.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamaduo.errors import InputError
from llamaduo.studies.report import report
from llamaduo.studies.runs import read_runs

CONFIG = """
study: s
name: n
service_llm: {{name: pocket_teacher}}
judge: {{kind: {kind}, panel: {{{panel}}}}}
local_model: {{name: "{model}"}}
task: {{name: {task}}}
train: {{lora_r: 16}}
synthesis: {{enabled: {synthesis}}}
protocol: {{name: clean}}
"""
LINE: dict[str, Any] = {
    "iteration": 0, "train_rows": 1064, "synthetic_rows": 1000, "skipped_rows": 0,
    "similarity_mean": 81.25, "similarity_low": 79.5, "similarity_high": 83.0,
    "precision_mean": 91.0, "precision_low": None, "precision_high": None, "coverage": 60.0,
    "answers": 96, "unanswered": 1, "scored": 190, "unscored": 2, "train_loss": 0.25, "cost_usd": 0.5, "seconds": 12.5,
    "judges": {"gpt_4o": {"similarity_mean": 80.0, "scored": 95, "unscored": 1, "cost_usd": 0.5}},
}  # fmt: skip
STATE: dict[str, Any] = {
    "status": "done", "stop_reason": "passed", "iterations": 1, "accepted_iteration": 0, "cost_usd": 1.25,
    "best_iteration": 0, "verdict": "Passed: the model takes over [see the gate].", "error": None,
    "test": {"similarity": {"mean": 80.0, "low": 78.0, "high": 82.0, "n": 96},
             "precision": {"mean": 90.0, "low": 88.0, "high": 92.0, "n": 96}},
}  # fmt: skip


def run_folder(
    name: str,
    *,
    lines: list[dict[str, Any]] | None = None,
    state: dict[str, Any] | None = None,
    **config: str,
) -> Path:
    folder = Path("results") / name
    folder.mkdir(parents=True)
    known = {"kind": "service", "panel": "gpt_4o: {}", "model": "gemma", "task": "coding", "synthesis": "true"}
    (folder / "config.yaml").write_text(CONFIG.format(**known | config))
    (folder / "state.json").write_text(json.dumps(STATE if state is None else state))
    made = [LINE] if lines is None else lines
    if made:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))
    return folder


def table(name: str, root: str = "results") -> list[dict[str, str]]:
    with open(Path(root) / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_is_a_row_of_the_summary() -> None:
    run_folder("study/run-1a2b3c4d")
    report("results")
    (row,) = table("summary.csv")
    assert row["run"] == "study/run-1a2b3c4d"
    assert (row["task"], row["local_model"], row["service_llm"], row["judges"]) == (
        "coding",
        "gemma",
        "pocket_teacher",
        "gpt_4o",
    )
    assert (row["status"], row["stop_reason"], row["accepted_iteration"], row["best_iteration"]) == (
        "done",
        "passed",
        "0",
        "0",
    )
    assert (row["train_rows"], row["similarity_mean"], row["similarity_low"]) == ("1064", "81.25", "79.5")
    assert (row["precision_low"], row["answers"], row["unanswered"], row["unscored"]) == ("", "96", "1", "2")
    assert (row["test_similarity_mean"], row["test_precision_high"]) == ("80.0", "92.0")
    assert (row["cost_usd"], row["seconds"], row["lora_r"], row["protocol"]) == ("1.25", "12.5", "16", "clean")


def test_an_iteration_is_a_row_for_all_and_one_a_judge() -> None:
    run_folder("a", lines=[LINE, {**LINE, "iteration": 1, "similarity_mean": None}])
    report("results")
    rows = table("iterations.csv")
    assert [(row["iteration"], row["judge"]) for row in rows] == [
        ("0", "all"),
        ("0", "gpt_4o"),
        ("1", "all"),
        ("1", "gpt_4o"),
    ]
    assert (rows[0]["similarity_mean"], rows[1]["similarity_mean"], rows[2]["similarity_mean"]) == ("81.25", "80.0", "")
    assert (rows[1]["train_rows"], rows[1]["answers"], rows[1]["scored"]) == ("1064", "", "95")
    assert {row["judges"] for row in rows} == {"gpt_4o"}  # the panel


def test_the_text_shows_scores_with_their_intervals_and_the_verdict() -> None:
    run_folder("study/run")
    text = report("results")
    assert "1 runs in results" in text
    assert "81.2 [79.5, 83.0]" in text
    assert "90.0 [88.0, 92.0]" in text
    assert "91.0" in text
    assert "1,064" in text
    assert "$1.25" in text
    assert "takes over [see the gate]." in text
    assert text.rstrip().endswith("results/summary.csv\nresults/iterations.csv")


def test_the_best_iteration_is_the_one_in_the_summary() -> None:
    lines = [{**LINE, "iteration": n, "similarity_mean": 50.0 + n} for n in range(3)]
    run_folder("a", lines=lines, state={**STATE, "best_iteration": 1, "iterations": 3})
    report("results")
    assert table("summary.csv")[0]["similarity_mean"] == "51.0"


def test_runs_are_found_at_any_depth_and_in_order() -> None:
    for name in ("b/2", "a/1", "c"):
        run_folder(name, task="coding" if name == "c" else "closed_qa")
    assert [run.folder.as_posix() for run in read_runs(Path("results"))] == ["results/a/1", "results/b/2", "results/c"]
    report("results")
    assert [row["run"] for row in table("summary.csv")] == ["a/1", "b/2", "c"]


def test_one_runs_own_folder_can_be_reported_on() -> None:
    folder = run_folder("study/run")
    text = report(str(folder))
    assert "1 runs" in text
    assert table("summary.csv", str(folder))[0]["task"] == "coding"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ({"status": "running", "iterations": 0}, "running"),
        ({"status": "failed", "iterations": 0, "error": "gpt_4o is out of reach"}, "failed"),
        ({"status": "done", "stop_reason": "budget", "best_iteration": None, "verdict": "No verdict"}, "budget"),
    ],
)
def test_a_run_without_iterations_is_shown_as_it_stands(state: dict[str, Any], shown: str) -> None:
    run_folder("a", lines=[], state=state)
    assert shown in report("results")
    (row,) = table("summary.csv")
    assert row["status"] == state["status"]
    assert row["similarity_mean"] == row["test_precision_mean"] == row["train_rows"] == ""
    assert table("iterations.csv") == []


def test_a_run_under_way_shows_what_it_has() -> None:
    run_folder("a", state={"status": "running", "iterations": 1, "cost_usd": 0.5})
    text = report("results")
    assert "status: running" in text
    assert "81.2 [79.5, 83.0]" in text  # among its iterations, though none is the best one yet
    assert table("summary.csv")[0]["similarity_mean"] == ""


def test_the_reference_judge_and_no_synthesis_are_named_as_such() -> None:
    run_folder("a", kind="reference", panel="", synthesis="false")
    report("results")
    (row,) = table("summary.csv")
    assert (row["judges"], row["service_llm"]) == ("chrf rouge_l", "")


def test_every_member_of_a_panel_is_named() -> None:
    run_folder("a", panel="gpt_4o: {}, claude: {}")
    report("results")
    assert table("summary.csv")[0]["judges"] == "gpt_4o claude"


def test_reporting_again_gives_the_same_and_reads_no_table_as_a_run() -> None:
    run_folder("a")
    assert report("results") == report("results")
    assert len(table("summary.csv")) == 1


@pytest.mark.parametrize("make", ["nothing", "empty", "no run"])
def test_a_folder_without_a_run_is_refused(make: str) -> None:
    if make != "nothing":
        Path("results/half").mkdir(parents=True)
    if make == "no run":
        Path("results/half/state.json").write_text("{}")
    with pytest.raises(InputError, match=r"results: no (such folder|run folder in it)"):
        report("results")


def test_a_state_that_can_not_be_read_is_named() -> None:
    (run_folder("a") / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"a/state\.json: can't be read"):
        report("results")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.jsonl", '{"iteration": 0'),
        ("metrics.jsonl", '{"iteration": 0}\n'),
        ("config.yaml", "a: [b\n}"),
        ("config.yaml", "task: {name: coding}\n"),
        ("config.yaml", "- a list\n"),
    ],
)
def test_a_file_that_can_not_be_read_is_named(name: str, content: str) -> None:
    (run_folder("study/a") / name).write_text(content)
    with pytest.raises(InputError, match=name):
        report("results")


def test_square_brackets_are_shown_as_they_are() -> None:
    run_folder("run[bold]a", model="gemma[it]", state={**STATE, "verdict": "Passed: [red]gemma takes over."})
    text = report("results")
    assert "run[bold]a" in text
    assert "gemma[it]" in text
    assert "[red]gemma takes over." in text


def test_it_loads_no_model_and_asks_nobody() -> None:
    run_folder("a")
    code = (
        "import sys; from llamaduo.studies.report import report; report('results'); "
        "print({'torch', 'transformers', 'litellm', 'wandb', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
