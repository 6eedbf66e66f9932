"""Labels: where coverage answers with a few, so do new rows; elsewhere nothing is asked."""

from __future__ import annotations

import pytest
from sample_records import example

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.curate import curate
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Example


def rows(*responses: str) -> list[Example]:
    return [example(f"prompt {n}", response) for n, response in enumerate(responses)]


def kept(known: list[Example], *responses: str, labels: tuple[str, ...] = ()) -> list[str]:
    config = Curation(filters=[CurationFilter.labels], labels=list(labels))
    return [row.response for row in curate(rows(*responses), known=known, held_out=[], config=config).kept]


TICKETS = rows(*("billing", "returns", "delivery") * 8)


def test_a_response_is_one_of_coverages_labels() -> None:
    new = ("billing", " returns\n", "Billing", "billing.", "refund", "billing question", "", "delivery, returns")
    assert kept(TICKETS, *new) == ["billing", " returns\n"]


def test_case_and_full_stop_are_folded_where_coverage_does_so() -> None:
    assert kept([*TICKETS, *rows("Billing", "Billing")], "RETURNS", "returns.") == ["RETURNS"]
    assert kept([*TICKETS, *rows("billing.", "billing.")], "RETURNS", "returns.") == ["returns."]


def test_several_labels_in_one_response_are_looked_at_each() -> None:
    known = rows(*(f"{a}, {b}; {c}" for a in "abcd" for b in "efgh" for c in "klmn"))
    assert kept(known, "a, k; n", "a, x", "a", "n\nb") == ["a, k; n", "a", "n\nb"]


@pytest.mark.parametrize(
    "known",
    [[], TICKETS[:6], rows(*(f"Answer {n} is a sentence." for n in range(60))), rows(*"aabbccddeeffgghh")],
    ids=["nothing", "too few", "sentences", "seldom twice"],
)
def test_without_labels_nothing_is_asked(known: list[Example]) -> None:
    assert kept(known, "anything", "billing") == ["anything", "billing"]


def test_named_labels_are_asked_whatever_coverage_does() -> None:
    assert kept([], "new", "old", labels=("new",)) == ["new"]
    assert kept(TICKETS, "new", "billing", "old", labels=("new",)) == ["new", "billing"]


def test_a_rare_label_of_coverage_is_one_too() -> None:
    assert kept([*TICKETS, *rows("lost property")], "lost property", "found") == ["lost property"]


def test_labels_of_the_pocket_tasks_are_known() -> None:
    pairs = [example(*pair) for pair in make_pairs("classification", 300, seed=3)]
    config = Curation(filters=[CurationFilter.labels])
    assert not curate(pairs[64:], known=pairs[:64], held_out=[], config=config).removed
