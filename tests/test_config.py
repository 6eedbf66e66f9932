"""The configuration: `conf/` fits its schema, the fingerprint covers results and nothing else, checks miss nothing.

Every file composes. Every problem is reported, and all of them at once, before anything heavy is imported.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import importlib.util
import re
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from llamaduo import checks, config
from llamaduo.checks import problems
from llamaduo.config import (
    Assumptions,
    Backend,
    DataSource,
    Experiment,
    GateSplit,
    JudgeKind,
    Launch,
    Price,
    Quantization,
    ServiceLLM,
    conf_dir,
    fingerprint,
    plain,
)
from llamaduo.errors import ConfigError
from llamaduo.redaction import refusal

Compose = Callable[..., Experiment]
TODAY = datetime.date(2026, 11, 21)


@pytest.fixture
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the calendar: service LLMs retire as time goes by."""
    fixed = SimpleNamespace(date=SimpleNamespace(today=lambda: TODAY))
    monkeypatch.setattr(checks, "datetime", fixed)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "gpus", list)


def set_(experiment: Experiment, path: str, value: Any) -> Experiment:
    """Return a copy with one field changed; a panel member is a part of the path."""
    changed = copy.deepcopy(experiment)
    owner: Any = changed
    *parents, leaf = path.split(".")
    for parent in parents:
        owner = owner[parent] if isinstance(owner, dict) else getattr(owner, parent)
    if isinstance(owner, dict):
        owner[leaf] = value
    else:
        assert hasattr(owner, leaf), path
        setattr(owner, leaf, value)
    return changed


# ---------------------------------------------------------------- conf/

FILES = sorted(
    path.relative_to(conf_dir()).with_suffix("").as_posix()
    for path in conf_dir().rglob("*.yaml")
    if path.parent.name != "accelerate"  # those are read by accelerate
)
RETIRED = {
    "service_llm/claude_3_sonnet", "service_llm/gemini_1_5_flash",
    "judge/claude_3_sonnet", "judge/gemini_1_5_flash", "judge/paper_panel",
}  # fmt: skip
OFFLINE = ("judge=reference", "synthesis=none")
COMPANIONS: dict[str, tuple[str, ...]] = {
    "train/none": ("synthesis=none",),
    "data/file": (*OFFLINE, "data.path=pairs.jsonl"),
    "data/hub": (*OFFLINE, "data.path=owner/name", "data.revision=abc"),
    "data/no_robots": OFFLINE,
    "judge/endpoint": ("judge.panel.endpoint.base_url=http://localhost:1/v1", "judge.panel.endpoint.model=m"),
    "service_llm/endpoint": ("service_llm.base_url=http://localhost:1/v1", "service_llm.model=m"),
    "judge/reference": ("synthesis=none",),
    "infer/endpoint": ("synthesis=none", "infer.server.base_url=http://localhost:1/v1", "infer.server.model=m"),
    "infer/service_llm": ("synthesis=none",),
    "synthesis/label": ("data.unlabelled=pairs.jsonl",),
    "task/custom": (*OFFLINE, "data=file", "data.path=pairs.jsonl"),
    "train/paper_sample": ("preset=service",),
    "train/paper_gemma_2b_gpt4o_64k": ("preset=service",),
}


OF_A_RECIPE = [file for file in FILES if file.startswith(("train/paper/", "train/paper_runs/"))]
"""Chosen by other choices, not by name: `test_recipes.py` looks at them."""
CHOSEN_BY_NAME = [file for file in FILES if file not in OF_A_RECIPE]


def test_conf_has_as_many_files_as_the_tests_look_at() -> None:
    assert (len(CHOSEN_BY_NAME), len(OF_A_RECIPE)) == (114, 45)


