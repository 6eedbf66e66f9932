"""The client: each distinct request is bought once, the raw reply is stored before anything reads it.

Faults that waiting may mend are tried again, after Retry-After where it is given; refusals end at once;
keys come from the environment and reach no message.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import ConfigError, InputError, ServiceError
from llamaduo.service import client, transport
from llamaduo.service.client import Failure, Request, Service
from llamaduo.service.journal import Journal, Reply
from llamaduo.service.replies import UnreadableError, read_scores

LLM = Callable[..., ServiceLLM]
Open = Callable[..., Service]
AskFor = Callable[..., Request]
Silent = Callable[[int, int], None]

BY_STATUS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


def fault(status: int, text: str = "a fault", **headers: str) -> Exception:
    """Return litellm's exception for a status."""
    import litellm

    response = httpx.Response(status, headers=headers, request=httpx.Request("POST", "http://localhost"))
    found: Exception = getattr(litellm, BY_STATUS[status])(
        message=text, llm_provider="fake", model="m", response=response
    )
    return found


class Program:
    """A service LLM that raises what it is told to, in order, and then answers."""

    def __init__(self, *faults: Exception | Callable[[], Exception], reply: str = "the reply") -> None:
        self.faults, self.reply = list(faults), reply
        self.prompts: list[str] = []
        self.parameters: list[dict[str, Any]] = []

    def __call__(self, prompt: str, parameters: Mapping[str, Any]) -> str:
        self.prompts.append(prompt)
        self.parameters.append(dict(parameters))
        if self.faults:
            raise self.faults.pop(0)
        return self.reply


def rows(tmp_path: Path, query: str) -> list[tuple[Any, ...]]:
    return sqlite3.connect(tmp_path / "journal.sqlite").execute(query).fetchall()


def test_replies_come_in_the_order_of_the_requests_with_tokens_and_price(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent
) -> None:
    echo = llm(lambda prompt, _: f"re: {prompt}", price=Price(2.0, 4.0, "a test"))
    replies = open_service().ask([ask_for(echo, f"number {n}") for n in range(9)], silent)
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [f"re: number {n}" for n in range(9)]
    first = replies[0]
    assert isinstance(first, Reply)
    assert (first.finish_reason, first.prompt_tokens, first.completion_tokens) == ("stop", 2, 3)
    assert first.cost_usd == pytest.approx((2 * 2.0 + 3 * 4.0) / 1e6)


def test_identical_requests_are_bought_once_in_one_ask(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent
) -> None:
    program = Program()
    fake = llm(program)
    replies = open_service().ask(
        [ask_for(fake, "a"), ask_for(fake, "b"), ask_for(fake, "a"), ask_for(fake, "a")], silent
    )
    assert Counter(program.prompts) == {"a": 1, "b": 1}
    assert replies[0] == replies[2] == replies[3] != replies[1]


def test_identical_requests_are_bought_once_in_a_resumed_run_and_in_another(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent
) -> None:
    program = Program()
    fake = llm(program)
    bought = open_service("study/a").ask([ask_for(fake)], silent)
    for run in ("study/a", "study/b"):
        assert open_service(run).ask([ask_for(fake)], silent) == bought
    assert program.prompts == ["p"]


def test_another_repeat_is_another_purchase(llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent) -> None:
    program = Program()
    fake = llm(program)
    open_service().ask([ask_for(fake, repeat=n) for n in range(3)], silent)
    assert len(program.prompts) == 3


