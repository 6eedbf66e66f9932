"""The filters: declared once, asked in one order, and what each saw is told."""

from __future__ import annotations

from typing import ClassVar

import pytest
from sample_records import example

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.curate import Curated, Curator, Shown, curate
from llamaduo.curation.filters import Filter, Found, Known
from llamaduo.curation.order import DEFAULT, ORDER, REASONS, chosen, reasons_told
from llamaduo.records import Example

ALL = Curation(filters=list(CurationFilter))


def test_every_filter_that_can_be_named_is_declared_and_says_its_words() -> None:
    assert {one.name for one in ORDER} == set(CurationFilter)
    assert len(ORDER) == len({one.reason.name for one in ORDER})
    for one in ORDER:
        assert all((one.reason.counted, one.reason.of_a_round, one.reason.heading, one.reason.legend, one.reason.mend))


def test_the_order_is_the_declared_one_and_none_named_is_two() -> None:
    assert [one.name for one in chosen(Curation())] == list(DEFAULT)
    named = [CurationFilter.near, CurationFilter.contamination]
    assert [one.name for one in chosen(Curation(filters=named))] == [CurationFilter.contamination, CurationFilter.near]


def test_reasons_are_those_of_every_run_and_others_that_were_met() -> None:
    assert reasons_told() == REASONS
    assert [reason.name for reason in reasons_told({"exact", "duplicate"})] == ["duplicate", "contamination", "exact"]


def test_each_filter_tells_what_it_saw() -> None:
    held_out = [example("Which of the two bridges over the river is the older one?")]
    new = [
        example("What is a hinge made of, and who makes it?", "Brass."),
        example(" What is a hinge made of, and who makes it?\n", "Brass. "),
        held_out[0],
        example("What is a hinge made of, and who makes it?", "Of something else entirely."),
        example("Why is the sky blue in the morning?", "It isn't."),
    ]
    found = curate(new, known=[], held_out=held_out, config=ALL)
    assert list(found.kept) == [new[0], new[4]]
    assert [(one.name, one.rows_in, one.rows_out) for one in found.reports if one.rows_in > one.rows_out] == [
        ("contamination", 5, 4),
        ("exact", 4, 3),
        ("near", 3, 2),
    ]
    (report,) = (one for one in found.reports if one.name == "exact")
    assert report.reasons == {"the same as others": 1}
    text = new[0].prompt
    assert report.examples == (Shown(1, text, text, 1.0),)
    assert report.examples[0].told == f"{text!r} matches {text!r} (100%)"
    assert all(one.seconds >= 0 for one in found.reports)


def test_what_filters_saw_in_rounds_adds_up() -> None:
    new = [example("the very same prompt", "the same response") for _ in range(9)]
    curator, found = Curator(known=[], held_out=[], config=ALL), Curated()
    for begin in (0, 4, 8):
        found += curator.take(new[begin : begin + 4])
    assert found == curate(new, known=[], held_out=[], config=ALL)
    assert found.reports == curate(new, known=[], held_out=[], config=ALL).reports
    (report,) = (one for one in found.reports if one.name == "exact")
    assert (report.rows_in, report.rows_out, [shown.row for shown in report.examples]) == (9, 1, [1, 2, 3])


@pytest.mark.parametrize("text", ["", " ", "\n\u200b"])
def test_rows_without_words_are_told_of_like_others(text: str) -> None:
    new = [example("p", text), example(text, "r"), example(text, "r"), example("q " * 900, text)]
    found = curate(new, known=[], held_out=[], config=ALL)
    assert len(found.kept) + len(found.removed) == 4
    assert all(len(shown.text) <= 160 for report in found.reports for shown in report.examples)


class Loud(Filter):
    name: ClassVar = CurationFilter.exact
    reason: ClassVar = REASONS[0]

    def match(self, example: Example, compared: object) -> Found | None:
        loud = example.response.isupper()
        return Found(why="in capitals", shown="a piece of it") if loud else None


def test_a_filter_says_why_and_what_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaduo.curation.curate.chosen", lambda config: [Loud])
    found = curate([example("a", "LOUD"), example("b", "not")], known=[], held_out=[], config=ALL)
    (removal,), (report,) = found.removed, found.reports
    assert (removal.match, removal.similarity, removal.why) == ("", None, "in capitals")
    assert report.reasons == {"in capitals": 1}
    assert report.examples[0].told == "'a piece of it': in capitals"


def test_coverage_is_what_people_wrote() -> None:
    rows = (example("a"), example("b", generator="teacher"))
    assert Known(rows, ()).coverage == [rows[0]]