@pytest.mark.usefixtures("today")
@pytest.mark.parametrize("file", CHOSEN_BY_NAME)
def test_every_file_composes_and_passes_the_checks(file: str, compose_experiment: Compose) -> None:
    Path("pairs.jsonl").write_text("{}")
    group, _, name = file.rpartition("/")
    overrides = ([f"{group}={name}"] if group else []) + list(COMPANIONS.get(file, ()))
    if file == "launch/ray" and importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is None:
        with pytest.raises(ConfigError, match="pip install hydra-ray-launcher"):
            compose_experiment(*overrides)
        return
    if file in RETIRED:
        with pytest.raises(ConfigError, match=r"no longer answers since 2025-\d\d-\d\d") as caught:
            compose_experiment(*overrides)
        assert "service_llm names a successor" in str(caught.value)
        return
    experiment = compose_experiment(*overrides)
    assert isinstance(experiment, Experiment)
    assert isinstance(fingerprint(experiment), str)
    missing = [path for path, value in leaves(experiment) if value == "???"]
    assert missing == []


@pytest.mark.parametrize("file", [name for name in FILES if name.startswith("service_llm/")])
def test_a_service_llm_has_a_price_with_its_day_and_a_key_variable(file: str) -> None:
    llm = OmegaConf.load(conf_dir() / f"{file}.yaml")
    table = OmegaConf.load(conf_dir() / "prices/default.yaml")
    price = llm.get("price") or table[f"{llm.provider}/{llm.model}"]
    assert price.input >= 0
    assert price.output >= 0
    assert price.as_of
    assert llm.provider == "pocket" or llm.api_key_env.endswith("_API_KEY")


def test_the_price_table_has_a_day_for_each_price_and_half_the_price_for_batches(experiment: Experiment) -> None:
    assert "openai/gpt-4o-2024-08-06" in experiment.prices
    for name, price in experiment.prices.items():
        assert re.match(r"2026-\d\d-\d\d|gone from", price.as_of), name
        assert 0 < price.input < price.output
        if price.batch_input is not None:
            assert (price.batch_input, price.batch_output) == (price.input / 2, price.output / 2)


@pytest.mark.parametrize("file", [name for name in FILES if name.startswith("local_model/")])
def test_a_local_model_of_the_hub_is_pinned_and_runs_no_code(file: str) -> None:
    model = OmegaConf.load(conf_dir() / f"{file}.yaml")
    assert model.path.startswith("pocket:") or len(model.revision) == 40
    assert not model.get("tokenizer") or len(model.tokenizer_revision) == 40
    assert not model.get("trust_remote_code")


def test_the_paper_protocol_is_the_papers_setting(compose_experiment: Compose) -> None:
    paper = compose_experiment("preset=service", "protocol=paper")
    assert paper.protocol.gate_split is GateSplit.test
    assert (paper.loop.gate.similarity, paper.loop.gate.precision, paper.loop.gate.rule.value) == (90, 90, "mean")
    assert (paper.infer.samples, paper.infer.temperature, paper.judge.repeats) == (4, 0.8, 10)
    assert (paper.judge.prompt, paper.synthesis.prompt.value) == ("paper", "paper")
    assert (paper.curation.duplicate_text.value, paper.curation.confirm_rouge_l) == ("response", 0.7)
    assert (paper.loop.start.value, paper.data.dev_rows, paper.train.quantization.value) == ("base", 0, "nf4")


