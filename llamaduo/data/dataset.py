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
        told = {"place": self.place, **apart(self.place), "reason": self.reason, "excerpt": self.excerpt}
        return json.dumps(told) + "\n"


def apart(place: str) -> dict[str, Any]:
    """Return file and line (from 1) or row (from 0) of a place, nothing where it has no such parts."""
    found = _PLACE.match(place)
    return {"file": found[1], "line" if found[2] else "row": int(found[2] or found[3] or found[4])} if found else {}


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


def without(dataset: CoverageDataset, reasons: Mapping[str, str]) -> CoverageDataset:
    """Return the data without the rows at these places, which are left out for the reasons given."""
    by_place = {
        dataset.places.get(row.prompt_id, ""): row.prompt_id for name in _SPLITS for row in getattr(dataset, name)
    }
    gone = {by_place[place]: reason for place, reason in reasons.items() if place in by_place}
    account = dataset.account
    kept: dict[str, tuple[Example, ...]] = {}
    for name in _SPLITS:
        rows = getattr(dataset, name)
        kept[name] = tuple(row for row in rows if row.prompt_id not in gone)
        for reason in dict.fromkeys(gone[row.prompt_id] for row in rows if row.prompt_id in gone):
            places = [dataset.places[row.prompt_id] for row in rows if gone.get(row.prompt_id) == reason]
            account = account and account.without(name, reason, places)
    listed = tuple(Unused(place, reason) for place, reason in reasons.items() if place in by_place)
    unused = (*dataset.unused, *listed)
    return dataclasses.replace(
        dataset, train=kept["train"], dev=kept["dev"], test=kept["test"], account=account, unused=unused
    )


_SPLITS = ("train", "dev", "test")


def gate_rows(experiment: Experiment, dataset: CoverageDataset) -> tuple[Example, ...]:
    """Return the rows that the gate looks at."""
    return dataset.dev if experiment.protocol.gate_split is GateSplit.dev else dataset.test
