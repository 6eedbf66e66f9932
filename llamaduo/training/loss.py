"""The loss of response tokens, of rows side by side or one behind the other.

    loss = ResponseLoss(network, pad=0, packing=False)
    total = loss(network, [(ids, prompt_tokens), ...]).sum()          # nats, one for each response token

Rows that lie side by side are padded at their ends, where causal attention never looks: no mask is needed, and none is
made. Packed rows are told apart by their positions, which begin again at 0; whether an attention keeps them apart is
tried out, not believed. The output layer sees response positions only: with a vocabulary of 128k or 256k it costs more
than many a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from llamaduo.errors import ConfigError

if TYPE_CHECKING:
    import torch

Row = tuple[np.ndarray, int]
"""A row's tokens, and how many of them are its prompt's."""


class Loss(Protocol):
    """What a training makes small; made of the network, the tokenizer's `pad` and whether rows are packed."""

    device: torch.device

    def __init__(self, network: Any, *, pad: int, packing: bool) -> None: ...

    def __call__(self, network: Any, rows: Sequence[Row]) -> torch.Tensor:
        """Return the loss of each token that counts, row after row."""

    def refuse_leaks(self, network: Any) -> None:
        """Raise ConfigError if a packed row can see one before it."""


_TRIED = ((150, 41), (97, 131, 13))
"""Lengths of packed rows of which it is tried whether they see each other; some begin behind a kernel's first block."""
_ROUNDING = 1e-6
"""Nats: what is masked has no weight at all, and the rest is computed in the same way."""


class ResponseLoss:
    """Cross-entropy of response tokens; from here on the network's output layer computes these positions only."""

    def __init__(self, network: Any, *, pad: int, packing: bool) -> None:
        self._pad, self._packing = pad, packing
        self.device: torch.device = network.device
        self._kept: torch.Tensor | None = None
        self._vocabulary: int = network.get_input_embeddings().weight.shape[0]
        self._attention: str = network.config._attn_implementation
        network.get_output_embeddings().register_forward_pre_hook(self._select)

    def _select(self, _: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if self._kept is None:
            return inputs
        return (inputs[0].flatten(0, 1)[self._kept][None], *inputs[1:])

    def __call__(self, network: Any, rows: Sequence[Row]) -> torch.Tensor:
        """Return the loss of each response token in nats, row after row (float32)."""
        import torch

        device = self.device
        ids, positions = (_packed if self._packing else _padded)(rows, self._pad)
        kept, wanted = _responses(rows, ids.shape[1], packing=self._packing)
        self._kept = torch.from_numpy(kept).to(device)
        where = {} if positions is None else {"position_ids": torch.from_numpy(positions).to(device)}
        logits = network(input_ids=torch.from_numpy(ids).to(device), use_cache=False, **where).logits[0]
        targets = torch.from_numpy(wanted).to(device)
        return torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")

    def refuse_leaks(self, network: Any) -> None:
        """Raise ConfigError if a packed row can see one before it: its loss then changes with that one's tokens.

        That is tried as the network trains; what dropout takes is the same each time.
        """
        import torch

        training = network.training
        network.train()
        with torch.no_grad(), torch.random.fork_rng():
            apart = all(change <= _ROUNDING for lengths in _TRIED for change in self._changes(network, lengths))
        network.train(training)
        if not apart:
            raise ConfigError(
                f"train.packing: with runtime.attention={self._attention}, packed rows of this model see each other, "
                "so that their loss is wrong; take train.packing=false or another runtime.attention."
            )

    def _changes(self, network: Any, lengths: Sequence[int]) -> list[float]:
        """Return how much losses behind each row but the last change at most, in nats, when it gets other tokens."""
        import torch

        rng = np.random.default_rng(0)
        rows, others = ([(rng.integers(0, self._vocabulary, length), 1) for length in lengths] for _ in range(2))

        def losses(changed: int | None) -> torch.Tensor:
            torch.manual_seed(0)
            return self(network, [others[at] if at == changed else row for at, row in enumerate(rows)])

        before = losses(None)
        behind = [sum(lengths[:row]) - row for row in range(1, len(rows))]  # a row's first token has no loss
        return [float((losses(row) - before)[begin:].abs().max()) for row, begin in enumerate(behind)]


def _padded(rows: Sequence[Row], pad: int) -> tuple[np.ndarray, None]:
    ids = np.full((len(rows), max(len(tokens) for tokens, _ in rows)), pad, dtype=np.int64)
    for at, (tokens, _) in enumerate(rows):
        ids[at, : len(tokens)] = tokens
    return ids, None


def _packed(rows: Sequence[Row], _: int) -> tuple[np.ndarray, np.ndarray]:
    ids = np.concatenate([tokens for tokens, _ in rows]).astype(np.int64)
    return ids[None], np.concatenate([np.arange(len(tokens)) for tokens, _ in rows])[None]


def _responses(rows: Sequence[Row], width: int, *, packing: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions that predict a response token, in the flattened batch, and these tokens."""
    kept, wanted, begin = [], [], 0
    for tokens, prompt in rows:
        kept.append(begin + np.arange(prompt - 1, len(tokens) - 1))
        wanted.append(tokens[prompt:])
        begin += len(tokens) if packing else width
    return np.concatenate(kept), np.concatenate(wanted).astype(np.int64)


LOSSES: dict[str, type[Loss]] = {"responses": ResponseLoss}
"""By the name that a job has for each."""
