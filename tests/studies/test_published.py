"""The published numbers are those of the paper's tables, under the names that runs have, and nothing is filled in."""

from __future__ import annotations

import pytest

from llamaduo.config import conf_dir
from llamaduo.errors import InputError
from llamaduo.studies import published
from llamaduo.studies.published import Published, published_costs, published_scores, published_wins


def options(group: str) -> set[str]:
    return {path.stem for path in (conf_dir() / group).glob("*.yaml")}


def test_every_known_cell_of_the_main_table_is_read() -> None:
    scores = published_scores()
    assert len(scores) == 24
    assert scores[2] == Published("summarization", "gemma_2b", "claude_3_sonnet", "precision", "gpt_4o", 74.89, "notes")
    assert scores[0].generator is None
    assert sum(row.generator is None for row in scores) == 8
    assert {row.score for row in scores} == {"precision"}  # no similarity is known: none is made up


def test_names_are_those_of_the_configuration() -> None:
    for row in published_scores():
        assert row.task in options("task")
        assert row.judge in options("service_llm")
        assert row.model in options("local_model" if row.generator else "service_llm")
        assert row.generator is None or row.generator in options("service_llm")
    for cost in published_costs():
        assert cost.model in options("local_model" if cost.local else "service_llm")
    for win in published_wins():
        assert win.task in options("task")
        assert win.model in options("local_model")


def test_costs_and_wins() -> None:
    costs = {(cost.model, cost.workload): (cost.local, cost.months, cost.usd) for cost in published_costs()}
    assert costs == {
        ("gemma_7b", "light"): (True, 12, 3699.0),
        ("gpt_4o", "light"): (False, 12, 23400.0),
        ("gemma_7b", "heavy"): (True, 12, 23992.0),
        ("gpt_4o", "heavy"): (False, 12, 117000.0),
    }
    wins = {win.task: (win.model, win.won, win.of) for win in published_wins()}
    assert wins["closed_qa"] == ("mistral_7b_v0_3", 8, 12)
    assert len(wins) == 4


def test_tables_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(published, "__file__", f"{tmp_path}/llamaduo/studies/published.py")
    with pytest.raises(InputError, match="install llamaduo again"):
        published_scores()
