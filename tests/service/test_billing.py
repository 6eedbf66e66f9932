"""Bills: usage counts as far as the request allows; what is beyond is told, and nothing more is sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from asking import Open, Wired, ask_for, reply_of, silent
from wire_double import Answer, Double, OpenAI

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.service import buying
from llamaduo.service.billing import Allowed, Bill, bill_of
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.prices import Tariff, tariff
from llamaduo.service.reading import Said
from llamaduo.service.refusals import UnknownOutcomeError, error_of
from llamaduo.service.requests import Request

PRICE = Tariff(1e-6, 4e-6, None, None, "a test")
ALLOWED = Allowed(reply=100, worst_usd=PRICE.cost(500, 100), prompt=500)


def said(prompt: int, reply: int) -> Said:
    return Said("text", "stop", prompt, reply, "m", "")


@pytest.mark.parametrize(
    ("prompt", "reply", "counted"),
    [
        (120, 80, Bill(120, 80, PRICE.cost(120, 80), 0)),
        (120, 101, Bill(120, 101, PRICE.cost(120, 101), 0)),
        (900, 80, Bill(900, 80, PRICE.cost(900, 80), 0)),
        (0, 80, Bill(0, 80, ALLOWED.worst_usd, 0)),
        (120, 1000, Bill(120, 100, PRICE.cost(120, 100), 900)),
        (900_000_000, 80, Bill(1524, 80, ALLOWED.worst_usd, 900_000_000 - 1524)),
        (120, 900_000_000, Bill(120, 100, PRICE.cost(120, 100), 899_999_900)),
        (120, 10**9, Bill(120, 100, ALLOWED.worst_usd, 10**9 - 100)),
    ],
)
def test_usage_counts_as_far_as_the_request_allows(prompt: int, reply: int, counted: Bill) -> None:
    found = bill_of(said(prompt, reply), PRICE, ALLOWED)
    assert replace(found, cost_usd=0.0) == replace(counted, cost_usd=0.0)
    assert found.cost_usd == pytest.approx(counted.cost_usd)
    assert bill_of(said(prompt, reply), Tariff(0.0, 0.0, None, None, ""), replace(ALLOWED, worst_usd=0.0)).beyond == (
        counted.beyond
    )


def test_a_row_of_a_batch_counts_at_its_worst_at_most() -> None:
    allowed = replace(ALLOWED, prompt=None)
    assert bill_of(said(9_000_000, 80), PRICE, allowed, batch=True).cost_usd == ALLOWED.worst_usd
    assert bill_of(said(120, 80), PRICE, allowed, batch=True).beyond == 0


@pytest.mark.parametrize(
    ("parameters", "most"),
    [
        ({}, 64),
        ({"max_completion_tokens": 32}, 32),
        ({"n": 3}, 192),
        ({"generationConfig": {"maxOutputTokens": 8192, "candidateCount": 2}}, 16384),
        ({"extra_body": {"options": {"num_predict": 500}}}, 500),
        ({"extra_body": {"max_output_tokens": 8}}, 64),
        ({"top_k": 5, "tools": [{"n": 9}]}, 64),
    ],
)
def test_the_worst_case_knows_every_name_of_the_limit_and_how_many_replies_are_asked_for(
    parameters: dict[str, object], most: int
) -> None:
    assert Request(replace(LLM, parameters=parameters), "a prompt", None, 0, "judge").longest_reply == most


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(Journal(tmp_path / "journal.sqlite"), run="study/run", budget_usd=1.0)


def claiming(usage: dict[str, int], sent: list[str]) -> Callable[..., object]:
    """Return what stands in for the call: a server that answers, and claims that it used this much."""

    async def call(_: ServiceLLM, prompt: str, **__: object) -> str:
        sent.append(prompt)
        choice = {"message": {"content": "x"}, "finish_reason": "stop"}
        return json.dumps({"choices": [choice], "usage": usage})

    return call


LLM = ServiceLLM(
    name="m", provider="openai", model="m", base_url="http://nowhere", key_required=False, max_tokens=64,
    concurrency=1, price=Price(100.0, 400.0, "a test"),
)  # fmt: skip
TEN_TIMES = {"prompt_tokens": 20, "completion_tokens": 640}


def test_a_run_stops_before_the_next_call_after_usage_beyond_what_it_allowed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(buying, "call", claiming(TEN_TIMES, sent))
    requests = [Request(LLM, f"prompt {number}", None, 0, "judge") for number in range(5)]
    with pytest.raises(ServiceError, match=r"576 tokens beyond what the request allows.*nothing more is sent"):
        service.ask(requests, lambda *_: None)
    assert len(sent) == 1
    worst = tariff(LLM, {}).cost(requests[0].longest_prompt, LLM.max_tokens)
    assert 0 < service.spent_usd <= worst
    assert [note for note in service.notes if "1 reply says that it used 576 tokens beyond" in note]
    service.close()


def test_who_wants_to_go_on_all_the_same_does_and_counts_all_of_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(buying, "call", claiming(TEN_TIMES, sent))
    requests = [Request(replace(LLM, unbounded_usage=True), f"prompt {n}", None, 0, "judge") for n in range(3)]
    service.ask(requests, lambda *_: None)
    assert len(sent) == 3
    assert service.spent_usd == pytest.approx(3 * (20 * 100 + 640 * 400) / 1e6)
    assert any(
        note.endswith("beyond what the request allows; these are counted in what was spent.") for note in service.notes
    )
    service.close()


@pytest.mark.parametrize(
    ("provider", "base_url", "unknown"),
    [("openai", None, True), ("anthropic", None, True), ("gemini", None, False), ("gemini", "http://else", True)],
)
def test_a_500_may_be_billed_unless_the_provider_is_known_not_to(
    provider: str, base_url: str | None, unknown: bool
) -> None:
    llm = replace(LLM, provider=provider, base_url=base_url)
    error = error_of(llm, 500, {"error": {"message": "broke down"}})
    assert isinstance(error, TransientError)
    assert isinstance(error, UnknownOutcomeError) == unknown
    assert not isinstance(error_of(llm, 503, {}), UnknownOutcomeError)


@pytest.mark.parametrize(("unbilled", "cost"), [([], True), ([502], True), ([502, 500], False)])
@pytest.mark.parametrize("own", [True, False])
def test_who_knows_that_a_500_is_not_billed_says_so_in_its_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbilled: list[int], cost: bool, own: bool
) -> None:
    price = Price(100.0, 400.0, "a test", unbilled=unbilled)

    async def breaks_down(llm: ServiceLLM, *_: object, **__: object) -> str:
        raise error_of(llm, 500, {"error": {"message": "broke down"}})

    monkeypatch.setattr(buying, "call", breaks_down)
    llm = replace(LLM, max_attempts=1, price=price if own else None)
    service = Service(Journal(tmp_path / "journal.sqlite"), run="study/run", budget_usd=1.0, prices={"openai/m": price})
    service.ask([Request(llm, "a prompt", None, 0, "judge")], lambda *_: None)
    assert (service.spent_usd > 0) == cost
    service.close()


def test_a_price_says_until_when_it_holds_and_what_else_is_to_be_known() -> None:
    price = Price(1.0, 4.0, "2026-11-21", until="2027-01-31", note="introductory")
    assert tariff(replace(LLM, price=price), {}).source == "m.price, 2026-11-21, until 2027-01-31 (introductory)"


@pytest.mark.parametrize("used", [640, 900_000_000])
def test_a_server_that_claims_what_no_request_allows_gets_no_other_and_no_more_than_the_worst_case(
    double: Double, wired: Wired, open_service: Open, used: int
) -> None:
    double.control(bodies={"prompt": json.dumps(OpenAI.answer(Answer("m", "a reply", "stop", 30, used, "1")))})
    llm, service = wired("openai", concurrency=1), open_service(budget_usd=1e9)
    requests = [ask_for(llm, f"prompt {number}") for number in range(5)]
    with pytest.raises(ServiceError, match="beyond what the request allows"):
        service.ask(requests, silent)
    assert len(double.bill()["calls"]) == 1
    assert 0 < service.spent_usd <= tariff(llm, {}).cost(requests[0].longest_prompt, llm.max_tokens)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_500_before_a_reply_counts_beside_it(double: Double, wired: Wired, open_service: Open, provider: str) -> None:
    double.control(script=["500", "ok"])
    llm, service = wired(provider), open_service(budget_usd=10.0)
    reply = reply_of(service, ask_for(llm, "a prompt"))
    assert service.spent_usd >= reply.cost_usd + tariff(llm, {}).cost(0, llm.max_tokens)
