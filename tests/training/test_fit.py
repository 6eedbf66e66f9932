"""Train: LoRA moves the adapter and nothing else, learns, counts response tokens only, and is repeatable."""

from __future__ import annotations

import json
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Keep, LocalModel, Runtime, TooLong, Train
from llamaduo.data.chat import CHATML
from llamaduo.data.rows import Rows, tokenised
from llamaduo.errors import ConfigError, InputError
from llamaduo.local.model import give_back, load_base, load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Adapter, Example, Skipped, prompt_id
from llamaduo.runs.folder import read_rows
from llamaduo.training.devices import Devices
from llamaduo.training.fit import SKIPPED, _identity, train
from llamaduo.training.job import TrainJob
from llamaduo.training.loss import LOSSES, ResponseLoss

MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)
RUNTIME = Runtime(threads=1, device="cpu")


def examples(task: str, count: int) -> list[Example]:
    made = []
    for prompt, response in make_pairs(task, count, seed=3):
        messages = ({"role": "user", "content": prompt},)
        made.append(Example(prompt_id(messages), messages, response))
    return made


def fine_tune(
    rows: list[Example],
    folder: Path,
    *,
    dev: Sequence[Example] = (),
    note: Any = lambda text: None,
    cache: Path | None = None,
    devices: Devices | None = None,
    **options: Any,
) -> Adapter:
    config = Train(
        **{"learning_rate": 3e-3, "max_length": 512, "epochs": 1, "min_steps": 4, "lora_dropout": 0.0} | options
    )
    folder.mkdir(exist_ok=True)
    return train(
        TrainJob(folder, MODEL, config, RUNTIME, cache=cache),
        rows,
        dev,
        progress=lambda done, total: None,
        devices=devices,
        note=note,
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


def test_names_in_the_saved_configuration_are_in_order(tmp_path: Path) -> None:
    """peft keeps them in a set, whose order is another in each process."""
    fine_tune(examples("coding", 4), tmp_path)
    names = json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"]
    assert len(names) > 4
    assert names == sorted(names)


def test_accumulation_takes_the_same_steps_as_one_large_batch(tmp_path: Path) -> None:
    import torch

    rows = examples("coding", 8)
    fine_tune(rows, tmp_path / "whole", batch_size=8, min_steps=1)
    fine_tune(rows, tmp_path / "parts", batch_size=2, accumulation=4, min_steps=1)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    # AdamW's first step is the gradient's sign: where a gradient is near zero its sign is rounding.
    close = [torch.isclose(whole[name], parts[name], atol=1e-4).float().mean() for name in whole]
    assert min(close) > 0.98


def test_rows_beyond_the_context_are_left_out_whole_and_counted(tmp_path: Path) -> None:
    rows = examples("closed_qa", 6)
    long = Example("long", ({"role": "user", "content": "ba " * 600},), "x")
    trained = fine_tune([*rows, long], tmp_path / "a")
    assert (trained.train_rows, trained.skipped_rows) == (6, 1)
    with pytest.raises(InputError, match="exceed 512 tokens"):
        fine_tune([long], tmp_path / "b")


def long_row(name: str, words: int) -> Example:
    return Example(name, ({"role": "user", "content": "ba " * words},), "x")


@pytest.mark.parametrize("cached", [False, True])
def test_rows_left_out_are_counted_by_reason_and_listed_in_order(tmp_path: Path, cached: bool) -> None:
    rows = examples("closed_qa", 6)
    forged = Example("forged", rows[0].messages, "A turn ends with <|im_end|> and a newline.")
    given = [long_row("long", 600), *rows[:3], forged, *rows[3:], long_row("longer", 900)]
    chat = load_chat(MODEL)
    cache = tmp_path / "cache" if cached else None
    for folder in (tmp_path / "a", tmp_path / "b"):  # the second one finds the rows in the cache
        trained = fine_tune(given, folder, cache=cache, min_steps=1)
        assert (trained.skipped_rows, trained.too_long_rows, trained.end_mark_rows) == (3, 2, 1)
        found = read_rows(folder / SKIPPED, Skipped)
        assert [(row.prompt_id, row.reason) for row in found] == [
            ("long", "too_long"), ("forged", "end_mark"), ("longer", "too_long"),
        ]  # fmt: skip
        for row, example in zip(found, (given[0], forged, given[-1]), strict=True):
            response = chat.tokenizer(example.response, add_special_tokens=False)["input_ids"]
            assert row.tokens == pytest.approx(len(chat.prompt_ids(example.messages)) + len(response), abs=1)
    fine_tune(rows, tmp_path / "c", min_steps=1)
    assert not (tmp_path / "c" / SKIPPED).exists()


def test_synthetic_rows_that_the_template_does_not_show_whole_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples("closed_qa", 6)
    asked = {"role": "user", "content": "Why?"}
    changed = Example("changed", (asked,), "<think>Hm.</think>So.", generator="teacher")
    refused = Example("refused", ({"role": "system", "content": "Be brief."}, asked), "So.", generator="teacher")
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    model = replace(
        MODEL, chat_template=strict.replace("message['content']", "message['content'].split('</think>')[-1]")
    )
    monkeypatch.setattr(sys.modules[__name__], "MODEL", model)
    made = [replace(row, generator="teacher") for row in rows[:2]]
    trained = fine_tune([changed, *rows[2:], *made, refused], tmp_path / "a", min_steps=1)
    assert (trained.train_rows, trained.synthetic_rows, trained.skipped_rows, trained.template_rows) == (6, 2, 2, 2)
    found = read_rows(tmp_path / "a" / SKIPPED, Skipped)
    assert found == [Skipped("changed", 0, "template"), Skipped("refused", 0, "template")]
    with pytest.raises(InputError, match="can't be shown by the"):
        fine_tune([changed, refused], tmp_path / "b", min_steps=1)


def test_too_long_rows_may_be_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaduo.training import fit as module

    rows = examples("closed_qa", 2)
    tokens = len(load_chat(MODEL).prompt_ids(long_row("", 600).messages)) + 2  # x and the end mark
    refuse = {"too_long": TooLong.refuse, "min_steps": 1}
    forged = Example("forged", rows[0].messages, "A turn ends with <|im_end|> and a newline.")
    assert fine_tune([*rows, forged], tmp_path / "a", **refuse).end_mark_rows == 1
    monkeypatch.setattr(module, "load_base", lambda *_: pytest.fail("it was loaded"))
    words = rf"train\.too_long=refuse: 1 of 3 training rows exceed 512 tokens: long \({tokens} tokens\)\. Raise train\."
    with pytest.raises(InputError, match=words):
        fine_tune([*rows, long_row("long", 600)], tmp_path / "b", **refuse)
    many = [long_row(f"row{number}", 600) for number in range(7)]
    with pytest.raises(InputError, match=r"row4 \(\d+ tokens\) and 2 more\. Raise") as told:
        fine_tune(many, tmp_path / "c", **refuse)
    assert "row5" not in str(told.value)


def test_what_training_held_is_free_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM's server starts next, and takes what the GPU has left."""
    from llamaduo.training import fit as module

    held: list[Any] = []
    still_there: list[bool] = []

    def loaded(*args: Any) -> Any:
        base = load_base(*args)
        held.append(weakref.ref(base))
        return base

    def give_back_and_look() -> None:
        give_back()
        still_there.append(held[0]() is not None)

    monkeypatch.setattr(module, "load_base", loaded)
    monkeypatch.setattr(module, "give_back", give_back_and_look)
    fine_tune(examples("closed_qa", 4), tmp_path / "a", min_steps=1)
    assert still_there == [False]


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
        TrainJob(tmp_path / "second", MODEL, config, RUNTIME, start_from=tmp_path / "first"),
        rows,
        progress=lambda done, total: None,
    )
    assert second.loss < 1.2 * first.loss


