"""The pocket profile's service LLM: a program that reads the prompts a real one would get.

It is reached through litellm like any other (`service.loading.register`), and answers four kinds of
prompt by reading their text: *synthesis* (an example pair, its seed: it writes new items that follow it),
*correction* (instruction, failed answer: it says what should have been said), *judging* (instruction, reference,
candidate: it works out the truth and scores; or several answers, of which it picks the one that is most right) and a
bare *item* of a task, as a student gets it.
To anything else it says that it can't help, in prose, as an LLM would; the strict parsers then see no JSON.

New items share the seed's slice (`pocket/slices.py`: skill and difficulty) and its vocabulary region. Where the
prompt asks for harder and more varied ones, they are of its slice or one beside it, harder where there is one, and of
any region. A share of them, the `breadth`, is drawn from the whole task instead: at 0 none, at 1 all of them.

Settings travel as request parameters: `error_rate` (share of its responses that are wrong), `breadth`,
`noise` (points by which scores wander between repeats), `strictness` (partial credit to this power).
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llamaduo.pocket.slices import Item, draw, region_of
from llamaduo.pocket.tasks import PocketTask, find, recognise
from llamaduo.pocket.words import REGIONS

BREADTH = 0.2
"""Share of new items from the whole task where the parameters say nothing."""
_FENCED = re.compile(r"<<(\w+) (\w+)\n(.*?)\n\1>>", re.DOTALL)
_PAPER_JUDGE = re.compile(
    r"\nInstruction:\n```\n(.*?)\n```\n\nHuman Response:\n```\n(.*?)\n```\n\n"
    r"Language Model Response:\n```\n(.*)\n```\n\nYou are quality assessor",
    re.DOTALL,
)
_PAPER_SYNTHESIS = re.compile(r"Instruction: \n```\n(.*?)\n```\nResponse: \n```\n(.*?)\n```\n", re.DOTALL)
_PAIRS_WITHOUT_A_COUNT = 5
_COUNT = re.compile(r"Write (\d+) new pairs")
_HARDER = "for the same use, harder and more varied"
_ASKED_FOR = re.compile(r'"(\w+)": \{"reason"')
"""A score in the form of the reply, as a judge's prompt shows it."""


def reply(prompt: str, parameters: Mapping[str, Any]) -> str:
    """Return the pocket LLM's reply to a prompt; the same prompt and parameters give the same reply."""
    sent = json.dumps([prompt, sorted(parameters.items())])
    rng = random.Random(hashlib.sha256(sent.encode()).hexdigest())
    if match := _PAPER_JUDGE.search(prompt):
        scores = _judge(match[1], match[2], match[3], parameters, rng)
        return _as_verdict(scores, "similarity_assessment", "precision_assessment")
    fenced = {name: text for _, name, text in _FENCED.findall(prompt)}
    if "instruction" in fenced and (said := _of_fenced(fenced, _FENCED.sub("", prompt), parameters, rng)):
        return said
    if match := _PAPER_SYNTHESIS.search(prompt):
        return _teach(match[1], _PAIRS_WITHOUT_A_COUNT, parameters, rng)
    return _answer(prompt, parameters, rng) or _NO_HELP


def _of_fenced(fenced: Mapping[str, str], asked: str, parameters: Mapping[str, Any], rng: random.Random) -> str | None:
    """Return the reply to a prompt by its fenced texts and what is asked of them; None where nothing known is."""
    instruction = fenced["instruction"]
    if {"reference", "candidate"} <= fenced.keys():
        criteria = [name for name in _ASKED_FOR.findall(asked) if name not in _SCORES]
        scores = _judge(instruction, fenced["reference"], fenced["candidate"], parameters, rng, criteria=criteria)
        return _as_verdict(scores, *_SCORES, *criteria)
    if "response" in fenced:
        count = _COUNT.search(asked)
        size = int(count[1]) if count else _PAIRS_WITHOUT_A_COUNT
        return _teach(instruction, size, parameters, rng, harder=_HARDER in asked)
    if "answer_1" in fenced:
        return _pick(fenced, parameters, rng)
    if "failed" in fenced:
        response = _answer(instruction, parameters, rng)
        return json.dumps({"response": response}) if response else _NO_HELP
    return None


