"""What became of a run's data, money and time, by iteration and by stage.

    data_flow(run)     rows asked for, read, removed, kept and trained on, an iteration each
    spending(run)      price of the service LLMs' replies, by stage
    seconds(run)       wall time, by stage

Reads `curation.json` and the markers of the artifacts (`verdicts.jsonl.done` and the like), as far as they are there.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.records import Iteration
from llamaduo.studies.runs import RunRecord


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


GROWN = ("wanted", "requests", "failed", "parsed", "dropped", "duplicate", "contamination", "kept")


def data_flow(run: RunRecord) -> list[Flow]:
    """Return the flow of each iteration, and of one that was begun."""
    found = []
    for number in range(len(run.history) + 1):
        grown = _grown(run.folder / "iterations" / (f"{number - 1:02d}" if number else "start"))
        trained = run.history[number] if number < len(run.history) else None
        if grown or trained:
            found.append(Flow(number, grown, trained))
    return found


def _grown(folder: Path) -> dict[str, int] | None:
    tree = _curation(folder)
    if tree is None:
        return None
    why = Counter(entry["reason"] for entry in tree["removed"])
    return {name: tree.get(name, why[name]) for name in GROWN}


def _curation(folder: Path) -> dict[str, Any] | None:
    path = folder / "curation.json"
    if not path.exists():
        return None
    tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return tree


def spending(run: RunRecord) -> dict[str, float]:
    """Return dollars by stage, then `total`: the price of all replies that the run used, each once.

    What a stage that broke off has used is known in the total alone; it is `not attributed`.
    """
    judges: dict[str, float] = {}
    for card in [line.judges for line in run.history] + [(run.state.test or {}).get("judges") or {}]:
        for name, scores in card.items():
            stage = f"judging, {name}"
            judges[stage] = judges.get(stage, 0.0) + (scores.get("cost_usd") or 0.0)
    folders = ["start", *(f"{line.iteration:02d}" for line in run.history)]
    grown = [tree for name in folders if (tree := _curation(run.folder / "iterations" / name))]
    found: dict[str, float] = {"synthesis": sum(tree["cost_usd"] for tree in grown)} if grown else {}
    found |= judges
    rest = run.state.cost_usd - sum(found.values())
    if rest > 0.00005:
        found["not attributed"] = rest
    return found | {"total": run.state.cost_usd}


_STAGES = {
    "adapter": "fine-tuning",
    "predictions.jsonl": "answering",
    "verdicts.jsonl": "judging",
    "scorecard.json": "scoring",
    "synthesis.json": "synthesising data",
    "synthetic.jsonl": "curating data",
    "curation.json": "curating data",
}


def seconds(run: RunRecord) -> dict[str, float]:
    """Return seconds by stage, the test split's included; empty for a run without markers."""
    found: dict[str, float] = {}
    for folder in ["start", *(f"{line.iteration:02d}" for line in run.history), "test"]:
        for artifact, stage in _STAGES.items():
            marker = run.folder / "iterations" / folder / f"{artifact}.done"
            if marker.exists():
                spent = json.loads(marker.read_text(encoding="utf-8"))["seconds"]
                found[stage] = found.get(stage, 0.0) + spent
    return found
