"""Every study of experiments/ composes offline, says what it asks and costs, has a rehearsal with the same grid, and
every cell of the paper's tables is one of its runs.

A grid is the product of what its file sweeps. Of a study every run is composed, and checked, as the command does it; of
a rehearsal one for each level of each axis, so that every choice that any run makes is seen.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import importlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from llamaduo.cli import main
from llamaduo.compose import checked, compose
from llamaduo.config import Experiment, conf_dir, fingerprint
from llamaduo.quote.hours import work
from llamaduo.records import Verdict
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import read_state
from llamaduo.runs.tracking import read_metrics
from llamaduo.steps.growth import planned, situation, volume
from llamaduo.studies.published import published_costs, published_scores

ROOT = Path(__file__).parents[1]
EXPERIMENTS = ROOT / "experiments"
PAPER = ROOT.parent / "shared/paper"
RUNS = {
    "main_table": 16, "volume_scaling": 54, "generators": 24, "ranks": 36, "small_models": 8, "cost": 4,
    "continue_or_restart": 8, "judges": 24, "few_shot": 12, "judge_prompt": 8, "ceiling": 12,
    "seeds": 20,
}  # fmt: skip
"""How many runs each study has; its rehearsal has as many, but for three pocket models, and one with several seeds."""
REHEARSED = {f"pocket_{name}": count for name, count in RUNS.items()} | {"pocket_main_table": 12, "pocket_seeds": 10}
OUR_OWN = {"pocket_no_synthesis": 4, "synthesis_strategies": 40}
"""Studies of pocket models that rehearse none of the paper's."""
FILES = sorted(path.stem for path in EXPERIMENTS.rglob("*.yaml"))
JUDGES = ("gpt_4o", "claude_3_sonnet", "gemini_1_5_flash")


def head(name: str) -> str:
    """Return a file's comment at its beginning."""
    lines = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return "\n".join(line.removeprefix("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))


def axes(name: str) -> dict[str, list[str]]:
    """Return the levels of everything that a study sweeps."""
    params = OmegaConf.load(EXPERIMENTS / f"{name}.yaml").hydra.sweeper.params
    return {str(key): str(levels).split(",") for key, levels in params.items()}


def grid(name: str, **other: list[str]) -> list[dict[str, str]]:
    """Return the choices of every run of a study; `other` takes the place of some axes' levels."""
    found = axes(name) | other
    return [dict(zip(found, levels, strict=True)) for levels in itertools.product(*found.values())]


def job(name: str, choices: Mapping[str, str], *others: str) -> Experiment:
    """Return one run of a study, composed and checked as a sweep does it."""
    from hydra import compose as one
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Experiment)
    place = f"hydra.searchpath=[{conf_dir().as_uri()}]"
    with initialize_config_dir(str(EXPERIMENTS), version_base=None):
        chosen = [f"{key}={value}" for key, value in choices.items()]
        return checked([one(name, [place, *chosen, *others])])[0]


def sweep(name: str) -> tuple[list[Experiment], list[list[str]]]:
    """Return all runs of a study and the overrides of each, composed by the command."""
    found = compose(["-cd", str(EXPERIMENTS), "-cn", name])
    assert found is not None
    assert found.sweep is not None
    return found.experiments, found.sweep.overrides


@functools.cache
def jobs(name: str) -> list[Experiment]:
    """Return as many runs of a study as its longest axis has levels: every level of every axis is in one of them."""
    levels = axes(name)
    count = max(map(len, levels.values()))
    return [job(name, {key: of[number % len(of)] for key, of in levels.items()}) for number in range(count)]


# ---------------------------------------------------------------- the files


def test_there_are_as_many_files_as_the_tests_look_at() -> None:
    assert len(FILES) == 26
    assert set(FILES) == set(RUNS) | set(REHEARSED) | set(OUR_OWN)


@pytest.mark.parametrize("name", FILES)
def test_the_first_lines_say_what_is_asked_and_what_it_costs(name: str) -> None:
    text = head(name)
    for word in ("Question", "Quote", "Published"):
        assert re.search(rf"^{word}: \S", text, re.MULTILINE), word
    assert f"Command: llamaduo run -cd experiments -cn {name}\n" in text
    if name in REHEARSED | OUR_OWN:
        assert re.search(r"^Quote: free\b.*, about \d+ minutes? on two CPU cores", text, re.MULTILINE)
    if name in REHEARSED:
        assert text.startswith(f"Rehearses: {name.removeprefix('pocket_')}, ")
        assert "Nothing is bought" in text.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), RUNS.items())
