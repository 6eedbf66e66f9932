"""The slices of the pocket tasks: kinds of items that differ in skill, in difficulty and in how often they come.

A slice has sentence forms, each with the form of its right response, and the words that make it what it is. Reading is
drawing turned round: what fills a form is found again, so that any item can be solved and its slice told.

    item = read(SLICES["coding"], "In Python, define bako: it takes rimu and returns 3 minus rimu.")
    item.slice.name, item.slots["number"], item.answer     # "number_first", "3", "def bako(rimu): return 3 - rimu"

Words have regions (`pocket/words.py`), of which each item has one: names, cities, goods and identifiers a third of
their list, topics some of each category.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from string import Formatter
from typing import NamedTuple

from llamaduo.pocket.words import CITIES, GOODS, IDENTIFIERS, NAMES, REGIONS, of_region

CATEGORIES: dict[str, tuple[str, ...]] = {
    "access": ("login", "password", "account", "profile", "badge", "session", "permission", "invite"),
    "billing": ("invoice", "refund", "charge", "receipt", "price", "discount", "coupon", "deposit"),
    "delivery": ("parcel", "courier", "address", "tracking", "shipment", "customs", "driver", "pallet"),
    "repair": ("screen", "battery", "hinge", "cable", "motor", "button", "leak", "filter"),
}
_TOPICS = {"north": slice(2), "middle": slice(2, 3), "south": slice(3, 4)}
"""Which words of each category a region has; coverage without slices alone has the last four of each."""
REGION_SHARES = {"north": 0.5, "middle": 0.3, "south": 0.2}
"""How often a region comes in coverage."""
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
PROBLEMS = ("late", "broken", "wet", "dirty", "used", "empty")
WISHES = {"a refund": "refund", "a new one": "exchange", "a call back": "call", "a lower price": "discount"}
OPERATORS = {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}
RARE_OPERATORS = {"modulo": "%", "to the power of": "**"}
QUESTIONS = {
    "name": ("Who ordered?", "What is the name of the customer?"),
    "city": ("Which city is it for?", "Where does the customer live?"),
    "good": ("What was ordered?", "Which product is it?"),
    "day": ("On which day?", "When was the order made?"),
}
_GUEST, _NEW = ("Who gets it?", "For whom is it?"), ("What is ordered now?", "Which product is it in the end?")

_CLASSIFY = "Classify this ticket as access, billing, delivery or repair.\n\n{name} from {city} writes: "
_SUMMARIZE = "Summarize this ticket in one line.\n\n"
TICKETS = tuple(
    _CLASSIFY + text
    for text in (
        "please look at my {word}.",
        "the {word} is wrong.",
        "I ask about the {word} of my {good}.",
        "there is trouble with the {word} again.",
        "who can help me with a {word}?",
        "my {good} came, but not the {word}.",
    )
)
_TWO_PRODUCTS = (_CLASSIFY + "not my {old}, not my {good}, but the {word}.",)
_TWO_TOPICS = (_CLASSIFY + "the {other} is right, but the {word} is wrong.",)
ORDERS = tuple(
    text + "\n\n{question}"
    for text in (
        "{name} from {city} ordered a {good} on {day}.",
        "On {day} a {good} was ordered by {name} from {city}.",
        "A {good} goes to {city}, {name} asked for it on {day}.",
    )
)
_GIFTS = ("{name} from {city} ordered a {good} on {day} as a gift for {guest}.\n\n{question}",)
_CHANGES = ("{name} from {city} ordered a {old} on {day} and now takes a {good} instead.\n\n{question}",)
CALLS = tuple(
    _SUMMARIZE + text
    for text in (
        "{name} from {city} called: the {good} came {problem}. {name} wants {wish}.",
        "The {good} came {problem}, says {name} from {city}, who wants {wish}.",
        "Call from {city}: {name} wants {wish}, since the {good} came {problem}.",
    )
)
_FAULTS = (_SUMMARIZE + "{name} from {city} called: the {good} came {problem} and {fault}. {name} wants {wish}.",)
_OFFERS = (_SUMMARIZE + "{name} from {city} was offered {offer} for the {good} that came {problem}, but wants {wish}.",)
REQUESTS = (
    "Write a Python function {function} that takes {first} and returns {first} {operator} {number}.",
    "Write a Python function {function} that takes {first} and {second} and returns {first} {operator} {second}.",
    "In Python, define {function}: it takes {first} and returns {number} {operator} {first}.",
)
_DEFAULTS = (
    "Write a Python function {function} that takes {first} and {second}, which is {number} unless given, and returns "
    "{first} {operator} {second}.",
)

_CODE = (
    "def {function}({first}): return {first} {sign} {number}",
    "def {function}({first}, {second}): return {first} {sign} {second}",
    "def {function}({first}): return {number} {sign} {first}",
)
_SUMMARY = "{name} ({city}): {good} {problem}, wants {short}"
_ANSWERS = {
    **dict.fromkeys((*TICKETS, *_TWO_PRODUCTS, *_TWO_TOPICS), "{label}"),
    **dict.fromkeys((*ORDERS, *_GIFTS, *_CHANGES), "{asked}"),
    **dict.fromkeys((*CALLS, *_OFFERS), _SUMMARY),
    **dict.fromkeys(_FAULTS, "{name} ({city}): {good} {problem} and {fault}, wants {short}"),
    **dict(zip(REQUESTS, _CODE, strict=True)),
    **dict.fromkeys(_DEFAULTS, "def {function}({first}, {second}={number}): return {first} {sign} {second}"),
}
"""The right response to each sentence form."""


@dataclass(frozen=True)
class Slice:
    """One kind of a task's items."""

    name: str
    """Its name, unique in the task."""
    share: float
    """Of coverage items, 0 to 1; a task's shares come to 1."""
    level: int
    """How hard it is: 1, 2 or 3."""
    near: tuple[str, ...]
    """Slices beside it, harder ones where there are any: what a harder rewrite of its items becomes."""
    forms: tuple[str, ...]
    """Its sentence forms, with slots."""
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What may fill a slot; other slots take any word of their list."""


_WORDS = {"word": tuple(word for words in CATEGORIES.values() for word in words)}
_TWO_WORDS = _WORDS | {"other": _WORDS["word"]}
_CALLED, _PLAIN = {"wish": tuple(WISHES), "offer": tuple(WISHES)}, {"operator": tuple(OPERATORS)}
SLICES: dict[str, tuple[Slice, ...]] = {
    "classification": (
        Slice("topic", 0.48, 1, ("of_product", "two_topics"), (*TICKETS[:2], *TICKETS[3:5]), _WORDS),
        Slice("of_product", 0.36, 1, ("two_products", "two_topics"), (TICKETS[2], TICKETS[5]), _WORDS),
        Slice("two_products", 0.08, 2, ("two_topics",), _TWO_PRODUCTS, _WORDS),
        Slice("two_topics", 0.08, 3, ("two_products",), _TWO_TOPICS, _TWO_WORDS),
    ),
    "closed_qa": (
        Slice("who", 0.24, 1, ("where", "gift"), ORDERS, {"question": QUESTIONS["name"]}),
        Slice("where", 0.22, 1, ("when", "gift"), ORDERS, {"question": QUESTIONS["city"]}),
        Slice("what", 0.22, 1, ("when", "change"), ORDERS, {"question": QUESTIONS["good"]}),
        Slice("when", 0.14, 1, ("gift", "change"), ORDERS, {"question": QUESTIONS["day"]}),
        Slice("gift", 0.09, 2, ("change",), _GIFTS, {"question": _GUEST}),
        Slice("change", 0.09, 3, ("gift",), _CHANGES, {"question": _NEW}),
    ),
    "summarization": (
        Slice("caller_first", 0.32, 1, ("product_first", "two_faults"), CALLS[:1], _CALLED),
        Slice("product_first", 0.28, 1, ("city_first", "offer"), CALLS[1:2], _CALLED),
        Slice("city_first", 0.22, 1, ("offer", "two_faults"), CALLS[2:], _CALLED),
        Slice("two_faults", 0.09, 2, ("offer",), _FAULTS, _CALLED | {"fault": PROBLEMS}),
        Slice("offer", 0.09, 3, ("two_faults",), _OFFERS, _CALLED),
    ),
    "coding": (
        Slice("one_argument", 0.32, 1, ("two_arguments", "rare_operator"), REQUESTS[:1], _PLAIN),
        Slice("two_arguments", 0.28, 1, ("number_first", "default"), REQUESTS[1:2], _PLAIN),
        Slice("number_first", 0.22, 1, ("rare_operator", "default"), REQUESTS[2:], _PLAIN),
        Slice("rare_operator", 0.09, 2, ("default",), REQUESTS, {"operator": tuple(RARE_OPERATORS)}),
        Slice("default", 0.09, 3, ("rare_operator",), _DEFAULTS, _PLAIN),
    ),
}
"""The slices of each task, the frequent ones first."""

_LISTS = {"name": NAMES, "guest": NAMES, "city": CITIES, "good": GOODS, "old": GOODS} | dict.fromkeys(
    ("function", "first", "second"), IDENTIFIERS
)
"""The list that fills a slot, a region of it in one item."""
_OTHERS = {"day": DAYS, "problem": PROBLEMS, "number": tuple("23456789")}
_PATTERNS = {"question": r"[\w ]+\?", "number": r"\d+", **dict.fromkeys(("wish", "offer", "operator"), r"[\w ]+")}
_LABEL_OF = {word: label for label, words in CATEGORIES.items() for word in words}
_ASKED = {text: slot for slot, texts in (QUESTIONS | {"guest": _GUEST}).items() for text in texts} | dict.fromkeys(
    _NEW, "good"
)


class Item(NamedTuple):
    """An item that was read."""

    slice: Slice
    slots: dict[str, str]
    """What fills its form."""
    answer: str
    """The right response."""


@cache
def _pattern(form: str) -> re.Pattern[str]:
    """Return the expression that finds what fills a form's slots; a slot that comes twice has one filling."""
    parts: list[str] = []
    seen: set[str] = set()
    for text, slot, _, _ in Formatter().parse(form):
        parts.append(re.escape(text))
        if slot:
            words = _PATTERNS.get(slot, r"[\w-]+")
            parts.append(f"(?P={slot})" if slot in seen else f"(?P<{slot}>{words})")
            seen.add(slot)
    return re.compile("".join(parts))