# ---------------------------------------------------------------- fingerprint


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, value) of every field, those of panel members and prices too."""
    items = (
        node.items() if isinstance(node, dict) else ((f.name, getattr(node, f.name)) for f in dataclasses.fields(node))
    )
    for name, value in items:
        if dataclasses.is_dataclass(value) or (name == "panel" and value):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def hint_of(path: str) -> Any:
    """Return the declared type of a field."""
    kind: Any = Experiment
    for part in path.split("."):
        if typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            kind = typing.get_type_hints(kind)[part]
            inner = [choice for choice in typing.get_args(kind) if choice is not type(None)]
            kind = inner[0] if typing.get_origin(kind) is typing.Union else kind
    return kind


def another(path: str, value: Any) -> Any:
    """Return another value of the field's type."""
    kind = hint_of(path)
    if isinstance(value, Enum):
        return next(choice for choice in type(value) if choice is not value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if kind is bool:
        return not value
    if kind is int:
        return (value or 0) + 7
    if kind is float:
        return (value or 0.0) + 0.0625
    if kind is str:
        return (value or "") + "x"
    if typing.get_origin(kind) is list:
        return [*value, 5 if typing.get_args(kind) == (int,) else "x"]
    if typing.get_origin(kind) is dict:
        return {**value, "more": 1}
    if kind is ServiceLLM:
        return ServiceLLM(name="a", provider="openai", model="m")
    raise AssertionError(f"{path}: how does a {kind} change?")


OF_AN_LLM = (
    "name", "api_key_env", "key_required", "concurrency", "requests_per_minute", "tokens_per_minute", "timeout_s",
    "max_attempts", "batch", "batch_fallback", "batch_poll_s", "retired", "price.input", "price.output", "price.as_of",
    "price.batch_input", "price.batch_output", "price.cached_input", "price.until", "price.note", "price.unbilled",
    "unbounded_usage",
)  # fmt: skip
WITHOUT_INFLUENCE = {
    "study", "name", "protocol.name", "task.train_rows", "task.test_rows", "task.synthetic_rows",
    "runtime.results", "loop.budget_usd",
    "tracking.wandb", "tracking.project", "tracking.entity", "tracking.answers", "service.journal",
    "service.replay", "service.study_budget_usd", "service.reasks", "service.imported", "judge.any_scale", "prices",
    "train.checkpoint_s",
    "local_model.size", "train.too_long", "runtime.isolation", "runtime.retries", "runtime.cache",
    "infer.vllm", "data.strict", "data.license",
    "evidence.training_noise_sd",
    *(f"serving.{field.name}" for field in dataclasses.fields(Assumptions)),
    *(f"{llm}.{key}" for llm in ("service_llm", "judge.panel.pocket_judge") for key in OF_AN_LLM),
}  # fmt: skip
FILLS_IN_OTHERS = {
    "local_model.name", "local_model.learning_rate", "local_model.train_length", "local_model.train_batch",
    "local_model.accumulation", "local_model.gradient_checkpointing", "local_model.answer_tokens",
    "local_model.answer_batch", "task.category",
}  # fmt: skip
"""Fields that reach a run through other fields alone, by interpolation, or not at all."""


def test_the_fingerprint_changes_with_every_field_that_can_change_a_result(experiment: Experiment) -> None:
    experiment = set_(experiment, "judge.dear", ["pocket_judge"])  # its share means nothing without
    experiment = set_(experiment, "synthesis.candidates", 2)  # as who picks
    experiment = set_(experiment, "privacy.enabled", True)  # as what is replaced
    experiment = set_(experiment, "loop.gate.audit.gap", 10)  # as how many prompts are asked for it
    before = fingerprint(experiment)
    paths = dict(leaves(experiment))
    assert paths.keys() > WITHOUT_INFLUENCE | FILLS_IN_OTHERS
    changed = {p for p, value in paths.items() if fingerprint(set_(experiment, p, another(p, value))) != before}
    assert changed - FILLS_IN_OTHERS == paths.keys() - WITHOUT_INFLUENCE - FILLS_IN_OTHERS


@pytest.mark.parametrize("path", sorted(FILLS_IN_OTHERS))
def test_the_fingerprint_does_not_change_with_what_only_fills_in_other_fields(
    path: str, experiment: Experiment
) -> None:
    value = dict(leaves(experiment))[path]
    assert fingerprint(set_(experiment, path, another(path, value))) == fingerprint(experiment)


def test_the_fingerprint_changes_with_the_panel(experiment: Experiment) -> None:
    member = experiment.judge.panel["pocket_judge"]
    more = set_(experiment, "judge.panel", {"pocket_judge": member, "second": member})
    renamed = set_(experiment, "judge.panel", {"other": member})
    assert len({fingerprint(experiment), fingerprint(more), fingerprint(renamed)}) == 3


def test_no_price_and_a_price_are_the_same_run(experiment: Experiment) -> None:
    assert fingerprint(set_(experiment, "service_llm.price", None)) == fingerprint(experiment)


def test_the_fingerprint_follows_the_data_files_content_and_not_its_place(compose_experiment: Compose) -> None:
    for name, content in {"a.jsonl": "one\n", "b.jsonl": "one\n", "c.jsonl": "two\n"}.items():
        Path(name).write_text(content)
    a, b, c = (fingerprint(compose_experiment("data=file", f"data.path={n}.jsonl", *OFFLINE)) for n in "abc")
    assert a == b != c


def test_the_fingerprint_is_8_hex_digits_and_the_same_each_time(compose_experiment: Compose) -> None:
    found = fingerprint(compose_experiment())
    assert len(found) == 8
    assert int(found, 16) >= 0
    assert fingerprint(compose_experiment()) == found


def test_the_fingerprint_leaves_the_experiment_as_it_was(experiment: Experiment) -> None:
    before = plain(experiment)
    fingerprint(experiment)
    assert plain(experiment) == before


def test_plain_is_json_and_says_everything(experiment: Experiment) -> None:
    import json

    tree = plain(experiment)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert tree["judge"]["panel"]["pocket_judge"]["price"]["input"] == 0
    assert tree["loop"]["gate"]["rule"] == "lower"


# ---------------------------------------------------------------- checks


def test_the_default_has_no_problem(experiment: Experiment) -> None:
    assert problems(experiment) == []


def having(mark: str) -> dict[str, Any]:
    """Return the keys whose numbers have such a range; those of LLMs are looked at where they are asked."""
    llms = ("service_llm.", "infer.server.")
    return {key: marks[mark] for key, marks in config.marks() if mark in marks and not key.startswith(llms)}


@pytest.mark.parametrize(("path", "least"), having("at_least").items())
def test_a_number_below_its_least_is_named(path: str, least: float, experiment: Experiment) -> None:
    found = problems(set_(experiment, path, least - 1))
    assert f"{path}={least - 1}: must be at least {least:g}." in found
    assert f"{path}=nan: must be at least {least:g}." in problems(set_(experiment, path, float("nan")))
    assert not any(text.startswith(f"{path}=") for text in problems(set_(experiment, path, least)))


@pytest.mark.parametrize(("path", "ends"), having("within").items())
def test_a_number_outside_its_range_is_named(path: str, ends: tuple[float, float], experiment: Experiment) -> None:
    low, high = ends
    for value in (low - 0.5, high + 0.5, float("nan")):
        assert f"{path}={value}: must lie between {low:g} and {high:g}." in problems(set_(experiment, path, value))
    assert not any("must lie" in text for text in problems(set_(experiment, path, high)))


@pytest.mark.parametrize("path", having("above"))
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_number_that_must_be_above_zero_is_named(path: str, value: float, experiment: Experiment) -> None:
    assert f"{path}={value}: must be above 0." in problems(set_(experiment, path, value))


@pytest.mark.parametrize(
    "path", ["loop.growth.factor", "infer.temperature", "train.learning_rate", "synthesis.overdraw"]
)
def test_infinity_is_no_number_to_work_with(path: str, experiment: Experiment) -> None:
    assert any(text.startswith(f"{path}=") for text in problems(set_(experiment, path, float("inf"))))


NO_PRICE = Price(-1.0, 1.0, "never")
NO_SERVICE = {"judge.kind": JudgeKind.reference, "judge.panel": {}, "synthesis.enabled": False}
JUDGE = "judge.panel.pocket_judge"


def by_a_server(**fields: Any) -> dict[str, Any]:
    """Return the changes that let a server answer."""
    known = {"name": "s", "provider": "openai", "model": "m", "base_url": "http://localhost/v1", "key_required": False}
    server = ServiceLLM(**(known | fields))
    return {"infer.backend": Backend.endpoint, "infer.server": server, "synthesis.enabled": False}


ONE_BY_ONE: list[tuple[dict[str, Any], str]] = [
    ({"study": "a/b"}, "study=a/b: must be a plain folder name."),
    ({"study": ""}, "study=: must be a plain folder name."),
    ({"study": ".."}, "study=..: must be a plain folder name."),
    ({"name": "a\\b"}, "name=a\\b: must be a plain folder name."),
    ({"name": "a\0"}, "must be a plain folder name."),
    ({"data.source": DataSource.file, **NO_SERVICE}, "data=file needs data.path=FILE."),
    ({"data.source": DataSource.file, "data.path": "nothing.jsonl", **NO_SERVICE}, "data.path=nothing.jsonl: no such"),
    ({"data.source": DataSource.file, "data.path": ".", **NO_SERVICE}, "data.path=.: a folder without data files"),
    ({"data.source": DataSource.hub, "data.path": "a/b", **NO_SERVICE}, "data.revision is missing"),
    ({"task.name": "poems"}, "task.name=poems: data=pocket has classification, closed_qa, coding, summarization only."),
    ({"data.dev_fraction": 0.5, "data.test_fraction": 0.5}, "leave no rows to train on"),
    ({"data.dev_rows": 0}, "protocol=clean gates on the dev split, which is empty"),
    ({"data.dev_rows": None, "data.dev_fraction": 0.0}, "protocol=clean gates on the dev split, which is empty"),
    ({"judge.panel": {}}, "judge.panel is empty: name at least one service LLM, or take judge=reference."),
    ({"data.source": DataSource.hub, "data.path": "a/b", "data.revision": "c"}, f"{JUDGE}, service_llm: the pocket"),
    ({"service_llm.model": ""}, "service_llm.model is missing: set service_llm.model=..."),
    ({f"{JUDGE}.provider": None}, f"{JUDGE}.provider is missing: set {JUDGE}.provider=..."),
    ({f"{JUDGE}.provider": "openai", f"{JUDGE}.key_required": False}, f"{JUDGE}.base_url is not set: add"),
    ({f"{JUDGE}.max_tokens": 0}, f"{JUDGE}.max_tokens=0: must be at least 1."),
    ({f"{JUDGE}.concurrency": 0}, f"{JUDGE}.concurrency=0: must be at least 1."),
    ({"service_llm.max_attempts": 0}, "service_llm.max_attempts=0: must be at least 1."),
    ({"service_llm.timeout_s": 0.0}, "service_llm.timeout_s=0.0: must be above 0."),
    ({"service_llm.base_url": "localhost:8000"}, "service_llm.base_url=localhost:8000: must begin with http"),
    ({"service_llm.parameters": {"api_key": "sk"}}, "service_llm.parameters.api_key: keys come from the environment"),
    ({"service_llm.api_key_env": "sk-123"}, "service_llm.api_key_env: must be the name of a variable"),
    ({"service_llm.base_url": "http://h/v1?key=1"}, "service_llm.base_url: no user, password or query may be in it"),
    ({"service_llm.retired": "2026-11-21"}, "service_llm: teacher-1 no longer answers since 2026-11-21"),
    ({"service_llm.price": NO_PRICE}, "service_llm.price: must not be negative."),
    ({"service_llm.price": Price(1.0, 1.0, "now", batch_output=-0.5)}, "service_llm.price: must not be negative."),
    ({"service_llm.price": Price(float("inf"), 1.0, "now")}, "service_llm.price: must not be negative."),
    ({"prices": {"a/b": NO_PRICE}}, "prices.a/b: must not be negative."),
    ({"service_llm.requests_per_minute": 0}, "service_llm.requests_per_minute=0: must be at least 1, or null."),
    ({f"{JUDGE}.tokens_per_minute": -5}, f"{JUDGE}.tokens_per_minute=-5: must be at least 1, or null."),
    ({f"{JUDGE}.batch_poll_s": 0.0}, f"{JUDGE}.batch_poll_s=0.0: must be above 0."),
    ({"service_llm.batch_poll_s": float("inf")}, "service_llm.batch_poll_s=inf: must be above 0."),
    ({"service_llm.batch": True}, "service_llm.batch: pocket has no batch API that llamaduo knows"),
    ({"service_llm.parameters": {"max_tokens": "3"}}, "service_llm.parameters.max_tokens=3: must be a number"),
    ({"service_llm.parameters": {"max_completion_tokens": 0}}, "service_llm.parameters.max_completion_tokens=0: must"),
    (
        {"service_llm.parameters": {"max_completion_tokens": 9, "extra_body": {"max_tokens": 9}}},
        "parameters.max_completion_tokens and service_llm.parameters.extra_body.max_tokens are one limit",
    ),
    (
        {"service_llm.provider": "anthropic", "service_llm.send_seed": True},
        "service_llm.send_seed: Anthropic takes no seed; set service_llm.send_seed=false.",
    ),
    ({"service_llm.parameters": {"response_format": {}}}, "service_llm.parameters.response_format: has a field"),
    ({"service_llm.parameters": {"mock_response": "x"}}, "service_llm.parameters.mock_response: has a field"),
    ({"service.study_budget_usd": -1.0}, "service.study_budget_usd=-1.0: must be at least 0."),
    ({"loop.growth.volumes": [5, 5]}, "loop.growth.volumes=[5, 5]: must be rising numbers above 0."),
    ({"loop.growth.volumes": [5, 3]}, "loop.growth.volumes=[5, 3]: must be rising numbers above 0."),
    ({"loop.growth.volumes": [0, 3]}, "loop.growth.volumes=[0, 3]: must be rising numbers above 0."),
    ({"loop.growth.include_coverage": False}, "loop.growth.include_coverage=false needs loop.growth.volumes."),
    ({"loop.growth.volumes": [5], "synthesis.enabled": False}, "loop.growth.volumes needs synthetic rows"),
    (
        {"runtime.launch": Launch.accelerate, "runtime.accelerate": "fsdp", "train.quantization": Quantization.nf4},
        "runtime.accelerate=fsdp can't spread weights of train.quantization=nf4: take train.quantization=none",
    ),
    ({"runtime.device": "gpu"}, "runtime.device=gpu: take auto, cpu, cuda or cuda:N."),
    ({"runtime.dtype": "float64"}, "runtime.dtype=float64: take auto, float32, bfloat16 or float16."),
    ({"train.quantization": Quantization.int8}, "train.quantization=int8: this machine has no GPU"),
    ({"runtime.device": "cuda:1"}, "runtime.device=cuda:1, train.quantization=none: this machine has no GPU"),
    ({"judge.kind": JudgeKind.reference}, "judge=reference gives no precision"),
    ({"local_model.path": "pocket:nothing"}, "local_model.path=pocket:nothing: no such pocket model; the package has"),
    ({"local_model.tokenizer_revision": "abc"}, "local_model.tokenizer_revision has no local_model.tokenizer to be of"),
    ({"train.max_length": 513}, "train.max_length=513 exceeds the model's context of 512 tokens: lower it."),
    ({"infer.max_new_tokens": 512}, "infer.max_new_tokens=512 leaves no room for a prompt in 512 tokens"),
    ({"infer.stop": ["\n\n", ""]}, "infer.stop: an empty string would end every answer before it begins"),
    ({"infer.temperature": None}, "infer.temperature=null: only an endpoint has one of its own"),
    (by_a_server() | {"infer.server": None}, "infer.backend=endpoint needs infer=endpoint infer.server.base_url=URL"),
    (by_a_server(model=""), "infer.server.model is missing: set infer.server.model=..."),
    (by_a_server(base_url=None), "infer.server.base_url is not set: add infer.server.base_url=http"),
    (by_a_server(parameters={"stop": ["x"]}), "infer.server.parameters.stop: has a field of its own, infer.stop."),
    (by_a_server(retired="2026-11-21"), "infer.server: m no longer answers since 2026-11-21"),
    (by_a_server() | {"synthesis.enabled": True}, "the server answers with its own model, which no synthetic data"),
]  # fmt: skip


@pytest.mark.usefixtures("today", "no_gpu")
@pytest.mark.parametrize(("changes", "text"), ONE_BY_ONE, ids=[text[:40] for _, text in ONE_BY_ONE])
def test_a_problem_is_found_and_says_what_to_do(changes: dict[str, Any], text: str, experiment: Experiment) -> None:
    for path, value in changes.items():
        experiment = set_(experiment, path, value)
    found = problems(experiment)
    assert len(found) == 1, found
    assert text in found[0]
    assert "\n" not in found[0]


def test_vllm_can_not_hold_int8_weights(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "gpus", lambda: ["a GPU"])
    eight = set_(experiment, "train.quantization", Quantization.int8)
    assert problems(eight) == []
    (found,) = problems(set_(eight, "infer.backend", Backend.vllm))
    assert found == "infer.backend=vllm: vLLM can't hold train.quantization=int8 weights; take nf4 or none."


def test_a_server_that_is_not_asked_is_not_checked(experiment: Experiment) -> None:
    broken = ServiceLLM(name="s", provider="openai", model="", key_required=False)
    assert problems(set_(experiment, "infer.server", broken)) == []


def test_quantization_without_its_package_is_found(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda _: None)
    found = problems(set_(experiment, "train.quantization", Quantization.nf4))
    assert found == ["train.quantization=nf4 needs bitsandbytes, which is not installed: take none."]


@pytest.mark.usefixtures("today")
def test_a_day_before_its_retirement_a_service_llm_answers(experiment: Experiment) -> None:
    assert problems(set_(experiment, "service_llm.retired", "2026-11-22")) == []


@pytest.mark.usefixtures("today")
def test_a_replay_needs_no_answer_of_a_retired_service_llm(experiment: Experiment) -> None:
    retired = set_(experiment, "service_llm.retired", "2020-01-01")
    assert problems(set_(retired, "service.replay", True)) == []


def test_nothing_is_bought_at_a_price_that_has_ended(experiment: Experiment) -> None:
    def until(day: str) -> Experiment:
        return set_(experiment, "service_llm.price", Price(1.0, 2.0, "a test", until=day, note="introductory"))

    (found,) = problems(until("2001-01-31"))
    assert "held until 2001-01-31 (introductory); set price.input, price.output anew" in found
    assert problems(until("2999-01-31")) == []
    assert problems(set_(until("2001-01-31"), "service.replay", True)) == []
    assert "is no day such as 2027-01-31" in problems(until("soon"))[0]


def test_an_openai_compatible_service_llm_may_go_through_batches(experiment: Experiment) -> None:
    compatible = set_(set_(experiment, "service_llm.provider", "openai"), "service_llm.batch", True)
    assert problems(compatible) == []


LITERAL = "sk-ant-api03-0123456789abcdefghij"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("study", LITERAL),
        ("runtime.results", f"results/{LITERAL}"),
        ("service_llm.model", LITERAL),
        ("service_llm.base_url", f"http://localhost/{LITERAL}/v1"),
        ("service_llm.parameters", {"extra_headers": {"x-tenant": LITERAL}}),
        ("service_llm.parameters", {"stop": ["a", {"b": LITERAL}]}),
        ("judge.panel.pocket_judge.name", LITERAL),
        ("train.target_modules", [LITERAL]),
    ],
)
def test_a_literal_key_is_found_at_any_depth_and_not_repeated(path: str, value: Any, experiment: Experiment) -> None:
    found = problems(set_(experiment, path, value))
    assert any(line.startswith(path) and "set ANTHROPIC_API_KEY" in line for line in found), found
    assert LITERAL not in " ".join(found)


