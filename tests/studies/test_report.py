"""The report: files and tables from what runs recorded, whole or broken off, without asking any model.

Run folders are written by hand here, so that the format is tested and not the code that writes it.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llamaduo.errors import InputError
from llamaduo.runs.record import read_runs
from llamaduo.studies.report import report, write_report
from llamaduo.studies.study import read_study
from tests.made_runs import make_study

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
             "precision": {"mean": 90.0, "low": 88.0, "high": 92.0, "n": 96},
             "judges": {"gpt_4o": {"similarity_mean": 80.0, "precision_mean": 90.0}}},
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


def test_a_run_has_a_row_for_each_iteration_and_judge_and_one_is_reported() -> None:
    run_folder("study/run-1a2b3c4d", lines=[LINE, {**LINE, "iteration": 1, "similarity_mean": None}])
    report("results")
    rows = table("runs.csv")
    assert [(row["split"], row["iteration"], row["judge"], row["reported"]) for row in rows] == [
        ("dev", "0", "all", "False"),
        ("dev", "0", "gpt_4o", "False"),
        ("dev", "1", "all", "False"),
        ("dev", "1", "gpt_4o", "False"),
        ("test", "0", "all", "True"),
        ("test", "0", "gpt_4o", "True"),
    ]
    assert {(row["run"], row["task"], row["local_model"]) for row in rows} == {
        ("study/run-1a2b3c4d", "coding", "gemma")
    }
    assert (rows[0]["similarity_mean"], rows[1]["similarity_mean"], rows[2]["similarity_mean"]) == ("81.25", "80.0", "")
    assert (rows[0]["train_rows"], rows[0]["similarity_low"], rows[0]["precision_low"]) == ("1064", "79.5", "")
    assert (rows[4]["similarity_mean"], rows[4]["precision_high"], rows[4]["lora_r"]) == ("80.0", "92.0", "16")


def test_parquet_says_the_same_as_csv() -> None:
    import pyarrow.parquet

    run_folder("a")
    report("results")
    rows = pyarrow.parquet.read_table("results/runs.parquet").to_pylist()
    told = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert told == table("runs.csv")


def test_the_text_shows_scores_with_their_intervals_and_the_verdict() -> None:
    run_folder("study/run")
    text = report("results")
    assert "1 runs in results, 1 done" in text
    assert "81.2 [79.5, 83.0]" in text  # the iteration
    assert "90.0 [88.0, 92.0]" in text  # the test split
    assert "1,064" in text
    assert "$1.25" in text
    assert "takes over [see the gate]." in text
    assert "\nresults/runs.csv\nresults/runs.parquet\n" in text
    assert text.rstrip().splitlines()[-1].startswith("results/tables/: ")


def test_a_terminal_gets_no_more_than_forty_runs() -> None:
    for number in range(43):
        run_folder(f"run-{number:02d}", task=f"task_{number}")
    lines = report("results").splitlines()
    assert sum("gemma" in line for line in lines) == 40
    assert "and 3 more, see results/runs.csv" in lines
    assert len(lines) < 50


def test_every_table_comes_as_markdown_latex_html_and_csv() -> None:
    run_folder("a")
    report("results")
    written = {path.name for path in Path("results/tables").iterdir()}
    assert {f"runs.{kind}" for kind in ("md", "tex", "html", "csv")} <= written
    assert {path.rsplit(".")[0] for path in written} >= {"main_precision", "main_similarity", "runs"}
    (row,) = table("tables/main_precision.csv")
    assert row == {"model": "gemma", "coding, gpt_4o": "90.0"}


def test_runs_are_found_at_any_depth_and_in_order() -> None:
    for name in ("b/2", "a/1", "c"):
        run_folder(name, task="coding" if name == "c" else "closed_qa")
    assert [run.folder.as_posix() for run in read_runs(Path("results"))] == ["results/a/1", "results/b/2", "results/c"]
    report("results")
    assert [row["run"] for row in table("tables/runs.csv")] == ["a/1", "b/2", "c"]


def test_one_runs_own_folder_can_be_reported_on() -> None:
    folder = run_folder("study/run")
    text = report(str(folder))
    assert "1 runs" in text
    assert table("runs.csv", str(folder))[0]["task"] == "coding"


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ({"status": "running", "iterations": 0}, "running"),
        ({"status": "failed", "iterations": 0, "error": "gpt_4o is out of reach"}, "gpt_4o is out of reach"),
        ({"status": "done", "stop_reason": "budget", "best_iteration": None, "verdict": "No verdict"}, "budget"),
    ],
)
def test_a_run_without_iterations_is_shown_as_it_stands(state: dict[str, Any], shown: str) -> None:
    run_folder("a", lines=[], state=state)
    assert shown in report("results")
    assert table("runs.csv") == []
    (row,) = table("tables/runs.csv")
    assert row["status"] == state.get("stop_reason", state["status"])
    assert row["precision"] == row["rows"] == row["n"] == ""
    assert not Path("results/tables/main_precision.md").exists()


def test_a_run_under_way_shows_what_it_has() -> None:
    run_folder("a", state={"status": "running", "iterations": 1, "cost_usd": 0.5})
    text = report("results")
    assert "status: running" in text
    assert "81.2 [79.5, 83.0]" in text  # among its iterations
    assert table("tables/runs.csv")[0]["similarity"] == ""  # but nothing stands for the run yet
    assert not any(row["reported"] == "True" for row in table("runs.csv"))


def test_finished_runs_are_in_the_tables_beside_broken_off_ones() -> None:
    run_folder("a", model="gemma")
    run_folder("b", model="llama", state={"status": "failed", "error": "out of memory"})
    run_folder("c", model="mistral", lines=[], state={"status": "running"})
    report("results")
    assert [row["model"] for row in table("tables/main_precision.csv")] == ["gemma"]
    assert [row["status"] for row in table("tables/runs.csv")] == ["passed", "failed", "running"]


def test_the_reference_judge_scores_no_precision() -> None:
    unscored = {**STATE, "test": {"similarity": {"mean": 40.0, "low": 30.0, "high": 50.0, "n": 9}, "precision": {}}}
    run_folder("a", kind="reference", panel="", synthesis="false", state=unscored)
    report("results")
    (row,) = table("tables/main_similarity.csv")
    assert row["panel"] == "40.0 [29.3, 50.7]"  # widened by training noise of 2 points
    assert not Path("results/tables/main_precision.csv").exists()


def test_reporting_again_gives_the_same_bytes() -> None:
    make_study(Path("results/s"), models=("gemma_2b", "llama3_8b"), tasks=("coding",), prompts=8)

    def written() -> dict[str, bytes]:
        report("results/s")
        found = [path for path in Path("results/s").rglob("*") if path.is_file() and "iterations" not in path.parts]
        return {str(path): path.read_bytes() for path in found}

    first = written()
    assert written() == first
    moved = Path("elsewhere/s")
    moved.parent.mkdir()
    Path("results/s").rename(moved)
    write_report(read_study(moved), Path("results/s"))
    for path in Path("results/s").rglob("*.*"):
        assert path.read_bytes() == first[str(path)], path


def test_what_an_earlier_report_made_and_this_one_does_not_is_removed() -> None:
    study = make_study(Path("results/study"), models=("gemma_2b", "llama3_8b"), tasks=("coding",), prompts=6)
    write_report(read_study(study), study)
    mine = [study / "tables" / "notes.md", study / "figures" / "logo.png", study / "figures" / "logo.svg"]
    for path in mine:
        path.write_text("mine")
    before = {path for path in study.rglob("*") if path.parent.name in ("tables", "figures")}
    shutil.rmtree(next(study.glob("llama3_8b-*")))
    report(str(study))
    after = {path for path in study.rglob("*") if path.parent.name in ("tables", "figures")}
    fresh = write_report(read_study(study), Path("elsewhere"))
    assert {path.relative_to(study) for path in after - set(mine)} == {
        path.relative_to("elsewhere") for path in fresh if path.parent.name in ("tables", "figures")
    }
    assert before > after >= set(mine)


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


@pytest.mark.parametrize("text", ['{"prompt_id": "a", "sam', '{"prompt_id": "a"}\n', "[1]\n", "\n"])
def test_verdicts_that_can_not_be_read_are_named(text: str) -> None:
    folder = run_folder("study/a") / "iterations/test"
    folder.mkdir(parents=True)
    (folder / "verdicts.jsonl").write_text(text)
    with pytest.raises(InputError, match=r"study/a: its verdicts can't be read"):
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