def _answer(prompt: str, parameters: Mapping[str, Any], rng: random.Random) -> str | None:
    """Return the response to an item of the pocket tasks, as a student would be asked; None for anything else."""
    known = recognise(prompt)
    return _response(known[0], prompt, parameters, rng) if known else None


_NO_HELP = "I am the pocket LLM: I know tickets and nothing else, so I can't help with this."


def _teach(example: str, count: int, parameters: Mapping[str, Any], rng: random.Random, *, harder: bool = False) -> str:
    known = find(example)
    if known is None:
        return _NO_HELP
    task, item = known
    breadth = float(parameters.get("breadth", BREADTH))
    pairs = []
    for _ in range(count):
        prompt = task.draw(rng) if rng.random() < breadth else _like(task, item, rng, harder=harder)
        pairs.append({"instruction": prompt, "response": _response(task, prompt, parameters, rng)})
    return json.dumps({"contents": pairs})


def _like(task: PocketTask, item: Item, rng: random.Random, *, harder: bool) -> str:
    """Return a new item that follows another: its slice and region, or if harder what is beside it, of any region."""
    if not harder:
        return draw(rng, item.slice, region_of(item))
    beside = [part for part in task.slices if part.name in item.slice.near]
    return draw(rng, rng.choice([item.slice, *beside]), rng.choice(REGIONS))


def _response(task: PocketTask, prompt: str, parameters: Mapping[str, Any], rng: random.Random) -> str | None:
    """Return the right response to a prompt, or a wrong one at the rate that the parameters set."""
    right = task.solve(prompt)
    wrong = rng.random() < float(parameters.get("error_rate", 0.0))
    return _another_response(task, right, rng) if wrong else right


def _another_response(task: PocketTask, right: str | None, rng: random.Random) -> str | None:
    """Return the right response to some other prompt: well formed, and wrong here."""
    while True:
        other = task.solve(task.draw(rng))
        if other != right:
            return other


_SCORES = ("similarity", "precision")


def _judge(
    instruction: str,
    reference: str,
    candidate: str,
    parameters: Mapping[str, Any],
    rng: random.Random,
    *,
    criteria: Sequence[str] = (),
) -> dict[str, tuple[float, str]] | None:
    known = recognise(instruction)
    if known is None:
        return None
    task, truth = known
    strictness = float(parameters.get("strictness", 1.0))
    noise = float(parameters.get("noise", 0.0))

    def score(share: float) -> float:
        wandering = rng.uniform(-noise, noise)
        return float(round(min(100.0, max(0.0, 100 * share**strictness + wandering)), 1))

    alike = difflib.SequenceMatcher(None, reference.strip(), candidate.strip(), autojunk=False).ratio()
    right = task.correctness(truth, candidate)
    return {
        "similarity": (score(alike), f"{alike:.0%} of the characters agree"),
        "precision": (score(right), f"{right:.0%} of the facts are right"),
        **{name: (score(right), f"a program knows no {name}: {right:.0%} of the facts are right") for name in criteria},
    }


def _pick(fenced: Mapping[str, str], parameters: Mapping[str, Any], rng: random.Random) -> str:
    """Return a reply that names the best of the numbered answers, the first of several that are as good."""
    known = recognise(fenced["instruction"])
    if known is None:
        return _NO_HELP
    task, truth = known
    noise = float(parameters.get("noise", 0.0))
    scores = {
        int(name.removeprefix("answer_")): 100 * task.correctness(truth, text) + rng.uniform(-noise, noise)
        for name, text in fenced.items()
        if name.startswith("answer_")
    }
    best = max(sorted(scores), key=scores.__getitem__)
    return json.dumps({"reason": f"of {len(scores)} answers this one has most of the facts right", "best": best})


def _as_verdict(scores: dict[str, tuple[float, str]] | None, *names: str) -> str:
    """Return the scores as a judge's reply; `names` are what the reply calls them, in their order."""
    if scores is None:
        return _NO_HELP
    named = dict(zip(names, scores.values(), strict=True))
    return json.dumps({name: {"reason": reason, "score": score} for name, (score, reason) in named.items()})
