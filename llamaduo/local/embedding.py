"""A row of the embedding for every token of the tokenizer.

A tokenizer may have more tokens than its base model has rows (tokens that were added for a chat format), and a
base model may have rows that it never trained (Llama 3's chat tokens, before instruction tuning). Such rows are
set to the mean of all others, which makes them the same on every start, and are learned together with the adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

_NEXT_TO_NOTHING = 0.01
"""Below this share of a typical row's length, a row was never trained."""


def fit_embedding(network: Any, tokenizer: Any) -> list[int]:
    """Give every token of a tokenizer a row, and return the tokens whose rows nobody has trained, in order.

    Writes to the network's embedding and, where that is a matrix of its own, to its output head.
    """
    weight = network.get_input_embeddings().weight
    rows, needed = weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    untrained = _never_trained(weight, [token for token in _of_chats(tokenizer) if token < rows])
    if needed > rows:
        network.resize_token_embeddings(needed, mean_resizing=False)
        untrained += range(rows, needed)
    if untrained:
        for matrix in _matrices(network).values():
            _set_to_mean(matrix.weight, untrained)
    return untrained


def rows_to_train(network: Any, used: Sequence[int] | np.ndarray) -> dict[str, list[int]]:
    """Return the untrained rows that training data use, by the name of each matrix that holds them.

    `network.untrained_rows` is what `fit_embedding` returned; `used` are the tokens of all training rows, one behind
    the other. A row that no datum uses would learn nothing, and is left alone.
    """
    untrained = np.array(network.untrained_rows, dtype=np.int64)
    rows = untrained[np.isin(untrained, used)].tolist() if len(untrained) else []
    return dict.fromkeys(_matrices(network), rows) if rows else {}


def _of_chats(tokenizer: Any) -> list[int]:
    """Return the tokens that chats are made of: those that the template writes, and the end of a text."""
    template = str(tokenizer.chat_template)
    written = {token for token, added in tokenizer.added_tokens_decoder.items() if added.content in template}
    return sorted(written | {token for token in (tokenizer.eos_token_id,) if token is not None})


def _never_trained(weight: torch.Tensor, tokens: Sequence[int]) -> list[int]:
    """Return which tokens have a row that is next to zero, or the same as another one's."""
    import torch

    chosen = weight.detach()[list(tokens)].float()
    typical = torch.linalg.vector_norm(weight.detach(), dtype=torch.float32) / weight.shape[0] ** 0.5
    _, kinds, copies = torch.unique(chosen, dim=0, return_inverse=True, return_counts=True)
    never = (chosen.norm(dim=1) < _NEXT_TO_NOTHING * typical) | (copies[kinds] > 1)
    return [token for token, found in zip(tokens, never.tolist(), strict=True) if found]


def _matrices(network: Any) -> dict[str, Any]:
    """Return the embedding, and the output head where it has weights of its own, by their names in the network."""
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    own_head = head is not None and head.weight is not embedding.weight
    wanted = [embedding, head] if own_head else [embedding]
    return {name: module for name, module in network.named_modules() if any(module is one for one in wanted)}


def _set_to_mean(weight: torch.Tensor, rows: Sequence[int]) -> None:
    """Overwrite rows with the mean of all others, summed in float64, so that no order of summing shows."""
    import torch

    with torch.no_grad():
        index = torch.tensor(rows, device=weight.device)
        total = weight.sum(dim=0, dtype=torch.float64) - weight[index].sum(dim=0, dtype=torch.float64)
        weight[index] = (total / (weight.shape[0] - len(rows))).to(weight.dtype)
