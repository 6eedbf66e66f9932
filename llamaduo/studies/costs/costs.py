"""What a run has cost, and what serving its model costs beside the service LLM.

    found = costs(run, assumptions(run))
    found.spent_usd                 synthesis, judging, and hours of training and answering at the stated price
    found.service["list"].mean      US dollars for 1,000 requests to the service LLM
    found.migration.months(300_000) months until the migration has paid back

Reads the run's configuration and state, `curation.json`, scorecards, the markers of its artifacts, and the answers that
it is reported by. What is not known is None and stays empty in tables: nothing is filled in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llamaduo.config import Assumptions, Launch
from llamaduo.errors import ConfigError
from llamaduo.evidence.break_even import Migration
from llamaduo.runs.layout import PREDICTIONS
from llamaduo.runs.record import RunRecord
from llamaduo.service.prices import Tariff, tariff
from llamaduo.studies.costs import speed
from llamaduo.studies.costs.amounts import Amount, amounts, scaled
from llamaduo.studies.costs.by_stage import spending
from llamaduo.studies.study import Study
from llamaduo.studies.tidy import identity

WAYS = ("list", "cached", "batch")
"""Prices of a service LLM: its list price; with every prompt token read from its cache; by its batch API."""


CPU = "CPU"
"""A machine without a GPU; the name of what is priced holds it where CPU cores are."""


@dataclass(frozen=True)
class RunCost:
    """The costs of a run, in US dollars; None where an input is not known."""

    run: str
    task: str
    local_model: str
    service_llm: str
    machine: str
    """The hardware that the run recorded: its GPUs, or `CPU`; empty where it recorded none."""
    served: bool
    """Whether a server answered, such as the service LLM: its hours are in its price, its speed is its own."""
    synthesis_usd: float
    judging_usd: float
    other_usd: float
    """Paid besides: calls of a stage that broke off, a server that answered."""
    train_hours: float | None
    """Hours of training, times the GPUs that trained."""
    answer_hours: float | None
    """0 where a server answered."""
    prompt_tokens: Amount | None
    """Of a request: the rendered prompt, by the local model's tokenizer."""
    answer_tokens: Amount | None
    """Of the local model's answer."""
    reference_tokens: Amount | None
    """Of the reference, which stands for the service LLM's reply: its characters at the answers' characters a token."""
    service: Mapping[str, Amount | None]
    """For 1,000 requests to the service LLM, by `WAYS`."""
    price_source: str
    """Where the service LLM's price comes from; empty where it is not known."""
    tokens_per_second: float | None
    """Tokens of answers a second on one GPU; None where a server answered."""
    speed_source: str
    assumptions: Assumptions

    @property
    def priced(self) -> bool:
        """Whether the price may stand for the recorded machine: a GPU's for GPUs, that of CPU cores for a CPU."""
        return not self.machine or (self.machine == CPU) == (CPU in self.assumptions.gpu)

    @property
    def hours(self) -> float | None:
        """Of training and answering."""
        if self.train_hours is None or self.answer_hours is None:
            return None
        return self.train_hours + self.answer_hours

    @property
    def gpu_usd(self) -> float | None:
        """The hours at the stated price; None where that is another kind of machine's."""
        if self.hours is None or (self.hours and not self.priced):
            return None
        return self.hours * self.assumptions.gpu_usd_per_hour

    @property
    def service_spent_usd(self) -> float:
        """All that was paid to service LLMs."""
        return self.synthesis_usd + self.judging_usd + self.other_usd

    @property
    def spent_usd(self) -> float | None:
        """All that was spent; None where hours are not known."""
        return None if self.gpu_usd is None else self.service_spent_usd + self.gpu_usd

    @property
    def migration(self) -> Migration | None:
        """What break-even is worked out from; None where one of its inputs is not known."""
        list_price, hours = self.service["list"], self.hours
        if list_price is None or self.answer_tokens is None or not self.tokens_per_second or hours is None:
            return None
        if not self.priced:
            return None
        return Migration(
            service_spent_usd=self.service_spent_usd,
            gpu_hours=hours,
            service_usd=list_price.mean / 1000,
            completion_tokens=self.answer_tokens.mean,
            tokens_per_second=self.tokens_per_second,
            gpu_usd_per_hour=self.assumptions.gpu_usd_per_hour,
            utilisation=self.assumptions.utilisation,
        )

    @property
    def local(self) -> Amount | None:
        """For 1,000 requests to the local model on a shared GPU; None where another kind of machine was measured."""
        if self.answer_tokens is None or not self.tokens_per_second:
            return None
        if not self.priced and not self.assumptions.tokens_per_second:
            return None
        busy = self.tokens_per_second * self.assumptions.utilisation * 3600
        return scaled(self.answer_tokens, 1000 * self.assumptions.gpu_usd_per_hour / busy)


def assumptions(run: RunRecord) -> Assumptions:
    """Return what the run's configuration assumes of serving; the defaults where it says nothing."""
    return run.experiment.serving


def study_costs(study: Study) -> list[RunCost]:
    """Return the costs of a study's finished runs, each under its own assumptions."""
    return [costs(run, assumptions(run)) for run in study.runs if run.state.status == "done"]


