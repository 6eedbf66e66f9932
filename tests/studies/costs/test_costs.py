"""Costs: every number is derived here once more from the files, and what isn't known stays empty."""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_runs import configuration, make_run
from omegaconf import OmegaConf

from llamaduo.config import Assumptions, plain
from llamaduo.errors import InputError
from llamaduo.runs.record import read_runs
from llamaduo.studies.costs.cost_tables import cost_tables
from llamaduo.studies.costs.costs import RunCost, assumptions, costs, study_costs
from llamaduo.studies.costs.paper_cost import PaperInputs, paper_table, recomputed
from llamaduo.studies.costs.pay_back import over_time, sensitivity
from llamaduo.studies.parts import Table
from llamaduo.studies.published import published_costs
from llamaduo.studies.study import read_study

ROOT = Path(__file__).parents[3]
PRICE = {"input": 2.5, "output": 10.0, "as_of": "today", "batch_input": 1.25, "batch_output": 5.0, "cached_input": 0.5}
SERVING = plain(Assumptions(gpu="L4", gpu_usd_per_hour=0.8, utilisation=0.5, light_requests=1e5, heavy_requests=1e6))


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return configuration("preset=service", "judge=paper_panel", "service.replay=true")


@pytest.fixture
def config(composed: dict[str, Any]) -> dict[str, Any]:
    found = copy.deepcopy(composed)
    found["service_llm"]["price"] = dict(PRICE)
    found["serving"] = dict(SERVING)
    return found


def timed(folder: Path, *, train_s: float = 360.0, answer_s: float = 10.0, gpus: tuple[str, ...] = ("L4",)) -> None:
    """Add what a run on a GPU leaves besides: markers with seconds, adapters' records, synthesis, the machine."""
    for here in sorted(folder.glob("iterations/*")):
        (here / "predictions.jsonl.done").write_text(json.dumps({"seconds": answer_s}))
        if here.name != "test":
            (here / "adapter").mkdir()
            (here / "adapter/record.json").write_text(json.dumps({"tokens": 1_000_000}))
            (here / "adapter.done").write_text(json.dumps({"seconds": train_s}))
    (folder / "iterations/00/synthesis.json").write_text(json.dumps({"cost_usd": 1.5, "examples": []}))
    (folder / "environment.json").write_text(json.dumps({"hardware": {"gpus": list(gpus)}}))


def made(config: dict[str, Any], *, bare: bool = False, **settings: Any) -> RunCost:
    folder = make_run(Path("results/study/run"), config=config, **settings)
    if not bare:
        timed(folder)
    (run,) = read_runs(folder)
    return costs(run, assumptions(run))


def rows(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("results/study/run/iterations", path).read_text().splitlines()]


