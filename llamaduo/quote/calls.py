"""The service LLM calls of a run, counted by stage and service LLM before anything is asked.

    lines: Lines = {}
    count_judging(experiment, dataset, lines, journal)

Most requests to synthesise are known word for word, so those that the journal holds already, and those that several
runs of a sweep share (`seen`), are left out, and so it is with what a server is asked to answer (`infer=endpoint`); of
judgements, those that the same run has bought.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from llamaduo.config import Beside, Experiment, JudgeKind, Pick, ServiceLLM, Strategy, beside
from llamaduo.data.dataset import CoverageDataset, gate_rows
from llamaduo.data.shots import with_nearest
from llamaduo.evidence.two_tier import seen_of
from llamaduo.evidence.watch import judges_in_rounds
from llamaduo.records import Example, Prediction
from llamaduo.runs.finished import run_folder
from llamaduo.service import answers
from llamaduo.service.access import hider_of
from llamaduo.service.bodies import most_billed, most_tokens
from llamaduo.service.concealing import concealed
from llamaduo.service.journal import Journal
from llamaduo.service.prices import Tariff, tariff
from llamaduo.service.prompts import RESPONSE_SCHEMA
from llamaduo.service.requests import Request
from llamaduo.stages import judge
from llamaduo.stages.infer import answering
from llamaduo.steps.growth import most_asked, planned, situation, volume
from llamaduo.synthesis.strategies import UNKNOWN, named
from llamaduo.synthesis.strategy import Failed


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


def _line(lines: Lines, stage: str, llm: ServiceLLM, experiment: Experiment) -> Line:
    """Return the line of a stage and a service LLM; one of another model, address or price has a line of its own."""
    price = tariff(llm, experiment.prices)
    key = (stage, llm.name, llm.provider, llm.base_url, llm.model, most_tokens(llm), price)
    return lines.setdefault(key, Line(stage, llm, price))


def count_synthesis(
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
    hider, config, new = hider_of(experiment), experiment.synthesis, [0, 0]
    for number, asked, known in _synthesis_requests(experiment, dataset):
        request, _ = concealed(asked, hider)
        held = known and (request.key in seen or bool(journal and journal.find(request.key)))
        seen |= {request.key} if known else set()
        line.add((0, 1) if number == 0 else (1,), calls=1, held=int(held), characters=0 if held else request.characters)
        if not held:
            most = most_asked(config)
            line.ceiling_usd += most * line.tariff.cost(request.longest_prompt, request.longest_reply)
        alone = named(config) is Strategy.label or asked.schema is RESPONSE_SCHEMA
        new[number > 0] += 1 if alone else config.pairs_per_request
    if config.candidates > 1:
        _count_picking(experiment, dataset, lines, new)


def _synthesis_requests(experiment: Experiment, dataset: CoverageDataset) -> Iterator[tuple[int, Request, bool]]:
    """Yield (iteration that needs it, request, whether it is known word for word).

    What a strategy asks that looks at the student, or at earlier synthetic rows, stands for requests of its size: of
    those that correct the student there are at most so many, as if it failed everywhere.
    """
    name, pool, asked = named(experiment.synthesis), 0, 0
    for number in range(experiment.loop.max_iterations):
        wanted = volume(experiment.loop.growth, len(dataset.train), number) - pool
        if wanted <= 0:
            continue
        before = situation(experiment, dataset)
        failed = [Failed(row, row.response) for row in before.train if number]  # before the first, nobody has
        known = replace(before, begun=asked, failed=failed)
        made = planned(known, wanted, asked)
        yield from ((number, one.request, number == 0 or name not in UNKNOWN) for one in made)
        pool, asked = pool + wanted, asked + len(made)


def _count_picking(experiment: Experiment, dataset: CoverageDataset, lines: Lines, new: Sequence[int]) -> None:
    """Count the further answers to each new prompt, and the judge's picks, at the size of coverage rows.

    `new` are the pairs that are asked for before the first training, and after it.
    """
    config, rows = experiment.synthesis, dataset.train
    prompt = sum(len(row.prompt) for row in rows) / len(rows)
    answers = prompt + config.candidates * sum(len(row.response) for row in rows) / len(rows)
    asked = [(experiment.service_llm, config.candidates - 1, prompt)]
    if config.pick is Pick.judge:
        asked.append((next(iter(experiment.judge.panel.values())), 1, answers))
    for reach, pairs in zip(((0, 1), (1,)), new, strict=True):
        for llm, times, characters in asked:
            calls = times * pairs
            line = _line(lines, "pick", llm, experiment)
            line.add(reach, calls=calls, held=0, characters=calls * characters)
            longest = line.tariff.cost(4 * round(characters), most_billed(llm))
            line.ceiling_usd += most_asked(config) * calls * longest


def count_answers(
    experiment: Experiment,
    dataset: CoverageDataset,
    lines: Lines,
    seen: set[str],
    journal: Journal | None,
) -> None:
    """Count what servers are asked to answer, K times a prompt; the same answer is bought once.

    That is the server that already runs (`infer=endpoint`), and the service LLM where it stands beside the model.
    """
    hider = hider_of(experiment)
    served = [(answering(experiment, None), _splits(experiment, dataset))]
    if Beside.service_llm in beside(experiment):
        served.append((answering(experiment, Beside.service_llm), _beside_splits(experiment, dataset)))
    for infer, splits in served:
        if not infer.served or infer.server is None:
            continue
        line = _line(lines, "infer", answers.as_asked(infer.server, infer), experiment)
        for examples, figures, times in splits:
            asked = with_nearest(examples, dataset.train, infer.shots) if times else []
            for made in answers.requests(asked, infer.server, config=infer, seed=experiment.runtime.seed):
                request, _ = concealed(made, hider)
                held = request.key in seen or bool(journal and journal.find(request.key))
                seen.add(request.key)
                new = 0 if held else 1
                line.add(figures, calls=times, held=times - new, characters=new * request.characters)
                line.ceiling_usd += new * line.tariff.cost(request.longest_prompt, request.longest_reply)


Splits = list[tuple[tuple[Example, ...], tuple[int, ...], int]]
"""What is answered and judged: (rows, which figures they count towards, how often)."""


def _splits(experiment: Experiment, dataset: CoverageDataset) -> Splits:
    """Return what the local model answers."""
    gate, times = gate_rows(experiment, dataset), rounds(experiment, dataset)
    splits: Splits = [(gate, (0, 1), 1), (gate, (1,), times - 1)]
    return splits if gate is dataset.test else [*splits, (dataset.test, (0, 1), 1)]


def _beside_splits(experiment: Experiment, dataset: CoverageDataset) -> Splits:
    """Return what each of those answers who stand beside the model: every split once."""
    splits = (gate_rows(experiment, dataset), dataset.test)
    return [(rows, (0, 1), 1) for rows in (splits[:1] if splits[0] is dataset.test else splits)]


def count_judging(experiment: Experiment, dataset: CoverageDataset, lines: Lines, journal: Journal | None) -> None:
    """Count the judgements, as if every answer were as long as its reference."""
    if experiment.judge.kind is not JudgeKind.service:
        return
    hider = hider_of(experiment)
    splits = _splits(experiment, dataset) + len(beside(experiment)) * _beside_splits(experiment, dataset)
    for name, llm in experiment.judge.panel.items():
        line = _line(lines, "judge", llm, experiment)
        bought = _bought(experiment, llm, journal)
        for examples, figures, times in splits:
            made = (judge.request(experiment.judge, _answer(example), name, 0) for example in examples)
            requests = [concealed(request, hider)[0] for request in made]
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
        (prompts * repeats - passing, rounds(experiment, dataset) * (prompts * repeats - failing))
    ):
        left = line.calls[at] - line.held[at] - line.spared[at]
        line.spared[at] += min(left, experiment.infer.samples * spared)


def rounds(experiment: Experiment, dataset: CoverageDataset) -> int:
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
