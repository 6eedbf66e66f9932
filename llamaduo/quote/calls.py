"""The quote: what a run or a sweep would cost in service LLM calls and hours, before anything is spent.

    print(quote(compose(["preset=service", "task=coding"]).experiments))

Reads the coverage data (those of the Hub from there) and the journal; calls no LLM, needs no key and writes nothing.
How often the loop goes round is not known beforehand, so every figure is a range: from a gate that is passed at the
first iteration to `loop.max_iterations`. Requests to synthesise are known word for word, so those that the journal
holds already, and those that several runs of a sweep share, are left out, and so it is with what a server is asked to
answer (`infer=endpoint`); of judgements, those that the same run has bought.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from llamaduo.config import Backend, Beside, Experiment, JudgeKind, ServiceLLM, beside
from llamaduo.data.dataset import CoverageDataset
from llamaduo.data.shots import with_nearest
from llamaduo.evidence import reach
from llamaduo.evidence.two_tier import seen_of
from llamaduo.loop import finished, run_folder
from llamaduo.quote.hours import Work, measured_rates, work
from llamaduo.quote.hours import rendered as rendered_hours
from llamaduo.records import Example, Prediction
from llamaduo.service import answers
from llamaduo.service.bodies import most_tokens
from llamaduo.service.client import Request
from llamaduo.service.journal import Journal
from llamaduo.service.prices import Tariff, retirement_warning, tariff
from llamaduo.stages import judge
from llamaduo.steps import (
    SYNTHESIS_ROUNDS,
    answering,
    clusters_of,
    gate_rows,
    journal_path,
    judges_in_rounds,
    load_data,
    synthesis_requests,
    volume,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

_CHARACTERS_A_TOKEN = 4.0
_VERDICT_TOKENS = 120
_ENOUGH = 20


@dataclass(frozen=True)
class Experience:
    """What the journal knows of a service LLM in a stage; or an assumption."""

    characters_a_token: float
    completion_tokens: float
    """Mean tokens of a reply."""
    replies: int
    """Replies behind the two means; 0 for an assumption."""


@dataclass
class Line:
    """One stage with one service LLM, over all runs; each figure is (at least, at most)."""

    stage: str
    llm: ServiceLLM
    tariff: Tariff
    calls: list[int] = field(default_factory=lambda: [0, 0])
    held: list[int] = field(default_factory=lambda: [0, 0])
    """Of these, in the journal already or shared with another run of the sweep."""
    characters: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Of the prompts that are still to be sent."""
    spared: list[int] = field(default_factory=lambda: [0, 0])
    """Of the calls that aren't held, those that judging in rounds can be expected to leave out."""
    ceiling_usd: float = 0.0
    """What it comes to if every reply ran to `max_tokens` and everything that may be asked again were."""

    def add(self, reach: Sequence[int], *, calls: int, held: int, characters: float) -> None:
        """Count calls towards the lower figure (0 in `reach`), the upper one (1), or both."""
        for at in reach:
            self.calls[at] += calls
            self.held[at] += held
            self.characters[at] += characters


Lines = dict[tuple[object, ...], Line]


@dataclass(frozen=True)
class Quote:
    """What is to be expected; every pair is (gate passed at once, all iterations)."""

    lines: tuple[Line, ...]
    experience: Mapping[int, Experience]
    """By the line's identity."""
    iterations: int
    runs: int
    warnings: tuple[str, ...]
    works: tuple[Work, ...] = ()
    """The hours of each run that is not finished."""
    outlook: tuple[str, ...] = ()
    """What of the data is not used, what the gate can see with the prompts, and what a run would be refused for."""

    def tokens(self, line: Line, at: int) -> tuple[float, float]:
        """Return (prompt, completion) tokens still to be bought on one line."""
        known = self.experience[id(line)]
        return (
            line.characters[at] / known.characters_a_token,
            (line.calls[at] - line.held[at]) * known.completion_tokens,
        )

    def usd(self, line: Line, at: int, *, batch: bool) -> float | None:
        """Return what a line would cost; null by batch where there is no batch price or no batch API."""
        if batch and (line.tariff.batch_input is None or line.llm.provider != "openai"):
            return None
        prompt, completion = self.tokens(line, at)
        price = line.tariff
        if batch and price.batch_input is not None and price.batch_output is not None:
            return prompt * price.batch_input + completion * price.batch_output
        return prompt * price.input + completion * price.output


