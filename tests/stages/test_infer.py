"""Infer: K answers a prompt, independent of batching, stopped at the end mark, nothing cut silently."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from llamaduo.config import Infer, LocalModel, Quantization, Runtime
from llamaduo.local_model import load_base, load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example, Prediction, prompt_id
from llamaduo.stages.infer import _SeededSampling, infer

MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)


def examples(count: int) -> list[Example]:
    made = []
    for prompt, response in make_pairs("closed_qa", count, seed=5):
        messages = ({"role": "user", "content": prompt},)
        made.append(Example(prompt_id(messages), messages, response))
    return made


def answers(rows: list[Example], **options: Any) -> list[Prediction]:
    quantization = options.pop("quantization", Quantization.none)
    config = Infer(**{"samples": 2, "max_new_tokens": 12, "batch_size": 4} | options)
    runtime = Runtime(threads=1, device="cpu")
    return infer(
        rows,
        None,
        model=MODEL,
        config=config,
        runtime=runtime,
        quantization=quantization,
        progress=lambda done, total: None,
    )


def test_every_prompt_gets_k_answers_in_order() -> None:
    rows = examples(3)
    found = answers(rows)
    assert [(p.prompt_id, p.sample) for p in found] == [(row.prompt_id, k) for row in rows for k in range(2)]
    assert all(p.reference == row.response for row in rows for p in found if p.prompt_id == row.prompt_id)


def test_answers_do_not_depend_on_batch_size_or_order() -> None:
    rows = examples(5)
    one = {(p.prompt_id, p.sample): p.text for p in answers(rows, batch_size=1)}
    many = {(p.prompt_id, p.sample): p.text for p in answers(rows[::-1], batch_size=8)}
    assert one == many


def test_samples_differ_and_greedy_ones_do_not() -> None:
    rows = examples(4)
    warm = answers(rows, temperature=2.0)
    assert any(a.text != b.text for a, b in zip(warm[::2], warm[1::2], strict=True))
    cold = answers(rows, temperature=0.0)
    assert all(a.text == b.text for a, b in zip(cold[::2], cold[1::2], strict=True))


def test_an_answer_ends_at_its_end_mark_or_is_marked_as_cut() -> None:
    for prediction in answers(examples(6), max_new_tokens=3):
        assert prediction.completion_tokens <= 3
        assert "<|im_end|>" not in prediction.text
        if prediction.finish_reason == "length":
            assert prediction.completion_tokens == 3
        else:
            assert prediction.finish_reason == "stop"


def test_a_prompt_without_room_is_reported_and_not_cut() -> None:
    long = Example("long", ({"role": "user", "content": "bako " * 400},), "x")
    rows = [long, *examples(1)]
    found = answers(rows)
    assert [p.finish_reason == "prompt_too_long" for p in found] == [True, True, False, False]
    assert (found[0].text, found[0].completion_tokens) == ("", 0)
    assert found[0].prompt == "bako " * 400
    assert found[0].prompt_tokens > 512


def test_four_bit_weights_answer_as_they_were_trained() -> None:
    """bitsandbytes would take other weights for answers than for training, or fail for rows of 160."""
    pytest.importorskip("bitsandbytes")
    rows, nf4 = examples(2), Quantization.nf4
    network = load_base(MODEL, Runtime(threads=1, device="cpu"), nf4)
    prompt = load_chat(MODEL).prompt_ids(rows[0].messages)
    import torch

    with torch.no_grad():
        answering = network(input_ids=torch.tensor([prompt])).logits
        training = network.train()(input_ids=torch.tensor([prompt])).logits
    assert torch.equal(answering, training)
    assert all(p.finish_reason in ("stop", "length") for p in answers(rows, quantization=nf4))


def test_seeded_sampling_draws_from_the_softmax() -> None:
    import torch

    logits = torch.tensor([[2.0, 1.0, 0.0]])
    wanted = torch.softmax(logits / 0.8, -1)[0].tolist()
    sampling = _SeededSampling([7], 0.8, torch.device("cpu"))
    drawn = Counter(int(sampling(torch.tensor([[0]]), logits).argmax()) for _ in range(20_000))
    assert [drawn[token] / 20_000 for token in range(3)] == pytest.approx(wanted, abs=0.012)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    assert len(answers(examples(2))) == 4
