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
from dataclasses import dataclass
from pathlib import Path

from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord, read_tree, told_seconds
from llamaduo.runs.state import Iteration
from llamaduo.stages.curate import REASONS


@dataclass(frozen=True)
class Flow:
    """The way of the rows that one iteration trained on."""

    iteration: int
    grown: dict[str, int] | None
    """What synthesis and curation did before it, as `GROWN` names it; None where nothing was synthesised."""
    trained: Iteration | None
    """The iteration; None where rows were made for one that did not come to its end."""

    @property
    def coverage_rows(self) -> int:
        """Rows of people among those trained on."""
        return self.trained.train_rows - self.trained.synthetic_rows if self.trained else 0


GROWN = ("wanted", "requests", "failed", "parsed", "dropped", *(reason.name for reason in REASONS), "kept")
SHARES = {"kept": "kept", **{reason.name: reason.legend for reason in REASONS}, "dropped": "no whole pair"}
"""What rows that were read come to, each with what it is called beside its colour."""


def data_flow(run: RunRecord) -> list[Flow]:
    """Return the flow of each iteration, and of one that was begun."""
    found = []
    for number in range(len(run.history) + 1):
        grown = _grown(layout.place(run.folder, layout.before(number)))
        trained = run.history[number] if number < len(run.history) else None
        if grown or trained:
            found.append(Flow(number, grown, trained))
    return found


def _grown(folder: Path) -> dict[str, int] | None:
    path = folder / layout.CURATION
    if not path.exists():
        return None
    tree = read_tree(path)
    why = Counter(entry["reason"] for entry in tree["removed"])
    return {name: tree.get(name, why[name]) for name in GROWN}


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
