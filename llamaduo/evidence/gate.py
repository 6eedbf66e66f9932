"""The gate: whether a model is accepted, by limits that hold.

    seen = look(verdicts, gate, error=0.01, clusters=clusters(predictions))
    seen.passed, seen.values["precision"]        False, 87.9: the number that has to reach the gate

Three rules. `lower`: Gaffke's one-sided lower limit of each mean has to reach the gate (see `bounded`). `mean`: the
mean has to, as in the paper, which promises nothing. `service_llm`: of each prompt the difference between the local
model's mean and the service LLM's is taken; its lower limit has to be above minus the margin.

Missing answers count against: in what the gate looks at every answer that could not be scored counts as 0 (the service
LLM's as 100). That is a bound, no score: it enters no mean that is shown.

With dear judges, who saw some of each prompt's answers, the number is that of two tiers, `combined` (see `two_tier`),
missing answers counted as 0 in both.

A run looks at its dev split once an iteration. The error is split over as many looks as there may be, so that all of
them together accept a model that falls short in at most `gate.error` of runs, however the looks depend on each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llamaduo.config import Experiment, Gate, GateAgainst, GateMethod, GateRule
from llamaduo.evidence import two_tier
from llamaduo.evidence.bounded import lower_limit, upper_limit
from llamaduo.evidence.scorecard import Answer, Clusters, by_judge, by_tier, clusters, of_answers, sums_by_cluster
from llamaduo.records import GateLook, Prediction, Verdict

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

SCORES = ("similarity", "precision")
SERVICE_LLM = "service_llm"
SPREAD = 10.0
"""Standard deviation between prompts that is assumed beforehand, points of 100."""
COMBINED = "combined"
"""The method of limits that two tiers of judges give."""
FEWEST_ASSUMED = 45
"""Clusters of prompts below which Student's t is not asked: few equal answers would look like certainty."""


def asked(gate: Gate) -> list[str]:
    """Return the scores that the gate asks for."""
    return [name for name in SCORES if getattr(gate, name) is not None]


def looks(experiment: Experiment) -> int:
    """Return how often the gate may look at its split at most."""
    loop = experiment.loop
    if not experiment.synthesis.enabled:
        return 1
    return min(loop.max_iterations, len(loop.growth.volumes) or loop.max_iterations)


def error_at_a_look(experiment: Experiment) -> float:
    """Return the error of the limits that the gate looks at in each iteration."""
    return experiment.loop.gate.error / looks(experiment)


def seen(
    experiment: Experiment,
    predictions: Sequence[Prediction],
    verdicts: Sequence[Verdict],
    *,
    error: float,
    service_llm: Sequence[Verdict] | None,
    method: str | None = None,
) -> GateLook | None:
    """Return what the gate sees of a model's answers, of which some may be unjudged; None where it asks for nothing."""
    if not asked(experiment.loop.gate):
        return None
    near = clusters(predictions)
    judged = {near.get(v.prompt_id, v.prompt_id) for v in verdicts}
    return look(
        verdicts,
        experiment.loop.gate,
        error=error,
        clusters=near,
        service_llm=service_llm,
        unjudged=len({near.get(p.prompt_id, p.prompt_id) for p in predictions} - judged),
        method=method,
        dear=experiment.judge.dear,
    )


