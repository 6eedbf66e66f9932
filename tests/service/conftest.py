"""What tests of the service get besides: the wire double, service LLMs that lie behind it, and a filled journal.

`double` answers as if it were new in every test; `wired("anthropic", max_attempts=2)` is a service LLM that is
reached there over HTTP through litellm, its key in the environment. `original` is a journal that `numbered.py` filled,
`asked` the numbers that its service LLM is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from numbered import answering, filled
from wire_double import PROVIDERS, Double, Settings, serving

from llamaduo.config import Price, ServiceLLM
from llamaduo.service import buying


@pytest.fixture(scope="session")
def running_double() -> Iterator[Double]:
    """Run one double for all tests."""
    with serving() as running:
        yield running


@pytest.fixture
def double(running_double: Double) -> Double:
    """Return the double as if it were new; `receipts` and batches alone are kept from before."""
    fresh = asdict(Settings())
    del fresh["bill_path"]
    running_double.control(reset=True, **fresh)
    return running_double


@pytest.fixture
def wired(double: Double, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ServiceLLM]:
    """Return a function that makes a service LLM of a provider, which the double stands in for."""
    for provider in PROVIDERS:
        monkeypatch.setenv(f"{provider.upper()}_API_KEY", f"the-key-of-{provider}")

    def service_llm(provider: str, **fields: Any) -> ServiceLLM:
        known = {"name": provider, "provider": provider, "model": "m", "base_url": double.url(provider)}
        known |= {"price": Price(5.0, 20.0, "a test"), "max_tokens": 64, "concurrency": 16}
        known |= {"timeout_s": 10.0, "max_attempts": 3, "json_schema": False}
        return ServiceLLM(**(known | fields))

    return service_llm


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the client's own waits away; Retry-After stays."""
    monkeypatch.setattr(buying, "_LONGEST_WAIT", 0.0)


@pytest.fixture(scope="session")
def answered() -> Iterator[list[int]]:
    """Stand behind the provider of `numbered.py` for all tests."""
    with answering() as numbers:
        yield numbers


@pytest.fixture(scope="session")
def original(answered: list[int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a filled journal, which is not to be changed."""
    return filled(tmp_path_factory.mktemp("original") / "journal.sqlite")


@pytest.fixture
def asked(original: Path, answered: list[int]) -> list[int]:
    """Return the numbers that are asked for from now on."""
    answered.clear()
    return answered