class TestSpent:
    def test_synthesis_judging_and_hours_are_sums_of_what_the_artifacts_say(self, config: dict[str, Any]) -> None:
        found = made(config)
        verdicts = [v for name in ("00", "01", "test") for v in rows(f"{name}/verdicts.jsonl")]
        assert found.synthesis_usd == 1.5
        assert found.judging_usd == pytest.approx(sum(v["cost_usd"] for v in verdicts))
        assert found.train_hours == pytest.approx(2 * 360 / 3600)
        assert found.answer_hours == pytest.approx(3 * 10 / 3600)
        hours = 0.2 + 30 / 3600
        assert found.gpu_usd == pytest.approx(0.8 * hours)
        assert found.spent_usd == pytest.approx(1.5 + found.judging_usd + 0.8 * hours)
        assert found.machine == "L4"

    def test_what_the_state_has_beyond_synthesis_and_judging_is_named_other(self, config: dict[str, Any]) -> None:
        folder = make_run(Path("results/study/run"), config=config)
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(state | {"cost_usd": state["cost_usd"] + 2.0}))
        (run,) = read_runs(folder)
        found = costs(run, assumptions(run))
        assert found.other_usd == pytest.approx(2.0)
        assert found.service_spent_usd == pytest.approx(run.state.cost_usd)

    def test_the_shorter_file_is_read_for_synthesis_where_there_is_one(self, config: dict[str, Any]) -> None:
        folder = make_run(Path("results/study/run"), config=config)
        (folder / "iterations/00/synthesis.json").write_text("not even JSON")
        (folder / "iterations/00/curation.json").write_text('{"cost_usd": 0.25}')
        (run,) = read_runs(folder)
        assert costs(run, assumptions(run)).synthesis_usd == 0.25

    def test_all_gpus_of_an_accelerated_training_are_counted(self, config: dict[str, Any]) -> None:
        config["runtime"]["launch"] = "accelerate"
        folder = make_run(Path("results/study/run"), config=config)
        timed(folder, gpus=("L4", "L4", "L4"))
        (run,) = read_runs(folder)
        found = costs(run, assumptions(run))
        assert found.train_hours == pytest.approx(3 * 0.2)
        assert found.answer_hours == pytest.approx(30 / 3600)

    def test_hours_are_known_where_the_adapters_are_gone(self, config: dict[str, Any]) -> None:
        folder = make_run(Path("results/study/run"), config=config)
        timed(folder)
        for adapter in folder.glob("iterations/*/adapter"):
            shutil.rmtree(adapter)
        (run,) = read_runs(folder)
        assert costs(run, assumptions(run)).train_hours == pytest.approx(0.2)

    def test_an_untrained_baseline_took_no_hours_of_training(self, config: dict[str, Any]) -> None:
        config["train"]["enabled"] = False
        assert made(config).train_hours == 0.0


class TestServed:
    """Answers of a server, as of the service LLM itself: its hours and its speed are no GPU's of ours."""

    def test_no_hours_of_answering_no_speed_and_no_break_even(self, config: dict[str, Any]) -> None:
        config["infer"]["backend"] = "endpoint"
        config["train"]["enabled"] = False
        config["serving"] |= {"tokens_per_second": 2500.0}
        found = made(config)
        assert found.served
        assert (found.answer_hours, found.gpu_usd) == (0.0, 0.0)
        assert found.spent_usd == pytest.approx(found.service_spent_usd)
        assert (found.tokens_per_second, found.local, found.migration) == (None, None, None)

    def test_no_row_of_serving_or_break_even(self, config: dict[str, Any]) -> None:
        served = copy.deepcopy(config)
        served["infer"]["backend"] = "endpoint"
        timed(make_run(Path("results/study/ceiling"), config=served))
        spent, paper = cost_tables(read_study(Path("results/study")))
        assert (spent.name, paper.name) == ("cost_spent", "cost_paper")
        timed(make_run(Path("results/study/student"), config=config))
        spent, serving, pays, _ = cost_tables(read_study(Path("results/study")))
        assert [row["run"] for row in texts(spent)] == ["ceiling", "student"]
        assert [row["run"] for row in texts(serving)] == [row["run"] for row in texts(pays)] == ["student"]