def test_every_run_of_every_study_composes_and_has_a_folder_of_its_own(name: str, count: int) -> None:
    composed, overrides = sweep(name)
    assert [dict(text.split("=", 1) for text in texts) for texts in overrides] == grid(name)
    assert len({run_folder(experiment) for experiment in composed}) == len(composed) == count
    check(name, composed)
    for experiment, choices in zip(composed, grid(name), strict=True):
        assert choices.get("task") in (None, experiment.task.name)
        assert choices.get("local_model") in (None, experiment.local_model.name)
        assert choices.get("service_llm") in (None, experiment.service_llm.name)


@pytest.mark.parametrize(("name", "count"), (REHEARSED | OUR_OWN).items())
def test_every_rehearsal_composes_and_has_its_number_of_runs(name: str, count: int) -> None:
    assert len(grid(name)) == count
    check(name, jobs(name))


def test_the_seeds_of_a_setting_differ_in_nothing_else() -> None:
    for name in ("seeds", "pocket_seeds"):
        one, other = (job(name, grid(name)[at]) for at in (0, 1))
        assert (one.local_model, one.task, one.runtime.seed) == (other.local_model, other.task, other.runtime.seed - 1)
        other.runtime.seed, other.name = one.runtime.seed, one.name
        assert fingerprint(one) == fingerprint(other)


def check(name: str, composed: list[Experiment]) -> None:
    """Assert that no two runs are the same, and that a rehearsal asks nobody and a study no pocket LLM."""
    assert len({fingerprint(experiment) for experiment in composed}) == len(composed)
    for experiment in composed:
        pocket = name in REHEARSED | OUR_OWN
        llms = [*experiment.judge.panel.values(), experiment.service_llm]
        assert {llm.provider == "pocket" for llm in llms} == {pocket}
        assert experiment.local_model.path.startswith("pocket:") == pocket or experiment.infer.server
        assert experiment.study == {"cost": "main_table"}.get(name, name)


def test_hydra_makes_the_same_grid() -> None:
    found = compose(["-cd", str(EXPERIMENTS), "-cn", "pocket_continue_or_restart", "task=coding,closed_qa"])
    assert found is not None
    assert found.sweep is not None
    made = [{"loop.start": run.loop.start.value, "task": run.task.name} for run in found.experiments]
    assert made == grid("pocket_continue_or_restart", task=["coding", "closed_qa"])
    assert found.experiments[3].name == "pocket_mistral-closed_qa-from_last"


@pytest.mark.parametrize("name", RUNS)
def test_a_rehearsal_has_the_axes_of_its_study(name: str) -> None:
    real, rehearsed = axes(name), axes(f"pocket_{name}")
    assert list(real) == list(rehearsed)
    wanted = {key: len(levels) for key, levels in real.items()}
    if name in ("main_table", "seeds"):
        wanted["local_model"] = {"main_table": 3, "seeds": 1}[name]
    assert {key: len(levels) for key, levels in rehearsed.items()} == wanted
    one, other = (job(each, grid(each)[0]) for each in (name, f"pocket_{name}"))
    assert len(one.judge.panel) == len(other.judge.panel) == 3


def test_the_pocket_panel_differs_in_strictness_and_the_generators_in_errors() -> None:
    panel = jobs("pocket_main_table")[0].judge.panel.values()
    assert sorted(llm.parameters["strictness"] for llm in panel) == [0.5, 1.0, 2.0]
    rates = {run.service_llm.parameters["error_rate"] for run in jobs("pocket_generators")}
    assert rates == {0.0, 0.1, 0.3}


def test_the_cost_study_runs_in_the_main_tables_folders() -> None:
    choices = grid("cost")[2]
    assert choices in grid("main_table")
    one, other = (job(name, choices) for name in ("cost", "main_table"))
    assert (one.study, one.name, fingerprint(one)) == (other.study, other.name, fingerprint(other))


def test_one_pool_is_bought_for_all_volumes(study_quotes: Any) -> None:
    small, large = (requests_of(job("volume_scaling", {"volume": size}), study_quotes) for size in ("1k", "4k"))
    assert len(small) == 163  # 1,000 rows, 1.3 times as many asked for, 8 in a request
    assert large[: len(small)] == small
    assert len(set(large)) == len(large) == 650


def requests_of(experiment: Experiment, study_quotes: Any) -> list[str]:
    """Return the keys under which the journal holds what is asked for a run's synthetic rows."""
    dataset = study_quotes.stand_in(experiment)
    wanted = volume(experiment.loop.growth, len(dataset.train), 0)
    return [asked.request.key for asked in planned(situation(experiment, dataset), wanted, 0)]


# ---------------------------------------------------------------- what they cost


@pytest.fixture
def study_quotes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("study_quotes")


@pytest.mark.parametrize("name", ["ceiling", "continue_or_restart"])
def test_the_quote_in_the_file_is_what_llamaduo_quote_works_out(name: str, study_quotes: Any) -> None:
    assert f"Quote: {study_quotes.quote_line(name)}\n" in head(name)


