"""The tables of costs: what was spent, what serving costs, when it pays back, and the paper's own table recomputed.

    for table in cost_tables(study): print(table.name, table.note)

An empty field is a number of which an input is not known; `never` is a migration that doesn't pay back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from llamaduo.config import Assumptions
from llamaduo.evidence.break_even import HOURS_A_MONTH
from llamaduo.studies.costs.amounts import Amount
from llamaduo.studies.costs.costs import CPU, WAYS, RunCost, study_costs
from llamaduo.studies.costs.paper_cost import paper_table
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.study import Study


def cost_tables(study: Study) -> list[Table]:
    """Return the tables of costs of a study's finished runs; the paper's alone where none is finished.

    A run that a server answered for, such as the ceiling, has spent money, but moved nothing to a machine of one's own.
    """
    found = study_costs(study)
    moved = [cost for cost in found if not cost.served]
    ours = [_spent(found)] if found else []
    ours += [_serving(moved), _break_even(moved)] if moved else []
    return [*ours, paper_table()]


def _labels(cost: RunCost) -> tuple[Cell, ...]:
    return Cell(cost.run), Cell(cost.task), Cell(cost.local_model), Cell(cost.service_llm)


_LABELS = ("run", "task", "local model", "service LLM")


def _spent(found: Sequence[RunCost]) -> Table:
    rows = []
    for cost in found:
        usd = (cost.synthesis_usd, cost.judging_usd, cost.other_usd)
        hours = (cost.train_hours, cost.answer_hours)
        rows.append(
            (
                *_labels(cost),
                *(_number(value, ".2f") for value in usd),
                *(_number(value, ".3f") for value in hours),
                _priced(cost, _number(cost.gpu_usd, ".2f", f"measured on {cost.machine or 'a machine not recorded'}")),
                _number(cost.spent_usd, ".2f"),
                Cell(cost.machine),
            )
        )
    return Table(
        "cost_spent",
        "What each run cost",
        "US dollars. Synthesis and judging: the price of all replies that the run used, those found in the journal "
        "included. Hours: sums over all iterations of the seconds in the artifacts' markers, the model's loading "
        f"included, times the GPUs that trained; priced at {_gpu_price(found)}, whatever GPU they were measured on, "
        "but never a CPU's as a GPU's; none where a server answered. One run a row, so no intervals.",
        (*_LABELS, "synthesis $", "judging $", "other $", "training h", "answering h", "hours $", "all $", "machine"),
        tuple(rows),
        labels=len(_LABELS),
    )


def _serving(found: Sequence[RunCost]) -> Table:
    rows = []
    for cost in found:
        tokens = (cost.prompt_tokens, cost.reference_tokens, cost.answer_tokens)
        rows.append(
            (
                *_labels(cost),
                *(_amount(amount, ".0f") for amount in tokens),
                *(_amount(cost.service[way], ".3f", cost.price_source) for way in WAYS),
                _number(cost.tokens_per_second, ",.0f", cost.speed_source),
                _priced(cost, _amount(cost.local, ".3f")),
                Cell(cost.machine),
                Cell(str(cost.answer_tokens.n), cost.answer_tokens.n) if cost.answer_tokens else Cell(""),
            )
        )
    return Table(
        "cost_serving",
        "What 1,000 requests cost",
        "US dollars for 1,000 requests, and tokens of one: mean over prompts with its 95% interval, n prompts. "
        "Intervals are Gaffke's: a prompt that was not seen may fill the model's context and ask for its longest "
        "answer. Prompt and answer are counted by the local model's tokenizer; the reference stands for the service "
        "LLM's reply. "
        "List: the price without any discount; cached: as if every prompt token were read from the provider's cache, "
        "the least it can be; batch: by the batch API. "
        f"Local: {_gpu_price(found)}, busy {_utilisation(found)} of its time, at the "
        f"tokens a second named. Prices: {_sources(found)}. Tokens a second: {_speeds(found)}. "
        "Machine: what the run itself answered on.",
        (*_LABELS, "prompt tokens", "reply tokens", "answer tokens", "service, list $", "service, cached $",
         "service, batch $", "local tokens/s", "local $", "machine", "n"),
        tuple(rows),
        labels=len(_LABELS),
    )  # fmt: skip


def _break_even(found: Sequence[RunCost]) -> Table:
    rows = [(*_labels(cost), _number(cost.spent_usd, ".2f"), *_pay_back(cost)) for cost in found]
    months = _joined(found, lambda assumed: f"{assumed.months}")
    light = _joined(found, lambda assumed: f"{assumed.light_requests:,.0f}")
    heavy = _joined(found, lambda assumed: f"{assumed.heavy_requests:,.0f}")
    return Table(
        "cost_break_even",
        "When the migration has paid back",
        f"Months until what was spent is saved, at {light} (light) and {heavy} (heavy) requests a month, against the "
        f"service LLM's list price; and the fewest requests a month that pay back within {months} months. Shared: only "
        f"the GPU time that requests need, {_gpu_price(found)} at a utilisation of {_utilisation(found)}. Whole: as "
        f"many GPUs as the load needs at that utilisation, at least one, rented all {HOURS_A_MONTH:g} hours of a "
        "month. The means of the table of requests go in, so no intervals.",
        (*_LABELS, "spent $", "light, shared", "light, whole", "heavy, shared", "heavy, whole", "requests, shared",
         "requests, whole"),
        tuple(rows),
        labels=len(_LABELS),
    )  # fmt: skip


def _priced(cost: RunCost, cell: Cell) -> Cell:
    """Return a field that needs the price of the machine; an empty one says so where the price is another machine's."""
    if cell.text or cost.priced:
        return cell
    choice = "serving=cpu" if cost.machine == CPU else "serving.gpu"
    return Cell("", note=f"measured on {cost.machine}, but the price is that of {cost.assumptions.gpu}: see {choice}")


