"""The trainers that are compared: llamaduo, TRL, and the model called row by row; and the rows that each one takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import folder
from meter import Meter, Reading, read
from toy_llama import CONTEXT, Turns

from llamaduo.config import Isolation, LocalModel, Runtime, Train

Row = tuple[tuple[int, ...], tuple[int, ...]]
"""A conversation's tokens, and its labels: -100 where no loss is taken."""


@dataclass(frozen=True)
class Setting:
    """What everybody trains with."""

    model: Path
    place: Path
    """Where adapters may go."""
    turns: Sequence[Turns]
    ours: Train
    """How llamaduo trains; its LoRA, learning rate, length and epochs are TRL's too."""
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """What came of a training."""

    reading: Reading
    loss: float
    """Mean per response token."""
    rows: list[Row] | None
    """The rows it took, sorted; None where they can't be had."""


@dataclass(frozen=True)
class Peer:
    """A way to run TRL."""

    packing: bool
    batch: int
    """Rows or packs in a forward pass."""
    accumulation: int
    checkpointing: bool


def overridden(train: Train, overrides: list[str]) -> Train:
    """Return the settings with the fields that a command line names as key=value; wrong ones end the script."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged: Any = OmegaConf.to_object(OmegaConf.merge(train, OmegaConf.from_dotlist(overrides)))
    except OmegaConfBaseException as error:
        sys.exit(f"{' '.join(overrides)}: {str(error).splitlines()[0]}; take fields of llamaduo.config.Train.")
    return merged


def rendered(model: Path, turns: Sequence[Turns]) -> list[Row]:
    """Return the conversations' tokens and labels as llamaduo renders them."""
    from llamaduo.local.model import load_chat

    chat = load_chat(LocalModel(name="toy", path=str(model), context=CONTEXT))
    rows = []
    for each in turns:
        prompt = chat.prompt_ids(each[:-1])
        response = chat.response_ids(each[:-1], each[-1]["content"]) or []
        rows.append(((*prompt, *response), (*[-100] * len(prompt), *response)))
    return rows


def with_llamaduo(setting: Setting) -> Trained:
    """Train once over the rows with llamaduo."""
    from llamaduo.records import Example, prompt_id
    from llamaduo.training.fit import train
    from llamaduo.training.job import TrainJob

    examples = [Example(prompt_id(turns[:-1]), turns[:-1], turns[-1]["content"]) for turns in setting.turns]
    with folder() as out, Meter(pad=0) as meter:
        adapter = train(
            TrainJob(
                out,
                LocalModel(name="toy", path=str(setting.model), context=CONTEXT),
                setting.ours,
                Runtime(seed=setting.seed, threads=1, device="cpu", isolation=Isolation.none),
            ),
            examples,
            progress=lambda done, total: meter.mark(),
        )
    reading, end = read(meter.marks), meter.marks[-1]
    if adapter.tokens != end.real or abs(adapter.padding - reading.padding) > 1e-4:
        sys.exit(f"llamaduo reports {adapter}, but {end.real} tokens were embedded, {reading.padding:.1%} was padding.")
    return Trained(reading, adapter.loss, None)


def with_trl(setting: Setting, peer: Peer) -> Trained:
    """Train once over the rows with TRL."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from trl import SFTTrainer

    losses: list[float] = []

    class Watched(SFTTrainer):
        """An SFTTrainer whose loss is added up."""

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            losses.append(float(loss.detach()) * float(num_items_in_batch))
            return loss

    ours = setting.ours
    lora = LoraConfig(r=ours.lora_r, lora_alpha=ours.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    data = [{"prompt": list(turns[:-1]), "completion": list(turns[-1:])} for turns in setting.turns]
    with Meter(pad=0) as meter:
        trainer = Watched(
            AutoModelForCausalLM.from_pretrained(setting.model, dtype=torch.float32),
            _arguments(setting, peer),
            train_dataset=Dataset.from_list(data),
            processing_class=AutoTokenizer.from_pretrained(setting.model),
            peft_config=lora,
            callbacks=[_marking(meter)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    rows = taken(trainer.train_dataset)
    return Trained(read(meter.marks), sum(losses) / responses(rows), rows)


def _arguments(setting: Setting, peer: Peer) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        str(setting.place / "trl"),
        per_device_train_batch_size=peer.batch,
        gradient_accumulation_steps=peer.accumulation,
        gradient_checkpointing=peer.checkpointing,
        packing=peer.packing,
        max_length=setting.ours.max_length,
        num_train_epochs=setting.ours.epochs,
        learning_rate=setting.ours.learning_rate,
        seed=setting.seed,
        use_cpu=True,
        bf16=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _marking(meter: Meter) -> Any:
    from transformers import TrainerCallback

    class Marking(TrainerCallback):
        """Marks every step."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.mark()

    return Marking()


def taken(dataset: Any) -> list[Row]:
    """Return the rows of a data set that TRL has prepared, sorted; packs are taken apart."""
    rows = []
    for line in dataset:
        at = 0
        for length in line.get("seq_lengths") or [len(line["input_ids"])]:
            part = slice(at, at + length)
            rows.append((tuple(line["input_ids"][part]), tuple(line["labels"][part])))
            at += length
    return sorted(rows)


def responses(rows: Sequence[Row]) -> int:
    """Return how many tokens take part in the loss."""
    return sum(label != -100 for _, labels in rows for label in labels)


def by_hand(model: Path, rows: Sequence[Row]) -> float:
    """Return the mean loss per response token of the untrained model, called row by row."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total = 0.0
    with torch.no_grad():
        for ids, labels in rows:
            logits = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0, :-1]
            total += float(torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), reduction="sum"))
    return total / responses(rows)
