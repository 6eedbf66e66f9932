"""The paper's recipes compose from `conf/`, cell by cell, and training does what they say.

`recipes.csv` holds what the authors released (`train=paper`), `runs.csv` what their model cards say was run
(`train=paper_runs`). Both lie beside the repository and are not shipped: without them the rows below that are
written out are asserted alone.
"""

from __future__ import annotations

import csv
import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from llamaduo.compose import checked
from llamaduo.config import Experiment, Gate, GateRule, Quantization, Train, conf_dir

PAPER = Path(__file__).parents[2] / "shared/paper"
MODELS = {
    "google/gemma-2b": "gemma_2b",
    "google/gemma-7b": "gemma_7b",
    "mistralai/Mistral-7B-v0.3": "mistral_7b_v0_3",
    "meta-llama/Meta-Llama-3-8B": "llama3_8b",
    "meta-llama/Llama-3.2-1B": "llama3_2_1b",
    "meta-llama/Llama-3.2-3B": "llama3_2_3b",
}
RUN_MODELS = {
    "gemma-2b": "gemma_2b",
    "gemma-7b": "gemma_7b",
    "Mistral-7B-v0.3": "mistral_7b_v0_3",
    "Llama-3-8B": "llama3_8b",
    "Llama-3.1-8B (abandoned)": "llama3_1_8b",
}
GENERATORS = {"gpt4o": "gpt_4o", "claude3sonnet": "claude_3_sonnet", "gemini1_5flash": "gemini_1_5_flash"}
RUN_GENERATORS = {"gpt4o": "gpt_4o", "claude": "claude_3_sonnet", "gemini": "gemini_1_5_flash"}
SYNTHETIC_ROWS = {"gpt4o": 286_000, "gemini1_5flash": 294_000, "claude3sonnet": 303_000}
"""About what the authors had for summarization; the other tasks' recipes take all rows there are."""
FILES_OF_THEIR_OWN = {
    "config/sample_config.yaml": "paper_sample",
    "config/gemma2b/gpt4o/gemma_2b_gpt4o_64k.yaml": "paper_gemma_2b_gpt4o_64k",
}


@functools.cache
def composed(*overrides: str) -> Experiment:
    """Return the checked experiment; a replay, since two of the paper's service LLMs no longer answer."""
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Experiment)
    with initialize_config_dir(str(conf_dir()), version_base=None):
        return checked([compose("config", ["service.replay=true", "preset=service", *overrides])])[0]


def paper_rows(name: str) -> list[dict[str, str]]:
    if not (PAPER / name).is_file():
        pytest.skip(f"the paper's {name} is not beside the repository")
    with (PAPER / name).open(newline="") as file:
        return list(csv.DictReader(file))


def rows_of(volume: str) -> list[int]:
    return [int(volume.removesuffix("k")) * 1000] if volume else []


# ---------------------------------------------------------------- what was released


def choices_of_a_recipe(row: dict[str, str]) -> list[str]:
    choices = [
        f"train={FILES_OF_THEIR_OWN.get(row['file'], 'paper')}",
        f"local_model={MODELS[row['base_model']]}",
        f"task={row['task']}",
    ]
    if row["volume"]:
        choices += [f"service_llm={GENERATORS[row['generator']]}", f"volume={row['volume']}"]
    return choices


def wanted_of_a_recipe(row: dict[str, str]) -> dict[str, Any]:
    """Return a row's cells with their types; `dataset_fraction` as the rows that it comes to, in thousands."""
    share = float(row["dataset_fraction"])
    typed = {name: int(row[name]) for name in ("lora_r", "lora_alpha", "epochs", "max_seq_length", "seed")}
    typed |= {name: int(row[name]) for name in ("per_device_batch", "grad_accum")}
    rates: dict[str, Any] = {name: float(row[name]) for name in ("lora_dropout", "learning_rate", "warmup_ratio")}
    texts = {name: row[name] for name in ("base_model", "tokenizer", "task", "generator", "scheduler")}
    return {
        **typed, **rates, **texts,
        "target_modules": row["target_modules"].split("+") if row["target_modules"] else [],
        "load_in_4bit": row["load_in_4bit"] == "True",
        "volume": rows_of(row["volume"]),
        "dataset_fraction": [round(share * SYNTHETIC_ROWS[row["generator"]] / 1000)] if share < 1 else "all",
    }  # fmt: skip


