"""What a run's page says of its audits: a line an iteration, the gaps told from noise, and examples.

    audits(run)        [{"iteration": 0, "answers": {...}, "rows": {...}, "bias": None, ...}, ...]

Reads `iterations/NN/audit.json` of the iterations that have one; a page of a run without any says nothing of audits.
"""

from __future__ import annotations

from typing import Any

from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord, read_tree

_UNITS = {"length": "% of the mean length"}


def audits(run: RunRecord) -> list[dict[str, Any]]:
    """Return the audits of a run's iterations, in order, with the lines that a reader should see first."""
    paths = [(line.iteration, layout.place(run.folder, line.iteration) / layout.AUDIT) for line in run.history]
    found = [read_tree(path) for _, path in paths if path.exists()]
    return [one | {"gaps": _gaps(one.get("bias")), "examples": _examples(one)} for one in found]


def _gaps(bias: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the gaps that are told from noise, with their units."""
    if bias is None:
        return []
    return [gap | {"unit": _UNITS.get(gap["outcome"], " points")} for gap in bias["gaps"] if gap["stands"]]


def _examples(tree: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (what it shows, text) of answers and rows that refuse, have toxic words or are in another language."""
    labels = {"refusals": "refuses", "toxic": "toxic words", "language_drift": "another language"}
    return [
        (f"{whose}: {label}", text)
        for whose, part in (("answer", tree["answers"]), ("row", tree["rows"]))
        if part
        for what, label in labels.items()
        for text in part[what]["examples"][:2]
    ]
