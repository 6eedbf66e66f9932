"""The paper's table of costs over 12 months, recomputed from stated inputs and shown beside the published numbers.

Reads the published numbers of `results/paper/cost.csv`. The inputs behind them are not known to us. For each of the two
systems one input of the light load is therefore inferred, so that the published number of that row comes out: such a
row confirms nothing. What the same inputs make of the heavy load, five times the light one, can be compared with the
published number.
"""

from __future__ import annotations

from dataclasses import dataclass

from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.published import published_costs

MONTHS = 12


@dataclass(frozen=True)
class PaperInputs:
    """What the recomputation starts from."""

    input_usd: float = 5.0
    """GPT-4o, US dollars per million prompt tokens: OpenAI's list price of gpt-4o-2024-05-13, the snapshot of the time
    (litellm 1.106.2's price map, read on 2026-11-21)."""
    output_usd: float = 15.0
    """The same per million completion tokens."""
    days_a_month: int = 30
    """Assumed."""
    prompt_tokens: float = 10e6
    """A day under light load: inferred, together with `completion_tokens`, so that the published 23,400 comes out.
    Other pairs give the same sum, such as 1 million and 4 million."""
    completion_tokens: float = 1e6
    """A day under light load: inferred."""
    heavy: float = 5.0
    """Heavy load as a multiple of light: inferred, the ratio of the two published bills."""
    watts: float = 350.0
    """Of a machine with one GPU, day and night: assumed."""
    kwh_usd: float = 0.15
    """Electricity: assumed; between the averages of US commercial and residential customers in 2024 (EIA, about 0.13
    and 0.16)."""
    machine_usd: float = 3239.1
    """A machine's price: inferred, what the published 3,699 leaves when the electricity is paid."""

    def service(self, load: float) -> float:
        """Return what GPT-4o takes in 12 months at a multiple of the light load."""
        day = (self.prompt_tokens * self.input_usd + self.completion_tokens * self.output_usd) / 1e6
        return load * day * self.days_a_month * MONTHS

    def local(self, machines: float) -> float:
        """Return what machines cost, bought and run for 12 months."""
        return machines * (self.machine_usd + self.watts / 1000 * 8760 * self.kwh_usd)


def recomputed(inputs: PaperInputs) -> dict[tuple[str, str], tuple[float, str, str]]:
    """Return by model and load: US dollars, the inputs in words, and which of them was inferred."""
    tokens = f"{inputs.prompt_tokens / 1e6:g}M prompt and {inputs.completion_tokens / 1e6:g}M completion tokens a day"
    price = f"{inputs.input_usd:g} and {inputs.output_usd:g} US dollars a million, {inputs.days_a_month} days a month"
    power = f"{inputs.watts:g} W day and night at {inputs.kwh_usd:g} a kWh"
    machine = f"machine of {inputs.machine_usd:,.2f}, {power}"
    times = f"{inputs.heavy:g} times the light load"
    return {
        ("gemma_7b", "light"): (inputs.local(1), f"1 {machine}", "the machine's price, from this very number"),
        ("gpt_4o", "light"): (inputs.service(1), f"{tokens} at {price}", "the tokens, from this very number"),
        ("gemma_7b", "heavy"): (
            inputs.local(inputs.heavy), f"{inputs.heavy:g} times 1 {machine}", "the machines: as many times the load",
        ),
        ("gpt_4o", "heavy"): (
            inputs.service(inputs.heavy), f"{times}, at {price}", "the multiple, from the two published bills",
        ),
    }  # fmt: skip


def paper_table(inputs: PaperInputs | None = None) -> Table:
    """Return the table `cost_paper`: published, recomputed, their ratio, inputs, and what was inferred."""
    ours = recomputed(inputs or PaperInputs())
    rows = []
    for cost in published_costs():
        usd, words, inferred = ours[cost.model, cost.workload]
        rows.append(
            (
                Cell(f"{cost.model}, {'local' if cost.local else 'API'}"),
                Cell(cost.workload),
                Cell(f"{cost.usd:,.0f}", cost.usd, note="third parties' notes on the paper"),
                Cell(f"{usd:,.0f}", usd),
                Cell(f"{usd / cost.usd:.2f}", usd / cost.usd),
                Cell(words),
                Cell(inferred),
            )
        )
    return Table(
        "cost_paper",
        "The paper's cost table: 12 months of Gemma 7B and of GPT-4o",
        "US dollars in 12 months. Published: third parties' notes, approximate, without interval. Recomputed: from "
        "the inputs named; some are inferred from the published numbers themselves: agreement there confirms nothing.",
        ("system", "load", "published", "recomputed", "ratio", "inputs", "inferred"),
        tuple(rows),
        labels=2,
    )
