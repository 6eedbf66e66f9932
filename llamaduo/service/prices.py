"""What a service LLM costs: its own `price`, else the dated table in `conf/prices/`, else litellm's map.

An unknown price refuses to start. litellm's map is read as the file that it is, without importing litellm.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import ConfigError

_SOON = datetime.timedelta(days=90)


@dataclass(frozen=True)
class Tariff:
    """Prices in US dollars per token."""

    input: float
    output: float
    batch_input: float | None
    """By the batch API; null where its price is not known."""
    batch_output: float | None
    source: str
    """Where the prices come from, with their date."""
    cached_input: float | None = None
    """Of prompt tokens that the provider reads from its cache; null where it is not known."""
    unbilled: tuple[int, ...] = ()
    """Statuses of failed calls that cost nothing."""

    @property
    def free(self) -> bool:
        """Whether nothing is paid, whatever is used."""
        return not (self.input or self.output)

    def cost(self, prompt_tokens: int, completion_tokens: int, *, batch: bool = False) -> float:
        """Return the price of a call in US dollars; one whose batch price is unknown counts at the full price."""
        if batch and self.batch_input is not None and self.batch_output is not None:
            return prompt_tokens * self.batch_input + completion_tokens * self.batch_output
        return prompt_tokens * self.input + completion_tokens * self.output


def tariff(llm: ServiceLLM, table: Mapping[str, Price]) -> Tariff:
    """Return what a service LLM costs; raises ConfigError if nobody knows."""
    price = llm.price or table.get(f"{llm.provider}/{llm.model}")
    if price is not None:
        return _of(price, "conf/prices" if llm.price is None else f"{llm.name}.price")
    entry = _entry(llm)
    if entry.get("input_cost_per_token") is None or entry.get("output_cost_per_token") is None:
        raise ConfigError(
            f"{llm.name}: the price of {llm.provider}/{llm.model} is unknown; set price.input and price.output "
            "(US dollars per million tokens) and price.as_of, or add it to a table in conf/prices/."
        )
    return Tariff(
        float(entry["input_cost_per_token"]),
        float(entry["output_cost_per_token"]),
        entry.get("input_cost_per_token_batches"),
        entry.get("output_cost_per_token_batches"),
        f"litellm {litellm_version()}'s map",
        entry.get("cache_read_input_token_cost"),
    )


def is_price(price: Price) -> bool:
    """Tell whether every price that is given is one."""
    given = (price.input, price.output, price.batch_input, price.batch_output, price.cached_input)
    return all(value is None or 0 <= value < math.inf for value in given)


def ended(llm: ServiceLLM, table: dict[str, Price], today: datetime.date) -> str | None:
    """Return what is wrong with the end date of a service LLM's price, or that it has passed; None if it holds."""
    price = llm.price or table.get(f"{llm.provider}/{llm.model}")
    if price is None or not price.until:
        return None
    try:
        if datetime.date.fromisoformat(price.until) >= today:
            return None
    except ValueError:
        return f"the price's until={price.until!r} is no day such as 2027-01-31"
    said = f" ({price.note})" if price.note else ""
    return f"the price of {llm.provider}/{llm.model} held until {price.until}{said}; set price.input, price.output anew"


def _of(price: Price, place: str) -> Tariff:
    batch_input, batch_output, cached_input = (
        None if value is None else value / 1e6 for value in (price.batch_input, price.batch_output, price.cached_input)
    )
    source = f"{place}, {price.as_of}" + (f", until {price.until}" if price.until else "")
    source += f" ({price.note})" if price.note else ""
    unbilled = tuple(price.unbilled)
    return Tariff(price.input / 1e6, price.output / 1e6, batch_input, batch_output, source, cached_input, unbilled)


def retires(llm: ServiceLLM) -> str | None:
    """Return the day from which a service LLM no longer answers, as the configuration or litellm's map has it."""
    elsewhere = llm.base_url or llm.base_url_env
    found = llm.retired or (None if elsewhere else _entry(llm).get("deprecation_date"))
    return str(found) if found else None


def retirement_warning(llm: ServiceLLM, today: datetime.date) -> str | None:
    """Return a sentence if a service LLM retires within 90 days of `today`, or has retired."""
    day = retires(llm)
    try:
        if day is None or datetime.date.fromisoformat(day) > today + _SOON:
            return None
    except ValueError:
        return None
    left = (datetime.date.fromisoformat(day) - today).days
    when = f"in {left} {'day' if left == 1 else 'days'}, on {day}" if left > 0 else f"since {day}"
    return f"{llm.name}: {llm.model} retires {when}." if left > 0 else f"{llm.name}: {llm.model} is retired {when}."


def _entry(llm: ServiceLLM) -> Mapping[str, Any]:
    """Return the entry of litellm's map for this very provider."""
    known = _price_map()
    entry = known.get(f"{llm.provider}/{llm.model}")
    if entry is None:
        entry = known.get(llm.model, {})
        if entry.get("litellm_provider") != llm.provider:
            entry = {}
    return entry


@cache
def _price_map() -> dict[str, Any]:
    found = importlib.util.find_spec("litellm")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "model_prices_and_context_window_backup.json"
        if path.is_file():
            tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return tree
    return {}


@cache
def litellm_version() -> str:
    """Return the version of litellm that is installed."""
    from importlib.metadata import version

    return version("litellm")
