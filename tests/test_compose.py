"""From a command line to experiments: Hydra's power, errors that name the nearest right word.

A sweep is composed and checked as a whole before any of it runs.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from omegaconf import OmegaConf

from llamaduo.compose import Composed, compose
from llamaduo.config import Experiment, JudgeKind, Start, WandbMode, fingerprint
from llamaduo.errors import ConfigError
from llamaduo.evidence.reach import left_out


def composed(*argv: str) -> Composed:
    found = compose([f"runtime.results={Path.cwd() / 'results'}", *argv])
    assert found is not None
    return found


def error_of(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        composed(*argv)
    assert "Traceback" not in str(caught.value)
    return str(caught.value)


def test_no_argument_is_the_pocket_profile() -> None:
    (experiment,) = composed().experiments
    assert isinstance(experiment, Experiment)
    assert (experiment.local_model.name, experiment.task.name) == ("pocket_llama", "classification")
    assert (experiment.study, experiment.name) == ("runs", "pocket_llama-classification")
    assert experiment.service_llm.provider == "pocket"
    assert composed().sweep is None


def test_overrides_reach_every_depth_with_their_types() -> None:
    (experiment,) = composed(
        "task=coding",
        "loop.gate.precision=null",
        "loop.growth.volumes=[10,20]",
        "judge.panel.pocket_judge.max_tokens=9",
        "service_llm.parameters.error_rate=0.25",
        "+service_llm.parameters.top_p=0.5",
        "loop.start=last",
        "tracking=wandb",
    ).experiments
    assert experiment.task.topic == "Coding"
    assert experiment.loop.gate.precision is None
    assert experiment.loop.growth.volumes == [10, 20]
    assert experiment.judge.panel["pocket_judge"].max_tokens == 9
    assert experiment.service_llm.parameters == {"error_rate": 0.25, "breadth": 0.2, "top_p": 0.5}
    assert experiment.loop.start is Start.last
    assert experiment.tracking.wandb is WandbMode.auto


def test_parameters_of_any_name_need_no_plus(compose_experiment: Callable[..., Experiment]) -> None:
    Path("rows.jsonl").write_text('{"prompt": "p", "response": "r"}\n')
    experiment = compose_experiment(
        *("data=file", "data.path=rows.jsonl", "synthesis=none", "train=none", "infer=endpoint", "judge=endpoint"),
        *(f"infer.server.{field}" for field in ("base_url=http://h/v1", "model=m", "parameters.min_p=0.1")),
        *(f"judge.panel.endpoint.{field}" for field in ("base_url=http://h/v1", "model=m", "parameters.top_p=0.9")),
        "judge.panel.endpoint.parameters.extra_body.chat_template_kwargs={enable_thinking: false}",
        "service_llm.parameters.reasoning_effort=low",
    )
    assert experiment.service_llm.parameters["reasoning_effort"] == "low"
    assert experiment.infer.server is not None
    assert experiment.infer.server.parameters["min_p"] == 0.1
    assert experiment.judge.panel["endpoint"].parameters == {
        "top_p": 0.9,
        "extra_body": {"chat_template_kwargs": {"enable_thinking": False}},
    }


def test_limits_batches_replay_and_budgets_are_set_like_all_else() -> None:
    (experiment,) = composed(
        "service.replay=true",
        "service.study_budget_usd=12.5",
        "judge.panel.pocket_judge.requests_per_minute=60",
        "service_llm.tokens_per_minute=1000",
        "service_llm.batch_fallback=false",
    ).experiments
    assert (experiment.service.replay, experiment.service.study_budget_usd) == (True, 12.5)
    assert experiment.judge.panel["pocket_judge"].requests_per_minute == 60
    assert (experiment.service_llm.tokens_per_minute, experiment.service_llm.batch_fallback) == (1000, False)
    assert experiment.prices["openai/gpt-6-luna"].batch_input == 0.05


def test_a_panel_has_every_member_of_its_file() -> None:
    (experiment,) = composed("judge=pocket_panel").experiments
    assert list(experiment.judge.panel) == ["pocket_judge", "pocket_strict", "pocket_lenient"]
    assert experiment.judge.panel["pocket_strict"].parameters["strictness"] == 2.0


def test_interpolations_are_resolved() -> None:
    (experiment,) = composed("local_model=pocket_mistral", "local_model.learning_rate=0.125").experiments
    assert experiment.train.learning_rate == 0.125
    assert experiment.name == "pocket_mistral-classification"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (["trian.epochs=3"], ["trian.epochs: there is no such key", "train.epochs"]),
        (["train.epoch=3"], ["train.epoch: there is no such key", "train.epochs"]),
        (["epochs=3"], ["epochs: there is no such key", "train.epochs"]),
        (["loop.gate.precison=3"], ["loop.gate.precison: there is no such key", "loop.gate.precision"]),
        (["judge.repeat=3"], ["judge.repeat: there is no such key", "judge.repeats"]),
        (["task=codin"], ["task=codin: there is no such option", "Did you mean coding?", "closed_qa"]),
        (["local_model=gemma2b"], ["local_model=gemma2b: there is no such option", "gemma_2b", "pocket_llama"]),
        (["judge=gpt4o"], ["judge=gpt4o: there is no such option", "gpt_4o"]),
        (["-m", "task=coding,codin"], ["task=codin: there is no such option", "coding"]),
        (["-m", "task=coding,closed_qa", "train.epoch=1"], ["train.epoch: there is no such key", "train.epochs"]),
        (["-m", "train.epoch=1,2"], ["train.epoch: there is no such key", "train.epochs"]),
        (["-cn", "nothing"], ["nothing: there is no such configuration", "-cn"]),
        (["-cd", "/nowhere"], ["-cd /nowhere: no such folder"]),
    ],
)
def test_an_unknown_word_is_named_with_the_nearest_right_one(argv: list[str], names: list[str]) -> None:
    found = error_of(*argv)
    assert len(found.splitlines()) == 1
    assert all(name in found for name in names), found


@pytest.mark.parametrize(
    ("argument", "names"),
    [
        ("train.epochs=many", ["train.epochs", "many", "Integer"]),
        ("train.epochs=1.5", ["train.epochs", "1.5"]),
        ("loop.gate.rule=median", ["loop.gate.rule", "median", "mean, lower"]),
        ("train.gradient_checkpointing=perhaps", ["train.gradient_checkpointing", "perhaps"]),
        ("loop.growth.volumes=[a]", ["loop.growth.volumes"]),
        ("judge.panel.pocket_judge=gpt_4o", ["judge.panel"]),
        ("data.path=${nothing}", ["data.path", "nothing"]),
        ("task=[", ["["]),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(argument: str, names: list[str]) -> None:
    found = error_of(argument)
    assert len(found.splitlines()) <= 2
    assert all(name in found for name in names), found


@pytest.mark.parametrize(
    "argument", ["train.api_key=sk-1", "judge.panel.pocket_judge.api_key=sk-1", "service_llm.api_key=sk-1"]
)
def test_a_key_on_the_command_line_is_refused_and_not_repeated(argument: str) -> None:
    found = error_of(argument)
    assert "keys come from the environment alone" in found
    assert "sk-1" not in found


@pytest.mark.parametrize("argument", ["coding", "run", "task", "=", "-x"])
def test_what_is_no_override_is_refused(argument: str) -> None:
    if argument.startswith("-"):
        assert error_of(argument) == f"unrecognized arguments: {argument}. See llamaduo --help."
    elif "=" in argument:
        error_of(argument)
    else:
        assert error_of(argument).startswith(f"{argument}: not an override; write key=value")


@pytest.mark.parametrize("argument", ["+train.epoch=3", "++train.epoch=3", "+nothing=1"])
def test_a_key_that_is_added_must_be_in_the_schema_too(argument: str) -> None:
    assert "there is no such key" in error_of(argument)


def test_a_value_that_was_left_open_is_asked_for() -> None:
    found = error_of("judge=endpoint", "service_llm=endpoint")
    assert "judge.panel.endpoint.model is not set: add judge.panel.endpoint.model=VALUE." in found
    assert "service_llm.model is not set: add service_llm.model=VALUE." in found


class TestComposedOnce:
    @pytest.fixture
    def composings(self, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
        found: list[list[str]] = []
        loads = ConfigLoaderImpl.load_configuration

        def counted(self: ConfigLoaderImpl, config_name: str, overrides: list[str], *args: Any, **more: Any) -> Any:
            found.append(overrides)
            return loads(self, config_name, overrides, *args, **more)

        monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
        return found

    def test_a_command(self, composings: list[list[str]]) -> None:
        composed("task=coding")
        assert len(composings) == 1

    def test_a_sweep_and_each_of_its_runs_launching_included(self, composings: list[list[str]]) -> None:
        found = composed("-m", "task=coding,closed_qa", "train.lora_r=4,8")
        assert len(composings) == 1 + 4
        assert found.sweep is not None
        seen: list[Experiment] = []
        found.sweep.launch(seen.append, [0, 1, 2, 3])
        assert seen == found.experiments
        assert len(composings) == 1 + 4


class TestReferenceAsTheJudge:
    def test_the_gate_asks_for_what_it_can_give_and_says_so(self) -> None:
        (experiment,) = composed("judge=reference", "synthesis=none").experiments
        assert (experiment.loop.gate.similarity, experiment.loop.gate.precision) == (90, None)
        assert left_out(experiment) == ["judge=reference gives no precision: the gate asks for similarity alone."]

    def test_it_may_be_enough_for_synthetic_data(self) -> None:
        assert composed("judge=reference").experiments[0].synthesis.enabled

    def test_a_precision_that_is_asked_for_all_the_same_is_told_to_be_out_of_reach(self) -> None:
        (experiment,) = composed("judge=reference", "synthesis=none", "loop.gate.precision=80").experiments
        (told,) = left_out(experiment)
        assert told.startswith("No model can pass: loop.gate.precision=80")

    def test_without_similarity_there_is_no_gate(self) -> None:
        (experiment,) = composed("judge=reference", "synthesis=none", "loop.gate.similarity=null").experiments
        assert left_out(experiment) == ["judge=reference gives no precision: there is no gate."]

    def test_another_judges_gate_is_as_it_was(self) -> None:
        assert composed("judge=pocket_panel").experiments[0].loop.gate.precision == 90


class TestSweep:
    def test_every_combination_is_an_experiment(self) -> None:
        found = composed("-m", "task=coding,closed_qa", "train.lora_r=4,8,16")
        assert [(e.task.name, e.train.lora_r) for e in found.experiments] == [
            (task, r) for task in ("coding", "closed_qa") for r in (4, 8, 16)
        ]

    def test_all_are_checked_before_any_runs(self) -> None:
        found = error_of("-m", "judge.repeats=1,0", "infer.samples=2,0")
        assert sorted(found.splitlines()) == [
            "infer.samples=0: must be at least 1.",
            "judge.repeats=0: must be at least 1.",
        ]

    def test_running_it_hands_over_each_experiment_in_order(self) -> None:
        found = composed("-m", "task=coding,closed_qa", "judge=reference,pocket", "synthesis=none")
        assert found.sweep is not None
        seen: list[Experiment] = []

        found.sweep.launch(seen.append, [0, 1, 2, 3])
        assert seen == found.experiments
        assert ["task=coding" in texts for texts in found.sweep.overrides] == [True, True, False, False]
        found.sweep.launch(seen.append, [2])
        assert seen.pop() == found.experiments[2]
        assert [e.judge.kind for e in seen] == [JudgeKind.reference, JudgeKind.service] * 2

    def test_values_for_a_sweep_without_m_are_explained(self) -> None:
        assert "--multirun" in error_of("task=coding,closed_qa")

    def test_nothing_is_written_outside_the_results(self, tmp_path: Path) -> None:
        composed("-m", "task=coding,closed_qa")
        composed()
        written = [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()]
        assert set(written) <= {"results"}

    def test_a_refused_sweep_leaves_nothing_behind(self, tmp_path: Path) -> None:
        error_of("-m", "judge.repeats=1,0")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class TestStudies:
    @pytest.fixture
    def study(self, tmp_path: Path) -> Callable[[str], Path]:
        def written(text: str) -> Path:
            folder = tmp_path / "studies"
            folder.mkdir(exist_ok=True)
            (folder / "mine.yaml").write_text(text)
            return folder

        return written

    def test_a_study_is_a_file_that_overrides_the_default(self, study: Callable[[str], Path]) -> None:
        text = "defaults:\n  - config\n  - override task: coding\n  - _self_\nstudy: mine\ninfer: {samples: 3}\n"
        found = composed("-cd", str(study(text)), "-cn", "mine", "train.lora_r=4")
        (experiment,) = found.experiments
        assert (experiment.study, experiment.task.name, experiment.infer.samples) == ("mine", "coding", 3)
        assert experiment.train.lora_r == 4

    def test_its_folder_may_have_any_name(self, tmp_path: Path) -> None:
        folder = tmp_path / "a b é 100%20"
        folder.mkdir()
        (folder / "mine.yaml").write_text("defaults: [config, _self_]\nstudy: mine\n")
        assert composed("-cd", str(folder), "-cn", "mine").experiments[0].study == "mine"

    def test_a_study_may_choose_a_recipe_and_a_volume(self, study: Callable[[str], Path]) -> None:
        chosen = "  - override train: paper\n  - override local_model: gemma_7b\n  - override volume: 32k\n"
        text = f"defaults:\n  - config\n{chosen}  - _self_\nstudy: mine\n"
        (experiment,) = composed("-cd", str(study(text)), "-cn", "mine").experiments
        assert (experiment.train.lora_r, experiment.loop.growth.volumes) == (16, [32000])

    def test_a_study_may_be_a_sweep(self, study: Callable[[str], Path]) -> None:
        swept = "hydra:\n  mode: MULTIRUN\n  sweeper: {params: {task: 'coding,closed_qa'}}\n"
        text = f"defaults:\n  - config\n  - _self_\nstudy: mine\n{swept}"
        found = composed("-cd", str(study(text)), "-cn", "mine")
        assert [experiment.task.name for experiment in found.experiments] == ["coding", "closed_qa"]
        assert found.sweep is not None

    def test_a_price_table_of_ones_own_takes_the_place_of_the_shipped_one(self, tmp_path: Path) -> None:
        (tmp_path / "mine/prices").mkdir(parents=True)
        (tmp_path / "mine/prices/dear.yaml").write_text("a/b: {input: 7, output: 8, as_of: today}\n")
        (experiment,) = composed("-cd", str(tmp_path / "mine"), "prices=dear").experiments
        assert list(experiment.prices) == ["a/b"]
        assert (experiment.prices["a/b"].input, experiment.prices["a/b"].as_of) == (7.0, "today")
        assert fingerprint(experiment) == fingerprint(composed().experiments[0])

    def test_a_mistake_in_a_study_is_named(self, study: Callable[[str], Path]) -> None:
        folder = study("defaults:\n  - config\n  - _self_\ntrain: {epoch: 3}\n")
        found = error_of("-cd", str(folder), "-cn", "mine")
        assert "epoch" in found

    def test_yaml_that_can_not_be_read_is_named(self, study: Callable[[str], Path]) -> None:
        folder = study("defaults: [config\n  - x: }")
        assert "mine.yaml" in error_of("-cd", str(folder), "-cn", "mine")


def test_composing_twice_gives_the_same_and_leaves_hydra_clean() -> None:
    assert composed("task=coding").experiments == composed("task=coding").experiments
    error_of("task=codin")
    assert composed("task=coding").experiments[0].task.name == "coding"


def test_showing_the_configuration_composes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert compose(["--cfg", "job", "--package", "train", "train.epochs=17"]) is None
    assert "epochs: 17" in capsys.readouterr().out


def test_showing_a_sweep_shows_every_job_with_the_recipe_that_its_choices_ask_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sweep = ("-m", "preset=service", "train=paper", "local_model=gemma_2b,gemma_7b", "volume=1k,64k")
    assert compose([*sweep, "--cfg", "job"]) is None
    shown = capsys.readouterr().out
    heads = [line for line in shown.splitlines() if line.startswith("---")]
    assert heads == [
        f"--- # preset=service train=paper local_model={model} volume={volume}"
        for model in ("gemma_2b", "gemma_7b")
        for volume in ("1k", "64k")
    ]
    jobs = [OmegaConf.create(text) for text in shown.split("---")[1:]]
    ranks = [(job.train.lora_r, job.train.max_length, job.loop.growth.volumes[0]) for job in jobs]
    assert ranks == [(8, 2048, 1000), (8, 2048, 64000), (8, 1024, 1000), (32, 1024, 64000)]
    assert [experiment.train.lora_r for experiment in composed(*sweep).experiments] == [8, 8, 8, 32]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_mistake_in_a_sweep_that_is_shown_is_named() -> None:
    assert "local_model=gemma_7c: there is no such option" in error_of("-m", "local_model=gemma_7c", "--cfg", "job")


def test_composing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from llamaduo.compose import compose; compose(['task=coding']); "
        "print({'torch', 'transformers', 'litellm', 'wandb', 'datasets', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("train.epoch=3",), "train.epoch: there is no such key. Did you mean train.epochs"),
        (("-m", "train.epoch=3,4"), "train.epoch: there is no such key. Did you mean train.epochs"),
        (("-m", "train.epoch=3", "train.lora_r=4,8"), "train.epoch: there is no such key. Did you mean train.epochs"),
        (("task=codin",), "task=codin: there is no such option. Did you mean coding?"),
        (("-m", "task=codin,coding"), "task=codin: there is no such option. Did you mean coding?"),
    ],
)
def test_a_typo_is_told_before_anything_is_composed(
    argv: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def composed(*_: object, **__: object) -> None:
        raise AssertionError("it was composed")

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", composed)
    with pytest.raises(ConfigError) as caught:
        compose(argv)
    assert str(caught.value).startswith(told)
