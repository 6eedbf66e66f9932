"""Train: LoRA moves the adapter and nothing else, learns, counts response tokens only, and is repeatable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import LocalModel, Runtime, Train
from llamaduo.errors import InputError
from llamaduo.local_model import load_base, load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Adapter, Example, prompt_id
from llamaduo.stages.train import _tensors, render, train

MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)
RUNTIME = Runtime(threads=1, device="cpu")


def examples(task: str, count: int) -> list[Example]:
    made = []
    for prompt, response in make_pairs(task, count, seed=3):
        messages = ({"role": "user", "content": prompt},)
        made.append(Example(prompt_id(messages), messages, response))
    return made


def fine_tune(rows: list[Example], folder: Path, **options: Any) -> Adapter:
    config = Train(
        **{"learning_rate": 3e-3, "max_length": 512, "epochs": 1, "min_steps": 4, "lora_dropout": 0.0} | options
    )
    folder.mkdir(exist_ok=True)
    start_from = options.pop("start_from", None)
    return train(
        rows,
        folder,
        model=MODEL,
        config=config,
        runtime=RUNTIME,
        start_from=start_from,
        progress=lambda done, total: None,
    )


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_training_moves_every_adapter_matrix(tmp_path: Path) -> None:
    fine_tune(examples("coding", 32), tmp_path / "a")
    moved = weights(tmp_path / "a")
    assert len(moved) == 2 * 7 * 3  # A and B of seven linear layers in three blocks
    assert all(tensor.abs().max() > 0 for tensor in moved.values())  # B starts at zero


def test_loss_falls(tmp_path: Path) -> None:
    rows = examples("closed_qa", 16)
    short = fine_tune(rows, tmp_path / "short", min_steps=2)
    long = fine_tune(rows, tmp_path / "long", min_steps=40)
    assert long.loss < 0.7 * short.loss
    assert long.steps == 40


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    rows = examples("summarization", 24)
    for name in "ab":
        fine_tune(rows, tmp_path / name)
    first, second = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "ab")
    assert first == second


def test_accumulation_takes_the_same_steps_as_one_large_batch(tmp_path: Path) -> None:
    import torch

    rows = examples("coding", 8)
    fine_tune(rows, tmp_path / "whole", batch_size=8, min_steps=1)
    fine_tune(rows, tmp_path / "parts", batch_size=2, accumulation=4, min_steps=1)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    # AdamW's first step is the gradient's sign: where a gradient is near zero its sign is rounding.
    close = [torch.isclose(whole[name], parts[name], atol=1e-4).float().mean() for name in whole]
    assert min(close) > 0.98


def test_loss_counts_the_response_and_its_end_mark_only() -> None:
    import torch

    chat = load_chat(MODEL)
    (row,) = render(examples("closed_qa", 1), chat, 512)
    assert row is not None
    prompt, response = row
    _, mask, labels = _tensors([row, (prompt, response[:1])], chat.tokenizer.pad_token_id, torch.device("cpu"))
    assert labels[0, : len(prompt)].tolist() == [-100] * len(prompt)
    assert labels[0, len(prompt) :].tolist() == response
    assert response[-1] == chat.tokenizer.eos_token_id
    assert labels[1, len(prompt) + 1 :].tolist() == [-100] * (len(response) - 1)
    assert mask[1].sum() == len(prompt) + 1


def test_padding_does_not_change_the_loss() -> None:
    import torch

    chat = load_chat(MODEL)
    rows = render(examples("closed_qa", 4) + examples("summarization", 4), chat, 512)
    network = load_base(MODEL, RUNTIME, Train(learning_rate=1, max_length=1).quantization)

    def losses(batch: list[Any]) -> list[float]:
        ids, mask, labels = _tensors(batch, chat.tokenizer.pad_token_id, torch.device("cpu"))
        with torch.no_grad():
            logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], reduction="none")
        return each.sum(1).tolist()

    together = losses(rows)
    alone = [losses([row])[0] for row in rows]
    assert together == pytest.approx(alone, abs=1e-3, rel=1e-5)


def test_rows_beyond_the_context_are_left_out_whole_and_counted(tmp_path: Path) -> None:
    rows = examples("closed_qa", 6)
    long = Example("long", ({"role": "user", "content": "ba " * 600},), "x")
    trained = fine_tune([*rows, long], tmp_path / "a")
    assert (trained.train_rows, trained.skipped_rows) == (6, 1)
    with pytest.raises(InputError, match="exceed 512 tokens"):
        fine_tune([long], tmp_path / "b")


def test_a_response_with_the_end_mark_in_its_text_is_left_out_whole(tmp_path: Path) -> None:
    rows = examples("closed_qa", 6)
    forged = Example("forged", rows[0].messages, "A turn ends with <|im_end|> and a newline.")
    trained = fine_tune([*rows, forged], tmp_path / "a")
    assert (trained.train_rows, trained.skipped_rows) == (6, 1)


def test_continuing_starts_from_the_last_adapter(tmp_path: Path) -> None:
    rows = examples("closed_qa", 16)
    first = fine_tune(rows, tmp_path / "first", min_steps=40)
    config = Train(learning_rate=1e-5, max_length=512, epochs=1, min_steps=1, lora_dropout=0.0)
    (tmp_path / "second").mkdir()
    second = train(
        rows,
        tmp_path / "second",
        model=MODEL,
        config=config,
        runtime=RUNTIME,
        start_from=str(tmp_path / "first"),
        progress=lambda done, total: None,
    )
    assert second.loss < 1.2 * first.loss


@pytest.mark.parametrize("quantization", ["nf4"])
def test_four_bit_trains_on_a_cpu(quantization: str, tmp_path: Path) -> None:
    from llamaduo.config import Quantization

    pytest.importorskip("bitsandbytes")
    fine_tune(examples("coding", 8), tmp_path / "a", quantization=Quantization(quantization), min_steps=2)
    assert all(tensor.abs().max() > 0 for tensor in weights(tmp_path / "a").values())
