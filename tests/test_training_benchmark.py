"""The training benchmark's instruments: the meter counts what was trained, and the loss check would see a leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import LocalModel, Runtime, Train
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example
from llamaduo.training.fit import train
from llamaduo.training.job import TrainJob


def test_the_meter_counts_the_tokens_that_training_reports(module: Any, tmp_path: Path) -> None:
    meter, turns = module("meter"), [({"role": "user", "content": text}, answer) for text, answer in pairs()]
    with meter.Meter(pad=0) as open_meter:
        adapter = train(
            TrainJob(
                tmp_path,
                LocalModel(name="pocket_llama", path="pocket:llama", context=512),
                Train(learning_rate=1e-3, max_length=512, epochs=2, batch_size=5, lora_dropout=0.0),
                Runtime(threads=1, device="cpu"),
            ),
            [Example(str(number), (turn,), answer) for number, (turn, answer) in enumerate(turns)],
            progress=lambda done, total: open_meter.mark(),
        )
    reading = meter.read(open_meter.marks)
    first, last = open_meter.marks[0], open_meter.marks[-1]
    assert last.real == adapter.tokens
    assert reading.steps == len(reading.by_step) == adapter.steps - 1
    assert reading.tokens == last.real - first.real
    assert reading.padding == pytest.approx(adapter.padding, abs=1e-4)
    assert 0 < reading.padding < 0.5  # lengths differ, so that there is some
    assert reading.learns
    assert min(reading.gradients) > 0


def pairs() -> list[tuple[str, str]]:
    return [*make_pairs("coding", 6, seed=1), *make_pairs("closed_qa", 6, seed=1)]


@pytest.mark.parametrize(("fault", "learns"), [(None, True), ("zero", False), ("absent", False), ("late", False)])
def test_the_meter_sees_a_step_without_gradients(module: Any, fault: str | None, learns: bool) -> None:
    import torch

    meter = module("meter")
    matrices = [torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2)]
    optimizer = torch.optim.AdamW(matrices)
    with meter.Meter(pad=0) as open_meter:
        for step in range(3):
            torch.nn.Embedding(4, 2)(torch.tensor([[1, 2, 0]]))
            for matrix in matrices:
                matrix.grad = torch.ones(2, 2)
            if fault == "zero" or (fault == "late" and step == 2):
                matrices[0].grad = torch.zeros(2, 2)
            if fault == "absent":
                matrices[1].grad = None
            optimizer.step()
            open_meter.mark()
    reading = meter.read(open_meter.marks)
    assert reading.learns is learns
    assert reading.padding == pytest.approx(1 / 3, abs=1e-5)


def test_a_closed_meter_leaves_nothing_behind(module: Any) -> None:
    import torch
    from torch.optim import optimizer

    before = torch.nn.Embedding.forward, len(optimizer._global_optimizer_pre_hooks)
    with module("meter").Meter(pad=0):
        assert torch.nn.Embedding.forward is not before[0]
    assert (torch.nn.Embedding.forward, len(optimizer._global_optimizer_pre_hooks)) == before


def test_the_loss_check_would_see_attention_across_packed_rows(module: Any) -> None:
    import torch

    network = module("toy_llama").make_network(512).eval()
    seeded = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 512, (length,), generator=seeded) for length in (40, 60, 120)]
    ids = torch.cat(rows)[None]
    places = torch.cat([torch.arange(len(row)) for row in rows])[None]

    def loss(**inputs: torch.Tensor) -> float:
        with torch.no_grad():
            logits = network(**inputs, use_cache=False).logits[0, :-1]
        each = torch.nn.functional.cross_entropy(logits, inputs["input_ids"][0, 1:], reduction="none")
        kept = inputs.get("position_ids", torch.ones_like(inputs["input_ids"]))[0, 1:] != 0
        return float(each[kept].mean())

    alone = [loss(input_ids=row[None]) for row in rows]
    wanted = sum(one * (len(row) - 1) for one, row in zip(alone, rows, strict=True)) / (ids.numel() - len(rows))
    tolerance = module("train_throughput").LOSS
    assert loss(input_ids=ids, position_ids=places) == pytest.approx(wanted, abs=tolerance)
    leaky = loss(input_ids=ids, position_ids=places, attention_mask=torch.ones_like(ids))
    assert abs(leaky - wanted) > 100 * tolerance


def test_packs_are_taken_apart_into_the_rows_that_went_in(module: Any) -> None:
    packed = [
        {"input_ids": [1, 2, 3, 4, 5], "labels": [-100, 2, 3, -100, 5], "seq_lengths": [3, 2]},
        {"input_ids": [0, 6], "labels": [-100, 6], "seq_lengths": [2]},
    ]
    rows = [((0, 6), (-100, 6)), ((1, 2, 3), (-100, 2, 3)), ((4, 5), (-100, 5))]
    assert module("trainers").taken(packed) == rows
    plain = [{"input_ids": list(ids), "labels": list(labels)} for ids, labels in reversed(rows)]
    assert module("trainers").taken(plain) == rows
    assert module("trainers").responses(rows) == 4


def reading(module: Any, speed: float, padding: float = 0.0, learns: bool = True) -> Any:
    return module("meter").Reading(9, 1.0, 1.0, 1, speed, speed, (speed,), padding, (1.0,), learns)


@pytest.mark.parametrize(
    ("changes", "wrong", "slow"),
    [
        ({}, [], []),
        ({"trl": 501.0}, [], ["over trl"]),
        ({"trl packing": 834.0}, [], ["over trl packing"]),
        ({"padding": 0.061}, [], ["padding"]),
        ({"apart": 2e-4}, ["the losses differ"], []),
        ({"same": False}, ["the rows differ"], []),
        ({"learns": False}, ["steps without gradients"], []),
    ],
)
def test_each_condition_of_the_claim_is_looked_at(
    module: Any, changes: dict[str, Any], wrong: list[str], slow: list[str]
) -> None:
    given = {"trl": 499.0, "trl packing": 833.0, "padding": 0.06, "apart": 1e-4, "same": True, "learns": True} | changes
    readings = {
        "ours": [reading(module, 1000.0, given["padding"])],
        "trl": [reading(module, given["trl"], learns=given["learns"])],
        "trl packing": [reading(module, given["trl packing"])],
    }
    checks = {"apart": given["apart"], "same_rows": {"trl": True, "trl packing": given["same"]}}
    assert module("train_throughput").missed(readings, checks) == (wrong, slow)


def test_settings_from_the_command_line_are_checked(module: Any) -> None:
    trainers, plain = module("trainers"), Train(learning_rate=1.0, max_length=8)
    changed = trainers.overridden(plain, ["packing=true", "tokens_per_batch=64", "keep=best"])
    assert (changed.packing, changed.tokens_per_batch, changed.keep.value) == (True, 64, "best")
    for wrong in ("nosuch=1", "batch_size=many"):
        with pytest.raises(SystemExit, match="take fields of llamaduo"):
            trainers.overridden(plain, [wrong])
