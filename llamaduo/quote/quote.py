"""The quote: what a run or a sweep would cost in service LLM calls and hours, before anything is spent.

    print(quote(compose(["preset=service", "task=coding"]).experiments, today=datetime.date.today()))

Reads the coverage data (those of the Hub from there) and the journal; calls no LLM, needs no key and writes nothing.
How often the loop goes round is not known beforehand, so every figure is a range: from a gate that is passed at the
first iteration to `loop.max_iterations`.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from llamaduo.config import Experiment
from llamaduo.data.coverage import load_coverage
from llamaduo.data.dataset import CoverageDataset, gate_rows
from llamaduo.evidence import reach
from llamaduo.quote.calls import Line, Lines, count_answers, count_judging, count_synthesis, rounds
from llamaduo.quote.hours import CHARACTERS_A_TOKEN, Work, measured_rates, work
from llamaduo.runs.finished import finished
from llamaduo.service.access import journal_path
from llamaduo.service.bodies import most_tokens
from llamaduo.service.journal import Journal
from llamaduo.service.prices import retirement_warning

VERDICT_TOKENS = 120
"""A judge's reply in tokens: an assumption, until the journal knows better."""
_ENOUGH = 20
"""Replies from which on the journal knows better."""


@dataclass(frozen=True)
class Experience:
    """What the journal knows of a service LLM in a stage; or an assumption."""

    characters_a_token: float
    completion_tokens: float
    """Mean tokens of a reply."""
    replies: int
    """Replies behind the two means; 0 for an assumption."""


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
        dataset = load_coverage(experiment)
        outlook |= dict.fromkeys(_outlook(experiment, dataset))
        known = measured(Path(experiment.runtime.results)).get(experiment.local_model.path)
        works.append(work(experiment, dataset, rounds(experiment, dataset), known))
        if experiment.service.replay:
            continue
        journal = _journal(experiment)
        count_synthesis(experiment, dataset, lines, seen, journal)
        count_answers(experiment, dataset, lines, seen, journal)
        count_judging(experiment, dataset, lines, journal)
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
    prompts = reach.prompts_in(gate_rows(experiment, dataset))
    test = reach.prompts_in(dataset.test)
    refused = reach.refusal(experiment, prompts, test)
    account = dataset.account
    data = account.lines() if account and len(account.lines()) > 1 else []
    told = data + reach.left_out(experiment)
    return told + ([refused] if refused else reach.outlook(experiment, prompts, test))


def _journal(experiment: Experiment) -> Journal | None:
    path = journal_path(experiment)
    return Journal(path, read_only=True, imported=experiment.service.imported) if path.is_file() else None


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
        return Experience(CHARACTERS_A_TOKEN, VERDICT_TOKENS, 0)
    if line.stage == "infer":
        response = sum(len(e.response) for e in dataset.train) / len(dataset.train) / CHARACTERS_A_TOKEN
        return Experience(CHARACTERS_A_TOKEN, min(response, most_tokens(line.llm)), 0)
    pair = sum(len(e.prompt) + len(e.response) + 40 for e in dataset.train) / len(dataset.train)
    return Experience(CHARACTERS_A_TOKEN, experiment.synthesis.pairs_per_request * pair / CHARACTERS_A_TOKEN, 0)
