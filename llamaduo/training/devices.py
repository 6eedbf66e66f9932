"""The devices that train together: one, or all that `accelerate launch` has started.

Each takes its share of a step's forward passes; gradients are summed over all of them before the optimizer moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, TypeVar

from llamaduo.config import Runtime

T = TypeVar("T")


class Devices:
    """One device."""

    rank, count = 0, 1
    replicated = True
    """Whether every device holds the whole adapter and optimizer, so that one of them can store both."""

    def placed(self, runtime: Runtime) -> Runtime:
        """Return the runtime with the device that this process loads the model to."""
        return runtime

    def first(self) -> AbstractContextManager[Any]:
        """Return the context of what one process of a machine does before the others, which find it in a cache."""
        return nullcontext()

    def prepare(self, network: Any, optimizer: Any, *, max_norm: float) -> tuple[Any, Any]:
        """Return network and optimizer as they are to be used from here on; `max_norm` is that of `clip`.

        The network's parameters may be other ones then.
        """
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
        self._kind: str = self._accelerator.distributed_type.value
        self.replicated = self._kind in ("NO", "MULTI_GPU", "MULTI_CPU")

    def placed(self, runtime: Runtime) -> Runtime:
        """Load to this process's device; under FSDP to the CPU, from where `prepare` moves each device its part."""
        if self._kind != "FSDP":
            return replace(runtime, device=str(self.device))
        short = runtime.dtype == "auto" and self.device.type == "cuda"
        return replace(runtime, device="cpu", dtype="bfloat16" if short else runtime.dtype)

    def first(self) -> AbstractContextManager[Any]:
        """Let the other processes of this machine wait for the first one."""
        waiting: AbstractContextManager[Any] = self._accelerator.local_main_process_first()
        return waiting

    def prepare(self, network: Any, optimizer: Any, *, max_norm: float) -> tuple[Any, Any]:
        """Return network and optimizer as accelerate wraps them; FSDP makes new parameters, in parts."""
        plugin = self._accelerator.state.deepspeed_plugin
        if plugin is not None:  # it clips by itself, and wants a number of rows, which it makes nothing of
            plugin.deepspeed_config |= {"gradient_clipping": max_norm, "train_micro_batch_size_per_gpu": 1}
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
        """Exchange gradients in the last pass alone; DeepSpeed takes the optimizer's step in its `backward`."""
        self._accelerator.sync_gradients = last
        return nullcontext() if last else self._accelerator.no_sync(network)

    def backward(self, loss: Any) -> None:
        """Add gradients; the wrappers take the mean over devices, so the loss is scaled up to a sum."""
        self._accelerator.backward(loss * self.count)

    def clip(self, parameters: Sequence[Any], norm: float) -> float:
        """Scale gradients down to a norm over all devices; `parameters` are those after `prepare`."""
        found = self._accelerator.clip_grad_norm_(parameters, norm)
        if found is None:
            return float("nan")
        return float(found.full_tensor() if hasattr(found, "full_tensor") else found)

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
