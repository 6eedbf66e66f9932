"""The loss of each row alone, by one forward pass without dropout.

row_losses(network, rows, Limits(16, None), pad=0, progress=progress)      {0: 1.37, 2: 0.08}, nats per response token
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamaduo.data.rows import Rows
from llamaduo.training.batches import Limits, passes
from llamaduo.training.loss import ResponseLoss


def row_losses(
    network: Any, rows: Rows, limits: Limits, *, pad: int, progress: Callable[[int, int], None]
) -> dict[int, float]:
    """Return the mean loss per response token of each row, in nats, by the place of its example."""
    import torch

    loss = ResponseLoss(network, pad=pad, packing=False)
    found: dict[int, float] = {}
    with torch.no_grad():
        for batch in passes(range(len(rows)), rows.lengths.tolist(), limits):
            begin, each = 0, loss(network, [rows[row] for row in batch])
            for row in batch:
                end = begin + len(rows[row][0]) - rows[row][1]
                found[int(rows.kept[row])] = round(each[begin:end].mean().item(), 6)
                begin = end
            progress(len(found), len(rows))
    return found
