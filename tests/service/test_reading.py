"""Reading: text, end, tokens, model and thoughts of raw replies in three formats, whatever they look like."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llamaduo.service.reading import Said, billed, form_of, read

THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}


def stored(form: str, body: Any) -> str:
    """Return a raw reply as the journal holds it."""
    return json.dumps({"format": form, "status": 200, "headers": {}, "body": json.dumps(body)})


def openai(message: Any, reason: Any = "stop", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    return {"model": "m", "choices": [choice], "usage": usage, **more}


def gemini(parts: Any, reason: Any = "STOP", **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": reason}], **more}


def said(content: Any, reason: Any = "stop", **more: Any) -> Said:
    return read(stored("openai", openai({"role": "assistant", "content": content, **more}, reason)))


@pytest.mark.parametrize(
    ("content", "text", "thoughts"),
    [
        ("text", "text", ""),
        ("", "", ""),
        ([THOUGHT, {"type": "text", "text": "an"}, {"type": "text", "text": "swer"}], "answer", "hm"),
        (["an", "swer"], "answer", ""),
        ({"type": "text", "text": "one part"}, "one part", ""),
        ({"score": 5}, '{"score": 5}', ""),
        (5, "5", ""),
        ([{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text", "text": "a"}], "a", ""),
        ("a\ud83d", "a?", ""),
        ("<think>hm</think>\n\nanswer", "answer", "<think>hm"),
        ("\n<THINKING>hm</thinking>answer", "answer", "\n<THINKING>hm"),
        ("[THINK]hm[/THINK]answer", "answer", "[THINK]hm"),
        ("hm, so\n</think>\n\nanswer", "answer", "hm, so"),
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>answer<|return|>",
            "answer",
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant",
        ),
        ("hm, so</think>\nanswer", "answer", "hm, so"),
        ("Write <b>, then </think> in a line.", "Write <b>, then </think> in a line.", ""),
        ("Open with <think>\nand close with </think>\n.", "Open with <think>\nand close with </think>\n.", ""),
    ],
)
def test_text_and_thoughts_of_an_openai_content(content: Any, text: str, thoughts: str) -> None:
    found = said(content)
    assert (found.text, found.thoughts, found.finish_reason) == (text, thoughts, "stop")
    assert (found.prompt_tokens, found.completion_tokens, found.model) == (3, 4, "m")


@pytest.mark.parametrize(
    ("message", "thoughts"),
    [
        ({"content": None, "reasoning_content": "hm"}, "hm"),
        ({"content": "", "reasoning": "hm"}, "hm"),
        ({"content": None}, ""),
        ({"content": "<think>never closed"}, "<think>never closed"),
        ({"content": "hm\n</think>\n"}, "hm"),
        ({"content": [THOUGHT]}, "hm"),
        ({"content": "<|channel|>analysis<|message|>hm"}, "<|channel|>analysis<|message|>hm"),
        (None, ""),
    ],
)
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_a_reply_without_content_has_none_however_it_ended(message: Any, thoughts: str, reason: str) -> None:
    found = read(stored("openai", openai(message, reason)))
    assert (found.text, found.finish_reason, found.thoughts) == ("", "no_content", thoughts)


@pytest.mark.parametrize(
    ("form", "word", "reason"),
    [
        *(("openai", word, "stop") for word in ("stop", "STOP", "eos", "end_turn")),
        *(("openai", word, "length") for word in ("length", "max_tokens", "model_context_window_exceeded")),
        *(("openai", word, "content_filter") for word in ("content_filter", "SAFETY")),
        *(("openai", word, word) for word in ("pause_turn", "abort", "error", "a new word")),
        ("openai", "function_call", "tool_calls"),
        *(("anthropic", word, "stop") for word in ("end_turn", "stop_sequence")),
        *(("anthropic", word, "length") for word in ("max_tokens", "model_context_window_exceeded", "pause_turn")),
        ("anthropic", "refusal", "content_filter"),
        ("gemini", "STOP", "stop"),
        ("gemini", "MAX_TOKENS", "length"),
        *(("gemini", word, "content_filter") for word in ("SAFETY", "RECITATION", "SPII", "PROHIBITED_CONTENT")),
        *(("gemini", word, word) for word in ("OTHER", "FINISH_REASON_UNSPECIFIED")),
        *((form, word, "unknown") for form in ("openai", "anthropic", "gemini") for word in (None, "", 3, ["stop"])),
    ],
)
def test_only_what_is_known_to_be_finished_is(form: str, word: Any, reason: str) -> None:
    bodies = {
        "openai": openai({"content": "a"}, word),
        "anthropic": {"content": [{"type": "text", "text": "a"}], "stop_reason": word},
        "gemini": gemini([{"text": "a"}], word),
    }
    found = read(stored(form, bodies[form]))
    assert found.text == "a"
    assert found.finish_reason == reason


def test_the_word_of_whoever_stands_behind_a_gateway_counts() -> None:
    for native, reason in {"STOP": "stop", "MAX_TOKENS": "length", "pause_turn": "pause_turn"}.items():
        body = openai({"content": "a"})
        body["choices"][0]["native_finish_reason"] = native
        assert read(stored("openai", body)).finish_reason == reason


def test_a_refusal_in_a_field_of_its_own_or_among_the_parts_is_one() -> None:
    for found in (said(None, refusal="I can't."), said([{"type": "refusal", "refusal": "I can't."}])):
        assert (found.text, found.finish_reason) == ("I can't.", "refusal")


CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("form", "body", "reason"),
    [
        *(("openai", openai({"content": c, "tool_calls": CALLS}), "tool_calls") for c in (None, "", "Let me see.")),
        ("openai", openai({"content": "", "function_call": {"name": "f"}}), "tool_calls"),
        ("openai", openai({"content": "yes", "tool_calls": []}), "stop"),
        ("openai", openai({"content": "", "reasoning_details": [{"text": "hm"}]}), "no_content"),
        ("openai", {"choices": [openai({"content": ""})["choices"][0] | {"error": {"code": 502}}]}, "error"),
        ("anthropic", {"content": [{"type": "tool_use", "name": "f"}], "stop_reason": "end_turn"}, "tool_calls"),
        ("anthropic", {"content": None, "stop_reason": "end_turn"}, "no_content"),
        ("gemini", gemini([{"functionCall": {}}]), "tool_calls"),
        ("gemini", gemini([]), "no_content"),
        ("gemini", {"candidates": [{"finishReason": "STOP"}]}, "no_content"),
    ],
)
def test_a_call_of_a_tool_and_what_holds_no_answer_are_no_finished_answers(form: str, body: Any, reason: str) -> None:
    assert read(stored(form, body)).finish_reason == reason


def test_what_a_tool_of_the_providers_brought_is_no_part_of_the_text() -> None:
    parts = [{"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "1"}}, {"text": "yes"}]
    found = read(stored("gemini", gemini(parts)))
    assert (found.text, found.finish_reason) == ("yes", "stop")
    assert said([{"type": "text", "text": {"value": "yes", "annotations": []}}]).text == "yes"


def test_anthropics_blocks() -> None:
    blocks = [{"type": "thinking", "thinking": "hm"}, {"type": "redacted_thinking", "data": "x"}]
    usage = {"input_tokens": 3, "cache_read_input_tokens": 2, "cache_creation_input_tokens": None, "output_tokens": 4}
    body = {"type": "message", "model": "c", "content": blocks, "stop_reason": "end_turn", "usage": usage}
    assert read(stored("anthropic", body)) == Said("", "no_content", 5, 4, "c", "hm")
    body["content"] = [*blocks, {"type": "text", "text": "yes"}]
    assert read(stored("anthropic", body)) == Said("yes", "stop", 5, 4, "c", "hm")


def test_geminis_parts() -> None:
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 4, "thoughtsTokenCount": 5}
    parts = [{"text": "hm", "thought": True}, {"text": "y"}, {"text": "es"}]
    body = gemini(parts, usageMetadata=usage, modelVersion="g")
    assert read(stored("gemini", body)) == Said("yes", "stop", 3, 9, "g", "hm")
    body["candidates"] = [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]
    assert read(stored("gemini", body)) == Said("", "no_content", 3, 9, "g", "")
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    assert read(stored("gemini", blocked)) == Said("", "content_filter", 3, 0, "", "")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        *((word, "stop") for word in ("end_turn", "stop_sequence")),
        *((word, "length") for word in ("max_tokens", "model_context_window_exceeded")),
        *((word, "content_filter") for word in ("guardrail_intervened", "content_filtered")),
        ("tool_use", "tool_calls"),
        ("malformed_model_output", "malformed_model_output"),
        (None, "unknown"),
    ],
)
def test_bedrocks_blocks(word: Any, reason: str) -> None:
    thought = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "s"}}}
    usage = {"inputTokens": 3, "outputTokens": 4, "cacheReadInputTokens": 2}
    body = {"output": {"message": {"content": [thought, {"text": "yes"}]}}, "stopReason": word, "usage": usage}
    assert form_of(body) == "bedrock"
    assert read(stored("bedrock", body)) == Said("yes", reason, 5, 4, "", "hm")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        *(({"message": {}, "finish_reason": word}, "stop") for word in ("COMPLETE", "STOP_SEQUENCE")),
        ({"message": {}, "finish_reason": "MAX_TOKENS"}, "length"),
        ({"message": {}, "finish_reason": "ERROR_TOXIC"}, "content_filter"),
        ({"message": {}, "finish_reason": None}, "unknown"),
        ({"message": {}, "done_reason": "load"}, "load"),
        ({"results": [{"stop_reason": "time_limit"}]}, "time_limit"),
        ({"generated_text": "a"}, "stop"),
    ],
)
def test_the_senders_own_word_counts_where_litellm_says_stop_for_all_that_it_does_not_know(
    body: Any, reason: str
) -> None:
    found = read(json.dumps({"format": "litellm", "body": json.dumps(body), "dump": openai({"content": "a"})}))
    assert (found.text, found.finish_reason) == ("a", reason)


@pytest.mark.parametrize("form", ["openai", "anthropic", "gemini", "bedrock"])
@pytest.mark.parametrize(
    "body", [None, [], {}, "x", 3, {"choices": 3}, {"content": 3, "usage": 3}, {"candidates": [3]}]
)
def test_whatever_comes_is_read_without_a_fault_and_never_as_finished(form: str, body: Any) -> None:
    assert read(stored(form, body)).finish_reason != "stop"


def test_litellms_dump_reads_as_it_always_did() -> None:
    dump = openai({"content": "<think>hm</think>answer", "provider_specific_fields": {"refusal": None}})
    assert read(json.dumps(dump)) == Said("<think>hm</think>answer", "stop", 3, 4, "", "")
    dump["choices"][0]["provider_specific_fields"] = {"native_finish_reason": "PAUSED"}
    assert read(json.dumps(dump)).finish_reason == "PAUSED"
    assert read(json.dumps({"format": "litellm", "body": "?", "dump": dump})).finish_reason == "PAUSED"
    nothing = ("", "no json", "[]", '{"raw": 1}', '{"choices": [], "usage": null}', "[" * 10**5)
    for raw in (*nothing, '{"format": "x", "body": "{}"}'):
        assert read(raw) == Said("", "no_choices", 0, 0, "", "")


def test_a_row_of_a_batch_is_read_as_its_body_is() -> None:
    line = {"custom_id": "k", "response": {"status_code": 200, "body": openai({"content": ["an", "swer"]})}}
    assert read(json.dumps(line)) == Said("answer", "stop", 3, 4, "m", "")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4.0}, (3, 4)),
        ({"prompt_tokens": 2.5, "completion_tokens": 0.1}, (3, 1)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ({"prompt_tokens": 3}, (3, 0)),
        (None, (0, 0)),
        ({}, (0, 0)),
        ({"prompt_tokens": -3, "completion_tokens": -(10**6)}, (0, 0)),
        ({"prompt_tokens": "3", "completion_tokens": None}, (0, 0)),
        ({"prompt_tokens": 10**30, "completion_tokens": float("nan")}, (10**9, 0)),
        ({"prompt_tokens": float("inf"), "completion_tokens": True}, (10**9, 0)),
        ([1, 2], (0, 0)),
    ],
)
def test_a_usage_that_is_none_counts_as_none_and_one_beyond_all_as_too_much(
    usage: Any, expected: tuple[int, int]
) -> None:
    assert billed(usage) == expected


def test_the_format_of_a_body_is_known_by_its_shape() -> None:
    assert form_of(openai({"content": "a"})) == "openai"
    assert form_of({"type": "message", "content": []}) == "anthropic"
    assert form_of({"candidates": []}) == "gemini"
    for other in (None, [], {}, {"detail": "Not Found"}, {"error": {"message": "x"}}, "x"):
        assert form_of(other) is None


@pytest.mark.parametrize("depth", [600, 900, 100_000])
@pytest.mark.parametrize("form", ["openai", "gemini", "litellm"])
def test_a_body_nested_deeply_says_nothing(form: str, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    body = (
        f'{{"choices": [{{"message": {{"content": {nested}}}}}], "candidates": [{{"content": {{"parts": {nested}}}}}]}}'
    )
    raw = body if form == "litellm" else json.dumps({"format": form, "body": body})
    found = read(raw)
    assert found.text == ""
    assert found.finish_reason in ("unknown", "no_choices")
