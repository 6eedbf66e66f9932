"""What every test gets: a home, a working folder and an environment of its own, no key, no network.

`compose_experiment(*overrides)` composes an experiment whose results go to the test's folder, and `experiment`
is the default one at no cost. `llm(program, **fields)` makes a service LLM out of a function, `open_service()`
gives access to it through the real client, litellm and journal, and `waits` takes the time out of retries.
A test may be a coroutine; the fixture `loop_factory`, where there is one, makes its event loop.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import inspect
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from llamaduo.config import Experiment, Price, ServiceLLM
from llamaduo.environment import settle_libraries
from llamaduo.service import buying, loading
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal

settle_libraries()  # as a command does: what loads torch spins no threads
ROOT = Path(__file__).parents[1]
Program = Callable[[str, Mapping[str, Any]], str]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Carry out a test that is a coroutine."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    given = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}
    with asyncio.Runner(loop_factory=pyfuncitem.funcargs.get("loop_factory")) as runner:
        runner.run(pyfuncitem.obj(**given))
    return True


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test its own home and working folder, and take every key out of the environment."""
    for name in list(os.environ):
        if name.endswith("_API_KEY") or name.startswith("WANDB_") or name == "HF_TOKEN":
            monkeypatch.delenv(name)
    monkeypatch.setenv("LLAMADUO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection that leaves this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError(f"tests are offline: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Return a function that imports a benchmark by its name."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(benchmarks / "gpu")
    monkeypatch.syspath_prepend(benchmarks)
    return importlib.import_module


@pytest.fixture
def compose_experiment(tmp_path: Path) -> Callable[..., Experiment]:
    """Return a function that composes and checks one experiment; its results go to `tmp_path/results`."""
    from llamaduo.compose import compose

    def composed(*overrides: str) -> Experiment:
        found = compose([f"runtime.results={tmp_path / 'results'}", *overrides])
        assert found is not None
        (experiment,) = found.experiments
        return experiment

    return composed


@pytest.fixture(scope="session")
def composed_once() -> Experiment:
    """Return the default experiment, composed once in a session: take `experiment`, which is a copy."""
    from llamaduo.compose import compose

    found = compose([])
    assert found is not None
    return found.experiments[0]


@pytest.fixture
def experiment(composed_once: Experiment, tmp_path: Path) -> Experiment:
    """Return the default experiment, to be changed at will; its results go to `tmp_path/results`."""
    copied = copy.deepcopy(composed_once)
    copied.runtime.results = str(tmp_path / "results")
    return copied


_NUMBERS = count()


@pytest.fixture
def llm() -> Iterator[Callable[..., ServiceLLM]]:
    """Return a function that makes a service LLM out of a program; each one has a provider of its own."""
    made = []

    def service_llm(program: Program, **fields: Any) -> ServiceLLM:
        provider = f"fake{next(_NUMBERS)}"
        made.append(provider)
        loading.register(provider, program)
        known = {"name": "fake", "provider": provider, "model": "m", "price": Price(0.0, 0.0, "free")}
        return ServiceLLM(**{"max_tokens": 64, "concurrency": 4, "max_attempts": 3} | known | fields)

    yield service_llm
    for provider in made:
        loading.TEXT_PROGRAMS.pop(provider, None)
    if made:
        import litellm

        litellm.custom_provider_map = [e for e in litellm.custom_provider_map if e["provider"] not in made]


@pytest.fixture
def open_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Return a function that opens access to service LLMs over one journal, as runs of one user would."""
    opened = []

    def service(
        run: str = "study/run", budget_usd: float | None = None, *, replay: bool = False, **options: Any
    ) -> Service:
        journal = Journal(tmp_path / "journal.sqlite", read_only=replay)
        made = Service(journal, run=run, budget_usd=budget_usd, replay=replay, **options)
        opened.append(made)
        return made

    yield service
    for made in opened:
        made.close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list that takes down how long the client would have waited; it waits no more."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        if seconds:  # 0 only lets others go first
            taken.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(buying, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    return taken
