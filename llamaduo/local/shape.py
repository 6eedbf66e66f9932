"""The shape of a model: what of it decides how much memory it takes; counted on its skeleton, without weights.

shape = shape_of(experiment.local_model)
shape.parameters        # 8,030,261,248 for Llama 3 8B
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from llamaduo.config import LocalModel, Train
from llamaduo.local.model import skeleton

_PEFTS_CHOICE = ("q_proj", "v_proj")
"""What peft adapts in Llama, Mistral, Gemma and Qwen where `train.target_modules` is empty."""


@dataclass(frozen=True)
class Shape:
    """What of a model decides its memory."""

    linear: tuple[tuple[str, int, int], ...]
    """Name, inputs and outputs of every linear layer but the output layer."""
    others: int
    """Parameters beside their weights: embeddings, output layer, norms, biases."""
    normed: int
    """Elements that norms see of a token, all layers together."""
    layers: int
    hidden: int
    inner: int
    """Width of the feed-forward layers."""
    heads: int
    queries: int
    """Elements of a token's queries in a layer: heads times their width."""
    keys: int
    """Elements of a token's keys in a layer, and as many of its values."""
    vocabulary: int
    matrices: int
    """With a row for every token: the embedding, and the output layer where it has weights of its own."""
    window: float
    """Tokens that a layer with a sliding window looks at; infinity where all layers look at all."""

    @property
    def parameters(self) -> int:
        """All parameters, those that two layers share counted once."""
        return self.others + sum(inputs * outputs for _, inputs, outputs in self.linear)

    def adapted(self, train: Train) -> list[tuple[str, int, int]]:
        """Return the linear layers that get an adapter."""
        if train.target_modules == ["all-linear"]:
            return list(self.linear)
        targets = train.target_modules or _PEFTS_CHOICE
        return [layer for layer in self.linear if any(f".{layer[0]}".endswith(f".{target}") for target in targets)]


def shape_of(model: LocalModel) -> Shape:
    """Return the shape of a model, from its configuration alone; raises InputError where that can't be had."""
    network = skeleton(model)
    config = network.config.get_text_config()
    output, linear = network.get_output_embeddings(), []
    heads = config.num_attention_heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    normed = 0
    for name, module in network.named_modules():
        if type(module).__name__ == "Linear" and module is not output:
            linear.append((name, module.in_features, module.out_features))
        elif type(module).__name__.endswith("Norm"):
            by_head = {"q_norm": heads * width, "k_norm": keys * width}
            normed += by_head.get(name.rpartition(".")[2], config.hidden_size)
    return Shape(
        linear=tuple(linear),
        others=sum(p.numel() for p in network.parameters()) - sum(i * o for _, i, o in linear),
        normed=normed,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        inner=getattr(config, "intermediate_size", 4 * config.hidden_size),
        heads=heads,
        queries=heads * width,
        keys=keys * width,
        vocabulary=config.vocab_size,
        matrices=1 if output is None or output.weight is network.get_input_embeddings().weight else 2,
        window=getattr(config, "sliding_window", None) or math.inf,
    )