def test_a_request_in_flight_elsewhere_is_waited_for_and_not_bought_twice(
    llm: LLM, ask_for: AskFor, silent: Silent, tmp_path: Path
) -> None:
    seen: list[str] = []

    def slow(prompt: str, _: Mapping[str, Any]) -> str:
        seen.append(prompt)
        time.sleep(0.02)
        return f"re: {prompt}"

    fake = llm(slow, concurrency=2)
    requests = [ask_for(fake, f"prompt {n}") for n in range(12)]
    outcomes: dict[str, Any] = {}

    def one_run(name: str) -> None:
        service = Service(Journal(tmp_path / "journal.sqlite"), run=f"study/{name}", budget_usd=None)
        outcomes[name] = service.ask(requests, silent)
        service.close()

    threads = [threading.Thread(target=one_run, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert Counter(seen) == Counter(f"prompt {n}" for n in range(12))
    assert outcomes["a"] == outcomes["b"] == outcomes["c"]


def test_what_is_sent_reaches_the_service(llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent) -> None:
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


def test_what_is_switched_off_is_not_sent(llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent) -> None:
    program = Program()
    fake = llm(program, send_seed=False, json_schema=False)
    open_service().ask([ask_for(fake, schema={"type": "object"})], silent)
    assert not {"seed", "temperature", "response_format"} & program.parameters[0].keys()


def test_the_request_is_stored_before_it_is_sent(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, tmp_path: Path
) -> None:
    seen = []

    def program(prompt: str, _: Mapping[str, Any]) -> str:
        seen.extend(rows(tmp_path, "SELECT request, run, stage FROM requests"))
        assert rows(tmp_path, "SELECT * FROM replies") == []
        return "ok"

    open_service().ask([ask_for(llm(program), "the prompt")], silent)
    ((request, run, stage),) = seen
    assert json.loads(request)["messages"][0]["content"] == "the prompt"
    assert (run, stage) == ("study/run", "judge")


@pytest.mark.parametrize("text", ["no JSON at all", "", '{"similarity": NaN', "\x00\x01", "日本語 " * 1000])
def test_a_reply_is_stored_raw_however_unreadable_it_is(
    text: str, llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, tmp_path: Path
) -> None:
    program = Program(reply=text)
    fake = llm(program)
    (reply,) = open_service().ask([ask_for(fake)], silent)
    assert isinstance(reply, Reply)
    assert reply.text == text
    with pytest.raises(UnreadableError):
        read_scores(reply.text, reply.finish_reason)
    ((stored, raw),) = rows(tmp_path, "SELECT text, raw FROM replies")
    assert stored == text
    assert json.loads(raw)["choices"][0]["message"]["content"] == text
    assert open_service("study/other").ask([ask_for(fake)], silent) == [reply]
    assert len(program.prompts) == 1


def test_a_reply_with_a_lone_surrogate_is_stored_too(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent
) -> None:
    program = Program(reply="half of an emoji: \ud83d")
    fake = llm(program)
    (reply,) = open_service().ask([ask_for(fake)], silent)
    assert isinstance(reply, Reply)
    assert reply.text.startswith("half of an emoji: ")
    assert open_service().ask([ask_for(fake)], silent) == [reply]
    assert len(program.prompts) == 1


def test_a_reply_without_choices_is_stored_and_unscored(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import litellm

    async def nothing(*_: Any, **__: Any) -> Any:
        return litellm.ModelResponse(choices=[], usage=litellm.Usage(prompt_tokens=5, completion_tokens=0))

    monkeypatch.setattr(client, "call", nothing)
    (reply,) = open_service().ask([ask_for(llm(Program()))], silent)
    assert isinstance(reply, Reply)
    assert len(rows(tmp_path, "SELECT raw FROM replies")) == 1
    with pytest.raises(UnreadableError, match="no_reply"):
        read_scores(reply.text, reply.finish_reason)


@pytest.mark.parametrize(("status", "retry_after"), [(429, "7"), (429, "90.5"), (503, "3"), (500, "11")])
def test_retry_after_is_waited_for(
    status: int,
    retry_after: str,
    llm: LLM,
    open_service: Open,
    ask_for: AskFor,
    silent: Silent,
    waits: list[float],
) -> None:
    program = Program(fault(status, **{"retry-after": retry_after}), fault(status, **{"retry-after": retry_after}))
    (reply,) = open_service().ask([ask_for(llm(program))], silent)
    assert isinstance(reply, Reply)
    assert len(program.prompts) == 3
    assert len(waits) == 2
    assert min(waits) >= float(retry_after)


def test_a_retry_after_of_hours_ends_the_run_and_says_so(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float]
) -> None:
    with pytest.raises(ServiceError, match=r"fake asks to come back in 7,200 s: .*; run the same command then"):
        open_service().ask([ask_for(llm(Program(fault(429, **{"retry-after": "7200"}))))], silent)
    assert waits == []


def test_a_prompt_beyond_the_context_is_refused_and_no_other(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent
) -> None:
    import litellm

    too_long = litellm.ContextWindowExceededError(message="too long", model="m", llm_provider="fake")
    fake = llm(Program(too_long), concurrency=1)
    outcomes = open_service().ask([ask_for(fake, text) for text in "ab"], silent)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Failure", "Reply"]


def test_a_reply_without_usage_is_charged_at_its_worst(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    import litellm

    send = transport.call

    async def free(*args: Any, **options: Any) -> Any:
        response = await send(*args, **options)
        response.usage = litellm.Usage(prompt_tokens=0, completion_tokens=0)
        return response

    monkeypatch.setattr(client, "call", free)
    (reply,) = open_service().ask([ask_for(llm(Program(), price=Price(0.0, 1e6, "a dollar a token")))], silent)
    assert isinstance(reply, Reply)
    assert reply.cost_usd == pytest.approx(64.0)


def test_without_retry_after_the_waits_grow_and_stay_bounded(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float]
) -> None:
    program = Program(*(fault(500) for _ in range(11)))
    (reply,) = open_service().ask([ask_for(llm(program, max_attempts=12))], silent)
    assert isinstance(reply, Reply)
    assert len(waits) == 11
    assert all(0.5 * 0.5 * 2 ** (n + 1) <= wait <= 60 for n, wait in enumerate(waits[:6]))
    assert all(30 <= wait <= 60 for wait in waits[6:])


@pytest.mark.parametrize("text", ["soon", "-5", "nan", "Fri, 31 Dec 1999 23:59:59 GMT"])
def test_a_retry_after_that_makes_no_sense_is_not_waited_for(
    text: str, llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float]
) -> None:
    program = Program(fault(429, **{"retry-after": text}))
    (reply,) = open_service().ask([ask_for(llm(program))], silent)
    assert isinstance(reply, Reply)
    assert all(0 < wait <= 60 for wait in waits)


def test_a_waiting_call_holds_no_slot(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float]
) -> None:
    program = Program(fault(429))
    fake = llm(program, concurrency=1)
    open_service().ask([ask_for(fake, text) for text in ("a", "b", "c")], silent)
    assert len(waits) == 1
    assert program.prompts[-1] == program.prompts[0]  # the one that failed comes again after all others
    assert sorted(program.prompts[1:]) == ["a", "b", "c"]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_refusal_is_not_tried_again(
    status: int, llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float], tmp_path: Path
) -> None:
    program = Program(fault(status, "wrong model\nor key"))
    with pytest.raises(ServiceError, match=rf"^fake refused the call \({BY_STATUS[status]}, {status}\): ") as caught:
        open_service().ask([ask_for(llm(program))], silent)
    assert len(program.prompts) == 1
    assert waits == []
    assert "\n" not in str(caught.value)
    assert rows(tmp_path, "SELECT * FROM replies") == []


