"""Prices: a service LLM's own, then the dated table, then litellm's map for this very provider; else nothing starts."""

from __future__ import annotations

import datetime
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest

from llamaduo.config import Experiment, Price, ServiceLLM
from llamaduo.errors import ConfigError
from llamaduo.service import prices
from llamaduo.service.prices import Tariff, retirement_warning, retires, tariff

TODAY = datetime.date(2026, 11, 21)
OWN = Price(1.0, 2.0, "2026-01-01", 0.5, 1.0)
TABLED = Price(3.0, 4.0, "2026-02-02")
MAP: dict[str, dict[str, Any]] = {
    "m": {
        "litellm_provider": "openai", "input_cost_per_token": 5e-6, "output_cost_per_token": 6e-6,
        "input_cost_per_token_batches": 2.5e-6, "output_cost_per_token_batches": 3e-6, "deprecation_date": "2027-01-01",
        "cache_read_input_token_cost": 1e-6,
    },
    "azure/m": {"litellm_provider": "azure", "input_cost_per_token": 7e-6, "output_cost_per_token": 8e-6},
    "anthropic.m": {"litellm_provider": "bedrock", "input_cost_per_token": 9e-6, "output_cost_per_token": 9e-6},
    "half": {"litellm_provider": "openai", "input_cost_per_token": 1e-6},
    "free": {"litellm_provider": "openai", "input_cost_per_token": 0.0, "output_cost_per_token": 0.0},
}  # fmt: skip


@pytest.fixture
def price_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices, "_price_map", lambda: MAP)


def a_service_llm(provider: str = "openai", model: str = "m", **fields: Any) -> ServiceLLM:
    return ServiceLLM(name="the_llm", provider=provider, model=model, **fields)


@pytest.mark.usefixtures("price_map")
def test_its_own_price_goes_before_the_table_and_that_before_the_map() -> None:
    table = {"openai/m": TABLED}
    own = tariff(a_service_llm(price=OWN), table)
    assert own == Tariff(1e-6, 2e-6, 0.5e-6, 1e-6, "the_llm.price, 2026-01-01")
    assert tariff(a_service_llm(), table) == Tariff(3e-6, 4e-6, None, None, "conf/prices, 2026-02-02")
    mapped = tariff(a_service_llm(), {"openai/n": TABLED, "azure/m": TABLED})
    assert (mapped.input, mapped.output, mapped.batch_input, mapped.batch_output) == (5e-6, 6e-6, 2.5e-6, 3e-6)
    assert mapped.source.startswith("litellm 1.")
    assert mapped.source.endswith("'s map")


@pytest.mark.usefixtures("price_map")
def test_the_price_of_cached_input_comes_from_the_same_place_and_may_be_unknown() -> None:
    cached = Price(1.0, 2.0, "2026-01-01", cached_input=0.25)
    assert tariff(a_service_llm(price=cached), {}).cached_input == 0.25e-6
    assert tariff(a_service_llm(), {"openai/m": TABLED}).cached_input is None
    assert tariff(a_service_llm(), {}).cached_input == 1e-6
    assert tariff(a_service_llm(model="free"), {}).cached_input is None


@pytest.mark.usefixtures("price_map")
def test_a_price_of_nothing_is_a_price() -> None:
    assert tariff(a_service_llm(price=Price(0.0, 0.0, "free")), {}).cost(10, 10) == 0.0
    assert tariff(a_service_llm(model="free"), {}).cost(10, 10) == 0.0


@pytest.mark.usefixtures("price_map")
def test_only_this_very_providers_entry_counts() -> None:
    assert tariff(a_service_llm("azure"), {}).input == 7e-6
    assert tariff(a_service_llm("bedrock", "anthropic.m"), {}).input == 9e-6
    for provider in ("anthropic", "gemini", "openrouter", "hosted_vllm"):
        with pytest.raises(ConfigError, match=rf"the price of {provider}/m is unknown"):
            tariff(a_service_llm(provider), {})
    with pytest.raises(ConfigError):
        tariff(a_service_llm("anthropic", "anthropic.m"), {})


