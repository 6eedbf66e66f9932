"""The benchmark of intervals, at a tiny size: our method meets its claims, and methods that don't are caught."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llamaduo.config import Gate, GateAgainst, GateMethod
from llamaduo.evidence.gate import look


def test_our_limits_lie_above_the_truth_as_seldom_as_they_say_and_those_that_only_resample_do_not(module: Any) -> None:
    intervals, rival = module("intervals"), module("rival_limits")
    few = {"repeats": (1,), "prompts": (8, 25)}
    ours = intervals.cover(400, **few)
    assert len(ours) == 3 * 2 * 4
    assert max(row["over"] for row in ours) <= intervals.COVER_PERCENT
    for chance in (rival.percentile_chance, rival.student_chance):
        found = intervals.cover(100, chance=chance, **few)
        assert max(row["over"] for row in found) > 5 * intervals.COVER_PERCENT


def test_worlds_made_to_break_limits_do_not_and_copies_counted_as_prompts_do(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = module("intervals")
    monkeypatch.setattr(intervals, "PROMPTS", (8, 25))
    found = intervals.harsh(400)
    assert max(row["over"] for row in found) <= 3
    assert max(row["apart"] for row in found if row["world"] == "bad_copies") > 10


@pytest.mark.parametrize("name", ["rare", "rarer", "extremes", "coarse", "copies", "bad_copies", "gaps"])
def test_the_truth_of_a_harsh_world_is_its_mean_over_answers(module: Any, name: str) -> None:
    sums, sizes, truth = module("harsh_worlds").HARSH[name](200, 1_000, np.random.default_rng(1))
    assert sums.sum() / sizes.sum() == pytest.approx(truth, abs=0.4)


def test_whole_runs_seldom_accept_what_falls_short_and_do_without_a_split_of_the_error(module: Any) -> None:
    whole = module("whole_runs")
    runs = whole.Runs("perfect", "absolute", 89.0, prompts=64, alike=0.0)
    found = whole.outcomes(runs, 600, np.random.default_rng(1))
    assert found["confirmed"] <= found["accepted"] <= found["dev"] <= 5 < found["unsplit"]
    paper = whole.outcomes(replace(runs, chance=module("rival_limits").mean_chance), 200, np.random.default_rng(1))
    assert paper["dev"] > 50
    rare = whole.Runs("rare", "service_llm", 89.0, prompts=32, chance=module("rival_limits").student_chance)
    assert whole.outcomes(rare, 400, np.random.default_rng(1))["accepted"] > 5
    assert whole.outcomes(replace(rare, chance=runs.chance), 400, np.random.default_rng(1))["accepted"] <= 5
    good = whole.outcomes(replace(runs, truth=97.0), 100, np.random.default_rng(1))
    assert good["accepted"] > 50


@pytest.mark.parametrize("against", ["absolute", "guaranteed", "assumed"])
def test_the_gate_that_is_simulated_is_the_gate_of_runs(module: Any, against: str) -> None:
    intervals, rival, whole = module("intervals"), module("rival_limits"), module("whole_runs")
    error, prompts = 0.05 / 6, 100
    scores = module("worlds").draw_run(
        "bimodal", [95.0, 96.0], n=30, prompts=prompts, answers=4, alike=0.5, rng=np.random.default_rng(4)
    )
    chance = rival.student_chance if against == "assumed" else rival.gaffke_chance
    if against == "absolute":
        gate = Gate(similarity=None, precision=whole.GATE)
        expected = chance(scores[:, 1].mean((-1, -2)), whole.GATE) < error
    else:
        gate = Gate(None, 90.0, against=GateAgainst.service_llm, method=GateMethod(against), margin=whole.MARGIN)
        means = scores.mean((-1, -2))
        expected = chance(50 + (means[:, 1] - means[:, 0]) / 2, 50 - whole.MARGIN / 2) < error
    for (theirs, ours), passes in zip(scores, expected, strict=True):
        service_llm = intervals.verdicts(theirs)
        seen = look(intervals.verdicts(ours), gate, error=error, clusters={}, service_llm=service_llm)
        assert seen.passed == passes
    assert 0 < expected.sum() < len(expected)


def test_auto_is_limited_as_the_gate_limits_so_many_prompts_and_seldom_wrong(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    intervals = module("intervals")
    found = {}
    for size in (64, 80, 150):
        monkeypatch.setattr(intervals, "AUTO_PROMPTS", (size,))
        rows = intervals.by_size(100)
        found[size] = (rows[0]["dev"], rows[0]["test"])
        assert max(row["bad"]["accepted"] for row in rows) <= 5
        assert max(row["good"]["accepted"] for row in rows) > 80
    assert found == {64: ("assumed", "assumed"), 80: ("assumed", "guaranteed"), 150: ("guaranteed", "guaranteed")}


def test_missing_answers_never_turn_a_failure_into_a_pass_and_leaving_them_out_does(module: Any) -> None:
    found = module("intervals").missing(30)
    assert found["runs"] == 30
    assert found["passed"] > 0
    assert found["to_pass"] == 0
    assert found["left_out_to_pass"] > 0


def test_more_repeats_of_a_judge_hardly_narrow_an_interval(module: Any) -> None:
    for by_shape in module("widths").buys(100, prompts=32).values():
        assert by_shape["4 x 10"] == pytest.approx(by_shape["4 x 1"], rel=0.05)


def test_prompts_needed_are_read_off_the_curve(module: Any) -> None:
    needed = module("whole_runs").needed
    assert needed({32: 10.0, 64: 40.0, 100: 60.0}, 50) == 82
    assert needed({32: 10.0, 64: 40.0}, 50) is None
    assert needed({32: 55.0, 64: 70.0}, 50) == 32


def test_the_tables_hold_every_cell(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    intervals, tables = module("intervals"), module("interval_tables")
    sizes = {"PROMPTS": (8, 15), "RUN_PROMPTS": (32,), "AUTO_PROMPTS": (80,), "GUIDE_PROMPTS": (29, 45, 64)}
    for name, few in sizes.items():
        monkeypatch.setattr(intervals, name, few)
    raw = {
        "cover": intervals.cover(20, repeats=(1,), prompts=(8, 15)),
        "harsh": intervals.harsh(20),
        "widths": module("widths").widths((8, 15), (80, 95), 4),
        "runs": intervals.whole_runs(4),
        "auto": intervals.by_size(4),
        "guide": intervals.guide(4),
    }
    made = tables.tables(raw)
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert len(rows) == 2 * 5 + 3 + 2 * 3 + 9 + 5 * 4 + 3 * 4
    assert sum("service_llm | Student's t" in line for line in rows) == 4 + 4
