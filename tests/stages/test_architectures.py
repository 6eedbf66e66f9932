"""Five architectures, each with its own kind of tokenizer and template: what training counts, what answers say.

The loss is over the response and its end mark and nothing else, so the end mark is learned and stops an answer;
an adapter that was saved is the adapter that was trained, also in another process. Mutants must not pass.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny import FAMILIES, ROWS, RUNTIME, answers, fine_tune, tiny

from llamaduo.config import Quantization
from llamaduo.data.chat import Chat
from llamaduo.local.model import load_base, load_chat

NAMES = list(FAMILIES)

Pair = tuple[list[int], list[int]]
"""Tokens of a prompt, and of its response."""


def rows_of(chat: Chat) -> list[Pair]:
    """Return the prompt and response tokens of each row."""
    pairs = [(chat.prompt_ids(row.messages), chat.response_ids(row.messages, row.response)) for row in ROWS]
    return [(prompt, response) for prompt, response in pairs if response is not None]


def loss_by_hand(name: str) -> float:
    """Return the base model's mean loss over response tokens, row by row and one token at a time."""
    import torch

    chat = load_chat(tiny(name))
    base = load_base(tiny(name), RUNTIME, Quantization.none)
    losses = []
    for prompt, response in rows_of(chat):
        with torch.no_grad():
            chances = base(input_ids=torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        losses += [-chances[len(prompt) + at - 1, token].item() for at, token in enumerate(response)]
    return sum(losses) / len(losses)


def check_loss(name: str, folder: Path, wanted: float) -> None:
    """The first step's loss is the base model's, since a new adapter changes nothing."""
    trained = fine_tune(tiny(name), folder, min_steps=1)
    assert trained.steps == 1
    assert trained.loss == pytest.approx(wanted, abs=1e-5)


def check_stops(name: str, adapter: Path) -> None:
    found = answers(tiny(name), adapter)
    assert [(answer.text, answer.finish_reason) for answer in found] == [(row.response, "stop") for row in ROWS]


@pytest.fixture(scope="module")
def logits_when_saved() -> Iterator[dict[str, Any]]:
    """Return what an adapter's folder was worth when it was written: the network's logits, by the folder."""
    import torch
    from peft import PeftModel

    seen: dict[str, Any] = {}
    save, probe = PeftModel.save_pretrained, torch.arange(40).reshape(2, 20) * 8

    def noting(self: Any, folder: Any, *rest: Any, **options: Any) -> Any:
        with torch.no_grad():  # not through the head itself, of which training wants response positions only
            hidden = self.get_base_model().model(input_ids=probe).last_hidden_state
            seen[str(folder)] = torch.nn.functional.linear(hidden, self.get_output_embeddings().weight)
        return save(self, folder, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PeftModel, "save_pretrained", noting)
        yield seen


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, logits_when_saved: dict[str, Any]) -> dict[str, Path]:
    """Return an adapter for each model, trained until it knows the rows by heart."""
    folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    for name, folder in folders.items():
        fine_tune(tiny(name), folder)
    return folders


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_over_the_response_and_its_end_mark(name: str, tmp_path: Path) -> None:
    check_loss(name, tmp_path, loss_by_hand(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_response_ends_in_one_end_mark(name: str) -> None:
    chat = load_chat(tiny(name))
    for _, response in rows_of(chat):
        assert [token in chat.end_ids for token in response] == [False] * (len(response) - 1) + [True]


@pytest.mark.parametrize("name", NAMES)
def test_the_end_mark_is_learned_and_stops_the_answer(name: str, learned: dict[str, Path]) -> None:
    check_stops(name, learned[name])


def test_the_base_models_know_none_of_it() -> None:
    for name in NAMES:
        assert not any(a.text == row.response for a, row in zip(answers(tiny(name), None), ROWS, strict=True))


FRESH = """
import json, sys
import torch
from safetensors.torch import save_file
from llamaduo.local.adapter import load_adapter
from llamaduo.config import LocalModel, Quantization, Runtime
from llamaduo.local.model import load_base, load_chat

logits = {}
for folder, fields in json.load(sys.stdin).items():
    model = LocalModel(**fields)
    base = load_base(model, Runtime(threads=1, device="cpu"), Quantization.none, load_chat(model).tokenizer)
    network = load_adapter(base, folder, model).eval()
    with torch.no_grad():
        logits[folder] = network(input_ids=torch.arange(40).reshape(2, 20) * 8).logits.contiguous()
save_file(logits, sys.argv[1])
"""


def test_a_saved_adapter_is_the_same_model_in_a_fresh_process(
    learned: dict[str, Path], logits_when_saved: dict[str, Any], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file

    models = {str(folder): vars(tiny(name)) for name, folder in learned.items()}
    command = [sys.executable, "-c", FRESH, str(tmp_path / "logits.safetensors")]
    subprocess.run(command, input=json.dumps(models), text=True, check=True, timeout=300, capture_output=True)
    fresh = load_file(tmp_path / "logits.safetensors")
    assert len(fresh) == len(NAMES)
    for folder, logits in fresh.items():
        assert torch.equal(logits, logits_when_saved[folder]), folder


def end_mark_dropped(prompt: list[int], response: list[int]) -> Pair:
    return prompt, response[:-1]


def prompt_counted(prompt: list[int], response: list[int]) -> Pair:
    return prompt[:1], prompt[1:] + response


def first_token_not_counted(prompt: list[int], response: list[int]) -> Pair:
    return prompt + response[:1], response[1:]


def let_training_see(mutant: Callable[[list[int], list[int]], Pair], patch: pytest.MonkeyPatch) -> None:
    whole = Chat.pairs
    patch.setattr(Chat, "pairs", lambda self, chats: [mutant(*pair) for pair in whole(self, chats)])


@pytest.mark.parametrize("mutant", [end_mark_dropped, prompt_counted, first_token_not_counted])
def test_a_wrong_mask_changes_the_loss(
    mutant: Callable[[list[int], list[int]], Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = loss_by_hand("gemma3")
    let_training_see(mutant, monkeypatch)
    with pytest.raises(AssertionError):
        check_loss("gemma3", tmp_path, wanted)


def test_without_the_end_mark_in_training_answers_do_not_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        let_training_see(end_mark_dropped, patch)
        fine_tune(tiny("llama"), tmp_path)
    with pytest.raises(AssertionError):
        check_stops("llama", tmp_path)