def cells_of_a_recipe(experiment: Experiment) -> dict[str, Any]:
    """Return what an experiment says in the columns of `recipes.csv`."""
    train, model, growth = experiment.train, experiment.local_model, experiment.loop.growth
    generator = {name: cell for cell, name in GENERATORS.items()}.get(experiment.service_llm.name)
    thousands = [volume // 1000 for volume in growth.volumes]
    part = experiment.task.name == "summarization"
    return {
        "base_model": model.path,
        "tokenizer": model.tokenizer or "",
        "task": experiment.task.name,
        "generator": "train_sft" if growth.include_coverage else generator,
        "volume": growth.volumes,
        "dataset_fraction": thousands if part else "all",
        "lora_r": train.lora_r,
        "lora_alpha": train.lora_alpha,
        "lora_dropout": train.lora_dropout,
        "target_modules": train.target_modules,
        "load_in_4bit": train.quantization is Quantization.nf4,
        "learning_rate": train.learning_rate,
        "epochs": train.epochs,
        "per_device_batch": train.batch_size,
        "grad_accum": train.accumulation,
        "max_seq_length": train.max_length,
        "scheduler": "cosine",  # what training does: see the last test
        "warmup_ratio": train.warmup_ratio,
        "seed": experiment.runtime.seed,
    }


def test_every_cell_of_every_released_recipe_composes() -> None:
    rows = paper_rows("recipes.csv")
    wrong = []
    for row in rows:
        wanted, found = wanted_of_a_recipe(row), cells_of_a_recipe(composed(*choices_of_a_recipe(row)))
        assert wanted.keys() == found.keys() == row.keys() - {"file"}
        wrong += [(row["file"], name, wanted[name], found[name]) for name in wanted if wanted[name] != found[name]]
    assert wrong == []
    assert len(rows) == 71


# ---------------------------------------------------------------- what was run


def choices_of_a_run(row: dict[str, str]) -> list[str]:
    task, _, generator = row["run"].partition(" ")
    return [
        f"local_model={RUN_MODELS[row['model']]}",
        f"task={'summarization' if task == 'summ' else task}",
        f"service_llm={RUN_GENERATORS[generator or 'gpt4o']}",
        f"volume={row['volume']}",
    ]


def test_every_cell_of_every_run_composes_its_devices_in_the_accumulation() -> None:
    rows = paper_rows("runs.csv")
    wrong = []
    for row in rows:
        experiment = composed("train=paper_runs", *choices_of_a_run(row))
        train = experiment.train
        total = int(row["devices"]) * int(row["per_device_batch"]) * int(row["grad_accum"])
        wanted = (int(row["per_device_batch"]), int(row["total_batch"]), float(row["learning_rate"]))
        found = (train.batch_size, train.batch_size * train.accumulation, train.learning_rate)
        epochs = train.epochs if row["epochs"] == "?" else int(row["epochs"])
        length = 1024  # Gemma 2B's too, whose recipes say 2048
        if (total, *wanted, epochs, length) != (wanted[1], *found, train.epochs, train.max_length):
            wrong.append((row, train))
        assert experiment.loop.growth.volumes == rows_of(row["volume"])
    assert wrong == []
    assert len(rows) == 46


def test_runs_differ_from_their_recipes_where_the_documentation_says_so() -> None:
    recipes = {tuple(choices_of_a_recipe(row)[1:]) for row in paper_rows("recipes.csv")}
    differences, devices = set(), 0
    for row in paper_rows("runs.csv"):
        choices = choices_of_a_run(row)
        if tuple(choices) not in recipes:
            continue
        ran, released = (composed(f"train={name}", *choices).train for name in ("paper_runs", "paper"))
        assert ran.accumulation == released.accumulation * int(row["devices"])
        devices += 1
        differences |= {
            (choices[0].removeprefix("local_model="), name)
            for name in Train.__dataclass_fields__
            if name != "accumulation" and getattr(ran, name) != getattr(released, name)
        }
    assert differences == {
        ("gemma_2b", "batch_size"), ("gemma_2b", "epochs"), ("gemma_2b", "max_length"), ("llama3_8b", "batch_size"),
    }  # fmt: skip
    assert devices == 35


def test_no_file_of_a_recipe_is_without_a_row() -> None:
    """Each file's path says for whom it is: train/paper/volume/gemma_7b/64k.yaml; `volume=paper` is 100k or 128k."""
    recipes = [choices_of_a_recipe(row)[1:] for row in paper_rows("recipes.csv")]
    runs = [choices_of_a_run(row) for row in paper_rows("runs.csv")]
    for name, known in {"paper": [*recipes, *runs], "paper_runs": runs}.items():
        folder = conf_dir() / "train" / name
        files = [path.relative_to(folder).with_suffix("").parts for path in folder.rglob("*.yaml")]
        named = [set(parts[1:]) for parts in files if not (parts[1].startswith("pocket_") or parts[-1] == "paper")]
        chosen = [{choice.partition("=")[2] for choice in choices} for choices in known]
        assert [parts for parts in named if not any(parts <= values for values in chosen)] == []
        assert len(files) == {"paper": 26, "paper_runs": 19}[name]


# ---------------------------------------------------------------- some rows written out

WRITTEN_OUT: list[tuple[str, dict[str, Any]]] = [
    ("train=paper local_model=gemma_2b task=summarization volume=1k",
     {"lora_r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "target_modules": [], "quantization": Quantization.nf4,
      "learning_rate": 2e-4, "epochs": 10, "batch_size": 4, "accumulation": 2, "max_length": 2048,
      "warmup_ratio": 0.1}),
    ("train=paper local_model=gemma_2b task=summarization service_llm=gpt_4o volume=64k",
     {"lora_r": 8, "epochs": 15, "max_length": 2048}),
    ("train=paper_gemma_2b_gpt4o_64k local_model=gemma_7b task=summarization service_llm=gpt_4o volume=64k",
     {"lora_r": 32, "lora_alpha": 64, "epochs": 15, "batch_size": 4, "accumulation": 2, "max_length": 1024}),
    ("train=paper local_model=gemma_7b task=summarization volume=16k", {"lora_r": 8, "lora_alpha": 16, "epochs": 10}),
    ("train=paper local_model=gemma_7b task=summarization volume=32k", {"lora_r": 16, "lora_alpha": 32}),
    ("train=paper local_model=gemma_7b task=summarization volume=64k", {"lora_r": 32, "lora_alpha": 64, "epochs": 10}),
    ("train=paper local_model=llama3_2_1b task=classification volume=100k", {"lora_r": 32, "batch_size": 32}),
    ("train=paper local_model=llama3_8b task=coding volume=100k",
     {"lora_r": 32, "learning_rate": 2e-3, "batch_size": 4, "accumulation": 2, "max_length": 1024}),
    ("train=paper local_model=mistral_7b_v0_3 task=closed_qa volume=100k",
     {"lora_r": 32, "lora_alpha": 64, "learning_rate": 2e-4, "batch_size": 8}),
    ("train=paper_sample local_model=gemma_7b task=coding",
     {"lora_r": 16, "lora_alpha": 16, "epochs": 5, "batch_size": 2, "accumulation": 2, "max_length": 2048,
      "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}),
    ("train=paper_runs local_model=gemma_2b task=summarization service_llm=gemini_1_5_flash volume=32k",
     {"batch_size": 16, "accumulation": 16, "epochs": 10, "max_length": 1024, "lora_r": 8}),
    ("train=paper_runs local_model=gemma_7b task=classification volume=100k",
     {"batch_size": 4, "accumulation": 6, "epochs": 15, "lora_r": 32, "lora_alpha": 64}),
    ("train=paper_runs local_model=llama3_8b task=coding volume=100k",
     {"batch_size": 8, "accumulation": 16, "learning_rate": 2e-3}),
    ("train=paper_runs local_model=llama3_1_8b task=coding volume=100k",
     {"batch_size": 4, "accumulation": 8, "learning_rate": 2e-4, "lora_r": 32, "lora_alpha": 64}),
]  # fmt: skip


@pytest.mark.parametrize(("choices", "wanted"), WRITTEN_OUT, ids=[choices for choices, _ in WRITTEN_OUT])
def test_a_row_written_out_composes(choices: str, wanted: dict[str, Any]) -> None:
    train = composed(*choices.split()).train
    assert {name: getattr(train, name) for name in wanted} == wanted


# ---------------------------------------------------------------- models, volumes, protocol


@pytest.mark.parametrize("model", sorted(path.stem for path in (conf_dir() / "local_model").glob("*.yaml")))
def test_the_papers_protocol_composes_for_every_model(model: str) -> None:
    experiment = composed("protocol=paper", f"local_model={model}", "infer.max_new_tokens=96")
    shared = composed("protocol=paper", "local_model=qwen3_4b", "infer.max_new_tokens=96").train
    published = {"gemma_2b", "llama3_8b", "llama3_2_1b", "llama3_2_3b", "mistral_7b_v0_3"}
    assert experiment.train.max_length <= experiment.local_model.context
    if model.startswith("pocket_"):
        assert experiment.train == Train(**{**vars(shared), "max_length": 512})
    else:
        assert (experiment.train == shared) is (model not in published)


@pytest.mark.parametrize("volume", ["1k", "2k", "4k", "8k", "16k", "32k", "64k", "100k", "128k", "256k"])
def test_a_volume_is_one_training_on_that_many_synthetic_rows_without_a_gate(volume: str) -> None:
    loop = composed("protocol=paper", f"volume={volume}").loop
    assert (loop.growth.volumes, loop.growth.include_coverage) == (rows_of(volume), False)
    assert (loop.max_iterations, loop.gate.similarity, loop.gate.precision) == (1, None, None)


def test_the_scaling_study_has_no_gate_under_the_papers_protocol_either() -> None:
    scaling, paper = composed("loop=scaling"), composed("loop=scaling", "protocol=paper")
    assert paper.loop.growth == scaling.loop.growth
    assert (paper.loop.beside, paper.loop.gate.rule) == ([], GateRule.mean)
    assert (paper.loop.gate.similarity, paper.loop.gate.precision) == (None, None)


def test_the_papers_protocol_gates_at_90_by_the_mean() -> None:
    assert composed("protocol=paper").loop.gate == Gate(90, 90, GateRule.mean)
    assert composed("protocol=paper", "loop.gate.similarity=80").loop.gate == Gate(80, 90, GateRule.mean)


def test_the_papers_volumes_are_those_of_the_scaling_study() -> None:
    volumes = sorted(rows_of(path.stem)[0] for path in (conf_dir() / "volume").glob("*k.yaml"))
    assert composed("loop=scaling").loop.growth.volumes == [volume for volume in volumes if volume != 100_000]


def test_the_default_recipe_looks_at_no_other_choice() -> None:
    chosen = composed("train=default", "local_model=gemma_7b", "volume=64k").train
    assert chosen == composed("train=default", "local_model=gemma_7b").train


# ---------------------------------------------------------------- what training does


def test_training_does_what_the_papers_recipe_says(tmp_path: Path) -> None:
    """Adapter of rank 8 on q_proj and v_proj, AdamW, linear warm-up over a tenth of the steps, then a cosine to 0."""
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    from llamaduo.pocket.tasks import make_pairs
    from llamaduo.records import Example, prompt_id
    from llamaduo.training.fit import train
    from llamaduo.training.job import TrainJob

    experiment = composed(
        "train=paper", "local_model=pocket_llama", "infer.max_new_tokens=96", "train.quantization=none",
        "train.gradient_checkpointing=false", "train.packing=false", "runtime.device=cpu", "runtime.threads=1",
    )  # fmt: skip
    rows = []
    for prompt, response in make_pairs("coding", 24, seed=3):
        messages = ({"role": "user", "content": prompt},)
        rows.append(Example(prompt_id(messages), messages, response))
    rates, kinds = [], set()

    def note(optimizer: Any, *_: Any) -> None:
        kinds.add(type(optimizer).__name__)
        rates.append(optimizer.param_groups[0]["lr"] / 2e-4)

    watched = register_optimizer_step_pre_hook(note)
    try:
        train(
            TrainJob(tmp_path, experiment.local_model, experiment.train, experiment.runtime),
            rows,
            progress=lambda done, total: None,
        )
    finally:
        watched.remove()
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (saved["r"], saved["lora_alpha"], saved["lora_dropout"]) == (8, 16, 0.05)
    assert sorted(saved["target_modules"]) == ["q_proj", "v_proj"]
    assert kinds == {"AdamW"}
    assert len(rates) == 30  # 24 rows by 4 x 2, 10 epochs
    assert rates[:3] == sorted(rates[:3])
    assert rates[0] < 0.5
    assert max(rates) == pytest.approx(1)
    assert rates[3:] == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 27)) for step in range(27)], abs=0.06)


@pytest.mark.parametrize("architecture", ["gemma", "llama", "mistral"])
def test_no_target_modules_are_q_and_v_for_the_papers_architectures(architecture: str) -> None:
    from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    assert TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING[architecture] == ["q_proj", "v_proj"]