def look(
    verdicts: Sequence[Verdict],
    gate: Gate,
    *,
    error: float,
    clusters: Clusters,
    service_llm: Sequence[Verdict] | None = None,
    unjudged: int = 0,
    method: str | None = None,
    dear: Collection[str] = (),
) -> GateLook:
    """Return what the gate sees of a model; `service_llm` are the verdicts on the service LLM's answers.

    `dear` names the judges who were asked about some answers only; differences from the service LLM know none.

    Where there is a score from no judge, or where prompts are left `unjudged` (clusters of them), it doesn't pass.
    `method` is how a difference is limited, by default what the number of prompts allows.
    """
    names = asked(gate)
    against = (service_llm or []) if gate.against is GateAgainst.service_llm else None
    tables = {name: _Table.of(verdicts, against, name, clusters, dear=dear) for name in names}
    best = {name: _Table.of(verdicts, against, name, clusters, dear=dear, at_best=True) for name in names}
    prompts = max((len(table.sums) for table in tables.values()), default=0)
    alone = _Rule.of(gate, error, prompts + unjudged, method)
    rule = replace(alone, method=COMBINED) if dear and alone.method else alone
    values = {name: rule.lower(table) for name, table in tables.items()}
    needed = {name: -gate.margin if rule.compares else float(getattr(gate, name)) for name in names}
    return GateLook(
        rule=SERVICE_LLM if rule.compares else gate.rule.value,
        method=rule.method,
        error=None if rule.method is None else error,
        prompts=prompts,
        needed=needed,
        values=values,
        upper={name: rule.upper(table) for name, table in best.items()},
        judges={
            judge: {name: alone.lower(_Table.of(group, against, name, clusters, judge=judge)) for name in names}
            for judge, group in by_judge(verdicts).items()
        },
        passed=bool(names)
        and not unjudged
        and all((low := values[name]) is not None and low >= needed[name] for name in names),
        unjudged=unjudged,
    )


def confirmation(seen: GateLook) -> str:
    """Return what one look at the test split says of a model that passed on dev."""
    if seen.passed:
        return "confirmed"
    return "contradicted" if seen.failed else "undecided"


@dataclass(frozen=True)
class _Table:
    """A score's values by cluster."""

    sums: Sequence[float]
    sizes: Sequence[float]

    @classmethod
    def of(
        cls,
        verdicts: Sequence[Verdict],
        service_llm: Sequence[Verdict] | None,
        name: str,
        clusters: Clusters,
        *,
        judge: str | None = None,
        dear: Collection[str] = (),
        at_best: bool = False,
    ) -> _Table:
        """Return the scores of one model, or what it is above the service LLM in, answer by answer.

        What is missing counts against the model, or with `at_best` for it. With dear judges they are the values of two
        tiers, which may lie outside of 0 to 100; there a cheap score that is missing beside a dear one counts the other
        way, since it is taken off.
        """
        worst, most = (100.0, 0.0) if at_best else (0.0, 100.0)
        if dear:
            cheap, some = by_tier(verdicts, name, dear, missing=worst)
            if not some:
                return cls([], [])
            beside = by_tier(verdicts, name, dear, missing=most)[0]
            cheap = {answer: beside[answer] if answer in some else value for answer, value in cheap.items()}
            sums, sizes, _ = two_tier.by_cluster(cheap, some, clusters)
            return cls(sums.tolist(), sizes.tolist())
        ours = of_answers(verdicts, name, missing=worst)
        if service_llm is not None:
            ours = above(ours, of_answers([v for v in service_llm if judge in (None, v.judge)], name, missing=most))
        return cls(*sums_by_cluster(ours, clusters))


def above(ours: Mapping[Answer, float], theirs: Mapping[Answer, float]) -> dict[Answer, float]:
    """Return each answer's score less the mean score of the service LLM's answers to the same prompt."""
    by_prompt: dict[str, list[float]] = {}
    for (prompt, _), value in theirs.items():
        by_prompt.setdefault(prompt, []).append(value)
    means = {prompt: sum(values) / len(values) for prompt, values in by_prompt.items()}
    return {answer: value - means[answer[0]] for answer, value in ours.items() if answer[0] in means}


