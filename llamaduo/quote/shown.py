"""A quote as people read it: its table, what could go wrong, and what each estimate rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from llamaduo.quote import hours
from llamaduo.quote.calls import Line
from llamaduo.quote.quote import Quote

if TYPE_CHECKING:
    from rich.console import RenderableType


def rendered(made: Quote) -> Iterable[RenderableType]:
    """Yield what is shown of a quote."""
    from rich.table import Table

    runs = "1 run" if made.runs == 1 else f"{made.runs} runs"
    if not made.lines:
        yield f"{runs}: nothing is to be paid: no service LLM is asked, or all is there already."
        yield from hours.rendered(made.works)
        yield from made.outlook
        return
    yield f"{runs}; each figure from a gate passed at the first iteration to all {made.iterations} iterations."
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("stage", no_wrap=True)
    table.add_column("service LLM", no_wrap=True)
    for name in ("calls", "in journal", "tokens in", "tokens out", "price", "by batch"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in made.lines:
        table.add_row(*_cells(made, line))
    sums = [_sum(made, batch=False), _sum(made, batch=True)]
    calls = tuple(sum(line.calls[at] for line in made.lines) for at in (0, 1))
    held = tuple(sum(line.held[at] for line in made.lines) for at in (0, 1))
    table.add_row("all", "", _range(*calls), _range(*held), "", "", *map(_money, sums), style="bold")
    yield table
    ceiling = sum(line.ceiling_usd for line in made.lines)
    yield (
        f"Up to about ${ceiling:,.2f} if all went badly: all iterations, every reply as long as it may be, every one "
        "asked for again, every round of synthesis needed. loop.budget_usd sets a limit that is kept."
    )
    yield from _spared_told(made)
    yield from _basis(made)
    yield from hours.rendered(made.works)
    yield from made.outlook
    yield from (f"Warning: {text}" for text in made.warnings)


def _spared_told(made: Quote) -> Iterable[str]:
    """Say what is to be expected of judging in rounds."""
    counts, usd = [0, 0], [0.0, 0.0]
    for line in made.lines:
        for at in (0, 1):
            left = line.calls[at] - line.held[at]
            counts[at] += line.spared[at]
            usd[at] += (made.usd(line, at, batch=False) or 0.0) * line.spared[at] / left if left else 0.0
    if any(counts):
        yield (
            f"These are bounds: of the judge calls {_range(*counts)} are expected to be left out, "
            f"{_money((usd[0], usd[1]))}, since they can't change what the gate decides (judge.economy)."
        )


def _cells(made: Quote, line: Line) -> list[str]:
    tokens = [made.tokens(line, at) for at in (0, 1)]
    prices = [(made.usd(line, 0, batch=batch), made.usd(line, 1, batch=batch)) for batch in (False, True)]
    return [
        line.stage,
        line.llm.name,
        _range(*line.calls),
        _range(*line.held),
        _range(tokens[0][0], tokens[1][0]),
        _range(tokens[0][1], tokens[1][1]),
        *map(_money, prices),
    ]


def _sum(made: Quote, *, batch: bool) -> tuple[float | None, float | None]:
    """Return the sums of all lines; by batch only if there is one for each."""
    both = [[made.usd(line, at, batch=batch) for line in made.lines] for at in (0, 1)]
    low, high = (None if None in prices else sum(price or 0.0 for price in prices) for prices in both)
    return low, high


def _range(low: float, high: float) -> str:
    return f"{low:,.0f}" if round(low) == round(high) else f"{low:,.0f} to {high:,.0f}"


def _money(pair: tuple[float | None, float | None]) -> str:
    low, high = pair
    if low is None or high is None:
        return "-"
    return f"${low:,.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"${low:,.2f} to ${high:,.2f}"


def _basis(made: Quote) -> Iterator[str]:
    """Yield where each estimate comes from."""
    for line in made.lines:
        known, stage, name = made.experience[id(line)], line.stage, line.llm.name
        source = f"measured on {known.replies:,} replies in the journal" if known.replies else "assumed"
        yield (
            f"{stage}, {name}: {known.completion_tokens:,.0f} tokens a reply, {known.characters_a_token:.1f} characters"
            f" a token ({source})."
        )
    for source in dict.fromkeys(f"{line.llm.name}: {line.tariff.source}" for line in made.lines):
        yield f"Price of {source}."
