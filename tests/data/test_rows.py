"""Rows of tokens are what rendering example by example gives, in order, without those that can't be trained on."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from row_examples import EXAMPLES, LENGTH, example, load
from tokenizers import AddedToken

from llamaduo.data import rows
from llamaduo.data.chat import CHATML, Chat
from llamaduo.data.rows import Rows, tokenised
from llamaduo.errors import InputError
from llamaduo.records import Example


@pytest.fixture
def chat() -> Chat:
    return load()


def one_by_one(examples: list[Example], chat: Chat, limit: int) -> dict[int, tuple[list[int], int]]:
    """Return the tokens and the prompt's length of each example that can be trained on, by its number."""
    found = {}
    for number, row in enumerate(examples):
        prompt, response = chat.prompt_ids(row.messages), chat.response_ids(row.messages, row.response)
        if response is not None and len(prompt) + len(response) <= limit:
            found[number] = (prompt + response, len(prompt))
    return found


def as_lists(found: Rows) -> dict[int, tuple[list[int], int]]:
    return {at: (ids.tolist(), prompt) for at, (ids, prompt) in zip(found.kept.tolist(), found, strict=True)}


@pytest.mark.parametrize("limit", [LENGTH, 60, 1])
def test_rows_are_those_that_are_rendered_one_by_one(chat: Chat, tmp_path: Path, limit: int) -> None:
    expected = one_by_one(EXAMPLES, chat, limit)
    assert len(expected) == {LENGTH: 298, 60: len(expected), 1: 0}[limit]
    for found in (tokenised(EXAMPLES, chat, limit, cache) for cache in (None, tmp_path, tmp_path)):
        assert as_lists(found) == expected
        assert found.lengths.tolist() == [len(ids) for ids, _ in expected.values()]
        kinds = [getattr(found, name).dtype for name in ("ids", "starts", "prompts", "kept")]
        assert kinds == [np.uint16, np.int64, np.int32, np.int64]


def test_a_row_is_taken_by_its_number_as_from_a_list(chat: Chat) -> None:
    found = tokenised(EXAMPLES, chat, LENGTH, None)
    assert found[-1][0].tolist() == found[len(found) - 1][0].tolist() != []
    with pytest.raises(IndexError):
        found[len(found)]


def test_a_large_vocabulary_gets_wider_numbers(chat: Chat, tmp_path: Path) -> None:
    size = len(chat.tokenizer)
    chat.tokenizer._tokenizer.add_tokens([AddedToken(f"<{number}>") for number in range(2**16 - size)])
    assert tokenised([example("a", "b")], chat, LENGTH, None).ids.dtype == np.uint16
    chat.tokenizer._tokenizer.add_tokens(["<last>"])
    for cache in (None, tmp_path):
        found = tokenised([example("a", "b <last>")], chat, LENGTH, cache)
        assert found.ids.dtype == np.uint32
        assert 2**16 in found.ids


def test_no_examples_are_no_rows(chat: Chat, tmp_path: Path) -> None:
    for cache in (None, tmp_path, tmp_path):
        found = tokenised([], chat, LENGTH, cache)
        assert (len(found), list(found), found.starts.tolist()) == (0, [], [0])


def test_progress_goes_up_to_all_of_them(chat: Chat) -> None:
    told: list[tuple[int, int]] = []
    tokenised(EXAMPLES, chat, LENGTH, None, lambda done, total: told.append((done, total)))
    assert told == sorted(set(told))
    assert told[-1] == (300, 300)
    assert {total for _, total in told} == {300}


def test_whoever_breaks_off_does_not_wait_for_the_rest(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, begun, over = chat.pairs, [], threading.Event()

    def held(chunk: Any) -> Any:
        begun.append(len(chunk))
        assert len(begun) == 1 or over.wait(60)
        return pairs(chunk)

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            over.set()
            super().shutdown(wait)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chat, "pairs", held)
    monkeypatch.setattr(rows, "ThreadPoolExecutor", Pool)
    with pytest.raises(KeyboardInterrupt):
        tokenised(EXAMPLES * 40, chat, LENGTH, None, stop)
    assert len(begun) <= 1 + rows._THREADS  # of 94


def test_a_row_that_the_template_refuses_is_an_input_error(chat: Chat, tmp_path: Path) -> None:
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + CHATML
    chat.tokenizer.chat_template = strict
    refused = replace(EXAMPLES[0], messages=({"role": "system", "content": "Be brief."}, *EXAMPLES[0].messages))
    with pytest.raises(InputError, match="no system turn"):
        tokenised([*EXAMPLES, refused], chat, LENGTH, tmp_path)
    assert not list(tmp_path.iterdir())
