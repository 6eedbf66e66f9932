"""The loss: of response tokens alone, and the same for a row alone, beside others and behind others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llamaduo.config import LocalModel, Quantization, Runtime
from llamaduo.errors import ConfigError
from llamaduo.local.model import load_base, load_chat
from llamaduo.pocket.tasks import make_pairs
from llamaduo.training import loss as module
from llamaduo.training.loss import ResponseLoss, Row

RUNTIME = Runtime(threads=1, device="cpu")
POCKET = ["pocket:llama", "pocket:gemma", "pocket:mistral"]


def model(path: str) -> LocalModel:
    return LocalModel(name="m", path=path, context=512)


def network(path: str, attention: str | None = None) -> Any:
    runtime = Runtime(threads=1, device="cpu", attention=attention)
    return load_base(model(path), runtime, Quantization.none)


def some_rows(path: str) -> list[Row]:
    chat, rows = load_chat(model(path)), []
    for task in ("classification", "closed_qa", "summarization", "coding"):
        for question, answer in make_pairs(task, 2, seed=7):
            messages = [{"role": "user", "content": question}]
            prompt, response = chat.prompt_ids(messages), chat.response_ids(messages, answer)
            assert response is not None
            rows.append((np.array(prompt + response), len(prompt)))
    return rows


def by_hand(net: Any, row: Row) -> list[float]:
    """Return the loss of each response token, from the logits of the row alone; before ResponseLoss takes the net."""
    import torch

    ids, prompt = torch.tensor(row[0].tolist())[None], row[1]
    with torch.no_grad():
        logits = net(input_ids=ids).logits[0]
    logs = torch.log_softmax(logits.double(), -1)
    return [-float(logs[at - 1, ids[0, at]]) for at in range(prompt, ids.shape[1])]


def losses(net: Any, rows: list[Row], *, packing: bool) -> list[float]:
    import torch

    with torch.no_grad():
        found: list[float] = ResponseLoss(net, pad=0, packing=packing)(net, rows).tolist()
    return found


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("path", POCKET)
def test_each_token_costs_the_same_alone_and_in_company(path: str, packing: bool) -> None:
    rows, net = some_rows(path), network(path)
    alone = [value for row in rows for value in by_hand(net, row)]
    together = losses(net, rows, packing=packing)
    assert len(together) == sum(len(ids) - prompt for ids, prompt in rows)
    assert together == pytest.approx(alone, abs=1e-5, rel=6e-6)  # float32 rounds logits of 30 that much
    assert np.mean(together) == pytest.approx(np.mean(alone), abs=1e-5)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("path", POCKET)
def test_without_rounding_nothing_is_left_of_the_difference(path: str, packing: bool) -> None:
    rows, net = some_rows(path), network(path).double()
    alone = [value for row in rows for value in by_hand(net, row)]
    assert losses(net, rows, packing=packing) == pytest.approx(alone, abs=1e-6, rel=3e-7)  # it is told in float32


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_attention_keeps_packed_rows_apart(attention: str) -> None:
    net = network("pocket:llama", attention)
    ResponseLoss(net, pad=0, packing=True).refuse_leaks(net)


def test_the_output_layer_computes_response_positions_only() -> None:
    net, rows, seen = network("pocket:llama"), some_rows("pocket:llama"), []
    loss = ResponseLoss(net, pad=0, packing=False)
    net.get_output_embeddings().register_forward_hook(lambda _, __, out: seen.append(tuple(out.shape[:2])))
    loss(net, rows)
    assert seen == [(1, sum(len(ids) - prompt for ids, prompt in rows))]


def test_packing_is_refused_where_rows_see_each_other() -> None:
    net = network("pocket:llama")
    forward = net.forward
    net.forward = lambda position_ids, **inputs: forward(**inputs)  # as where nothing tells rows apart
    with pytest.raises(ConfigError, match=r"train\.packing: .* see each other"):
        ResponseLoss(net, pad=0, packing=True).refuse_leaks(net)


def while_it_trains(net: Any, positions: Any) -> Any:
    import torch

    return torch.arange(positions.shape[1])[None] if net.training else positions


def beyond_a_block(net: Any, positions: Any) -> Any:
    """Forget where rows begin that begin behind 128 tokens, as where a kernel's mask is of its first block alone."""
    found = positions.clone()
    for at in range(129, positions.shape[1]):
        found[0, at] = found[0, at - 1] + 1
    return found


def from_the_third_row_on(net: Any, positions: Any) -> Any:
    begins = (positions[0] == 0).nonzero().flatten().tolist()
    found = positions.clone()
    if len(begins) > 2:
        found[0, begins[2] :] += positions[0, begins[2] - 1] + 1
    return found


@pytest.mark.parametrize("leak", [while_it_trains, beyond_a_block, from_the_third_row_on])
def test_packing_is_refused_where_rows_see_each_other_now_and_then(leak: Any) -> None:
    net = network("pocket:llama")
    forward = net.forward
    net.forward = lambda position_ids, **inputs: forward(position_ids=leak(net, position_ids), **inputs)
    with pytest.raises(ConfigError, match="see each other"):
        ResponseLoss(net, pad=0, packing=True).refuse_leaks(net)
    assert not net.training  # as it was


def test_dropout_is_no_leak() -> None:
    net = network("pocket:llama", "eager")
    for layer in net.model.layers:
        layer.self_attn.attention_dropout = 0.5
    ResponseLoss(net, pad=0, packing=True).refuse_leaks(net)


def test_a_loss_that_is_no_number_is_no_proof() -> None:
    net = network("pocket:llama")
    net.get_output_embeddings().weight.data[:] = float("nan")
    with pytest.raises(ConfigError, match="see each other"):
        ResponseLoss(net, pad=0, packing=True).refuse_leaks(net)


# copies of the code that are broken on purpose


@pytest.fixture(params=["prompt counted", "end mark dropped", "shifted"])
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    right = module._responses

    def wrong(rows: list[Row], width: int, *, packing: bool) -> Any:
        kept, wanted = right(rows, width, packing=packing)
        if request.param == "end mark dropped":
            return kept[:-1], wanted[:-1]
        if request.param == "shifted":
            return kept + 1, wanted
        return right([(ids, 1) for ids, _ in rows], width, packing=packing)

    monkeypatch.setattr(module, "_responses", wrong)
    return str(request.param)


def test_a_broken_mask_is_caught(broken: str) -> None:
    with pytest.raises(AssertionError):
        test_each_token_costs_the_same_alone_and_in_company("pocket:llama", packing=False)
