"""Prompts without answers: of any shape, each once, none of a split, and no odd row ends the reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_records import example

from llamaduo.config import Data
from llamaduo.data.unlabelled import read_unlabelled
from llamaduo.errors import InputError

USER = [{"role": "user", "content": "real prompt"}]
SAID = {"role": "assistant", "content": "an answer"}
SHAPES: dict[str, dict[str, Any]] = {
    "a prompt": {"prompt": "real prompt"},
    "a prompt whose answer is null": {"prompt": "real prompt", "response": None},
    "a pair": {"prompt": "real prompt", "response": "an answer"},
    "turns that end with the user's": {"messages": USER},
    "turns that end with an answer": {"messages": [*USER, SAID]},
    "an answer that was cut off": {"messages": [*USER, SAID], "finish_reason": "length"},
    "a log's request": {"request": {"model": "m", "messages": USER}},
    "a log": {"request": {"messages": USER}, "response": {"choices": [{"message": SAID, "finish_reason": "stop"}]}},
    "Alpaca": {"instruction": "real prompt", "input": "", "output": "an answer"},
    "ShareGPT": {"conversations": [{"from": "human", "value": "real prompt"}, {"from": "gpt", "value": "an answer"}]},
}


def written(*rows: Any) -> Path:
    path = Path("traffic.jsonl")
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("row", SHAPES.values(), ids=SHAPES)
def test_the_prompt_is_taken_and_no_answer(row: dict[str, Any]) -> None:
    ((found,), told) = read_unlabelled(written(row), Data(), ())
    assert (found.prompt_id, found.prompt, found.response) == (example("real prompt").prompt_id, "real prompt", "")
    assert told == "1 prompts without answers of traffic.jsonl"


def test_odd_rows_and_known_prompts_are_counted_and_the_others_taken() -> None:
    rows = ["{broken", {"prompt": 7}, {"prompt": "known"}, {"prompt": "new"}, {"prompt": " new"}, [1], {"other": 1}]
    found, told = read_unlabelled(written(*rows), Data(), {example("known").prompt_id})
    assert [row.prompt for row in found] == ["new"]
    assert "1 left out: a prompt of the coverage data" in told
    assert "1 left out: a prompt that was there before" in told
    assert sum(int(part.split(" ")[0]) for part in told.split("; ")[1:]) == 6


def test_a_file_without_any_prompt_is_refused_with_the_last_reason() -> None:
    with pytest.raises(InputError, match=r"data.unlabelled=traffic.jsonl: no row can be used \(.*\)\. The last: traff"):
        read_unlabelled(written({"other": 1}), Data(), ())


def test_a_key_in_a_prompt_is_refused() -> None:
    with pytest.raises(InputError, match="key"):
        read_unlabelled(written({"prompt": "use sk-" + "a1B2c3D4e5F6g7H8i9J0k1L2"}), Data(), ())
