"""Differences: what is stored beside what was derived, file by file, line by line.

    compare(record, derived, kept, found)      every artifact of a run, its metrics and its state
    compare_files(name, stored, derived, found)

Reads both and writes nothing; what differs is one sentence in `found.differences`: file, line, field, both values.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamaduo.config import Beside
from llamaduo.files.regular import read_json
from llamaduo.redaction import one_line
from llamaduo.runs import layout
from llamaduo.runs.layout import ACCOUNT
from llamaduo.runs.record import RunRecord

_MOST_SHOWN = 20


@dataclass
class Verified:
    """What came of a verification."""

    counts: Counter[str] = field(default_factory=Counter)
    """How many verdicts, scorecards, files ... were derived again, or checked."""
    differences: list[str] = field(default_factory=list)
    unchecked: dict[str, None] = field(default_factory=dict)
    """What could not be derived, and why; each once."""
    keys: set[str] = field(default_factory=set)
    """The journal's keys of all replies that were read."""
    journals: set[Path] = field(default_factory=set)
    """Where they lie."""


_COMPARED = {
    layout.VERDICTS: "verdicts",
    layout.REST: "verdicts",
    layout.SCORECARD: "scorecards",
    layout.SYNTHESIS: "syntheses",
    layout.SYNTHETIC: "synthetic rows",
    layout.CURATION: "curations",
    layout.PROVENANCE: "lines of provenance",
    layout.PREDICTIONS: "predictions",
}


_LATER = {layout.SYNTHESIS: ("origins", "rounds"), layout.CURATION: ("rounds",)}
"""Fields that earlier versions did not write: what is not stored is not compared."""


def compare(record: RunRecord, derived: Path, kept: set[str], found: Verified) -> None:
    """Compare the artifacts of the derived run with those that are stored; neither may have one more."""
    made, there = _artifacts(derived), _artifacts(record.folder)
    if not any(inside.name == layout.PROVENANCE for inside in there):
        made = {inside for inside in made if inside.name != layout.PROVENANCE}
    for inside in sorted(there - made):
        found.differences.append(f"{record.name}/{inside.as_posix()}: nothing leads to it.")
    for inside in sorted(made - there):
        found.differences.append(f"{record.name}/{inside.as_posix()}: is missing.")
    for inside in sorted(made & there):
        path, stored, what = derived / inside, record.folder / inside, _COMPARED[inside.name]
        rows = path.read_bytes().count(b"\n") if path.suffix == ".jsonl" else 1
        if taken_as_stored(inside, kept):
            found.counts[f"{what} taken as stored"] += rows
            continue
        _compare_artifact(f"{record.name}/{inside.as_posix()}", stored, path, found)
        found.counts[what] += rows
    _compare_metrics(record, derived, found)
    _compare_state(record, derived, found)
    _compare_account(record, derived, found)


def taken_as_stored(path: Path, kept: set[str]) -> bool:
    """Tell whether an artifact is a copy; the service LLM's answers are derived wherever its replies are there."""
    derived = path.name == layout.PREDICTIONS and path.parent.name.endswith(Beside.service_llm)
    return path.name in kept and not (derived and layout.VERDICTS not in kept)


def _artifacts(folder: Path) -> set[Path]:
    """Return the files of a run that are complete and can be compared, below its folder."""
    paths = (path for name in _COMPARED for path in layout.marked(folder, name))
    return {path.relative_to(folder) for path in paths if path.exists()}


def _compare_artifact(name: str, stored: Path, derived: Path, found: Verified) -> None:
    """Compare two artifacts; a tree without the fields that the version which stored it did not know."""
    later = _LATER.get(stored.name)
    if not later:
        compare_files(name, stored, derived, found)
        return
    made, there = read_json(derived), stored.read_bytes().decode(errors="backslashreplace")
    with suppress(ValueError):
        if isinstance(kept := json.loads(there), dict):
            made = {key: value for key, value in made.items() if key in kept or key not in later}
    compare_texts(name, there, json.dumps(made, indent=1, allow_nan=False) + "\n", found)


def compare_files(name: str, stored: Path, derived: Path, found: Verified) -> None:
    """Say where two files of text first differ."""
    ours, theirs = (path.read_bytes().decode(errors="backslashreplace") for path in (stored, derived))
    compare_texts(name, ours, theirs, found)