class TestTheMachine:
    """A CPU's seconds are not priced as a GPU's."""

    def on(self, config: dict[str, Any], *gpus: str) -> RunCost:
        folder = make_run(Path("results/study/run"), config=config)
        timed(folder, gpus=gpus)
        (run,) = read_runs(folder)
        return costs(run, assumptions(run))

    def test_seconds_of_a_cpu_have_no_price_of_a_gpu(self, config: dict[str, Any]) -> None:
        found = self.on(config)
        assert (found.machine, found.train_hours) == ("CPU", pytest.approx(0.2))
        assert (found.gpu_usd, found.spent_usd, found.local, found.migration) == (None,) * 4
        config["serving"] |= {"tokens_per_second": 2500.0}
        shutil.rmtree("results/study")
        found = self.on(config)
        assert found.local is not None  # the stated speed is the priced GPU's
        assert found.migration is None

    def test_seconds_of_a_cpu_have_the_price_of_cores(self, config: dict[str, Any]) -> None:
        config["serving"] |= {"gpu": "2 CPU cores", "gpu_usd_per_hour": 0.09}
        found = self.on(config)
        assert found.gpu_usd == pytest.approx(0.09 * (0.2 + 30 / 3600))
        assert found.migration is not None

    def test_the_tables_say_why_a_field_is_empty(self, config: dict[str, Any]) -> None:
        self.on(config)
        spent, serving, *_ = cost_tables(read_study(Path("results/study")))
        notes = [dict(zip(table.header, table.rows[0], strict=True)) for table in (spent, serving)]
        for field in (notes[0]["hours $"], notes[1]["local $"]):
            assert field.text == ""
            assert "measured on CPU" in field.note
            assert "serving=cpu" in field.note
        assert notes[1]["machine"].text == "CPU"

    def test_a_gpus_seconds_are_not_priced_as_those_of_cores(self, config: dict[str, Any]) -> None:
        config["serving"] |= {"gpu": "2 CPU cores", "gpu_usd_per_hour": 0.09}
        assert self.on(config, "L4").gpu_usd is None
        spent, *_ = cost_tables(read_study(Path("results/study")))
        told = dict(zip(spent.header, spent.rows[0], strict=True))["hours $"].note
        assert told == "measured on L4, but the price is that of 2 CPU cores: see serving.gpu"


class TestServing:
    def test_a_thousand_requests_are_tokens_times_prices(self, config: dict[str, Any]) -> None:
        found = made(config)
        answers = rows("test/predictions.jsonl")
        each = sum(len(a["text"]) for a in answers) / sum(a["completion_tokens"] for a in answers)
        prompt = sum(a["prompt_tokens"] for a in answers) / len(answers)
        reply = sum(len(a["reference"]) for a in answers) / each / len(answers)
        per_thousand = {
            "list": (prompt * 2.5 + reply * 10) / 1000,
            "cached": (prompt * 0.5 + reply * 10) / 1000,
            "batch": (prompt * 1.25 + reply * 5) / 1000,
        }
        for way, usd in per_thousand.items():
            amount = found.service[way]
            assert amount is not None
            assert amount.mean == pytest.approx(usd)
            assert amount.n == 15
            assert amount.low is not None
            assert amount.low < amount.mean < (amount.high or 0.0)

    def test_local_is_the_measured_time_at_the_utilisation(self, config: dict[str, Any]) -> None:
        found = made(config)
        every = [a for name in ("00", "01", "test") for a in rows(f"{name}/predictions.jsonl")]
        speed = sum(a["completion_tokens"] for a in every) / 30
        assert found.tokens_per_second == pytest.approx(speed)
        assert "this run's answering" in found.speed_source
        assert found.local is not None
        assert found.local.mean == pytest.approx(1000 * 24 / speed / 0.5 / 3600 * 0.8)

    def test_a_stated_speed_goes_before_the_measured_one(self, config: dict[str, Any]) -> None:
        config["serving"] |= {"tokens_per_second": 2500.0, "tokens_as_of": "a vLLM benchmark"}
        found = made(config)
        assert (found.tokens_per_second, found.speed_source) == (2500.0, "stated: a vLLM benchmark")

    def test_answers_that_were_not_given_are_no_requests(self, config: dict[str, Any]) -> None:
        folder = make_run(Path("results/study/run"), config=config)
        path = folder / "iterations/test/predictions.jsonl"
        lost = json.loads(path.read_text().splitlines()[0]) | {
            "prompt_id": "x", "finish_reason": "prompt_too_long", "prompt_tokens": 10**6, "completion_tokens": 0,
        }  # fmt: skip
        path.write_text(path.read_text() + json.dumps(lost) + "\n")
        (run,) = read_runs(folder)
        found = costs(run, assumptions(run))
        assert found.prompt_tokens is not None
        assert (found.prompt_tokens.mean, found.prompt_tokens.n) == (30, 15)

    def test_break_even_takes_the_means(self, config: dict[str, Any]) -> None:
        found = made(config)
        moved = found.migration
        assert moved is not None
        assert moved.spent_usd == pytest.approx(found.spent_usd)
        assert found.service["list"] is not None
        assert moved.service_usd == pytest.approx(found.service["list"].mean / 1000)
        assert found.local is not None
        assert moved.local_usd == pytest.approx(found.local.mean / 1000)