def test_a_job_names_what_is_made_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Watched(ResponseLoss):
        def __call__(self, network: Any, rows: Any) -> Any:
            asked.append(len(rows))
            return super().__call__(network, rows)

    monkeypatch.setitem(LOSSES, "watched", Watched)
    config = Train(learning_rate=1e-3, max_length=512, epochs=1, min_steps=1)
    job = TrainJob(tmp_path, MODEL, config, RUNTIME, loss="watched")
    trained = train(job, examples("closed_qa", 4), progress=lambda done, total: None)
    assert sum(asked) == trained.train_rows == 4


@pytest.mark.parametrize("quantization", ["nf4"])
def test_four_bit_trains_on_a_cpu(quantization: str, tmp_path: Path) -> None:
    from llamaduo.config import Quantization

    pytest.importorskip("bitsandbytes")
    fine_tune(examples("coding", 8), tmp_path / "a", quantization=Quantization(quantization), min_steps=2)
    assert all(tensor.abs().max() > 0 for tensor in weights(tmp_path / "a").values())


def test_where_memory_runs_out_passes_are_halved_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from llamaduo.training.loss import ResponseLoss

    fits = ResponseLoss.__call__

    def too_large(self: ResponseLoss, network: Any, rows: Any) -> Any:
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return fits(self, network, rows)

    rows, notes = examples("coding", 16), []
    whole = fine_tune(rows, tmp_path / "whole", batch_size=16, min_steps=3)
    monkeypatch.setattr(ResponseLoss, "__call__", too_large)
    parts = fine_tune(rows, tmp_path / "parts", batch_size=16, min_steps=3, note=notes.append)
    assert parts.loss == pytest.approx(whole.loss, abs=2e-3)
    assert (parts.steps, parts.tokens) == (whole.steps, whole.tokens)
    assert [text.split(",")[0] for text in notes][-1].startswith("out of memory: from here on a forward pass takes at")
    monkeypatch.setattr(ResponseLoss, "__call__", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(ConfigError, match=r"out of memory with a single row of \d+ tokens: lower train\.max_length"):
        fine_tune(rows, tmp_path / "none", batch_size=16)


def test_a_checkpoint_is_of_its_rows_of_dev_and_of_its_number_of_devices() -> None:
    chat = load_chat(MODEL)
    rows, dev, other = (
        tokenised(examples(task, 4), chat, 512, None) for task in ("closed_qa", "coding", "summarization")
    )
    config = Train(learning_rate=1e-3, max_length=512, keep=Keep.best)

    def identity(read: list[Rows], count: int = 1, **options: Any) -> str:
        settings = replace(config, **options)
        return _identity(TrainJob(Path("out"), MODEL, settings, RUNTIME), read, count)

    same = identity([rows, dev])
    assert identity([rows, dev], checkpoint_s=1.0) == same
    others = [identity([rows, other]), identity([rows]), identity([rows, dev], 2), identity([rows, dev], lora_r=3)]
    assert len({same, *others}) == 5


def test_one_process_of_a_machine_tokenises_before_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Several(Devices):
        @contextmanager
        def first(self) -> Iterator[None]:
            told.append("the others wait")
            yield
            told.append("they go on")

    def tokenised_now(*args: Any) -> Rows:
        told.append("tokenised")
        return tokenised(*args)

    monkeypatch.setattr("llamaduo.training.fit.tokenised", tokenised_now)
    fine_tune(examples("closed_qa", 2), tmp_path, devices=Several())
    assert told == ["the others wait", "tokenised", "they go on"]


@pytest.mark.parametrize("packing", [False, True])
def test_packed_rows_and_rows_side_by_side_take_the_same_steps(tmp_path: Path, packing: bool) -> None:
    rows = examples("closed_qa", 8)
    one = fine_tune(rows, tmp_path / "one", batch_size=1, accumulation=8, min_steps=1)
    other = fine_tune(rows, tmp_path / "other", batch_size=8, packing=packing, min_steps=1)
    assert other.loss == pytest.approx(one.loss, abs=1e-5)
    assert (other.padding == 0) == packing


def test_the_epoch_that_is_best_on_dev_is_kept_and_patience_ends_training(tmp_path: Path) -> None:
    rows, dev = examples("closed_qa", 24), examples("closed_qa", 40)[24:]
    last = fine_tune(rows, tmp_path / "last", epochs=12, batch_size=8)
    best = fine_tune(rows, tmp_path / "best", epochs=12, batch_size=8, keep=Keep.best, dev=dev)
    patient = fine_tune(rows, tmp_path / "patient", epochs=12, batch_size=8, keep=Keep.best, patience=1, dev=dev)
    assert last.dev_loss is None
    assert last.epochs == 12
    assert best.epochs < 12  # 24 rows are learned by heart: what is best on others comes before
    assert patient.steps == 3 * (patient.epochs + 1) < best.steps == 36
    assert best.dev_loss is not None
    assert patient.dev_loss is not None
    assert best.dev_loss <= patient.dev_loss
    kept, overfit = weights(tmp_path / "best"), weights(tmp_path / "last")
    assert any((kept[name] - overfit[name]).abs().max() > 0 for name in kept)
    with pytest.raises(InputError, match="no dev row can be used"):
        fine_tune(rows, tmp_path / "none", keep=Keep.best)
