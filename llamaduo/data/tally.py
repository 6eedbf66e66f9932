"""The tally of the rows that are read: where each is, which are left out and why, and what of them is not read.

tally = Tally("log.jsonl")
tally.take(example, row, "log.jsonl:1")
tally.leave_out("the answer is empty", "log.jsonl:2")
tally.account(dataset)                          an `Account`: what is in no split is left out, too
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from llamaduo.data.dataset import Account, CoverageDataset, LeftOut, Unused
from llamaduo.data.formats import columns_of
from llamaduo.data.heeded import is_heeded
from llamaduo.data.logs import is_another, models, remarks
from llamaduo.records import Example

_READ = {"category", "split", "tools", "imported"}
"""Columns that are read beside those of the pair."""
_NAMED = 8


class Tally:
    """Counts while rows are read."""

    def __init__(self, source: str, notes: Iterable[str] = ()) -> None:
        self._source = source
        self._notes = list(notes)
        self._read = 0
        self.left: dict[str, tuple[int, str]] = {}
        """By reason: how many rows are left out, and where the first of them is."""
        self.unused: list[Unused] = []
        """The rows that can't be used, one by one."""
        self._columns: Counter[str] = Counter()
        self._remarks: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self.places: dict[str, str] = {}
        """Where each prompt that was taken is."""

    def take(self, example: Example, row: Mapping[str, Any], place: str) -> None:
        """Count a row that is used, its columns as they were read, unless it turns out to be in no split."""
        self._read += 1
        self.places[example.prompt_id] = place
        columns = columns_of(row)
        for name, value in row.items():
            if name not in {*columns, *_READ} and not is_heeded(name) and value not in (None, "", [], {}):
                self._columns[str(name)] += 1
        if "</think>" in example.response:
            self._remarks["thoughts in the answer, which are learned and compared"] += 1
        if columns == ("request", "response"):
            asked, answered = models(row, place)
            self._answered[answered or "an unnamed model"] += 1
            told = [f"an answer of {answered} where {asked} was asked"] if is_another(asked, answered) else []
            self._remarks.update([*told, *remarks(row, place)])

    def note(self, note: str) -> None:
        """Add a sentence about what is not read."""
        self._notes.append(note)

    def leave_out(self, reason: str, place: str, excerpt: str = "", *, listed: bool = True) -> None:
        """Count a row that is not used; it is `listed` unless the configuration asks for others."""
        self._read += 1
        if listed:
            self.unused.append(Unused(place, reason, excerpt))
        count, first = self.left.get(reason, (0, place))
        self.left[reason] = (count + 1, first)

    def drop(self, examples: Iterable[Example], reason: str, *, listed: bool = False) -> None:
        """Count rows that were taken as left out after all."""
        for example in examples:
            self._read -= 1
            self.leave_out(reason, self.places.pop(example.prompt_id), listed=listed)

    def reasons(self) -> str:
        """Return all reasons with their counts, in words."""
        return ", ".join(f"{count:,}: {reason}; first {first}" for reason, (count, first) in self.left.items())

    def account(self, dataset: CoverageDataset) -> Account:
        """Return the account of a data set that was made of what was taken."""
        splits = {name: getattr(dataset, name) for name in ("train", "dev", "test")}
        used = {example.prompt_id for rows in splits.values() for example in rows}
        beyond = [place for where, place in self.places.items() if where not in used]
        left = [LeftOut(reason, *told) for reason, told in self.left.items()]
        if beyond:
            left.append(LeftOut("more than data.train_rows, dev_rows and test_rows ask for", len(beyond), beyond[0]))
        counts = {name: len(rows) for name, rows in splits.items()}
        return Account(self._source, self._read, counts, tuple(left), tuple(self._told()))

    def _told(self) -> list[str]:
        notes = list(self._notes)
        if self._columns:
            named = [f"{name} ({count:,})" for name, count in self._columns.most_common(_NAMED)]
            more = len(self._columns) - len(named)
            notes.append(f"columns that are not read: {', '.join(named)}{f' and {more} more' if more else ''}.")
        if len(self._answered) > 1:
            named = [f"{name} ({count:,})" for name, count in self._answered.most_common(_NAMED)]
            notes.append(f"{len(self._answered)} models answered: {', '.join(named)}.")
        return notes + [f"rows with {remark}: {count:,}." for remark, count in self._remarks.most_common(_NAMED)]
