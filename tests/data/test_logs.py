"""API logs: an answer that its own log calls cut, filtered, failed or a call of tools is no pair, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Data, DataSource, Experiment, GateSplit
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import CoverageDataset
from llamaduo.data.formats import read_example
from llamaduo.data.logs import is_another
from llamaduo.data.unusable import SetAside
from llamaduo.errors import InputError

ASKED = [{"role": "user", "content": "Which city?"}]


def completion(reason: Any = "stop", content: Any = "Lima", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}]}


def openai(response: Any, **row: Any) -> dict[str, Any]:
    return {"request": {"model": "gpt-4o", "messages": ASKED}, "response": response, **row}


def choice(**said: Any) -> dict[str, Any]:
    return {"choices": [completion()["choices"][0] | said]}


def anthropic(reason: Any, *blocks: dict[str, Any]) -> dict[str, Any]:
    content = list(blocks) or [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "Lima"}]
    request = {"system": [{"type": "text", "text": "Be brief."}], "messages": ASKED}
    return {"request": request, "response": {"type": "message", "content": content, "stop_reason": reason}}


def gemini(reason: Any, *parts: dict[str, Any]) -> dict[str, Any]:
    content = {"role": "model", "parts": list(parts) or [{"text": "Hm.", "thought": True}, {"text": "Lima"}]}
    request = {
        "contents": [{"role": "user", "parts": [{"text": "Which city?"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
    }
    return {"request": request, "response": {"candidates": [{"content": content, "finishReason": reason}]}}


def responses(status: str, *items: dict[str, Any]) -> dict[str, Any]:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Lima"}]}
    output = [{"type": "reasoning", "summary": []}, *(items or [message])]
    request = {"instructions": "Be brief.", "input": "Which city?"}
    return {"request": request, "response": {"status": status, "output": output}}


WHOLE = {
    "openai": openai(completion()),
    "openai, no reason given": openai({"choices": [{"message": {"content": "Lima"}}]}),
    "openai, parts": openai(completion(content=[{"type": "text", "text": "Lima"}])),
    "a server with another word": openai(completion("eos_token")),
    "batch": openai({"status_code": 200, "body": completion()}, error=None),
    "proxy": openai(completion(), status="success", error=None),
    "as text": {name: json.dumps(value) for name, value in openai(completion()).items()},
    "anthropic": anthropic("end_turn"),
    "gemini": gemini("STOP"),
    "responses": responses("completed"),
    "words for null": openai(completion(), error="null", success=True, finish_reason=float("nan"), tool_calls=0),
    "a gateway that names its provider's word": openai(choice(native_finish_reason="end_turn")),
    "the first choice by its index": openai(
        {
            "choices": [
                completion("length", "Li")["choices"][0] | {"index": 1},
                completion()["choices"][0] | {"index": 0},
            ]
        }
    ),
    "a server's stop text": openai(choice(stop_reason="</s>")),
    "langfuse": {"input": {"messages": ASKED}, "output": {"role": "assistant", "content": "Lima"}, "level": "DEFAULT"},
    "helicone": {"request_body": {"messages": ASKED}, "response_body": completion(), "response_status": 200},
    "litellm": {"messages": ASKED, "response": completion(), "status": "success", "error_str": None},
    "stored completion": {"messages": ASKED, **completion()},
    "stored completion, input": {"input": ASKED, **completion()},
    "gemini, an enumeration": gemini("FinishReason.STOP"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_finished_answer_is_a_pair(name: str) -> None:
    example = read_example(WHOLE[name], "log.jsonl:1")
    assert (example.messages[-1]["content"], example.response) == ("Which city?", "Lima")
    turned = ["system", "user"] if name.startswith(("anthropic", "gemini", "responses")) else ["user"]
    assert [message["role"] for message in example.messages] == turned


ANSWER = {"role": "assistant", "content": "Lima"}
TOOL = {"type": "tool_use", "id": "1", "name": "look", "input": {}}
NOT_WHOLE = {
    "length": (openai(completion("length")), "cut off (finish_reason: length)"),
    "filter": (openai(completion("content_filter")), "held back by a filter (finish_reason: content_filter)"),
    "a filter's own field": (
        openai({"choices": [completion()["choices"][0] | {"content_filter_results": {"hate": {"filtered": True}}}]}),
        "held back by a filter",
    ),
    "refusal": (openai(completion(refusal="I can't.")), "held back by a filter (finish_reason: refusal)"),
    "tools": (openai(completion("tool_calls", None, tool_calls=[{"id": "1"}])), "a call of tools"),
    "tools and text": (openai(completion("stop", "Looking.", tool_calls=[{"id": "1"}])), "a call of tools"),
    "null": (openai(completion(None)), "not known to be finished (finish_reason: null)"),
    "unknown": (openai(completion("pause_turn")), "not known to be finished (finish_reason: pause_turn)"),
    "empty": (openai(completion(content=" ")), "the answer is empty"),
    "http status": (openai({"status_code": 500, "body": completion()}), "the log says status 500"),
    "status": (openai(completion(), status="failure"), "the log says status failure"),
    "status, a float": (openai(completion(), status_code=429.0), "the log says status 429"),
    "error": (openai(completion(), error={"code": 1}), "the log says that the call failed"),
    "error inside": (openai({"error": {"message": "no"}}), "the log says that the call failed"),
    "as text": (
        {name: json.dumps(value) for name, value in openai(completion("length")).items()},
        "cut off (finish_reason: length)",
    ),
    "anthropic, cut": (anthropic("max_tokens"), "cut off (stop_reason: max_tokens)"),
    "anthropic, context": (anthropic("model_context_window_exceeded"), "cut off"),
    "anthropic, refusal": (anthropic("refusal"), "held back by a filter"),
    "anthropic, paused": (anthropic("pause_turn"), "not known to be finished"),
    "anthropic, null": (anthropic(None), "not known to be finished"),
    "gemini, cut": (gemini("MAX_TOKENS"), "cut off (finish_reason: MAX_TOKENS)"),
    "gemini, filter": (gemini("SAFETY"), "held back by a filter"),
    "gemini, prompt": (
        gemini("STOP") | {"response": {"promptFeedback": {"blockReason": "SAFETY"}}}, "held back by a filter"
    ),
    "responses, cut": (responses("incomplete"), "the log says status incomplete"),
    "responses, refusal": (
        responses("completed", {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}),
        "held back by a filter",
    ),
    "a flat row": ({"prompt": "Which city?", "response": "Li", "finish_reason": "length"}, "cut off"),
    "text beside a call of tools": (
        {"messages": [*ASKED, {"role": "assistant", "content": "Looking.", "tool_calls": [{"id": "1"}]}]},
        "the answer is a call of tools",
    ),
    "a refusal in a turn": (
        {"messages": [*ASKED, {"role": "assistant", "content": "No.", "refusal": "No."}]}, "the answer is a refusal"
    ),
    "a turn of tools": (
        {"messages": [*ASKED, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, *ASKED, ANSWER]},
        "a turn calls tools",
    ),
    "a turn of tools and text": (
        {"messages": [*ASKED, {"role": "assistant", "content": "Hm.", "tool_calls": [{"id": "1"}]}, *ASKED, ANSWER]},
        "a turn calls tools",
    ),
    "a turn's own reason": ({"messages": [*ASKED, ANSWER | {"finish_reason": "length"}]}, "cut off"),
    "a turn's weight": ({"messages": [*ASKED, ANSWER | {"weight": 0}]}, "a weight of 0"),
    "thoughts alone": (openai(completion(content="<think>Lima or")), "thoughts alone"),
    "openrouter, its provider's word": (openai(choice(native_finish_reason="MAX_TOKENS")), "cut off (native_finish"),
    "openrouter, an error in a choice": (openai(choice(error={"code": 502})), "the call failed (error)"),
    "azure, the prompt": (
        openai(completion() | {"prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}),
        "held back by a filter",
    ),
    "azure, the older field": (openai(choice(content_filter_result={"hate": {"filtered": True}})), "by a filter"),
    "no response": (openai(None), "the log holds no response"),
    "no response in a table": (openai(""), "the log holds no response"),
    "no message": (openai({"choices": [{"finish_reason": "content_filter"}]}), "held back by a filter"),
    "status in words": (openai(completion(), status="500 Internal Server Error"), "the log says status 500"),
    "helicone": (openai(completion(), response_status=503), "the log says status 503 (response_status)"),
    "helicone, cancelled": (openai(completion(), responseStatus=-3), "the log says status -3"),
    "no success": (openai(completion(), success="False"), "the log says success false"),
    "litellm's error": (openai(completion(), error_information={"error_code": "500"}), "the call failed"),
    "langfuse": (
        {"input": {"messages": ASKED}, "output": {"role": "assistant", "content": "Li"}, "level": "ERROR"},
        "the log says status error (level)",
    ),
    "litellm": ({"messages": ASKED, "response": completion(), "status": "failure"}, "the log says status failure"),
    "stored completion": ({"messages": ASKED, **completion("length")}, "cut off"),
    "wrapped in text": (
        openai(json.dumps({"status_code": 500, "body": json.dumps(completion())})), "the log says status 500"
    ),
    "anthropic, a server's tools": (
        anthropic("end_turn", {"type": "server_tool_use", "name": "search"}, {"type": "text", "text": "Lima"}),
        "a call of tools (server_tool_use)",
    ),
    "gemini, in the SDK's names": (
        gemini("STOP") | {"response": {"candidates": [
            {"content": {"parts": [{"text": "Li"}]}, "finish_reason": "FinishReason.MAX_TOKENS"}
        ]}},
        "cut off (finish_reason",
    ),
    "gemini, the prompt, in the SDK's names": (
        gemini("STOP") | {"response": {"prompt_feedback": {"block_reason": "SAFETY"}}}, "held back by a filter"
    ),
    "gemini, a rating": (
        gemini("STOP") | {"response": {"candidates": [
            {"content": {"parts": [{"text": "Li"}]}, "safetyRatings": [{"category": "HARM", "blocked": True}]}
        ]}},
        "held back by a filter",
    ),
    "gemini, code": (gemini("STOP", {"executableCode": {"code": "1"}}), "more than text (executableCode)"),
    "responses, an item": (
        responses("completed", {"type": "message", "status": "incomplete", "content": [
            {"type": "output_text", "text": "Li"}
        ]}),
        "the log says status incomplete",
    ),
    "responses, details": (
        {"request": {"input": "Which city?"}, "response": {
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "Li"}]}],
            "incomplete_details": {"reason": "max_output_tokens"},
        }},
        "cut off (incomplete_details)",
    ),
    "a flat row, its status": ({"prompt": "Which city?", "response": "Li", "status": "failed"}, "status failed"),
    "a flat row, its error": ({"prompt": "Which city?", "response": "Li", "error": "overloaded"}, "the call failed"),
    "a flat row, truncated": ({"prompt": "Which city?", "response": "Li", "truncated": "true"}, "cut off (truncated)"),
    "a flat row of Ollama's": ({"prompt": "Which city?", "response": "Li", "done_reason": "length"}, "cut off"),
    "a flat row of LangChain's": (
        {"prompt": "Which city?", "response": "Li", "response_metadata": {"finish_reason": "length"}}, "cut off"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_WHOLE)
def test_an_answer_that_its_log_calls_unfinished_is_set_aside(name: str) -> None:
    row, why = NOT_WHOLE[name]
    with pytest.raises(SetAside) as told:
        read_example(row, "log.jsonl:7")
    assert why in told.value.reason
    assert str(told.value).startswith("log.jsonl:7: ")


CALL = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"city":  "Lima"}'}}
CALLED = {
    "openai": (openai(completion("tool_calls", None, tool_calls=[CALL])), '{"city":  "Lima"}'),
    "openai, before tools": (
        openai(completion("function_call", None, function_call={"name": "look", "arguments": "{}"})), "{}"
    ),
    "anthropic": (anthropic("tool_use", TOOL | {"input": {"city": "Lima"}}), '{"city": "Lima"}'),
    "gemini": (gemini("STOP", {"functionCall": {"name": "look", "args": {"city": "Lima"}}}), '{"city": "Lima"}'),
    "responses": (responses("completed", {"type": "function_call", "call_id": "1", "name": "look"}), "{}"),
    "messages": ({"messages": [*ASKED, {"role": "assistant", "tool_calls": [CALL]}]}, '{"city":  "Lima"}'),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLED)
def test_an_answer_that_calls_tools_is_a_pair(name: str) -> None:
    row, arguments = CALLED[name]
    example = read_example(row, "log.jsonl:1")
    (call,) = example.calls
    assert (call["type"], call["function"]) == ("function", {"name": "look", "arguments": arguments})
    assert example.response == f'<tool_call>{{"name": "look", "arguments": {arguments}}}</tool_call>'
    assert example.answer == {"role": "assistant", "content": "", "tool_calls": [call]}
    assert example.with_tools


def test_calls_and_replies_of_tools_stay_in_the_prompt() -> None:
    reply = {"role": "tool", "tool_call_id": "1", "content": "18 degrees"}
    turns = [*ASKED, {"role": "assistant", "content": "Looking.", "tool_calls": [CALL]}, reply, ANSWER]
    example = read_example({"messages": turns, "tools": [{"type": "function", "function": {"name": "look"}}]}, "x:1")
    assert list(example.messages) == turns[:3]
    assert (example.response, example.calls) == ("Lima", ())
    assert "Looking.\n<tool_call>" in example.prompt
    assert example.tools[0]["function"]["name"] == "look"
    blocks = [
        *ASKED,
        {"role": "assistant", "content": [{"type": "text", "text": "Looking."}, TOOL | {"input": {"city": "Lima"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "18 degrees"}]},
    ]
    logged = anthropic("end_turn") | {"request": {"messages": blocks, "tools": [{"name": "look", "input_schema": {}}]}}
    same = read_example(logged, "x:2")
    assert [turn["role"] for turn in same.messages] == ["user", "assistant", "tool"]
    assert same.messages[2] == reply
    assert same.tools[0]["function"]["name"] == "look"


def test_the_text_of_calls_makes_another_prompt() -> None:
    other = CALL | {"function": {"name": "look", "arguments": "{}"}}
    reply = {"role": "tool", "content": "18 degrees"}
    rows = [[*ASKED, {"role": "assistant", "content": "", "tool_calls": [one]}, reply, ANSWER] for one in (CALL, other)]
    assert len({read_example({"messages": turns}, "x:1").prompt_id for turns in rows}) == 2


def test_what_is_no_log_is_refused_and_not_set_aside() -> None:
    for row in (
        openai({"text": "Lima"}),
        openai({"choices": []}),
        openai(3),
        anthropic("end_turn") | {"request": 1},
    ):
        with pytest.raises(InputError) as told:
            read_example(row, "log.jsonl:7")
        assert not isinstance(told.value, SetAside), row
        assert "no OpenAI log: it needs request.messages" in str(told.value)


def loaded(experiment: Experiment, rows: list[dict[str, Any]]) -> CoverageDataset:
    Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment.data = Data(DataSource.file, path="log.jsonl", dev_rows=5, test_rows=5)
    experiment.protocol.gate_split = GateSplit.dev
    return load_coverage(experiment)


def numbered(number: int, reason: str, model: str = "gpt-4o-2024-08-06", **response: Any) -> dict[str, Any]:
    asked = [{"role": "user", "content": f"What about invoice {number * 7919} of {number}?"}]
    request = {"model": "gpt-4o", "messages": asked}
    return {"request": request, "response": completion(reason) | {"model": model} | response}


def test_what_is_set_aside_is_counted_by_reason_with_the_first_place(experiment: Experiment) -> None:
    reasons = ["stop", "length", "content_filter"]
    dataset = loaded(experiment, [numbered(n, reasons[n % 3]) for n in range(60)])
    assert dataset.account is not None
    assert dataset.account.read == 60
    assert sum(dataset.account.used.values()) == 20 == sum(len(getattr(dataset, name)) for name in dataset.account.used)
    assert dataset.account.lines() == [
        "data: 60 rows of log.jsonl, 20 used, 40 left out:",
        "  20: the answer is cut off (finish_reason: length); first log.jsonl:2",
        "  20: the answer is held back by a filter (finish_reason: content_filter); first log.jsonl:3",
    ]


def test_a_log_of_cut_answers_alone_is_refused_with_the_count(experiment: Experiment) -> None:
    with pytest.raises(InputError, match=r"log\.jsonl: no row can be used \(30: the answer is cut off .*log\.jsonl:1"):
        loaded(experiment, [numbered(n, "length") for n in range(30)])


def test_what_is_heeded_is_no_column_that_is_not_read(experiment: Experiment) -> None:
    rows = [
        {"prompt": f"Invoice {n * 7919}?", "response": "Yes.", "status": 200, "error": "", "x": n} for n in range(40)
    ]
    rows[3] |= {"response": "<think>So.</think>Yes."}
    account = loaded(experiment, rows).account
    assert account is not None
    assert account.notes == (
        "columns that are not read: x (40).",
        "rows with thoughts in the answer, which are learned and compared: 1.",
    )


def test_a_batchs_output_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(InputError, match=r"log\.jsonl:7: .*add the `body` of its input with the same custom_id"):
        read_example({"custom_id": "1", "response": {"status_code": 200, "body": completion()}}, "log.jsonl:7")


def test_other_models_more_answers_and_tools_are_told(experiment: Experiment) -> None:
    rows = [numbered(n, "stop", "gpt-4o-mini" if n < 4 else "gpt-4o-2024-08-06") for n in range(40)]
    rows[0]["response"]["choices"] *= 3
    rows[1]["request"]["tools"] = [{"type": "function"}]
    dataset = loaded(experiment, rows)
    assert dataset.account is not None
    assert dataset.account.notes == (
        "2 models answered: gpt-4o-2024-08-06 (36), gpt-4o-mini (4).",
        "rows with an answer of gpt-4o-mini where gpt-4o was asked: 4.",
        "rows with 2 more answers, which are not read: 1.",
        "rows with tools offered, which the local model won't have: 1.",
    )


@pytest.mark.parametrize(
    ("asked", "answered", "other"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("claude-sonnet", "claude-sonnet@20250101", False),
        ("gpt-4o", "gpt-4o-mini", True),
        ("gpt-4o", "llama", True),
        ("", "llama", False),
    ],
)
def test_a_dated_version_is_the_same_model(asked: str, answered: str, other: bool) -> None:
    assert is_another(asked, answered) is other
