"""The routes to OpenAI, Anthropic and Gemini: what is sent over the wire, and what an answer is taken for.

Everything goes through the real client, journal and litellm to the wire double, which keeps the server's timeline.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from asking import Open, Wired, ask_for, asked_as, reply_of, rows, silent
from wire_double import PROVIDERS, Double

from llamaduo.errors import ConfigError, ServiceError
from llamaduo.service import buying
from llamaduo.service.attempts import Reply
from llamaduo.service.prompts import VERDICT_SCHEMA
from llamaduo.service.requests import Failure

pytestmark = pytest.mark.usefixtures("at_once")

KNOWN = {"openai": "gpt-4o-2024-08-06", "anthropic": "claude-sonnet-5-5", "gemini": "gemini-2.5-pro"}
"""Models of which litellm knows that they take a JSON schema."""


def sent(double: Double) -> dict[str, Any]:
    """Return the one request that arrived."""
    (call,) = double.bill()["calls"]
    request: dict[str, Any] = call["request"]
    return request


@pytest.mark.parametrize("finish_reason", ["stop", "length", "content_filter"])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_text_usage_cost_and_finish_reason_arrive(
    double: Double, wired: Wired, open_service: Open, provider: str, finish_reason: str
) -> None:
    double.control(says="text:a reply of some length", finish_reason=finish_reason)
    service = open_service()
    reply = reply_of(service, ask_for(wired(provider), "What is two and two?"))
    (line,) = double.bill()["billed"]
    assert (reply.prompt_tokens, reply.completion_tokens) == (line["prompt_tokens"], line["completion_tokens"])
    assert reply.cost_usd == pytest.approx((line["prompt_tokens"] * 5 + line["completion_tokens"] * 20) / 1e6)
    assert service.spent_usd == reply.cost_usd
    assert reply.finish_reason == finish_reason
    whole = "a reply of some length"
    texts = {"stop": {whole}, "length": {whole[: 2 * len(whole) // 3]}, "content_filter": {whole, ""}}
    assert reply.text in texts[finish_reason]


def test_a_prompt_that_gemini_blocks_is_a_reply_without_text(double: Double, wired: Wired, open_service: Open) -> None:
    double.control(script=["policy"])
    reply = reply_of(open_service(), ask_for(wired("gemini")))
    assert (reply.text, reply.finish_reason) == ("", "content_filter")


@pytest.mark.parametrize(("kind", "providers"), [("context", PROVIDERS), ("policy", ("openai", "anthropic"))])
def test_a_refusal_of_one_request_is_its_outcome_and_is_tried_once(
    double: Double, wired: Wired, open_service: Open, kind: str, providers: tuple[str, ...]
) -> None:
    double.control(scripts={"the bad one": [kind] * 9})
    service = open_service()
    asked = [ask_for(wired(name), text) for name in providers for text in ("the bad one", "a good one")]
    outcomes = service.ask(asked, silent)
    bad, good = outcomes[::2], outcomes[1::2]
    assert all(isinstance(outcome, Failure) and outcome.reason == "refused" for outcome in bad)
    assert all(isinstance(outcome, Reply) for outcome in good)
    assert double.bill()["totals"]["statuses"] == {"400": len(providers), "200": len(providers)}
    assert service.spent_usd == pytest.approx(sum(reply.cost_usd for reply in good if isinstance(reply, Reply)))


def schema_in(provider: str, body: dict[str, Any]) -> Any:
    """Return the schema where the provider looks for it."""
    if provider == "openai":
        told = body.get("response_format", {}).get("json_schema", {})
        assert told.get("strict", True) is True
        return told.get("schema")
    if provider == "anthropic":
        return body.get("output_config", {}).get("format", {}).get("schema")
    return body["generationConfig"].get("responseJsonSchema")


@pytest.mark.parametrize("switched_on", [True, False])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_schema_is_sent_where_it_is_switched_on(
    double: Double, wired: Wired, open_service: Open, provider: str, switched_on: bool
) -> None:
    double.control(keep_requests=True)
    llm = wired(provider, model=KNOWN[provider], json_schema=switched_on)
    open_service().ask([ask_for(llm, schema=VERDICT_SCHEMA)], silent)
    assert schema_in(provider, sent(double)["body"]) == (VERDICT_SCHEMA if switched_on else None)


@pytest.mark.parametrize("switched_on", [True, False])
@pytest.mark.parametrize("provider", ["openai", "gemini"])
def test_the_repeat_is_sent_as_the_seed_where_it_is_switched_on(
    double: Double, wired: Wired, open_service: Open, provider: str, switched_on: bool
) -> None:
    double.control(keep_requests=True)
    open_service().ask([ask_for(wired(provider, send_seed=switched_on), repeat=7)], silent)
    body = sent(double)["body"]
    assert body.get("generationConfig", body).get("seed") == (7 if switched_on else None)


def test_anthropic_takes_no_seed_and_a_configuration_that_sends_one_is_refused_before_anything_is_sent(
    double: Double, wired: Wired, open_service: Open
) -> None:
    service = open_service()
    with pytest.raises(ConfigError, match=r"^anthropic: Anthropic takes no seed; set send_seed=false"):
        service.ask([ask_for(wired("anthropic", send_seed=True))], silent)
    assert double.bill()["calls"] == []
    assert service.spent_usd == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_key_is_in_its_header_and_nowhere_else_and_nothing_is_streamed(
    double: Double, wired: Wired, open_service: Open, provider: str
) -> None:
    double.control(keep_requests=True)
    open_service().ask([ask_for(wired(provider), "a prompt")], silent)
    request, key = sent(double), f"the-key-of-{provider}"
    carriers = {name.lower(): value for name, value in request["headers"].items() if key in value}
    header = {"openai": "authorization", "anthropic": "x-api-key", "gemini": "x-goog-api-key"}[provider]
    assert carriers == {header: f"Bearer {key}" if provider == "openai" else key}
    addresses = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}
    assert request["url"] == addresses.get(provider, "/v1beta/models/m:generateContent")
    body = request["body"]
    assert not body.get("stream")
    assert key not in str(body)
    assert body.get("max_tokens", body.get("generationConfig", {}).get("maxOutputTokens")) == 64
    assert "a prompt" in str(body)
    assert body.get("model", "m") == "m"


def test_the_key_may_come_from_another_variable(
    double: Double, wired: Wired, open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_GATEWAY", "the-key-of-the-gateway")
    double.control(keep_requests=True)
    open_service().ask([ask_for(wired("openai", api_key_env="OUR_GATEWAY"))], silent)
    assert sent(double)["headers"]["Authorization"] == "Bearer the-key-of-the-gateway"


@pytest.mark.parametrize("key", ["the-key\n", "the-key\r", " the-key", "the-k\u00e9y"])
def test_a_key_that_no_header_can_carry_is_refused_before_anything_is_sent(
    double: Double, wired: Wired, open_service: Open, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY holds what no key does") as caught:
        open_service().ask([ask_for(wired("openai"))], silent)
    assert key not in str(caught.value)
    assert double.bill()["calls"] == []


@pytest.mark.parametrize("form", ["seconds", "date", "body"])
def test_no_second_try_comes_before_the_server_wants_it(
    double: Double, wired: Wired, open_service: Open, form: str
) -> None:
    providers = ("gemini",) if form == "body" else PROVIDERS
    double.control(script=["429", "429"], retry_after_s=0.45, retry_after_form=form)
    outcomes = open_service().ask([ask_for(wired(name), f"{n}") for name in providers for n in range(3)], silent)
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    bill = double.bill()
    assert bill["totals"]["statuses"] == {"429": 6 * len(providers), "200": 3 * len(providers)}
    waits = [back["waited"] for back in bill["returns"]]
    assert len(waits) == 6 * len(providers)
    assert all(wait >= 0.45 for wait in waits), sorted(waits)[:3]
    assert bill["early"] == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_without_retry_after_the_waits_grow(
    double: Double, wired: Wired, open_service: Open, monkeypatch: pytest.MonkeyPatch, waits: list[float], provider: str
) -> None:
    monkeypatch.setattr(buying, "_LONGEST_WAIT", 60.0)
    double.control(script=["429", "503", "429", "500"], retry_after_form="none")
    reply_of(open_service(), ask_for(wired(provider, max_attempts=5)))
    taken = [wait for wait in waits if wait]
    assert all(0.5 * 2**n / 2 <= wait <= 0.5 * 2**n for n, wait in enumerate(taken, 1)), taken
    assert len(taken) == 4


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_wait_beyond_reason_ends_the_stage_and_says_when_to_come_back(
    double: Double, wired: Wired, open_service: Open, provider: str
) -> None:
    double.control(script=["429"], retry_after_s=7200)
    with pytest.raises(ServiceError, match=rf"^{provider} asks to come back in 7,200 s: .*; run the same command then"):
        open_service().ask([ask_for(wired(provider))], silent)
    assert len(double.bill()["calls"]) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_the_provider_refuses_is_tried_once_and_costs_nothing(
    double: Double, wired: Wired, open_service: Open, tmp_path: Path, provider: str, status: int
) -> None:
    double.control(script=[str(status)] * 9)
    service = open_service()
    with pytest.raises(ServiceError, match=rf"^{provider} refused the call \(.*, {status}\): ") as caught:
        service.ask([ask_for(wired(provider))], silent)
    assert "\n" not in str(caught.value)
    assert rows(tmp_path, "SELECT * FROM replies") == []
    assert double.bill()["totals"]["statuses"] == {str(status): 1}
    assert rows(tmp_path, "SELECT outcome, cost_usd FROM attempts") == [("failed", 0.0)]
    assert service.spent_usd == 0


def test_a_server_that_nobody_runs_costs_nothing(wired: Wired, open_service: Open, tmp_path: Path) -> None:
    service = open_service()
    asked = [ask_for(wired(name, base_url="http://127.0.0.1:9", max_attempts=2)) for name in PROVIDERS]
    outcomes = service.ask(asked, silent)
    assert all(isinstance(outcome, Failure) and outcome.reason == "no_reply" for outcome in outcomes)
    assert rows(tmp_path, "SELECT outcome, cost_usd FROM attempts") == [("failed", 0.0)] * 6
    assert service.spent_usd == 0


@pytest.mark.parametrize("provider", PROVIDERS)
def test_no_variable_of_the_environment_changes_the_address_which_the_key_covers(
    double: Double, wired: Wired, open_service: Open, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    for name in ("BASE_URL", "API_BASE"):
        monkeypatch.setenv(f"{provider.upper()}_{name}", double.url(provider))
    (outcome,) = open_service().ask([ask_for(wired(provider, base_url=None, max_attempts=1))], silent)
    assert isinstance(outcome, Failure)  # the provider's own address is out of reach here
    assert double.bill()["calls"] == []


def test_many_runs_in_one_process_leave_no_connection_open(wired: Wired, tmp_path: Path) -> None:
    opened = []
    for number in range(6):
        requests = [ask_for(wired(name), f"{number} {n}") for name in PROVIDERS for n in range(4)]
        assert all(isinstance(outcome, Reply) for outcome in asked_as(f"study/{number}", tmp_path, requests))
        opened.append(sum(_is_socket(name) for name in os.listdir("/proc/self/fd")))
    assert opened[0] == opened[-1], opened


def _is_socket(name: str) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    except OSError:
        return False
