"""Batches: half the price, the same keys, and one batch whatever is killed, lost or wanted twice.

The wire double plays OpenAI's files and batches and counts every request to them; processes are forked and killed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import Open, Wired, asked_as, silent, together, told
from wire_double import Double

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import BudgetError, ServiceError
from llamaduo.service import batch as batch_module
from llamaduo.service import buying
from llamaduo.service.attempts import Reply
from llamaduo.service.journal import Journal
from llamaduo.service.prompts import VERDICT_SCHEMA
from llamaduo.service.requests import Failure, Outcome, Request

HALF = Price(5.0, 20.0, "a test", batch_input=2.5, batch_output=10.0)
_FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten what a batch waits for."""
    monkeypatch.setattr(batch_module, "_GATHER_S", 0.02)
    monkeypatch.setattr(batch_module, "_WAIT_S", 0.02)
    monkeypatch.setattr(buying, "_LONGEST_WAIT", 0.0)


@pytest.fixture
def batched(wired: Wired) -> Callable[..., ServiceLLM]:
    """Return a function that makes a service LLM which is asked in batches."""
    return lambda **fields: wired("openai", **({"batch": True, "batch_poll_s": 0.02, "price": HALF} | fields))


def asked(llm: ServiceLLM, count: int = 10, start: int = 0) -> list[Request]:
    return [Request(llm, f"row {n}", None, 0, "judge") for n in range(start, start + count)]


def texts(outcomes: list[Outcome]) -> list[str]:
    return [told(outcome) for outcome in outcomes]


def created(double: Double) -> int:
    """Return how often a batch was asked for."""
    return int(double.bill()["endpoints"].get("POST /v1/batches", 0))


def billed_once(double: Double, count: int) -> None:
    """Check that as many distinct requests were billed, by batch or live, none of them twice."""
    bodies = Counter(line["body"] for line in double.bill()["billed"])
    assert (len(bodies), set(bodies.values())) == (count, {1})


ECHOES = [f"echo: row {n}" for n in range(10)]


def test_a_batch_costs_half_and_a_live_run_finds_its_replies(
    double: Double, batched: Wired, open_service: Open
) -> None:
    double.control(batch_polls=3)
    service = open_service()
    replies = service.ask(asked(batched()), silent)
    assert texts(replies) == ECHOES
    bill = double.bill()
    assert bill["calls"] == []
    assert created(double) == 1
    total = bill["totals"]
    full = (total["prompt_tokens"] * 5 + total["completion_tokens"] * 20) / 1e6
    assert service.spent_usd == pytest.approx(full / 2)
    assert sum(reply.cost_usd for reply in replies if isinstance(reply, Reply)) == pytest.approx(full / 2)
    live = asked(batched(batch=False))
    assert [request.key for request in live] == [request.key for request in asked(batched())]
    assert open_service("study/another").ask(live, silent) == replies
    assert double.bill()["calls"] == []
    assert open_service("study/a_third").ask(asked(batched()), silent) == replies
    assert created(double) == 1


def test_what_was_bought_live_is_not_put_into_a_batch(double: Double, batched: Wired, open_service: Open) -> None:
    open_service().ask(asked(batched(batch=False), 4), silent)
    assert texts(open_service().ask(asked(batched()), silent)) == ECHOES
    assert Counter(line["batch"] is None for line in double.bill()["billed"]) == {True: 4, False: 6}
    open_service().ask(asked(batched()), silent)
    assert created(double) == 1


def test_an_unknown_price_of_batches_counts_as_the_full_price(
    double: Double, batched: Wired, open_service: Open
) -> None:
    service = open_service()
    service.ask(asked(batched(price=Price(5.0, 20.0, "a test"))), silent)
    total = double.bill()["totals"]
    assert service.spent_usd == pytest.approx((total["prompt_tokens"] * 5 + total["completion_tokens"] * 20) / 1e6)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.5, "send_seed": True, "parameters": {"top_p": 0.9, "seed_of_another_kind": {"x": [1, None]}}},
        {"model": "gpt-4o-2024-08-06", "json_schema": True},
        {"model": "gpt-5", "json_schema": True, "parameters": {"reasoning_effort": "low"}},
    ],
)
def test_a_row_of_a_batch_says_what_a_live_call_would(
    double: Double, batched: Wired, open_service: Open, tmp_path: Path, fields: dict[str, Any]
) -> None:
    request = Request(batched(**fields), "a prompt: \u00e4 \u2028", VERDICT_SCHEMA, 3, "judge")
    open_service().ask([request], silent)
    live = Request(batched(batch=False, **fields), request.prompt, VERDICT_SCHEMA, 3, "judge")
    asked_as("study/run", tmp_path / "another.sqlite", [live])
    by_batch, alone = double.bill()["billed"]
    assert (by_batch["batch"] is None, alone["batch"] is None) == (False, True)
    assert by_batch["body"] == alone["body"]


