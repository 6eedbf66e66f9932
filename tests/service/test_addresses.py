"""An address and headers that lie in the environment: sent, and written nowhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from plain_server import plain_server

from llamaduo.compose import compose
from llamaduo.config import Experiment, ServiceLLM, fingerprint, plain
from llamaduo.errors import ConfigError
from llamaduo.service import transport
from llamaduo.service.addresses import address, headers
from llamaduo.service.requests import Request

CANARY = "canary-0123456789abcdef"


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, str]]]]:
    with plain_server("hello") as found:
        yield found


def llm(**fields: Any) -> ServiceLLM:
    known: dict[str, Any] = {"name": "x", "provider": "openai", "model": "m", "key_required": False}
    return ServiceLLM(**{**known, "base_url_env": "OUR_GATEWAY", "headers_env": {"X-Team": "OUR_TEAM"}, **fields})


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_both_are_sent_and_no_key_holds_them(
    provider: str, server: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, seen = server
    monkeypatch.setenv("OUR_GATEWAY", f"{place}/{CANARY}/v1")
    monkeypatch.setenv("OUR_TEAM", CANARY)
    asked = llm(provider=provider)
    reply = asyncio.run(transport.call(asked, "hi", schema=None, seed=0))
    assert "hello" in reply
    assert seen[0]["x-team"] == CANARY
    assert seen[0]["path"] == f"/{CANARY}/v1/chat/completions"
    sent = Request(asked, "hi", None, 0, "judge").sent
    assert (sent["base_url"], sent["base_url_env"]) == (None, "OUR_GATEWAY")
    assert CANARY not in json.dumps(sent)
    assert CANARY not in json.dumps(plain(asked))


def test_without_them_nothing_that_is_stored_changes(experiment: Experiment) -> None:
    tree = plain(experiment.service_llm)
    assert not {"base_url_env", "headers_env"} & tree.keys()
    assert "headers_env" not in Request(ServiceLLM("x", "openai", "m"), "hi", None, 0, "judge").sent
    before = fingerprint(experiment)
    experiment.service_llm.headers_env = {"X-Team": "OUR_TEAM"}
    assert fingerprint(experiment) != before


@pytest.mark.parametrize("value", ["", "ftp://x", "http://x\n"])
def test_a_variable_that_is_of_no_use_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUR_GATEWAY", value)
    monkeypatch.setenv("OUR_TEAM", "a\nb")
    with pytest.raises(ConfigError, match="OUR_GATEWAY"):
        address(llm())
    with pytest.raises(ConfigError, match=r"OUR_TEAM \(headers_env.X-Team\)"):
        headers(llm())


def test_they_are_named_on_the_command_line(compose_experiment: Callable[..., Experiment]) -> None:
    endpoint = ("judge=endpoint", "judge.panel.endpoint.model=m")
    at = "judge.panel.endpoint"
    made = compose_experiment(*endpoint, f"{at}.base_url_env=OUR_GATEWAY", "service_llm.headers_env.X-Team=OUR_TEAM")
    assert made.judge.panel["endpoint"].base_url_env == "OUR_GATEWAY"
    assert made.service_llm.headers_env == {"X-Team": "OUR_TEAM"}
    with pytest.raises(ConfigError, match=r"headers_env.X-Team=Bearer x: must be the name of a variable"):
        compose([f"{at}.base_url_env=OUR_GATEWAY", *endpoint, f"{at}.headers_env.X-Team='Bearer x'"])
