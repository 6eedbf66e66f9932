"""What notebooks read and write: a study's summaries, or its run folders where nothing has been summed up yet.

    study = open_study("pocket_main_table")    results/pocket_main_table; LLAMADUO_STUDY names another folder
    study.rows                                 the tidy rows, of runs.parquet
    study.table("main_precision")              Markdown, of tables/main_precision.md
    study.figure("density")                    a figure of the report, of figures/density.{svg,png,csv}
    study.save(figure)                         writes notebooks/NAME.svg and NAME.png, returns the PNG's bytes

`llamaduo report DIR` writes the summaries; they are enough, run folders are not needed.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llamaduo.errors import InputError
from llamaduo.files.folders import files_below
from llamaduo.runs.layout import STATE
from llamaduo.studies.parts import Figure
from llamaduo.studies.plots.grouping import split
from llamaduo.studies.plots.lines import is_score
from llamaduo.studies.tables.table import in_markdown
from llamaduo.studies.tidy import COLUMNS, Row, is_formula


def open_study(name: str) -> Summaries:
    """Return the study in `results/NAME`, looked for here and in the folders above; `LLAMADUO_STUDY` goes first."""
    named = os.environ.get("LLAMADUO_STUDY")
    here = Path.cwd()
    places = (
        [Path(os.path.expanduser(named))] if named else [above / "results" / name for above in (here, *here.parents)]
    )
    for place in places:
        if place.is_dir():
            return Summaries(place)
    raise InputError(
        f"{named or f'results/{name}'}: no such folder; run the study and `llamaduo report` it, or set LLAMADUO_STUDY."
    )


@dataclass(frozen=True)
class Summaries:
    """A study's folder, read as it is asked for."""

    folder: Path

    @cached_property
    def rows(self) -> list[Row]:
        """The tidy rows: those of `runs.parquet`, else of the run folders; null in columns that older ones lack."""
        import pyarrow.parquet

        from llamaduo.studies.study import read_study

        path = self.folder / "runs.parquet"
        if not path.exists():
            return read_study(self.folder).rows
        rows: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
        return [dict.fromkeys(COLUMNS) | row for row in rows]

    @property
    def reported(self) -> list[Row]:
        """The rows that stand for runs, scored by the whole panel."""
        return [row for row in self.rows if row["reported"] and row["judge"] == "all"]

    def table(self, name: str) -> str:
        """Return a table of the report as Markdown, or a sentence that says how to get it."""
        path = self.folder / "tables" / f"{name}.md"
        if path.exists():
            return path.read_text(encoding="utf-8")
        return f"*No table `{name}`: the study shows no such thing, or `llamaduo report` was not run on it yet.*"

    def figure(self, name: str) -> Figure | None:
        """Return a figure of the report, drawn now where only run folders are there; None if there is none."""
        svg, png, data = (self.folder / "figures" / f"{name}.{kind}" for kind in ("svg", "png", "csv"))
        if svg.exists() and png.exists() and data.exists():
            return Figure(name, "", "", _read_csv(data), svg.read_text(encoding="utf-8"), png.read_bytes())
        return next((figure for figure in self._drawn if figure.name == name), None)

    @cached_property
    def _drawn(self) -> list[Figure]:
        from llamaduo.studies.plots.figures import make_figures
        from llamaduo.studies.study import read_study

        if not files_below(self.folder, STATE):
            return []
        return make_figures(read_study(self.folder))

    def save(self, figure: Figure) -> bytes:
        """Write a figure to `notebooks/` in the study's folder and return its PNG, for `IPython.display.Image`."""
        folder = self.folder / "notebooks"
        folder.mkdir(exist_ok=True)
        (folder / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
        (folder / f"{figure.name}.png").write_bytes(figure.png)
        return figure.png


def _read_csv(path: Path) -> list[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        return [{name: _value(text) for name, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    """Return what `as_csv` wrote: a number, a truth value, text, or null for nothing."""
    if text in ("", "True", "False"):
        return {"": None, "True": True, "False": False}[text]
    try:
        return json.loads(text)
    except ValueError:
        return text[1:] if is_formula(text[1:]) and text[0] == "'" else text


def listing(rows: Sequence[Row], score: str, axis: Sequence[str] = ()) -> str:
    """Return a Markdown table of scores, a line a run, best first, with 95% intervals, prompts and n, the answers."""
    layout = split(rows, axis)
    columns = [*layout.panels, *layout.series, *axis] or ["local_model"]
    lines = [f"| {' | '.join(columns)} | {score} [95%] | prompts | n |", "|---" * (len(columns) + 3) + "|"]
    known = [row for row in rows if is_score(row[f"{score}_mean"])]
    for row in sorted(known, key=lambda row: (-row[f"{score}_mean"], row["run"])):
        names = ["" if row[name] is None else in_markdown(str(row[name])) for name in columns]
        lines.append(f"| {' | '.join(names)} | {told(row, score)} | {row['prompts'] or ''} | {row[f'{score}_n']} |")
    return "\n".join(lines)


def told(row: Row, score: str) -> str:
    """Return a row's score with its interval, such as `86.2 [81.0, 90.3]`."""
    mean, low, high = (row[f"{score}_{limit}"] for limit in ("mean", "low", "high"))
    return f"{mean:.1f}" if low is None or high is None else f"{mean:.1f} [{low:.1f}, {high:.1f}]"
