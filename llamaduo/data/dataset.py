"""What was read, used and left out of a run's data: `data.json` in the run's folder, and the lines that say it.

    {"source": "log.jsonl", "read": 30, "used": {"train": 16, "dev": 2, "test": 2},
     "left_out": [{"reason": "the answer is cut off (finish_reason: length)", "rows": 10, "first": "log.jsonl:2"}],
     "notes": ["columns that are not read: id (30 rows)"]}

`read` is the sum of all that is used and left out.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llamaduo.config import Experiment, GateSplit
from llamaduo.records import Example


@dataclass(frozen=True)
class LeftOut:
    """Rows that are not used, for one reason."""

    reason: str
    rows: int
    first: str
    """Where the first of them is."""


@dataclass(frozen=True)
class Unused:
    """A row that can't be used, a line of `left_out.jsonl`."""

    place: str
    """Where it is: `log.jsonl:7` (line, from 1), `log.json[6]` (element, from 0), `log.parquet row 6` (from 0)."""
    reason: str
    """Why it can't be used."""
    excerpt: str = ""
    """The names of its fields; of what can't be read the beginning, without keys."""

    def line(self) -> str:
        """Return it as a line of JSON, with file and line apart where its place has both."""
        found = _PLACE.match(self.place)
        told = {"file": found[1], "line" if found[2] else "row": int(found[2] or found[3] or found[4])} if found else {}
        return json.dumps({"place": self.place, **told, "reason": self.reason, "excerpt": self.excerpt}) + "\n"


_PLACE = re.compile(r"(.+?)(?::(\d+)|\[(\d+)\]| row (\d+))(?: span \d+)?$", re.DOTALL)


@dataclass(frozen=True)
class Account:
    """The way of all rows that were read."""

    source: str
    """What was read, as the configuration names it."""
    read: int
    used: Mapping[str, int]
    """Rows by split."""
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    """What else is not read, or not answered, a sentence each."""

    def lines(self) -> list[str]:
        """Return what a reader should know, a line for each reason; one line where all rows are used."""
        count = sum(one.rows for one in self.left_out)
        told = f"{self.read - count:,} used, {count:,} left out:" if count else "all used."
        reasons = [f"  {one.rows:,}: {one.reason}; first {one.first}" for one in self.left_out]
        return [f"data: {self.read:,} rows of {self.source}, {told}", *reasons, *(f"  {note}" for note in self.notes)]

    def without(self, split: str, reason: str, places: Sequence[str]) -> Account:
        """Return the account without rows of a split that are left out after all."""
        if not places:
            return self
        used = {name: rows - len(places) * (name == split) for name, rows in self.used.items()}
        left = (*self.left_out, LeftOut(reason, len(places), places[0]))
        return dataclasses.replace(self, used=used, left_out=left)

    def tree(self) -> dict[str, Any]:
        """Return it as plain values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class CoverageDataset:
    """The pairs that people keep, split by prompt, near-duplicates together: no prompt is in two splits."""

    train: tuple[Example, ...]
    """Rows to learn from, and the only seeds of synthesis."""
    dev: tuple[Example, ...]
    """Rows that the gate looks at under `protocol=clean`."""
    test: tuple[Example, ...]
    """Rows that are reported on; the gate looks at them under `protocol=paper` only."""
    notes: tuple[str, ...] = ()
    """What a reader should know of how the data were read, a sentence each."""
    account: Account | None = None
    """What was read, used and left out."""
    places: Mapping[str, str] = field(default_factory=dict)
    """File and line of each prompt, by its id."""
    unlabelled: tuple[Example, ...] = ()
    """Real prompts without answers, each once and none of them a prompt of the splits."""
    unused: tuple[Unused, ...] = ()
    """The rows that can't be used, in order."""


def gate_rows(experiment: Experiment, dataset: CoverageDataset) -> tuple[Example, ...]:
    """Return the rows that the gate looks at."""
    return dataset.dev if experiment.protocol.gate_split is GateSplit.dev else dataset.test
