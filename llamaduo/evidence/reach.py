"""What a gate can see with so many prompts: worked out before anything is trained or bought.

    refusal(experiment, 2, test=16)    why no model can pass, with the number of prompts needed; None if one can
    outlook(experiment, 64, test=16)   what a model needs to pass, a sentence each
    told_of(experiment, gated, test)   both, of these rows; raises InputError where data would be bought in vain

Differences between prompts are taken to have a standard deviation of 10 points where one has to be assumed; a model
whose answers scatter more needs more prompts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llamaduo.config import Experiment, GateAgainst, GateMethod, GateRule, GateSplit, JudgeKind
from llamaduo.errors import InputError
from llamaduo.evidence.bounded import fewest, lower_limit
from llamaduo.evidence.gate import (
    FEWEST_ASSUMED,
    SPREAD,
    asked,
    error_at_a_look,
    looks,
    method_for,
    spread_out,
    supported_margin,
)
from llamaduo.records import Example

ASSUMED = (
    "The difference is limited by Student's t, which assumes that no rare, large failures hide among prompts that were "
    "not asked."
)


def told_of(experiment: Experiment, gated: Sequence[Example], tested: Sequence[Example]) -> list[str]:
    """Return what the gate can see with so many prompts, a sentence each.

    Raises InputError where no model can pass, and data would be bought for it in vain.
    """
    prompts, test = prompts_in(gated), prompts_in(tested)
    refused = refusal(experiment, prompts, test)
    if refused and experiment.synthesis.enabled:
        raise InputError(refused)
    told = [f"No model can pass: {refused}"] if refused else outlook(experiment, prompts, test)
    return [*left_out(experiment), *told]


def prompts_in(examples: Sequence[Example]) -> int:
    """Return how many prompts there are, near copies of one counted once."""
    return len({example.cluster or example.prompt_id for example in examples})


def refusal(experiment: Experiment, prompts: int, test: int) -> str | None:
    """Return why no model can be accepted with so many prompts at the gate and in test; None where one can."""
    gate, needed = experiment.loop.gate, prompts_needed(experiment)
    if needed is None:
        return None
    if prompts >= needed:
        return _unconfirmed(experiment, prompts, test)
    split, most = experiment.protocol.gate_split.value, looks(experiment)
    times = "one look" if most == 1 else f"up to {most} looks"
    if gate.against is GateAgainst.service_llm:
        how = "a guaranteed limit" if gate.method is GateMethod.guaranteed else "Student's t"
        what = f"{how} needs {needed} to compare it with the service LLM (margin {gate.margin:g}, {times})"
        other = (
            "a fixed gate (loop.gate.against=threshold)" if needed == FEWEST_ASSUMED else "a larger loop.gate.margin"
        )
    else:
        what = f"{needed} are needed to pass a gate of {_highest(experiment):g} at {times}, were every answer perfect"
        other = "loop.gate.rule=mean, which promises nothing"
    return (
        f"the {split} split has {_prompts(prompts)}: {what}. Raise data.{split}_rows to {needed} or more, "
        f"or take {other}."
    )


def _unconfirmed(experiment: Experiment, prompts: int, test: int) -> str | None:
    """Return why test could never confirm what passed by an assumption; None where it could, or needn't."""
    gate, dev = experiment.loop.gate, experiment.protocol.gate_split is GateSplit.dev
    compares = gate.against is GateAgainst.service_llm
    if not dev or not compares or method_for(gate, error_at_a_look(experiment), prompts) is GateMethod.guaranteed:
        return None
    if test >= FEWEST_ASSUMED:
        return None
    return (
        f"the test split has {_prompts(test)}: with {_prompts(prompts)} at the gate it has to confirm what Student's t "
        f"lets pass, and needs {FEWEST_ASSUMED} for it. Raise data.test_rows to {FEWEST_ASSUMED} or more, or take a "
        "fixed gate (loop.gate.against=threshold)."
    )


def prompts_needed(experiment: Experiment) -> int | None:
    """Return the fewest prompts with which the gate can be passed at all; None where it looks at no limit."""
    gate, error = experiment.loop.gate, error_at_a_look(experiment)
    if not asked(gate) or gate.rule is GateRule.mean:
        return None
    if gate.against is GateAgainst.service_llm:
        alone = fewest(100 - gate.margin, error)
        if gate.method is GateMethod.assumed or alone is None:
            return FEWEST_ASSUMED
        return (
            alone if gate.method is GateMethod.guaranteed else min(FEWEST_ASSUMED, enough(gate.margin, error) or alone)
        )
    return fewest(_highest(experiment), error)


def left_out(experiment: Experiment) -> list[str]:
    """Return what the gate can't ask for since the judge doesn't give it, in a sentence; nothing where it gives all."""
    gate = experiment.loop.gate
    if experiment.judge.kind is not JudgeKind.reference:
        return []
    if gate.precision is not None:
        return [
            f"No model can pass: loop.gate.precision={gate.precision:g} asks for what judge=reference doesn't give; "
            "take loop.gate.precision=null."
        ]
    alone = "the gate asks for similarity alone" if asked(gate) else "there is no gate"
    return [f"judge=reference gives no precision: {alone}."]


