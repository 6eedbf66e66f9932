"""Tables of a study: made from what is swept, bold only by more than noise, nothing invented for what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaduo.evidence.scorecard import score
from llamaduo.records import Verdict
from llamaduo.runs.folder import read_rows
from llamaduo.studies.factors import OTHER, contexts, identities, setting, varying
from llamaduo.studies.notebook import listing
from llamaduo.studies.pages.page import study_page
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.plots.forest import forest
from llamaduo.studies.study import read_study
from llamaduo.studies.tables import cells
from llamaduo.studies.tables.tables import make_tables
from llamaduo.studies.tidy import IDENTITY
from tests.made_runs import configuration, make_run

Config = dict[str, Any]


@cache
def _known(preset: str) -> str:
    pocket = ("judge=pocket_panel",) if preset == "pocket" else ("preset=service", "judge=paper_panel")
    return json.dumps(configuration(*pocket, "service.replay=true", "study=s"))


def made(name: str, *changes: tuple[str, Any], preset: str = "service", **settings: Any) -> Path:
    """Write a run with a configuration changed here and there, such as ("train.lora_r", 8)."""
    config: Config = json.loads(_known(preset))
    for where, value in changes:
        *parts, last = where.split(".")
        here = config
        for part in parts:
            here = here[part]
        here[last] = value
    judges = tuple(config["judge"]["panel"])
    return make_run(Path("s") / name, config=config, **{"judges": judges, "prompts": 8, "gains": (0.0,)} | settings)


def tables() -> dict[str, Table]:
    return {table.name: table for table in make_tables(read_study(Path("s")))}


def field(table: Table, row: tuple[str, ...], column: str) -> Cell:
    (found,) = [r for r in table.rows if tuple(cell.text for cell in r[: table.labels]) == row]
    return found[table.header.index(column)]


def limits(cell: Cell) -> tuple[float, float]:
    low, high = cell.text.split("[")[1].rstrip("]").split(", ")
    return float(low), float(high)


def bold(table: Table) -> list[tuple[str, str]]:
    return [(row[0].text, table.header[at]) for row in table.rows for at, cell in enumerate(row) if cell.bold]


MODEL, TASK = "local_model.name", "task.name"


class TestMain:
    def test_models_are_rows_and_tasks_and_judges_are_columns(self) -> None:
        for model in ("gemma_2b", "llama3_8b"):
            for task in ("coding", "closed_qa"):
                made(f"{model}-{task}", (MODEL, model), (TASK, task))
        table = tables()["main_precision"]
        judges = ("panel", "gpt_4o", "claude_3_sonnet", "gemini_1_5_flash")
        assert table.header == ("model", *(f"{task}, {judge}" for task in ("closed_qa", "coding") for judge in judges))
        assert [row[0].text for row in table.rows] == ["gemma_2b", "llama3_8b"]
        assert "n = 8 prompts, 32 answers" in table.note

    def test_a_field_is_what_the_run_recorded_where_no_training_noise_is_assumed(self) -> None:
        state = json.loads((made("a", ("evidence.training_noise_sd", 0.0)) / "state.json").read_text())
        table = tables()["main_similarity"]
        recorded = state["test"]["similarity"]
        assert field(table, ("gemma_2b",), "panel").value == recorded["mean"]
        assert field(table, ("gemma_2b",), "panel").text == (
            f"{recorded['mean']:.1f} [{recorded['low']:.1f}, {recorded['high']:.1f}]"
        )
        assert field(table, ("gemma_2b",), "gpt_4o").value == state["test"]["judges"]["gpt_4o"]["similarity_mean"]

    def test_a_field_of_one_run_is_widened_by_the_training_noise_that_is_assumed(self) -> None:
        for model, sd in (("a", 0.0), ("b", 3.0)):
            made(model, (MODEL, model), ("evidence.training_noise_sd", sd))
        found = tables()
        low, wide = (limits(field(found["main_precision"], (model,), "panel")) for model in ("a", "b"))
        mean = field(found["main_precision"], ("a",), "panel").value or 0
        assert mean - wide[0] == pytest.approx(((mean - low[0]) ** 2 + (1.96 * 3) ** 2) ** 0.5, abs=0.15)
        assert "widened by training noise of 3 points (SD between seeds, assumed" in found["main_precision"].note
        overview = found["runs"]
        one, other = (row[overview.header.index("precision")].text for row in overview.rows)
        assert one == other  # there the run's own model is meant
        assert "training noise is no part of them" in overview.note

    def test_what_was_not_trained_has_no_training_noise(self) -> None:
        made("base", ("train.enabled", False), ("synthesis.enabled", False))
        state = json.loads(Path("s/base/state.json").read_text())["test"]["precision"]
        found = tables()["main_precision"]
        assert limits(field(found, ("gemma_2b",), "panel")) == pytest.approx((state["low"], state["high"]), abs=0.06)
        assert "training noise of" not in found.note

    def test_near_copies_of_a_prompt_count_once(self) -> None:
        run = made("a", ("evidence.training_noise_sd", 0.0), prompts=24)
        made("b", (MODEL, "b"), ("evidence.training_noise_sd", 0.0), prompts=24)
        path = run / "iterations/test/predictions.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            line["cluster"] = f"{int(line['prompt_id'], 16) // 3 * 3:016x}"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = tables()
        assert field(found["main_precision"], ("gemma_2b",), "panel").note == "n = 8 prompts, 96 answers"
        one, other = (limits(field(found["coverage"], (model,), "panel")) for model in ("gemma_2b", "b"))
        assert one[1] - one[0] > other[1] - other[0] + 5
        (row,) = [row for row in read_study(Path("s")).reported() if row["run"] == "a"]
        assert (row["prompts"], row["precision_n"]) == (8, 96)

    def test_runs_that_repeat_each_other_are_put_together(self) -> None:
        paths = [made(f"seed-{seed}", ("runtime.seed", seed), seed=seed) for seed in (1, 2, 3)]
        made("other", (MODEL, "llama3_8b"), seed=9)
        means = [json.loads((path / "state.json").read_text())["test"]["precision"] for path in paths]
        cell = field(tables()["main_precision"], ("gemma_2b",), "panel")
        assert cell.value == pytest.approx(
            sum(m["mean"] * m["n"] for m in means) / sum(m["n"] for m in means), abs=1e-3
        )
        assert "n = 8 prompts, 96 answers" in cell.note + tables()["main_precision"].note

    def test_seeds_that_lie_far_apart_widen_the_field(self) -> None:
        for seed, level in ((1, 60.0), (2, 70.0)):
            made(f"seed-{seed}", ("runtime.seed", seed), level=level, seed=seed, prompts=30)
        made("other", (MODEL, "llama3_8b"), level=80.0, seed=9, prompts=30)
        found = tables()
        row = next(row for row in found["main_precision"].rows if row[0].text == "gemma_2b")
        low, high = (float(part) for part in row[1].text.split("[")[1].rstrip("]").split(", "))
        assert high - low > 80  # two runs 10 points apart: Student's t for one degree
        assert bold(found["main_precision"]) == []
        assert "those of several seeds by how far these lie apart" in found["main_precision"].note

    def test_n_is_one_number_everywhere(self) -> None:
        """Answers whose verdicts can't be read are no part of it, whichever split and judge is told of."""
        run = made("a", prompts=12, gains=(0.0, 5.0))
        lose_verdicts(run, 3)
        made("b", (MODEL, "b"), prompts=12, gains=(0.0, 5.0))
        study = read_study(Path("s"))
        (row,) = [row for row in study.reported() if row["local_model"] == "gemma_2b"]
        assert (row["answers"], row["unanswered"], row["precision_n"], row["coverage_n"]) == (48, 0, 45, 45)
        assert {r["precision_n"] for r in study.rows if r["run"] == "a" and r["reported"]} == {45}
        table = tables()["main_precision"]
        assert "n = 12 prompts, 45 answers" in field(table, ("gemma_2b",), "panel").note + table.note
        overview = tables()["runs"]
        assert {r[-1].text: r[overview.header.index("n")].text for r in overview.rows} == {"a": "45", "b": "48"}
        drawn = forest(study.rows, "precision")
        assert drawn is not None
        assert {mark["n"] for mark in drawn.data if mark["run"] == "a"} == {45}
        assert "n = 12 prompts, 45 to 48 answers" in drawn.caption
        assert "| 12 | 45 |" in listing(study.reported(), "precision")
        first = [r["precision_n"] for r in study.rows if (r["run"], r["judge"], r["split"]) == ("a", "all", "dev")]
        cards = [json.loads((run / f"iterations/{at:02d}/scorecard.json").read_text()) for at in range(2)]
        assert first == [card["precision"]["n"] for card in cards]

    def test_an_n_that_differs_is_said(self) -> None:
        for number in range(3):
            made(f"m{number}", (MODEL, f"m{number}"), prompts=6 if number == 2 else 8)
        assert field(tables()["main_precision"], ("m2",), "panel").note == "n = 6 prompts, 24 answers"

    def test_coverage_is_the_scorecards_with_an_interval(self) -> None:
        state = json.loads((made("a", level=72.0) / "state.json").read_text())
        cell = field(tables()["coverage"], ("gemma_2b",), "panel")
        assert cell.value == pytest.approx(state["test"]["coverage"], abs=1e-3)
        assert "[" in cell.text

    def test_coverage_of_all_answers_is_not_certain(self) -> None:
        made("a", level=200.0)
        made("b", (MODEL, "b"), level=-200.0)
        assert field(tables()["coverage"], ("gemma_2b",), "panel").text == "100.0 [63.1, 100.0]"
        assert field(tables()["coverage"], ("b",), "panel").text == "0.0 [0.0, 36.9]"

    def test_what_is_swept_besides_models_is_a_row_too(self) -> None:
        for rank in (8, 16):
            made(f"r{rank}", ("train.lora_r", rank), ("train.lora_alpha", 2 * rank))
        table = tables()["main_precision"]
        assert table.header[:1] == ("LoRA rank",)
        assert [row[0].text for row in table.rows] == ["8", "16"]