def quote(experiments: Sequence[Experiment], *, today: datetime.date) -> Quote:
    """Work out what experiments would cost; raises ConfigError for an unknown price, InputError for unusable data."""
    lines: Lines = {}
    experience: dict[int, Experience] = {}
    seen: set[str] = set()
    warnings: dict[str, None] = {}
    outlook: dict[str, None] = {}
    works: list[Work] = []
    measured = cache(measured_rates)
    for experiment in experiments:
        if finished(experiment):
            continue
        dataset = load_data(experiment)
        outlook |= dict.fromkeys(_outlook(experiment, dataset))
        known = measured(Path(experiment.runtime.results)).get(experiment.local_model.path)
        works.append(work(experiment, dataset, _rounds(experiment, dataset), known))
        if experiment.service.replay:
            continue
        journal = _journal(experiment)
        _count_synthesis(experiment, dataset, lines, seen, journal)
        _count_answers(experiment, dataset, lines, seen, journal)
        _count_judging(experiment, dataset, lines, journal)
        for line in lines.values():
            if id(line) not in experience:
                experience[id(line)] = _experience(journal, line, experiment, dataset)
            if warning := retirement_warning(line.llm, today):
                warnings[warning] = None
        if journal:
            journal.close()
    most = max(experiment.loop.max_iterations for experiment in experiments)
    return Quote(
        tuple(lines.values()), experience, most, len(experiments), tuple(warnings), tuple(works), tuple(outlook)
    )


def _outlook(experiment: Experiment, dataset: CoverageDataset) -> list[str]:
    """Return what of the data is not used, and what the gate can see, also where a run would be refused for it."""
    prompts = clusters_of(gate_rows(experiment, dataset))
    test = clusters_of(dataset.test)
    refused = reach.refusal(experiment, prompts, test)
    account = dataset.account
    data = account.lines() if account and len(account.lines()) > 1 else []
    told = data + reach.left_out(experiment)
    return told + ([refused] if refused else reach.outlook(experiment, prompts, test))


def _journal(experiment: Experiment) -> Journal | None:
    path = journal_path(experiment)
    return Journal(path, read_only=True, imported=experiment.service.imported) if path.is_file() else None


def _line(lines: Lines, stage: str, llm: ServiceLLM, experiment: Experiment) -> Line:
    """Return the line of a stage and a service LLM; one of another model, address or price has a line of its own."""
    price = tariff(llm, experiment.prices)
    key = (stage, llm.name, llm.provider, llm.base_url, llm.model, most_tokens(llm), price)
    return lines.setdefault(key, Line(stage, llm, price))


def _count_synthesis(
    experiment: Experiment,
    dataset: CoverageDataset,
    lines: Lines,
    seen: set[str],
    journal: Journal | None,
) -> None:
    """Count the requests of every growth of the pool, if each of them keeps as many rows as it wants."""
    if not experiment.synthesis.enabled:
        return
    line = _line(lines, "synthesize", experiment.service_llm, experiment)
    for number, request in _synthesis_requests(experiment, dataset):
        held = request.key in seen or bool(journal and journal.find(request.key))
        seen.add(request.key)
        line.add(
            (0, 1) if number == 0 else (1,), calls=1, held=int(held), characters=0 if held else len(request.prompt)
        )
        if not held:
            line.ceiling_usd += SYNTHESIS_ROUNDS * line.tariff.cost(request.longest_prompt, request.longest_reply)