def test_of_an_expired_batch_the_rows_that_are_done_are_kept_and_the_rest_is_asked_live(
    double: Double, batched: Wired, open_service: Open
) -> None:
    double.control(batch_outcome="expired", batch_share=0.4)
    service = open_service()
    assert texts(service.ask(asked(batched()), silent)) == ECHOES
    assert Counter(line["batch"] is None for line in double.bill()["billed"]) == {False: 4, True: 6}
    billed_once(double, 10)
    paid = sum(
        (line["prompt_tokens"] * 5 + line["completion_tokens"] * 20) / (1e6 if line["batch"] is None else 2e6)
        for line in double.bill()["billed"]
    )
    assert service.spent_usd == pytest.approx(paid)


@pytest.mark.parametrize(
    ("settings", "done"),
    [
        ({"batch_outcome": "expired", "batch_share": 0.4}, 4),
        ({"batch_outcome": "failed"}, 0),
        ({"batch_error_share": 0.5}, None),
    ],
)
def test_without_fallback_what_a_batch_did_not_bring_is_no_reply_until_the_next_run(
    double: Double, batched: Wired, open_service: Open, settings: dict[str, Any], done: int | None
) -> None:
    double.control(**settings)
    llm = batched(batch_fallback=False)
    first = open_service().ask(asked(llm), silent)
    failed = [outcome for outcome in first if isinstance(outcome, Failure)]
    assert all((failure.reason, failure.message) == ("no_reply", "its batch brought none") for failure in failed)
    assert 0 < len(failed) < 10 if done is None else len(failed) == 10 - done
    assert double.bill()["calls"] == []
    double.control(batch_outcome="completed", batch_error_share=0.0)
    assert texts(open_service().ask(asked(llm), silent)) == ECHOES
    assert created(double) == 2
    billed_once(double, 10)


@pytest.mark.parametrize("settings", [{"batch_outcome": "failed"}, {"batch_error_share": 0.5}])
def test_with_fallback_it_is_asked_live(
    double: Double, batched: Wired, open_service: Open, settings: dict[str, Any]
) -> None:
    double.control(**settings)
    assert texts(open_service().ask(asked(batched()), silent)) == ECHOES
    assert created(double) == 1
    assert double.bill()["calls"]
    billed_once(double, 10)


@pytest.mark.parametrize(
    ("endpoint", "script", "requests"),
    [
        ("POST /v1/files", ["503", "drop_before_headers"], 3),
        ("POST /v1/batches", ["503", "429"], 3),
        ("POST /v1/batches", ["drop_before_headers"], 1),
        ("POST /v1/batches", ["cut_body"], 1),
        ("POST /v1/batches", ["hang"], 1),
        ("GET /v1/batches", ["500", "drop_after_headers"], 3),
        ("GET /v1/batches/{id}", ["500", "drop_before_headers"], 3),
        ("GET /v1/files/{id}/content", ["cut_body", "503"], 3),
    ],
)
def test_faults_of_its_endpoints_are_tried_again_and_make_no_second_batch(
    double: Double, batched: Wired, open_service: Open, endpoint: str, script: list[str], requests: int
) -> None:
    lost = {"POST /v1/batches": ["drop_before_headers"]} if endpoint == "GET /v1/batches" else {}
    double.control(endpoint_scripts=lost | {endpoint: script}, retry_after_s=0.02, hang_s=30.0)
    assert texts(open_service().ask(asked(batched(timeout_s=0.5)), silent)) == ECHOES
    assert double.bill()["endpoints"][endpoint] == requests
    billed_once(double, 10)
    assert double.bill()["calls"] == []