class TestBold:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_identical_models_are_never_bold(self, seed: int) -> None:
        for model in ("a", "b", "c"):
            made(model, (MODEL, model), seed=seed)
        assert bold(tables()["main_precision"]) == bold(tables()["main_similarity"]) == []

    def test_a_clear_winner_is_bold_in_every_column(self) -> None:
        for number, model in enumerate(("a", "b", "c")):
            made(model, (MODEL, model), level=30.0 + 20 * number, seed=number)
        found = bold(tables()["main_precision"])
        assert {name for name, _ in found} == {"c"}
        assert len(found) == 4

    def test_two_winners_that_are_equal_are_not_bold(self) -> None:
        for model, level, seed in (("a", 30.0, 0), ("b", 70.0, 1), ("c", 70.0, 1)):
            made(model, (MODEL, model), level=level, seed=seed)
        assert bold(tables()["main_precision"]) == []

    def test_a_model_alone_and_one_with_five_prompts_are_not_bold(self) -> None:
        made("a", (MODEL, "a"), level=20.0, prompts=5)
        assert bold(tables()["main_precision"]) == []
        made("b", (MODEL, "b"), level=90.0, prompts=5)
        assert bold(tables()["main_precision"]) == []

    def test_without_verdicts_nothing_is_claimed(self) -> None:
        for number, model in enumerate(("a", "b")):
            made(model, (MODEL, model), level=20.0 + 60 * number)
        Path("s/a/iterations/test/verdicts.jsonl").unlink()
        table = tables()["main_precision"]
        assert bold(table) == []
        assert field(table, ("a",), "panel").value is not None
        assert "verdicts.jsonl is missing" in field(table, ("a",), "panel").note

    def test_a_best_mean_would_be_bold_too_often(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The rule is at work: without it the best of two models that only noise tells apart is bold."""
        for number, model in enumerate(("a", "b")):
            made(model, (MODEL, model), level=70.0 + number / 10, seed=number)
        assert bold(tables()["main_precision"]) == []
        monkeypatch.setattr(cells, "p_value", lambda *_: 0.0)
        assert bold(tables()["main_precision"]) != []


class TestFactors:
    def test_levels_stand_below_each_other_with_their_difference_to_the_first(self) -> None:
        for rank, level in ((8, 50.0), (16, 70.0), (32, 70.5)):
            made(f"r{rank}", ("train.lora_r", rank), ("train.lora_alpha", 2 * rank), level=level, seed=rank)
        table = tables()["by_lora_r"]
        assert table.header == ("LoRA rank", "precision", "precision, difference", "similarity",
                                "similarity, difference", "prompts", "n")  # fmt: skip
        assert [row[0].text for row in table.rows] == ["8", "16", "32"]
        assert field(table, ("8",), "precision, difference").text == ""
        apart = field(table, ("16",), "precision, difference")
        assert apart.text.startswith("+")
        first, second = (field(table, (rank,), "precision").value for rank in ("8", "16"))
        assert apart.value == pytest.approx((second or 0) - (first or 0), abs=1e-3)

    def test_settings_are_kept_apart_and_put_together_where_all_levels_ran(self) -> None:
        for task in ("coding", "closed_qa", "summarization"):
            for rank in (8, 16):
                if (task, rank) != ("summarization", 16):
                    made(f"{task}-{rank}", (TASK, task), ("train.lora_r", rank), seed=rank)
        rows = [tuple(cell.text for cell in row[:2]) for row in tables()["by_lora_r"].rows]
        assert rows == [("all", "8"), ("all", "16"), ("closed_qa", "8"), ("closed_qa", "16"), ("coding", "8"),
                        ("coding", "16")]  # fmt: skip
        assert field(tables()["by_lora_r"], ("all", "8"), "n").text == "64"

    def test_a_base_model_stands_beside_every_rank(self) -> None:
        made("base", ("train.enabled", False), ("synthesis.enabled", False), level=40.0)
        for rank in (8, 16):
            made(f"r{rank}", ("train.lora_r", rank), seed=rank)
        table = tables()["by_method"]
        rows = [tuple(cell.text for cell in row[: table.labels]) for row in table.rows]
        assert table.header[: table.labels] == ("LoRA rank", "method")
        assert rows == [("all", "base"), ("all", "fine-tuned"), ("8", "base"), ("8", "fine-tuned"), ("16", "base"),
                        ("16", "fine-tuned")]  # fmt: skip
        assert field(table, ("8", "fine-tuned"), "precision").bold

    def test_a_recipe_of_each_model_makes_no_factor(self) -> None:
        for model, rank in (("a", 8), ("b", 16)):
            made(model, (MODEL, model), ("train.lora_r", rank))
        assert [name for name in tables() if name.startswith("by_")] == []


def test_swept_columns_that_go_with_others_are_left_out() -> None:
    rows = [{"study": "s", "task": "t", "local_model": "m", "lora_r": r, "lora_alpha": 2 * r, "seed": s, "judges": "j"}
            for r in (4, 8) for s in (1, 2)]  # fmt: skip
    full = [dict.fromkeys((*IDENTITY, "judges")) | row for row in rows]
    assert varying(full) == ["lora_r", "seed"]
    assert list(contexts(full, ["lora_r", "seed"], "lora_r")) == [()]


@given(st.lists(st.tuples(*[st.sampled_from([None, 1, 2])] * 3), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_swept_columns_tell_apart_what_all_columns_tell_apart(values: list[tuple[int | None, ...]]) -> None:
    names = ("task", "lora_r", "seed")
    rows = [dict.fromkeys((*IDENTITY, "judges")) | dict(zip(names, value, strict=True)) for value in values]
    kept = varying(rows)
    assert len({tuple(row[name] for name in kept) for row in rows}) == len(set(values))


class TestJudges:
    def test_strictness_and_noise_are_what_was_drawn(self) -> None:
        made("a", prompts=40, level=50.0, repeats=3)
        table = tables()["judges_habits"]
        assert field(table, ("claude_3_sonnet",), "precision, strictness").value == pytest.approx(-4.3, abs=0.6)
        assert field(table, ("gemini_1_5_flash",), "similarity, strictness").value == pytest.approx(4.7, abs=0.6)
        assert field(table, ("gpt_4o",), "precision, noise").value == pytest.approx(3.0, abs=0.3)
        assert field(table, ("gpt_4o",), "n").value == 160

    def test_agreement_is_by_task_and_of_all(self) -> None:
        for task in ("coding", "closed_qa"):
            made(task, (TASK, task))
        table = tables()["judges_agreement"]
        assert [row[0].text for row in table.rows] == ["all tasks", "closed_qa", "coding"]
        assert 0.6 < (table.rows[0][1].value or 0) < 1
        assert field(table, ("all tasks",), "n").text == "64"
        pairs = tables()["judges_correlation"]
        assert len(pairs.rows) == 3
        assert all(0.5 < (row[2].value or 0) <= 1 for row in pairs.rows)

    def test_the_order_of_models_is_looked_at_within_a_task(self) -> None:
        """Tasks differ by far more than models: judges agree on tasks, and on models not at all."""
        for task, base in (("coding", 40.0), ("closed_qa", 80.0)):
            for at, model in enumerate("abcd"):
                run = made(f"{model}-{task}", (TASK, task), (MODEL, model), level=base, prompts=12, seed=at)
                better = {"gpt_4o": 4.0 * at, "claude_3_sonnet": -4.0 * at}
                change_verdicts(run, lambda verdict, better=better: better.get(verdict["judge"], 0.0))
        table = tables()["judges_correlation"]
        apart = field(table, ("claude_3_sonnet", "gpt_4o"), "precision, runs (Kendall)")
        assert (apart.value or 0) < -0.5
        assert field(table, ("claude_3_sonnet", "gpt_4o"), "runs").text == "8 in 2 tasks"
        assert "within every task" in table.note

    def test_one_judge_has_noise_alone(self) -> None:
        made("a", ("judge.panel", {"gpt_4o": {"provider": "openai"}}))
        found = tables()
        assert not {"judges_agreement", "judges_correlation", "judges_family"} & set(found)
        assert field(found["judges_habits"], ("gpt_4o",), "precision, strictness").text == ""
        assert field(found["judges_habits"], ("gpt_4o",), "precision, noise").text != ""

    def test_the_generators_family_is_compared_with_other_students(self) -> None:
        """GPT-4o gives its own students 8 points more than others see."""
        made("theirs", ("service_llm", {"name": "claude", "provider": "anthropic"}), level=50.0, prompts=30)
        ours = made("ours", ("service_llm", {"name": "gpt", "provider": "openai"}), level=50.0, prompts=30, seed=1)
        change_verdicts(ours, lambda v: 8 if v["judge"] == "gpt_4o" else 0)
        table = tables()["judges_family"]
        row = ("openai", "gpt_4o", "claude_3_sonnet + gemini_1_5_flash", "precision")
        assert field(table, row, "difference").value == pytest.approx(8, abs=1)
        assert field(table, row, "difference").bold
        assert field(table, row, "n of reference").text == "120"
        row = ("anthropic", "claude_3_sonnet", "gemini_1_5_flash + gpt_4o", "precision")
        assert field(table, row, "difference").value == pytest.approx(4, abs=1)  # since GPT-4o raised its own

    def test_a_family_without_a_reference_has_a_gap_alone(self) -> None:
        made("a", ("service_llm", {"name": "gpt", "provider": "openai"}))
        row = tables()["judges_family"].rows[0]
        assert (row[4].text != "", row[5].text, row[6].text) == (True, "", "")

    def test_the_makers_own_model_is_no_stranger(self) -> None:
        """Gemma is Google's: what Gemini thinks of it is no reference for Gemini's students."""
        gemini, gpt = ({"name": name, "provider": name} for name in ("gemini", "openai"))
        made("ours", ("service_llm", gemini), ("local_model.path", "meta-llama/Llama-3.2-1B"))
        made("own", ("service_llm", gpt), ("local_model.path", "google/gemma-2b"), seed=1)
        row = next(row for row in tables()["judges_family"].rows if row[0].text == "gemini")
        assert (row[5].text, row[10].text) == ("", "0")
        made("stranger", ("service_llm", gpt), ("local_model.path", "Qwen/Qwen3-4B"), seed=2)
        row = next(row for row in tables()["judges_family"].rows if row[0].text == "gemini")
        assert (row[5].text != "", row[10].text) == (True, "32")

    def test_judges_of_one_family_alone_are_not_compared(self) -> None:
        made("a", preset="pocket")
        assert "judges_family" not in tables()


def lose_verdicts(run: Path, answers: int) -> None:
    """Leave that many answers of the test split, and no others, without a score from any judge."""
    path = run / "iterations/test/verdicts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lost = sorted({(line["prompt_id"], line["sample"]) for line in lines})[:answers]
    for line in lines:
        gone = (line["prompt_id"], line["sample"]) in lost
        value = None if gone else 80.0
        line |= {"similarity": value, "precision": value, "unscored": "not_json" if gone else None}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    change_verdicts(run, lambda _: 0)


def change_verdicts(run: Path, more: Callable[[dict[str, Any]], float]) -> None:
    """Raise the scores of a run's test verdicts, and its scorecard with them."""
    path = run / "iterations/test/verdicts.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        for name in ("similarity", "precision"):
            line[name] = None if line[name] is None else line[name] + more(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = json.loads((run / "state.json").read_text())
    card = score(read_rows(path, Verdict), coverage_cut=70.0)
    state["test"] = json.loads(json.dumps(card, default=vars))
    (run / "state.json").write_text(json.dumps(state))


AS_THE_PAPER = (
    ("protocol.name", "paper"), ("judge.prompt", "paper"), ("loop.growth.volumes", [100_000]),
    ("task.synthetic_rows", 100_000),
)  # fmt: skip


class TestWins:
    def test_models_are_counted_by_judge_and_score_with_the_papers_beside(self) -> None:
        for model, level, seed in (("gemma_7b", 70.0, 0), ("llama3_8b", 50.0, 1), ("gemma_2b", 40.0, 2)):
            made(f"{model}-1", (MODEL, model), (TASK, "coding"), level=level, seed=seed)
        table = tables()["wins"]
        assert table.header == ("task", "model", "best in", "clearly", "of", "published best in", "published of",
                                "source")  # fmt: skip
        assert [[cell.text for cell in row] for row in table.rows] == [
            ["coding", "gemma_2b", "0", "0", "6", "", "", ""],
            ["coding", "gemma_7b", "6", "6", "6", "12", "12", "notes, approximate"],
            ["coding", "llama3_8b", "0", "0", "6", "", "", ""],
        ]

    def test_by_noise_alone_nobody_is_clearly_best_and_equal_ones_both_are(self) -> None:
        for model in ("a", "b"):
            made(model, (MODEL, model), preset="pocket")
        table = tables()["wins"]
        assert table.header == ("task", "model", "best in", "clearly", "of")
        n = str(2 * 3)
        assert [[cell.text for cell in row][1:] for row in table.rows] == [["a", n, "0", n], ["b", n, "0", n]]

    def test_one_model_wins_nothing(self) -> None:
        made("a")
        assert "wins" not in tables()


class TestPublished:
    def test_ours_stand_beside_the_papers(self) -> None:
        gpt = ("service_llm", {"name": "gpt_4o", "provider": "openai"})
        made("a", (MODEL, "gemma_2b"), (TASK, "summarization"), gpt, *AS_THE_PAPER, level=60.0)
        table = tables()["published"]
        known = field(table, ("summarization", "gemma_2b", "claude_3_sonnet", "precision", "gpt_4o"), "published")
        assert known.text == "74.9"
        row = ("summarization", "gemma_2b", "claude_3_sonnet", "precision", "gpt_4o")
        ours, apart = field(table, row, "ours"), field(table, row, "difference")
        assert apart.value == pytest.approx((ours.value or 0) - 74.89, abs=1e-3)
        assert field(table, row, "source").text == "notes, approximate"
        unknown = ("summarization", "gemma_2b", "gpt_4o", "precision", "gpt_4o")
        assert (field(table, unknown, "published").text, field(table, unknown, "difference").text) == ("", "")

    def test_another_generator_has_no_difference(self) -> None:
        llm = ("service_llm", {"name": "x", "provider": "openai"})
        made("a", (MODEL, "gemma_2b"), (TASK, "coding"), llm, *AS_THE_PAPER)
        row = ("coding", "gemma_2b", "claude_3_sonnet", "precision", "x")
        table = tables()["published"]
        assert field(table, row, "published with").text == "gpt_4o"
        assert field(table, row, "difference").text == ""

    @pytest.mark.parametrize(
        ("change", "what"),
        [
            (("protocol.name", "clean"), "protocol"),
            (("judge.prompt", "blind"), "judge's prompt"),
            (("loop.growth.volumes", [1000]), "volume"),
            (("loop.growth.volumes", [1000, 100_000]), "volume"),
            (("service_llm", {"name": "x", "provider": "openai"}), "generator"),
        ],
    )
    def test_what_is_not_the_papers_has_no_difference_and_says_why(self, change: tuple[str, Any], what: str) -> None:
        gpt = ("service_llm", {"name": "gpt_4o", "provider": "openai"})
        made("a", (MODEL, "gemma_2b"), (TASK, "coding"), gpt, *AS_THE_PAPER, change)
        (row,) = [
            row for row in tables()["published"].rows if row[2].text == "claude_3_sonnet" and "prec" in row[3].text
        ]
        apart = row[tables()["published"].header.index("difference")]
        assert (apart.text, apart.note) == ("", f"no difference, since not the paper's: {what}")
        assert "80.9" in [cell.text for cell in row]

    @pytest.mark.parametrize(
        "change",
        [
            ("judge.panel", {"claude_3_sonnet": {"provider": "pocket"}, "gpt_4o": {"provider": "openai"}}),
            ("service_llm", {"name": "gpt_4o", "provider": "pocket"}),
            ("local_model.path", "pocket:llama"),
            ("data.source", "pocket"),
            ("infer", {"backend": "endpoint", "server": {"name": "gpt_4o", "provider": "pocket"}}),
            (MODEL, "smollm3_3b"),
            (TASK, "translation"),
        ],
    )
    def test_rehearsals_and_what_the_paper_did_not_do_are_not_compared(self, change: tuple[str, Any]) -> None:
        made("a", (MODEL, "gemma_2b"), (TASK, "coding"), change)
        assert "published" not in tables()


def test_unscored_is_of_the_verdicts_that_the_scores_are_of() -> None:
    run = made("a", gains=(0.0, 5.0))
    lose_verdicts(run, 3)
    table = tables()["runs"]
    assert table.rows[0][table.header.index("unscored")].value == 3 * 3 * 2  # judges x repeats


class TestBrokenOff:
    def test_everything_at_once(self) -> None:
        """Failed, running, without iterations, unscored and with one prompt: shown as they are, nothing made up."""
        made("done", (MODEL, "a"))
        failed = made("failed", (MODEL, "b"))
        (failed / "state.json").write_text('{"status": "failed", "error": "no reply", "iterations": 1}')
        empty = made("empty", (MODEL, "c"))
        (empty / "metrics.jsonl").unlink()
        shutil.rmtree(empty / "iterations")
        (empty / "state.json").write_text('{"status": "running"}')
        change_verdicts(made("unscored", (MODEL, "d")), lambda _: 0)
        spoil(Path("s/unscored"))
        made("one", (MODEL, "e"), prompts=1, samples=1)
        found = tables()
        shown = {row[0].text: row for row in found["main_precision"].rows}
        assert list(shown) == ["a", "e"]
        assert shown["e"][1].text.endswith(" [2.0, 100.0]")  # one prompt says next to nothing
        assert bold(found["main_precision"]) == []
        status = {row[1].text: row[2].text for row in found["runs"].rows}
        assert status == {"a": "plateau", "b": "failed", "c": "running", "d": "plateau", "e": "plateau"}

    def test_a_panel_of_which_one_judge_failed(self) -> None:
        run = made("a")
        path = run / "iterations/test/verdicts.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if line["judge"] == "gpt_4o":
                line |= {"similarity": None, "precision": None, "unscored": "no_reply"}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        found = tables()
        assert field(found["judges_habits"], ("gpt_4o",), "n").text == "0"
        assert field(found["judges_habits"], ("claude_3_sonnet",), "precision, strictness").text == ""
        (row,) = found["judges_agreement"].rows
        assert 0 < (row[1].value or 0) < 1  # of the two that are left


def spoil(run: Path) -> None:
    """Leave a run without any score."""
    path = run / "iterations/test/verdicts.jsonl"
    lines = [json.loads(line) | {"similarity": None, "precision": None, "unscored": "not_json"}
             for line in path.read_text().splitlines()]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = json.loads((run / "state.json").read_text())
    state["test"] = json.loads(json.dumps(score(read_rows(path, Verdict), coverage_cut=70.0), default=vars))
    (run / "state.json").write_text(json.dumps(state))


def test_runs_that_are_alike_in_all_columns_are_told_apart_by_the_rest_of_their_configurations() -> None:
    for number, decay in enumerate((0.0, 0.1)):
        made(f"m-{number:08d}", ("train.weight_decay", decay))
    study = read_study(Path("s"))
    rows = identities(study)
    assert [row[OTHER] for row in rows] == ["train.weight_decay=0.0", "train.weight_decay=0.1"]
    assert varying(rows) == [OTHER]
    assert len({setting(row) for row in rows}) == 2
    overview = tables()["runs"]
    assert [row[overview.header.index("other settings")].text for row in overview.rows] == [row[OTHER] for row in rows]
    assert "train.weight_decay=0.1" in study_page(study, [], [])


def test_runs_that_a_column_tells_apart_need_no_other() -> None:
    for number, rank in enumerate((4, 8)):
        made(f"m-{number:08d}", ("train.lora_r", rank), ("runtime.results", f"r{number}"))
    study = read_study(Path("s"))
    assert {row[OTHER] for row in identities(study)} == {None}
    assert "other settings" not in tables()["runs"].header