def test_a_key_of_the_environment_is_found_whatever_it_looks_like(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_GATEWAY_KEY", "just-some-words-and-no-digit")
    experiment.service_llm.api_key_env = "MY_GATEWAY_KEY"
    found = problems(set_(experiment, "service_llm.parameters", {"user": "just-some-words-and-no-digit"}))
    assert found == [refusal("service_llm.parameters.user", "MY_GATEWAY_KEY")]


def test_a_teacher_that_is_not_asked_is_not_checked(experiment: Experiment) -> None:
    spoilt = set_(experiment, "service_llm.model", "")
    assert problems(set_(spoilt, "synthesis.enabled", False)) == []


def test_the_reference_judge_needs_no_panel(experiment: Experiment) -> None:
    experiment.judge.panel, experiment.judge.kind = {}, JudgeKind.reference
    experiment.synthesis.enabled = False
    assert problems(experiment) == []
    experiment.synthesis.enabled, experiment.loop.gate.precision = True, None
    assert problems(experiment) == []


def test_an_empty_dev_split_is_fine_where_test_is_the_gate(experiment: Experiment) -> None:
    assert problems(set_(set_(experiment, "data.dev_rows", 0), "protocol.gate_split", GateSplit.test)) == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"extra_headers": {"Authorization": "Bearer sk-secret"}},
        {"extra_body": {"api_key": "sk-secret"}},
        {"access_token": "sk-secret"},
        {"password": "secret"},
    ],
)
def test_a_secret_is_refused_wherever_it_hides(parameters: dict[str, Any], experiment: Experiment) -> None:
    assert problems(set_(experiment, "service_llm.parameters", parameters)) != []