@pytest.mark.parametrize("status", ["400", "401"])
def test_a_batch_that_is_refused_ends_the_stage_and_the_next_run_hands_it_in(
    double: Double, batched: Wired, open_service: Open, tmp_path: Path, status: str
) -> None:
    double.control(endpoint_scripts={"POST /v1/batches": [status]})
    with pytest.raises(ServiceError, match=rf"refused the call \(.*, {status}\)"):
        asked_as("study/run", tmp_path, asked(batched()))
    assert created(double) == 1
    assert texts(open_service().ask(asked(batched()), silent)) == ECHOES
    assert created(double) == 2
    billed_once(double, 10)
    assert double.bill()["calls"] == []


STEPS = [
    ("files.create", "before", 1),
    ("files.create", "after", 1),
    ("batches.create", "before", 1),
    ("batches.create", "after", 1),
    ("batches.retrieve", "before", 1),
    ("batches.retrieve", "after", 2),
    ("files.content", "before", 1),
    ("files.content", "after", 1),
    ("record", "after", 1),
    ("record", "after", 4),
]


@pytest.mark.parametrize(("step", "moment", "nth"), STEPS)
def test_killed_at_any_step_it_goes_on_without_a_second_batch(
    double: Double, batched: Wired, open_service: Open, tmp_path: Path, step: str, moment: str, nth: int
) -> None:
    double.control(batch_polls=3)
    requests = asked(batched())
    process = _FORK.Process(target=_ask_and_die, args=(tmp_path, requests, step, moment, nth))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    never_made = step == "files.create" or (step, moment) == ("batches.create", "before")
    assert created(double) == (0 if never_made else 1)
    service = open_service()
    assert texts(service.ask(requests, silent)) == ECHOES
    assert created(double) == 1
    billed_once(double, 10)
    assert double.bill()["calls"] == []
    total = double.bill()["totals"]
    assert service.spent_usd == pytest.approx((total["prompt_tokens"] * 5 + total["completion_tokens"] * 20) / 2e6)