def test_the_main_table_with_three_seeds_is_an_option_with_its_price(study_quotes: Any) -> None:
    (option, told) = re.findall(r"^With (\S+): (.*)$", head("main_table"), re.MULTILINE)[0]
    assert option == "runtime.seed=1,2,3"
    one = re.search(r"^Quote: (\d+) runs", head("main_table"), re.MULTILINE)
    assert one is not None
    assert told.startswith(f"{3 * int(one[1])} runs, ")
    assert told == study_quotes.quote_line("main_table", option)


@pytest.mark.parametrize(("name", "count"), RUNS.items())
def test_every_quote_has_calls_tokens_money_and_hours(name: str, count: int) -> None:
    number = r"[\d,.]+(?: to [\d,.]+)?"
    form = rf"Quote: {count} runs, {number} calls, {number} million tokens in, {number} out, \${number}; "
    form += rf"GPU hours on one H100 SXM, estimated: {number} training, {number} answering\.$"
    assert re.search(form, head(name), re.MULTILINE)


def test_a_studys_hours_are_those_of_a_quote(study_quotes: Any) -> None:
    run = job("main_table", {"local_model": "gemma_7b", "task": "coding"}, "runtime.results=none")
    found = work(run, study_quotes.stand_in(run), 1, None)
    assert found.train_hours is not None
    assert found.answer_hours is not None
    flop = 6 * 8_537_680_896 * 100_000 * 130 * run.train.epochs
    assert found.train_hours == pytest.approx([flop / (share * 989e12) / 3600 for share in (0.4, 0.2)])
    (trained, answered) = (study_quotes.span(pair) for pair in (found.train_hours, found.answer_hours))
    told = study_quotes.described([run])
    assert told.endswith(f"GPU hours on one H100 SXM, estimated: {trained} training, {answered} answering.")
    assert study_quotes.described([job("ceiling", {}, "runtime.results=none")]).endswith("0 training, 0 answering.")


# ---------------------------------------------------------------- the paper's tables

TASKS = ("summarization", "classification", "coding", "closed_qa")
MODELS = ("gemma_2b", "gemma_7b", "mistral_7b_v0_3", "llama3_8b")


def papers_own(name: str) -> dict[str, list[str]]:
    """Return the levels that name the paper's service LLMs, as the file's comment gives them."""
    (line,) = re.findall(r"^The paper: (.*)$", head(name), re.MULTILINE)
    return {key: levels.split(",") for key, _, levels in (part.partition("=") for part in str(line).split())}


def papers_grid(name: str) -> list[dict[str, str]]:
    """Return the choices of every run of a study, with the paper's service LLMs."""
    return grid(name, **papers_own(name))


@pytest.mark.parametrize("name", RUNS)
def test_the_papers_service_llms_are_named_by_the_overrides_of_the_comment(name: str) -> None:
    own = papers_own(name)
    run = job(name, papers_grid(name)[-1])
    assert tuple(run.judge.panel) == JUDGES
    assert run.service.replay
    assert own["service_llm"] == (list(JUDGES) if "service_llm" in axes(name) else ["gpt_4o"])
    assert len(papers_grid(name)) == RUNS[name]


def runs_of(name: str, **choices: str) -> int:
    """Return how many runs of a study make these choices."""
    return sum(all(run.get(key) == level for key, level in choices.items()) for run in papers_grid(name))


def test_every_cell_of_the_main_table_is_one_member_of_one_runs_panel() -> None:
    panel = list(job("main_table", papers_grid("main_table")[0]).judge.panel)
    scores = ("similarity", "precision")
    cells = list(itertools.product(MODELS, TASKS, JUDGES, scores))
    assert len(cells) == 96
    for model, task, judge, score in cells:
        assert runs_of("main_table", local_model=model, task=task) == 1
        assert panel.count(judge) == 1
        assert score in {field.name for field in dataclasses.fields(Verdict)}
    assert len(papers_grid("main_table")) * len(panel) * len(scores) == len(cells)


def test_every_published_score_is_one_run_of_a_study() -> None:
    rows = published_scores()
    for row in rows:
        if row.generator is None:
            assert runs_of("ceiling", service_llm=row.model, task=row.task) == 1
        else:
            assert runs_of("main_table", local_model=row.model, task=row.task, service_llm=row.generator) == 1
        assert row.judge in JUDGES
    assert len(rows) == 24


def test_every_published_cost_is_of_the_cost_studys_models() -> None:
    rows = published_costs()
    for row in rows:
        key = "local_model" if row.local else "service_llm"
        assert {run[key] for run in papers_grid("cost")} == {row.model}
    assert len(rows) == 4


def paper_rows(name: str) -> list[dict[str, str]]:
    if not (PAPER / name).is_file():
        pytest.skip(f"the paper's {name} is not beside the repository")
    with (PAPER / name).open(newline="") as file:
        return list(csv.DictReader(file))