def outlook(experiment: Experiment, prompts: int, test: int) -> list[str]:
    """Return what a model needs to pass with so many prompts at the gate and on the test split, a sentence each."""
    gate = experiment.loop.gate
    if not asked(gate) or gate.rule is GateRule.mean or refusal(experiment, prompts, test):
        return []
    compares = gate.against is GateAgainst.service_llm
    told = _against_service_llm(experiment, prompts) if compares else _against_scores(experiment, prompts)
    alone = fewest(_highest(experiment), gate.error)
    if experiment.protocol.gate_split is GateSplit.dev and not compares and alone and test < alone:
        told.append(f"The test split has {_prompts(test)}: it can contradict, but {alone} are needed to confirm.")
    return told


def _against_scores(experiment: Experiment, prompts: int) -> list[str]:
    gate, error = _highest(experiment), error_at_a_look(experiment)
    every = gate / error ** (1 / prompts)
    means = [_up(mean_needed(gate, error, count)) for count in (prompts, 2 * prompts)]
    return [
        f"Gate of {gate:g}: with {_prompts(prompts)} a model passes whose every answer scores {_up(every)}, or whose "
        f"mean is about {means[0]} (SD of {SPREAD:g} between prompts); with {2 * prompts}, a mean of about {means[1]}."
    ]


def mean_needed(gate: float, error: float, prompts: int) -> float:
    """Return about what mean score passes the gate where prompts differ by an SD of 10, or by as much as they can."""
    low, high = gate, 100.0
    for _ in range(12):
        middle = (low + high) / 2
        most = 0.9 * math.sqrt(middle * (100 - middle))
        values = spread_out(middle, min(SPREAD, most), prompts)
        if lower_limit(values, [1] * prompts, error) < gate:
            low = middle
        else:
            high = middle
    return high


def _against_service_llm(experiment: Experiment, prompts: int) -> list[str]:
    gate, error = experiment.loop.gate, error_at_a_look(experiment)
    method = method_for(gate, error, prompts)
    shown = supported_margin(prompts, error, SPREAD)
    power = {name.value: power_at_equality(gate.margin, error, prompts, name) for name in _METHODS}
    told = (
        f"Gate of {gate.margin:g} points below the service LLM: with {_prompts(prompts)} a guaranteed limit shows a "
        f"margin of {shown:.1f} for a model that equals it (SD of {SPREAD:g} between prompts)"
    )
    more = enough(gate.margin, error)
    told += f"; {more:,} prompts would show {gate.margin:g}." if shown > gate.margin and more else "."
    chances = ", ".join(f"{name} {share:.0%}" for name, share in power.items())
    label = "" if method is GateMethod.guaranteed else f" {ASSUMED} The test split has to confirm it."
    return [f"{told}{label} An equal model passes a look with a probability of: {chances}."]


_METHODS = (GateMethod.guaranteed, GateMethod.assumed)


def power_at_equality(margin: float, error: float, prompts: int, method: GateMethod) -> float:
    """Return about how often a model that equals the service LLM passes one look, at an SD of 10 between prompts."""
    from scipy.special import ndtr, stdtrit

    around = SPREAD / math.sqrt(prompts)
    below = supported_margin(prompts, error, SPREAD)
    if method is GateMethod.assumed:
        below = float(stdtrit(max(1, prompts - 1), 1 - error)) * around
    return float(ndtr((margin - below) / around))


def enough(margin: float, error: float) -> int | None:
    """Return the fewest prompts whose guaranteed limit shows the margin for an equal model; None: more than 4,096."""
    low, high = 1, 4096
    if supported_margin(high, error, SPREAD) > margin:
        return None
    while low < high:
        middle = (low + high) // 2
        if supported_margin(middle, error, SPREAD) <= margin:
            high = middle
        else:
            low = middle + 1
    return low


def _highest(experiment: Experiment) -> float:
    gate = experiment.loop.gate
    return max(float(getattr(gate, name)) for name in asked(gate))


def _prompts(count: int) -> str:
    return "1 prompt" if count == 1 else f"{count:,} prompts"


def _up(value: float) -> str:
    """Return a number to one digit, rounded up: what is told must be enough."""
    return f"{math.ceil(value * 10 - 1e-9) / 10:.1f}"


def mean_rule_error(gate: float, prompts: int) -> float | None:
    """Return how often a mean over so many prompts reaches the gate although the truth is a point below it.

    For scores that fall short of 100 by a gamma distribution with an SD of 15 between prompts: 44% for 16 prompts and a
    gate of 90. None where there is no such gate.
    """
    from scipy.special import gammainc

    if not 1 <= gate < 100 or not prompts:
        return None
    short = 100 - gate + 1
    shape, scale = (short / _SKEWED) ** 2, _SKEWED**2 / short
    return float(gammainc(prompts * shape, prompts * (100 - gate) / scale))


_SKEWED = 15.0
