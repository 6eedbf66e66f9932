"""The devices that train together: one, or all that `accelerate launch` has started.

Each takes its share of a step's forward passes; gradients are summed over all of them before the optimizer moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

T = TypeVar("T")


class Devices:
    """One device."""

    rank, count = 0, 1
    replicated = True
    """Whether every device holds the whole adapter and optimizer, so that one of them can store both."""

    def prepare(self, network: Any, optimizer: Any) -> tuple[Any, Any]:
        """Return network and optimizer as they are to be used from here on."""
        return network, optimizer

    def bare(self, network: Any) -> Any:
        """Return the network without what `prepare` put around it."""
        return network

    def share(self, passes: Sequence[T]) -> list[tuple[T, float]]:
        """Return this device's passes with their weights: each has equally many, those repeated for that weigh 0."""
        return [(one, 1.0) for one in passes]

    def accumulating(self, network: Any, last: bool) -> AbstractContextManager[Any]:
        """Return the context of a pass: before the last one of a step, gradients needn't be exchanged."""
        return nullcontext()

    def backward(self, loss: Any) -> None:
        """Add a loss's gradients, which are summed over all devices."""
        loss.backward()

    def clip(self, parameters: Sequence[Any], norm: float) -> float:
        """Scale gradients down to a norm; return the norm that they had."""
        import torch

        return float(torch.nn.utils.clip_grad_norm_(parameters, norm))

    def total(self, *values: float) -> list[float]:
        """Return the sums of numbers over all devices."""
        return list(values)

    def weights(self, network: Any) -> dict[str, Any] | None:
        """Return the whole state to save where it is spread over devices, else None."""
        return None


class Launched(Devices):
    """All devices that `accelerate launch` has started, by DDP, FSDP or DeepSpeed as its configuration says."""

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import Accelerator

        self._accelerator = Accelerator(cpu=cpu)
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device
        self.replicated = self._accelerator.distributed_type.value in ("NO", "MULTI_GPU", "MULTI_CPU")

    def prepare(self, network: Any, optimizer: Any) -> tuple[Any, Any]:
        """Return network and optimizer as accelerate wraps them."""
        network, optimizer = self._accelerator.prepare(network, optimizer)
        return network, optimizer

    def bare(self, network: Any) -> Any:
        """Return the network without accelerate's wrapper."""
        return self._accelerator.unwrap_model(network)

    def share(self, passes: Sequence[T]) -> list[tuple[T, float]]:
        """Return every `count`-th pass, the last one, the smallest, with weight 0 where there is none left."""
        mine = [(one, 1.0) for one in passes[self.rank :: self.count]]
        each = -(-len(passes) // self.count)
        return mine + [(passes[-1], 0.0)] * (each - len(mine))

    def accumulating(self, network: Any, last: bool) -> AbstractContextManager[Any]:
        """Exchange gradients in the last pass alone."""
        return nullcontext() if last else self._accelerator.no_sync(network)

    def backward(self, loss: Any) -> None:
        """Add gradients; the wrappers take the mean over devices, so the loss is scaled up to a sum."""
        self._accelerator.backward(loss * self.count)

    def clip(self, parameters: Sequence[Any], norm: float) -> float:
        """Scale gradients down to a norm over all devices."""
        found = self._accelerator.clip_grad_norm_(parameters, norm)
        return float(found) if found is not None else float("nan")

    def total(self, *values: float) -> list[float]:
        """Return the sums over all devices (float64 where the device has it)."""
        import torch

        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        summed = self._accelerator.reduce(torch.tensor(values, dtype=dtype, device=self.device), "sum")
        return [float(value) for value in summed]

    def weights(self, network: Any) -> dict[str, Any] | None:
        """Gather a state that is spread over devices."""
        if self.replicated:
            return None
        state: dict[str, Any] = self._accelerator.get_state_dict(network)
        return state
