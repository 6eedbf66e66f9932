"""`report.html`: one self-contained page of a run, with an explorer of its answers, and one of a study.

    write_run_page(Path("results/main_table/gemma_2b-coding-1a2b3c4d"))      writes report.html into the folder
    run_page(run, study)                                                     the same page as text, with a way back
    study_page(study, tables, figures)

A page needs no network and no second file: templates, style sheet and scripts lie in `templates/` and are written into
it, and its content security policy lets nothing else run or load. Answers go in packed (see bundle) and reach the
document as text alone. The same folders give the same bytes; `bundle.inflated` makes pages of two machines comparable.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from llamaduo.config import Beside, Judge
from llamaduo.display import pocket_note
from llamaduo.errors import InputError
from llamaduo.files.writing import write_text
from llamaduo.privacy.tally import lines
from llamaduo.redaction import complain, redact
from llamaduo.runs import layout
from llamaduo.runs.layout import ACCOUNT, REPORT, TEST
from llamaduo.runs.record import RunRecord, read_runs, read_tree
from llamaduo.studies.answers import Scores, reported_scores
from llamaduo.studies.costs.by_stage import data_flow, reasons_met, seconds, shares, spending
from llamaduo.studies.factors import OTHER, identities
from llamaduo.studies.funnel import funnel
from llamaduo.studies.pages.audited import audits
from llamaduo.studies.pages.bundle import SCORES, pack
from llamaduo.studies.pages.curves import curve, gate_of, series
from llamaduo.studies.pages.frame import rendered
from llamaduo.studies.pages.funnel_drawn import drawn, rows_told, share
from llamaduo.studies.parts import Figure, Table
from llamaduo.studies.study import Study
from llamaduo.studies.tidy import Row, coverage_of, covered, factors, identity

_OF_THIS_MACHINE = {"runtime.results", "runtime.cache", "service.journal"}
_SHOWN_POINTS = 60
_BROAD = 2.0  # a drawing that is so many times as wide as it is high gets a line to itself
_OVERVIEW = "runs"  # the table of all runs: the page has its own, with links


def write_run_page(folder: Path, *, quiet: bool = False) -> None:
    """Write a run's `report.html`; a page that can't be made is a line on stderr at most, never an error of the run."""
    try:
        (run,) = read_runs(folder)
        write_text(folder / REPORT, run_page(run))
    except Exception as error:  # a picture of the results may fail without hurting them
        told = " ".join(str(error).split())
        if quiet:
            return
        complain(f"{folder}: no report.html ({type(error).__name__}: {told}); try llamaduo report.")


def run_page(run: RunRecord, study: Study | None = None) -> str:
    """Return the page of a run; `study` gives it a way back to the study's page in `study.root`.

    Raises InputError where the run's answers, verdicts or counts can't be read.
    """
    try:
        sections = _sections(run)
        scores = study.scores.get(run.name) if study else reported_scores(run)
        flows = data_flow(run)
        flow = {"flows": flows, "reasons": reasons_met(flows), "shares": shares(flows)}
        spent = flow | {"costs": spending(run).by_stage(), "seconds": seconds(run)}
        account, looked = _account(run.folder), audits(run)
        way = funnel(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{run.folder}: damaged ({type(error).__name__}: {told}); move it elsewhere.") from error
    up = _link(study.root / REPORT, run.folder) if study and study.root != run.folder else None
    values = (
        _told(run, scores, study.row(run.name) if study else None)
        | spent
        | {"sections": sections, "up": up, "account": account, "audits": looked}
        | {"privacy": lines(run.folder / layout.PRIVACY)}
    )
    values |= (
        {"funnel": way, "steps": rows_told(way), "drawing": drawn(way), "share": share} if way else {"funnel": None}
    )
    styles = ("funnel.css",) if way else ()
    return rendered("run.html", ("page.js", "answers.js", "explorer.js"), values, styles)


def study_page(study: Study, tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """Return the page of a study: its tables and figures, and all its runs with links to their pages."""
    varied = {
        name: values
        for name, values in factors([row for row in study.rows if not row["beside"]]).items()
        if name != "study"
    }
    identified = {row["run"]: row for row in identities(study)}
    if others := sorted({row[OTHER] for row in identified.values() if row[OTHER]}):
        varied[OTHER] = others
    reported = {row["run"]: row for row in study.reported("all")}
    notes = sorted({note for run in study.runs if (note := pocket_note(run.experiment))})
    names = sorted({str(run.experiment.study or study.root.name) for run in study.runs})
    return rendered(
        "study.html",
        ("page.js",),
        {
            "title": ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
            "study": study,
            "varied": varied,
            "overview": [_line(run, identified[run.name], reported.get(run.name), study.root) for run in study.runs],
            "unfinished": [(run, outcome(run), redact(run.state.error or "")) for run in study.runs if _open(run)],
            "judges": sorted({name for run in study.runs for name in run.judges}),
            "cost": sum(run.state.cost_usd for run in study.runs),
            "pocket": notes,
            "pocket_runs": sum(bool(pocket_note(run.experiment)) for run in study.runs),
            "answers": sum(row["precision_n"] or 0 for row in reported.values()),
            "tables": [(table, _footnotes(table)) for table in tables if table.name != _OVERVIEW],
            "figures": [_drawing(figure) for figure in figures],
            "shown_points": _SHOWN_POINTS,
        },
    )


# What is said of a run


def _told(run: RunRecord, scores: Scores | None, row: Row | None) -> dict[str, Any]:
    """Return what the frame of a run's page says, answers and spending left out."""
    who = identity(run)
    return {
        "title": f"{who['local_model']} on {who['task']}",
        "run": run,
        "who": who,
        "outcome": outcome(run),
        "pocket": pocket_note(run.experiment),
        "verdict": redact(run.state.verdict or ""),
        "details": [redact(line) for line in run.state.details],
        "beside": _beside(run),
        "error": redact(run.state.error or ""),
        "reported": _reported(run, scores, row),
        "cut": run.experiment.loop.coverage_cut,
        "gates": {name: gate_of(run, name) for name in SCORES},
        "curves": {name: drawn for name in SCORES if (drawn := curve(run, name))},
        "judges": [(name, series(number)) for number, name in enumerate(sorted(run.judges))],
        "cheap": _cheap(run.experiment.judge),
        "settings": _settings(run.config, leave_out=_OF_THIS_MACHINE),
        "environment": _settings(run.environment),
        "first_shown": layout.named(run.chosen.iteration) if run.chosen else "",
    }