def _number(value: float | None, form: str, note: str = "") -> Cell:
    return Cell("") if value is None else Cell(f"{value:{form}}", value, note=note)


def _pay_back(cost: RunCost) -> Iterator[Cell]:
    """Yield the fields of months under light and heavy load, then of requests; `never` where nothing is saved."""
    assumed, moved = cost.assumptions, cost.migration
    for requests in (assumed.light_requests, assumed.heavy_requests):
        for whole in (False, True):
            months = moved.months(requests, whole=whole) if moved else None
            form = ".2f" if months is None or months >= 0.1 else ".2g"
            yield _ever(months, form) if moved else Cell("")
    for whole in (False, True):
        yield _ever(moved.requests(assumed.months, whole=whole), ",.0f") if moved else Cell("")


def _ever(value: float | None, form: str) -> Cell:
    return Cell("never") if value is None else Cell(f"{value:{form}}", value)


def _amount(amount: Amount | None, form: str, note: str = "") -> Cell:
    if amount is None:
        return Cell("")
    limits = "" if amount.low is None else f" [{amount.low:{form}}, {amount.high:{form}}]"
    return Cell(f"{amount.mean:{form}}{limits}", amount.mean, note=note)


def _joined(found: Sequence[RunCost], told: Callable[[Assumptions], str]) -> str:
    return " or ".join(dict.fromkeys(told(cost.assumptions) for cost in found))


def _gpu_price(found: Sequence[RunCost]) -> str:
    return _joined(found, lambda a: f"{a.gpu} at {a.gpu_usd_per_hour:g} US dollars an hour ({a.gpu_as_of})")


def _utilisation(found: Sequence[RunCost]) -> str:
    return _joined(found, lambda a: f"{a.utilisation:.0%}")


def _sources(found: Sequence[RunCost]) -> str:
    told = (f"{cost.service_llm}: {cost.price_source}" for cost in found if cost.price_source)
    return "; ".join(dict.fromkeys(told)) or "not known"


def _speeds(found: Sequence[RunCost]) -> str:
    stated = dict.fromkeys(cost.speed_source for cost in found if cost.speed_source.startswith("stated"))
    measured = any(cost.speed_source and cost.speed_source not in stated for cost in found)
    told = [*stated, *(["measured in each run's own answering, which is no serving engine"] if measured else [])]
    return "; ".join(told) or "not known"
