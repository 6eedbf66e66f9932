"""Tiny random networks of five architectures, as torch modules or as folders that can be loaded.

Mistral's sliding window is shorter than most sequences of the tests, Gemma 3 has sliding and full layers, and Llama
and Qwen 3 share keys and values between heads. Weights are drawn wide, so that likely tokens lie well apart.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from llamaduo.config import LocalModel, model_location

NAMES = ("llama", "mistral", "gemma", "gemma3", "qwen3")
WINDOW = 7
VOCABULARY = 1024
"""The pocket tokenizer's."""


def network(name: str, attention: str = "sdpa", **fields: Any) -> Any:
    """Return a network in evaluation mode; the same one every time."""
    import torch
    import transformers

    shape: dict[str, Any] = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
        "initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2,
    }  # fmt: skip
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "llama": ("LlamaConfig", "LlamaForCausalLM", {}),
        "mistral": ("MistralConfig", "MistralForCausalLM", {"sliding_window": WINDOW}),
        "gemma": ("GemmaConfig", "GemmaForCausalLM", {"num_key_value_heads": 1}),
        "gemma3": (
            "Gemma3TextConfig",
            "Gemma3ForCausalLM",
            {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
        ),
        "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {}),
    }
    config, model, more = kinds[name]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**shape | more | fields)).eval()
    made.set_attn_implementation(attention)
    return made


def local_model(name: str, folder: Path) -> LocalModel:
    """Return a network in a folder, with the pocket tokenizer."""
    network(name).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(Path(model_location("pocket:llama")) / file, folder)
    return LocalModel(name=name, path=str(folder), context=512)
