"""How scores, limits and counts are told: `precision 92.3 [90.1, 94.0] (64 prompts, 256 answers)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamaduo.config import Experiment, GateAgainst
from llamaduo.evidence.gate import SCORES, asked
from llamaduo.records import Estimate, GateLook, Scorecard
from llamaduo.runs.state import Iteration


def goal(experiment: Experiment) -> str:
    """Tell what a model has to reach."""
    gate = experiment.loop.gate
    if gate.against is GateAgainst.service_llm:
        return f"{' and '.join(asked(gate))} at most {gate.margin:g} below {experiment.service_llm.name}"
    return "the gate of " + " and ".join(f"{name} {getattr(gate, name):g}" for name in asked(gate))


def limits_told(seen: GateLook | Mapping[str, Any]) -> str:
    """Tell what was compared with what; takes a look as it is stored, too."""
    seen = seen if isinstance(seen, GateLook) else GateLook(**seen)
    number = "mean" if seen.method is None else "lower limit"
    what = f"{number} of the difference" if seen.rule == "service_llm" else number
    parts = [
        f"{name} {'none' if value is None else f'{value:.1f}'} against {seen.needed[name]:g}"
        for name, value in seen.values.items()
    ]
    return f"{what} of {', '.join(parts)}"


def of_card(card: Scorecard) -> dict[str, Estimate]:
    """Return the two scores of a scorecard."""
    return {name: getattr(card, name) for name in SCORES}


def of_iteration(line: Iteration) -> dict[str, Estimate]:
    """Return the two scores of an iteration."""
    return {
        name: Estimate(
            mean=getattr(line, f"{name}_mean"),
            low=getattr(line, f"{name}_low"),
            high=getattr(line, f"{name}_high"),
            n=line.answers,
            prompts=line.prompts,
        )
        for name in SCORES
    }


def scores(found: Mapping[str, Estimate]) -> str:
    """Tell scores with their intervals."""
    return ", ".join(f"{name} {span(one)}" for name, one in found.items())


def span(one: Estimate) -> str:
    """Tell a score with its interval."""
    if one.mean is None:
        return "not scored"
    return f"{one.mean:.1f}" if one.low is None else f"{one.mean:.1f} [{one.low:.1f}, {one.high:.1f}]"


def count(card: Scorecard | Iteration) -> str:
    """Say how many prompts and answers the scores are over, and how many verdicts of those asked for."""
    prompts = card.prompts if isinstance(card, Iteration) else max(card.similarity.prompts, card.precision.prompts)
    total = card.scored + card.unscored
    missing = f", {card.scored:,} of {total:,} verdicts scored" if card.unscored else ""
    unanswered = f", {card.unanswered} not answered" if card.unanswered else ""
    left = f" of {card.answers + card.unjudged:,}, the others not judged" if card.unjudged else ""
    return f"{prompts:,} prompts, {card.answers:,} answers{left}{unanswered}{missing}"


def size(one: Estimate) -> str:
    """Tell how many prompts and answers a score is over."""
    return f"{one.prompts:,} prompts, {one.n:,} answers"


def short(text: str, most: int = 60) -> str:
    """Tell a text in one short line."""
    folded = " ".join(text.split())
    return f'"{folded}"' if len(folded) <= most else f'"{folded[: most - 1]}…"'
