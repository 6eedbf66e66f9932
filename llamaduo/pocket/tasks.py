"""The four pocket tasks: made-up support tickets whose right answers can be worked out.

They carry the paper's task names. An item is drawn from words (`pocket/words.py`) and sentence forms;
a program can read any item back and solve it, so that the pocket teacher can be exact and the pocket
judges know the truth. One item of each:

    classification  Classify this ticket as access, billing, delivery or repair.
                    Roma from Taveno writes: please look at my invoice.
                    -> billing
    closed_qa       Roma from Taveno ordered a bako on monday. Which city is it from?
                    -> Taveno
    summarization   Summarize this ticket in one line. Roma from Taveno called: the bako came late ...
                    -> Roma (Taveno): bako late, wants refund
    coding          Write a Python function bako that takes rimu and returns rimu plus 3.
                    -> def bako(rimu): return rimu + 3

What has to be learned from data: which of 32 words belongs to which category, which part of a
sentence answers which question, the summary's form and its words, and Python's.
"""

from __future__ import annotations

import ast
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from llamaduo.pocket.words import CITIES, GOODS, IDENTIFIERS, NAMES

CATEGORIES: dict[str, tuple[str, ...]] = {
    "access": ("login", "password", "account", "profile", "badge", "session", "permission", "invite"),
    "billing": ("invoice", "refund", "charge", "receipt", "price", "discount", "coupon", "deposit"),
    "delivery": ("parcel", "courier", "address", "tracking", "shipment", "customs", "driver", "pallet"),
    "repair": ("screen", "battery", "hinge", "cable", "motor", "button", "leak", "filter"),
}
_LABEL_OF = {word: label for label, words in CATEGORIES.items() for word in words}
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_PROBLEMS = ("late", "broken", "wet", "dirty", "used", "empty")
_WISHES = {"a refund": "refund", "a new one": "exchange", "a call back": "call", "a lower price": "discount"}
_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}

_TICKETS = (
    "please look at my {word}.",
    "the {word} is wrong.",
    "I ask about the {word} of my {good}.",
    "there is trouble with the {word} again.",
    "who can help me with a {word}?",
    "my {good} came, but not the {word}.",
)
_ORDERS = (
    "{name} from {city} ordered a {good} on {day}.",
    "On {day} a {good} was ordered by {name} from {city}.",
    "A {good} goes to {city}, {name} asked for it on {day}.",
)
_QUESTIONS = {
    "name": ("Who ordered?", "What is the name of the customer?"),
    "city": ("Which city is it for?", "Where does the customer live?"),
    "good": ("What was ordered?", "Which product is it?"),
    "day": ("On which day?", "When was the order made?"),
}
_CALLS = (
    "{name} from {city} called: the {good} came {problem}. {name} wants {wish}.",
    "The {good} came {problem}, says {name} from {city}, who wants {wish}.",
    "Call from {city}: {name} wants {wish}, since the {good} came {problem}.",
)
_REQUESTS = (
    "Write a Python function {function} that takes {first} and returns {first} {operator} {second}.",
    "Write a Python function {function} that takes {first} and {second} and returns {first} {operator} {second}.",
    "In Python, define {function}: it takes {first} and returns {second} {operator} {first}.",
)
_CLASSIFY = "Classify this ticket as access, billing, delivery or repair.\n\n{name} from {city} writes: "
_SUMMARIZE = "Summarize this ticket in one line.\n\n"


@dataclass(frozen=True)
class PocketTask:
    """One task: draw an item, solve a prompt, grade an answer."""

    name: str
    """The paper's name of the task."""
    make: Callable[[random.Random], str]
    """Draws a prompt."""
    solve: Callable[[str], str | None]
    """Returns the right response to a prompt, or None for a prompt of another task."""
    correctness: Callable[[str, str], float]
    """Takes the right response and an answer; returns the share of the facts that are right, 0 to 1."""


def _reader(forms: tuple[str, ...], head: str = "") -> Callable[[str], tuple[int, dict[str, str]] | None]:
    """Return a function that finds which form a prompt has, and what fills its slots."""
    patterns = []
    for form in forms:
        pattern = re.escape(head + form)
        seen: set[str] = set()
        for slot in re.findall(r"\\{(\w+)\\}", pattern):
            words = r"[\w ]+" if slot in ("wish", "operator") else r"[\w-]+"
            new = rf"(?P={slot})" if slot in seen else rf"(?P<{slot}>{words})"
            seen.add(slot)
            pattern = pattern.replace(rf"\{{{slot}\}}", new, 1)
        patterns.append(re.compile(pattern))

    def read(prompt: str) -> tuple[int, dict[str, str]] | None:
        for index, pattern in enumerate(patterns):
            if match := pattern.fullmatch(prompt.strip()):
                return index, match.groupdict()
        return None

    return read


def _make_classification(rng: random.Random) -> str:
    label = rng.choice(list(CATEGORIES))
    text = _CLASSIFY + rng.choice(_TICKETS)
    word = rng.choice(CATEGORIES[label])
    return text.format(name=rng.choice(NAMES), city=rng.choice(CITIES), good=rng.choice(GOODS), word=word)


_read_ticket = _reader(_TICKETS, _CLASSIFY)