@pytest.mark.usefixtures("price_map")
@pytest.mark.parametrize("model", ["nothing", "half", ""])
def test_an_unknown_price_refuses_and_says_where_one_goes(model: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tariff(a_service_llm(model=model), {"openai/other": TABLED})
    message = str(caught.value)
    assert message.startswith(f"the_llm: the price of openai/{model} is unknown; set price.input and price.output")
    assert "conf/prices/" in message
    assert "\n" not in message


def test_a_call_costs_its_tokens() -> None:
    assert Tariff(1e-6, 2e-6, None, None, "").cost(1000, 10) == pytest.approx(1020e-6)
    assert Tariff(1e-6, 2e-6, 0.5e-6, 1e-6, "").cost(0, 0) == 0.0


def test_a_batch_costs_its_own_price_and_the_full_one_where_that_is_not_known() -> None:
    assert Tariff(1e-6, 2e-6, 0.5e-6, 1e-6, "").cost(1000, 10, batch=True) == pytest.approx(510e-6)
    for half_known in (Tariff(1e-6, 2e-6, 0.5e-6, None, ""), Tariff(1e-6, 2e-6, None, 1e-6, "")):
        assert half_known.cost(1000, 10, batch=True) == pytest.approx(1020e-6)
    assert Tariff(1e-6, 2e-6, 0.0, 0.0, "").cost(1000, 10, batch=True) == 0.0


@pytest.mark.usefixtures("price_map")
@pytest.mark.parametrize(("provider", "model"), [("openai", "m"), ("azure", "m")])
def test_the_maps_batch_price_is_used(provider: str, model: str) -> None:
    known = tariff(a_service_llm(provider, model), {})
    expected = {"openai": 2500e-6 + 30e-6, "azure": 7000e-6 + 80e-6}[provider]
    assert known.cost(1000, 10, batch=True) == pytest.approx(expected)


def test_the_real_map_knows_the_models_of_the_configuration(experiment: Experiment) -> None:
    known = tariff(ServiceLLM(name="n", provider="openai", model="gpt-4o-2024-08-06"), {})
    assert (known.input, known.output, known.batch_input, known.batch_output) == (2.5e-6, 1e-5, 1.25e-6, 5e-6)
    for name, price in experiment.prices.items():
        provider, model = name.split("/")
        llm = ServiceLLM(name="n", provider=provider, model=model)
        assert tariff(llm, experiment.prices).input == price.input / 1e6
        if price.as_of.endswith(f"litellm {version('litellm')}'s price map"):
            mapped = tariff(llm, {})
            assert (mapped.input, mapped.output) == pytest.approx((price.input / 1e6, price.output / 1e6)), name


def test_reading_a_price_imports_no_litellm() -> None:
    code = (
        "import sys; from llamaduo.config import ServiceLLM; from llamaduo.service.prices import tariff; "
        "print(tariff(ServiceLLM(name='n', provider='openai', model='gpt-4o-2024-08-06'), {}).input); "
        "print({'litellm', 'openai', 'httpx'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["2.5e-06", "set()"]


def test_without_litellms_map_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prices.importlib.util, "find_spec", lambda _: None)
    prices._price_map.cache_clear()
    try:
        with pytest.raises(ConfigError, match="is unknown"):
            tariff(a_service_llm(model="gpt-4o-2024-08-06"), {})
    finally:
        prices._price_map.cache_clear()


# ---------------------------------------------------------------- retirement


@pytest.mark.usefixtures("price_map")
def test_the_day_comes_from_the_configuration_and_else_from_the_map() -> None:
    assert retires(a_service_llm(retired="2026-12-24")) == "2026-12-24"
    assert retires(a_service_llm()) == "2027-01-01"
    assert retires(a_service_llm("azure")) is None
    assert retires(a_service_llm(model="nothing")) is None
    assert retires(a_service_llm(base_url="http://localhost:8000/v1")) is None  # whoever serves it decides


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (91, None),
        (90, "the_llm: m retires in 90 days, on 2027-02-19."),
        (2, "the_llm: m retires in 2 days, on 2026-11-23."),
        (0, "the_llm: m is retired since 2026-11-21."),
        (-400, "the_llm: m is retired since 2025-10-17."),
    ],
)
def test_a_warning_comes_ninety_days_before(days: int, words: str | None) -> None:
    day = (TODAY + datetime.timedelta(days)).isoformat()
    assert retirement_warning(a_service_llm(retired=day), TODAY) == words


@pytest.mark.usefixtures("price_map")
@pytest.mark.parametrize("day", ["soon", "2026", "24.12.2026"])
def test_a_day_that_is_none_warns_of_nothing(day: str) -> None:
    assert retirement_warning(a_service_llm(retired=day), TODAY) is None
    assert retirement_warning(a_service_llm(model="nothing"), TODAY) is None
