"""The budget: what is billed never exceeds the cap, whatever is in flight; a call that can't fit isn't sent.

Raising the cap continues a run and buys nothing twice.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from llamaduo.config import Price
from llamaduo.errors import BudgetError
from llamaduo.service.budget import Budget
from llamaduo.service.client import Request, Service
from llamaduo.service.journal import Reply

A_DOLLAR_A_WORD = Price(0.0, 1e6, "a test")


@pytest.mark.parametrize("seed", range(5))
def test_the_cap_holds_at_every_moment_under_concurrency(seed: int) -> None:
    rng = random.Random(seed)
    calls = [(worst := rng.uniform(0.1, 2.0), rng.uniform(0.0, worst), rng.randrange(4)) for _ in range(60)]
    budget, most, in_flight, sent = Budget(20.0, 1.5), 1.5, 0.0, 0

    async def call(worst: float, paid: float, turns: int) -> None:
        nonlocal most, in_flight, sent
        await budget.reserve(worst)
        sent += 1
        in_flight += worst
        most = max(most, budget.spent_usd + in_flight)
        for _ in range(turns):
            await asyncio.sleep(0)
        in_flight -= worst
        await budget.settle(worst, paid)

    async def all_calls() -> list[Any]:
        return await asyncio.gather(*(call(*c) for c in calls), return_exceptions=True)

    outcomes = asyncio.run(all_calls())
    refused = [outcome for outcome in outcomes if outcome is not None]
    assert most <= 20.0 + 1e-9
    assert budget.spent_usd <= 20.0 + 1e-9
    assert all(isinstance(outcome, BudgetError) for outcome in refused)
    assert sent + len(refused) == 60
    assert sent > 10


def test_without_a_cap_nothing_waits_or_fails() -> None:
    async def spend() -> float:
        budget = Budget(None, 3.0)
        for _ in range(10):
            await budget.reserve(1e6)
        for _ in range(10):
            await budget.settle(1e6, 2.0)
        return budget.spent_usd

    assert asyncio.run(spend()) == 23.0


def test_a_call_that_fits_once_others_are_settled_waits_for_them() -> None:
    async def spend() -> list[str]:
        budget, order = Budget(1.0, 0.0), []
        await budget.reserve(0.8)

        async def second() -> None:
            await budget.reserve(0.7)
            order.append("second sent")
            await budget.settle(0.7, 0.7)

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.01)
        order.append("first settled")
        await budget.settle(0.8, 0.2)
        await waiting
        return order

    assert asyncio.run(spend()) == ["first settled", "second sent"]


def test_the_error_says_cap_spent_and_worst_case() -> None:
    async def spend() -> None:
        await Budget(2.0, 1.25).reserve(0.8)

    with pytest.raises(BudgetError, match=r"loop\.budget_usd=2: \$1\.2500 are spent.*\$0\.8000.*Raise the budget"):
        asyncio.run(spend())


def test_a_cap_of_nothing_lets_free_calls_through_and_no_other() -> None:
    async def spend(worst: float) -> None:
        await Budget(0.0, 0.0).reserve(worst)

    asyncio.run(spend(0.0))
    with pytest.raises(BudgetError):
        asyncio.run(spend(1e-9))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_stopped_run_goes_on_with_a_larger_cap_and_buys_nothing_twice(
    concurrency: int,
    llm: Callable[..., Any],
    open_service: Callable[..., Service],
    ask_for: Callable[..., Request],
    silent: Callable[[int, int], None],
) -> None:
    asked: list[str] = []

    def program(prompt: str, _: Any) -> str:
        asked.append(prompt)
        return "one two three"

    costly = llm(program, price=A_DOLLAR_A_WORD, max_tokens=4, concurrency=concurrency)
    requests = [ask_for(costly, f"prompt {number}") for number in range(10)]
    with pytest.raises(BudgetError, match=r"loop\.budget_usd=16"):
        open_service(budget_usd=16.0).ask(requests, silent)
    assert len(asked) == 5  # 5 times 3 dollars are spent; the sixth call could cost 4
    again = open_service(budget_usd=16.0)
    with pytest.raises(BudgetError, match=r"\$15\.0000 are spent"):
        again.ask(requests, silent)
    assert len(asked) == 5
    replies = open_service(budget_usd=34.0).ask(requests, silent)
    assert [type(reply) for reply in replies] == [Reply] * 10
    assert sorted(asked) == sorted(request.prompt for request in requests)
    assert sum(reply.cost_usd for reply in replies if isinstance(reply, Reply)) == pytest.approx(30.0)


def test_what_another_run_paid_is_not_on_this_runs_bill(
    llm: Callable[..., Any],
    open_service: Callable[..., Service],
    ask_for: Callable[..., Request],
    silent: Callable[[int, int], None],
) -> None:
    costly = llm(lambda *_: "one two", price=A_DOLLAR_A_WORD, max_tokens=2)
    open_service("study/first").ask([ask_for(costly, "a"), ask_for(costly, "b")], silent)
    second = open_service("study/second", budget_usd=2.0)
    second.ask([ask_for(costly, "a"), ask_for(costly, "b")], silent)  # bought by the first
    second.ask([ask_for(costly, "c")], silent)
    with pytest.raises(BudgetError):
        second.ask([ask_for(costly, "d")], silent)
