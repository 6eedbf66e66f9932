"""Verify: every number of runs and their report derived again from stored replies and predictions, and compared.

    found = verify(Path("results/pocket_main_table"))
    found.differences                     one sentence each; none if all is as stored
    found.unchecked                       what could not be derived, and why

A run is derived by the loop itself, in a folder of its own (see `derive`): it comes to verdicts, scorecards, synthetic
rows, curation, metrics and state anew, which are compared with the stored ones byte for byte; times with the artifacts'
markers. The markers' checksums are checked, and the folder's name against the configuration. Then the report is
written again beside, and compared. Nothing in the folder is changed, nothing is sent, and neither torch nor litellm is
loaded.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from llamaduo.files.folders import below
from llamaduo.files.regular import NO_FILE, no_files, read_json
from llamaduo.files.scratch import scratch_folder
from llamaduo.runs.layout import ADAPTER, DONE, METRICS, REPORT, STATE
from llamaduo.runs.marks import contents_hash, faults
from llamaduo.runs.record import RunRecord, read_runs
from llamaduo.studies.pages.bundle import inflated
from llamaduo.studies.report import write_report
from llamaduo.studies.study import read_study
from llamaduo.verify.compare import Verified, compare, compare_files, compare_texts
from llamaduo.verify.derive import derived


def verify(root: Path, *, journal: Path | None = None, whole: bool = False) -> Verified:
    """Derive all runs at or below a folder again; raises InputError if there is none.

    `journal` is where the replies lie, by default each run's own. With `whole` a missing reply is a difference;
    without it, something that can't be checked: another machine's journal may hold it.
    """
    found = Verified()
    for record in read_runs(root, compared=False):
        if odd := no_files(record.folder):
            names = (f"{record.name}/{path.relative_to(record.folder).as_posix()}" for path in odd)
            found.differences += [f"{name}: {NO_FILE}." for name in names]
            continue
        try:
            _verify_markers(record, found)
            with derived(record, journal, found, whole=whole) as made:
                if made:
                    compare(record, *made, found)
        except Exception as error:  # whatever a stranger's files hold is a difference, never a fault of ours
            told = " ".join(f"{type(error).__name__}: {error}".split())
            found.differences.append(f"{record.name}: can't be compared ({told}).")
        found.counts["runs"] += 1
    return found


def _verify_markers(record: RunRecord, found: Verified) -> None:
    """Compare size and checksum of every artifact with its marker."""
    markers = (folder / name for folder, names in below(record.folder) for name in names if name.endswith(DONE))
    for marker in sorted(markers):
        path = marker.with_name(marker.name.removesuffix(DONE))
        where = f"{record.name}/{path.relative_to(record.folder).as_posix()}"
        if path.name == ADAPTER and not any(path.glob("*.safetensors")):
            found.unchecked["adapters: their weights are not here."] = None
            continue
        if not path.exists():
            found.differences.append(f"{where}: its marker is there, it is not.")
            continue
        size, digest = contents_hash(path)
        if _told(marker) != (size, digest):
            found.differences.append(f"{where}: not what its marker was made for (sha256 {digest[:8]}).")
        found.counts["artifacts against their markers"] += 1
    for path, fault in faults(record.folder, artifacts=False).items():
        if path.name not in _DERIVED:
            found.differences.append(f"{record.name}/{path.relative_to(record.folder).as_posix()}: {fault}.")


_DERIVED = (STATE, METRICS)
"""Files that are compared with derived ones."""


def _told(marker: Path) -> tuple[int, str] | None:
    """Return the bytes and the sha256 that a marker holds, None for one that can't be read."""
    try:
        tree = read_json(marker)
        return int(tree["bytes"]), str(tree["sha256"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def verify_report(folder: Path, beside: Path, found: Verified) -> None:
    """Write the report of the runs in `folder` anew, and compare it with the one that lies in `beside`.

    A file of a report that is not there is a difference, and so is one too many; pages of runs may be left out.
    """
    if not (beside / "runs.csv").exists():
        found.unchecked[f"no report: llamaduo report {beside} writes one."] = None
        return
    with scratch_folder() as scratch:
        made = scratch / folder.resolve().name
        written = {path.relative_to(made) for path in write_report(read_study(folder), made)}
        pages = {name for name in written if name.name == REPORT and not (beside / name).exists()}
        if pages:
            found.unchecked[f"pages: {len(pages):,} are not here."] = None
        stored = {path.relative_to(beside) for kind in ("tables", "figures") for path in beside.glob(f"{kind}/*.*")}
        for name in sorted(stored - written):
            found.differences.append(f"{name.as_posix()}: no file of a report on these runs.")
        for name in sorted(written - pages):
            if (beside / name).exists():
                try:
                    _compare_report_file(name.as_posix(), beside / name, made / name, found)
                except (ValueError, OSError, zlib.error) as error:  # pyarrow's are ValueErrors
                    found.differences.append(f"{name.as_posix()}: can't be compared ({error}).")
            else:
                found.differences.append(f"{name.as_posix()}: is missing in the report.")


_DRAWN = {".svg", ".png"}
_EMBEDDED = re.compile(r"data:image/[^\"')]+")


def _compare_report_file(name: str, stored: Path, derived: Path, found: Verified) -> None:
    """Compare a file of a report; a picture that differs may only be drawn by another version."""
    found.counts["files of the report"] += 1
    if derived.suffix == ".parquet":
        import pyarrow.parquet

        ours, theirs = (pyarrow.parquet.ParquetFile(path) for path in (stored, derived))
        same = ours.schema_arrow.equals(theirs.schema_arrow) and ours.metadata.num_rows == theirs.metadata.num_rows
        if not same or not ours.read().equals(theirs.read()):
            found.differences.append(f"{name}: its rows are not those of the runs.")
    elif derived.suffix in _DRAWN:
        if stored.read_bytes() != derived.read_bytes():
            told = "drawn by another version of matplotlib, or changed; its numbers are in the CSV"
            found.unchecked[f"{name}: {told}."] = None
    elif derived.suffix == ".html":
        ours, theirs = (_without_pictures(path) for path in (stored, derived))
        compare_texts(name, ours, theirs, found)
    else:
        compare_files(name, stored, derived, found)


def _without_pictures(page: Path) -> str:
    """Return a page without the pictures in it, its data as they were before compression."""
    return _EMBEDDED.sub("", inflated(page.read_text(encoding="utf-8")))
