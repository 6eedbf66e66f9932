"""Report: what a folder of runs shows, as tables and files, from what the runs recorded; no model is asked or loaded.

    llamaduo report results/main_table

Writes into the folder `runs.csv` and `runs.parquet` (the tidy table, see `tidy`), `tables/NAME.{md,tex,html,csv}`,
`figures/NAME.{svg,png,csv}` and `report.html`, and a `report.html` into each run's folder.
Reads the runs' configurations, states, metrics and verdicts. The same run folders give the same bytes: tables and
figures of an earlier report that this one doesn't make any more are removed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table as Screen

from llamaduo.display import iterations_table
from llamaduo.files.writing import write_bytes, write_text
from llamaduo.runs.layout import REPORT
from llamaduo.runs.marks import unhashed
from llamaduo.studies import tidy
from llamaduo.studies.costs.cost_tables import cost_tables
from llamaduo.studies.pages.page import run_page, study_page
from llamaduo.studies.parts import Figure, Table
from llamaduo.studies.plots.figures import make_figures
from llamaduo.studies.study import Study, read_study
from llamaduo.studies.tables import table as forms
from llamaduo.studies.tables.tables import make_tables

_LINES = 40
"""Runs that the terminal shows."""
_WHOLE = 3
"""Up to this many runs are shown with their iterations."""
_TABLE = ("md", "tex", "html", "csv")
_FIGURE = ("svg", "png", "csv")
"""The kinds of files that a table and a figure come as."""


def report(directory: str) -> str:
    """Write the report of the runs at or below a folder into it; return what the terminal shows."""
    root = Path(directory)
    study = read_study(root)
    tables = _tables(study)
    written = write_report(study, root, tables)
    return _on_screen(study, tables, written)


def write_report(study: Study, out: Path, tables: Sequence[Table] | None = None) -> list[Path]:
    """Write every file of the report below `out`, made if it isn't there; return their paths.

    `tables` are the study's, where they have been made already.
    """
    out.mkdir(parents=True, exist_ok=True)
    tables = _tables(study) if tables is None else tables
    figures = make_figures(study)
    written = tidy.write(study.rows, out)
    for table in tables:
        written += _write_table(table, out / "tables")
    for figure in figures:
        written += _write_figure(figure, out / "figures")
    _remove_others(out / "tables", _TABLE, written)
    _remove_others(out / "figures", _FIGURE, written)
    return written + _write_pages(study, tables, figures, out)


def _tables(study: Study) -> list[Table]:
    return [*make_tables(study), *cost_tables(study)]


def _write_table(table: Table, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    texts = {
        "md": forms.markdown(table),
        "tex": forms.latex(table),
        "html": forms.document(table),
        "csv": tidy.as_csv(forms.as_rows(table)),
    }
    paths = []
    for kind, text in texts.items():
        paths.append(folder / f"{table.name}.{kind}")
        write_text(paths[-1], text)
    return paths


def _write_figure(figure: Figure, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{figure.name}.{kind}" for kind in _FIGURE]
    write_text(paths[0], figure.svg)
    write_bytes(paths[1], figure.png)
    write_text(paths[2], tidy.as_csv(figure.data))
    return paths


def _remove_others(folder: Path, kinds: Sequence[str], written: Sequence[Path]) -> None:
    """Remove what an earlier report left in a folder: every name of which all kinds are there and none was written now.

    A file of another kind, or one that stands alone, is not a report's and stays.
    """
    kept = set(written)
    for first in sorted(folder.glob(f"*.{kinds[0]}")):
        files = [first.with_suffix(f".{kind}") for kind in kinds]
        if all(file.is_file() for file in files) and kept.isdisjoint(files):
            for file in files:
                file.unlink()


def _write_pages(study: Study, tables: Sequence[Table], figures: Sequence[Figure], out: Path) -> list[Path]:
    """Write a page a run, and the study's unless the folder is itself a run's."""
    paths = []
    for run in study.runs:
        paths.append(out / run.folder.relative_to(study.root) / REPORT)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_text(paths[-1], run_page(run, study))
    if out / REPORT not in paths:
        paths.append(out / REPORT)
        write_text(paths[-1], study_page(study, tables, figures))
    return paths


def _on_screen(study: Study, tables: Sequence[Table], written: Sequence[Path]) -> str:
    """Return the runs, their scores and what was written, for a terminal."""
    out = io.StringIO()
    console = Console(file=out, width=160, highlight=False, markup=False)
    (overview,) = [table for table in tables if table.name == "runs"]
    console.print(_runs(study, overview))
    if len(overview.rows) > _LINES:
        console.print(f"and {len(overview.rows) - _LINES:,} more, see {study.root / 'runs.csv'}")
    if len(study.runs) <= _WHOLE:
        for run in study.runs:
            console.print()
            console.print(iterations_table(run.history, title=run.name))
            console.print(run.state.verdict or f"status: {run.state.status}")
            if run.state.error:
                console.print(run.state.error)
    bare = sum(unhashed(run.folder) for run in study.runs)
    if bare:
        console.print(
            f"{bare:,} artifacts have markers without a sha256, as those of early versions: they are not checked."
        )
    folders = sorted({path.parent for path in written if path.parent.name in ("tables", "figures")})
    console.print()
    for path in written:
        if path.parent == study.root:
            console.print(str(path), soft_wrap=True)
    for folder in folders:
        names = sorted({path.stem for path in written if path.parent == folder})
        console.print(f"{folder}/: {', '.join(names)}", soft_wrap=True)
    return out.getvalue()


_LEFT_OUT = ("synthetic rows", "unscored", "seconds", "run")


def _runs(study: Study, overview: Table) -> Screen:
    kept = [at for at, name in enumerate(overview.header) if name not in _LEFT_OUT]
    done = sum(run.state.status == "done" for run in study.runs)
    title = f"{len(study.runs)} runs in {study.root}, {done} done; scores with 95% intervals"
    screen = Screen(title=title, title_justify="left", box=None, pad_edge=False)
    for at in kept:
        screen.add_column(overview.header[at], justify="left" if at <= overview.labels else "right")
    for row in overview.rows[:_LINES]:
        screen.add_row(*(row[at].text for at in kept))
    return screen