def compare_texts(name: str, stored: str, derived: str, found: Verified) -> None:
    """Say where two texts first differ."""
    if stored == derived:
        return
    ours, theirs = stored.split("\n"), derived.split("\n")
    line = next((at for at, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if line is None:
        found.differences.append(f"{name}: {len(ours)} lines stored, {len(theirs)} derived.")
    else:
        found.differences.append(f"{name}:{line + 1}: {_first_difference(ours[line], theirs[line])}.")


def _first_difference(stored: str, derived: str) -> str:
    """Return what two lines differ in: a field of JSON objects, or a piece of text."""
    try:
        a, b = json.loads(stored), json.loads(derived)
    except ValueError:
        a = b = None
    if isinstance(a, dict) and isinstance(b, dict):
        name = next((key for key in {**a, **b} if a.get(key) != b.get(key)), None)
        if name is not None:
            return f"{name} is stored as {_short(a.get(name))}, derived as {_short(b.get(name))}"
    at = next((i for i, (x, y) in enumerate(zip(stored, derived, strict=False)) if x != y), 0)
    start = max(0, at - 10)
    return f"stored {_short(stored[start:])}, derived {_short(derived[start:])}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _compare_metrics(record: RunRecord, derived: Path, found: Verified) -> None:
    """Compare the lines of metrics.jsonl; `seconds` with the sum of the stored markers."""
    path = derived / layout.METRICS
    made = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    stored_path = record.folder / layout.METRICS
    kept = stored_path.read_text(encoding="utf-8").splitlines() if stored_path.exists() else []
    done = record.state.status == "done"
    if len(kept) > len(made) or (done and len(kept) < len(made)):
        found.differences.append(f"{record.name}/{layout.METRICS}: {len(kept)} iterations stored, {len(made)} derived.")
    for number, (text, line) in enumerate(zip(kept, made, strict=False)):
        stored = json.loads(text)
        line["seconds"] = layout.seconds(*layout.behind(record.folder, number))
        if stored != line:
            difference = _first_difference(text, json.dumps(line))
            found.differences.append(f"{record.name}/{layout.METRICS}:{number + 1}: {difference}.")
        found.counts["lines of metrics"] += 1


def _compare_state(record: RunRecord, derived: Path, found: Verified) -> None:
    """Compare state.json; it may count more money than was of use: calls that brought nothing."""
    if record.state.status != "done":
        found.unchecked[f"{record.name}: not finished ({record.state.status}); compared as far as it came."] = None
        return
    stored = read_json(record.folder / layout.STATE)
    made = read_json(derived / layout.STATE)
    made["cost_usd"] = max(made["cost_usd"], stored["cost_usd"])
    if stored != made:
        difference = _first_difference(json.dumps(stored), json.dumps(made))
        found.differences.append(f"{record.name}/{layout.STATE}: {difference}.")
    found.counts["states"] += 1


def _compare_account(record: RunRecord, derived: Path, found: Verified) -> None:
    """Compare data.json: the counts with each other, and with the data where they are here.

    What the model can't use of the rows is left out last, of the training rows: it takes the model to derive that.
    """
    name, file, made = f"{record.name}/{ACCOUNT}", record.folder / ACCOUNT, derived / ACCOUNT
    if not file.exists():
        return  # earlier versions wrote none
    stored = read_json(file)
    left, used = stored["left_out"], dict(stored["used"])
    if stored["read"] != sum(used.values()) + sum(one["rows"] for one in left):
        found.differences.append(f"{name}: what is used and left out does not come to the {stored['read']} rows read.")
    if made.exists():
        ours = read_json(made)
        count, notes = len(ours["left_out"]), len(ours["notes"])
        used["train"] += sum(one["rows"] for one in left[count:])
        theirs = {**stored, "used": used, "left_out": left[:count], "notes": stored["notes"][:notes]}
        if theirs != ours:
            found.differences.append(f"{name}: {_first_difference(json.dumps(theirs), json.dumps(ours))}.")
        found.counts["accounts of data"] += 1


def summary(found: Verified) -> list[str]:
    """Return what a person should read of a verification, whatever a stranger's files hold."""
    lines = [f"{count:,} {name}" for name, count in found.counts.items() if count]
    told = ["derived or checked: " + ", ".join(lines) + "."] if lines else []
    told += [f"not checked: {text}" for text in found.unchecked]
    told += [f"DIFFERENT: {text}" for text in found.differences[:_MOST_SHOWN]]
    if len(found.differences) > _MOST_SHOWN:
        told.append(f"... and {len(found.differences) - _MOST_SHOWN:,} more differences.")
    return [one_line(line) for line in told]