def test_a_refusal_of_one_call_keeps_the_replies_in_flight(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    send = transport.call

    async def slow(called: ServiceLLM, prompt: str, **options: Any) -> Any:
        if prompt == "bad":
            raise ServiceError("fake refused the call")
        response = await send(called, prompt, **options)
        await asyncio.sleep(0.1)
        return response

    monkeypatch.setattr(client, "call", slow)
    fake = llm(Program(), concurrency=4)
    with pytest.raises(ServiceError):
        open_service().ask([ask_for(fake, text) for text in ("good", "bad")], silent)
    assert rows(tmp_path, "SELECT text FROM replies") == [("the reply",)]


def test_a_safety_filter_refuses_one_request_and_no_other(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent
) -> None:
    import litellm

    def program(prompt: str, _: Mapping[str, Any]) -> str:
        if prompt == "bad":
            raise litellm.ContentPolicyViolationError("not this", model="m", llm_provider="fake")
        return "ok"

    fake = llm(program)
    outcomes = open_service().ask([ask_for(fake, text) for text in ("good", "bad", "fine")], silent)
    assert [type(outcome) for outcome in outcomes] == [Reply, Failure, Reply]
    assert isinstance(outcomes[1], Failure)
    assert outcomes[1].reason == "refused"


def _timeout() -> Exception:
    import litellm

    return litellm.Timeout(message="too slow", model="m", llm_provider="fake")


def _broken() -> Exception:
    import litellm

    return litellm.APIConnectionError(message="connection reset", model="m", llm_provider="fake")


@pytest.mark.parametrize(
    "make",
    [lambda: fault(429), lambda: fault(500), lambda: fault(503), _timeout, _broken],
    ids=["429", "500", "503", "timeout", "broken connection"],
)
def test_tries_that_are_used_up_are_a_failure_and_no_error(
    make: Callable[[], Exception], llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float]
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
    (later,) = service.ask([ask_for(fake)], silent)  # a failure is not stored as if it were a reply
    assert isinstance(later, Reply)


def test_an_outage_ends_after_several_failures_in_a_row(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float]
) -> None:
    program = Program(*(fault(503) for _ in range(1000)))
    fake = llm(program, concurrency=1, max_attempts=2)
    with pytest.raises(ServiceError, match=r"fake is out of reach: 4 calls in a row failed.*Run the same command"):
        open_service().ask([ask_for(fake, f"prompt {n}") for n in range(50)], silent)
    assert len(program.prompts) < 110
    assert len(waits) <= 50


