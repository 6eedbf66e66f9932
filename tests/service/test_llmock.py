"""The client under the faults of `llmock`, a test double that nobody here wrote, and by its own verdict.

llmock speaks the wire formats of OpenAI, Anthropic and Gemini, answers with errors at random, limits requests a
minute and the length of prompts, and judges from its own timeline how a client took that.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asking import LLM, Open, ask_for, reply_of, silent, told

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import ServiceError
from llamaduo.service import buying
from llamaduo.service.attempts import Reply
from llamaduo.service.requests import Failure

llmock_package = pytest.importorskip("llmock")


ITEMS = 2_000
PLACES = {"openai": "/v1", "anthropic": "/anthropic", "gemini": "/gemini/v1beta"}
ERRORS = {408: 0.02, 409: 0.02, 429: 0.1, 500: 0.06, 502: 0.02, 503: 0.04, 504: 0.02, 529: 0.02}
PERHAPS_BILLED = {408, 500, 502, 504}
"""Said by gateways that no longer wait, so counted at their worst."""
PROGRAM = """
import json, random, sys
from llmock.chaos import ChaosSettings
from llmock.simulation import MockResponseSettings
from llmock.testing import LLMockServer

random.seed(1)
errors = {int(status): share for status, share in json.loads(sys.argv[1]).items()}
with LLMockServer(chaos=ChaosSettings(error_rates=errors), responses=MockResponseSettings("echo")) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ServiceLLM]:
    """Return a function that makes a service LLM of a provider at llmock's address."""
    for provider in PLACES:
        monkeypatch.setenv(f"{provider.upper()}_API_KEY", f"the-key-of-{provider}")

    def service_llm(url: str, provider: str, **fields: Any) -> ServiceLLM:
        known = {"name": provider, "provider": provider, "model": "m", "base_url": url + PLACES[provider]}
        known |= {"price": Price(5.0, 20.0, "a test"), "max_tokens": 64, "timeout_s": 20.0, "json_schema": False}
        return ServiceLLM(**(known | fields))

    return service_llm


@contextmanager
def serving(errors: dict[int, float]) -> Iterator[str]:
    """Run llmock as a process of its own; yields its address."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(errors)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()


def fetch(url: str) -> Any:
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60) as answer:
        return json.loads(answer.read())


@pytest.mark.slow
def test_2000_items_of_which_a_third_fails_at_first(
    open_service: Open, at: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buying, "_LONGEST_WAIT", 2.0)
    with serving(ERRORS) as url:
        llms = [at(url, name, max_attempts=4) for name in PLACES]
        requests = [ask_for(llms[n % 3], f"item {n}") for n in range(ITEMS)]
        service = open_service()
        outcomes = service.ask(requests, silent)
        verdict, calls = fetch(f"{url}/_llmock/verdict"), fetch(f"{url}/_llmock/requests")["requests"]

    replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
    assert all(f"item {n}" in told(outcome).split(": ") for n, outcome in enumerate(outcomes) if outcome in replies)
    assert len(replies) > 0.98 * ITEMS
    statuses: dict[str, list[int]] = {}
    starts: dict[str, list[float]] = {}
    for call in calls:
        statuses.setdefault(call["fingerprint"], []).append(call["status"])
        starts.setdefault(call["fingerprint"], []).append(call["started_at"])
    assert len(statuses) == ITEMS
    assert sum(found[-1] == 200 for found in statuses.values()) == len(replies)
    assert all(set(found[:-1]) <= set(ERRORS) for found in statuses.values())
    assert all(len(found) == 4 for found in statuses.values() if found[-1] != 200)
    perhaps = sum(status in PERHAPS_BILLED for found in statuses.values() for status in found)
    worst = [(request.longest_prompt * 5.0 + 64 * 20.0) / 1e6 for request in requests]
    at_their_worst = service.spent_usd - sum(reply.cost_usd for reply in replies)
    assert perhaps > 50
    assert perhaps * min(worst) <= at_their_worst <= perhaps * max(worst)

    assert verdict["passed"]
    assert verdict["calls"] == ITEMS
    assert 0.25 < verdict["faults_injected"] / verdict["attempts"] < 0.35
    # Its "no_backoff" compares waits with each other, and a busy machine lengthens them: each is measured here instead.
    assert {finding["code"] for finding in verdict["findings"]} <= {"no_backoff"}
    for item in starts.values():
        waits = [later - earlier for earlier, later in itertools.pairwise(item)]
        assert all(wait >= least for wait, least in zip(waits, (0.5, 1.0, 1.0), strict=False))


def test_a_rate_limit_is_waited_out(llmock: Any, open_service: Open, at: LLM) -> None:
    llmock.limits(rpm=20)
    requests = [ask_for(at(llmock.url, name), f"item {n}") for name in PLACES for n in range(21)]
    outcomes = open_service().ask(requests, silent)
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    assert Counter(record.status for record in llmock.requests) == {200: 63, 429: 3}
    assert len({record.fingerprint for record in llmock.requests}) == 63
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize("provider", PLACES)
def test_a_prompt_beyond_the_context_is_refused_and_tried_once(
    llmock: Any, open_service: Open, at: LLM, provider: str
) -> None:
    llmock.limits(context_window=50)
    llm = at(llmock.url, provider)
    long, short = open_service().ask([ask_for(llm, "word " * 100), ask_for(llm, "word")], silent)
    assert isinstance(long, Failure)
    assert long.reason == "refused"
    assert isinstance(short, Reply)
    assert Counter(record.status for record in llmock.requests) == {200: 1, 400: 1}
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
@pytest.mark.parametrize("provider", PLACES)
def test_what_the_provider_refuses_is_tried_once(
    llmock: Any, open_service: Open, at: LLM, provider: str, status: int
) -> None:
    llmock.fail(status, times=None)
    with pytest.raises(ServiceError, match=rf"^{provider} refused the call \(.*, {status}\)"):
        open_service().ask([ask_for(at(llmock.url, provider))], silent)
    assert [record.status for record in llmock.requests] == [status]
    llmock.assert_resilient(strict=True)


@pytest.mark.parametrize("provider", PLACES)
def test_an_answer_that_comes_too_late_is_asked_for_again_and_counted(
    llmock: Any, open_service: Open, at: LLM, provider: str
) -> None:
    llmock.delay(1.5)
    service = open_service()
    request = ask_for(at(llmock.url, provider, timeout_s=0.4))
    reply = reply_of(service, request)
    assert service.spent_usd == pytest.approx(reply.cost_usd + (request.longest_prompt * 5 + 64 * 20) / 1e6)
    assert len(llmock.requests) == 2


def test_an_outage_ends_the_stage_after_a_bounded_number_of_tries(
    llmock: Any, open_service: Open, at: LLM, waits: list[float]
) -> None:
    llmock.outage(status=500)
    llm = at(llmock.url, "openai", max_attempts=3, concurrency=4)
    with pytest.raises(ServiceError, match=r"openai is out of reach: \d+ calls in a row failed, 3 tries each"):
        open_service().ask([ask_for(llm, f"item {n}") for n in range(40)], silent)
    assert max(Counter(record.fingerprint for record in llmock.requests).values()) == 3
    assert len(llmock.requests) < 60
    assert sum(wait >= 0.5 for wait in waits) >= 8
