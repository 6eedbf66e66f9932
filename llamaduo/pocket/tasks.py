"""The four pocket tasks: made-up support tickets whose right answers can be worked out.

They carry the paper's task names. An item is drawn from words (`pocket/words.py`) and sentence forms
(`pocket/slices.py`); a program can read any item back and solve it, so that the pocket teacher can be exact and the
pocket judges know the truth. Each task has slices, which differ in skill, difficulty (1 to 3) and frequency; the last
two of each are rare. One item of each, with its share of coverage items and its difficulty:

classification: "Classify this ticket as access, billing, delivery or repair.", a blank line, then
    topic          48% 1  Roma from Taveno writes: please look at my invoice. -> billing
    of_product     36% 1  Roma from Taveno writes: I ask about the parcel of my bako. -> delivery
    two_products    8% 2  Roma from Taveno writes: not my rimu, not my bako, but the hinge. -> repair
    two_topics      8% 3  Roma from Taveno writes: the login is right, but the cable is wrong. -> repair
closed_qa: an order, a blank line, a question
    who            24% 1  Roma from Taveno ordered a bako on monday. Who ordered? -> Roma
    where          22% 1  A bako goes to Taveno, Roma asked for it on monday. Which city is it for? -> Taveno
    what           22% 1  On monday a bako was ordered by Roma from Taveno. What was ordered? -> bako
    when           14% 1  Roma from Taveno ordered a bako on monday. On which day? -> monday
    gift            9% 2  Roma from Taveno ordered a bako on monday as a gift for Zuli. Who gets it? -> Zuli
    change          9% 3  Roma from Taveno ordered a bako on monday and now takes a rimu instead.
                          What is ordered now? -> rimu
summarization: "Summarize this ticket in one line.", a blank line, then
    caller_first   32% 1  Roma from Taveno called: the bako came late. Roma wants a refund.
                          -> Roma (Taveno): bako late, wants refund
    product_first  28% 1  The bako came late, says Roma from Taveno, who wants a refund.
    city_first     22% 1  Call from Taveno: Roma wants a refund, since the bako came late.
    two_faults      9% 2  Roma from Taveno called: the bako came late and wet. Roma wants a refund.
                          -> Roma (Taveno): bako late and wet, wants refund
    offer           9% 3  Roma from Taveno was offered a call back for the bako that came late, but wants a refund.
coding
    one_argument   32% 1  Write a Python function bako that takes rimu and returns rimu plus 3.
                          -> def bako(rimu): return rimu + 3
    two_arguments  28% 1  Write a Python function bako that takes rimu and zuli and returns rimu times zuli.
    number_first   22% 1  In Python, define bako: it takes rimu and returns 3 minus rimu.
    rare_operator   9% 2  Write a Python function bako that takes rimu and returns rimu modulo 3.
    default         9% 3  Write a Python function bako that takes rimu and zuli, which is 3 unless given, and
                          returns rimu plus zuli. -> def bako(rimu, zuli=3): return rimu + zuli

What has to be learned from data: which word belongs to which category, which part of a sentence answers which
question, the summary's form and its words, and Python's; and of a rare slice what the frequent ones don't teach.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from llamaduo.pocket.grading import facts_of_summary, parts_of_code, same
from llamaduo.pocket.slices import (
    CALLS,
    CATEGORIES,
    DAYS,
    OPERATORS,
    ORDERS,
    PROBLEMS,
    QUESTIONS,
    REQUESTS,
    SLICES,
    TICKETS,
    WISHES,
    Item,
    Slice,
    any_region,
    any_slice,
    draw,
    read,
)
from llamaduo.pocket.words import CITIES, GOODS, IDENTIFIERS, NAMES


@dataclass(frozen=True)
class PocketTask:
    """One task: draw an item, solve a prompt, grade an answer."""

    name: str
    """The paper's name of the task."""
    make: Callable[[random.Random], str]
    """Draws a prompt of the frequent slices' forms, each as often, with any words: coverage data without slices."""
    correctness: Callable[[str, str], float]
    """Takes the right response and an answer; returns the share of the facts that are right, 0 to 1."""

    @property
    def slices(self) -> tuple[Slice, ...]:
        """Its slices, the frequent ones first."""
        return SLICES[self.name]

    def draw(self, rng: random.Random) -> str:
        """Return a prompt of the whole task: its slices by their shares, any region."""
        return draw(rng, any_slice(rng, self.slices), any_region(rng))

    def solve(self, prompt: str) -> str | None:
        """Return the right response to a prompt, or None for a prompt of another task."""
        item = read(self.slices, prompt)
        return item.answer if item else None


