"""A training that is killed goes on at its newest whole checkpoint and ends with the undisturbed one's very bytes.

Each run is a forked child with one thread, killed by SIGKILL at a step, or in the middle of storing a state. The
number of kills comes from LLAMADUO_TRAINING_KILLS (5; `make proof` takes 20).
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Keep, LocalModel, Runtime, Train
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example, prompt_id
from llamaduo.training import checkpoints as module
from llamaduo.training import tuning
from llamaduo.training.checkpoints import Checkpoints
from llamaduo.training.fit import train
from llamaduo.training.job import TrainJob

KILLS = int(os.environ.get("LLAMADUO_TRAINING_KILLS", "5"))
STEPS = 12
MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)
RUNTIME = Runtime(threads=1, device="cpu")


def examples(count: int, seed: int) -> list[Example]:
    made = []
    for prompt, response in make_pairs("classification", count, seed=seed):
        messages = ({"role": "user", "content": prompt},)
        made.append(Example(prompt_id(messages), messages, response))
    return made


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Folder:
    """A training's folder, in which it is started again and again."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path, self.options = path, options
        path.mkdir()

    def run(
        self, *, kill_at: int | None = None, saves: int | None = None, broken: Callable[[], None] | None = None
    ) -> int:
        """Train in a child that dies at a step, or within a number of seconds; return its exit code."""

        def body() -> None:
            import torch

            torch.set_num_threads(1)
            if broken:
                broken()
            if saves is not None:
                _die_while_saving(saves)
            self._train(kill_at)

        child = multiprocessing.get_context("fork").Process(target=body)
        child.start()
        child.join(120)
        return child.exitcode or 0

    def _train(self, kill_at: int | None) -> None:
        out = self.path / "adapter"
        out.mkdir(exist_ok=True)
        keep = Keep.best if self.options.get("best") else Keep.last
        config = Train(
            learning_rate=3e-3, max_length=512, epochs=3, batch_size=4, lora_dropout=0.1, checkpoint_s=0.0, keep=keep
        )
        notes: list[str] = []
        made = train(
            TrainJob(out, MODEL, config, RUNTIME, checkpoints=self.path / "checkpoints"),
            examples(16, 3),
            examples(4, 4),
            progress=lambda done, total: die() if done == kill_at else None,
            note=notes.append,
        )
        (self.path / "made.json").write_text(json.dumps([vars(made), notes]))

    @property
    def made(self) -> tuple[dict[str, Any], list[str]]:
        record, notes = json.loads((self.path / "made.json").read_text())
        return record, notes

    @property
    def digest(self) -> str:
        return hashlib.sha256((self.path / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def _die_while_saving(number: int) -> None:
    """Die at the `number`-th write, sync or rename of checkpoints."""
    left = [number]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def or_die(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                die()
            return call(*args, **options)

        return or_die

    module.sync = counted(module.sync)
    module._digest = counted(module._digest)
    module.os = type("Os", (), {"replace": staticmethod(counted(os.replace)), **_same("open", "fsync", "close")})
    module.os.getpid, module.os.O_RDONLY = os.getpid, os.O_RDONLY


def _same(*names: str) -> dict[str, Any]:
    return {name: staticmethod(getattr(os, name)) for name in names}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    import peft
    import torch
    import transformers

    assert peft
    assert transformers
    torch.set_num_threads(1)  # before the first fork: a child can't use its parent's threads
    folder = Folder(tmp_path_factory.mktemp("undisturbed") / "run")
    assert folder.run() == 0
    return folder


def test_a_checkpoint_changes_nothing(undisturbed: Folder, tmp_path: Path) -> None:
    record, notes = undisturbed.made
    assert (record["steps"], notes) == (STEPS, [])
    again = Folder(tmp_path / "run")
    assert again.run() == 0
    assert again.digest == undisturbed.digest


@pytest.mark.parametrize("seed", range(KILLS))
def test_killed_at_a_step_and_resumed_the_bytes_are_the_same(undisturbed: Folder, tmp_path: Path, seed: int) -> None:
    step = random.Random(seed).randint(1, STEPS)
    folder = Folder(tmp_path / "run")
    assert folder.run(kill_at=step) == -signal.SIGKILL
    assert folder.run() == 0
    record, notes = folder.made
    if step > 1:  # progress is told before the state is stored: the killed step is taken again
        assert notes == [f"training goes on behind step {step - 1} of {STEPS}."]
    assert folder.digest == undisturbed.digest
    assert record == undisturbed.made[0]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 9, 16])
def test_killed_while_a_state_is_stored_the_bytes_are_the_same(
    undisturbed: Folder, tmp_path: Path, number: int
) -> None:
    folder = Folder(tmp_path / "run")
    assert folder.run(saves=number) == -signal.SIGKILL
    assert folder.run(saves=number + 7) in (0, -signal.SIGKILL)
    assert folder.run() == 0
    assert folder.digest == undisturbed.digest
    assert sorted(path.name for path in (folder.path / "checkpoints").glob("step-*")) == [
        f"step-{STEPS - 1:08d}",
        f"step-{STEPS:08d}",
    ]


@pytest.mark.parametrize("how", ["cut", "flipped", "no state", "empty"])
def test_a_damaged_newest_state_falls_back_to_the_one_before(undisturbed: Folder, tmp_path: Path, how: str) -> None:
    folder = Folder(tmp_path / "run")
    folder.run(kill_at=8)
    newest = folder.path / "checkpoints" / "step-00000007"
    tensors = newest / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    if how == "cut":
        tensors.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[-100] ^= 1
        tensors.write_bytes(content)
    elif how == "no state":
        (newest / "state.json").unlink()
    else:
        (newest / "state.json").write_text("")
    assert folder.run() == 0
    first, second = folder.made[1]
    assert "step-00000007" in first
    assert "the one before it is taken" in first
    assert second == f"training goes on behind step 6 of {STEPS}."
    assert folder.digest == undisturbed.digest


def test_the_best_epoch_survives_a_kill(tmp_path: Path) -> None:
    whole, broken = Folder(tmp_path / "whole", best=True), Folder(tmp_path / "broken", best=True)
    assert whole.run() == 0
    assert broken.run(kill_at=10) == -signal.SIGKILL
    assert broken.run() == 0
    assert broken.digest == whole.digest
    assert broken.made[0] == whole.made[0]
    assert whole.made[0]["dev_loss"] is not None


def test_the_state_of_another_training_is_not_taken(tmp_path: Path) -> None:
    import torch

    Checkpoints(tmp_path, "one", every_s=0.0).save({"step": 3}, {"a": torch.ones(2)})
    other = Checkpoints(tmp_path, "another", every_s=0.0)
    assert other.newest() is None
    assert other.notes == ["checkpoint step-00000003 is of another training; it is not taken."]


# copies of the code that are broken on purpose


def dropout_goes_on() -> None:
    tuning._seed_dropout = lambda *_: None


def optimizer_begins_anew() -> None:
    right = tuning._below
    tuning._below = lambda prefix, tensors: iter(()) if prefix == "optimizer." else right(prefix, tensors)


def epoch_begins_anew() -> None:
    right = tuning.State.__init__

    def init(self: Any, *args: Any, **values: Any) -> None:
        right(self, *args, **{**values, "within": 0})

    tuning.State.__init__ = init  # type: ignore[method-assign]


@pytest.mark.parametrize("mutant", [dropout_goes_on, optimizer_begins_anew, epoch_begins_anew])
def test_a_broken_resume_is_caught(mutant: Callable[[], None], tmp_path: Path) -> None:
    whole, broken = Folder(tmp_path / "whole"), Folder(tmp_path / "broken")
    assert whole.run(broken=mutant) == 0
    assert broken.run(kill_at=6, broken=mutant) == -signal.SIGKILL
    broken.run(broken=mutant)
    assert broken.digest != whole.digest