def costs(run: RunRecord, assumed: Assumptions) -> RunCost:
    """Return what a run has cost and what serving costs, under some assumptions."""
    paid, served = spending(run), run.experiment.infer.served
    answers, known = _reported_answers(run), identity(run)
    price = _tariff(run)
    tokens = _amounts(run, answers, price)
    answered = [] if served else speed.answering(run.folder)
    rate, source = (None, "") if served else _speed(answered, assumed)
    return RunCost(
        run=run.name,
        task=str(known["task"]),
        local_model=str(known["local_model"]),
        service_llm=run.experiment.service_llm.name or "",
        machine=_machine(run),
        served=served,
        synthesis_usd=paid.synthesis or 0.0,
        judging_usd=paid.judged,
        other_usd=paid.other,
        train_hours=_train_hours(run),
        answer_hours=0.0 if served else _hours(answered, 1),
        prompt_tokens=tokens.get("prompt"),
        answer_tokens=tokens.get("answer"),
        reference_tokens=tokens.get("reference"),
        service={way: tokens.get(way) for way in WAYS},
        price_source=price.source if price else "",
        tokens_per_second=rate,
        speed_source=source,
        assumptions=assumed,
    )


def _machine(run: RunRecord) -> str:
    hardware = run.environment.get("hardware")
    if not hardware:
        return ""
    return ", ".join(dict.fromkeys(hardware.get("gpus") or [CPU]))


def _gpus(run: RunRecord) -> int:
    """Return how many GPUs trained: all that the machine has under `launch=accelerate`, else one."""
    launched = run.experiment.runtime.launch is Launch.accelerate
    return max(1, len((run.environment.get("hardware") or {}).get("gpus") or [])) if launched else 1


def _train_hours(run: RunRecord) -> float | None:
    if not run.experiment.train.enabled:
        return 0.0
    return _hours(speed.training(run.folder), _gpus(run))


def _hours(works: Sequence[speed.Work], gpus: int) -> float | None:
    return gpus * math.fsum(work.seconds for work in works) / 3600 if works else None


def _speed(answered: Sequence[speed.Work], assumed: Assumptions) -> tuple[float | None, str]:
    """Return tokens of answers a second and where the number comes from."""
    if assumed.tokens_per_second:
        return assumed.tokens_per_second, f"stated: {assumed.tokens_as_of or 'without a source'}"
    rate = speed.rate(answered)
    if rate is None:
        return None, ""
    rates = [work.rate for work in answered if work.rate > 0]
    return rate, f"this run's answering, {min(rates):,.0f} to {max(rates):,.0f}, n = {len(rates)} stages"


def _reported_answers(run: RunRecord) -> speed.Answers | None:
    """Return the answers that the run is reported by."""
    place = run.reported_place
    if place is None:
        return None
    answers = speed.read_answers(place / PREDICTIONS)
    return answers if answers.prompt_ids else None


def _tariff(run: RunRecord) -> Tariff | None:
    """Return the service LLM's prices by the run's own configuration; None where nobody knows them."""
    llm = run.experiment.service_llm
    if not llm.provider or not llm.model:
        return None
    try:
        return tariff(llm, run.experiment.prices)
    except ConfigError:
        return None


def _amounts(run: RunRecord, answers: speed.Answers | None, price: Tariff | None) -> dict[str, Amount]:
    """Return tokens of a request (`prompt`, `answer`, `reference`) and dollars for 1,000 to the service LLM, by `WAYS`.

    At most a prompt fills the local model's context, an answer has `infer.max_new_tokens`, and a reply the
    `max_tokens` of the service LLM. What is not known is left out.
    """
    if answers is None:
        return {}
    asked, given = run.experiment.local_model.context, run.experiment.infer.max_new_tokens
    found: dict[str, tuple[list[float], float | None]] = {
        "prompt": (answers.mean_by_prompt(answers.prompt_tokens), asked),
        "answer": (answers.mean_by_prompt(answers.completion_tokens), given),
    }
    if answers.characters_a_token:
        replied = run.experiment.service_llm.max_tokens
        replies = answers.mean_by_prompt(_reference_tokens(answers))
        found["reference"] = replies, replied
        for way, (reading, writing) in _rates(price).items():
            if reading is not None and writing is not None:
                usd = [1000 * (a * reading + b * writing) for a, b in zip(found["prompt"][0], replies, strict=True)]
                found[way] = usd, 1000 * (asked * reading + replied * writing) if asked and replied else None
    return amounts(found)


def _rates(price: Tariff | None) -> dict[str, tuple[float | None, float | None]]:
    """Return US dollars for a token read and a token written, by each way to pay for them."""
    if price is None:
        return {}
    return {
        "list": (price.input, price.output),
        "cached": (price.cached_input, price.output),
        "batch": (price.batch_input, price.batch_output),
    }


def _reference_tokens(answers: speed.Answers) -> list[float]:
    each = answers.characters_a_token or math.inf
    return [characters / each for characters in answers.reference_characters]