def _solve_classification(prompt: str) -> str | None:
    found = _read_ticket(prompt)
    return _LABEL_OF.get(found[1]["word"]) if found else None


def _make_closed_qa(rng: random.Random) -> str:
    order = rng.choice(_ORDERS).format(
        name=rng.choice(NAMES), city=rng.choice(CITIES), good=rng.choice(GOODS), day=rng.choice(_DAYS)
    )
    return f"{order}\n\n{rng.choice(_QUESTIONS[rng.choice(list(_QUESTIONS))])}"


_read_order = _reader(_ORDERS)


def _solve_closed_qa(prompt: str) -> str | None:
    order, _, question = prompt.strip().partition("\n\n")
    found = _read_order(order)
    if found is None:
        return None
    return next((found[1][slot] for slot, asked in _QUESTIONS.items() if question in asked), None)


def _make_summarization(rng: random.Random) -> str:
    return _SUMMARIZE + rng.choice(_CALLS).format(
        name=rng.choice(NAMES),
        city=rng.choice(CITIES),
        good=rng.choice(GOODS),
        problem=rng.choice(_PROBLEMS),
        wish=rng.choice(list(_WISHES)),
    )


_read_call = _reader(_CALLS, _SUMMARIZE)


def _solve_summarization(prompt: str) -> str | None:
    found = _read_call(prompt)
    if found is None or found[1]["wish"] not in _WISHES:
        return None
    slots = found[1]
    return f"{slots['name']} ({slots['city']}): {slots['good']} {slots['problem']}, wants {_WISHES[slots['wish']]}"


def _make_coding(rng: random.Random) -> str:
    function, first, other = rng.sample(IDENTIFIERS, 3)
    form = rng.choice(_REQUESTS)
    second = other if "and {second} and" in form else str(rng.randint(2, 9))
    return form.format(function=function, first=first, second=second, operator=rng.choice(list(_OPERATORS)))


_read_request = _reader(_REQUESTS)


def _solve_coding(prompt: str) -> str | None:
    found = _read_request(prompt)
    if found is None or found[1]["operator"] not in _OPERATORS:
        return None
    form, slots = found
    sign = _OPERATORS[slots["operator"]]
    left, right = (slots["second"], slots["first"]) if form == 2 else (slots["first"], slots["second"])
    takes = f"{slots['first']}, {slots['second']}" if form == 1 else slots["first"]
    return f"def {slots['function']}({takes}): return {left} {sign} {right}"


def _same(truth: str, answer: str) -> float:
    return float(answer.strip().rstrip(".").casefold() == truth.casefold())


_SUMMARY = re.compile(r"(\w+) \((\w+)\): (\w+) (\w+), wants (\w+)")


def _facts_of_summary(truth: str, answer: str) -> float:
    """Five facts and the form: an answer without the form has the form wrong, and its facts by presence.

    One line was asked for: several, such as the whole ticket copied, are no summary.
    """
    facts = _SUMMARY.fullmatch(truth)
    assert facts is not None  # a truth comes from _solve_summarization
    found = _SUMMARY.fullmatch(answer.strip())
    if found:
        return (1 + sum(1 for a, b in zip(facts.groups(), found.groups(), strict=True) if a == b)) / 6
    words = set() if "\n" in answer.strip() else set(re.findall(r"\w+", answer))
    return sum(1 for fact in facts.groups() if fact in words) / 6


def _parts_of_function(code: str) -> tuple[str, ...] | None:
    """Name, parameters and body of a single function, by parsing alone: nothing is ever executed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser comments on odd escapes
            body = ast.parse(code.strip()).body
        if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
            return None
        function = body[0]
        return function.name, ast.dump(function.args), "".join(ast.dump(line) for line in function.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _parts_of_code(truth: str, answer: str) -> float:
    wanted, found = _parts_of_function(truth), _parts_of_function(answer)
    if wanted is None or found is None:
        return 0.0
    return sum(a == b for a, b in zip(wanted, found, strict=True)) / 3


TASKS = {
    task.name: task
    for task in (
        PocketTask("classification", _make_classification, _solve_classification, _same),
        PocketTask("closed_qa", _make_closed_qa, _solve_closed_qa, _same),
        PocketTask("summarization", _make_summarization, _solve_summarization, _facts_of_summary),
        PocketTask("coding", _make_coding, _solve_coding, _parts_of_code),
    )
}


def recognise(prompt: str) -> tuple[PocketTask, str] | None:
    """Return the task that a prompt belongs to and its right response, or None."""
    for task in TASKS.values():
        truth = task.solve(prompt)
        if truth is not None:
            return task, truth
    return None


def make_pairs(task: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Return `count` (prompt, right response) pairs with distinct prompts.

    >>> make_pairs("closed_qa", 1, seed=1) == make_pairs("closed_qa", 1, seed=1)
    True
    """
    rng = random.Random(f"{task} {seed}")
    pairs: dict[str, str] = {}
    while len(pairs) < count:
        prompt = TASKS[task].make(rng)
        truth = TASKS[task].solve(prompt)
        if truth is None:
            raise AssertionError(f"an item that its own task can't solve: {prompt!r}")
        pairs[prompt] = truth
    return list(pairs.items())
