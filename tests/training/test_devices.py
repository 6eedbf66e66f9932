"""Several devices train as one does: the same gradients before the optimizer, clipped; the same best epoch.

Two processes on a CPU (`several.py`), by DDP, FSDP and, where the package is there, DeepSpeed.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import several
import yaml

from llamaduo.config import Runtime, Train
from llamaduo.errors import ConfigError
from llamaduo.training.devices import Devices
from llamaduo.training.loss import ResponseLoss
from llamaduo.training.tuning import FineTuning

RELATIVE = 5e-6
"""float32's rounding of sums in another order, of the largest gradient."""


def run_two(kind: str, out: Path) -> Path:
    """Let two processes train; return the folder of what they found."""
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    paths = [str(Path(several.__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    shared |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    started = []
    for rank in ("0", "1"):
        with (out / f"{rank}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, several.__file__, kind, str(out)],
                    env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
                    stdout=log,
                    stderr=log,
                )
            )
    try:
        codes = [process.wait(180) for process in started]
    finally:
        for process in started:
            process.kill()
    assert codes == [0, 0], "\n".join((out / f"{rank}.log").read_text()[-2000:] for rank in (0, 1))
    return out


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_two("ddp", tmp_path_factory.mktemp("two") / "ddp")


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_two("fsdp", tmp_path_factory.mktemp("two") / "fsdp")


def same_as_one(found: Path, case: str) -> None:
    """Assert that each step's norm and gradients are those of one process, up to rounding."""
    import torch
    from safetensors.torch import load_file

    one, two = several.gradients(Devices, several.CASES[case]), load_file(found)
    assert len(one["norms"]) >= 1
    assert one["norms"].min() > 10 * several.NORM  # clipping is active
    torch.testing.assert_close(one["gradients"].norm(dim=1), torch.full_like(one["norms"], several.NORM))
    torch.testing.assert_close(two["norms"], one["norms"], rtol=RELATIVE, atol=0)
    largest = float(one["gradients"].abs().max())
    torch.testing.assert_close(two["gradients"], one["gradients"], rtol=0, atol=RELATIVE * largest)


@pytest.mark.parametrize("case", several.CASES)
def test_gradients_of_two_devices_are_those_of_one(ddp: Path, case: str) -> None:
    same_as_one(ddp / f"{case}.safetensors", case)


@pytest.mark.parametrize("broken", several.BROKEN)
def test_gradients_that_are_put_together_wrongly_are_caught(ddp: Path, broken: type[Devices]) -> None:
    with pytest.raises(AssertionError):
        same_as_one(ddp / f"{broken.__name__}.safetensors", several.UNEVEN)


def test_a_network_that_is_spread_over_devices_has_the_same_gradients(fsdp: Path) -> None:
    same_as_one(fsdp / f"{several.UNEVEN}.safetensors", several.UNEVEN)


def same_best(found: Path, tmp_path: Path) -> None:
    """Assert that the best epoch is that of one process, and that its weights are what was saved."""
    import torch
    from safetensors.torch import load_file

    alone = several.best(Devices(), tmp_path)
    told = yaml.safe_load((found / "state.yaml").read_text())
    assert alone.best_epoch is not None
    assert alone.best_epoch < alone.epoch - 1  # the last weights would be other ones
    assert (told["best_epoch"], told["step"]) == (alone.best_epoch, alone.step)
    assert told["best_loss"] == pytest.approx(alone.best_loss, rel=1e-4)
    one, two = (load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, found / "best"))
    assert one.keys() == two.keys()
    # AdamW's first steps are the gradient's sign: where a gradient is near zero its sign is rounding
    assert min(torch.isclose(one[name], two[name], atol=1e-3).float().mean() for name in one) > 0.95


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_the_best_epoch_of_two_devices_is_that_of_one(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    same_best(request.getfixturevalue(kind), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="the package deepspeed is not there")
def test_deepspeed_comes_to_the_best_epoch_of_one_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    (tmp_path / "one").mkdir()
    same_best(run_two("deepspeed", tmp_path / "two"), tmp_path / "one")


class OneOfTwo(Devices):
    """The second one of two devices, by itself."""

    rank, count = 1, 2


def test_out_of_memory_on_one_of_several_devices_says_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    rows = several.rows()
    config = Train(learning_rate=0.0, max_length=512, epochs=1, batch_size=6)
    fits = ResponseLoss.__call__

    def too_large(self: ResponseLoss, network: Any, batch: Any) -> Any:
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return fits(self, network, batch)

    monkeypatch.setattr(ResponseLoss, "__call__", too_large)
    tuning = FineTuning(several.network(rows), rows, config, pad=0, seed=42, devices=OneOfTwo())
    with pytest.raises(ConfigError, match=r"device 1 of 2, in a forward pass of 3 rows, [\d,]+ tokens: take") as told:
        tuning.run(lambda *_: None, None)
    (fitting,) = [word for word in str(told.value).split() if word.startswith("train.tokens_per_batch=")]
    limit = int(fitting.rstrip(",").partition("=")[2])
    assert max(rows.lengths) <= limit < 2 * min(rows.lengths)  # which is a row a pass
    config.tokens_per_batch = limit
    FineTuning(several.network(rows), rows, config, pad=0, seed=42, devices=OneOfTwo()).run(lambda *_: None, None)


def test_a_spread_network_is_loaded_to_the_cpu_in_the_type_of_the_gpu() -> None:
    import torch

    from llamaduo.training.devices import Launched

    one = Launched.__new__(Launched)
    one.device, one._kind = torch.device("cuda", 3), "FSDP"
    placed = one.placed(Runtime())
    assert (placed.device, placed.dtype) == ("cpu", "bfloat16")
    assert one.placed(Runtime(dtype="float32")).dtype == "float32"
    for kind in ("MULTI_GPU", "DEEPSPEED"):
        one._kind = kind
        assert (one.placed(Runtime()).device, one.placed(Runtime()).dtype) == ("cuda:3", "auto")
