"""The funnel of a run's data: requests, replies, pairs read, curated rows, trained rows; and removals to look at.

    found = funnel(run)                 None for a run that synthesised nothing
    found.total.kept                    192
    found.rounds[0].kept                192, of the first round; none of a run of an earlier version
    found.removed[0].examples           up to three of a reason, each beside what it matched

Reads `curation.json`, `metrics.jsonl` (both counts) and, for the texts of removals, `synthesis.json`, `synthetic.jsonl`
and `predictions.jsonl`. What an earlier version did not write is left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.curation.curate import shortened
from llamaduo.curation.order import ORDER, REASONS, reasons_told
from llamaduo.files.regular import regular
from llamaduo.redaction import redact
from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord, read_tree
from llamaduo.studies.costs.by_stage import Flow, data_flow

MOST_SHOWN = 3
"""Examples of a reason."""
_SHOWN = 160
"""Characters of a text in an example."""


@dataclass(frozen=True)
class Step:
    """What became of requests and rows: of one iteration's, or of all."""

    requests: int
    replies: int
    """Requests that were answered."""
    parsed: int
    """Whole pairs read in the replies."""
    dropped: int
    """Items in the replies that were no whole pair."""
    kept: int
    """Pairs that curation left."""
    trained: int
    """Synthetic rows that were trained on and had not been before."""

    def __add__(self, other: Step) -> Step:
        """Return both together."""
        names = ("requests", "replies", "parsed", "dropped", "kept", "trained")
        return Step(*(getattr(self, name) + getattr(other, name) for name in names))


@dataclass(frozen=True)
class Round:
    """What one round of asking brought."""

    iteration: int
    """The iteration whose rows were asked for."""
    round: int
    """Its number among the rounds for that iteration, from 0."""
    requests: int
    failed: int
    parsed: int
    dropped: int
    kept: int
    """Pairs that curation left."""


@dataclass(frozen=True)
class Gone:
    """A pair that was removed."""

    iteration: int
    """The iteration that it was asked for."""
    text: str
    """Its last turn and its response, shortened, or what the filter shows in their place."""
    match: str
    """The row that it matched, shortened; where its text is not in the run's folder, what it is; empty without one."""
    similarity: float | None
    """How closely, 0 to 1."""
    why: str


@dataclass(frozen=True)
class Removed:
    """The pairs that went for one reason."""

    name: str
    """The reason."""
    legend: str
    """The reason in words."""
    counted: str
    """The same behind a number."""
    count: int
    examples: tuple[Gone, ...]
    """The first three; none where an earlier version did not write which rows they were."""


@dataclass(frozen=True)
class Funnel:
    """The way of a run's data from requests to trained rows."""

    steps: dict[int, Step]
    """By the iteration that the rows were made for."""
    rounds: tuple[Round, ...]
    removed: tuple[Removed, ...]

    @property
    def total(self) -> Step:
        """All iterations together."""
        return sum(self.steps.values(), Step(0, 0, 0, 0, 0, 0))

    @property
    def left(self) -> int:
        """Curated rows that no iteration was trained on."""
        return max(0, self.total.kept - self.total.trained)


def funnel(run: RunRecord, *, examples: bool = True) -> Funnel | None:
    """Return a run's funnel, None where nothing was synthesised; without `examples` no text is read."""
    flows = [flow for flow in data_flow(run) if flow.grown]
    if not flows:
        return None
    trees = {flow.iteration: read_tree(_place(run, flow.iteration) / layout.CURATION) for flow in flows}
    rounds = [
        _round(number, at, one) for number, tree in trees.items() for at, one in enumerate(tree.get("rounds") or ())
    ]
    return Funnel(_steps(flows, run), tuple(rounds), tuple(_removed(run, trees, examples=examples)))


def _place(run: RunRecord, number: int) -> Path:
    return layout.place(run.folder, layout.before(number))


