"""The published numbers of the LlamaDuo paper, under the names that runs have.

    for row in published_scores():
        print(row.task, row.model, row.judge, row.score, row.value)

Reads `results.csv`, `cost.csv` and `wins.csv` of `results/paper/`: inside the installed package, or beside it in a
checkout. What those tables leave out is not known to us; a score that isn't here is no zero.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from llamaduo.errors import InputError

_NAMES = {
    "gemma-2b": "gemma_2b",
    "gemma-7b": "gemma_7b",
    "mistral-7b-v0.3": "mistral_7b_v0_3",
    "llama3-8b": "llama3_8b",
    "gpt-4o": "gpt_4o",
    "claude-3-sonnet": "claude_3_sonnet",
    "gemini-1.5-flash": "gemini_1_5_flash",
}
_SERVICE_LLMS = ("gpt_4o", "claude_3_sonnet", "gemini_1_5_flash")


@dataclass(frozen=True)
class Published:
    """One cell of the paper's main table."""

    task: str
    """The task's name, as in `conf/task`."""
    model: str
    """Who answered: a name of `conf/local_model`, or of `conf/service_llm` for a service LLM's own answers."""
    judge: str
    """Who scored, a name of `conf/service_llm`."""
    score: str
    """`similarity` or `precision`."""
    generator: str | None
    """Who wrote the training rows, a name of `conf/service_llm`; None for a service LLM's own answers."""
    value: float
    """Mean score, 0 to 100."""
    source: str
    """Where the number is from: `notes` are third parties' notes on the paper, approximate."""


@dataclass(frozen=True)
class PublishedCost:
    """One bar of the paper's comparison of costs."""

    model: str
    """A name of `conf/local_model` or `conf/service_llm`."""
    local: bool
    """Whether it is served on hardware of one's own; False for an API."""
    workload: str
    """`light` or `heavy`."""
    months: int
    """Months that the sum is for."""
    usd: float
    """US dollars for all these months."""
    source: str
    """Where the number is from: `notes` are third parties' notes on the paper, approximate."""


@dataclass(frozen=True)
class PublishedWin:
    """Which local model the paper found best at one task."""

    task: str
    """The task's name, as in `conf/task`."""
    model: str
    """The best local model, a name of `conf/local_model`."""
    won: int
    """Scenarios in which it was best."""
    of: int
    """Scenarios compared."""
    source: str
    """Where the number is from: `notes` are third parties' notes on the paper, approximate."""


def published_dir() -> Path:
    """Return the folder of the published tables: inside the installed package, or `results/paper` beside it."""
    package = Path(__file__).parents[1]
    found = next((place for place in (package / "published", package.parent / "results/paper") if place.is_dir()), None)
    if found is None:
        raise InputError(f"the published tables are missing beside {package}: install llamaduo again.")
    return found


def published_scores() -> list[Published]:
    """Return the known cells of the main table, in the file's order."""
    return [
        Published(
            task=row["task"],
            model=_NAMES[row["model"]],
            judge=_NAMES[row["judge"]],
            score=row["score"],
            generator=_NAMES[row["generator"]] if row["generator"] != "-" else None,
            value=float(row["value"]),
            source=row["source"],
        )
        for row in _rows("results.csv")
    ]


def published_costs() -> list[PublishedCost]:
    """Return the known costs, in the file's order."""
    costs = []
    for row in _rows("cost.csv"):
        name, _, _ = row["system"].partition(" ")
        model = _NAMES[name]
        months, usd = int(row["months"]), float(row["usd"])
        costs.append(PublishedCost(model, model not in _SERVICE_LLMS, row["workload"], months, usd, row["source"]))
    return costs


def published_wins() -> list[PublishedWin]:
    """Return the best local model of every task, in the file's order."""
    return [
        PublishedWin(
            task=row["task"],
            model=_NAMES[row["best_local_model"]],
            won=int(row["scenarios_won"]),
            of=int(row["of"]),
            source=row["source"],
        )
        for row in _rows("wins.csv")
    ]


def _rows(name: str) -> list[dict[str, str]]:
    with (published_dir() / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
