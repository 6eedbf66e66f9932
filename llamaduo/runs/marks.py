"""Marks: what tells that the files of a run are whole. They are read and compared here, and written by `folder`.

    look(folder, folder / "iterations/00/verdicts.jsonl")      Look(whole=True)
    faults(folder)                                             {Path(".../scorecard.json"): "not what its marker ..."}
    absent(folder, state)                                      the same of what is gone without a trace

An artifact has its marker `<name>.done` beside it: {"bytes": 812, "sha256": "5b1f...", "seconds": 1.2}. In the run's
folder `.checksums.json` holds a copy of each, and the sha256 of the files that have no marker, such as `state.json`:

    {"sha256": "91c4...", "of": {"iterations/00/verdicts.jsonl": {"bytes": ...}, "state.json": ["70aa..."]}}

Such a file has two while it is replaced: the new content's and the old one's. Runs of earlier versions have markers
alone, the earliest without a sha256: there is nothing to compare them with then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.files.contents import remembered
from llamaduo.files.regular import NO_FILE, no_files, read, read_json
from llamaduo.runs import layout
from llamaduo.runs.layout import (
    ADAPTER,
    CHECKSUMS,
    GROWN,
    JUDGED,
    RECORD,
    START,
    TEST,
    marked,
    marker,
    place,
    read_mark,
)  # fmt: skip
from llamaduo.runs.state import RunState

_MOST_ITERATIONS = 10_000


def contents(path: Path) -> list[Path]:
    """Return the files of an artifact: itself, or all in a folder; none of a pipe, which nobody may ever write to."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sorted(file for file in found if file.is_file())


def contents_hash(path: Path) -> tuple[int, str]:
    """Return the bytes and the sha256 of an artifact: a file, or all files of a folder one behind the other."""
    digest, size = hashlib.sha256(), 0
    for file in contents(path):
        with open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
                size += len(block)
    return size, digest.hexdigest()


def _remembered_hash(path: Path) -> tuple[int, str]:
    """Return the same; what is large is read again only if it has changed since."""
    files = contents(path)
    return sum(file.stat().st_size for file in files), remembered(files, lambda: contents_hash(path)[1])


def read_checksums(root: Path) -> dict[str, Any] | None:
    """Return what a run's `.checksums.json` holds; nothing if there is none, None for one that is damaged."""
    try:
        tree = read_json(root / CHECKSUMS)
        return dict(tree["of"]) if tree["sha256"] == _of_tree(tree["of"]) else None
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def checksums_text(of: Mapping[str, Any]) -> str:
    """Return how `.checksums.json` is written."""
    return json.dumps({"sha256": _of_tree(of), "of": dict(sorted(of.items()))}, indent=1) + "\n"


