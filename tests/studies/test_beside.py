"""Ceilings and floors in tables and tidy data: rows of their own, never taken for models that were trained."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llamaduo.studies.parts import Table
from llamaduo.studies.plots.figures import make_figures
from llamaduo.studies.report import write_report
from llamaduo.studies.study import read_study
from llamaduo.studies.tidy import IDENTITY, identity
from tests.studies.tables.test_tables import MODEL, TASK, bold, field, limits, made, tables

BOTH = {"service_llm": 92.0, "base": 45.0}
TEACHER = "gpt_6_luna"
CEILING, FLOOR = f"ceiling: {TEACHER}", "floor: gemma_2b, base"
MAIN = ("main_precision", "main_similarity", "coverage")


def names(table: Table) -> list[str]:
    return [", ".join(cell.text for cell in row[: table.labels]) for row in table.rows]


def files(folder: str) -> dict[str, bytes]:
    here = Path(folder)
    return {p.relative_to(here).as_posix(): p.read_bytes() for p in here.rglob("*") if p.is_file()}


def change_state(run: Path, **changes: Any) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((run / "state.json").read_text()) | changes
    (run / "state.json").write_text(json.dumps(state))
    return state


def beside_rows(judge: str = "all") -> list[dict[str, Any]]:
    return [row for row in read_study(Path("s")).rows if row["beside"] and row["judge"] == judge]


class TestTidy:
    def test_they_are_labelled_like_runs_that_have_them_alone(self) -> None:
        made("a", beside=BOTH | {"few_shot": 60.0})
        made("base", ("train.enabled", False), ("synthesis.enabled", False), ("loop.start", None))
        alone = identity(next(run for run in read_study(Path("s")).runs if run.name == "base"))
        ceiling, floor, shots = beside_rows()
        apart = {name for name in IDENTITY if floor[name] != alone[name]}
        assert apart == {"run"}
        assert [row["beside"] for row in (ceiling, floor, shots)] == ["service_llm", "base", "few_shot"]
        assert [row["method"] for row in (ceiling, floor, shots)] == ["served", "base", "4-shot"]
        assert (ceiling["local_model"], ceiling["temperature"], ceiling["lora_r"]) == (TEACHER, None, None)
        assert {row["run"] for row in (ceiling, floor, shots)} == {"a"}
        assert {row["reported"] for row in (ceiling, floor, shots)} == {False}

    def test_their_numbers_are_the_scorecards_of_the_split_that_the_run_is_reported_by(self) -> None:
        cards = json.loads((made("a", beside=BOTH) / "state.json").read_text())["beside"]
        ceiling, _ = beside_rows()
        card = cards["service_llm"]["test"]
        assert [ceiling[f"precision_{what}"] for what in ("mean", "low", "high", "n")] == [
            card["precision"][what] for what in ("mean", "low", "high", "n")
        ]
        assert (ceiling["split"], ceiling["iteration"], ceiling["coverage"]) == ("test", None, card["coverage"])
        assert ceiling["coverage_low"] < ceiling["coverage"] <= ceiling["coverage_high"]
        (judge, _) = beside_rows("gpt_4o")
        assert judge["precision_mean"] == card["judges"]["gpt_4o"]["precision_mean"]
        assert judge["precision_n"] == 32

    def test_without_a_test_split_they_are_the_gates(self) -> None:
        card = change_state(made("a", beside=BOTH), test=None)["beside"]["service_llm"]["gate"]
        ceiling, _ = beside_rows()
        assert (ceiling["split"], ceiling["precision_mean"]) == ("dev", card["precision"]["mean"])

    def test_csv_and_parquet_name_them(self) -> None:
        import pyarrow.parquet

        for model, beside in (("a", BOTH), ("b", {})):
            made(model, (MODEL, model), beside=beside, gains=(0.0, 5.0))
        write_report(read_study(Path("s")), Path("s"))
        with open("s/runs.csv", newline="", encoding="utf-8") as file:
            told = [row["beside"] for row in csv.DictReader(file) if row["judge"] == "all"]
        assert sorted(told) == sorted(["", "", "", "", "", "", "service_llm", "base"])
        assert pyarrow.parquet.read_table("s/runs.parquet").column("beside").to_pylist().count("base") == 4

    @pytest.mark.parametrize("split", ["dev", "test"])
    def test_figures_leave_them_out(self, split: str) -> None:
        made("a", beside=BOTH, gains=(0.0, 5.0))
        if split == "dev":
            change_state(Path("s/a"), test=None)
        drawn = make_figures(read_study(Path("s")))
        change_state(Path("s/a"), beside={})
        assert [(one.svg, one.data) for one in drawn] == [(o.svg, o.data) for o in make_figures(read_study(Path("s")))]
        assert any(figure.name.startswith("learning") for figure in drawn)


class TestTables:
    def test_the_ceiling_is_first_and_floors_are_last_for_those_who_bought_them(self) -> None:
        made("a", beside=BOTH)
        made("b", (MODEL, "llama3_8b"))
        made("c", (MODEL, "mistral"), beside={"few_shot": 60.0})
        for name in MAIN:
            shown = [CEILING, "gemma_2b", "llama3_8b", "mistral", FLOOR, "floor: mistral, 4-shot"]
            assert names(tables()[name]) == shown, name
        state = json.loads(Path("s/a/state.json").read_text())["beside"]["service_llm"]["test"]
        found = tables()["main_precision"]
        cell = field(found, (CEILING,), "panel")
        assert cell.value == state["precision"]["mean"]
        assert limits(cell) == pytest.approx((state["precision"]["low"], state["precision"]["high"]), abs=0.051)
        assert field(tables()["coverage"], (CEILING,), "panel").value == pytest.approx(state["coverage"], abs=1e-3)
        assert "Ceiling: the service LLM's own answers. Floor:" in found.note

    def test_nothing_changes_where_none_was_bought(self) -> None:
        for model in ("a", "b"):
            made(model, (MODEL, model))
        write_report(read_study(Path("s")), Path("without"))
        for model in ("a", "b"):
            change_state(Path("s") / model, beside={})
        write_report(read_study(Path("s")), Path("empty"))
        assert files("without") == files("empty")
        assert "ceiling" not in "".join(table.note + str(names(table)) for table in tables().values()).lower()
        assert not any(name.startswith("ceiling_") for name in tables())
        assert "beside" not in Path("without/runs.csv").read_text().splitlines()[0]

    def test_models_keep_their_fields_and_their_bold_type(self) -> None:
        def study(**settings: Any) -> dict[str, Table]:
            shutil.rmtree("s", ignore_errors=True)
            for number, model in enumerate(("a", "b", "c")):
                made(model, (MODEL, model), level=30.0 + 20 * number, seed=number, **settings)
            return tables()

        alone, beside = study(), study(beside={"service_llm": 120.0, "base": 5.0})
        for name in MAIN:
            assert [row for row in beside[name].rows if ":" not in row[0].text] == list(alone[name].rows)
        assert bold(alone["main_precision"]) == bold(beside["main_precision"]) != []
        others = {name: table for name, table in beside.items() if not name.startswith(("main", "cov", "ceiling"))}
        assert others == {name: table for name, table in alone.items() if name not in MAIN}

    def test_a_ceiling_is_never_bold(self) -> None:
        made("a", level=20.0, beside={"service_llm": 95.0})
        assert bold(tables()["main_precision"]) == []

    def test_runs_that_bought_the_same_replies_share_a_row(self) -> None:
        for rank in (8, 16, 32):
            made(f"r{rank}", ("train.lora_r", rank), seed=rank, beside=BOTH)
        table = tables()["main_precision"]
        assert names(table) == [CEILING, "8", "16", "32", FLOOR]
        card = json.loads(Path("s/r8/state.json").read_text())["beside"]["service_llm"]["test"]["precision"]
        assert field(table, (CEILING,), "panel").value == card["mean"]
        assert field(table, (CEILING,), "panel").note == ""  # 32 answers, as the models

    def test_other_scores_are_put_together(self) -> None:
        for seed in (1, 2):
            made(f"s{seed}", ("runtime.seed", seed), seed=seed, seed_beside=seed, beside=BOTH)
        made("other", (MODEL, "b"))
        table = tables()["main_precision"]
        means = [
            json.loads(Path(f"s/s{seed}/state.json").read_text())["beside"]["base"]["test"]["precision"]
            for seed in (1, 2)
        ]
        mean = sum(one["mean"] * one["n"] for one in means) / sum(one["n"] for one in means)
        assert names(table) == [CEILING, "b", "gemma_2b", FLOOR]
        assert field(table, (FLOOR,), "panel").value == pytest.approx(mean, abs=1e-3)
        assert "64 answers" in field(table, (FLOOR,), "panel").note + table.note

    def test_what_changes_scores_keeps_ceilings_apart(self) -> None:
        for at, prompt in enumerate(("paper", "blind")):
            made(prompt, ("judge.prompt", prompt), beside={"service_llm": 80.0 + 10 * at})
        assert names(tables()["main_precision"]) == [f"{CEILING}, blind", f"{CEILING}, paper", "blind", "paper"]

    def test_each_task_has_its_own(self) -> None:
        for task, level in (("coding", 95.0), ("closed_qa", 75.0)):
            made(task, (TASK, task), beside={"service_llm": level}, level=60.0)
        table = tables()["main_precision"]
        coding, closed = (field(table, (CEILING,), f"{task}, panel").value for task in ("coding", "closed_qa"))
        assert (coding or 0) > (closed or 100) + 10

    def test_a_run_that_is_not_done_has_none(self) -> None:
        made("a")
        change_state(made("b", (MODEL, "b"), beside=BOTH), status="running")
        assert names(tables()["main_precision"]) == ["gemma_2b"]
        assert [row["status"] for row in beside_rows()] == ["running", "running"]

    def test_without_verdicts_the_recorded_scores_are_shown(self) -> None:
        run = made("a", beside=BOTH)
        shutil.rmtree(run / "iterations/test_service_llm")
        cell = field(tables()["main_precision"], (CEILING,), "panel")
        assert cell.value is not None
        assert "verdicts.jsonl is missing" in cell.note
        assert "ceiling_precision" not in tables()


class TestPercentOfCeiling:
    def test_it_is_the_ratio_of_the_means_with_an_interval_around_it(self) -> None:
        made("a", ("evidence.training_noise_sd", 0.0), beside=BOTH)
        state = json.loads(Path("s/a/state.json").read_text())
        table = tables()["ceiling_precision"]
        assert table.title == "Precision, % of ceiling"
        cell = field(table, ("gemma_2b",), "panel")
        ours, theirs = state["test"]["precision"], state["beside"]["service_llm"]["test"]["precision"]
        assert cell.value == pytest.approx(100 * ours["mean"] / theirs["mean"], abs=0.01)
        low, high = limits(cell)
        assert 100 * ours["low"] / theirs["high"] - 1 < low < (cell.value or 0) < high

    def test_a_run_that_bought_none_is_set_against_the_only_one(self) -> None:
        made("a", beside=BOTH)
        made("b", (MODEL, "b"), level=60.0)
        table = tables()["ceiling_precision"]
        assert names(table) == ["b", "gemma_2b", FLOOR]
        found = tables()["main_precision"]
        ours, theirs = (field(found, (row,), "gpt_4o").value for row in ("b", CEILING))
        assert field(table, ("b",), "gpt_4o").value == pytest.approx(100 * (ours or 0) / (theirs or 1), abs=0.01)

    def test_of_two_ceilings_each_run_has_its_own_and_the_others_none(self) -> None:
        made("a", ("service_llm.name", "x"), beside={"service_llm": 92.0})
        made("b", ("service_llm.name", "y"), beside={"service_llm": 60.0})
        made("c", (MODEL, "c"), ("service_llm.name", "x"))
        table = tables()["ceiling_precision"]
        x, y = (field(table, ("gemma_2b", teacher), "panel").value for teacher in ("x", "y"))
        assert (y or 0) > (x or 999) + 20
        assert [row for row in names(table) if row.startswith("c")] == []

    def test_other_prompts_are_no_ceiling(self) -> None:
        made("a", beside=BOTH)
        run = made("b", (MODEL, "b"))
        for name in ("verdicts", "predictions"):
            path = run / f"iterations/test/{name}.jsonl"
            path.write_text(path.read_text().replace('"prompt_id": "0', '"prompt_id": "f'))
        assert names(tables()["ceiling_precision"]) == ["gemma_2b", FLOOR]

    def test_floors_have_their_percentage_too(self) -> None:
        for seed in (1, 2):
            made(f"s{seed}", ("runtime.seed", seed), seed=seed, seed_beside=seed, beside=BOTH)
        found = tables()
        floor, ceiling = (field(found["main_similarity"], (row,), "panel").value for row in (FLOOR, CEILING))
        cell = field(found["ceiling_similarity"], (FLOOR,), "panel")
        assert cell.value == pytest.approx(100 * (floor or 0) / (ceiling or 1), abs=0.01)

    def test_a_floor_alone_makes_no_such_table(self) -> None:
        made("a", beside={"base": 45.0})
        assert "ceiling_precision" not in tables()
        assert "Ceiling" not in tables()["main_precision"].note
        assert "Floor: the base model's answers" in tables()["main_precision"].note