@dataclass(frozen=True)
class _Rule:
    """How the number is had that the gate looks at."""

    compares: bool
    """Whether differences from the service LLM are looked at."""
    method: str | None
    error: float

    @classmethod
    def of(cls, gate: Gate, error: float, prompts: int, method: str | None = None) -> _Rule:
        compares = gate.against is GateAgainst.service_llm
        if gate.rule is GateRule.mean:
            return cls(compares, None, error)
        if not compares:
            return cls(compares, GateMethod.guaranteed.value, error)
        return cls(compares, method or method_for(gate, error, prompts).value, error)

    def lower(self, table: _Table) -> float | None:
        return self._limit(table, -1)

    def upper(self, table: _Table) -> float | None:
        return self._limit(table, 1)

    def _limit(self, table: _Table, side: int) -> float | None:
        if not table.sums:
            return None
        low = -100.0 if self.compares else 0.0
        if self.method is None:
            found = sum(table.sums) / sum(table.sizes)
        elif self.method == COMBINED:
            found = _of_two_tiers(table, self.error)[side > 0]
        elif self.method == GateMethod.assumed.value:
            found = _student(table, self.error, side)
        else:
            limit = lower_limit if side < 0 else upper_limit
            found = limit(table.sums, table.sizes, self.error, low=low, high=100.0)
        return round(min(100.0, max(low, found)), 4)


def _of_two_tiers(table: _Table, error: float) -> tuple[float, float]:
    """Return the one-sided limits of the mean of two tiers' values over clusters."""
    import numpy as np

    return two_tier.limits(np.array(table.sums), np.array(table.sizes), 2 * error)


def _student(table: _Table, error: float, side: int) -> float:
    """Return Student's one-sided limit of a mean over clusters; it says nothing of fewer than `FEWEST_ASSUMED`."""
    from scipy.special import stdtrit

    count, size = len(table.sums), sum(table.sizes)
    if count < FEWEST_ASSUMED:
        return side * 100.0
    mean = sum(table.sums) / size
    squares = sum((total - mean * of) ** 2 for total, of in zip(table.sums, table.sizes, strict=True))
    spread = math.sqrt(count / (count - 1) * squares) / size
    return mean + side * float(stdtrit(count - 1, 1 - error)) * spread


def number(gate: Gate, error: float, prompts: int) -> tuple[float | None, Callable[[Floats, Floats], float]]:
    """Return (error, limit): the number that the gate looks at, of (sums, sizes) by cluster.

    The error is null where that number isn't Gaffke's limit.
    """
    rule = _Rule.of(gate, error, prompts)

    def limit(sums: Floats, sizes: Floats) -> float:
        found = rule.lower(_Table(sums.tolist(), sizes.tolist()))
        assert found is not None
        return found

    return (error if rule.method == GateMethod.guaranteed.value else None), limit


def method_for(gate: Gate, error: float, prompts: int) -> GateMethod:
    """Return how the difference from the service LLM is limited with so many prompts.

    `auto` takes a guaranteed limit where an equal model passes it more often than not.
    """
    if gate.method is not GateMethod.auto:
        return gate.method
    shown = supported_margin(prompts, error, SPREAD)
    return GateMethod.guaranteed if shown <= gate.margin else GateMethod.assumed


def supported_margin(prompts: int, error: float, spread: float = 0.0) -> float:
    """Return the smallest margin that a guaranteed limit can show for a model that equals the service LLM.

    `spread` is the standard deviation of the prompts' differences, points of 100; 0: every answer is as good.
    """
    return (
        -lower_limit(spread_out(0.0, spread, prompts, -100.0), [1] * prompts, error, low=-100.0) if prompts else 200.0
    )


def spread_out(mean: float, spread: float, prompts: int, low: float = 0.0) -> list[float]:
    """Return values of so many prompts, evenly spread by the quantiles of a beta distribution with this mean and SD."""
    from scipy.stats import beta

    width = 100.0 - low
    share = (mean - low) / width
    if not spread or not 0 < share < 1:
        return [mean] * prompts
    total = share * (1 - share) / (spread / width) ** 2 - 1
    quantiles = [(at + 0.5) / prompts for at in range(prompts)]
    return [low + width * float(value) for value in beta.ppf(quantiles, share * total, (1 - share) * total)]
