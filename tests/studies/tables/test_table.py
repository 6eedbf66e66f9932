"""Tables as text: whatever is in a field, it stays in its field, and numbers can be sorted and read back."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaduo.studies.notebook import _value
from llamaduo.studies.parts import Cell, Table
from llamaduo.studies.tables.table import as_rows, document, html, latex, markdown
from llamaduo.studies.tidy import as_csv, is_formula

TABLE = Table(
    "main_precision",
    "Precision",
    "Mean, 0 to 100.",
    ("model", "coding", "rows"),
    (
        (Cell("gemma_2b"), Cell("86.2 [81.0, 90.3]", 86.2, bold=True), Cell("1,336", 1336.0)),
        (Cell("llama3_8b"), Cell("", note="not scored"), Cell("334", 334.0)),
    ),
)
HOSTILE = ("a | b", "5% & more_", "<script>alert(1)</script>", "**x**", r"\input{x} $y$ #1 ~ ^", "a\nb", '"', "[1] x")


def one(text: str, **cell: object) -> Table:
    return Table("t", "T", "", ("name", "x"), ((Cell("a"), Cell(text, **cell)),))  # type: ignore[arg-type]


def test_markdown() -> None:
    assert markdown(TABLE).splitlines() == [
        "**Precision**",
        "",
        "| model | coding | rows |",
        "| :--- | ---: | ---: |",
        "| gemma_2b | **86.2 [81.0, 90.3]** | 1,336 |",
        "| llama3_8b |  | 334 |",
        "",
        "Mean, 0 to 100.",
        "",
        "not scored: llama3_8b / coding.",
    ]


def test_latex() -> None:
    assert latex(TABLE).splitlines() == [
        r"\begin{table}",
        r"\caption{Precision. Mean, 0 to 100. not scored: llama3\_8b / coding.}",
        r"\label{tab:main_precision}",
        r"\centering",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"model & coding & rows \\",
        r"\midrule",
        r"gemma\_2b & \textbf{86.2 [81.0, 90.3]} & 1,336 \\",
        r"llama3\_8b &  & 334 \\",
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]


def test_html_carries_the_numbers_to_sort_by() -> None:
    text = html(TABLE)
    assert '<td data-value="86.2"><strong>86.2 [81.0, 90.3]</strong></td>' in text
    assert '<td data-value="" title="not scored"></td>' in text
    assert '<th scope="row">gemma_2b</th>' in text
    assert document(TABLE).startswith("<!doctype html>")


def test_numbers_of_columns_that_show_intervals_are_columns_of_the_csv() -> None:
    first, second = as_rows(TABLE)
    assert list(first) == ["model", "coding", "coding value", "rows", "rows value"]
    assert (first["coding"], first["coding value"], first["rows value"]) == ("86.2 [81.0, 90.3]", 86.2, 1336.0)
    assert (second["coding"], second["coding value"]) == ("", None)
    (plain,) = as_rows(one("3.5", value=3.5))
    assert plain == {"name": "a", "x": "3.5"}


@pytest.mark.parametrize("text", HOSTILE)
def test_a_field_stays_a_field_in_markdown(text: str) -> None:
    line = markdown(one(text)).splitlines()[4]
    assert len(re.split(r"(?<!\\)\|", line)) == 4
    assert "<script>" not in re.sub(r"\\.", "", line)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_field_stays_a_field_in_latex(text: str) -> None:
    line = latex(one(text)).splitlines()[9]
    assert len(re.split(r"(?<!\\)&", line)) == 2
    assert not re.search(r"(?<!\\)[#%_$~^]", line)
    assert r"\input" not in line


def test_a_row_that_begins_with_a_bracket_is_no_argument_of_the_line_before() -> None:
    table = Table("t", "T", "", ("name", "x"), ((Cell("[it] gemma"), Cell("1")),))
    assert r"{[it] gemma} & 1 \\" in latex(table)


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(st.text(min_size=1).filter(lambda text: text.strip() and "\r" not in text and "\0" not in text))
@settings(max_examples=60, deadline=None)
def test_any_text_comes_back_from_html_and_csv(text: str) -> None:
    seen = Texts()
    seen.feed(html(one(text, note=text, bold=True)))
    assert seen.tags == ["figure", "figcaption", "table", "thead", "tr", "th", "th", "tbody", "tr", "th", "td",
                         "strong", "p"]  # fmt: skip
    assert text in "".join(seen.texts)
    (row,) = csv.DictReader(io.StringIO(as_csv(as_rows(one(text)))))
    assert row["x"] == (f"'{text}" if is_formula(text) else text)


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+SUM(A1)", "-2+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", " =1", "+a", "-x", "\uff1d1", "=HYPERLINK(1)"],
)
def test_what_a_spreadsheet_would_take_for_a_formula_is_quoted_in_csv(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([{"a": 1, text: text}])))
    assert row == {"a": "1", f"'{text}": f"'{text}"}
    assert _value(f"'{text}") == text  # as notebooks read it back


@pytest.mark.parametrize(
    "value", [-1.5, "-1.5", "+0.6 [-11.7, +12.9]", "-", "-3e-05", "-12%", "1-2", "a=b", "'quoted'"]
)
def test_numbers_with_a_sign_and_other_text_are_not(value: object) -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([{"a": value, "b": None}])))
    assert row == {"a": str(value), "b": ""}


def test_a_carriage_return_breaks_no_line_of_csv() -> None:
    assert list(csv.reader(io.StringIO(as_csv([{"a": "b\r=1", "c": "\r=1"}])))) == [["a", "c"], ["b =1", "' =1"]]


def test_no_name_is_a_link_a_heading_or_an_escape_in_markdown_and_latex() -> None:
    table = one("[a](javascript:b) ![c][d] ~~e~~ &lt;\x1b[31mf\u202e")
    line = markdown(table).splitlines()[4]
    assert line == r"| a | [a\](javascript:b) ![c\][d] \~\~e\~\~ \&lt;f |"
    assert "\x1b" not in latex(table) + markdown(table)
    assert "\u202e" not in latex(table) + markdown(table)
    noted = Table("t", "T", "# a note", ("name", "x"), ((Cell("*a"), Cell("b")),))
    assert markdown(noted).splitlines()[-1] == r"\# a note"
    assert r"{*a} & b \\" in latex(noted)
