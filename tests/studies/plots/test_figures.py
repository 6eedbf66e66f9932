"""The figures: what is drawn is what the rows say, with its interval and n; equal runs give equal bytes."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import configuration, make_run, make_study

from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.density import answer_bins, density
from llamaduo.studies.plots.drawing import label_ends, panels, style
from llamaduo.studies.plots.figures import make_figures, pools
from llamaduo.studies.plots.forest import forest
from llamaduo.studies.plots.grouping import best, short, split
from llamaduo.studies.plots.judges import agreement
from llamaduo.studies.plots.lines import learning_curves, rank_lines, volume_scaling
from llamaduo.studies.plots.pareto import pareto
from llamaduo.studies.plots.ranks import rank_map
from llamaduo.studies.plots.serving import cost_over_time, pay_back
from llamaduo.studies.study import Study, read_study
from llamaduo.studies.tidy import COLUMNS, Row

FEW: dict[str, Any] = {"prompts": 5, "samples": 2, "repeats": 1}


def a_row(run: str, mean: float | None = 80.0, **fields: Any) -> Row:
    """Return a reported row of the whole panel."""
    known = dict.fromkeys(COLUMNS) | {
        "study": "s", "run": run, "task": "coding", "local_model": "gemma_2b", "method": "fine-tuned", "judge": "all",
        "split": "dev", "iteration": 0, "reported": True, "answers": 60, "unanswered": 0, "similarity_n": 60,
        "precision_n": 60, "train_rows": 100,
        "synthetic_rows": 0, "cost_usd": 1.0, "seconds": 10.0, "lora_r": 16, "lora_alpha": 32, "epochs": 5,
    }  # fmt: skip
    for score in ("similarity", "precision"):
        limits = (mean, None if mean is None else mean - 5, None if mean is None else mean + 5)
        known |= {f"{score}_{name}": value for name, value in zip(("mean", "low", "high"), limits, strict=True)}
    return known | fields


def volumes(models: tuple[str, ...] = ("gemma_2b", "gemma_7b"), **fields: Any) -> list[Row]:
    return [
        a_row(f"{model}-{v}", 60.0 + 3 * at + n, local_model=model, volume=v, synthetic_rows=v, train_rows=v,
              epochs=10 if v < 4000 else 5, **fields)
        for n, model in enumerate(models) for at, v in enumerate((1000, 2000, 4000, 8000))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("made") / "study"
    return read_study(make_study(folder, models=("gemma_2b", "llama3_8b"), tasks=("coding", "closed_qa"), **FEW))


@pytest.fixture(scope="module")
def drawn(study: Study) -> dict[str, Figure]:
    return {figure.name: figure for figure in make_figures(study)}


def test_a_study_of_models_and_tasks_has_its_figures(drawn: dict[str, Figure]) -> None:
    assert "agreement_precision" in drawn
    assert {"forest_precision", "forest_similarity", "learning_precision", "learning_similarity", "density"} <= set(
        drawn
    )
    for figure in drawn.values():
        assert figure.png.startswith(b"\x89PNG")
        assert figure.svg.startswith("<svg ")
        assert figure.title
        assert figure.title in figure.svg
        assert re.search(r"n = [\d,]+", figure.caption)
        assert figure.data


def test_forest_draws_every_reported_score_of_every_judge(study: Study, drawn: dict[str, Figure]) -> None:
    named = {(row["run"], row["judge"]): row for row in drawn["forest_precision"].data}
    expected = [row for row in study.rows if row["reported"]]
    assert len(named) == len(expected) == 4 * 4  # runs x (three judges and the panel's mean)
    for row in expected:
        mark = named[row["run"], "panel's mean" if row["judge"] == "all" else row["judge"]]
        assert (mark["mean"], mark["low"], mark["high"], mark["n"]) == (
            row["precision_mean"], row["precision_low"], row["precision_high"], row["precision_n"],
        )  # fmt: skip
        assert (mark["panel"], mark["series"]) == (row["task"], row["local_model"])


def test_learning_curves_draw_every_iteration_and_the_gate(study: Study, drawn: dict[str, Figure]) -> None:
    figure = drawn["learning_similarity"]
    points = {(p["run"], p["iteration"]): p for p in figure.data}
    lines = {(run.name, line.iteration): line for run in study.runs for line in run.history}
    assert points.keys() == lines.keys()
    for key, line in lines.items():
        assert (points[key]["train_rows"], points[key]["mean"]) == (line.train_rows, line.similarity_mean)
        assert (points[key]["low"], points[key]["high"]) == (line.similarity_low, line.similarity_high)
    assert {point["gate"] for point in figure.data} == {90.0}
    assert "gate 90" in figure.svg


def test_density_counts_every_answer_once(study: Study, drawn: dict[str, Figure]) -> None:
    data = drawn["density"].data
    panel_of = {row["run"]: row["local_model"] for row in study.reported()}
    for model in ("gemma_2b", "llama3_8b"):
        scores = [study.scores[run] for run in panel_of if panel_of[run] == model]
        places = np.concatenate([np.stack([s.of_answers("similarity"), s.of_answers("precision")]) for s in scores], 1)
        mine = [row for row in data if row["panel"] == model]
        there = ~np.isnan(places).any(0)
        assert sum(row["answers"] for row in mine) == mine[0]["n"] == there.sum()
        assert mine[0]["covered"] == (places[:, there] >= 70).all(0).sum()
        assert mine[0]["cut"] == 70
    assert f"n = {data[0]['n']}" in drawn["density"].svg


def test_a_hexagon_holds_the_answers_nearest_to_it() -> None:
    class OneRun:
        def of_answers(self, score: str) -> Any:
            return np.array([100.0, 99.0, 50.0, np.nan] if score == "precision" else [100.0, 99.5, 50.0, 3.0])

    rows = answer_bins({"a": OneRun()}, {"a": "m"}, {})  # type: ignore[dict-item]
    assert [(row["similarity"], row["precision"], row["answers"]) for row in rows if row["answers"] == 2] == [
        (100, 100, 2)
    ]
    (other,) = (row for row in rows if row["answers"] == 1)
    assert max(abs(other["similarity"] - 50), abs(other["precision"] - 50)) <= 5
    assert {row["cut"] for row in rows} == {None}


def test_equal_runs_give_equal_bytes_in_another_process_too(study: Study, drawn: dict[str, Figure]) -> None:
    script = (
        "import sys, hashlib; from pathlib import Path; from llamaduo.studies.study import read_study\n"
        "from llamaduo.studies.plots.figures import make_figures\n"
        "for f in make_figures(read_study(Path(sys.argv[1]))):\n"
        "    print(f.name, hashlib.sha256(f.svg.encode() + f.png).hexdigest(), hash('x') and '')\n"
        "print(*[n for n in ('torch', 'transformers', 'litellm', 'wandb', 'matplotlib.pyplot') if n in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script, str(study.root)], capture_output=True, text=True, check=True
    )
    *lines, loaded = printed.stdout.split("\n")[:-1]
    assert loaded == ""
    assert [line.split()[:2] for line in lines] == [
        [figure.name, hashlib.sha256(figure.svg.encode() + figure.png).hexdigest()] for figure in drawn.values()
    ]


def test_the_users_matplotlib_settings_neither_change_a_figure_nor_are_changed(study: Study) -> None:
    import matplotlib

    first = forest(study.rows, "precision")
    with matplotlib.rc_context(
        {"axes.facecolor": "red", "font.size": 30.0, "lines.linewidth": 9.0, "text.usetex": True}
    ):
        second = forest(study.rows, "precision")
        assert matplotlib.rcParams["font.size"] == 30.0
    assert first == second


def test_importing_figures_does_not_load_matplotlib() -> None:
    asked = "import sys, llamaduo.studies.plots.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def test_an_svg_brings_nothing_into_a_page_but_itself(drawn: dict[str, Figure]) -> None:
    for figure in drawn.values():
        assert "<?xml" not in figure.svg
        assert "<style" not in figure.svg
        assert not re.search(r"\b(href|src)=\"(?!#|data:image/png)", figure.svg)
        assert len(figure.svg) < 200_000


def test_scaling_draws_a_band_for_each_model() -> None:
    rows = volumes()
    figure = volume_scaling(rows, "precision")
    assert figure is not None
    assert {point["series"] for point in figure.data} == {"gemma_2b", "gemma_7b"}  # epochs follow from the volume
    by_run = {row["run"]: row for row in rows}
    for point in figure.data:
        row = by_run[point["run"]]
        assert point["synthetic_rows"] == row["volume"]
        assert (point["mean"], point["low"], point["high"]) == (
            row["precision_mean"], row["precision_low"], row["precision_high"],
        )  # fmt: skip
    assert figure.svg.count("opacity: 0.13") == 2  # a band a line
    assert "95% intervals" in figure.caption


def test_scaling_has_a_panel_for_each_generator() -> None:
    rows = volumes(service_llm="gpt_4o") + [
        row | {"run": f"x{row['run']}", "service_llm": "claude"} for row in volumes()
    ]
    figure = volume_scaling(rows, "similarity")
    assert figure is not None
    assert {point["panel"] for point in figure.data} == {"data from gpt_4o", "data from claude"}


def test_one_run_that_goes_through_volumes_is_a_scaling_curve_and_no_learning_curve() -> None:
    rows = [a_row("r", 50.0 + n, iteration=n, train_rows=v, synthetic_rows=v, reported=n == 2)
            for n, v in enumerate((1000, 2000, 4000))]  # fmt: skip
    figure = volume_scaling(rows, "precision")
    assert figure is not None
    assert [point["synthetic_rows"] for point in figure.data] == [1000, 2000, 4000]
    assert learning_curves(rows, "precision") is None


def test_learning_curves_leave_the_test_split_out() -> None:
    rows = [a_row("r", 50.0, train_rows=10), a_row("r", 60.0, iteration=1, train_rows=40),
            a_row("r", 99.0, iteration=1, train_rows=40, split="test")]  # fmt: skip
    figure = learning_curves(rows, "precision")
    assert figure is not None
    assert [point["mean"] for point in figure.data] == [50.0, 60.0]


def test_ranks_are_a_map_where_alpha_varies_and_lines_where_it_follows() -> None:
    grid = [a_row(f"{r}-{a}", 70.0 + r / 8, lora_r=r, lora_alpha=a) for r in (8, 16) for a in (16, 32)]
    figure = rank_map(grid, "precision")
    assert figure is not None
    assert [(c["lora_r"], c["lora_alpha"], c["mean"], c["low"], c["n"]) for c in figure.data] == [
        (8, 16, 71.0, 66.0, 60), (8, 32, 71.0, 66.0, 60), (16, 16, 72.0, 67.0, 60), (16, 32, 72.0, 67.0, 60),
    ]  # fmt: skip
    for text in ("71.0", "[66.0, 76.0]", "n 60"):
        assert text in figure.svg
    twice = [a_row(str(r), 70.0, lora_r=r, lora_alpha=2 * r) for r in (8, 16, 32)]
    assert rank_map(twice, "precision") is None
    lines = rank_lines(twice, "precision")
    assert lines is not None
    assert [point["lora_r"] for point in lines.data] == [8, 16, 32]


def test_the_front_holds_what_no_other_run_beats() -> None:
    runs = {"cheap": (1.0, 70.0), "worse": (2.0, 60.0), "good": (3.0, 80.0), "dear": (4.0, 80.0), "best": (5.0, 90.0)}
    rows = [a_row(name, mean, cost_usd=usd, seed=n) for n, (name, (usd, mean)) in enumerate(runs.items())]
    figure = pareto(rows, "precision")
    assert figure is not None
    assert [point["run"] for point in figure.data if point["front"]] == ["cheap", "good", "best"]
    assert {point["run"]: point["usd"] for point in figure.data} == {name: usd for name, (usd, _) in runs.items()}


def test_cost_counts_all_iterations_and_time_stands_in_where_nothing_was_paid() -> None:
    paid = [a_row("a", 70.0, reported=False, cost_usd=2.0), a_row("a", 75.0, iteration=1, cost_usd=3.0),
            a_row("a", None, judge="gpt_4o", cost_usd=9.0), a_row("b", 70.0, seed=1)]  # fmt: skip
    figure = pareto(paid, "precision")
    assert figure is not None
    assert {point["run"]: point["usd"] for point in figure.data} == {"a": 5.0, "b": 1.0}
    free = [row | {"cost_usd": 0.0} for row in paid]
    figure = pareto(free, "precision")
    assert figure is not None
    assert "no reply cost anything" in figure.caption
    assert {point["run"]: point["seconds"] for point in figure.data} == {"a": 20.0, "b": 10.0}


def test_cost_over_time_draws_the_rows_and_the_range_of_runs() -> None:
    rows: list[Row] = [{"system": s, "load": load, "month": m, "usd": m * usd} for load in ("light", "heavy")
                       for s, usd in (("gpt_4o", 1950.0), ("local", 308.0)) for m in range(13)]  # fmt: skip
    figure = cost_over_time(rows)
    assert figure is not None
    assert len(figure.data) == len(rows)
    assert "$23,400" in figure.svg
    assert "range" not in figure.caption
    two = [{"run": r, "local_model": "gemma", "service_llm": "gpt_4o", "task": "coding", "system": "service",
            "load": "light", "month": m, "usd": m * usd}
           for r, usd in (("a", 10.0), ("b", 30.0)) for m in range(3)]  # fmt: skip
    figure = cost_over_time(two)
    assert figure is not None
    assert [(r["series"], r["usd"], r["low"], r["high"], r["runs"]) for r in figure.data][-1] == (
        "gpt_4o",
        40,
        20,
        60,
        2,
    )
    assert "range" in figure.caption
    assert cost_over_time([]) is None


def test_what_cost_over_time_leaves_out_is_in_its_data() -> None:
    rows: list[Row] = [{"run": f"r{n}", "local_model": f"m{n}", "service_llm": "gpt_4o", "task": f"t{n}",
                        "system": system, "load": load, "month": m, "usd": float(m)}
                       for n in range(9) for system in ("service", "local, shared machine")
                       for load in ("light", "heavy") for m in range(2)]  # fmt: skip
    figure = cost_over_time(rows)
    assert figure is not None
    assert len(figure.data) == len(rows)
    assert "4 of 10 systems left out: they are in the figure's data" in figure.caption
    assert "10 of 18 panels left out: they are in the figure's data" in figure.caption
    drawn = [row for row in figure.data if row["drawn"]]
    assert (len({row["panel"] for row in drawn}), len({row["series"] for row in drawn})) == (8, 5)


def test_pay_back_draws_one_run_and_has_the_others_in_its_data() -> None:
    rows: list[Row] = [
        {"run": run, "task": "coding", "local_model": "g", "assumption": name, "value": by, "assumed": by == 1,
         "requests": requests, "months_shared": None if by == 2 else 900 / requests,
         "months_whole": None if requests == 1000 else 4.0}
        for run in ("a", "b") for name in ("GPU price", "service price") for by in (0.5, 1.0, 2.0)
        for requests in (1000, 10_000)
    ]  # fmt: skip
    figure = pay_back(rows)
    assert figure is not None
    assert [{name: row[name] for name in rows[0]} for row in figure.data] == rows
    drawn = [row for row in figure.data if row["drawn"]]
    assert {row["run"] for row in drawn} == {"a"}
    assert {row["value"] for row in drawn} == {0.5, 1.0}
    assert "1 of 2 runs left out: they are in the figure's data" in figure.caption
    assert "whole machines" in figure.caption
    assert pay_back([row | {"months_shared": None} for row in rows]) is None


def test_agreement_draws_pairs_and_strictness() -> None:
    rows: list[Row] = [
        {"kind": "rank", "judge": "a", "other": "b", "value": 0.81, "low": 0.7, "high": 0.9, "n": 96},
        {"kind": "strictness", "judge": "a", "other": "", "value": -2.5, "low": -3.0, "high": -2.0, "n": 96},
        {"kind": "strictness", "judge": "b", "other": "", "value": 2.5, "low": None, "high": None, "n": 96},
    ]
    figure = agreement(rows)
    assert figure is not None
    for text in ("0.81", "[0.70, 0.90]", "+2.5", "-2.5"):
        assert text in figure.svg
    assert figure.data == rows
    assert agreement(rows[1:]) is None


def test_agreement_of_a_study_has_every_pair_and_every_judge(study: Study, drawn: dict[str, Figure]) -> None:
    rows = drawn["agreement_precision"].data
    assert [row["kind"] for row in rows] == ["rank"] * 3 + ["strictness"] * 3
    strict = {row["judge"]: row["value"] for row in rows if row["kind"] == "strictness"}
    assert strict["claude_3_sonnet"] < strict["gpt_4o"] < strict["gemini_1_5_flash"]
    assert all(row["low"] <= row["value"] <= row["high"] and row["n"] > 30 for row in rows)


def test_nothing_is_drawn_from_nothing() -> None:
    lonely = [a_row("r")]
    for rows in ([], lonely, [a_row("r", None), a_row("s", None, lora_r=8, volume=1000)]):
        made = [
            draw(rows, "precision") for draw in (forest, volume_scaling, learning_curves, rank_map, rank_lines, pareto)
        ]
        assert made == [None] * 6
    assert density([]) is None
    assert agreement([]) is None


def test_one_run_has_its_curve_and_its_answers(tmp_path: Path) -> None:
    make_run(tmp_path / "run", gains=(0.0, 5.0), config=configuration("preset=service"), judges=["gpt_4o"],
             **FEW)  # fmt: skip
    names = [figure.name for figure in make_figures(read_study(tmp_path))]
    assert names == ["learning_precision", "learning_similarity", "density"]


def test_a_run_that_broke_off_has_no_figure(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", config=configuration(), **FEW)
    (folder / "state.json").write_text(json.dumps({"status": "failed", "error": "out of reach"}))
    (folder / "metrics.jsonl").unlink()
    assert make_figures(read_study(tmp_path)) == []


def test_scores_that_are_missing_leave_gaps_and_no_numbers() -> None:
    rows = volumes()
    rows[1] |= {"precision_mean": None, "precision_low": None, "precision_high": None}
    rows[2] |= {"precision_mean": float("nan")}
    rows[3] |= {"precision_low": None, "precision_high": None}
    for figure in (volume_scaling(rows, "precision"), forest(rows, "precision"), pareto(rows, "precision")):
        drawn = {point["run"] for point in figure.data} if figure else {rows[0]["run"]}
        assert rows[0]["run"] in drawn
        assert not {rows[1]["run"], rows[2]["run"]} & drawn


def test_names_in_any_script_and_with_signs_are_drawn_as_they_are() -> None:
    names = ("модель_β", "模型", "a $x^2$ & <b>", "نموذج")
    figure = forest(
        [a_row(str(n), 70.0 + n, local_model=name, task="课题") for n, name in enumerate(names)], "precision"
    )
    assert figure is not None
    for text in ("модель_β", "模型", "a $x^2$ &amp; &lt;b&gt;", "نموذج"):
        assert text in figure.svg


def test_thirty_models_fit_and_more_are_said_to_be_left_out() -> None:
    rows = [a_row(f"{n:02d}", 50.0 + n, local_model=f"model_{n:02d}", volume=v, synthetic_rows=v)
            for n in range(34) for v in (1000, 2000)]  # fmt: skip
    rows = [row | {"run": f"{row['run']}-{row['volume']}"} for row in rows]
    figure = forest([row for row in rows if row["volume"] == 1000], "precision")
    assert figure is not None
    assert {row["series"] for row in figure.data} == {f"model_{n:02d}" for n in range(4, 34)}
    assert "4 of 34 rows left out" in figure.caption
    lines = volume_scaling(rows, "precision")
    assert lines is not None
    assert "28 of 34 lines left out" in lines.caption


def test_labels_at_the_ends_never_overlap() -> None:
    with style():
        figure, (axis,) = panels(["p"])
        axis.set_ylim(0, 100)
        axis.set_xlim(0, 1)
        label_ends(axis, [(1, 99.0, f"line {n}", "black") for n in range(6)])
        figure.draw_without_rendering()
        boxes = sorted((text.get_window_extent() for text in axis.texts), key=lambda box: box.y0)
    assert all(below.y1 <= above.y0 + 1 for below, above in itertools.pairwise(boxes))
    assert boxes[-1].y1 <= figure.bbox.y1


def test_what_follows_from_other_columns_divides_nothing() -> None:
    layout = split(volumes(), axis=("volume",))
    assert (layout.panels, layout.series) == ((), ("local_model",))
    rows = [a_row(str(n), seed=n, learning_rate=n / 10) for n in range(3)]
    assert split(rows).series == ("learning_rate",)


def test_answers_are_pooled_by_the_first_thing_that_varies() -> None:
    assert pools([a_row("a", local_model="x"), a_row("b", local_model="y", task="qa")]) == {"a": "x", "b": "y"}
    assert pools([a_row("a"), a_row("b", start="last")]) == {"a": "none", "b": "from last"}
    assert pools([a_row("a")]) == {"a": "gemma_2b"}


@pytest.mark.parametrize(
    ("number", "text"), [(16, "16"), (334, "334"), (1336, "1,336"), (2000, "2k"), (64_000, "64k"), (1e6, "1M")]
)
def test_counts_are_short(number: float, text: str) -> None:
    assert short(number) == text


def test_panels_are_in_the_order_of_their_numbers() -> None:
    names = ["1,024 rows", "256 rows", "64 rows", "1k rows", "r 16", "r 8", "1M rows", "coding"]
    groups: dict[str, list[Row]] = {name: [] for name in names}
    found = best(groups, 10, "precision_mean")
    assert found == ["64 rows", "256 rows", "1k rows", "1,024 rows", "1M rows", "coding", "r 8", "r 16"]
