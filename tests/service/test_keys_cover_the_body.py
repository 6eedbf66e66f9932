"""A request's key in the journal covers what arrives at the server, and nothing else but the repeat's number.

Every field of `ServiceLLM` and of `Request` is changed, one at a time, for three providers; address and body are
those that the wire double took down. A field that is not listed here makes the tests fail: say what it does.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from asking import Wired, asked_as, rows, silent
from wire_double import PROVIDERS, Double

from llamaduo.config import Judge, Price, ServiceLLM
from llamaduo.errors import ConfigError
from llamaduo.records import Prediction
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.prompts import VERDICT_SCHEMA
from llamaduo.service.requests import Request
from llamaduo.service.transport import batch_body
from llamaduo.stages.judge import judge

Arrived = tuple[str, str]
"""Address and body, as the server saw them."""
Arrives = Callable[[Request], Arrived | None]
Base = Callable[[str], Request]

MODELS = {"openai": "gpt-4o-2024-08-06", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-pro"}
OTHERS = {"openai": "gpt-4o-mini-2024-07-18", "anthropic": "claude-opus-4-1", "gemini": "gemini-2.5-flash"}
SENT = {"provider", "base_url", "model", "max_tokens", "temperature", "json_schema", "send_seed", "parameters"}
NOT_SENT: dict[str, Any] = {
    "name": "another name",
    "api_key_env": "ANOTHER_KEY",
    "key_required": False,
    "concurrency": 3,
    "requests_per_minute": 6000,
    "tokens_per_minute": 60_000_000,
    "timeout_s": 7.0,
    "max_attempts": 2,
    "batch_fallback": False,
    "batch_poll_s": 1.0,
    "price": Price(1.0, 2.0, "another day"),
    "retired": "2099-01-01",
    "unbounded_usage": True,
}
CONVERSATION = ({"role": "user", "content": "one"}, {"role": "assistant", "content": "two"})
OTHER_WORDS = {"role": "assistant", "content": "three"}
BY_ANOTHER_WAY = {"batch", "base_url_env", "headers_env"}
"""Doesn't change what is asked, but how it gets there; of variables the names are in the key (`test_addresses`)."""


@pytest.fixture
def arrived(double: Double, tmp_path: Path) -> Arrives:
    """Return a function that asks, with a journal that knows nothing yet, and returns what arrived; None: nothing."""
    numbers = count()

    def ask(request: Request) -> Arrived | None:
        double.control(reset=True, keep_requests=True)
        try:
            asked_as("study/run", tmp_path / f"{next(numbers)}.sqlite", [request])
        except ConfigError as error:
            assert "takes no seed" in str(error)  # noqa: PT017 - Anthropic's, which takes none
        calls = [call["request"] for call in double.bill()["calls"]]
        assert len(calls) <= 1
        return (calls[0]["headers"]["Host"] + calls[0]["url"], json.dumps(calls[0]["body"])) if calls else None

    return ask


@pytest.fixture
def base(wired: Wired) -> Base:
    """Return a function that makes a provider's request with every option that it takes."""

    def request(provider: str) -> Request:
        llm = wired(provider, model=MODELS[provider], json_schema=True, temperature=0.5, parameters={"top_k": 5})
        return Request(llm, "a prompt", VERDICT_SCHEMA, 3, "judge")

    return request


def changed_llm(request: Request, **fields: Any) -> Request:
    return dataclasses.replace(request, llm=dataclasses.replace(request.llm, **fields))


