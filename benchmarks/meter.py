"""What a training does, seen from outside of it: tokens where they are embedded, gradients where the optimizer is.

    with Meter(pad=tokenizer.pad_token_id) as meter:
        train(..., progress=lambda done, total: meter.mark())
    print(read(meter.marks))

It knows nothing of the trainer and asks it nothing, so it counts ours and any other in the same way: all that is
embedded while gradients are on. The pad token must not occur in the rows. Nothing is moved off the device before
`mark`, which is where the clock is read.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from measure import summary


@dataclass(frozen=True)
class Mark:
    """Where a training stood behind an optimizer step."""

    seconds: float
    """What the clock said."""
    processor_seconds: float
    """The process's processor time."""
    processed: int
    """Tokens embedded so far, padding included."""
    real: int
    """The same without padding."""
    gradient: float
    """Norm of the step's gradient as the optimizer took it (after clipping, if there was any)."""
    idle: int
    """Trained matrices whose gradient was zero or absent in this step."""
    matrices: int
    """Trained matrices."""

    def rate(self, before: Mark) -> float:
        """Return the real tokens a second since another mark."""
        return (self.real - before.real) / (self.seconds - before.seconds)


@dataclass(frozen=True)
class Reading:
    """What the marks say of the steps behind the warm-up."""

    steps: int
    seconds: float
    processor_seconds: float
    tokens: int
    """Real ones."""
    tokens_per_second: float
    tokens_per_processor_second: float
    """What it would be if nothing else ran on the machine, where the process has one thread."""
    by_step: tuple[float, ...]
    """Real tokens a second, step by step."""
    padding: float
    """Share of the processed tokens, over all steps."""
    gradients: tuple[float, ...]
    """Norms, one a step, the warm-up's first."""
    learns: bool
    """Whether every matrix had a gradient in every step; LoRA's A has none before the first, since B is zero."""


class Meter:
    """Counts for as long as it is open."""

    def __init__(self, pad: int) -> None:
        self.marks: list[Mark] = []
        self._pad = pad
        self._processed = 0
        self._real: Any = 0
        self._norms: Any = None

    def __enter__(self) -> Meter:
        import torch
        from torch.optim.optimizer import register_optimizer_step_pre_hook

        self._embed = torch.nn.Embedding.forward
        torch.nn.Embedding.forward = self._counting(self._embed)  # type: ignore[method-assign]
        self._hook = register_optimizer_step_pre_hook(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        torch.nn.Embedding.forward = self._embed  # type: ignore[method-assign]
        self._hook.remove()

    def _counting(self, embed: Any) -> Any:
        import torch

        def forward(module: Any, ids: Any) -> Any:
            if torch.is_grad_enabled():
                self._processed += ids.numel()
                self._real = self._real + (ids != self._pad).sum()
            return embed(module, ids)

        return forward

    def _look(self, optimizer: Any, *_: object) -> None:
        import torch

        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        zero = torch.zeros((), device=trained[0].device)
        self._norms = torch.stack(
            [zero if parameter.grad is None else parameter.grad.detach().float().norm() for parameter in trained]
        )

    def mark(self) -> None:
        """Take down where the training stands: call it behind every optimizer step."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        norms = self._norms
        self.marks.append(
            Mark(
                time.perf_counter(),
                time.process_time(),
                self._processed,
                int(self._real),
                float(norms.norm()),
                int((norms == 0).sum()),
                len(norms),
            )
        )


def read(marks: list[Mark], warm_up: int = 1) -> Reading:
    """Sum the marks up: the clock runs from the end of the last warm-up step to the end of the last step."""
    if len(marks) <= warm_up:
        raise ValueError(f"{len(marks)} steps: too few to measure behind {warm_up} of warm-up.")
    start, end = marks[warm_up - 1], marks[-1]
    processor = end.processor_seconds - start.processor_seconds
    learns = marks[0].idle <= marks[0].matrices // 2 and not any(mark.idle for mark in marks[1:])
    return Reading(
        steps=len(marks) - warm_up,
        seconds=round(end.seconds - start.seconds, 4),
        processor_seconds=round(processor, 4),
        tokens=end.real - start.real,
        tokens_per_second=round(end.rate(start), 1),
        tokens_per_processor_second=round((end.real - start.real) / processor, 1),
        by_step=tuple(round(one.rate(before), 1) for before, one in pairwise(marks[warm_up - 1 :])),
        padding=round(1 - end.real / end.processed, 5),
        gradients=tuple(round(mark.gradient, 6) for mark in marks),
        learns=learns,
    )


def plain(reading: Reading) -> dict[str, Any]:
    """Return a reading for a file: what is known of every step by its smallest, median and largest."""
    return asdict(reading) | {"gradients": summary(reading.gradients), "by_step": summary(reading.by_step)}