def read(slices: Sequence[Slice], prompt: str) -> Item | None:
    """Return what an item of one of these slices holds, or None for anything else."""
    text = prompt.strip()
    for part in slices:
        for form in part.forms:
            found = _pattern(form).fullmatch(text)
            if found and all(found[slot] in part.only[slot] for slot in found.groupdict().keys() & part.only):
                slots = found.groupdict()
                return Item(part, slots, _ANSWERS[form].format(**slots, **_derived(slots)))
    return None


def _derived(slots: Mapping[str, str]) -> dict[str, str]:
    """Return what follows from an item's words: its category, the word that is asked for, the wish's and operator's."""
    return {
        "label": _LABEL_OF.get(slots.get("word", ""), ""),
        "asked": slots.get(_ASKED.get(slots.get("question", ""), ""), ""),
        "short": WISHES.get(slots.get("wish", ""), ""),
        "sign": (OPERATORS | RARE_OPERATORS).get(slots.get("operator", ""), ""),
    }


def _in_region(slot: str, region: str) -> tuple[str, ...]:
    """Return a region's words for a slot; none for a slot whose words are those of all regions."""
    if slot in _LISTS:
        return of_region(_LISTS[slot], region)
    return tuple(word for words in CATEGORIES.values() for word in words[_TOPICS[region]]) if slot in _TWO_WORDS else ()


def region_of(item: Item) -> str:
    """Return the vocabulary region of an item: that of the first of its words that has one."""
    return next(region for slot, word in item.slots.items() for region in REGIONS if word in _in_region(slot, region))


def draw(rng: random.Random, part: Slice, region: str) -> str:
    """Return a new item of a slice, all its words out of one region and no two of them the same."""
    form = rng.choice(part.forms)
    slots: dict[str, str] = {}
    for _, slot, _, _ in Formatter().parse(form):
        if slot and slot not in slots:
            words = _in_region(slot, region) or part.only.get(slot) or _OTHERS[slot]
            slots[slot] = rng.choice([word for word in words if word not in slots.values()])
    return form.format(**slots)


def any_slice(rng: random.Random, slices: Sequence[Slice]) -> Slice:
    """Return a slice as often as its share says."""
    return rng.choices(slices, [part.share for part in slices])[0]


def any_region(rng: random.Random) -> str:
    """Return a region as often as its share says."""
    return rng.choices(list(REGION_SHARES), list(REGION_SHARES.values()))[0]
