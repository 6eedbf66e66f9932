"""What became of a run's data, money and time, by iteration and by stage.

    data_flow(run)     rows asked for, read, removed, kept and trained on, an iteration each
    spending(run)      price of the service LLMs' replies: synthesis, each judge, and the rest
    seconds(run)       wall time, by stage

Reads `curation.json` (or else `synthesis.json`), `scorecard.json` and the markers of the artifacts
(`verdicts.jsonl.done` and the like), as far as they are there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from llamaduo.curation.filters import Reason
from llamaduo.curation.order import reasons_told
from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord, read_tree, told_seconds
from llamaduo.runs.state import Iteration


@dataclass(frozen=True)
class Flow:
    """The way of the rows that one iteration trained on."""

    iteration: int
    grown: dict[str, int] | None
    """What synthesis and curation did before it, as `grown` names it; None where nothing was synthesised."""
    trained: Iteration | None
    """The iteration; None where rows were made for one that did not come to its end."""

    @property
    def coverage_rows(self) -> int:
        """Rows of people among those trained on."""
        return self.trained.train_rows - self.trained.synthetic_rows if self.trained else 0


def shares(flows: Iterable[Flow]) -> dict[str, str]:
    """Return what rows that were read come to, each with what it is called beside its colour."""
    reasons = reasons_met(flows)
    return {"kept": "kept", **{reason.name: reason.legend for reason in reasons}, "dropped": "no whole pair"}


def reasons_met(flows: Iterable[Flow]) -> tuple[Reason, ...]:
    """Return why rows of these flows were removed, or may have been in any run."""
    return reasons_told(name for flow in flows for name in flow.grown or ())


def data_flow(run: RunRecord) -> list[Flow]:
    """Return the flow of each iteration, and of one that was begun."""
    found = []
    places = [layout.place(run.folder, layout.before(number)) for number in range(len(run.history) + 1)]
    met = {name for place in places for name in _removed(place)}
    for number, place in enumerate(places):
        grown = _grown(place, met)
        trained = run.history[number] if number < len(run.history) else None
        if grown or trained:
            found.append(Flow(number, grown, trained))
    return found


def _grown(folder: Path, met: Iterable[str]) -> dict[str, int] | None:
    """Return the counts of a folder, with those of each reason that the run met anywhere."""
    path = folder / layout.CURATION
    if not path.exists():
        return None
    tree, why = read_tree(path), _removed(folder)
    reasons = (reason.name for reason in reasons_told(met))
    names = ("wanted", "requests", "failed", "parsed", "dropped", *reasons, "kept")
    return {name: tree.get(name, why[name]) for name in names}


def _removed(folder: Path) -> Counter[str]:
    """Return how many rows were removed, by reason."""
    path = folder / layout.CURATION
    return Counter(entry["reason"] for entry in read_tree(path)["removed"]) if path.exists() else Counter()


@dataclass(frozen=True)
class Spending:
    """The price of all replies that a run used, each once, in US dollars."""

    synthesis: float | None
    """None where nothing was synthesised."""
    judging: dict[str, float]
    """By judge."""
    total: float

    @property
    def judged(self) -> float:
        """What all judges took."""
        return round(math.fsum(self.judging.values()), 10)

    @property
    def other(self) -> float:
        """What no artifact tells of: calls of a stage that broke off, a server that answered."""
        return max(0.0, round(self.total - (self.synthesis or 0.0) - self.judged, 10))

    def by_stage(self) -> dict[str, float]:
        """Return dollars by stage, then `total`; what is no whole stage's is `not attributed`."""
        found = {} if self.synthesis is None else {"synthesis": self.synthesis}
        found |= {f"judging, {name}": usd for name, usd in self.judging.items()}
        if self.other > 0.00005:
            found["not attributed"] = self.other
        return found | {"total": self.total}


def spending(run: RunRecord) -> Spending:
    """Return what became of the run's money; raises InputError where a file can't be read."""
    grown = [_usd(path) for folder in layout.places(run.folder) if (path := _grown_by(folder))]
    judging: dict[str, list[float]] = {}
    for folder in layout.places(run.folder):
        card = folder / layout.SCORECARD
        judges = read_tree(card).get("judges") or {} if card.exists() else {}
        for name, scores in judges.items():
            judging.setdefault(name, []).append(scores.get("cost_usd") or 0.0)
    return Spending(
        round(math.fsum(grown), 10) if grown else None,
        {name: round(math.fsum(usd), 10) for name, usd in judging.items()},
        run.state.cost_usd,
    )


def _grown_by(folder: Path) -> Path | None:
    """Return the file that tells what synthesis cost: `curation.json` is much shorter than what was written."""
    files = (folder / layout.CURATION, folder / layout.SYNTHESIS)
    return next((file for file in files if file.exists()), None)


def _usd(path: Path) -> float:
    return float(read_tree(path).get("cost_usd", 0.0))


_STAGES = {
    layout.ADAPTER: "fine-tuning",
    layout.PREDICTIONS: "answering",
    layout.VERDICTS: "judging",
    layout.REST: "judging",
    layout.SCORECARD: "scoring",
    layout.SYNTHESIS: "synthesising data",
    layout.SYNTHETIC: "curating data",
    layout.CURATION: "curating data",
}


def seconds(run: RunRecord) -> dict[str, float]:
    """Return seconds by stage, the test split's included; empty for a run without markers."""
    found: dict[str, float] = {}
    everywhere: list[int | str] = [layout.START, *(line.iteration for line in run.history), layout.TEST]
    for where in everywhere:
        for artifact, stage in _STAGES.items():
            path = layout.place(run.folder, where) / artifact
            if layout.marker(path).exists():
                found[stage] = found.get(stage, 0.0) + told_seconds(path)
    return found
