"""Judges as programs, fair ones and such with a fault, and what an audit's answers get from them.

`case(number)` is a made case: a task, its rows, and a fair judge's strictness, noise and steps. A program takes the
judge's prompt and returns its reply, so it can stand for a service LLM; `verdicts_of` asks it without one.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llamaduo.config import Judge, ServiceLLM
from llamaduo.evidence.known_answers import KINDS, REPEATED
from llamaduo.pocket import teacher
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example, Prediction, Verdict, prompt_id
from llamaduo.service.replies import read_scores
from llamaduo.stages.judge import request
from llamaduo.stages.probe import probe

Program = Callable[[str, int], str]
"""Takes a judge's prompt and the number of the repeat."""
Score = Callable[[str, str, str], tuple[float, float]]
"""Takes instruction, reference and candidate; returns similarity and precision."""
TASKS = ("classification", "closed_qa", "summarization", "coding")
_FENCED = re.compile(r"<<(\w+) (\w+)\n(.*?)\n\1>>", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """A made case."""

    number: int
    rows: tuple[Example, ...]
    strictness: float
    noise: float
    """SD between repeats, points."""
    step: float
    """Scores are multiples of it."""


def case(number: int, items: int = 24) -> Case:
    """Return one of the made cases: no two are alike."""
    rng = random.Random(number)
    pairs = make_pairs(TASKS[number % len(TASKS)], items, number)
    rows = [({"role": "user", "content": prompt}, response) for prompt, response in pairs]
    examples = tuple(Example(prompt_id((message,)), (message,), response) for message, response in rows)
    return Case(number, examples, rng.choice((0.4, 0.5, 1.0, 2.0, 3.0)), rng.uniform(0, 5), rng.choice((0.1, 1, 5, 10)))


def fair(made: Case) -> Score:
    """Return a judge that knows the truth and gives partial credit, as strictly as the case says."""

    def score(instruction: str, reference: str, candidate: str) -> tuple[float, float]:
        texts = (instruction, reference, candidate)
        told = teacher._judge(*texts, {"strictness": made.strictness}, random.Random(0))
        assert told is not None
        return told["similarity"][0], told["precision"][0]

    return score


def program(score: Score, made: Case, scale: float = 1.0) -> Program:
    """Return a judge that scores so, with the case's noise and steps; `scale` shrinks what it says."""

    def reply(prompt: str, repeat: int) -> str:
        texts = {name: text for _, name, text in _FENCED.findall(prompt)}
        digest = hashlib.sha256(f"{made.number} {repeat} {prompt}".encode()).hexdigest()
        rng = random.Random(digest)
        said = {}
        for name, value in zip(
            ("similarity", "precision"),
            score(texts["instruction"], texts["reference"], texts["candidate"]),
            strict=True,
        ):
            stepped = round((value + rng.gauss(0, made.noise)) / made.step) * made.step
            said[name] = {"reason": "r", "score": round(min(100.0, max(0.0, stepped)) * scale, 4)}
        return json.dumps(said)

    return reply


def verdicts_of(ask: Program, rows: Sequence[Example], repeats: int = 3) -> list[Verdict]:
    """Return a judge's verdicts on an audit's answers to these rows."""
    llm = ServiceLLM(name="j", provider="none", model="m")
    config, made = Judge(panel={"j": llm}), []
    for prediction in probe(rows):
        for repeat in range(repeats if list(KINDS)[prediction.sample] in REPEATED else 1):
            made.append(verdict_of(ask, prediction, config, repeat))
    return made


def verdict_of(ask: Program, prediction: Prediction, config: Judge, repeat: int) -> Verdict:
    """Return one verdict, read as strictly as any."""
    scores = read_scores(ask(request(config, prediction, "j", repeat).prompt, repeat), "stop")
    where = (prediction.prompt_id, prediction.sample, "j", repeat)
    return Verdict(*where, scores.similarity, scores.precision, {}, None, None, None)
