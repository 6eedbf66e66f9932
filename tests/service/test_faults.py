"""2,000 calls to three providers of which nearly a third go wrong: none is lost, none is doubled, all money is counted.

The wire double draws each attempt's fault from a seed, so that the number of attempts of every item, their outcomes
in the journal and the sum that was spent can be told before anything is asked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asking import Open, Wired, ask_for, asked_as, reply_of, rows, silent, together, told
from wire_double import CUTS, PROVIDERS, Double, OpenAI, Settings, fault

from llamaduo.errors import ServiceError
from llamaduo.service.attempts import Reply
from llamaduo.service.requests import Failure, Outcome, Request

pytestmark = pytest.mark.usefixtures("at_once")

ITEMS = 2_000
MOST = 4
FAULTS = {
    "408": 0.01, "429": 0.05, "500": 0.03, "503": 0.03, "529": 0.03, "drop_on_arrival": 0.03,
    "drop_before_headers": 0.03, "drop_after_headers": 0.02, "cut_body": 0.03, "error_200": 0.02, "hang": 0.005,
    "empty": 0.01, "context": 0.005,
}  # fmt: skip
REFUSED = {"429", "503", "529"}
"""A status said that there is no answer: nothing was billed."""
UNKNOWN = {*CUTS, "error_200", "hang", "408", "500"}
"""Sent, and no whole answer came: perhaps billed."""
SETTINGS = Settings(seed=5, faults=FAULTS, retry_after_s=0.05, hang_s=60.0, keep_requests=True)


def course(prompt: str) -> list[str | None]:
    """Return the faults of every attempt that a prompt should take, the last one's included."""
    met: list[str | None] = []
    while len(met) < MOST:
        met.append(fault(SETTINGS, prompt, len(met) + 1))
        if met[-1] not in REFUSED | UNKNOWN:
            break
    return met


def prompt_of(call: dict[str, Any]) -> str:
    """Return the prompt of a call in the double's bill."""
    body = call["request"]["body"]
    text: str = body["contents"][0]["parts"][0]["text"] if "contents" in body else OpenAI.prompt(body)
    return text


def text_of(prompt: str) -> str:
    """Return what should come of a prompt: the reply's text, or the reason for none."""
    last = course(prompt)[-1]
    if last is None:
        return f"echo: {prompt}"
    return {"empty": "", "context": "refused"}.get(last, "no_reply")


@pytest.mark.slow
def test_of_2000_items_under_faults_none_is_lost_none_doubled_and_all_money_is_counted(
    double: Double, wired: Wired, open_service: Open, tmp_path: Path
) -> None:
    double.control(**{name: getattr(SETTINGS, name) for name in ("seed", "faults", "retry_after_s", "hang_s")})
    double.control(keep_requests=True)
    llms = [wired(name, max_attempts=MOST, timeout_s=4.0) for name in PROVIDERS]
    requests = {f"item {n}": ask_for(llms[n % 3], f"item {n}") for n in range(ITEMS)}
    service = open_service()
    outcomes = dict(zip(requests, service.ask(list(requests.values()), silent), strict=True))
    courses = {prompt: course(prompt) for prompt in requests}

    assert {prompt: told(outcome) for prompt, outcome in outcomes.items()} == {p: text_of(p) for p in requests}
    assert _attempts_at_the_server(double) == courses
    assert _attempts_in_the_journal(tmp_path) == {
        requests[prompt].key: [_settled(kind) for kind in met] for prompt, met in courses.items()
    }
    delivered = Counter(call["body"] for call in double.bill()["calls"] if call["fault"] in (None, "empty"))
    assert set(delivered.values()) == {1}
    replies = {prompt: outcome for prompt, outcome in outcomes.items() if isinstance(outcome, Reply)}
    assert len(delivered) == len(replies)
    assert double.bill()["early"] == 0

    paid = sum(reply.cost_usd for reply in replies.values())
    worst = {prompt: (r.longest_prompt * 5 + r.llm.max_tokens * 20) / 1e6 for prompt, r in requests.items()}
    unknown = sum(worst[prompt] for prompt, met in courses.items() for kind in met if kind in UNKNOWN)
    assert service.spent_usd == pytest.approx(paid + unknown, rel=1e-9)
    billed = double.bill()["totals"]
    assert service.spent_usd >= (billed["prompt_tokens"] * 5 + billed["completion_tokens"] * 20) / 1e6

    _ask_again_what_failed(double, open_service, requests, outcomes)
    met = Counter(kind for found in courses.values() for kind in found if kind)
    assert set(met) == set(FAULTS)
    assert 0.27 < sum(met.values()) / sum(map(len, courses.values())) < 0.33


