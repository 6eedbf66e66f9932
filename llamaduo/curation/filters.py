"""What a filter is: a name, its wording, and a verdict on each row.

    class Shouting(Filter):
        name = CurationFilter.shouting                                  # a member of the enum in `config.py`
        reason = Reason("shouting", "in capitals", "in capitals", "In capitals", "in capitals")

        def match(self, example: Example, compared: Any) -> Found | None:
            return Found(why="in capitals") if example.response.isupper() else None

A filter is made for one run's rows (`Known`) and settings (`Curation`), and asked of each new row once, in order. What
becomes of a row depends on those before it alone, never on those that come after it, however many come at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from llamaduo.config import Curation, CurationFilter
from llamaduo.records import COVERAGE, Example


@dataclass(frozen=True)
class Reason:
    """Why a filter removes rows, as records, notes and tables say it."""

    name: str
    """In records."""
    counted: str
    """Behind how many rows it took of a growth."""
    of_a_round: str
    """Behind how many rows it took of a round."""
    heading: str
    """Above its column in a table."""
    legend: str
    """Beside its colour in a picture."""
    mend: str = ""
    """What to change where it takes too much, behind `If they are good rows,`."""


@dataclass(frozen=True)
class Known:
    """What new rows have to differ from or be like."""

    known: tuple[Example, ...]
    """The rows trained on so far: coverage and synthetic ones."""
    held_out: tuple[Example, ...]
    """Dev and test."""

    @cached_property
    def coverage(self) -> list[Example]:
        """The rows of people among those trained on."""
        return [row for row in self.known if row.generator == COVERAGE]


@dataclass(frozen=True)
class Found:
    """Why a row goes."""

    why: str = ""
    """What is wrong, in the same words for all rows of a kind, which are counted; empty where the reason says all."""
    match: Example | None = None
    """The row that it matches, if it goes because of one."""
    similarity: float | None = None
    """Jaccard index of what was compared, 0 to 1; of a dev or test text that the row holds, the share that it holds."""
    shown: str | None = None
    """What an example shows in place of the row's text: a piece of it, or with what must not be told taken out."""


USUAL = 0.02
"""Share of the coverage rows that may have what isn't usual."""


def usual(rows: Known, has: Callable[[Example], Iterable[str]], share: float) -> frozenset[str]:
    """Return what more than a share of the coverage rows has (0 is 2%): nothing that people do so often is a fault."""
    counts = Counter(one for row in rows.coverage for one in set(has(row)))
    return frozenset(one for one, count in counts.items() if count > (share or USUAL) * len(rows.coverage))


class Filter(ABC):
    """What a new row has to pass."""

    name: ClassVar[CurationFilter]
    reason: ClassVar[Reason]

    def __init__(self, rows: Known, config: Curation) -> None:
        """Make it for a run's rows and settings."""
        self.rows, self.config = rows, config

    def compared(self, new: Sequence[Example]) -> Sequence[Any]:
        """Take rows that will be asked of next, in this order; return for each what `match` and `keep` get with it."""
        return [None] * len(new)

    @abstractmethod
    def match(self, example: Example, compared: Any) -> Found | None:
        """Return why a row is removed; None where it isn't."""

    def keep(self, example: Example, compared: Any) -> None:  # noqa: B027  (most filters need not know)
        """Take a row that passed all filters: later ones may have to differ from it."""
