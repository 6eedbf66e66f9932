"""A row for every token: added on every start in the same way, trained with the adapter, kept in its folder.

Nothing else of the embedding is in that folder, and a model that needs no rows is left as it is.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tiny import FAMILIES, ROWS, RUNTIME, WIDENED, answers, fine_tune, model_of, save, tiny, tokenizer_of

from llamaduo.config import LocalModel, Quantization, Train
from llamaduo.errors import ConfigError
from llamaduo.local import adapter
from llamaduo.local.adapter import load_adapter, new_adapter
from llamaduo.local.model import load_base, load_chat

HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
CONFIG = Train(learning_rate=1e-2, max_length=256, lora_r=4)


def with_base(model: LocalModel, quantization: Quantization = Quantization.none) -> tuple[Any, Any]:
    """Return the model's tokenizer, and its base model with a row for each token."""
    tokenizer = load_chat(model).tokenizer
    return tokenizer, load_base(model, RUNTIME, quantization, tokenizer)


def bare(model: LocalModel) -> Any:
    return load_base(model, RUNTIME, Quantization.none)


@cache
def untrained_llama() -> LocalModel:
    """Return Llama 3 before instruction tuning: its chat tokens have rows that were never trained."""
    import torch

    family = FAMILIES["llama"]
    tokenizer = tokenizer_of(family)
    network = model_of(family, tokenizer)
    with torch.no_grad():
        for matrix in (network.get_input_embeddings(), network.get_output_embeddings()):
            matrix.weight[tokenizer.convert_tokens_to_ids(list(HEADERS))] = 1e-9
    return save("llama_untrained", family, network, tokenizer)


@pytest.mark.parametrize("name", WIDENED)
def test_added_tokens_get_the_mean_of_the_other_rows(name: str) -> None:
    import torch

    before = bare(tiny(name))
    tokenizer, base = with_base(tiny(name))
    rows = before.get_input_embeddings().weight.shape[0]
    assert len(tokenizer) == rows + 2
    assert base.untrained_rows == [rows, rows + 1] == tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    assert base.config.vocab_size == len(tokenizer)
    for old, new in (
        (before.get_input_embeddings().weight, base.get_input_embeddings().weight),
        (before.get_output_embeddings().weight, base.get_output_embeddings().weight),
    ):
        assert torch.equal(new[:rows], old)
        assert torch.allclose(new[rows:], old.mean(dim=0).expand(2, -1), atol=1e-6)
    tied = base.get_input_embeddings().weight is base.get_output_embeddings().weight
    assert tied == base.config.tie_word_embeddings == (name != "llama_widened")