@pytest.mark.parametrize("name", ["adapter.done", "adapter/record.json", "synthesis.json", "scorecard.json",
                                  "predictions.jsonl"])  # fmt: skip
@pytest.mark.parametrize("text", ["", "[]\n", '{"seconds": '])
def test_a_damaged_file_is_named(config: dict[str, Any], name: str, text: str) -> None:
    if (name, text) == ("predictions.jsonl", ""):
        return  # no answers: nothing is wrong with that
    folder = make_run(Path("results/study/run"), config=config)
    timed(folder)
    (folder / "iterations/00" / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(f"00/{name}: damaged (")):
        costs((run := read_runs(folder)[0]), assumptions(run))


class TestNotKnown:
    def test_without_times_there_are_no_hours_no_speed_and_no_break_even(self, config: dict[str, Any]) -> None:
        found = made(config, bare=True)
        assert (found.train_hours, found.gpu_usd, found.spent_usd, found.tokens_per_second) == (None,) * 4
        assert (found.local, found.migration) == (None, None)
        assert found.service["list"] is not None

    def test_without_a_price_the_service_has_no_cost(self, config: dict[str, Any]) -> None:
        config["service_llm"] |= {"price": None, "provider": "nobody", "model": "knows"}
        found = made(config)
        assert (set(found.service.values()), found.price_source, found.migration) == ({None}, "", None)

    def test_a_discount_that_is_not_known_stays_empty(self, config: dict[str, Any]) -> None:
        config["service_llm"]["price"] |= {"cached_input": None, "batch_input": None}
        service = made(config).service
        assert (service["cached"], service["batch"]) == (None, None)
        assert service["list"] is not None

    def test_an_old_run_is_read_with_the_defaults(self, config: dict[str, Any]) -> None:
        del config["serving"], config["service_llm"]["price"]["cached_input"]
        found = made(config)
        assert found.assumptions == Assumptions()
        assert found.service["cached"] is None


def test_the_file_and_the_schema_agree_on_the_defaults() -> None:
    assert OmegaConf.to_container(OmegaConf.load(ROOT / "conf/serving/default.yaml")) == plain(Assumptions())


def study_of(config: dict[str, Any], *, whole: bool = True) -> Any:
    for number, model in enumerate(("gemma_2b", "gemma_7b")):
        changed = copy.deepcopy(config)
        changed["local_model"]["name"] = model
        folder = make_run(Path(f"results/study/{model}"), config=changed, seed=number)
        if whole or number:
            timed(folder)
    return read_study(Path("results/study"))


