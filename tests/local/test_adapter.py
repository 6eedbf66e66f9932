"""Adapters go onto the model that they were made for; any other, and any that isn't whole, is refused in two lines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import FAMILIES, RUNTIME, answers, fine_tune, model_of, save, tiny, tokenizer_of

from llamaduo.config import LocalModel, Quantization, Train
from llamaduo.errors import ConfigError, InputError
from llamaduo.local.adapter import load_adapter, new_adapter
from llamaduo.local.model import load_base, load_chat


def config(*targets: str) -> Train:
    return Train(learning_rate=1e-2, max_length=256, lora_r=4, target_modules=list(targets))


def base_of(model: LocalModel) -> Any:
    return load_base(model, RUNTIME, Quantization.none, load_chat(model).tokenizer)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter of the tiny Llama after one step."""
    folder = tmp_path_factory.mktemp("adapter")
    fine_tune(tiny("llama"), folder, min_steps=1)
    return folder


@pytest.fixture
def adapter(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of that adapter, to be damaged at will."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def change_config(adapter: Path, **fields: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def drop_tensors(adapter: Path, part: str) -> None:
    from safetensors.torch import load_file, save_file

    kept = {name: value for name, value in load_file(adapter / "adapter_model.safetensors").items() if part not in name}
    save_file(kept, adapter / "adapter_model.safetensors")


def refusal(model: LocalModel, adapter: Path) -> str:
    """Return what answering and going on with training say, which is the same."""
    said = []
    for refused in (lambda: answers(model, adapter), lambda: fine_tune(model, adapter / "on", start_from=adapter)):
        with pytest.raises(InputError) as found:
            refused()
        assert found.value.exit_code == 2
        said.append(str(found.value))
    assert said[0] == said[1]
    assert len(said[0].splitlines()) == 1
    return said[0]


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["wq"], ["llama has no wq;", "all-linear", "q_proj", "down_proj"]),
        (["q_proj", "wv"], ["llama has no wv;"]),
        (["all-linear", "q_proj"], ["llama has no all-linear;"]),
        (["proj"], ["llama has no proj;"]),
    ],
)
def test_targets_that_match_nothing_are_refused_with_those_that_exist(targets: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        new_adapter(base_of(tiny("llama")), tiny("llama"), config(*targets), [])
    assert all(word in str(refused.value) for word in words), refused.value
    assert "norm" not in str(refused.value)


def test_an_architecture_that_peft_does_not_know_is_refused_without_targets() -> None:
    base = base_of(tiny("llama"))
    base.config.model_type = "unheard_of"
    with pytest.raises(ConfigError, match="peft has no choice for unheard_of; take all-linear, or some of "):
        new_adapter(base, tiny("llama"), config(), [])


@pytest.mark.parametrize("name", ["gemma", "gemma3", "mistral", "llama", "qwen3"])
@pytest.mark.parametrize(("targets", "layers"), [([], 2), (["all-linear"], 7), (["o_proj", "mlp.up_proj"], 2)])
def test_every_layer_that_is_named_gets_its_matrices(name: str, targets: list[str], layers: int) -> None:
    base = base_of(tiny(name))
    network = new_adapter(base, tiny(name), config(*targets), [])
    trainable = [key for key, value in network.named_parameters() if value.requires_grad]
    assert len(trainable) == 2 * layers * base.config.num_hidden_layers
    assert all("lora_" in key and "lm_head" not in key for key in trainable)


LAYOUTS = {"wider": {"intermediate_size": 112}, "deeper": {"num_hidden_layers": 3}, "flatter": {"num_hidden_layers": 1}}


def llama_but(name: str) -> LocalModel:
    """Return the tiny Llama in another layout."""
    family = FAMILIES["llama"]
    tokenizer = tokenizer_of(family)
    return save(f"llama_{name}", family, model_of(family, tokenizer, **LAYOUTS[name]), tokenizer)


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_adapter_of_another_model_is_refused(name: str, adapter: Path) -> None:
    model = llama_but(name)
    said = f"adapter {adapter} was trained on {tiny('llama').path}, not on {model.path}: set local_model to its base."
    assert refusal(model, adapter) == said


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wider", "size mismatch"),
        ("flatter", "14 of its tensors belong nowhere, 0 are missing (base_model.model.model.layers.1."),
    ],
)
def test_shapes_decide_where_the_base_is_no_longer_there(name: str, reason: str, adapter: Path) -> None:
    change_config(adapter, base_model_name_or_path="models/gone")
    said = refusal(llama_but(name), adapter)
    assert said.startswith(f"adapter {adapter} does not fit {llama_but(name).path}: ")
    assert reason in said


def test_an_adapter_of_another_model_of_the_same_shape_is_known_by_its_name(adapter: Path) -> None:
    change_config(adapter, base_model_name_or_path="pocket:gemma")
    model = LocalModel(name="m", path="pocket:mistral", context=256)
    assert "was trained on pocket:gemma, not on pocket:mistral: set local_model" in refusal(model, adapter)


def test_a_models_folder_may_have_moved(adapter: Path, tmp_path: Path) -> None:
    moved = LocalModel(name="m", path=str(shutil.copytree(tiny("llama").path, tmp_path / "moved")), context=256)
    assert len(answers(moved, adapter)) == 4


def pickled(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


def cut_off(adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (pickled, "holds adapter_model.bin and no adapter_model.safetensors: pickle can run code"),
        (cut_off, "does not fit"),
        (lambda adapter: drop_tensors(adapter, "layers.1.mlp"), "6 are missing"),
        (lambda adapter: (adapter / "adapter_config.json").unlink(), "are not both there"),
        (lambda adapter: (adapter / "adapter_config.json").write_text("{"), "does not fit"),
        (lambda adapter: change_config(adapter, target_modules=["wq"]), "wq"),
        (lambda adapter: change_config(adapter, trainable_token_indices=[9999]), "does not fit"),
        (lambda adapter: change_config(adapter, trainable_token_indices=[9]), "does not fit"),
        (shutil.rmtree, "are not both there"),
    ],
    ids=["pickle", "cut off", "tensors gone", "no config", "broken config", "targets", "far rows", "rows", "nothing"],
)
def test_an_adapter_that_is_not_whole_is_refused(damage: Callable[[Path], object], words: str, adapter: Path) -> None:
    damage(adapter)
    said = refusal(tiny("llama"), adapter)
    assert str(adapter) in said
    assert words in said, said


def test_pickle_is_never_opened(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    load_adapter(base_of(tiny("llama")), str(adapter), tiny("llama"))
    pickled(adapter)
    with pytest.raises(InputError):
        load_adapter(base_of(tiny("llama")), str(adapter), tiny("llama"))


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no rows to train on: check data\.path"):
        fine_tune(tiny("llama"), tmp_path, rows=())
