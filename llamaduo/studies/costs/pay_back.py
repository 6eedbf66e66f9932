"""Costs against time and load, as rows ready to draw.

    over_time(study_costs(study))      what each side has cost by month, under light and heavy load
    sensitivity(study_costs(study))    months to pay back against monthly requests, as the assumptions vary

Runs of which an input is not known are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from llamaduo.evidence.break_even import Migration
from llamaduo.studies.costs.costs import RunCost
from llamaduo.studies.tidy import Row

UTILISATIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
MULTIPLES = (0.5, 1.0, 2.0)
REQUESTS = tuple(round(step * 10**power) for power in (3, 4, 5, 6, 7) for step in (1, 2, 5))
"""Requests a month, from 1,000 to 50 million."""


def over_time(costs: Sequence[RunCost]) -> list[Row]:
    """Return rows of what has been paid by the end of each month, 0 to `months`, what was spent before included.

    Columns: `run`, `task`, `local_model`, `service_llm`, `system` (`service`, `local, shared machine` or
    `local, whole machines`), `load` (`light` or `heavy`), `requests` (a month), `month`, `usd`.
    """
    rows: list[Row] = []
    for cost, moved in _known(costs):
        loads = {"light": cost.assumptions.light_requests, "heavy": cost.assumptions.heavy_requests}
        for load, requests in loads.items():
            systems = {
                "service": (0.0, requests * moved.service_usd),
                "local, shared machine": (moved.spent_usd, moved.month_usd(requests)),
                "local, whole machines": (moved.spent_usd, moved.month_usd(requests, whole=True)),
            }
            for system, (once, monthly) in systems.items():
                rows += [
                    _who(cost) | {"system": system, "load": load, "requests": requests, "month": month,
                                  "usd": once + month * monthly}
                    for month in range(cost.assumptions.months + 1)
                ]  # fmt: skip
    return rows


def sensitivity(costs: Sequence[RunCost]) -> list[Row]:
    """Return rows of months to pay back, one assumption varied at a time.

    Columns: `run`, `task`, `local_model`, `service_llm`, `assumption` (`GPU price`, `utilisation`, `service price`),
    `value` (a multiple of what is assumed; of utilisation the share itself), `assumed` (whether it is the assumption
    itself), `requests` (a month), `service_usd`, `shared_usd` and `whole_usd` (a month), `months_shared` and
    `months_whole` (null: never).
    """
    rows: list[Row] = []
    for cost, moved in _known(costs):
        for name, value, assumed, varied in _varied(moved):
            head = _who(cost) | {"assumption": name, "value": value, "assumed": assumed}
            rows += [head | _at(varied, requests) for requests in REQUESTS]
    return rows


def _known(costs: Sequence[RunCost]) -> Iterator[tuple[RunCost, Migration]]:
    for cost in costs:
        if cost.migration is not None:
            yield cost, cost.migration


def _who(cost: RunCost) -> Row:
    return {name: getattr(cost, name) for name in ("run", "task", "local_model", "service_llm")}


def _varied(moved: Migration) -> Iterator[tuple[str, float, bool, Migration]]:
    """Yield (assumption, value, whether that is what is assumed, the migration under it)."""
    for by in MULTIPLES:
        yield "GPU price", by, by == 1, replace(moved, gpu_usd_per_hour=by * moved.gpu_usd_per_hour)
    for share in sorted({*UTILISATIONS, moved.utilisation}):
        yield "utilisation", share, share == moved.utilisation, replace(moved, utilisation=share)
    for by in MULTIPLES:
        yield "service price", by, by == 1, replace(moved, service_usd=by * moved.service_usd)


def _at(moved: Migration, requests: float) -> Row:
    return {
        "requests": requests,
        "service_usd": requests * moved.service_usd,
        "shared_usd": moved.month_usd(requests),
        "whole_usd": moved.month_usd(requests, whole=True),
        "months_shared": moved.months(requests),
        "months_whole": moved.months(requests, whole=True),
    }
