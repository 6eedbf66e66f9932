"""Refusals: one prompt, everything, or the moment, by status and code; words count where a server gives no code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from asking import Open, Wired, ask_for, silent
from wire_double import PROVIDERS, Double

from llamaduo.config import ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.service.attempts import Reply
from llamaduo.service.refusals import (
    TOO_LONG,
    NoReplyError,
    PerhapsRefusedError,
    RefusedError,
    UnknownOutcomeError,
    error_of,
    error_under_success,
)
from llamaduo.service.requests import Failure

LLM = ServiceLLM(name="it", provider="openai", model="m", max_tokens=77)


def openai(code: Any, message: str = "no", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code, **more}}


def anthropic(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}}


def gemini(status: str, message: str) -> list[dict[str, Any]]:
    return [{"error": {"code": 400, "message": message, "status": status}}]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, openai("context_length_exceeded")),
        (400, openai("string_above_max_length")),
        (400, openai(400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens")),
        (400, openai(400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096.")),
        (400, openai(None, "the request exceeds the available context size", type="exceed_context_size_error")),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000"}),
        (400, {"message": "Prompt contains 9 tokens, too large for model with 8 maximum context length"}),
        (400, anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum")),
        (413, anthropic("request_too_large", "Request exceeds the maximum size")),
        (400, "litellm.ContextWindowExceededError: it does not fit"),
        (400, {"message": "Input is too long for requested model."}),
        (413, "<html>Request Entity Too Large</html>"),
        (400, gemini("INVALID_ARGUMENT", "The input token count (2000000) exceeds the maximum number of tokens")),
        (400, gemini("INVALID_ARGUMENT", "the input token count is 40000 but model only supports up to 32768.")),
        (400, anthropic("invalid_request_error", "input length and `max_tokens` exceed context limit: 199000 + 4096")),
        (400, openai("invalid_parameter_error", "Range of input length should be [1, 30720]")),
        (422, openai("validation", "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000")),
        (400, openai(None, "Input tokens (5000) exceed the limit (4096)")),
    ],
)  # fmt: skip
def test_a_prompt_that_is_too_long_is_one_refused_request(status: int, body: Any) -> None:
    found = error_of(LLM, status, body)
    assert type(found) is RefusedError
    assert TOO_LONG in str(found)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, openai("content_filter")),
        (400, openai("content_policy_violation")),
        (400, openai("invalid_prompt")),
        (400, openai(None, "x", innererror={"code": "ResponsibleAIPolicyViolation"})),
        (400, openai("data_inspection_failed")),
        (403, {"error": {"code": 403, "message": "moderation", "metadata": {"reasons": ["x"], "flagged_input": "y"}}}),
        (403, {"code": "forbidden", "error": "Content violates usage guidelines."}),
        (400, anthropic("invalid_request_error", "Output blocked by content filtering policy")),
        (400, openai(None, "Your request was rejected as a result of our safety system.")),
        (400, openai("invalid_request_error", "Content Exists Risk")),
        (400, {"code": "DataInspectionFailed", "message": "x"}),
        (400, openai("InputTextSensitiveContentDetected", "x")),
        (400, openai("1301", "\u5b89\u5168\u6216\u654f\u611f\u5185\u5bb9")),
        (400, openai("content_policy", "no")),
    ],
)
def test_what_a_filter_refuses_is_one_refused_request(status: int, body: Any) -> None:
    found = error_of(LLM, status, body)
    assert type(found) is RefusedError
    assert TOO_LONG not in str(found)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, openai("invalid_api_key")),
        (403, openai("unsupported_country_region_territory", "This key may not use this model.")),
        (404, openai("model_not_found")),
        (400, openai("model_not_found", "The model is unknown")),
        (429, openai("insufficient_quota", "You exceeded your current quota")),
        (400, anthropic("invalid_request_error", "Your credit balance is too low to access the Anthropic API.")),
        (402, {"error": {"message": "Insufficient credits", "code": 402}}),
        (405, {"detail": "Method Not Allowed"}),
        (400, gemini("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")),
        (400, gemini("FAILED_PRECONDITION", "User location is not supported for the API use.")),
    ],
)
def test_a_wrong_key_model_permission_or_account_ends_the_run(status: int, body: Any) -> None:
    assert type(error_of(LLM, status, body)) is ServiceError


def test_an_address_with_nothing_at_it_is_named() -> None:
    found = error_of(LLM, 404, {"detail": "Not Found"}, place="http://h/v2/chat/completions")
    assert str(found) == "it refused the call (Not Found, 404): Not Found (asked at http://h/v2/chat/completions)"


@pytest.mark.parametrize("status", [400, 422])
def test_a_request_that_is_refused_for_no_known_reason_is_perhaps_refused_alone(status: int) -> None:
    found = error_of(LLM, status, openai("unsupported_parameter", "no such parameter"))
    assert type(found) is PerhapsRefusedError


def test_a_parameter_that_is_named_like_a_filter_is_none() -> None:
    found = error_of(LLM, 400, openai("unknown_parameter", "Unknown parameter: 'moderation_mode'"))
    assert type(found) is PerhapsRefusedError


def test_a_limit_by_another_name_is_told_as_a_setting() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    assert "parameters.max_completion_tokens=77" in str(error_of(LLM, 400, openai("unsupported_parameter", words)))
    words = "max_tokens is required; only it is supported"
    assert "parameters.max_tokens=77" in str(error_of(LLM, 400, openai(None, words)))


@pytest.mark.parametrize(("status", "kind"), [(429, TransientError), (503, TransientError), (504, UnknownOutcomeError)])
def test_the_moment_is_waited_out(status: int, kind: type) -> None:
    found = error_of(LLM, status, openai("rate_limit_exceeded", "Rate limit reached, see billing"), retry_after=3.0)
    assert type(found) is kind
    assert isinstance(found, TransientError)
    assert found.retry_after == 3.0


def test_an_error_under_success_means_what_its_code_says() -> None:
    assert type(error_under_success(LLM, openai(502))) is UnknownOutcomeError
    assert type(error_under_success(LLM, openai(None))) is UnknownOutcomeError
    assert type(error_under_success(LLM, openai(401))) is ServiceError
    assert type(error_under_success(LLM, openai(400))) is NoReplyError
    assert type(error_under_success(LLM, openai("content_filter"))) is RefusedError
    assert error_under_success(LLM, {"choices": []}) is None


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_strange_refusal_among_answered_requests_is_one_and_alone_it_ends_the_run(
    double: Double, wired: Wired, open_service: Open, provider: str
) -> None:
    double.control(scripts={"odd": ["400"] * 9})
    llm = wired(provider)
    with pytest.raises(ServiceError, match=r"refused the call \(Bad Request, 400\)"):
        open_service("study/alone").ask([ask_for(llm, "odd")], silent)
    service = open_service()
    assert isinstance(service.ask([ask_for(llm, "fine")], silent)[0], Reply)
    (odd, other) = service.ask([ask_for(llm, "odd"), ask_for(llm, "another")], silent)
    assert isinstance(odd, Failure)
    assert odd.reason == "refused"
    assert isinstance(other, Reply)
    assert len(double.bill()["calls"]) == 4


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"object": "error", "message": "max_tokens must be at least 1, got -5.", "code": 400}),
        (400, {"object": "error", "message": "The decoder prompt (length 5000) is longer than the model's 4096."}),
        (400, openai(400, "it exceeds the available context size", type="exceed_context_size_error")),
        (422, {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000", "error_type": "validation"}),
        (400, openai("content_filter", "it was filtered", status=400)),
        (400, openai("content_policy_violation", "no")),
        (400, {"detail": "no"}),
        (413, "<html>Request Entity Too Large</html>"),
    ],
    ids=["vLLM, a length", "vLLM, the prompt", "llama.cpp", "TGI", "Azure", "a filter", "a gateway", "a proxy"],
)
def test_one_prompt_that_a_server_refuses_in_its_own_way_is_one_failure_between_two_replies(
    double: Double, wired: Wired, open_service: Open, status: int, body: Any
) -> None:
    double.control(
        bodies={"refused": body if isinstance(body, str) else json.dumps(body)}, statuses={"refused": status}
    )
    llm, service = wired("openai"), open_service()
    found = [service.ask([ask_for(llm, prompt)], silent)[0] for prompt in ("fine", "refused", "fine too")]
    assert [one.reason if isinstance(one, Failure) else "" for one in found] == ["", "refused", ""]


def test_a_key_in_a_servers_words_reaches_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789-abcdefghij")
    for before in range(250, 300):
        body = openai("invalid_api_key", "x" * before + "sk-secret-0123456789-abcdefghij")
        assert "sk-secret" not in str(error_of(LLM, 401, json.loads(json.dumps(body))))