def test_failures_between_replies_are_no_outage(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, waits: list[float]
) -> None:
    def program(prompt: str, _: Mapping[str, Any]) -> str:
        if int(prompt) % 3:
            raise fault(503)
        return "ok"

    fake = llm(program, concurrency=1, max_attempts=1)
    outcomes = open_service().ask([ask_for(fake, str(n)) for n in range(30)], silent)
    assert sum(isinstance(outcome, Reply) for outcome in outcomes) == 10


def test_progress_counts_each_request_that_is_bought_once(llm: LLM, open_service: Open, ask_for: AskFor) -> None:
    fake = llm(Program())
    open_service().ask([ask_for(fake, "a")], lambda done, total: None)
    seen: list[tuple[int, int]] = []
    open_service().ask([ask_for(fake, text) for text in "abcab"], lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2), (2, 2)]


def test_nothing_to_ask_is_nothing_asked(open_service: Open, silent: Silent) -> None:
    assert open_service().ask([], silent) == []


def test_a_missing_key_names_its_variable_and_nothing_is_sent(
    open_service: Open, ask_for: AskFor, silent: Silent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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


def test_a_program_needs_no_key(llm: LLM) -> None:
    assert transport.api_key(llm(Program())) is None


@pytest.mark.parametrize(
    ("provider", "variable"),
    [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY"), ("gemini", "GEMINI_API_KEY")],
)
def test_a_key_comes_from_the_providers_usual_variable(
    provider: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ServiceLLM(name="n", provider=provider, model="m")
    with pytest.raises(ConfigError, match=variable):
        transport.api_key(known)
    monkeypatch.setenv(variable, "k")
    assert transport.api_key(known) == "k"


def test_a_key_that_is_not_required_may_be_missing() -> None:
    assert transport.api_key(ServiceLLM(name="n", provider="openai", model="m", key_required=False)) is None


@pytest.mark.parametrize(("provider", "variable"), [("mistral", "MISTRAL_API_KEY"), ("deepseek", "DEEPSEEK_API_KEY")])
def test_every_provider_has_a_usual_variable(provider: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "k")
    assert transport.api_key(ServiceLLM(name="n", provider=provider, model="m")) == "k"


def test_an_unknown_price_is_refused_before_anything_is_sent(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent
) -> None:
    program = Program()
    with pytest.raises(ConfigError, match=r"^fake: the price of .*/m is unknown; set price\.input and price\.output"):
        open_service().ask([ask_for(llm(program, price=None))], silent)
    assert program.prompts == []


def test_a_price_comes_from_litellms_map_if_none_is_set() -> None:
    known = ServiceLLM(name="n", provider="openai", model="gpt-4o-2024-08-06")
    assert transport.prices(known) == (2.5e-6, 1e-5)


SECRET = "sk-secret-0123456789-abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("status", [401, 429])
def test_the_key_reaches_no_message(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_GATEWAY_KEY", SECRET)
    gateway = ServiceLLM(name="gateway", provider="openai", model="m", api_key_env="MY_GATEWAY_KEY")
    message = str(transport._translated(fault(status, f"the key {SECRET} is wrong, {SECRET}!"), gateway))
    assert "[key] is wrong" in message
    assert "secret" not in message


def test_no_part_of_the_key_reaches_a_message_that_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    known = ServiceLLM(name="n", provider="openai", model="m")
    for before in range(200, 300):
        message = str(transport._translated(fault(401, "x" * before + SECRET), known))
        assert "sk-secret" not in message, before


def test_a_program_can_be_registered_anew(llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent) -> None:
    first = llm(Program(reply="first"))
    open_service().ask([ask_for(first, "a")], silent)
    transport.register(first.provider, Program(reply="second"))
    (reply,) = open_service().ask([ask_for(first, "b")], silent)
    assert isinstance(reply, Reply)
    assert reply.text == "second"


def test_a_full_disk_ends_the_run_with_a_way_out(
    llm: LLM, open_service: Open, ask_for: AskFor, silent: Silent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Journal, statement: str, values: Any) -> None:
        raise InputError("journal: database or disk is full; free space")

    service = open_service()
    monkeypatch.setattr(Journal, "_write", full)
    with pytest.raises(InputError, match="disk is full"):
        service.ask([ask_for(llm(Program()))], silent)
