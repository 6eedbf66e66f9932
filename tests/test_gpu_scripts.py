"""The GPU benchmarks on shrunk shapes on a CPU: they run, and say that this is no figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCHMARKS / "gpu" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def random_models(module: Any) -> Any:
    return module("random_models")


def test_every_shape_trains_shrunk_with_gradients_in_every_step() -> None:
    done = script("train.py", "--tiny")
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    assert (found["name"], found["holds"], found["figure"]) == ("gpu_train", None, None)
    assert found["note"] == "tiny: shapes shrunk, on CPU, no figure of the claim"
    assert set(found["spread"]) == {
        f"{shape}:{quantization}"
        for shape in ("llama3_8b", "mistral_7b", "gemma_2b", "gemma_7b")
        for quantization in ("none", "nf4")
    }
    assert len(lines) == 8
    assert all(line.endswith("gradients in every step") for line in lines)


def test_without_a_gpu_it_says_how_to_try_it_out() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = script("train.py", "--only", "gemma_2b:none")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "gpu/train: there is no GPU here; --tiny tries the script out on CPU."


@pytest.mark.parametrize(
    ("shape", "total", "counted"),
    [
        ("llama3_8b", 8_030_261_248, 7_504_924_672),
        ("mistral_7b", 7_248_023_552, 7_113_805_824),
        ("gemma_2b", 2_506_172_416, 2_506_172_416),
        ("gemma_7b", 8_537_680_896, 8_537_680_896),
    ],
)
def test_shapes_have_the_published_numbers_of_parameters(
    random_models: Any, tmp_path: Path, shape: str, total: int, counted: int
) -> None:
    random_models.prepare(tmp_path, random_models.SHAPES[shape])
    assert random_models.parameters(tmp_path) == (total, counted)


def test_made_up_weights_are_quantised_by_the_usual_loading_and_the_loader_is_put_back(
    random_models: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from llamaduo.config import LocalModel, Quantization, Runtime
    from llamaduo.local.model import load_base

    random_models.prepare(tmp_path, random_models.tiny(random_models.SHAPES["mistral_7b"]))
    model = LocalModel(name="tiny", path=str(tmp_path), context=128)
    before = AutoModelForCausalLM.from_pretrained
    with random_models.random_weights():
        plain, packed = (
            load_base(model, Runtime(device="cpu", threads=1), quantization)
            for quantization in (Quantization.none, Quantization.nf4)
        )
    assert AutoModelForCausalLM.from_pretrained == before
    layers = [network.model.layers[0].mlp.up_proj for network in (plain, packed)]
    assert [type(layer).__name__ for layer in layers] == ["Linear", "Linear4bit"]
    assert plain.model.embed_tokens.weight.std() > 0