class TestRows:
    def test_over_time_starts_with_what_was_spent_and_grows_by_the_month(self, config: dict[str, Any]) -> None:
        study = study_of(config)
        moved = study_costs(study)[0].migration
        assert moved is not None
        drawn = over_time(study_costs(study))
        assert len(drawn) == 2 * 2 * 3 * 13
        shared = [row for row in drawn if row["run"] == "gemma_2b" and row["load"] == "light"]
        at = {(row["system"], row["month"]): row["usd"] for row in shared}
        assert (at["service", 0], at["local, shared machine", 0]) == (0.0, moved.spent_usd)
        assert at["service", 12] == pytest.approx(12 * 1e5 * moved.service_usd)
        assert at["local, whole machines", 12] == pytest.approx(moved.spent_usd + 12 * 730 * 0.8)

    def test_sensitivity_varies_one_assumption_at_a_time(self, config: dict[str, Any]) -> None:
        drawn = [row for row in sensitivity(study_costs(study_of(config))) if row["run"] == "gemma_7b"]
        by = {(row["assumption"], row["value"]): row for row in drawn if row["requests"] == 1_000_000}
        base = by["GPU price", 1.0]
        assert by["service price", 1.0] | {"assumption": ""} == base | {"assumption": ""}
        assert by["utilisation", 0.5]["assumed"]
        assert not by["utilisation", 0.1]["assumed"]
        assert by["GPU price", 2.0]["shared_usd"] == pytest.approx(2 * base["shared_usd"])
        assert by["utilisation", 0.1]["shared_usd"] == pytest.approx(5 * base["shared_usd"])
        assert by["service price", 0.5]["service_usd"] == pytest.approx(base["service_usd"] / 2)
        assert by["service price", 2.0]["months_shared"] < base["months_shared"] < by["GPU price", 2.0]["months_shared"]

    def test_a_run_of_which_something_is_not_known_is_left_out(self, config: dict[str, Any]) -> None:
        found = study_costs(study_of(config, whole=False))
        assert len(found) == 2
        assert {row["run"] for row in (*over_time(found), *sensitivity(found))} == {"gemma_7b"}


def texts(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, (cell.text for cell in row), strict=True)) for row in table.rows]


class TestTables:
    def test_each_run_is_a_row_and_what_is_not_known_is_empty(self, config: dict[str, Any]) -> None:
        spent, serving, pays, _ = cost_tables(study_of(config, whole=False))
        assert [table.name for table in (spent, serving, pays)] == ["cost_spent", "cost_serving", "cost_break_even"]
        unknown, known = texts(spent)
        assert (unknown["training h"], unknown["all $"], known["training h"]) == ("", "", "0.200")
        unknown, known = texts(serving)
        assert (unknown["local $"], unknown["n"]) == ("", "15")
        assert known["service, list $"].count(",") == 1  # an interval
        unknown, known = texts(pays)
        assert (unknown["light, shared"], known["light, whole"]) == ("", "never")
        assert float(known["light, shared"]) > 0

    def test_the_notes_name_every_input(self, config: dict[str, Any]) -> None:
        spent, serving, pays, _ = cost_tables(study_of(config))
        for note in (spent.note, serving.note, pays.note):
            assert "L4 at 0.8 US dollars an hour" in note
        assert "gpt_6_luna.price, today" in serving.note
        assert "50%" in serving.note
        assert "100,000 (light) and 1,000,000 (heavy)" in pays.note

    def test_the_same_folders_make_the_same_tables(self, config: dict[str, Any]) -> None:
        study = study_of(config)
        assert cost_tables(study) == cost_tables(read_study(Path("results/study")))


class TestThePapersTable:
    def test_the_inferred_rows_come_out_and_the_local_heavy_one_does_not(self) -> None:
        found = {key: usd for key, (usd, _, _) in recomputed(PaperInputs()).items()}
        published = {(cost.model, cost.workload): cost.usd for cost in published_costs()}
        assert found.keys() == published.keys()
        for key in (("gemma_7b", "light"), ("gpt_4o", "light"), ("gpt_4o", "heavy")):
            assert found[key] == pytest.approx(published[key])
        assert found["gemma_7b", "heavy"] == pytest.approx(18495)

    def test_the_table_has_the_published_numbers_beside_ours(self) -> None:
        told = {(row["system"], row["load"]): (row["published"], row["recomputed"]) for row in texts(paper_table())}
        assert told["gemma_7b, local", "heavy"] == ("23,992", "18,495")
        assert told["gpt_4o, API", "light"] == ("23,400", "23,400")
        assert len(told) == 4

    def test_every_row_says_what_was_inferred(self) -> None:
        table = paper_table()
        assert "confirms nothing" in table.note
        assert all(row["inferred"] and row["inputs"] for row in texts(table))