def _account(folder: Path) -> dict[str, Any] | None:
    """Return what was read, used and left out of a run's data; None for a run that has no such record."""
    path = folder / ACCOUNT
    return read_tree(path) if path.exists() else None


_BESIDE = {
    Beside.service_llm: "ceiling: {}",
    Beside.base: "floor: base model",
    Beside.few_shot: "floor: few shots",
}


def _beside(run: RunRecord) -> list[tuple[str, dict[str, Any]]]:
    """Return who was judged beside the iterations, by name, with the scorecard on the gate's split."""
    teacher = run.experiment.service_llm.name
    return [
        (_BESIDE[Beside(name)].format(teacher), splits["gate"])
        for name, splits in run.state.beside.items()
        if "gate" in splits
    ]


@dataclass(frozen=True)
class Outcome:
    """How a run ended, in a word or two."""

    text: str
    kind: str
    """`good`, `bad` or `open`: the colour of the badge, beside its text."""


_DECIDED = {
    "switch": Outcome("Switch", "good"),
    "switch_with_fallback": Outcome("Switch with a fallback", "good"),
    "stay": Outcome("Don't switch", "bad"),
}
_STOPPED = {
    "passed": Outcome("Passed", "good"),
    "budget": Outcome("Stopped by the budget", "open"),
}


def outcome(run: RunRecord) -> Outcome:
    """Return how a run ended."""
    if run.state.status == "failed":
        return Outcome("Failed", "bad")
    if run.state.status != "done":
        return Outcome("Not finished", "open")
    if run.state.stop_reason != "budget" and run.state.decision:
        return _DECIDED[run.state.decision]
    if run.state.stop_reason in _STOPPED:
        return _STOPPED[run.state.stop_reason]
    gated = any(gate_of(run, name) is not None for name in SCORES)
    return Outcome("Not passed", "bad") if gated else Outcome("Done", "good")


