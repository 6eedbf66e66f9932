"""The funnel: what becomes of requests and rows, by iteration, by round and in sum; and removals with their match."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llamaduo.runs.record import RunRecord, read_runs
from llamaduo.studies.funnel import Gone, Round, Step, funnel
from llamaduo.studies.pages.funnel_drawn import share
from llamaduo.studies.pages.page import run_page
from tests.made_runs import configuration, make_run


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return configuration("preset=service", "judge=paper_panel", "service.replay=true", "study=s")


@pytest.fixture
def folder(config: dict[str, Any]) -> Path:
    return make_run(Path("results/s/run"), config=config, gains=(0, 4, 8), prompts=4, samples=1, repeats=1)


def the_run(folder: Path) -> RunRecord:
    (run,) = read_runs(folder)
    return run


def raw(count: int) -> list[dict[str, Any]]:
    return [
        {"prompt_id": f"{n:016x}", "messages": [{"role": "user", "content": f"raw {n}"}], "response": f"said {n}"}
        for n in range(100, 100 + count)
    ]


def grow(folder: Path, where: str, removed: list[dict[str, Any]], *, parsed: int = 40, **more: Any) -> None:
    counts = {"wanted": 30, "requests": 5, "failed": 1, "dropped": 2, "cost_usd": 0.0, "parsed": parsed}
    tree = counts | {"kept": parsed - len(removed), "removed": removed} | more
    (folder / "iterations" / where / "curation.json").write_text(json.dumps(tree))
    (folder / "iterations" / where / "synthesis.json").write_text(json.dumps({"examples": raw(parsed)}))


def text_of(run: RunRecord) -> str:
    page = run_page(run)
    (section,) = re.findall(r'<section aria-labelledby="funnel">.*?</section>', page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", section).split())


def test_steps_add_up_over_iterations(folder: Path):
    grow(folder, "00", [])
    grow(folder, "01", [{"row": 0, "prompt_id": "x", "reason": "duplicate"}], parsed=7000)
    found = funnel(the_run(folder))
    assert found
    assert found.steps == {1: Step(5, 4, 40, 2, 40, 1002), 2: Step(5, 4, 7000, 2, 6999, 4008)}
    assert found.total == Step(10, 8, 7040, 4, 7039, 5010)
    assert found.left == 2029


def test_rows_for_an_iteration_that_never_came_are_not_trained_on(folder: Path):
    grow(folder, "02", [])
    found = funnel(the_run(folder))
    assert found
    assert found.steps == {3: Step(5, 4, 40, 2, 40, 0)}
    assert found.left == 40


@pytest.mark.parametrize(
    ("part", "whole", "told"),
    [(255, 256, "99.6%"), (1171, 1176, "99.6%"), (9999, 10000, "99.9%"), (5, 5, "100%"), (63, 64, "98%"), (0, 0, "")],
)
def test_what_is_not_all_is_not_rounded_to_all(part: int, whole: int, told: str):
    assert share(part, whole) == told


def test_rounds_have_their_yield(folder: Path):
    rounds = [{"requests": 3, "failed": 1, "dropped": 0, "parsed": 30, "kept": 12},
              {"requests": 2, "failed": 0, "dropped": 2, "parsed": 10, "kept": 5}]  # fmt: skip
    grow(folder, "00", [], rounds=rounds)
    found = funnel(the_run(folder))
    assert found
    assert found.rounds == (Round(1, 0, 3, 1, 30, 0, 12), Round(1, 1, 2, 0, 10, 2, 5))
    assert "1, 1 3 1 30 12 40% 4.0" in text_of(the_run(folder))


def test_removals_stand_beside_what_they_match(folder: Path):
    removed = [
        {"row": 1, "prompt_id": "x", "reason": "duplicate", "match": "e" * 16, "similarity": 0.8},
        {"row": 2, "prompt_id": "x", "reason": "contamination", "match": f"{2:016x}", "similarity": 0.9},
        {"row": 3, "prompt_id": "x", "reason": "duplicate", "match": "f" * 16, "similarity": 0.75},
        *({"row": n, "prompt_id": "x", "reason": "duplicate", "match": "f" * 16} for n in (4, 5)),
    ]
    grow(folder, "00", removed)
    kept = {"prompt_id": "e" * 16, "messages": [{"role": "user", "content": "kept"}], "response": "and said"}
    (folder / "iterations/00/synthetic.jsonl").write_text(json.dumps(kept) + "\n")
    found = funnel(the_run(folder))
    assert found
    near, held_out = found.removed
    assert (near.name, near.count, len(near.examples)) == ("duplicate", 4, 3)
    assert near.examples[0] == Gone(1, "raw 101 → said 101", "kept → and said", 0.8, "")
    assert near.examples[1].match == "a row of coverage"
    assert held_out.examples[0].match.startswith("Prompt 2: ")
    text = text_of(the_run(folder))
    assert "Duplicate of a training row: 4 removed" in text
    assert "raw 101 → said 101 80% alike kept → and said" in text


def test_what_filters_wrote_down_is_shown_as_they_wrote_it(folder: Path):
    shown = {"row": 1, "text": "key [taken out]", "why": "a key"}
    report = {"name": "near", "rows_in": 40, "rows_out": 39, "reasons": {"x": 1}, "examples": [shown]}
    grow(folder, "00", [{"row": 1, "prompt_id": "x", "reason": "duplicate"}], filters=[report])
    found = funnel(the_run(folder))
    assert found
    assert found.removed[0].examples == (Gone(1, "key [taken out]", "", None, "a key"),)
    assert "raw 101" not in text_of(the_run(folder))


def test_an_earlier_version_s_run_shows_what_it_has(folder: Path):
    grow(folder, "00", [{"reason": "duplicate"}] * 3)
    (folder / "iterations/00/synthesis.json").unlink()
    text = text_of(the_run(folder))
    assert "1 5 4 40 37 92% 1,002" in text
    assert "3 duplicates" in text
    assert "Which rows they were was not written down." in text
    assert "Yield" not in text


def test_a_run_without_synthetic_rows_has_no_funnel(folder: Path):
    assert funnel(the_run(folder)) is None
    page = run_page(the_run(folder))
    assert 'aria-labelledby="funnel"' not in page
    assert ".funnel" not in page