def _attempts_at_the_server(double: Double) -> dict[str, list[str | None]]:
    found = defaultdict(list)
    for call in double.bill()["calls"]:
        found[prompt_of(call)].append(call["fault"])
    return dict(found)


def _attempts_in_the_journal(tmp_path: Path) -> dict[str, list[str]]:
    found = defaultdict(list)
    for key, outcome in rows(tmp_path, "SELECT key, outcome FROM attempts ORDER BY id"):
        found[key].append(outcome)
    return dict(found)


def _settled(kind: str | None) -> str:
    if kind in UNKNOWN:
        return "unknown"
    return "replied" if kind in (None, "empty") else "failed"


def _ask_again_what_failed(
    double: Double, open_service: Open, requests: dict[str, Request], outcomes: dict[str, Outcome]
) -> None:
    """Check that a resumed run buys what got no reply, and nothing else."""
    double.control(reset=True, faults={})
    again = dict(zip(requests, open_service().ask(list(requests.values()), silent), strict=True))
    failed = {prompt for prompt, outcome in outcomes.items() if isinstance(outcome, Failure)}
    assert failed
    assert Counter(prompt_of(call) for call in double.bill()["calls"]) == Counter(failed)
    assert {prompt: outcome for prompt, outcome in again.items() if prompt not in failed} == {
        prompt: outcome for prompt, outcome in outcomes.items() if prompt not in failed
    }
    assert all(told(again[prompt]) == f"echo: {prompt}" for prompt in failed)


def test_two_that_ask_the_same_at_the_same_time_buy_it_once_under_faults(
    double: Double, wired: Wired, tmp_path: Path
) -> None:
    kinds = {"429": 0.1, "500": 0.1, "drop_before_headers": 0.1, "cut_body": 0.1}
    double.control(faults=kinds, retry_after_s=0.05, median_s=0.02, sigma=0.5)
    requests = [ask_for(wired(PROVIDERS[n % 3], max_attempts=9, concurrency=8), f"item {n}") for n in range(60)]
    first, second = together(*(partial(asked_as, f"study/{name}", tmp_path, requests) for name in "ab"))
    assert first == second
    assert [told(outcome) for outcome in first] == [f"echo: {request.prompt}" for request in requests]
    delivered = Counter(call["body"] for call in double.bill()["calls"] if call["fault"] is None)
    assert (len(delivered), set(delivered.values())) == (60, {1})


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_broken_connection_is_one_request_and_one_attempt(
    double: Double, wired: Wired, open_service: Open, tmp_path: Path, provider: str
) -> None:
    double.control(script=list(CUTS))
    reply_of(open_service(), ask_for(wired(provider, max_attempts=5)))
    assert [call["fault"] for call in double.bill()["calls"]] == [*CUTS, None]
    assert list(_attempts_in_the_journal(tmp_path).values()) == [["unknown"] * 4 + ["replied"]]


@pytest.mark.parametrize("status", ["400", "401", "403", "404"])
def test_a_refused_call_ends_the_stage_after_one_try_and_what_is_in_flight_is_kept(
    double: Double, wired: Wired, open_service: Open, status: str
) -> None:
    double.control(median_s=0.3, scripts={"the bad one": [status] * 9})
    llm = wired("openai", concurrency=6)
    requests = [ask_for(llm, text) for text in ("one", "two", "three", "the bad one", "four", "five", "six", "seven")]
    with pytest.raises(ServiceError, match=rf"refused the call \(.*, {status}\)"):
        open_service().ask(requests, silent)
    statuses = double.bill()["totals"]["statuses"]
    assert statuses[status] == 1
    assert 5 <= statuses["200"] < 7
    double.control(scripts={})
    assert all(isinstance(outcome, Reply) for outcome in open_service().ask(requests, silent))
    assert double.bill()["totals"]["statuses"] == {status: 1, "200": 8}