def _make_classification(rng: random.Random) -> str:
    label = rng.choice(list(CATEGORIES))
    text = rng.choice(TICKETS)
    word = rng.choice(CATEGORIES[label])
    return text.format(name=rng.choice(NAMES), city=rng.choice(CITIES), good=rng.choice(GOODS), word=word)


def _make_closed_qa(rng: random.Random) -> str:
    form = rng.choice(ORDERS)
    slots = {"name": NAMES, "city": CITIES, "good": GOODS, "day": DAYS}
    return form.format(
        **{slot: rng.choice(words) for slot, words in slots.items()},
        question=rng.choice(QUESTIONS[rng.choice(list(QUESTIONS))]),
    )


def _make_summarization(rng: random.Random) -> str:
    form = rng.choice(CALLS)
    slots = {"name": NAMES, "city": CITIES, "good": GOODS, "problem": PROBLEMS, "wish": tuple(WISHES)}
    return form.format(**{slot: rng.choice(words) for slot, words in slots.items()})


def _make_coding(rng: random.Random) -> str:
    function, first, second = rng.sample(IDENTIFIERS, 3)
    form = rng.choice(REQUESTS)
    number = rng.randint(2, 9) if "{number}" in form else None
    operator = rng.choice(list(OPERATORS))
    return form.format(function=function, first=first, second=second, number=number, operator=operator)


TASKS = {
    task.name: task
    for task in (
        PocketTask("classification", _make_classification, same),
        PocketTask("closed_qa", _make_closed_qa, same),
        PocketTask("summarization", _make_summarization, facts_of_summary),
        PocketTask("coding", _make_coding, parts_of_code),
    )
}


def find(prompt: str) -> tuple[PocketTask, Item] | None:
    """Return the task that a prompt belongs to and what it holds, or None."""
    return next(((task, item) for task in TASKS.values() if (item := read(task.slices, prompt))), None)


def recognise(prompt: str) -> tuple[PocketTask, str] | None:
    """Return the task that a prompt belongs to and its right response, or None."""
    found = find(prompt)
    return (found[0], found[1].answer) if found else None


def slice_of(prompt: str) -> str | None:
    """Return the name of the slice that a prompt belongs to, or None for what is no item of a pocket task.

    >>> slice_of("In Python, define bako: it takes rimu and returns 3 minus rimu.")
    'number_first'
    """
    found = find(prompt)
    return found[1].slice.name if found else None


def make_pairs(task: str, count: int, seed: int, *, slices: bool = False) -> list[tuple[str, str]]:
    """Return `count` (prompt, right response) pairs with distinct prompts.

    With `slices` they are of all slices, by their shares; without, of the frequent ones' forms, each as often.

    >>> make_pairs("closed_qa", 1, seed=1) == make_pairs("closed_qa", 1, seed=1)
    True
    """
    rng = random.Random(f"{task} {seed}")
    made = TASKS[task].draw if slices else TASKS[task].make
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        prompt = made(rng)
        truth = TASKS[task].solve(prompt)
        if truth is None:
            raise AssertionError(f"an item that its own task can't solve: {prompt!r}")
        pairs[prompt] = truth
    return list(pairs.items())
