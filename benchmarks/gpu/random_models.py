"""The paper's local models as shapes: a folder with a configuration and a tokenizer, and weights made up on loading.

    prepare(folder, SHAPES["llama3_8b"])
    with random_weights():
        load_base(LocalModel(path=str(folder), ...), ...)

Nothing is downloaded, and nothing large is written. Weights are drawn on the GPU, where there is one, and then go
through transformers' own loading, which quantises them if it is told to.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toy_llama import make_tokenizer

Shape = dict[str, Any]
SHAPES: dict[str, Shape] = {
    "llama3_8b": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
    "mistral_7b": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32768,
        "max_position_embeddings": 32768,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "gemma_2b": {
        "model_type": "gemma",
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "gemma_7b": {
        "model_type": "gemma",
        "hidden_size": 3072,
        "intermediate_size": 24576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
}
BYTES = 256 + 3
"""Tokens of a tokenizer that knows bytes and three special tokens, of which 0 is the pad and 2 ends a turn."""


def tiny(shape: Shape) -> Shape:
    """Return a shape of the same kind that a CPU trains in a second."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": min(2, shape["num_key_value_heads"]), "head_dim": 16}
    return shape | heads | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "vocab_size": 512}


def prepare(folder: Path, shape: Shape) -> None:
    """Save the configuration of a shape, and a tokenizer that makes every character a token."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(**shape, pad_token_id=0, bos_token_id=None, eos_token_id=2)
    config.save_pretrained(folder)
    make_tokenizer([], vocabulary=BYTES).save_pretrained(folder)


def text(characters: int, rng: random.Random) -> str:
    """Return made-up text of as many tokens."""
    return "".join(rng.choices(string.ascii_letters, k=characters))


def parameters(folder: Path) -> tuple[int, int]:
    """Return how many parameters the model has, and how many of them a token is multiplied with: all but embeddings.

    The head counts, also where it is the embedding's matrix.
    """
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        network = _kind(config)._from_config(config)
    total, embedding = network.num_parameters(), network.get_input_embeddings().weight.numel()
    return total, total if config.tie_word_embeddings else total - embedding


@contextmanager
def random_weights() -> Iterator[None]:
    """Let `AutoModelForCausalLM.from_pretrained` make the weights up that a prepared folder hasn't got."""
    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.__dict__["from_pretrained"]
    AutoModelForCausalLM.from_pretrained = staticmethod(_made)
    try:
        yield
    finally:
        AutoModelForCausalLM.from_pretrained = before


def _made(path: str, *, revision: str | None = None, **options: Any) -> Any:
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    kind = _kind(config)
    options.setdefault("device_map", {"": "cuda" if torch.cuda.is_available() else "cpu"})
    torch.manual_seed(1)
    with torch.device(options["device_map"][""]):
        weights = kind._from_config(config, dtype=options["dtype"]).state_dict()
    return kind.from_pretrained(None, config=config, state_dict=weights, **options)


def _kind(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM._model_mapping[type(config)]
