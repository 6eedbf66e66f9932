"""What every strategy of synthesis is: two functions, over what is known when it plans.

    asked = default.plan(situation, wanted=48, first=0)      # the requests, each with the rows it was made from
    examples, dropped = default.read(asked[0], reply)        # what is in a reply, and how many items were no whole pair

A strategy is a module with `plan` and `read`; `strategies.py` names them all. It sees training rows and what came of
them, and never a text of dev or test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llamaduo.config import ServiceLLM, Synthesis, Task
from llamaduo.records import Example
from llamaduo.service.attempts import Reply
from llamaduo.service.requests import Request


@dataclass(frozen=True)
class Failed:
    """An answer of the student's to a training prompt that is far from its reference."""

    row: Example
    """The training row."""
    answer: str
    """What the student said."""


@dataclass(frozen=True)
class Situation:
    """What a strategy knows when it plans."""

    config: Synthesis
    llm: ServiceLLM
    """Whom to ask."""
    task: Task
    seed: int
    """The run's seed: the same situation gives the same requests."""
    train: Sequence[Example]
    """Coverage rows to learn from."""
    pool: Sequence[Example] = ()
    """Curated synthetic rows of earlier growths."""
    weights: Sequence[float] | None = None
    """How much each training row is wanted as a seed, each above 0; None where no student was trained yet."""
    failed: Sequence[Failed] = ()
    """The student's failed answers, the worst first."""
    unlabelled: Sequence[Example] = ()
    """Real prompts without answers; their `response` is empty."""
    begun: int = 0
    """The run's requests before this growth."""


@dataclass(frozen=True)
class Asked:
    """One request, with the rows that it was made from."""

    request: Request
    seeds: tuple[Example, ...]
    """The first of them gives new pairs their turns before the user's."""


class Strategy(Protocol):
    """A module that makes requests and reads replies."""

    def plan(self, situation: Situation, wanted: int, first: int) -> list[Asked]:
        """Return what is asked for about `wanted` new pairs; fewer, or nothing, where there is no more to ask.

        `first` is the number of requests that the run has made: it keeps requests with the same seeds apart.
        """

    def read(self, asked: Asked, reply: Reply) -> tuple[list[Example], int]:
        """Return the new pairs of a reply, and how many of its items were dropped."""
