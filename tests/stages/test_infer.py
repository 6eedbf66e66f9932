"""Infer: K answers a prompt, independent of batching, stopped at the end mark, nothing cut silently."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from networks import NAMES, local_model
from tiny import FAMILIES, model_of, save, tokenizer_of

from llamaduo.config import Infer, LocalModel, Quantization, Runtime
from llamaduo.errors import ConfigError
from llamaduo.local.job import AnswerJob
from llamaduo.local.model import load_base, load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example, Prediction, prompt_id
from llamaduo.stages.infer import _Endings, infer

MODEL = LocalModel(name="pocket_llama", path="pocket:llama", context=512)


def examples(count: int) -> list[Example]:
    made = []
    for prompt, response in make_pairs("closed_qa", count, seed=5):
        messages = ({"role": "user", "content": prompt},)
        made.append(Example(prompt_id(messages), messages, response))
    return made


def answers(
    rows: list[Example],
    *,
    model: LocalModel = MODEL,
    quantization: Quantization = Quantization.none,
    attention: str | None = None,
    pool: Sequence[Example] = (),
    note: Any = lambda text: None,
    **options: Any,
) -> list[Prediction]:
    return infer(
        AnswerJob(
            model,
            Infer(**{"samples": 2, "max_new_tokens": 12, "batch_size": 4} | options),
            Runtime(threads=1, device="cpu", attention=attention),
            quantization,
        ),
        rows,
        note=note,
        pool=pool,
        progress=lambda done, total: None,
    )


def test_every_prompt_gets_k_answers_in_order() -> None:
    rows = examples(3)
    found = answers(rows)
    assert [(p.prompt_id, p.sample) for p in found] == [(row.prompt_id, k) for row in rows for k in range(2)]
    assert all(p.reference == row.response for row in rows for p in found if p.prompt_id == row.prompt_id)


def test_an_answer_keeps_the_cluster_of_its_prompt_also_behind_other_pairs() -> None:
    rows = [replace(examples(1)[0], cluster="c0ffee"), examples(2)[1]]
    for found in (answers(rows), answers(rows, shots=1, pool=examples(4)), answers(rows, max_new_tokens=500)):
        assert [p.cluster for p in found] == ["c0ffee", "c0ffee", None, None]


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


def test_an_answer_ends_where_its_base_model_ends_a_text_under_another_tokenizer_too() -> None:
    ends = ("<|end_of_text|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}  # as Llama 3 Instruct's tokenizer
    family = replace(FAMILIES["llama"], special=ends, named=named)
    network = model_of(family, tokenizer := tokenizer_of(family))
    network.model.norm.weight.data.zero_()  # all tokens are equally likely, so the first is taken: <|end_of_text|>
    network.generation_config.eos_token_id = 0
    model = save("llama_base_of_instruct", family, network, tokenizer)
    (found,) = answers(examples(1), model=model, samples=1, temperature=0.0, max_new_tokens=9)
    assert (found.text, found.finish_reason, found.completion_tokens) == ("", "stop", 1)


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


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_answers_do_not_depend_on_the_attention_that_was_asked_for(attention: str) -> None:
    """Slots are masked for eager and for torch's own attention; what can't be masked so gives way to the latter."""
    rows = examples(2)
    assert answers(rows, attention=attention) == answers(rows)


# ---------------------------------------------------------------- five architectures


@pytest.fixture(scope="module", params=NAMES)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    return local_model(request.param, tmp_path_factory.mktemp(request.param))


def test_texts_depend_on_neither_batch_size_nor_order(tiny: LocalModel) -> None:
    rows = examples(6)
    options: dict[str, Any] = {"model": tiny, "temperature": 1.0, "max_new_tokens": 24, "stop": ["e", "a"]}
    one = {(p.prompt_id, p.sample): p for p in answers(rows, batch_size=1, **options)}
    assert len({p.completion_tokens for p in one.values()}) > 3, "answers of several lengths"
    for size in (3, 8, 64):
        shuffled = random.Random(size).sample(rows, len(rows))
        assert {(p.prompt_id, p.sample): p for p in answers(shuffled, batch_size=size, **options)} == one


# ---------------------------------------------------------------- stop strings


def spanning(text: str) -> str:
    """Return two neighbouring characters of an answer, behind its first token, that no token has side by side."""
    tokenizer = load_chat(MODEL).tokenizer
    pieces = [tokenizer.decode([token]) for token in tokenizer(text)["input_ids"]]
    known = {tokenizer.decode([token]) for token in range(len(tokenizer))}
    pairs = (before[-1] + after[0] for before, after in pairwise(pieces[1:]))
    return next(pair for pair in pairs if pair.isascii() and not any(pair in piece for piece in known))


def test_an_answer_ends_before_a_stop_string_that_spans_tokens(tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": local_model("llama", tmp_path), "temperature": 1.0, "max_new_tokens": 24}
    rows = examples(3)
    whole = answers(rows, **options)
    stop = spanning(whole[0].text)
    cut = answers(rows, stop=["no such text", stop], **options)
    assert (cut[0].text, cut[0].finish_reason) == (whole[0].text.partition(stop)[0].strip(), "stop")
    assert 0 < cut[0].completion_tokens < whole[0].completion_tokens
    assert [p.text for p in cut] == [p.text.partition(stop)[0].strip() for p in whole]
    assert answers(rows, stop=["no such text"], **options) == whole


def test_a_stop_string_ends_an_answer_with_the_token_that_completes_it() -> None:
    chat = load_chat(MODEL)
    ids = chat.tokenizer("Bako sends the parcel, which is green, to Lima; Miro waits.")["input_ids"]
    for stop in (["cel,"], ["green", "is gr"], ["; M", "Lima"], ["parcel, which"], ["s."], ["zz"]):
        endings = _Endings(chat, stop)
        heard = [n for n in range(1, len(ids) + 1) if endings.stopped(ids[:n])]
        texts = [chat.tokenizer.decode(ids[:n]) for n in range(1, len(ids) + 1)]
        present = [n for n, text in enumerate(texts, 1) if any(string in text for string in stop)]
        assert heard[:1] == present[:1], stop


def test_a_tail_too_short_misses_a_stop_string(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = load_chat(MODEL)
    ids = chat.tokenizer("the parcel is green")["input_ids"]
    endings = _Endings(chat, ["parcel"])
    assert any(endings.stopped(ids[:n]) for n in range(1, len(ids) + 1))
    monkeypatch.setattr(endings, "_reach", 1)
    assert not any(endings.stopped(ids[:n]) for n in range(1, len(ids) + 1))


def test_the_first_of_the_stop_strings_counts_and_none_of_it_stays() -> None:
    endings = _Endings(load_chat(MODEL), ["green", "parcel"])
    ids = endings._tokenizer("the parcel is green")["input_ids"]
    assert endings.text(ids) == ("the", "stop")
    assert _Endings(load_chat(MODEL), []).text(ids) == ("the parcel is green", "length")


def test_a_special_token_may_be_a_stop_string() -> None:
    chat = load_chat(MODEL)
    begins = chat.tokenizer.convert_tokens_to_ids("<|im_start|>")
    endings = _Endings(chat, ["<|im_start|>"])
    assert endings.marks == {begins, *chat.end_ids}
    assert endings.text([*chat.tokenizer("yes")["input_ids"], begins]) == ("yes", "stop")


def test_the_tokenizer_is_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from llamaduo.stages import infer as module

    loaded = []
    monkeypatch.setattr(module, "load_chat", lambda model: loaded.append(model) or load_chat(model))
    assert len(answers(examples(2), shots=1, pool=examples(5)[3:])) == 4
    assert loaded == [MODEL]


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    assert len(answers(examples(2))) == 4


def test_few_shot_prompts_hold_as_many_pairs_as_there_is_room_for() -> None:
    rows, pool = examples(2), examples(40)[8:]
    bare = answers(rows, samples=1)
    tokens = {shots: answers(rows, samples=1, shots=shots, pool=pool) for shots in (1, 3, 30)}
    for at in range(2):
        lengths = [bare[at].prompt_tokens, *(tokens[shots][at].prompt_tokens for shots in (1, 3, 30))]
        assert lengths == sorted(set(lengths))
        assert lengths[-1] <= MODEL.context - 12
        assert {found[at].prompt_id for found in tokens.values()} == {bare[at].prompt_id}
        assert {found[at].prompt for found in tokens.values()} == {bare[at].prompt}
    assert "prompt_too_long" not in {p.finish_reason for p in tokens[30]}


def test_where_memory_runs_out_fewer_answers_are_drawn_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from llamaduo.local import decoding as module

    rows, notes, whole = examples(4), [], module.decode
    expected = answers(rows, batch_size=8)

    def too_large(*args: Any, slots: int, finished: Any, **rest: Any) -> None:
        if slots < 3:
            return whole(*args, slots=slots, finished=finished, **rest)
        drawn = []

        def first_only(at: int, ids: list[int]) -> None:
            if drawn:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            drawn.append(at)
            finished(at, ids)

        return whole(*args, slots=slots, finished=first_only, **rest)

    monkeypatch.setattr(module, "decode", too_large)
    assert answers(rows, batch_size=8, note=notes.append) == expected
    assert notes == [f"out of memory: from here on {slots} answers are drawn side by side." for slots in (4, 2)]
    monkeypatch.setattr(module, "decode", lambda *_, **__: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA")))
    with pytest.raises(ConfigError, match="out of memory with a single answer"):
        answers(rows)
