"""Fine-tuning itself: optimizer steps over epochs of rows, and where they stand.

tuning = FineTuning(network, rows, config, pad=0, seed=42)
state = tuning.run(progress, checkpoints)
tuning.save(folder)
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.config import Train
from llamaduo.data.rows import Rows
from llamaduo.errors import ConfigError, InputError
from llamaduo.local.memory import is_out_of_memory
from llamaduo.training.batches import Limits, epoch_steps, passes
from llamaduo.training.checkpoints import Checkpoints
from llamaduo.training.devices import Devices
from llamaduo.training.loss import Loss, ResponseLoss

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int], None]
"""Takes the steps done and the steps there are."""


@dataclass
class State:
    """How far a training is."""

    step: int = 0
    """Optimizer steps taken."""
    epoch: int = 0
    """Epochs done."""
    within: int = 0
    """Steps taken of the epoch that is under way."""
    tokens: int = 0
    """Real tokens processed."""
    processed: int = 0
    """The same with padding."""
    loss: float = 0.0
    """Sum over response tokens of the epoch under way, or of the last one."""
    counted: int = 0
    """These tokens."""
    best_loss: float | None = None
    """Lowest mean loss on dev so far."""
    best_epoch: int | None = None

    @property
    def mean_loss(self) -> float:
        """Nats per response token."""
        return self.loss / self.counted if self.counted else math.nan


class FineTuning:
    """One training: the network, its optimizer, and how far it is."""

    def __init__(
        self,
        network: Any,
        rows: Rows,
        config: Train,
        *,
        pad: int,
        seed: int,
        loss: type[Loss] = ResponseLoss,
        held_out: Rows | None = None,
        devices: Devices | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        import torch

        self._config, self._seed, self._note = config, seed, note
        self._devices = devices or Devices()
        self._rows, self._held_out = rows, held_out
        self._lengths: list[int] = rows.lengths.tolist()
        self._limits = Limits.of(config)
        self._state = State()
        self._best: dict[str, torch.Tensor] = {}
        self._dtype = network.get_base_model().dtype
        self._network, self._optimizer = self._devices.prepare(
            network,
            torch.optim.AdamW(_trainable(network)[1], lr=config.learning_rate, weight_decay=config.weight_decay),
            max_norm=config.max_grad_norm,
        )
        bare = self._devices.bare(self._network)
        self._names, self._parameters = _trainable(bare)  # as they are from here on
        self._loss = loss(bare, pad=pad, packing=config.packing)
        if config.packing:
            with self._autocast():
                self._loss.refuse_leaks(self._network)
        if config.compile:  # each layer for itself: one compilation serves all
            for layer in bare.get_decoder().layers:
                layer.compile(dynamic=True)
        per_epoch = len(epoch_steps(self._lengths, config, seed=seed, epoch=0))
        self._epochs = max(config.epochs, math.ceil(config.min_steps / per_epoch))
        self._steps = self._epochs * per_epoch

    def run(self, progress: Progress, checkpoints: Checkpoints | None) -> State:
        """Train to the end, from the newest checkpoint on."""
        if checkpoints:
            self._resume(checkpoints)
        state = self._state
        while state.epoch < self._epochs and not self._out_of_patience():
            steps = epoch_steps(self._lengths, self._config, seed=self._seed, epoch=state.epoch)
            if not state.within:
                state.loss, state.counted = 0.0, 0
            for rows in steps[state.within :]:
                self._step(rows)
                progress(state.step, self._steps)
                if state.within == len(steps):
                    self._end_epoch()
                if checkpoints and checkpoints.due and self._devices.rank == 0:
                    checkpoints.save(asdict(state), self._tensors())
        if self._best:
            self._put(self._best)
        return state

    def _out_of_patience(self) -> bool:
        best, patience = self._state.best_epoch, self._config.patience
        return best is not None and patience > 0 and self._state.epoch - best > patience

    def _step(self, rows: list[int]) -> None:
        """Take one optimizer step; where memory runs out, in more and smaller passes."""
        state = self._state
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * self._scale(state.step)
        loss, counted, processed = self._gradients(rows)
        if not math.isfinite(loss):
            rate = self._config.learning_rate
            raise InputError(
                f"training diverged at step {state.step + 1} (loss {loss}): lower train.learning_rate={rate:g}."
            )
        self._devices.clip(self._parameters, self._config.max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        state.step, state.within = state.step + 1, state.within + 1
        state.loss, state.counted = state.loss + loss, state.counted + counted
        state.tokens += sum(self._lengths[row] for row in rows)
        state.processed += processed

    def _scale(self, step: int) -> float:
        """A linear warm-up and a cosine down to zero."""
        warm = max(1, round(self._config.warmup_ratio * self._steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self._steps - warm)))

    def _gradients(self, rows: list[int]) -> tuple[float, int, int]:
        """Add up a step's gradients; return its summed loss, response tokens and processed tokens."""
        while True:
            cut = passes(rows, self._lengths, self._limits, self._devices.count)
            try:
                return self._passes(cut)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                largest = max(cut, key=self._processed)
                smaller = self._limits.halved([self._lengths[row] for row in largest])
                if smaller is None:
                    raise ConfigError(
                        f"out of memory with a single row of {max(self._lengths[row] for row in rows)} tokens: lower "
                        "train.max_length, or take train.gradient_checkpointing=true or train.quantization=nf4."
                    ) from error
                if self._devices.count > 1:
                    raise ConfigError(self._refusal(largest, smaller)) from error
                self._limits = smaller
            self._recover()  # behind the block: the error holds on to what the pass had allocated

    def _refusal(self, batch: list[int], smaller: Limits) -> str:
        """Return why a pass that one of several devices can't take ends the training: the others don't hear of it."""
        place, tokens = f"device {self._devices.rank} of {self._devices.count}", self._processed(batch)
        return (
            f"out of memory on {place}, in a forward pass of {len(batch)} rows, {tokens:,} tokens: take "
            f"train.tokens_per_batch={smaller.tokens}, which leaves optimizer steps as they are, or "
            "train.gradient_checkpointing=true."
        )

    def _recover(self) -> None:
        """Give memory back, and say that passes are smaller from here on."""
        import torch

        self._optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        limits = self._limits
        self._note(
            f"out of memory: from here on a forward pass takes at most {limits.rows} rows and {limits.tokens:,} "
            "tokens; optimizer steps stay as they are."
        )

    def _passes(self, cut: list[list[int]]) -> tuple[float, int, int]:
        count = sum(self._lengths[row] - self._rows[row][1] for batch in cut for row in batch)
        total, shared = 0.0, self._devices.share(list(enumerate(cut)))
        for at, ((number, batch), weight) in enumerate(shared, 1):
            _seed_dropout(self._seed, self._state.step, number)
            with self._devices.accumulating(self._network, last=at == len(shared)):
                with self._autocast():
                    loss = self._loss(self._network, [self._rows[row] for row in batch]).sum() * weight
                self._devices.backward(loss / count)
            total += loss.item()
        (total,) = self._devices.total(total)
        return total, count, sum(self._processed(batch) for batch in cut)

    def _autocast(self) -> AbstractContextManager[Any]:
        """Compute in the base model's type, where that is a short one; the adapter's weights are float32."""
        import torch

        return torch.autocast(self._loss.device.type, dtype=self._dtype, enabled=self._dtype is not torch.float32)

    def _processed(self, batch: list[int]) -> int:
        lengths = [self._lengths[row] for row in batch]
        return sum(lengths) if self._config.packing else max(lengths) * len(batch)

    def _end_epoch(self) -> None:
        """Count the epoch, and keep the adapter if no earlier one did better on dev."""
        state = self._state
        state.epoch, state.within = state.epoch + 1, 0
        if self._held_out is None:
            return
        loss = self._dev_loss(self._held_out)
        if state.best_loss is None or loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, state.epoch - 1
            self._best = {name: tensor.detach().cpu().clone() for name, tensor in self._adapter().items()}

    def _dev_loss(self, rows: Rows) -> float:
        """Return the mean loss per response token on dev."""
        import torch

        lengths = rows.lengths.tolist()
        shared = self._devices.share(passes(range(len(rows)), lengths, self._limits, self._devices.count))
        total = counted = 0.0
        self._network.eval()
        with torch.no_grad(), self._autocast():
            for batch, weight in shared:
                losses = self._loss(self._network, [rows[row] for row in batch])
                total, counted = total + weight * losses.sum().item(), counted + weight * len(losses)
        self._network.train()
        total, counted = self._devices.total(total, counted)
        return total / counted

    # what a checkpoint holds

    def _adapter(self) -> dict[str, torch.Tensor]:
        """Return what is trained by its name; of parameters that are spread over devices, this one's part."""
        parts = [one.to_local() if hasattr(one, "to_local") else one for one in self._parameters]
        return dict(zip(self._names, parts, strict=True))

    def _put(self, tensors: dict[str, torch.Tensor]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._adapter().items():
                parameter.copy_(tensors[name])

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {f"adapter.{name}": tensor.detach() for name, tensor in self._adapter().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        return {name: tensor.contiguous() for name, tensor in tensors.items()}

    def _resume(self, checkpoints: Checkpoints) -> None:
        found = checkpoints.newest()
        for text in checkpoints.notes:
            self._note(text)
        if found is None:
            return
        progress, tensors = found
        self._state = State(**progress)
        self._put(dict(_below("adapter.", tensors)))
        self._best = dict(_below("best.", tensors))
        state = self._optimizer.state_dict()
        state["state"] = {}
        for name, tensor in _below("optimizer.", tensors):
            number, moment = name.split(".")
            state["state"].setdefault(int(number), {})[moment] = tensor
        self._optimizer.load_state_dict(state)
        self._note(f"training goes on behind step {self._state.step} of {self._steps}.")

    def save(self, folder: Path) -> None:
        """Write the adapter's folder; of several devices the first one does it."""
        network, state = self._devices.bare(self._network), self._devices.weights(self._network)
        if self._devices.rank == 0:
            network.save_pretrained(folder, state_dict=state, save_embedding_layers=False)
            _put_in_order(folder / "adapter_config.json")


def _put_in_order(path: Path) -> None:
    """Sort the names in a saved configuration: peft writes a set, whose order is another in each process."""
    tree = json.loads(path.read_text(encoding="utf-8"))
    for key, value in tree.items():
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            tree[key] = sorted(value)
    path.write_text(json.dumps(tree, indent=2, sort_keys=True), encoding="utf-8")


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors whose names begin with a prefix, without it."""
    return ((name.removeprefix(prefix), tensor) for name, tensor in tensors.items() if name.startswith(prefix))


def _trainable(network: Any) -> tuple[list[str], list[torch.nn.Parameter]]:
    """Return names and parameters of what is trained."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    return [name for name, _ in named], [parameter for _, parameter in named]


def _seed_dropout(seed: int, step: int, number: int) -> None:
    """Make what a pass draws depend on its place alone, not on what was drawn before it."""
    import torch

    digest = hashlib.sha256(f"{seed} {step} {number}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7], "big"))
