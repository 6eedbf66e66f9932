"""The layout of a run's folder: what lies where, and by which name. Nothing else in the package spells it.

    results/<study>/<name>-<8 hex>/
      config.yaml environment.json identity.json data.json left_out.jsonl judge_prompt.txt    what it is made with
      privacy.json placeholders.key                                            with privacy=on: what was replaced
      state.json metrics.jsonl report.html                                     how it goes, and its page
      .lock .checksums.json                                                    who writes, and what files have to be
      iterations/00/        also `start`, before the first; `test`; and who stands beside: `base`, `test_base` ...
        adapter/ predictions.jsonl verdicts.jsonl rest.jsonl scorecard.json    of the answers
        losses.jsonl train_predictions.jsonl                                   of training rows, for some strategies
        synthesis.json synthetic.jsonl curation.json provenance.jsonl          rows for the next iteration
        audit.json                                                             what answers and rows are like

What lies in an iteration is an artifact: it is complete if and only if its marker `<name>.done` lies beside it, which
holds its size, its sha256 and the seconds that it took: {"bytes": 812, "sha256": "5b1f...", "seconds": 1.2}.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llamaduo.files.regular import read_json

PRIVACY, SECRET = "privacy.json", "placeholders.key"
"""With `privacy=on`: how much was replaced, and the secret that made-up values follow from."""
CONFIG, ENVIRONMENT, IDENTITY, ACCOUNT, UNUSED, RUBRIC = (
    "config.yaml", "environment.json", "identity.json", "data.json", "left_out.jsonl", "judge_prompt.txt"
)  # fmt: skip
STATE, METRICS, REPORT = "state.json", "metrics.jsonl", "report.html"
LOCK, CHECKSUMS = ".lock", ".checksums.json"

ITERATIONS = "iterations"
START, TEST = "start", "test"
"""Places among the iterations: what is made before the first one, and the test split."""
ADAPTER, PREDICTIONS, VERDICTS, REST, SCORECARD = (
    "adapter", "predictions.jsonl", "verdicts.jsonl", "rest.jsonl", "scorecard.json"
)  # fmt: skip
RECORD = "record.json"
"""What training tells, in the adapter's folder."""
LOSSES, TRAIN_PREDICTIONS = "losses.jsonl", "train_predictions.jsonl"
"""What a strategy of synthesis has to know of the student: each row's loss, or its answers to training prompts."""
SYNTHESIS, SYNTHETIC, CURATION, PROVENANCE = "synthesis.json", "synthetic.jsonl", "curation.json", "provenance.jsonl"
AUDIT = "audit.json"
"""What the answers and the rows trained on are like; there where it was asked for."""

JUDGED, GROWN = (ADAPTER, PREDICTIONS, VERDICTS, SCORECARD), (SYNTHESIS, SYNTHETIC, CURATION)
"""Chains of artifacts: each is made of those before it."""
DONE = ".done"
"""What a marker's name ends with."""


def named(where: int | str) -> str:
    """Return the name of a place among the iterations: `00`, `01`, `start`, `test` ..."""
    return f"{where:02d}" if isinstance(where, int) else where


def place(folder: Path, where: int | str) -> Path:
    """Return the folder of an iteration, or of what lies outside of them."""
    return folder / ITERATIONS / named(where)


def places(folder: Path) -> list[Path]:
    """Return the folders of all places that are there."""
    return sorted(folder.glob(f"{ITERATIONS}/*"))


def before(number: int) -> int | str:
    """Return where the rows were made that an iteration trains on besides those of the one before."""
    return number - 1 if number else START


def beside(name: str, split: str) -> str:
    """Return the place of one who stands beside the iterations, on the split `gate` or `test`."""
    return name if split == "gate" else f"{split}_{name}"


def is_run(folder: Path) -> bool:
    """Tell whether a folder is that of a run which has begun."""
    return (folder / STATE).exists()


def marker(path: Path) -> Path:
    """Return the marker of an artifact."""
    return path.with_name(path.name + DONE)


def marked(folder: Path, name: str = "*") -> list[Path]:
    """Return the artifacts of a run that have a marker; of one name, or all. They themselves may be gone."""
    markers = sorted(folder.glob(f"{ITERATIONS}/*/{name}{DONE}"))
    return [path.with_name(path.name.removesuffix(DONE)) for path in markers]


def read_mark(path: Path) -> dict[str, Any] | None:
    """Return what an artifact's marker holds, None for one that can't be read."""
    try:
        tree = read_json(marker(path))
        return tree if isinstance(tree, dict) and 0 <= float(tree.get("seconds", 0.0)) < math.inf else None
    except (OSError, ValueError, TypeError, OverflowError):
        return None


def seconds(*paths: Path) -> float:
    """Return how long it took to make artifacts, as far as their markers tell."""
    return round(sum(float((read_mark(path) or {}).get("seconds", 0.0)) for path in paths), 3)


def behind(folder: Path, number: int) -> list[Path]:
    """Return the artifacts of an iteration, and those that its new rows were made by."""
    here, earlier = place(folder, number), place(folder, before(number))
    grown = (LOSSES, TRAIN_PREDICTIONS, *GROWN)
    return [*(here / name for name in JUDGED), *(earlier / name for name in grown)]
