"""The budgets: what is billed never exceeds a cap, whatever is in flight; a call that can't fit isn't sent.

They lie in the journal, so all runs and processes that share it keep them together. Raising a cap continues a run and
buys nothing twice.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import LLM, Open, Program, ask_for, reply_of, rows, silent
from litellm_faults import fault, timeout

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import BudgetError
from llamaduo.service import buying, transport
from llamaduo.service.attempts import Attempt, Caps, Reply, Short, study_of
from llamaduo.service.journal import Journal

A_DOLLAR_A_WORD = Price(0.0, 1e6, "a test")


# ---------------------------------------------------------------- through the client


@pytest.mark.parametrize("seed", range(4))
def test_the_cap_holds_at_every_moment_under_concurrency(
    seed: int, llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(seed)
    words = {f"prompt {n}": (worst := rng.randint(1, 20), rng.randint(1, worst)) for n in range(40)}
    turns = {prompt: rng.randrange(8) for prompt in words}
    send, spent, in_flight, most = transport.call, 0, 0, 0

    async def call(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        nonlocal spent, in_flight, most
        worst, paid = words[prompt]
        in_flight += worst
        most = max(most, spent + in_flight)
        for _ in range(turns[prompt]):
            await asyncio.sleep(0.001)
        response = await send(called, prompt, **options)
        in_flight -= worst
        spent += paid
        return response

    monkeypatch.setattr(buying, "call", call)
    fake = llm(lambda prompt, _: "word " * words[prompt][1], price=A_DOLLAR_A_WORD, concurrency=8)
    requests = [ask_for(dataclasses.replace(fake, max_tokens=worst), prompt) for prompt, (worst, _) in words.items()]
    service = open_service(budget_usd=150.0)
    with pytest.raises(BudgetError):
        service.ask(requests, silent)
    assert most <= 150
    assert service.spent_usd == pytest.approx(spent)
    assert spent > 100  # what was in flight was waited for, so that what fits gets in
    assert open_service().ask(requests, silent)
    assert spent == sum(paid for _, paid in words.values())  # each once


def test_without_a_cap_nothing_waits_or_fails(llm: LLM, open_service: Open) -> None:
    costly = llm(lambda *_: "two words", price=A_DOLLAR_A_WORD, max_tokens=10**6)
    service = open_service()
    service.ask([ask_for(costly, str(n)) for n in range(10)], silent)
    assert service.spent_usd == pytest.approx(20.0)


def test_a_call_that_fits_once_others_are_settled_waits_for_them(
    llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    send = transport.call

    async def call(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        order.append(f"{prompt} sent")
        await asyncio.sleep(0.2)
        response = await send(called, prompt, **options)
        order.append(f"{prompt} answered")
        return response

    monkeypatch.setattr(buying, "call", call)
    costly = llm(lambda *_: "two words", price=A_DOLLAR_A_WORD, max_tokens=8)
    open_service(budget_usd=10.0).ask([ask_for(costly, text) for text in ("first", "second")], silent)
    assert order[0::2] in (["first sent", "second sent"], ["second sent", "first sent"])
    assert order[1] == order[0].replace("sent", "answered")


def test_a_call_that_fails_gives_its_room_back(llm: LLM, open_service: Open, waits: list[float]) -> None:
    program = Program(*(fault(429) for _ in range(5)), reply="two words")
    costly = llm(program, price=A_DOLLAR_A_WORD, max_tokens=8, max_attempts=6)
    service = open_service(budget_usd=8.0)
    reply_of(service, ask_for(costly))
    assert service.spent_usd == pytest.approx(2.0)


def test_unknown_outcomes_take_room_for_good(llm: LLM, open_service: Open, waits: list[float]) -> None:
    costly = llm(Program(*(timeout() for _ in range(99))), price=A_DOLLAR_A_WORD, max_tokens=8, max_attempts=9)
    for _ in range(2):
        service = open_service(budget_usd=30.0)
        with pytest.raises(BudgetError, match=r"\$24\.0000 are spent, the next call could cost \$8\.0000"):
            service.ask([ask_for(costly)], silent)
    assert service.spent_usd == pytest.approx(24.0)


def test_the_error_says_cap_spent_and_worst_case(llm: LLM, open_service: Open) -> None:
    costly = llm(lambda *_: "one", price=Price(0.0, 0.25e6, "a quarter a word"), max_tokens=4)
    service = open_service(budget_usd=1.1)
    service.ask([ask_for(costly, "a")], silent)
    with pytest.raises(
        BudgetError,
        match=r"^loop\.budget_usd=1\.1: \$0\.2500 are spent, the next call could cost \$1\.0000\. Raise the",
    ):
        service.ask([ask_for(costly, "b")], silent)


def test_a_cap_of_nothing_lets_free_calls_through_and_no_other(llm: LLM, open_service: Open) -> None:
    program = Program(reply="word")
    service = open_service(budget_usd=0.0, study_budget_usd=0.0)
    reply_of(service, ask_for(llm(program), "free"))
    with pytest.raises(BudgetError, match=r"^loop\.budget_usd=0:"):
        service.ask([ask_for(llm(program, price=Price(0.0, 1.0, "")), "costs")], silent)
    assert program.prompts == ["free"]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_stopped_run_goes_on_with_a_larger_cap_and_buys_nothing_twice(
    concurrency: int, llm: LLM, open_service: Open
) -> None:
    program = Program(reply="one two three")
    costly = llm(program, price=A_DOLLAR_A_WORD, max_tokens=4, concurrency=concurrency)
    requests = [ask_for(costly, f"prompt {number}") for number in range(10)]
    with pytest.raises(BudgetError, match=r"loop\.budget_usd=16"):
        open_service(budget_usd=16.0).ask(requests, silent)
    assert len(program.prompts) == 5  # 5 times 3 dollars are spent; the sixth call could cost 4
    again = open_service(budget_usd=16.0)
    with pytest.raises(BudgetError, match=r"\$15\.0000 are spent"):
        again.ask(requests, silent)
    assert len(program.prompts) == 5
    replies = open_service(budget_usd=34.0).ask(requests, silent)
    assert [type(reply) for reply in replies] == [Reply] * 10
    assert sorted(program.prompts) == sorted(request.prompt for request in requests)
    assert sum(reply.cost_usd for reply in replies if isinstance(reply, Reply)) == pytest.approx(30.0)


def test_what_another_run_paid_is_not_on_this_runs_bill(llm: LLM, open_service: Open) -> None:
    costly = llm(lambda *_: "one two", price=A_DOLLAR_A_WORD, max_tokens=2)
    open_service("study/first").ask([ask_for(costly, "a"), ask_for(costly, "b")], silent)
    second = open_service("study/second", budget_usd=2.0)
    second.ask([ask_for(costly, "a"), ask_for(costly, "b")], silent)  # bought by the first
    second.ask([ask_for(costly, "c")], silent)
    with pytest.raises(BudgetError):
        second.ask([ask_for(costly, "d")], silent)


def test_the_studys_budget_is_kept_over_its_runs_and_named(llm: LLM, open_service: Open) -> None:
    costly = llm(lambda *_: "one two", price=A_DOLLAR_A_WORD, max_tokens=2)
    first = open_service("mine/first", 100.0, study_budget_usd=6.0)
    first.ask([ask_for(costly, "a"), ask_for(costly, "b")], silent)
    second = open_service("mine/second", 100.0, study_budget_usd=6.0)
    second.ask([ask_for(costly, "c")], silent)
    for service in (first, second):
        with pytest.raises(
            BudgetError, match=r"^service\.study_budget_usd=6: \$6\.0000 are spent, the next call could cost \$2\.0000"
        ):
            service.ask([ask_for(costly, "d")], silent)
    other = open_service("mine_too/first", study_budget_usd=6.0)
    other.ask([ask_for(costly, text) for text in "efg"], silent)
    open_service("mine/second", study_budget_usd=8.0).ask([ask_for(costly, "d")], silent)


def test_the_smaller_of_both_budgets_stops(llm: LLM, open_service: Open) -> None:
    costly = llm(lambda *_: "one two", price=A_DOLLAR_A_WORD, max_tokens=2, concurrency=1)
    requests = [ask_for(costly, str(n)) for n in range(9)]
    with pytest.raises(BudgetError, match=r"^loop\.budget_usd=4:"):
        open_service("mine/first", 4.0, study_budget_usd=10.0).ask(requests, silent)
    with pytest.raises(BudgetError, match=r"^service\.study_budget_usd=10: \$10\.0000 are spent"):
        open_service("mine/second", 40.0, study_budget_usd=10.0).ask(requests, silent)


# ---------------------------------------------------------------- in the journal


@pytest.fixture
def journals(tmp_path: Path) -> Iterator[tuple[Journal, Journal]]:
    """Open one file twice, as two processes would."""
    pair = Journal(tmp_path / "journal.sqlite"), Journal(tmp_path / "journal.sqlite")
    yield pair
    for journal in pair:
        journal.close()


def wish(key: str, worst_usd: float, run: str = "study/run") -> Attempt:
    return Attempt(key, {"model": "m"}, run, "judge", "p/m", worst_usd)


def reply(key: str, cost_usd: float) -> Reply:
    return Reply(key, "t", "stop", 1, 1, cost_usd)


async def test_room_is_reserved_at_its_worst_until_it_is_settled(journals: tuple[Journal, Journal]) -> None:
    first, second = journals
    caps = Caps(run_usd=1.0)
    number = await first.begin(wish("a", 0.8), caps)
    assert isinstance(number, int)
    assert await second.begin(wish("b", 0.3), caps) == Short("run", 0.0, 0.8)
    assert isinstance(await second.begin(wish("c", 0.2), caps), int)
    await first.record(number, reply("a", 0.1), "{}")
    assert isinstance(await second.begin(wish("b", 0.7), caps), int)
    assert await second.begin(wish("d", 0.01), caps) == Short("run", pytest.approx(0.1), pytest.approx(0.9))


async def test_the_study_reserves_what_its_runs_have_in_flight(journals: tuple[Journal, Journal]) -> None:
    first, second = journals
    caps = Caps(study_usd=1.0)
    assert isinstance(await first.begin(wish("a", 0.6, "mine/first"), caps), int)
    assert await second.begin(wish("b", 0.6, "mine/second"), caps) == Short("study", 0.0, 0.6)
    assert isinstance(await second.begin(wish("b", 0.6, "min/second"), caps), int)
    assert isinstance(await second.begin(wish("c", 0.6, "mine_/second"), caps), int)


@pytest.mark.parametrize("seed", range(3))
async def test_two_journals_at_once_keep_both_caps(seed: int, journals: tuple[Journal, Journal]) -> None:
    rng = random.Random(seed)
    runs = ("mine/a", "mine/b")
    calls = [(n, (worst := rng.uniform(0.1, 2)), rng.uniform(0, worst), rng.choice(runs)) for n in range(60)]
    caps, now, most = Caps(12.0, 20.0), dict.fromkeys(runs, 0.0), dict.fromkeys((*runs, "all"), 0.0)

    async def call(number: int, worst: float, paid: float, run: str) -> bool:
        journal = rng.choice(journals)
        begun = await journal.begin(wish(str(number), worst, run), caps)
        if not isinstance(begun, int):
            return False
        now[run] += worst
        most[run], most["all"] = max(most[run], now[run]), max(most["all"], sum(now.values()))
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0.001)
        now[run] += paid - worst
        await journal.record(begun, reply(str(number), paid), "{}")
        return True

    async def all_calls() -> list[bool]:
        async with asyncio.timeout(30):
            return await asyncio.gather(*(call(*c) for c in calls))

    sent = await all_calls()
    assert 5 < sum(sent) < 60
    assert max(most[run] for run in runs) <= 12 + 1e-9
    assert most["all"] <= 20 + 1e-9
    spent = sum(paid for (_, _, paid, _), was_sent in zip(calls, sent, strict=True) if was_sent)
    assert journals[0].spent("mine") == pytest.approx(spent)
    assert sum(journals[1].spent(run) for run in runs) == pytest.approx(spent)


async def test_the_sums_are_those_of_the_attempts(journals: tuple[Journal, Journal], tmp_path: Path) -> None:
    journal, _ = journals
    for number, run in enumerate(("mine/a", "mine/a", "mine/b", "alone")):
        begun = await journal.begin(wish(str(number), 1.0, run), Caps())
        assert isinstance(begun, int)
        if number == 1:
            await journal.fail(begun, cost_usd=1.0, outcome="unknown")
        else:
            await journal.record(begun, reply(str(number), 0.25), "{}")
    assert dict(rows(tmp_path, "SELECT scope, usd FROM spent")) == {
        "mine": 1.5,
        "mine/a": 1.25,
        "mine/b": 0.25,
        "alone": 0.25,
    }
    assert journal.spent("mine/c") == 0.0


async def test_an_attempt_is_settled_once(journals: tuple[Journal, Journal]) -> None:
    journal, _ = journals
    begun = await journal.begin(wish("a", 1.0), Caps())
    assert isinstance(begun, int)
    for _ in range(2):
        await journal.fail(begun, cost_usd=1.0, outcome="unknown")
        await journal.record(begun, reply("a", 0.5), "{}")
    assert journal.spent("study/run") == journal.spent("study") == 1.0


def test_the_study_is_all_but_the_runs_own_name() -> None:
    assert [study_of(run) for run in ("study/run", "a/b/run", "run")] == ["study", "a/b", "run"]