def of_what_is_sent(request: Request, wired: Wired) -> dict[str, Request]:
    """Return the request with each field that should make a difference changed."""
    llm = request.llm
    other = PROVIDERS[(PROVIDERS.index(llm.provider) + 1) % 3]
    return {
        "provider": changed_llm(request, provider=other, base_url=wired(other).base_url),
        "base_url": changed_llm(request, base_url=str(llm.base_url).replace("127.0.0.1", "localhost")),
        "model": changed_llm(request, model=OTHERS[llm.provider]),
        "max_tokens": changed_llm(request, max_tokens=65),
        "temperature": changed_llm(request, temperature=0.6),
        "json_schema": changed_llm(request, json_schema=False),
        "send_seed": changed_llm(request, send_seed=True),
        "parameters": changed_llm(request, parameters={"top_k": 6}),
        "parameters, one more": changed_llm(request, parameters={"top_k": 5, "top_p": 0.9}),
        "parameters, none": changed_llm(request, parameters={}),
        "temperature, none": changed_llm(request, temperature=None),
        "prompt": dataclasses.replace(request, prompt="a prompt "),
        "earlier": dataclasses.replace(request, earlier=({"role": "system", "content": "be brief"},)),
        "earlier, a conversation": dataclasses.replace(request, earlier=CONVERSATION),
        "earlier, other words": dataclasses.replace(request, earlier=(CONVERSATION[0], OTHER_WORDS)),
        "schema": dataclasses.replace(request, schema={**VERDICT_SCHEMA, "title": "another"}),
        "schema, none": dataclasses.replace(request, schema=None),
    }


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_changes_the_address_or_the_body_changes_the_key(
    wired: Wired, base: Base, arrived: Arrives, provider: str
) -> None:
    request = base(provider)
    plain = arrived(request)
    assert plain is not None
    for field, changed in of_what_is_sent(request, wired).items():
        came = arrived(changed)
        assert came is not None or (provider, field) == ("anthropic", "send_seed"), field
        assert came != plain, field
        assert changed.key != request.key, field
    for other in {*PROVIDERS} - {provider}:
        assert changed_llm(request, provider=other).key != request.key  # at the same address


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_changes_neither_leaves_the_key(
    base: Base, arrived: Arrives, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setenv("ANOTHER_KEY", "another-key-of-the-test")
    request = base(provider)
    plain = arrived(request)
    for field, value in NOT_SENT.items():
        changed = changed_llm(request, **{field: value})
        assert changed != request, field
        assert arrived(changed) == plain, field
        assert changed.key == request.key, field
    staged = dataclasses.replace(request, stage="synthesize")
    unset = changed_llm(request, parameters={"top_p": None, **request.llm.parameters})
    turned = changed_llm(request, json_schema=True, parameters=dict(reversed(request.llm.parameters.items())))
    for same in (staged, unset, turned):
        assert arrived(same) == plain
        assert same.key == request.key


def test_letters_case_what_lies_within_parameters_and_names_of_variables_are_in_the_key_and_the_price_is_not(
    base: Base,
) -> None:
    request = base("openai")
    others = [
        dataclasses.replace(request, prompt="A prompt"),
        *(changed_llm(request, parameters={"top_k": 5, "more": {"x": x}}) for x in (1, 2)),
        changed_llm(request, base_url_env="GATEWAY_URL"),
        changed_llm(request, headers_env={"X-Team": "TEAM"}),
    ]
    assert len({one.key for one in (request, *others)}) == 6
    assert changed_llm(request, price=None).key == request.key


def test_the_schema_is_no_part_of_the_key_where_it_is_not_sent(base: Base, arrived: Arrives) -> None:
    without = changed_llm(base("openai"), json_schema=False)
    bare = dataclasses.replace(without, schema=None)
    assert arrived(without) == arrived(bare)
    assert without.key == bare.key


def test_a_batch_asks_the_same(base: Base, arrived: Arrives) -> None:
    request = dataclasses.replace(base("openai"), earlier=CONVERSATION)
    batched = changed_llm(request, batch=True)
    assert batched.key == request.key
    told = {"schema": batched.schema, "seed": batched.repeat, "earlier": batched.earlier}
    body = batch_body(batched.llm, batched.prompt, **told)
    _, live = arrived(request) or ("", "")
    assert body == json.loads(live)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("send_seed", [True, False])
def test_the_repeat_changes_the_key_and_the_body_only_by_its_seed(
    base: Base, arrived: Arrives, provider: str, send_seed: bool
) -> None:
    send_seed = send_seed and provider != "anthropic"
    request = changed_llm(base(provider), send_seed=send_seed)
    other = dataclasses.replace(request, repeat=4)
    assert other.key != request.key
    assert (arrived(other) != arrived(request)) == send_seed


def test_every_field_is_among_these() -> None:
    assert SENT | set(NOT_SENT) | BY_ANOTHER_WAY == {field.name for field in dataclasses.fields(ServiceLLM)}
    assert {field.name for field in dataclasses.fields(Request)} == {
        "llm", "prompt", "schema", "repeat", "stage", "earlier",
    }  # fmt: skip


def test_a_key_is_the_same_for_ever(base: Base) -> None:
    """Replies that were bought before requests could have earlier turns are found again."""
    llm = dataclasses.replace(base("openai").llm, base_url="http://localhost/v1")
    known = "fecdb543993cd8f8365ff4ba1dd7ed7f432d8c3b6b4915fb2dbb37d60afbb1d4"
    assert Request(llm, "a prompt", None, 3, "judge").key == known


@pytest.mark.parametrize("send_seed", [True, False])
def test_m_repeats_are_m_requests_and_m_rows(double: Double, wired: Wired, tmp_path: Path, send_seed: bool) -> None:
    double.control(says="judge")
    panel = {name: wired(name, send_seed=send_seed and name != "anthropic") for name in PROVIDERS}
    answers = [Prediction(f"p{n}", 0, f"prompt {n}", "reference", "answer", "stop", 3, 3) for n in range(4)]
    repeats = 5
    for _ in range(2):  # the second time, all of it is in the journal
        service = Service(Journal(tmp_path / "journal.sqlite"), run="study/run", budget_usd=None)
        verdicts = judge(answers, config=Judge(panel=panel, repeats=repeats), service=service, progress=silent)
        service.close()
        asked = Counter((verdict.prompt_id, verdict.judge) for verdict in verdicts)
        assert asked == {(f"p{n}", name): repeats for n in range(4) for name in PROVIDERS}
        assert len({verdict.request for verdict in verdicts}) == 4 * 3 * repeats
        assert len(double.bill()["calls"]) == 4 * 3 * repeats
        assert rows(tmp_path, "SELECT count(*), count(DISTINCT key) FROM replies") == [(60, 60)]