FOLDERS = {
    "gemma2b": "gemma_2b", "gemma7b": "gemma_7b", "mistral_7b": "mistral_7b_v0_3", "llama3_8b": "llama3_8b",
    "llama3_1b": "llama3_2_1b", "llama3_3b": "llama3_2_3b",
}  # fmt: skip
GENERATORS = dict(zip(("gpt4o", "claude3sonnet", "gemini1_5flash"), JUDGES, strict=True))
CARD_GENERATORS = dict(zip(("gpt4o", "claude", "gemini"), JUDGES, strict=True))
CARD_MODELS = dict(zip(("gemma-2b", "gemma-7b", "Mistral-7B-v0.3", "Llama-3-8B"), MODELS, strict=True))


def test_every_released_recipe_is_one_run_of_a_study() -> None:
    found: list[str] = []
    for row in paper_rows("recipes.csv"):
        if not row["volume"]:
            continue  # the sample, which belongs to no table
        model = FOLDERS[row["file"].split("/")[1]]
        choices = {"local_model": model, "task": row["task"]}
        study = "small_models" if model.startswith("llama3_2") else "main_table"
        if model.startswith("gemma"):  # one task, swept over volumes and generators
            study = "volume_scaling"
            choices = {"local_model": model, "volume": row["volume"], "service_llm": GENERATORS[row["generator"]]}
        assert runs_of(study, **choices) == 1, row
        found.append(study)
    counts = {study: found.count(study) for study in found}
    assert counts == {"volume_scaling": 54, "main_table": 8, "small_models": 8}


def test_every_run_of_the_model_cards_is_one_run_of_a_study_with_that_batch() -> None:
    found: list[str] = []
    main = {(run["local_model"], run["task"]): run for run in papers_grid("main_table")}
    for row in paper_rows("runs.csv"):
        if row["model"] not in CARD_MODELS:
            continue  # Llama 3.1, which the authors abandoned
        model, (task, _, generator) = CARD_MODELS[row["model"]], row["run"].partition(" ")
        if generator:
            choices = {"local_model": model, "volume": row["volume"], "service_llm": CARD_GENERATORS[generator]}
            assert runs_of("volume_scaling", **choices) == 1, row
            found.append("volume_scaling")
        else:
            run = job("main_table", main[model, task])
            assert run.train.batch_size * run.train.accumulation == int(row["total_batch"]), row
            assert (run.train.epochs, run.train.learning_rate) == (int(row["epochs"]), float(row["learning_rate"]))
            assert run.loop.growth.volumes == [int(row["volume"].removesuffix("k")) * 1000]
            found.append("main_table")
    assert {study: found.count(study) for study in found} == {"volume_scaling": 28, "main_table": 14}


def test_gemma_7b_takes_the_rank_of_its_large_volumes_in_the_main_table() -> None:
    for task in ("summarization", "coding"):
        run = job("main_table", {"local_model": "gemma_7b", "task": task})
        assert (run.train.lora_r, run.train.lora_alpha) == (32, 64)


# ---------------------------------------------------------------- the rehearsals run

CHEAP = ("data.train_rows=16", "data.test_rows=4", "train.epochs=1", "train.min_steps=2", "infer.samples=1")
SHORT = ("infer.max_new_tokens=16", "judge.repeats=1", "loop.max_iterations=1")


WAYS = ("main_table", "volume_scaling", "few_shot", "judge_prompt", "ceiling")
"""One rehearsal of each kind: the others take the same ways with other numbers."""


@pytest.mark.parametrize("name", [f"pocket_{name}" for name in WAYS])
def test_a_rehearsal_runs(name: str, tmp_path: Path) -> None:
    """One cell, on few rows: what it scores means nothing."""
    choices = grid(name)[-1] | {"judge.prompt": "paper", "baseline": "few_shot"}
    choices = {key: choices[key] for key in axes(name)}
    chosen = [f"{key}={level}" for key, level in choices.items() if key != "volume"]
    small = [*CHEAP, *SHORT, *(["volume=rows_16"] if "volume" in choices else [])]
    small += (
        []
        if "data: {dev_rows: 0" in (EXPERIMENTS / f"{name}.yaml").read_text()
        else ["data.dev_rows=4", "loop.gate.rule=mean"]
    )
    results = f"runtime.results={tmp_path / 'results'}"
    assert main(["run", "-cd", str(EXPERIMENTS), "-cn", name, *chosen, *small, results]) == 0
    (state_file,) = tmp_path.rglob("state.json")
    state, lines = read_state(state_file.parent), read_metrics(state_file.parent)
    assert state.status == "done"
    assert (state.cost_usd, len(lines)) == (0.0, 1)
    assert set(lines[0].judges) == {"pocket_judge", "pocket_strict", "pocket_lenient"}
    assert lines[0].scored > 0