def _of_tree(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Look:
    """What is found of an artifact."""

    whole: bool = False
    """It is complete, and what it was when it was marked, as far as that can be known."""
    fault: str = ""
    """Why it, or its marker, isn't what it was, a clause; empty for one that was never made."""
    mark: dict[str, Any] | None = None
    """What it was marked with."""

    @property
    def unhashed(self) -> bool:
        """Whether it is complete, with nothing to compare it with."""
        return self.whole and "sha256" not in (self.mark or {})


def look(root: Path, path: Path, *, quick: bool = False) -> Look:
    """Compare an artifact of a run with its marker and the marker's copy; `quick` reads what is large once only."""
    copy = (read_checksums(root) or {}).get(path.relative_to(root).as_posix())
    told = read_mark(path)
    mark = copy or told
    gone = not marker(path).exists()
    if gone and not _has_followers(path):
        return Look()
    if mark is None:
        return Look(fault="its marker is gone, what was made of it is there" if gone else "its marker can't be read")
    if not path.exists():
        return Look(fault="it is gone, what tells of it is there", mark=mark)
    if not (path.is_file() or path.is_dir()):
        return Look(fault=NO_FILE, mark=mark)
    if "sha256" in mark:
        found = _remembered_hash(path) if quick else contents_hash(path)
        if found != (mark.get("bytes"), mark["sha256"]):
            return Look(fault=f"not what its marker was made for (sha256 {found[1][:8]})", mark=mark)
    return Look(whole=True, mark=mark, fault="its marker is not as it was written" if mark != told else "")


def _has_followers(path: Path) -> bool:
    chain = next((chain for chain in (JUDGED, GROWN) if path.name in chain), ())
    after = chain[chain.index(path.name) + 1 :] if chain else ()
    return any(marker(path.with_name(name)).exists() for name in after)


def kept_fault(path: Path) -> str:
    """Return why a file without a marker isn't what was last written of it, empty where nothing speaks against it."""
    for _ in range(5):
        known = (read_checksums(path.parent) or {}).get(path.name)
        try:
            found = hashlib.sha256(read(path)).hexdigest()
        except OSError as error:
            return f"can't be read: {error.strerror}"
        if known is None or found in known:
            return ""
        time.sleep(0.02)  # a run that goes on may just have replaced both
    return f"not what was last written (sha256 {found[:8]})"


def faults(root: Path, *, artifacts: bool = True) -> dict[Path, str]:
    """Return what of a run isn't what it was, each with the reason; adapters may have been removed.

    Without `artifacts` only the markers and the files without one are looked at, which takes a millisecond.
    """
    known = read_checksums(root)
    found = {root / CHECKSUMS: "can't be read"} if known is None else {}
    known = known or {}
    for path in sorted({*(root / name for name, of in known.items() if isinstance(of, dict)), *marked(root)}):
        fault = _fault(root, path, known) if artifacts else _marker_fault(root, path, known)
        if fault:
            found[path] = fault
    for name in (name for name, of in known.items() if isinstance(of, list)):
        path = root / name
        fault = _record_fault(path, known[name]) if path.name == RECORD else kept_fault(path)
        if fault:
            found[path] = fault
    return found | dict.fromkeys(no_files(root), NO_FILE)


def absent(root: Path, state: RunState) -> dict[Path, str]:
    """Return which artifacts a finished run must have had and has not, whatever is left to tell of them.

    Adapters and new rows are missed where others of them are there, or were trained on.
    """
    if state.status != "done" or state.stop_reason == "budget":
        return {}
    numbers = [place(root, number) for number in range(min(state.iterations, _MOST_ITERATIONS))]
    beside = [place(root, layout.beside(name, split)) for name, splits in state.beside.items() for split in splits]
    judged = [*numbers, *beside, *([place(root, TEST)] if state.test else [])]
    wanted = [folder / name for folder in judged for name in JUDGED[1:]]
    adapters = [folder / ADAPTER for folder in numbers]
    if any(marker(path).exists() for path in adapters):
        wanted += adapters
    for folder in (place(root, START), *numbers):
        grown = [folder / name for name in GROWN]
        wanted += grown if any(marker(path).exists() for path in grown) else []
    return {path: "it is gone, and so is its marker" for path in wanted if not marker(path).exists()}


def _fault(root: Path, path: Path, known: Mapping[str, Any]) -> str:
    if not marker(path).exists():
        gone = "its marker is gone" if path.exists() else "it is gone, and so is its marker"
        return "" if path.name == ADAPTER and not path.exists() else gone
    if without_weights(path):
        return _marker_fault(root, path, known)
    return look(root, path, quick=True).fault


def without_weights(path: Path) -> bool:
    """Tell whether a path is an adapter's whose weights were removed: its numbers stand without them."""
    return path.name == ADAPTER and {file.name for file in contents(path) if file.exists()} <= {RECORD}


def _marker_fault(root: Path, path: Path, known: Mapping[str, Any]) -> str:
    copy = known.get(path.relative_to(root).as_posix())
    same = copy is None or not marker(path).exists() or copy == read_mark(path)
    return "" if same else "its marker is not as it was written"


def _record_fault(path: Path, known: list[str]) -> str:
    """Compare an adapter's record, which is read without the weights."""
    try:
        same = not path.exists() or hashlib.sha256(read(path)).hexdigest() in known
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return "" if same else "not what training has left"


def unhashed(root: Path) -> int:
    """Return how many artifacts of a run have a marker without a sha256: those of early versions."""
    marks = (read_mark(path) for path in marked(root))
    return sum(mark is not None and "sha256" not in mark for mark in marks)
