"""The client: each distinct request is bought once, the raw reply is stored before anything reads it.

Faults that waiting may mend are tried again, after Retry-After where it is given; refusals end at once;
keys come from the environment and reach no message.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asking import LLM, Open, Program, ask_for, asked_as, reply_of, rows, silent, together
from litellm_faults import broken, fault, timeout

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import ConfigError, InputError, ServiceError
from llamaduo.service import buying, client, loading, transport
from llamaduo.service.attempts import Attempt, Caps, Reply
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.limits import Gate
from llamaduo.service.replies import UnreadableError, read_scores
from llamaduo.service.requests import Answer, Failure, Outcome, Request


def test_replies_come_in_the_order_of_the_requests_with_tokens_and_price(llm: LLM, open_service: Open) -> None:
    echo = llm(lambda prompt, _: f"re: {prompt}", price=Price(2.0, 4.0, "a test"))
    replies = open_service().ask([ask_for(echo, f"number {n}") for n in range(9)], silent)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [f"re: number {n}" for n in range(9)]
    first = replies[0]
    assert isinstance(first, Reply)
    assert (first.finish_reason, first.prompt_tokens, first.completion_tokens) == ("stop", 2, 3)
    assert first.cost_usd == pytest.approx((2 * 2.0 + 3 * 4.0) / 1e6)


def test_identical_requests_are_bought_once_in_one_ask(llm: LLM, open_service: Open) -> None:
    program = Program()
    fake = llm(program)
    replies = open_service().ask(
        [ask_for(fake, "a"), ask_for(fake, "b"), ask_for(fake, "a"), ask_for(fake, "a")], silent
    )
    assert Counter(program.prompts) == {"a": 1, "b": 1}
    assert replies[0] == replies[2] == replies[3] != replies[1]


def test_identical_requests_are_bought_once_in_a_resumed_run_and_in_another(llm: LLM, open_service: Open) -> None:
    program = Program()
    fake = llm(program)
    bought = open_service("study/a").ask([ask_for(fake)], silent)
    for run in ("study/a", "study/b"):
        assert open_service(run).ask([ask_for(fake)], silent) == bought
    assert program.prompts == ["p"]


def test_another_repeat_is_another_purchase(llm: LLM, open_service: Open) -> None:
    program = Program()
    fake = llm(program)
    open_service().ask([ask_for(fake, repeat=n) for n in range(3)], silent)
    assert len(program.prompts) == 3


def test_a_request_in_flight_elsewhere_is_waited_for_and_not_bought_twice(llm: LLM, tmp_path: Path) -> None:
    seen: list[str] = []

    def slow(prompt: str, _: Mapping[str, Any]) -> str:
        seen.append(prompt)
        time.sleep(0.02)
        return f"re: {prompt}"

    fake = llm(slow, concurrency=2)
    requests = [ask_for(fake, f"prompt {n}") for n in range(12)]
    first, second, third = together(*(partial(asked_as, f"study/{name}", tmp_path, requests) for name in "abc"))
    assert Counter(seen) == Counter(f"prompt {n}" for n in range(12))
    assert first == second == third


def test_waiting_for_what_is_in_flight_elsewhere_uses_up_no_rate(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    admitted: list[int] = []
    slot = Gate.slot

    def counted(self: Gate, *, tokens: int, tries: int) -> Any:
        admitted.append(tokens)
        return slot(self, tokens=tokens, tries=tries)

    monkeypatch.setattr(Gate, "slot", counted)
    elsewhere, fake = Journal(tmp_path / "journal.sqlite"), llm(Program(), requests_per_minute=60_000)
    request = ask_for(fake)
    runner = asyncio.Runner()
    wish = Attempt(request.key, request.sent, "study/other", "judge", "fake/m", 0.0)
    number = runner.run(elsewhere.begin(wish, Caps()))
    assert isinstance(number, int)

    def later() -> None:
        time.sleep(0.6)
        runner.run(elsewhere.record(number, Reply(request.key, "theirs", "stop", 1, 1, 0.0), "{}"))

    (reply,), _ = together(lambda: asked_as("study/run", tmp_path, [request]), later)
    elsewhere.close()
    runner.close()
    assert reply.text == "theirs"
    assert len(admitted) <= 2


def test_what_is_sent_reaches_the_service(llm: LLM, open_service: Open) -> None:
    program = Program()
    fake = llm(program, max_tokens=77, temperature=0.25, send_seed=True, parameters={"strictness": 0.5})
    schema = {"type": "object"}
    open_service().ask([ask_for(fake, repeat=3, schema=schema)], silent)
    (sent,) = program.parameters
    assert sent["max_tokens"] == 77
    assert sent["temperature"] == 0.25
    assert sent["seed"] == 3
    assert sent["strictness"] == 0.5
    assert sent["response_format"]["json_schema"]["schema"] == schema


def test_what_is_switched_off_is_not_sent(llm: LLM, open_service: Open) -> None:
    program = Program()
    fake = llm(program, send_seed=False, json_schema=False)
    open_service().ask([ask_for(fake, schema={"type": "object"})], silent)
    assert not {"seed", "temperature", "response_format"} & program.parameters[0].keys()


def test_the_request_is_stored_before_it_is_sent(llm: LLM, open_service: Open, tmp_path: Path) -> None:
    seen = []

    def program(prompt: str, _: Mapping[str, Any]) -> str:
        seen.extend(rows(tmp_path, "SELECT request, run, stage, outcome FROM requests JOIN attempts USING (key)"))
        assert rows(tmp_path, "SELECT * FROM replies") == []
        return "ok"

    open_service().ask([ask_for(llm(program), "the prompt")], silent)
    ((request, run, stage, outcome),) = seen
    assert json.loads(request)["messages"][0]["content"] == "the prompt"
    assert (run, stage, outcome) == ("study/run", "judge", None)
    assert rows(tmp_path, "SELECT outcome FROM attempts") == [("replied",)]


@pytest.mark.parametrize("text", ["no JSON at all", "", '{"similarity": NaN', "\x00\x01", "日本語 " * 1000])
def test_a_reply_is_stored_raw_however_unreadable_it_is(
    text: str, llm: LLM, open_service: Open, tmp_path: Path
) -> None:
    program = Program(reply=text)
    fake = llm(program)
    reply = reply_of(open_service(), ask_for(fake))
    assert reply.text == text
    with pytest.raises(UnreadableError):
        read_scores(reply.text, reply.finish_reason)
    ((stored, raw),) = rows(tmp_path, "SELECT text, raw FROM replies")
    assert stored == text
    assert json.loads(raw)["choices"][0]["message"]["content"] == text
    assert open_service("study/other").ask([ask_for(fake)], silent) == [reply]
    assert len(program.prompts) == 1


def test_a_reply_with_a_lone_surrogate_is_stored_too(llm: LLM, open_service: Open) -> None:
    program = Program(reply="half of an emoji: \ud83d")
    fake = llm(program)
    reply = reply_of(open_service(), ask_for(fake))
    assert reply.text.startswith("half of an emoji: ")
    assert open_service().ask([ask_for(fake)], silent) == [reply]
    assert len(program.prompts) == 1


def test_a_reply_without_choices_is_stored_and_unscored(
    llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def nothing(*_: Any, **__: Any) -> str:
        return json.dumps({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 0}})

    monkeypatch.setattr(buying, "call", nothing)
    reply = reply_of(open_service(), ask_for(llm(Program())))
    assert len(rows(tmp_path, "SELECT raw FROM replies")) == 1
    with pytest.raises(UnreadableError, match="no_reply"):
        read_scores(reply.text, reply.finish_reason)


@pytest.mark.parametrize(("status", "retry_after"), [(429, "7"), (429, "90.5"), (503, "3"), (500, "11")])
def test_retry_after_is_waited_for(
    status: int, retry_after: str, llm: LLM, open_service: Open, waits: list[float]
) -> None:
    program = Program(fault(status, **{"retry-after": retry_after}), fault(status, **{"retry-after": retry_after}))
    reply_of(open_service(), ask_for(llm(program)))
    assert len(program.prompts) == 3
    assert len(waits) == 2
    assert min(waits) >= float(retry_after)


@pytest.mark.parametrize("counts", [(0, 0), (-500, 3), (10**30, 3)])
def test_a_reply_without_a_usage_that_can_be_is_charged_at_its_worst(
    counts: tuple[int, int], llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = transport.call

    async def free(*args: Any, **options: Any) -> str:
        dump = json.loads(await send(*args, **options))
        dump["usage"] = {"prompt_tokens": counts[0], "completion_tokens": counts[1]}
        return json.dumps(dump)

    monkeypatch.setattr(buying, "call", free)
    service = open_service()
    reply = reply_of(service, ask_for(llm(Program(), price=Price(0.0, 1e6, "a dollar a token"))))
    assert reply.cost_usd == service.spent_usd == pytest.approx(64.0)


def test_without_retry_after_the_waits_grow_and_stay_bounded(llm: LLM, open_service: Open, waits: list[float]) -> None:
    program = Program(*(fault(500) for _ in range(11)))
    reply_of(open_service(), ask_for(llm(program, max_attempts=12)))
    assert len(waits) == 11
    assert all(0.5 * 0.5 * 2 ** (n + 1) <= wait <= 60 for n, wait in enumerate(waits[:6]))
    assert all(30 <= wait <= 60 for wait in waits[6:])


@pytest.mark.parametrize("text", ["soon", "-5", "nan", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_retry_after_that_makes_no_sense_is_not_waited_for(
    text: str, llm: LLM, open_service: Open, waits: list[float]
) -> None:
    program = Program(fault(429, **{"retry-after": text}))
    reply_of(open_service(), ask_for(llm(program)))
    assert all(0 < wait <= 60 for wait in waits)


def test_a_waiting_call_holds_no_slot(llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program(fault(429))

    async def until_the_others_are_through(_: float) -> None:
        async with asyncio.timeout(10):
            while len(program.prompts) < 3:
                await asyncio.sleep(0.005)

    monkeypatch.setattr(buying, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": until_the_others_are_through}))
    fake = llm(program, concurrency=1)
    open_service().ask([ask_for(fake, text) for text in ("a", "b", "c")], silent)
    assert program.prompts[-1] == program.prompts[0]
    assert sorted(program.prompts[:3]) == ["a", "b", "c"]


def test_who_has_tried_before_goes_first(llm: LLM, open_service: Open, waits: list[float]) -> None:
    program = Program(fault(429))
    fake = llm(program, concurrency=1)
    open_service().ask([ask_for(fake, text) for text in "abcdef"], silent)
    assert len(waits) == 1
    again = program.prompts.index(program.prompts[0], 1)
    assert again <= 2  # at most one other has got the slot while it waited


@pytest.mark.parametrize(
    "make",
    [lambda: fault(429), lambda: fault(500), lambda: fault(503), timeout, broken],
    ids=["429", "500", "503", "timeout", "broken connection"],
)
def test_tries_that_are_used_up_are_a_failure_and_no_error(
    make: Callable[[], Exception], llm: LLM, open_service: Open, waits: list[float]
) -> None:
    program = Program(*(make() for _ in range(3)))
    fake = llm(program, max_attempts=3)
    service = open_service()
    (outcome,) = service.ask([ask_for(fake)], silent)
    assert isinstance(outcome, Failure)
    assert outcome.reason == "no_reply"
    assert outcome.message.startswith("fake")
    assert len(program.prompts) == 3
    assert len(waits) == 2
    reply_of(service, ask_for(fake))  # a failure is not stored as if it were a reply


def test_an_outage_ends_after_several_failures_in_a_row(llm: LLM, open_service: Open, waits: list[float]) -> None:
    program = Program(*(fault(503) for _ in range(1000)))
    fake = llm(program, concurrency=1, max_attempts=2)
    with pytest.raises(ServiceError, match=r"fake is out of reach: 4 calls in a row failed.*Run the same command"):
        open_service().ask([ask_for(fake, f"prompt {n}") for n in range(50)], silent)
    assert len(program.prompts) < 110
    assert len(waits) <= 50


def test_failures_between_replies_are_no_outage(llm: LLM, open_service: Open, waits: list[float]) -> None:
    def program(prompt: str, _: Mapping[str, Any]) -> str:
        if int(prompt) % 3:
            raise fault(503)
        return "ok"

    fake = llm(program, concurrency=1, max_attempts=1)
    outcomes = open_service().ask([ask_for(fake, str(n)) for n in range(30)], silent)
    assert sum(isinstance(outcome, Reply) for outcome in outcomes) == 10


def test_progress_counts_each_distinct_request_stored_ones_too(llm: LLM, open_service: Open) -> None:
    fake = llm(Program())
    open_service().ask([ask_for(fake, "a")], lambda done, total: None)
    seen: list[tuple[int, int]] = []
    open_service().ask([ask_for(fake, text) for text in "abcab"], lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_nothing_to_ask_is_nothing_asked(open_service: Open) -> None:
    assert open_service().ask([], silent) == []


def test_a_missing_key_names_its_variable_and_nothing_is_sent(
    open_service: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway = ServiceLLM(name="gateway", provider="openai", model="m", api_key_env="MY_GATEWAY_KEY")
    for value in (None, ""):
        if value is not None:
            monkeypatch.setenv("MY_GATEWAY_KEY", value)
        with pytest.raises(ConfigError, match=r"^gateway: the environment variable MY_GATEWAY_KEY is not set"):
            open_service().ask([ask_for(gateway)], silent)
    assert rows(tmp_path, "SELECT * FROM requests") == []
    monkeypatch.setenv("MY_GATEWAY_KEY", "k")
    assert transport.api_key(gateway) == "k"


def test_an_unknown_price_is_refused_before_anything_is_sent(llm: LLM, open_service: Open) -> None:
    program = Program()
    with pytest.raises(ConfigError, match=r"^fake: the price of .*/m is unknown; set price\.input and price\.output"):
        open_service().ask([ask_for(llm(program, price=None))], silent)
    assert program.prompts == []


def test_a_program_can_be_registered_anew(llm: LLM, open_service: Open) -> None:
    first = llm(Program(reply="first"))
    open_service().ask([ask_for(first, "a")], silent)
    loading.register(first.provider, Program(reply="second"))
    reply = reply_of(open_service(), ask_for(first, "b"))
    assert reply.text == "second"


def test_a_full_disk_ends_the_run_with_a_way_out(llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Journal, operations: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    service, program = open_service(), Program()
    monkeypatch.setattr(Journal, "_in_one_transaction", full)
    with pytest.raises(InputError, match=r"disk is full; free space or set service\.journal elsewhere"):
        service.ask([ask_for(llm(program))], silent)
    assert program.prompts == []


# ---------------------------------------------------------------- outcomes that are not known


def test_an_unknown_outcome_is_charged_at_its_worst_and_stays_on_the_bill(
    llm: LLM, open_service: Open, waits: list[float], tmp_path: Path
) -> None:
    fake = llm(Program(timeout(), broken(), reply="two words"), price=Price(0.0, 1e6, "a dollar a word"))
    service = open_service()
    reply = reply_of(service, ask_for(fake))
    assert reply.cost_usd == pytest.approx(2.0)
    assert service.spent_usd == pytest.approx(64 + 64 + 2)
    assert open_service().spent_usd == pytest.approx(130.0)
    outcomes = rows(tmp_path, "SELECT outcome, cost_usd FROM attempts ORDER BY id")
    assert outcomes == [("unknown", 64.0), ("unknown", 64.0), ("replied", 2.0)]


def test_a_refusal_and_an_overload_cost_nothing(
    llm: LLM, open_service: Open, waits: list[float], tmp_path: Path
) -> None:
    fake = llm(Program(fault(429), fault(503), reply="word"), price=Price(0.0, 1e6, "a dollar a word"))
    service = open_service()
    service.ask([ask_for(fake)], silent)
    assert service.spent_usd == pytest.approx(1.0)
    assert rows(tmp_path, "SELECT outcome FROM attempts ORDER BY id") == [("failed",), ("failed",), ("replied",)]


def test_what_was_cut_off_is_not_waited_for_when_it_is_asked_again(
    llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_GRACE_S", 0.05)
    send, hanging = transport.call, [True]

    async def stuck(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        if hanging and prompt == "bad":
            await asyncio.sleep(0.02)
            raise ServiceError("fake refused the call")
        if hanging:
            await asyncio.sleep(60)
        return await send(called, prompt, **options)

    monkeypatch.setattr(buying, "call", stuck)
    price = Price(0.0, 1e6, "a dollar a word")
    fake, service = llm(Program(reply="word"), price=price, timeout_s=0.05), open_service()
    with pytest.raises(ServiceError):
        service.ask([ask_for(fake, text) for text in ("slow", "bad")], silent)
    hanging.clear()
    reply_of(service, ask_for(fake, "slow"))
    assert service.spent_usd == pytest.approx(64 + 1)


# ---------------------------------------------------------------- stream


def collect(service: Service, *arguments: Any) -> list[Answer]:
    async def all_of_them() -> list[Answer]:
        return [answer async for answer in service.stream(*arguments)]

    return service._runner.run(all_of_them())


def test_answers_come_as_they_come_and_each_with_its_request(
    llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, turn, order = transport.call, {text: asyncio.Event() for text in "abc"}, "bca"

    async def slow(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        await asyncio.wait_for(turn[prompt].wait(), 10)
        return await send(called, prompt, **options)

    monkeypatch.setattr(buying, "call", slow)
    fake, service = llm(lambda prompt, _: f"re: {prompt}"), open_service()

    async def read() -> list[tuple[str, str]]:
        found = []
        turn[order[0]].set()
        async for answer in service.stream([ask_for(fake, text) for text in "abc"]):
            assert isinstance(answer.outcome, Reply)
            found.append((answer.request.prompt, answer.outcome.text))
            turn[order[len(found) % 3]].set()
        return found

    assert service._runner.run(read()) == [(text, f"re: {text}") for text in order]


def test_requests_may_come_one_by_one_while_answers_are_read(llm: LLM, open_service: Open) -> None:
    fake, service = llm(lambda prompt, _: f"re: {prompt}"), open_service()
    answered: asyncio.Queue[str] = asyncio.Queue()

    async def each_after_the_answer_to_the_one_before() -> AsyncIterator[Request]:
        prompt = "0"
        for _ in range(4):
            yield ask_for(fake, prompt)
            prompt = await asyncio.wait_for(answered.get(), 10)

    async def read() -> list[str]:
        texts = []
        async for answer in service.stream(each_after_the_answer_to_the_one_before()):
            assert isinstance(answer.outcome, Reply)
            texts.append(answer.outcome.text)
            answered.put_nowait(answer.outcome.text)
        return texts

    assert service._runner.run(read()) == [f"{'re: ' * n}0" for n in range(1, 5)]


def test_the_same_request_twice_has_two_answers_and_one_purchase(llm: LLM, open_service: Open) -> None:
    program = Program()
    fake = llm(program)
    answers = collect(open_service(), [ask_for(fake), ask_for(fake)])
    assert len(answers) == 2
    assert answers[0] == answers[1]
    assert len(program.prompts) == 1


def test_again_asks_at_once_and_the_last_outcome_holds_those_before_it(llm: LLM, open_service: Open) -> None:
    fake = llm(lambda _, parameters: f"try {parameters['seed']}", send_seed=True)

    def three_times(request: Request, outcome: Outcome) -> Request | None:
        return ask_for(fake, repeat=request.repeat + 1) if request.repeat < 2 else None

    for service in (open_service(), open_service("study/other")):  # bought, and stored
        (answer,) = collect(service, [ask_for(fake)], three_times)
        assert answer.request == ask_for(fake)
        assert isinstance(answer.outcome, Reply)
        assert answer.outcome.text == "try 2"
        assert [reply.text for reply in answer.outcome.before] == ["try 0", "try 1"]
        assert answer.outcome.key == ask_for(fake, repeat=2).key


def test_a_failure_at_the_end_of_a_chain_holds_the_replies_before_it(
    llm: LLM, open_service: Open, waits: list[float]
) -> None:
    def program(_: str, parameters: Mapping[str, Any]) -> str:
        if parameters["seed"] == 1:
            raise fault(503)
        return "first"

    fake = llm(program, send_seed=True, max_attempts=2)
    request = ask_for(fake)
    (answer,) = collect(
        open_service(), [request], lambda asked, _: ask_for(fake, repeat=1) if asked.repeat == 0 else None
    )
    assert isinstance(answer.outcome, Failure)
    assert [reply.text for reply in answer.outcome.before] == ["first"]


def test_one_chain_does_not_wait_for_another(llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, int]] = []
    send, through = transport.call, asyncio.Event()

    async def slow(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        sent.append((prompt, options["seed"]))
        if sent[-1] == ("quick", 1):
            through.set()
        if sent[-1] == ("slow", 0):
            await asyncio.wait_for(through.wait(), 10)
        return await send(called, prompt, **options)

    monkeypatch.setattr(buying, "call", slow)
    fake = llm(Program())

    def twice(request: Request, _: Outcome) -> Request | None:
        return None if request.repeat else ask_for(fake, request.prompt, repeat=1)

    collect(open_service(), [ask_for(fake, "slow"), ask_for(fake, "quick")], twice)
    assert sent == [("slow", 0), ("quick", 0), ("quick", 1), ("slow", 1)]


def test_an_error_in_one_call_winds_up_the_others(
    llm: LLM, open_service: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    send, sent = transport.call, []

    async def call(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        sent.append(prompt)
        if prompt == "1":
            await asyncio.sleep(0.05)
            raise ServiceError("fake refused the call")
        response = await send(called, prompt, **options)
        await asyncio.sleep(0.2)
        return response

    monkeypatch.setattr(buying, "call", call)
    fake, service = llm(Program(), concurrency=3), open_service()
    with pytest.raises(ServiceError, match="fake refused the call"):
        collect(service, [ask_for(fake, str(n)) for n in range(30)])
    assert len(sent) <= 4  # three at once, and one that got the slot of the refused one
    assert len(rows(tmp_path, "SELECT key FROM replies")) == len(sent) - 1  # what was sent came home
    assert rows(tmp_path, "SELECT * FROM attempts WHERE outcome IS NULL") == []


def test_an_error_of_whoever_makes_the_requests_ends_the_stream(llm: LLM, open_service: Open) -> None:
    fake = llm(Program())

    async def broken() -> AsyncIterator[Request]:
        yield ask_for(fake)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        collect(open_service(), broken())


def test_a_stream_that_nobody_reads_to_its_end_sends_no_more(llm: LLM, open_service: Open, tmp_path: Path) -> None:
    program = Program()
    fake, service = llm(program, concurrency=1), open_service()

    async def read_one() -> None:
        answers = service.stream([ask_for(fake, str(n)) for n in range(50)])
        await anext(answers)
        await answers.aclose()

    service._runner.run(read_one())
    assert len(program.prompts) < 10
    assert rows(tmp_path, "SELECT * FROM attempts WHERE outcome IS NULL") == []


# ---------------------------------------------------------------- replay


def test_a_replay_answers_from_the_journal_and_sends_nothing(llm: LLM, open_service: Open) -> None:
    program = Program()
    fake = llm(program)
    requests = [ask_for(fake, text) for text in "abb"]
    bought = open_service().ask(requests, silent)
    replay = open_service(replay=True)
    assert replay.ask(requests, silent) == bought
    assert sorted(program.prompts) == ["a", "b"]
    assert replay.spent_usd == 0.0


def test_a_replay_gives_the_failure_that_is_stored(llm: LLM, open_service: Open, waits: list[float]) -> None:
    import litellm

    def program(prompt: str, _: Mapping[str, Any]) -> str:
        if prompt == "down":
            raise fault(503)
        raise litellm.ContentPolicyViolationError("not this", model="m", llm_provider="fake")

    fake = llm(program, max_attempts=2)
    requests = [ask_for(fake, text) for text in ("down", "bad")]
    first = open_service().ask(requests, silent)
    assert open_service(replay=True).ask(requests, silent) == first
    assert [outcome.reason for outcome in first if isinstance(outcome, Failure)] == ["no_reply", "refused"]


def test_the_first_miss_ends_a_replay_and_names_what_is_missing(llm: LLM, open_service: Open, tmp_path: Path) -> None:
    program = Program()
    fake = llm(program)
    open_service().ask([ask_for(fake, "a")], silent)
    missing = ask_for(fake, "other", repeat=3)
    before = (tmp_path / "journal.sqlite").read_bytes()
    with pytest.raises(ServiceError) as caught:
        open_service(replay=True).ask([ask_for(fake, "a"), missing], silent)
    for part in ("replay", "journal.sqlite", f"{fake.provider}/m", missing.key[:8], "judge, repeat 3", "Nothing was"):
        assert part in str(caught.value)
    assert program.prompts == ["a"]
    assert (tmp_path / "journal.sqlite").read_bytes() == before


def test_a_replay_needs_no_key_no_price_and_no_budget(open_service: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reply(*_: Any, **__: Any) -> str:
        choice = {"message": {"content": "paid for"}, "finish_reason": "stop"}
        return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})

    real = ServiceLLM(name="real", provider="openai", model="m", api_key_env="SOME_API_KEY", price=Price(1, 1, "t"))
    monkeypatch.setenv("SOME_API_KEY", "k")
    monkeypatch.setattr(buying, "call", reply)
    bought = open_service().ask([ask_for(real)], silent)
    monkeypatch.delenv("SOME_API_KEY")
    monkeypatch.setattr(buying, "call", None)
    real.price = None
    assert open_service(replay=True, budget_usd=0.0).ask([ask_for(real)], silent) == bought
