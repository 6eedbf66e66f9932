"""Counterfactual prompts and what their answers come to: identity terms in each other's place, answered by one model.

    plan = planned(dev, read_categories(None), most=100)     which prompts, with every term of which categories
    plan.asked                                               the examples to answer, each once
    found = compared(plan, predictions)                      how answers change with the terms, as `audit.json` holds it

What is measured of an answer: its closeness to the reference in which the term was changed alike (the mean of chrF and
ROUGE-L, `evidence.reference`), whether it refuses, whether it has toxic words, and its length beside the other answers
to the same prompt. `bias` tells differences from noise.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from llamaduo.audit.bias import FEWEST, OUTCOMES, Gap, gaps
from llamaduo.audit.terms import NO_TERM, Category, swapped
from llamaduo.audit.texts import refuses, toxic
from llamaduo.data.alike import words
from llamaduo.evidence.reference import METRICS
from llamaduo.records import Example, Prediction
from llamaduo.redaction import redact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_SHOWN, _LONGEST = 5, 300


@dataclass(frozen=True)
class Swap:
    """A prompt with every term of a category."""

    cluster: str
    """Prompts of which it is a near copy; its own id where it is none."""
    original: str
    """The term that the prompt names as it stands."""
    variants: dict[str, Example]
    """By term."""


@dataclass(frozen=True)
class Plan:
    """What is to be answered."""

    swaps: dict[str, list[Swap]]
    """By category."""
    left_alone: dict[str, dict[str, int]]
    """By category: how many prompts that name a term were left alone, by reason, or as there were enough."""

    @property
    def asked(self) -> list[Example]:
        """The examples to answer, each prompt once."""
        every = (one for some in self.swaps.values() for swap in some for one in swap.variants.values())
        return list({example.prompt_id: example for example in every}.values())


def planned(examples: Sequence[Example], categories: Sequence[Category], most: int) -> Plan:
    """Return which prompts are asked with which terms, at most so many of a category, in order."""
    swaps: dict[str, list[Swap]] = {}
    left: dict[str, dict[str, int]] = {}
    for category in categories:
        found: list[Swap] = []
        reasons = Counter[str]()
        for example in examples:
            made = swapped(example, category)
            if isinstance(made, str):
                reasons[made] += made != NO_TERM
            elif len(found) == most:
                reasons["beyond the limit"] += 1
            else:
                original = next(term for term, one in made.items() if one.messages == example.messages)
                found.append(Swap(example.cluster or example.prompt_id, original, made))
        if found or +reasons:
            swaps[category.name], left[category.name] = found, dict(+reasons)
    return Plan(swaps, left)


def compared(plan: Plan, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Return how answers change with the terms; prompts that got no answer with one of them are left out."""
    answers: dict[str, list[str]] = defaultdict(list)
    for one in predictions:
        if one.answered:
            answers[one.prompt_id].append(one.text)
    tables: dict[tuple[str, str], Floats] = {}
    terms, stand, categories = {}, {}, {}
    for name, some in plan.swaps.items():
        answered = [swap for swap in some if all(answers[one.prompt_id] for one in swap.variants.values())]
        if not answered:
            continue
        terms[name] = list(answered[0].variants)
        values = [_values(swap, answers) for swap in answered]
        for outcome in OUTCOMES:
            tables[name, outcome] = _table(answered, [one[outcome] for one in values])
        categories[name] = {
            "prompts": len(answered),
            "terms": {
                term: {what: round(float(tables[name, what][:, at].mean()), 3) for what in OUTCOMES}
                for at, term in enumerate(terms[name])
            },
        }
        stand[name] = _as_they_stand(answered, [one["score"] for one in values])
    found = gaps(tables, terms)
    return {
        "answers": sum(len(texts) for texts in answers.values()),
        "categories": categories,
        "left_alone": {name: reasons for name, reasons in plan.left_alone.items() if reasons},
        "too_few": sorted(name for name, of in categories.items() if len(tables[name, "score"]) < FEWEST),
        "original_above": stand,
        "gaps": [asdict(gap) | {"worse": gap.is_worse} for gap in found],
        "examples": [_example(gap, plan, answers) for gap in found if gap.stands][:_SHOWN],
    }


def _values(swap: Swap, answers: Mapping[str, Sequence[str]]) -> dict[str, list[float]]:
    """Return of each outcome its value with each term."""
    texts = [(example, answers[example.prompt_id]) for example in swap.variants.values()]
    lengths = [fmean(1 + len(words(text)) for text in some) for _, some in texts]
    middle = fmean(lengths)
    return {
        "score": [fmean(closeness(example.response, text) for text in some) for example, some in texts],
        "refusal": [100 * fmean(map(refuses, some)) for _, some in texts],
        "toxicity": [100 * fmean(bool(toxic(text)) for text in some) for _, some in texts],
        "length": [100 * length / middle for length in lengths],
    }


def closeness(reference: str, text: str) -> float:
    """Return how close an answer is to a reference, 0 to 100: the mean of chrF and ROUGE-L."""
    return fmean(metric(reference, text) for metric in METRICS.values())


def _table(swaps: Sequence[Swap], rows: Sequence[Sequence[float]]) -> Floats:
    """Return (clusters, terms): the mean of the rows of each cluster."""
    import numpy as np

    together: dict[str, list[Sequence[float]]] = defaultdict(list)
    for swap, row in zip(swaps, rows, strict=True):
        together[swap.cluster].append(row)
    return np.array([np.mean(some, axis=0) for some in together.values()])


def _as_they_stand(swaps: Sequence[Swap], rows: Sequence[Sequence[float]]) -> float:
    """Return by how many points the prompts as they stand score above the changed ones, on average."""
    apart = []
    for swap, row in zip(swaps, rows, strict=True):
        own = list(swap.variants).index(swap.original)
        apart.append(row[own] - fmean(value for at, value in enumerate(row) if at != own))
    return round(fmean(apart), 3)


def _example(gap: Gap, plan: Plan, answers: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the prompt at which a term comes off worst beside another one, with both answers."""
    found: list[tuple[float, int, str, Swap]] = []
    for number, swap in enumerate(plan.swaps[gap.category]):
        if all(answers.get(one.prompt_id) for one in swap.variants.values()):
            row = dict(zip(swap.variants, _values(swap, answers)[gap.outcome], strict=True))
            side = 1 if gap.gap > 0 else -1
            other = min((term for term in row if term != gap.term), key=lambda term: (side * row[term], term))
            found.append((side * (row[other] - row[gap.term]), number, other, swap))
    _, _, other, swap = min(found, key=lambda one: one[:3])
    told = {"category": gap.category, "outcome": gap.outcome, "term": gap.term, "other": other}
    for name, term in (("", gap.term), ("other_", other)):
        example = swap.variants[term]
        told |= {f"{name}prompt": _short(example.prompt), f"{name}answer": _short(answers[example.prompt_id][0])}
    return told


def _short(text: str) -> str:
    one = " ".join(text.split())
    return redact(one if len(one) <= _LONGEST else f"{one[: _LONGEST - 3]}...")
