r"""A table as text: Markdown, LaTeX (booktabs), HTML and the rows of a CSV file.

markdown(table)     | model | coding |
                    | :--- | ---: |
                    | gemma_2b | **86.2 [81.0, 90.3]** |
latex(table)        \begin{tabular}{lr} \toprule ...
html(table)         <table>, every field with `data-value`, the number to sort by
document(table)     the same as a page of its own
as_rows(table)      a dictionary a row: what is shown and, beside it, the number
"""

from __future__ import annotations

import re
from html import escape

from llamaduo.redaction import printable
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.tidy import Row


def markdown(table: Table) -> str:
    """Return the table with its title and note as GitHub's Markdown."""
    lines = [
        _row([in_markdown(name) for name in table.header]),
        _row([":---" if at < table.labels else "---:" for at in range(len(table.header))]),
        *(_row([_markdown_cell(cell) for cell in row]) for row in table.rows),
    ]
    notes = [in_markdown(line) for line in [table.note, *_notes(table)] if line]
    return "\n".join([f"**{in_markdown(table.title)}**", "", *lines, "", "\n\n".join(notes)]).rstrip() + "\n"


def _row(fields: list[str]) -> str:
    return "| " + " | ".join(fields) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = in_markdown(cell.text)
    return f"**{text}**" if cell.bold and text else text


def in_markdown(text: str) -> str:
    """Return a text as one line of Markdown that shows it as it is: no link, no heading, no markup."""
    text = re.sub(r"[\\`*|<>~]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|&(?=[#\w])|^\s*[-+#](?=\s)", r"\\\g<0>", printable(text))
    return " ".join(text.split())


def _notes(table: Table) -> list[str]:
    """Return what is said of single fields, each once, with the fields that it is said of."""
    said: dict[str, list[str]] = {}
    for row in table.rows:
        name = ", ".join(cell.text for cell in row[: table.labels])
        for at, cell in enumerate(row):
            if cell.note:
                said.setdefault(cell.note, []).append(f"{name} / {table.header[at]}" if at >= table.labels else name)
    return [f"{note}: {_some(fields)}." for note, fields in said.items()]


def _some(fields: list[str]) -> str:
    told = "; ".join(fields[:6])
    return told if len(fields) <= 6 else f"{told}; and {len(fields) - 6} more"


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def latex(table: Table) -> str:
    r"""Return the table as LaTeX; the document needs \usepackage{booktabs,graphicx}."""
    columns = "l" * table.labels + "r" * (len(table.header) - table.labels)
    notes = " ".join([table.note, *_notes(table)]).strip()
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_in_latex(f'{table.title}. {notes}')}}}",
            rf"\label{{tab:{table.name}}}",
            r"\centering",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            _latex_row([_in_latex(name) for name in table.header]),
            r"\midrule",
            *(_latex_row([_latex_cell(cell) for cell in row]) for row in table.rows),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
            "",
        ]
    )


def _latex_row(fields: list[str]) -> str:
    first, *rest = fields
    # A row that begins with [ or * would be read as an argument of the \\ before it.
    return " & ".join([f"{{{first}}}" if first.startswith(("[", "*")) else first, *rest]) + r" \\"


def _latex_cell(cell: Cell) -> str:
    text = _in_latex(cell.text)
    return rf"\textbf{{{text}}}" if cell.bold and text else text


def _in_latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(printable(text).split()))


def html(table: Table) -> str:
    """Return the table as HTML; a script may sort rows by the fields' `data-value` (a number, or empty)."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.header)
    rows = "\n".join(
        "<tr>" + "".join(_html_cell(cell, label=at < table.labels) for at, cell in enumerate(row)) + "</tr>"
        for row in table.rows
    )
    return (
        f'<figure class="table" id="table-{escape(table.name)}">\n<figcaption>{escape(table.title)}</figcaption>\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        f'<p class="note">{escape(table.note)}</p>\n</figure>\n'
    )


def _html_cell(cell: Cell, *, label: bool) -> str:
    said = f' title="{escape(cell.note)}"' if cell.note else ""
    value = "" if cell.value is None else f"{cell.value:.10g}"
    text = f"<strong>{escape(cell.text)}</strong>" if cell.bold and cell.text else escape(cell.text)
    sort = "" if label and cell.value is None else f' data-value="{value}"'
    return f'<th scope="row"{sort}{said}>{text}</th>' if label else f"<td{sort}{said}>{text}</td>"


def document(table: Table) -> str:
    """Return the table as an HTML page of its own."""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(table.title)}</title>\n'
        f"{html(table)}</html>\n"
    )


def as_rows(table: Table) -> list[Row]:
    """Return the rows for CSV: of each column what is shown and, where that says more than a number, `COLUMN value`."""
    numbered = {
        at
        for at in range(table.labels, len(table.header))
        if any(row[at].value is not None and not _is_number(row[at].text) for row in table.rows)
    }
    made = []
    for row in table.rows:
        fields: Row = {}
        for at, (name, cell) in enumerate(zip(table.header, row, strict=True)):
            fields[name] = cell.text
            if at in numbered:
                fields[f"{name} value"] = cell.value
        made.append(fields)
    return made


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