def test_the_rows_are_the_same_whatever_was_drawn_before() -> None:
    import torch

    weights = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        weights.append(with_base(tiny("llama_widened"))[1].state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_model_that_has_all_rows_is_left_as_it_is() -> None:
    import torch

    for name in FAMILIES:
        before, (_, base) = bare(tiny(name)).state_dict(), with_base(tiny(name))
        assert base.untrained_rows == []
        assert all(torch.equal(before[key], value) for key, value in base.state_dict().items())


def test_more_rows_than_tokens_stay() -> None:
    family = FAMILIES["qwen3"]
    tokenizer = tokenizer_of(family)
    padded = save("qwen3_padded", family, model_of(family, tokenizer, vocab_size=384), tokenizer)
    _, base = with_base(padded)
    assert base.get_input_embeddings().weight.shape[0] == 384 > len(tokenizer)
    assert base.untrained_rows == []


def test_rows_that_were_never_trained_are_found() -> None:
    import torch

    tokenizer, base = with_base(untrained_llama())
    assert base.untrained_rows == tokenizer.convert_tokens_to_ids(list(HEADERS))
    weight = base.get_input_embeddings().weight
    others = torch.ones(len(weight), dtype=torch.bool)
    others[base.untrained_rows] = False
    assert torch.allclose(weight[base.untrained_rows], weight[others].mean(dim=0).expand(3, -1), atol=1e-6)


def test_rows_that_are_copies_of_each_other_were_never_trained() -> None:
    import torch

    family = FAMILIES["llama"]
    tokenizer = tokenizer_of(family)
    network = model_of(family, tokenizer)
    copies = tokenizer.convert_tokens_to_ids(list(HEADERS[:2]))
    with torch.no_grad():
        network.get_input_embeddings().weight[copies[1]] = network.get_input_embeddings().weight[copies[0]]
    assert with_base(save("llama_copies", family, network, tokenizer))[1].untrained_rows == copies


@pytest.mark.parametrize("name", ["gemma", "gemma3", "llama", "mistral", "qwen3"])
def test_a_new_adapter_with_rows_changes_nothing_yet(name: str) -> None:
    import torch

    ids = torch.arange(40).reshape(2, 20) * 8
    _, base = with_base(tiny(name))
    base.untrained_rows = [3, 16]
    with torch.no_grad():
        before = base(input_ids=ids).logits
        network = new_adapter(base, tiny(name), CONFIG, [16, 3, 3]).eval()
        assert torch.equal(network(input_ids=ids).logits, before)
    assert len([key for key, value in network.named_parameters() if "token" in key and value.requires_grad]) == (
        1 if base.config.tie_word_embeddings else 2
    )


def check_rows(model: LocalModel, folder: Path) -> None:
    """The rows were trained, each of them; they are in the adapter's folder, and no embedding is."""
    from safetensors.torch import load_file

    tokenizer, base = with_base(model)
    saved = load_file(folder / "adapter_model.safetensors")
    rows = {key: value for key, value in saved.items() if "token_adapter" in key}
    assert len(rows) == (1 if base.config.tie_word_embeddings else 2)
    for key, value in rows.items():
        part = base.get_output_embeddings() if "lm_head" in key else base.get_input_embeddings()
        start = part.weight[base.untrained_rows]
        assert value.shape == start.shape
        assert (value - start).abs().amax(dim=1).min() > 1e-3
    assert all(len(tokenizer) not in value.shape for value in saved.values())


@pytest.mark.parametrize("name", [*WIDENED, "llama_untrained"])
def test_rows_are_trained_and_kept_and_answers_stop_at_an_added_token(name: str, tmp_path: Path) -> None:
    model = untrained_llama() if name == "llama_untrained" else tiny(name)
    fine_tune(model, tmp_path)
    check_rows(model, tmp_path)
    found = answers(model, tmp_path)
    assert [(answer.text, answer.finish_reason) for answer in found] == [(row.response, "stop") for row in ROWS]


def no_rows(network: Any, used: Any) -> dict[str, list[int]]:
    return {}


def input_rows_alone(network: Any, used: Any) -> dict[str, list[int]]:
    return {"model.embed_tokens": network.untrained_rows}


@pytest.mark.parametrize("mutant", [no_rows, input_rows_alone])
def test_rows_that_are_not_trained_are_seen(mutant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "rows_to_train", mutant)
    fine_tune(tiny("llama_widened"), tmp_path, min_steps=5)
    with pytest.raises(AssertionError):
        check_rows(tiny("llama_widened"), tmp_path)


@pytest.mark.parametrize("setting", ["packing", "gradient_checkpointing"])
def test_rows_are_trained_in_whatever_way_the_others_are(setting: str, tmp_path: Path) -> None:
    fine_tune(tiny("gemma3_widened"), tmp_path, min_steps=5, **{setting: True})
    check_rows(tiny("gemma3_widened"), tmp_path)


@pytest.mark.parametrize("name", WIDENED)
def test_after_loading_the_logits_are_those_before_saving(name: str, tmp_path: Path) -> None:
    import torch

    def logits(network: Any) -> torch.Tensor:
        with torch.no_grad():
            return network.eval()(input_ids=torch.tensor([[5, 9, len(tokenizer) - 1, 40, len(tokenizer) - 2]])).logits

    tokenizer, base = with_base(tiny(name))
    network = new_adapter(base, tiny(name), CONFIG, range(len(tokenizer)))
    for parameter in network.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(tmp_path, save_embedding_layers=False)
    again = load_adapter(with_base(tiny(name))[1], str(tmp_path), tiny(name))
    assert torch.equal(logits(again), logits(network))


def test_training_goes_on_from_an_adapter_with_rows(tmp_path: Path) -> None:
    first = fine_tune(tiny("llama_widened"), tmp_path / "first")
    second = fine_tune(
        tiny("llama_widened"), tmp_path / "second", start_from=tmp_path / "first", min_steps=1, learning_rate=1e-6
    )
    assert second.loss < 1.2 * first.loss


def test_only_rows_that_the_data_use_are_trained(tmp_path: Path) -> None:
    family = replace(WIDENED["llama_widened"], added=(*WIDENED["llama_widened"].added, "<|image|>"))
    tokenizer = tokenizer_of(family)
    model = save("llama_image", family, model_of(family, tokenizer), tokenizer)
    _, base = with_base(model)
    assert len(base.untrained_rows) == 3
    network = new_adapter(base, model, CONFIG, base.untrained_rows[:2])
    assert set(map(tuple, network.peft_config["default"].trainable_token_indices.values())) == {
        tuple(base.untrained_rows[:2])
    }


def test_in_four_bits_rows_are_trained_too(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    fine_tune(tiny("llama_widened"), tmp_path, quantization=Quantization.nf4)
    found = answers(tiny("llama_widened"), tmp_path, quantization=Quantization.nf4)
    assert [(answer.text, answer.finish_reason) for answer in found] == [(row.response, "stop") for row in ROWS]


def test_a_matrix_with_new_rows_takes_no_lora_too() -> None:
    _, base = with_base(tiny("llama_widened"))
    config = Train(learning_rate=1, max_length=256, target_modules=["q_proj", "lm_head"])
    with pytest.raises(ConfigError, match=r"train\.target_modules: lm_head holds rows of new tokens"):
        new_adapter(base, tiny("llama_widened"), config, base.untrained_rows)
