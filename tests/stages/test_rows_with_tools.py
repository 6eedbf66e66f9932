"""Rows that call tools: trained and answered where the chat template takes them, left out and counted elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import quick_stages, quiet

from llamaduo.config import Backend, Experiment, Infer, LocalModel, Train
from llamaduo.data.coverage import load_coverage
from llamaduo.data.rows import tokenised
from llamaduo.data.shown import shown
from llamaduo.errors import InputError
from llamaduo.local.model import load_chat
from llamaduo.loop import run
from llamaduo.runs.finished import run_folder
from llamaduo.stages.check import NO_CALLS, NOT_ASKED, usable
from llamaduo.steps.growth import seeds
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
WITH_TOOLS = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}"
    "{% for call in turn.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OWN = (
    "data=file", "data.path=log.jsonl", "judge=reference", "synthesis=none", "loop.gate.precision=null",
    "loop.beside=[]", "loop.gate.similarity=null", "infer.samples=1", "infer.temperature=0",
)  # fmt: skip
CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"city":  "Lima"}'}}
OFFER = {"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}


def model(template: str | None) -> LocalModel:
    return LocalModel(name="m", path="pocket:llama", context=512, chat_template=template)


def turns(number: int) -> list[dict[str, Any]]:
    """Return a conversation: every third answers in text, calls a tool, or answers behind a tool's reply."""
    asked = {"role": "user", "content": f"What about invoice {number * 7919}, {number * 104729}?"}
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    told = {"role": "assistant", "content": f"It was {number}."}
    reply = {"role": "tool", "tool_call_id": "1", "content": f"{number} degrees"}
    return [[asked, told], [asked, called], [asked, called, reply, told]][number % 3]


@pytest.fixture
def experiment_of_tools(compose_experiment: Compose) -> Experiment:
    rows = [{"messages": turns(number), "tools": [OFFER]} for number in range(90)]
    Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return compose_experiment(*OWN)


def test_they_train_as_the_template_writes_them(experiment_of_tools: Experiment) -> None:
    chat = load_chat(model(WITH_TOOLS))
    assert chat.takes_tools
    dataset = load_coverage(experiment_of_tools)
    rows = (*dataset.train, *dataset.dev, *dataset.test)
    kept = usable(dataset, model=model(WITH_TOOLS), train=Train(learning_rate=1e-4), infer=Infer(max_new_tokens=64))
    assert (kept.train, kept.dev, kept.test) == (dataset.train, dataset.dev, dataset.test)
    assert not [told for told in shown(rows, chat, learns=True) if isinstance(told, str)]
    calling = next(row for row in rows if row.calls)
    made = tokenised([calling], chat, 512, None)
    ids, prompt = made[0]
    decode = chat.tokenizer.decode
    assert 'Tools: [{"type": "function"' in decode(ids[:prompt])
    assert '<tool_call>\n{"name": "look", "arguments": {"city": "Lima"}}\n</tool_call>' in decode(ids[prompt:])
    behind = next(row for row in rows if row.messages[-1]["role"] == "tool")
    text = decode(tokenised([behind], chat, 512, None)[0][0])
    assert "degrees<|im_end|>" in text
    assert '"city": "Lima"' in text


def test_a_judge_sees_calls_as_text(experiment_of_tools: Experiment) -> None:
    dataset = load_coverage(experiment_of_tools)
    called = '<tool_call>{"name": "look", "arguments": {"city":  "Lima"}}</tool_call>'
    rows = (*dataset.train, *dataset.dev, *dataset.test)
    assert sum(row.response == called for row in rows) == 30
    assert sum(called in row.prompt for row in rows) == 30


@pytest.mark.usefixtures("quick_stages")
def test_where_the_template_takes_none_they_are_left_out_and_counted(experiment_of_tools: Experiment) -> None:
    assert not load_chat(model(None)).takes_tools
    run(experiment_of_tools, display=quiet())
    folder = run_folder(experiment_of_tools)
    account = json.loads((folder / "data.json").read_text())
    assert account["read"] == 90
    assert sum(account["used"].values()) == 30
    assert sum(one["rows"] for one in account["left_out"] if one["reason"] == NO_CALLS) == 60
    listed = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    assert sorted(one["line"] for one in listed) == [number + 1 for number in range(90) if number % 3]
    assert not verify(folder).differences


def test_a_server_is_not_asked_for_them_and_they_are_no_seeds(experiment_of_tools: Experiment) -> None:
    dataset = load_coverage(experiment_of_tools)
    infer = Infer(max_new_tokens=64, backend=Backend.vllm)
    kept = usable(dataset, model=model(WITH_TOOLS), train=Train(learning_rate=1e-4), infer=infer)
    assert kept.train == dataset.train
    assert not any(row.with_tools for row in (*kept.dev, *kept.test))
    assert {one.reason for one in kept.unused} == {NOT_ASKED}
    assert not any(row.with_tools for row in seeds(kept))
    assert len(seeds(kept)) > 0
    calling = tuple(row for row in dataset.train if row.with_tools)
    with pytest.raises(InputError, match=r"every training row calls tools.*synthesis=none"):
        seeds(replace(dataset, train=calling))