def _synthesis_requests(experiment: Experiment, dataset: CoverageDataset) -> Iterator[tuple[int, Request]]:
    """Yield (iteration that needs it, request)."""
    growth, pool, asked = experiment.loop.growth, 0, 0
    for number in range(experiment.loop.max_iterations):
        wanted = volume(growth, len(dataset.train), number) - pool
        if wanted <= 0:
            continue
        made = synthesis_requests(experiment, dataset, wanted, asked)
        yield from ((number, request) for _, request in made)
        pool, asked = pool + wanted, asked + len(made)


def _count_answers(
    experiment: Experiment,
    dataset: CoverageDataset,
    lines: Lines,
    seen: set[str],
    journal: Journal | None,
) -> None:
    """Count what servers are asked to answer, K times a prompt; the same answer is bought once.

    That is the server that already runs (`infer=endpoint`), and the service LLM where it stands beside the model.
    """
    served = [(answering(experiment, None), _splits(experiment, dataset))]
    if Beside.service_llm in beside(experiment):
        served.append((answering(experiment, Beside.service_llm), _beside_splits(experiment, dataset)))
    for infer, splits in served:
        if infer.backend is not Backend.endpoint or infer.server is None:
            continue
        line = _line(lines, "infer", answers.as_asked(infer.server, infer), experiment)
        for examples, figures, times in splits:
            asked = with_nearest(examples, dataset.train, infer.shots) if times else []
            for request in answers.requests(asked, infer.server, config=infer, seed=experiment.runtime.seed):
                held = request.key in seen or bool(journal and journal.find(request.key))
                seen.add(request.key)
                new = 0 if held else 1
                line.add(figures, calls=times, held=times - new, characters=new * request.characters)
                line.ceiling_usd += new * line.tariff.cost(request.longest_prompt, request.longest_reply)


Splits = list[tuple[tuple[Example, ...], tuple[int, ...], int]]
"""What is answered and judged: (rows, which figures they count towards, how often)."""


def _splits(experiment: Experiment, dataset: CoverageDataset) -> Splits:
    """Return what the local model answers."""
    gate, rounds = gate_rows(experiment, dataset), _rounds(experiment, dataset)
    splits: Splits = [(gate, (0, 1), 1), (gate, (1,), rounds - 1)]
    return splits if gate is dataset.test else [*splits, (dataset.test, (0, 1), 1)]


def _beside_splits(experiment: Experiment, dataset: CoverageDataset) -> Splits:
    """Return what each of those answers who stand beside the model: every split once."""
    splits = (gate_rows(experiment, dataset), dataset.test)
    return [(rows, (0, 1), 1) for rows in (splits[:1] if splits[0] is dataset.test else splits)]


def _count_judging(experiment: Experiment, dataset: CoverageDataset, lines: Lines, journal: Journal | None) -> None:
    """Count the judgements, as if every answer were as long as its reference."""
    if experiment.judge.kind is not JudgeKind.service:
        return
    splits = _splits(experiment, dataset) + len(beside(experiment)) * _beside_splits(experiment, dataset)
    for name, llm in experiment.judge.panel.items():
        line = _line(lines, "judge", llm, experiment)
        bought = _bought(experiment, llm, journal)
        for examples, figures, times in splits:
            requests = [judge.request(experiment.judge, _answer(example), name, 0) for example in examples]
            each = _answers_seen(experiment, name) * experiment.judge.repeats * times
            calls = len(requests) * each
            held = min(bought, calls)
            bought -= held
            left = (calls - held) / calls if calls else 0.0
            characters = left * each * sum(len(request.prompt) for request in requests)
            line.add(figures, calls=calls, held=held, characters=characters)
            worst = sum(line.tariff.cost(request.longest_prompt, request.longest_reply) for request in requests)
            line.ceiling_usd += left * each * worst * (1 + experiment.judge.reasks + experiment.service.reasks)
        _spare(experiment, dataset, line)


def _answers_seen(experiment: Experiment, name: str) -> int:
    """Return how many of a prompt's answers a panel member judges."""
    samples, judges = experiment.infer.samples, experiment.judge
    return seen_of(samples, judges.dear_share) if name in judges.dear else samples