def _steps(flows: Sequence[Flow], run: RunRecord) -> dict[int, Step]:
    found, most = {}, 0
    for flow in flows:
        assert flow.grown
        counts = flow.grown
        trained = max((line.synthetic_rows for line in run.history[: flow.iteration + 1]), default=0)
        if flow.trained is None:
            trained = most
        found[flow.iteration] = Step(
            counts["requests"],
            counts["requests"] - counts["failed"],
            counts["parsed"],
            counts["dropped"],
            counts["kept"],
            max(0, trained - most),
        )
        most = max(most, trained)
    return found


def _round(iteration: int, at: int, tree: Mapping[str, Any]) -> Round:
    counts = {name: int(tree.get(name) or 0) for name in ("requests", "failed", "parsed", "dropped", "kept")}
    return Round(iteration, at, **counts)


# Removals


def _removed(run: RunRecord, trees: Mapping[int, Mapping[str, Any]], *, examples: bool) -> Iterator[Removed]:
    """Yield what was removed, by reason in the order in which it is told."""
    entries = [(number, entry) for number, tree in trees.items() for entry in tree["removed"]]
    counts = Counter(entry["reason"] for _, entry in entries)
    for reason in reasons_told(counts):
        if not counts[reason.name]:
            continue
        first = [(number, entry) for number, entry in entries if entry["reason"] == reason.name][:MOST_SHOWN]
        plain = examples and reason in REASONS  # of other filters, only what they show of a row may be shown
        shown = _told_by_filter(reason.name, trees) or (_looked_up(run, first) if plain else ())
        yield Removed(reason.name, reason.legend, reason.counted, counts[reason.name], tuple(shown)[:MOST_SHOWN])


def _told_by_filter(reason: str, trees: Mapping[int, Mapping[str, Any]]) -> list[Gone]:
    """Return the examples that the filters wrote down themselves: they know what must not be told."""
    names = {one.name.value for one in ORDER if one.reason.name == reason}
    return [
        Gone(
            number, redact(shown["text"]), redact(shown.get("match", "")), shown.get("similarity"), shown.get("why", "")
        )
        for number, tree in trees.items()
        for report in tree.get("filters") or ()
        if report["name"] in names
        for shown in report["examples"]
    ]


def _looked_up(run: RunRecord, entries: Sequence[tuple[int, Mapping[str, Any]]]) -> list[Gone]:
    """Return examples whose texts are found by their places in what came raw."""
    found = []
    matches = _texts_of(run, {entry["match"] for _, entry in entries if entry.get("match")})
    raw = {number: _raw(_place(run, number)) for number in {number for number, _ in entries}}
    for number, entry in entries:
        row = entry.get("row")
        if row is None or not 0 <= row < len(raw[number]):
            continue
        match = matches.get(entry.get("match") or "", "a row of coverage" if entry.get("match") else "")
        text = _pair(raw[number][row]["messages"], raw[number][row]["response"])
        found.append(Gone(number, text, match, entry.get("similarity"), entry.get("why", "")))
    return found


def _raw(place: Path) -> list[dict[str, Any]]:
    path = place / layout.SYNTHESIS
    return list(read_tree(path)["examples"]) if path.exists() else []


def _texts_of(run: RunRecord, wanted: set[str]) -> dict[str, str]:
    """Return the rows with these prompts as texts, as far as the run's folder holds them: synthetic, dev and test."""
    found: dict[str, str] = {}
    for place in layout.places(run.folder) if wanted else ():
        for name in (layout.SYNTHETIC, layout.PREDICTIONS):
            for row in _lines(place / name):
                known = row["prompt_id"]
                if known in wanted and known not in found:
                    found[known] = _pair(row["messages"], row["response"]) if "messages" in row else _pair(
                        [{"content": row["prompt"]}], row["reference"]
                    )  # fmt: skip
    return found


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        with open(regular(path), encoding="utf-8") as file:
            yield from map(json.loads, file)


def _pair(messages: Sequence[Mapping[str, Any]], response: str) -> str:
    """Return prompt and response in a few words."""
    prompt = shortened(str(messages[-1]["content"]), _SHOWN)
    return redact(f"{prompt} \N{RIGHTWARDS ARROW} {shortened(response, _SHOWN)}")
