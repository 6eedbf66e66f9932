"""What a sweep sets tells its runs apart, in names and in columns."""

from __future__ import annotations

from pathlib import Path

from llamaduo.runs.swept_keys import in_plan, shown, told_apart
from llamaduo.runs.tracking import Target, _settings
from llamaduo.sweeps.plan import PlannedRun, add_to_grid


def planned(run: str, *overrides: str) -> PlannedRun:
    return PlannedRun(run, list(overrides), "coding", "m", None, ["j"], "clean", 8)


def test_only_keys_in_which_runs_differ_tell_them_apart() -> None:
    found = told_apart([["a=1", "+x.b='u v'", "c=3"], ["a=1", "+x.b=w", "c=3"], ["a=1", "c=3"]])
    assert found == [{"x.b": "u v"}, {"x.b": "w"}, {"x.b": ""}]
    assert told_apart([]) == []
    assert told_apart([["a=1"]]) == [{}]


def test_a_plan_tells_a_run_of_it_and_no_other() -> None:
    study = Path("results/s")
    add_to_grid(study, [planned("m-coding-00000001", "r=4"), planned("m-coding-00000002", "r=16")])
    assert in_plan(study / "m-coding-00000002") == {"r": "16"}
    assert in_plan(study / "m-coding-00000003") == {}
    assert in_plan(Path("elsewhere/m-coding-00000001")) == {}
    (study / "grid.json").write_text("[")
    assert in_plan(study / "m-coding-00000002") == {}


def test_the_name_in_w_and_b_says_what_was_swept_once() -> None:
    study = Path("results/s")
    cells = [planned(f"m-{task}-0000000{n}", f"task={task}", f"r={n}") for n, task in enumerate(("coding", "qa"), 4)]
    add_to_grid(study, cells)
    settings = _settings(Target("p", None, True), "s", study / "m-qa-00000005", {})
    assert settings["name"] == "m-qa-00000005 r=5"
    assert settings["id"] == "s-m-qa-00000005"
    assert shown({}, "m-qa-00000005") == "m-qa-00000005"