@pytest.mark.parametrize(
    "parameters",
    [
        {"extra_headers": {"x-api-key": "sk-secret"}},
        {"extra_body": {"backends": [{"api_key": "sk-secret"}]}},
        {"auth_token": "sk-secret"},
        {"token": "sk-secret"},
    ],
)
def test_a_secret_is_refused_in_lists_and_headers_too(parameters: dict[str, Any], experiment: Experiment) -> None:
    assert problems(set_(experiment, "service_llm.parameters", parameters)) != []


def test_a_secret_in_an_address_is_refused(experiment: Experiment) -> None:
    assert problems(set_(experiment, "service_llm.base_url", "http://user:secret@localhost/v1")) != []


def test_a_hub_data_set_needs_a_name(compose_experiment: Compose) -> None:
    with pytest.raises(ConfigError, match=r"data\.path"):
        compose_experiment("data=no_robots", "data.path=null", *OFFLINE)


def test_the_pocket_data_know_four_tasks(compose_experiment: Compose) -> None:
    with pytest.raises(ConfigError, match=r"task\.name=my_task"):
        compose_experiment("task.name=my_task")


def test_all_problems_are_reported_at_once(compose_experiment: Compose) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_experiment(
            "infer.samples=0",
            "judge.max_unscored=2",
            "train.learning_rate=-1",
            "study=a/b",
            "data.dev_rows=0",
            "service_llm.concurrency=0",
            "judge.panel.pocket_judge.base_url=ftp://x",
            "loop.growth.volumes=[3,2]",
            "train.max_length=9999",
        )
    lines = str(caught.value).splitlines()
    assert [line.split("=")[0].split(":")[0] for line in lines] == [
        "infer.samples",
        "judge.max_unscored",
        "train.learning_rate",
        "study",
        "protocol",
        "judge.panel.pocket_judge.base_url",
        "service_llm.concurrency",
        "loop.growth.volumes",
        "train.max_length",
    ]


def test_names_that_no_folder_can_have_are_refused(experiment: Experiment) -> None:
    for path in ("study", "name"):
        (told,) = problems(set_(experiment, path, "n" * 300))
        assert told.startswith(f"{path}=nnn")
        assert "300 bytes are too long" in told
        (told,) = problems(set_(experiment, path, "日" * 70))  # 210 bytes
        assert "210 bytes" in told
        (told,) = problems(set_(experiment, path, "half \ud800"))
        assert "LC_ALL=C.UTF-8" in told
        assert problems(set_(experiment, path, "é" * 100)) == []