def _ask_and_die(tmp_path: Path, requests: list[Request], step: str, moment: str, nth: int) -> None:
    """Ask in a process that is killed before or after the n-th time that it does something."""
    passed = Counter[str]()

    def dying(real: Callable[..., Any], name_of: Callable[..., str]) -> Callable[..., Any]:
        async def call(*arguments: Any, **options: Any) -> Any:
            passed[name := name_of(*arguments)] += 1
            if (name, moment, passed[name]) == (step, "before", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            result = await real(*arguments, **options)
            if (name, moment, passed[name]) == (step, "after", nth):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    batch_module.batch_call = dying(batch_module.batch_call, lambda _, verb: str(verb))
    Journal.record = dying(Journal.record, lambda *_: "record")  # type: ignore[method-assign]
    asked_as("study/run", tmp_path, requests)


def test_two_that_want_the_same_rows_share_one_batch(double: Double, batched: Wired, tmp_path: Path) -> None:
    double.control(batch_polls=8)
    first, second, third = together(*(partial(asked_as, f"study/{name}", tmp_path, asked(batched())) for name in "abc"))
    assert texts(first) == ECHOES
    assert first == second == third
    assert created(double) == 1
    billed_once(double, 10)


def test_rows_that_only_one_of_two_wants_are_in_one_batch_too(double: Double, batched: Wired, tmp_path: Path) -> None:
    double.control(batch_polls=8)
    requests = asked(batched(), 20), asked(batched(), 20, start=10)
    first, second = together(*(partial(asked_as, f"study/{n}", tmp_path, wanted) for n, wanted in enumerate(requests)))
    assert texts(first) == [f"echo: row {n}" for n in range(20)]
    assert texts(second) == [f"echo: row {n}" for n in range(10, 30)]
    assert created(double) == 2
    billed_once(double, 30)


def test_who_asks_live_waits_for_rows_that_are_in_a_batch(double: Double, batched: Wired, tmp_path: Path) -> None:
    double.control(batch_polls=15)

    def later() -> list[Outcome]:
        while not created(double):
            pass
        return asked_as("study/b", tmp_path, asked(batched(batch=False), 12))

    first, second = together(lambda: asked_as("study/a", tmp_path, asked(batched())), later)
    assert texts(second) == [f"echo: row {n}" for n in range(12)]
    assert first == second[:10]
    billed_once(double, 12)
    assert len(double.bill()["calls"]) == 2


def worst(request: Request) -> float:
    return (request.longest_prompt * 2.5 + request.llm.max_tokens * 10) / 1e6


@pytest.mark.parametrize("rows_that_fit", [2.5, 4.5, 11])
def test_a_budget_bounds_what_a_batch_may_cost(
    double: Double, batched: Wired, open_service: Open, monkeypatch: pytest.MonkeyPatch, rows_that_fit: float
) -> None:
    sizes: list[tuple[int, float]] = []
    real = batch_module.Batches._create

    async def counted(self: Any, batch: str, requests: list[Request]) -> None:
        sizes.append((len(requests), service.spent_usd))
        await real(self, batch, requests)

    monkeypatch.setattr(batch_module.Batches, "_create", counted)
    requests = asked(batched())
    cap = rows_that_fit * worst(requests[0])
    service = open_service(budget_usd=cap)
    assert texts(service.ask(requests, silent)) == ECHOES
    assert sum(size for size, _ in sizes) == 10
    assert all(spent + size * worst(requests[0]) <= cap + 1e-9 for size, spent in sizes)
    assert len(sizes) > 1 or rows_that_fit > 10
    billed_once(double, 10)


def test_a_budget_without_room_for_one_row_sends_none(double: Double, batched: Wired, open_service: Open) -> None:
    requests = asked(batched())
    with pytest.raises(BudgetError, match=r"loop\.budget_usd=.*: \$0\.0000 are spent, the next call could cost \$"):
        open_service(budget_usd=0.9 * worst(requests[0])).ask(requests, silent)
    assert created(double) == 0
    assert double.bill()["billed"] == []


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list whose text is the content of every result file, if it has any."""
    said: list[str] = []
    real = batch_module.batch_call

    async def call(llm: ServiceLLM, verb: str, **arguments: Any) -> Any:
        if verb == "files.content" and said:
            return SimpleNamespace(text=said[0])
        return await real(llm, verb, **arguments)

    monkeypatch.setattr(batch_module, "batch_call", call)
    return said


def row(request: Request, text: str = "a reply", **changes: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    body["usage"] = {"prompt_tokens": 2, "completion_tokens": 3}
    return {"custom_id": request.key, "response": {"status_code": 200, "body": body}, "error": None} | changes


def test_a_reply_may_hold_any_character(batched: Wired, open_service: Open, results: list[str]) -> None:
    requests = asked(batched(), 3)
    odd = ["one\u2028two", "\x85 \x0b \x1c", "\u00e4 \U0001f600 \ud800"]
    rows = [row(request, text) for request, text in zip(requests, odd, strict=True)]
    results.append("".join(json.dumps(one, ensure_ascii="\ud800" in str(one)) + "\n" for one in rows))
    assert texts(open_service().ask(requests, silent)) == ["one\u2028two", "\x85 \x0b \x1c", "\u00e4 \U0001f600 ?"]


def test_a_row_that_was_carried_out_and_brings_nothing_readable_counts_at_its_worst(
    batched: Wired, open_service: Open, results: list[str]
) -> None:
    requests = asked(batched(batch_fallback=False), 5)
    broken = {"status_code": 200, "body": {"choices": 7}}
    refused = {"status_code": 400, "body": {"error": {}}}
    lines = [
        json.dumps(row(requests[0])),
        json.dumps(row(requests[1], response=broken)),
        json.dumps(row(requests[2], response=refused)),
        json.dumps(row(requests[3]))[:-20],
        "null",
        "",
    ]
    results.append("\n".join(lines))
    service = open_service()
    assert texts(service.ask(requests, silent)) == ["a reply", "", *["no_reply"] * 3]
    unknown = worst(requests[1]) + worst(requests[3]) + worst(requests[4])
    assert service.spent_usd == pytest.approx((2 * 2.5 + 3 * 10) / 1e6 + unknown)
