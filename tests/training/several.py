"""One of several processes that train together on a CPU, and what its gradients are; started by `test_devices.py`.

    python several.py KIND OUT           # KIND: ddp, fsdp or deepspeed; RANK, WORLD_SIZE, MASTER_PORT ... say which one

The first one writes `OUT/<case>.safetensors` (norms of steps before clipping, and gradients) for each case, and the
adapter of the best epoch to `OUT/best`. accelerate knows FSDP and DeepSpeed on GPUs only: it takes the CPU for one.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from llamaduo.config import Keep, LocalModel, Quantization, Runtime, Train, conf_dir
from llamaduo.data.rows import Rows, tokenised
from llamaduo.local.adapter import new_adapter
from llamaduo.local.model import load_base, load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example, prompt_id
from llamaduo.training.devices import Devices, Launched
from llamaduo.training.tuning import FineTuning, State

MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)
NORM = 0.05
"""Far less than any step's: clipping is always active."""
UNEVEN = "a device without a pass"
CASES: dict[str, dict[str, Any]] = {
    UNEVEN: {"batch_size": 1, "accumulation": 3},
    "one batch for all": {"batch_size": 6},
    "one block for all": {"batch_size": 1, "packing": True},
}


class MeanOverDevices(Launched):
    """A copy that is broken: what the devices found is averaged."""

    def backward(self, loss: Any) -> None:
        super().backward(loss / self.count)


class IdleCounts(Launched):
    """A copy that is broken: a pass that is repeated, for a device that has none, counts again."""

    def share(self, passes: Any) -> Any:
        return [(one, 1.0) for one, _ in super().share(passes)]


BROKEN = (MeanOverDevices, IdleCounts)


def rows(task: str = "classification", count: int = 6) -> Rows:
    """Return rows of uneven lengths."""
    made = []
    for prompt, response in make_pairs(task, count, seed=3):
        messages = ({"role": "user", "content": prompt},)
        made.append(Example(prompt_id(messages), messages, response))
    return tokenised(made, load_chat(MODEL), 512, None)


def network(trained: Rows, dtype: str = "float32") -> Any:
    """Return the pocket model with an adapter that does something, the same one each time."""
    import torch

    torch.manual_seed(1)
    runtime = Runtime(threads=1, device="cpu", dtype=dtype)
    config = Train(learning_rate=0.0, max_length=512, lora_r=4, lora_dropout=0.0)
    made = new_adapter(load_base(MODEL, runtime, Quantization.none), MODEL, config, trained.ids).train()
    for name, parameter in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return made


def gradients(kind: type[Devices], options: dict[str, Any], **how: Any) -> dict[str, Any]:
    """Return all steps' norms before clipping and gradients after it, of weights that never move."""
    import torch

    norms, found = [], []

    class Watched(kind):  # type: ignore[misc, valid-type]
        def clip(self, parameters: Any, norm: float) -> float:
            norms.append(super().clip(parameters, norm))
            whole = [getattr(one.grad, "full_tensor", lambda one=one: one.grad)() for one in parameters]
            found.append(torch.cat([gradient.flatten() for gradient in whole]))
            return norms[-1]

    config = Train(learning_rate=0.0, max_length=512, epochs=1, lora_dropout=0.0, max_grad_norm=NORM, **options)
    trained = rows()
    FineTuning(network(trained), trained, config, pad=0, seed=42, devices=Watched(**how)).run(lambda *_: None, None)
    return {"norms": torch.tensor(norms), "gradients": torch.stack(found)}


def best(devices: Devices, folder: Path, dtype: str = "float32") -> State:
    """Train with a rate that soon makes it worse, and save the best epoch's adapter."""
    config = Train(
        learning_rate=0.05, max_length=512, epochs=3, batch_size=1, accumulation=3, lora_dropout=0.0, keep=Keep.best
    )
    trained = rows()
    tuning = FineTuning(
        network(trained, dtype), trained, config, pad=0, seed=42, devices=devices, held_out=rows("closed_qa")
    )
    state = tuning.run(lambda *_: None, None)
    tuning.save(folder)
    return state


def main(kind: str, out: Path) -> None:
    """Train all cases as one of the processes."""
    from safetensors.torch import save_file

    if kind != "ddp":
        _as_if_on_gpus(yaml.safe_load((conf_dir() / "accelerate" / f"{kind}.yaml").read_text()))
    how = {"cpu": kind == "ddp"}
    first = os.environ["RANK"] == "0"
    cases = {"ddp": list(CASES), "fsdp": [UNEVEN], "deepspeed": []}[kind]  # DeepSpeed shows no gradients
    for case in cases:
        found = gradients(Launched, CASES[case], **how)
        if first:
            save_file(found, out / f"{case}.safetensors")
    for broken in BROKEN if kind == "ddp" else ():
        found = gradients(broken, CASES[UNEVEN], **how)
        if first:
            save_file(found, out / f"{broken.__name__}.safetensors")
    state = best(Launched(**how), out / "best")
    if first:
        (out / "state.yaml").write_text(yaml.safe_dump(asdict(state)))


def _as_if_on_gpus(settings: dict[str, Any]) -> None:
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    kind = settings["distributed_type"]
    given = settings[f"{kind.lower()}_config"]
    name = "FSDP_{}" if kind == "FSDP" else "ACCELERATE_DEEPSPEED_{}"
    os.environ |= {name.format(key.removeprefix("fsdp_").upper()): str(value) for key, value in given.items()}
    os.environ |= {f"ACCELERATE_USE_{kind}": "true", "ACCELERATE_TORCH_DEVICE": "cpu"}
    PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
