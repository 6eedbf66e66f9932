"""The README's table is that of the rehearsal whose results are kept."""

from __future__ import annotations

import csv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_is_the_rehearsals() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- study-table:begin -->\n")[2].partition("<!-- study-table:end -->")[0].splitlines()
    header, _, *lines = ([field.strip() for field in line.strip("|").split("|")] for line in shown)
    table = ROOT / "results" / "pocket_main_table" / "tables" / "main_precision.csv"
    with open(table, newline="", encoding="utf-8") as file:
        known = {row["model"]: row for row in csv.DictReader(file)}
    assert {line[0] for line in lines} == set(known)
    for model, *fields in lines:
        assert fields == [known[model][f"{task}, panel"] for task in header[1:]]


def test_every_picture_and_page_that_the_readme_names_is_there() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [part.partition(")")[0] for part in text.split("](")[1:]]
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert links
    assert missing == []