def _spare(experiment: Experiment, dataset: CoverageDataset, line: Line) -> None:
    """Count what judging in rounds can be expected to leave out, for one more panel member.

    A model that can't pass is taken to be found out in two rounds, as most of the rehearsals' were in one; one that
    passes has the first round's prompts judged twice, and no more repeats.
    """
    if not judges_in_rounds(experiment):
        return
    prompts, repeats = len(gate_rows(experiment, dataset)), experiment.judge.repeats
    first = min(prompts, experiment.judge.round_prompts)
    again = first if repeats > 1 else 0
    passing, failing = prompts + again, min(prompts, 2 * first) + again
    for at, spared in enumerate(
        (prompts * repeats - passing, _rounds(experiment, dataset) * (prompts * repeats - failing))
    ):
        left = line.calls[at] - line.held[at] - line.spared[at]
        line.spared[at] += min(left, experiment.infer.samples * spared)


def _rounds(experiment: Experiment, dataset: CoverageDataset) -> int:
    """Return how often the loop can go round: it ends when there is no more data to be had."""
    if not experiment.synthesis.enabled:
        return 1
    volumes = [
        volume(experiment.loop.growth, len(dataset.train), number) for number in range(experiment.loop.max_iterations)
    ]
    return 1 + sum(after > before for before, after in pairwise(volumes))


def _answer(example: Example) -> Prediction:
    text = example.response
    return Prediction(example.prompt_id, 0, example.prompt, text, text, "stop", 0, 0, cluster=example.cluster)


def _bought(experiment: Experiment, llm: ServiceLLM, journal: Journal | None) -> int:
    """Return how many judgements of a service LLM this very run has bought."""
    if journal is None:
        return 0
    folder = run_folder(experiment)
    query = """SELECT COUNT(DISTINCT key) FROM attempts
        WHERE run = ? AND stage = 'judge' AND llm = ? AND outcome = 'replied'"""
    ((count,),) = journal.query(query, f"{folder.parent.name}/{folder.name}", f"{llm.provider}/{llm.model}")
    return int(count)


def _experience(journal: Journal | None, line: Line, experiment: Experiment, dataset: CoverageDataset) -> Experience:
    """Return what the journal's replies of the same service LLM in the same stage were like, if there are enough."""
    query = """SELECT
        SUM((SELECT SUM(length(m.value ->> '$.content')) FROM json_each(q.request, '$.messages') m)),
        SUM(p.prompt_tokens), AVG(p.completion_tokens), COUNT(*)
        FROM (SELECT DISTINCT key FROM attempts WHERE stage = ? AND llm = ? AND outcome = 'replied' LIMIT 1000)
        JOIN replies p USING (key) JOIN requests q USING (key) WHERE p.prompt_tokens > 0"""
    if journal:
        values = (line.stage, f"{line.llm.provider}/{line.llm.model}")
        ((characters, prompt_tokens, completion_tokens, count),) = journal.query(query, *values)
        if count >= _ENOUGH:
            return Experience(characters / prompt_tokens, completion_tokens, count)
    if line.stage == "judge":
        return Experience(_CHARACTERS_A_TOKEN, _VERDICT_TOKENS, 0)
    if line.stage == "infer":
        response = sum(len(e.response) for e in dataset.train) / len(dataset.train) / _CHARACTERS_A_TOKEN
        return Experience(_CHARACTERS_A_TOKEN, min(response, most_tokens(line.llm)), 0)
    pair = sum(len(e.prompt) + len(e.response) + 40 for e in dataset.train) / len(dataset.train)
    return Experience(_CHARACTERS_A_TOKEN, experiment.synthesis.pairs_per_request * pair / _CHARACTERS_A_TOKEN, 0)


def rendered(made: Quote) -> Iterable[RenderableType]:
    """Yield what is shown of a quote."""
    from rich.table import Table

    runs = "1 run" if made.runs == 1 else f"{made.runs} runs"
    if not made.lines:
        yield f"{runs}: nothing is to be paid: no service LLM is asked, or all is there already."
        yield from rendered_hours(made.works)
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
    yield from rendered_hours(made.works)
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