def _open(run: RunRecord) -> bool:
    return run.state.status != "done"


def _cheap(judge: Judge) -> str:
    """Return the first judge who saw every answer where dear judges saw some; empty where all saw all."""
    return next((name for name in judge.panel if name not in judge.dear), "") if judge.dear else ""


def _reported(run: RunRecord, scores: Scores | None, row: Row | None) -> dict[str, Any] | None:
    """Return the scores that a run is reported by, with the split and the number of answers behind each.

    `row` is its row in a study, which saves counting once more.
    """
    chosen, test = run.chosen, run.state.test
    if chosen is None:
        return None
    found: dict[str, Any] = {"iteration": chosen.iteration}
    if row is not None and row["coverage_n"]:
        found["covered"] = coverage_of(row)
    else:
        found["covered"] = covered(scores, run.experiment.loop.coverage_cut) if scores else None
    found["prompts"] = found["covered"].prompts if found["covered"] else None
    if test:
        found |= {name: test.get(name) or {} for name in SCORES}
        return found | {"split": "test split", "coverage": test.get("coverage")}
    found |= {"split": f"{run.split} split", "coverage": chosen.coverage}
    for name in SCORES:
        found[name] = {limit: getattr(chosen, f"{name}_{limit}") for limit in ("mean", "low", "high")}
        found[name]["n"] = run.scored.get(chosen.iteration, {}).get(name)
    return found


def _line(run: RunRecord, who: Mapping[str, Any], row: Mapping[str, Any] | None, root: Path) -> dict[str, Any]:
    """Return a run's line in the overview; its scores are those of its tidy row, null without one."""
    return {
        "run": run,
        "who": who,
        "link": _link(run.folder / REPORT, root),
        "outcome": outcome(run),
        "row": row,
        "seconds": sum(line.seconds for line in run.history),
    }


def _link(target: Path, start: Path) -> str:
    """Return the way from a folder to a file as a relative URL."""
    return quote(Path(os.path.relpath(target, start)).as_posix())


def _sections(run: RunRecord) -> list[dict[str, Any]]:
    """Return the packed answers of each iteration, then of the test split."""
    folders = sorted((path.name for path in layout.places(run.folder) if path.name.isdigit()), key=int)
    found: list[dict[str, Any]] = []
    for name in [*folders, TEST]:
        packed = pack(layout.place(run.folder, name))
        if packed:
            label = "test split" if name == TEST else f"iteration {int(name)}"
            before = found[-1]["name"] if found and name != TEST else ""
            found.append({"name": name, "label": label, "before": before, "packed": packed})
    return found


def _settings(tree: Mapping[str, Any], *, leave_out: set[str] | frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    """Return (dotted name, value) of every leaf, without what tells of this machine alone and without secrets."""
    found = [(name, value) for name, value in _leaves(tree, "") if name not in leave_out]
    texts = "\0".join(text for pair in found for text in pair)
    clean = redact(texts).split("\0") if found else []
    return list(zip(clean[::2], clean[1::2], strict=True))


def _leaves(value: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))]
    return [(name, "" if value is None or value == {} else str(value).replace("\0", " "))]


# Tables and figures


def _footnotes(table: Table) -> dict[str, int]:
    """Return the notes of a table's fields with their numbers, in order of appearance."""
    notes = dict.fromkeys(cell.note for row in table.rows for cell in row if cell.note)
    return {note: number for number, note in enumerate(notes, 1)}


def _drawing(figure: Figure) -> dict[str, Any]:
    """Return a figure with its drawing as a data URL: as an image it runs no script and shares no id with another."""
    source = base64.b64encode(figure.svg.encode()).decode()
    names = list(dict.fromkeys(name for row in figure.data for name in row))
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', figure.svg)
    broad = size is not None and float(size[1]) > _BROAD * float(size[2])
    return {"figure": figure, "source": f"data:image/svg+xml;base64,{source}", "names": names, "broad": broad}
