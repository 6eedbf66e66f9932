"""Two tiers of judges, through loop, journal and folder: who is asked about what, and what it comes to."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from fakes import PROVIDER, quick_stages, quiet, rows_of, script_judge, verdict

from llamaduo.checks import problems
from llamaduo.config import Experiment, fingerprint
from llamaduo.errors import ServiceError
from llamaduo.evidence.two_tier import chosen
from llamaduo.loop import run
from llamaduo.quote.quote import quote
from llamaduo.records import Verdict
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import read_rows
from llamaduo.studies.pages.page import run_page
from llamaduo.studies.report import report
from llamaduo.studies.study import read_study
from llamaduo.verify.compare import summary
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
CHEAP, DEAR = "endpoint", "pocket_strict"
SCRIPTED = [
    f"judge.panel.{name}.{key}={value}"
    for name in (CHEAP, DEAR)
    for key, value in (
        ("provider", PROVIDER),
        ("model", f"script_{name}"),
        ("concurrency", 4),
        ("temperature", 1.0 if name == DEAR else 0.5),
    )
]
PANEL = (
    "judge=endpoint",
    f"+service_llm@judge.panel.{DEAR}={DEAR}",
    "judge.panel.endpoint.base_url=http://localhost:9",
)
ROWS = ("data.train_rows=8", "data.dev_rows=64", "data.test_rows=46", "loop.growth.factor=2", "infer.samples=4")
TWO_TIERS = (*PANEL, *SCRIPTED, *ROWS, "loop.max_iterations=2", "loop.beside=[]", f"judge.dear=[{DEAR}]")

pytestmark = pytest.mark.usefixtures("quick_stages")


def is_dear(request: Mapping[str, Any]) -> bool:
    """Tell by its temperature who is asked."""
    return request["temperature"] == 1.0


class Judges:
    """Score by the rows trained on, each judge by its own table, and a little by the sample."""

    def __init__(self, cheap: dict[int, float], dear: dict[int, float]) -> None:
        self.scores = {CHEAP: cheap, DEAR: dear}
        self.asked = dict.fromkeys(self.scores, 0)
        script_judge(self)

    def __call__(self, prompt: str, request: Mapping[str, Any]) -> str:
        name = DEAR if is_dear(request) else CHEAP
        self.asked[name] += 1
        scores = self.scores[name]
        found = re.search(r"sample=(\d+)", prompt)
        assert found is not None
        return verdict(scores[max(rows for rows in scores if rows <= rows_of(prompt))] - int(found[1]) / 10)


def stored(experiment: Experiment, where: str) -> list[Verdict]:
    return read_rows(run_folder(experiment) / "iterations" / where / "verdicts.jsonl", Verdict)


def metrics(experiment: Experiment) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder(experiment) / "metrics.jsonl").read_text().splitlines()]


def test_dear_judges_see_some_answers_and_decide_what_all_are_worth(compose_experiment: Compose) -> None:
    judges = Judges(cheap={0: 60, 16: 70}, dear={0: 40, 16: 99})
    experiment = compose_experiment(*TWO_TIERS)
    state = run(experiment, display=quiet())
    assert (state.stop_reason, state.accepted_iteration, state.confirmation) == ("passed", 1, "confirmed")
    assert state.decision == "switch_with_fallback", "a limit with an assumption is no switch without a fallback"
    made = stored(experiment, "00")
    seen = {name: {(v.prompt_id, v.sample) for v in made if v.judge == name} for name in (CHEAP, DEAR)}
    assert [len(made), len(seen[CHEAP]), len(seen[DEAR])] == [5 * 64, 256, 64]
    assert seen[DEAR] == chosen(seen[CHEAP], share=0.25, seed=experiment.runtime.seed)
    assert judges.asked == {CHEAP: 2 * 256 + 4 * 46, DEAR: 2 * 64 + 46}
    first, second = metrics(experiment)
    for line, dear in ((first, 40), (second, 99)):
        assert line["precision_mean"] == pytest.approx(dear - 0.15, abs=0.06), "the dear judge's, of all four samples"
        assert line["precision_low"] < line["precision_mean"] < line["precision_high"]
        assert (line["answers"], line["scored"], line["unscored"]) == (256, 320, 0)
        assert (line["unjudged"], line["spared"], line["prompts"]) == (0, 0, 64)
        assert (line["gate"]["method"], line["gate"]["prompts"]) == ("combined", 64)
        assert [line["judges"][name]["answers"] for name in (CHEAP, DEAR)] == [256, 64]
    assert second["judges"][CHEAP]["precision_mean"] == pytest.approx(70 - 0.15)
    assert second["gate"]["judges"][CHEAP]["precision"] < 70 < 90 <= second["gate"]["values"]["precision"]
    told = [line for line in state.details if line.startswith("Two tiers of judges: ")]
    assert len(told) == 1
    assert told[0].startswith(f"Two tiers of judges: {DEAR} saw 46 of 184 answers (test split, drawn at random")
    assert "The limits assume that no prompt that was not asked is worth less" in told[0]


def test_a_cheap_judge_that_is_too_kind_lets_nobody_pass(compose_experiment: Compose) -> None:
    Judges(cheap={0: 100}, dear={0: 80})
    experiment = compose_experiment(*TWO_TIERS, "loop.max_iterations=1")
    state = run(experiment, display=quiet())
    (line,) = metrics(experiment)
    assert (state.decision, line["gate"]["passed"], line["coverage"]) == ("stay", False, 100.0)
    assert line["gate"]["upper"]["precision"] < 90


def test_verify_and_reports_come_to_the_same(compose_experiment: Compose) -> None:
    Judges(cheap={0: 60, 16: 70}, dear={0: 40, 16: 99})
    experiment = compose_experiment(*TWO_TIERS)
    state = run(experiment, display=quiet())
    folder = run_folder(experiment)
    assert [line for line in summary(verify(folder)) if line.startswith("DIFFERENT")] == []
    assert state.test is not None
    study = read_study(folder.parent)
    rows = {row["judge"]: row for row in study.rows if row["reported"]}
    assert rows["all"]["precision_mean"] == state.test["precision"]["mean"] == pytest.approx(98.85, abs=0.06)
    assert rows["all"]["precision_low"] == state.test["precision"]["low"]
    assert [rows[name]["answers"] for name in ("all", CHEAP, DEAR)] == [184, 184, 46]
    assert study.scores == {}, "single answers of two tiers are compared with nothing"
    assert f"{rows['all']['precision_mean']:.1f}" in report(str(folder.parent))
    page = run_page(study.runs[0])
    assert "Two tiers of judges: " in page
    assert '<option value="-1">all</option>' not in page, "no mean over answers that different judges saw"
    path = folder / "iterations/00/verdicts.jsonl"
    kept = [line for line in path.read_text().splitlines(keepends=True) if DEAR not in line]
    path.write_text("".join(kept))
    assert [line for line in summary(verify(folder)) if line.startswith("DIFFERENT")] != []


def test_a_dear_judge_that_does_not_answer_ends_the_run(compose_experiment: Compose) -> None:
    judges = Judges(cheap={0: 99}, dear={0: 99})

    def half(prompt: str, request: Mapping[str, Any]) -> str:
        found = judges(prompt, request)
        return found if not is_dear(request) or judges.asked[DEAR] % 5 else "no scores"

    script_judge(half)
    experiment = compose_experiment(*TWO_TIERS, "judge.reasks=0")
    with pytest.raises(ServiceError, match=r"of the judges' verdicts are unscored"):
        run(experiment, display=quiet())


def test_the_quote_counts_the_fewer_dear_calls(compose_experiment: Compose) -> None:
    Judges(cheap={0: 40}, dear={0: 40})
    experiment = compose_experiment(*TWO_TIERS, "judge.repeats=2")
    lines = {
        line.llm.model: line
        for line in quote([experiment], today=datetime.date(2026, 1, 1)).lines
        if line.stage == "judge"
    }
    calls = {name: lines[f"script_{name}"].calls for name in (CHEAP, DEAR)}
    assert calls[CHEAP] == [2 * 4 * (64 + 46), 2 * 4 * (2 * 64 + 46)]
    assert calls[DEAR] == [2 * (64 + 46), 2 * (2 * 64 + 46)]
    assert all(line.spared == [0, 0] for line in lines.values())
    run(experiment, display=quiet())
    assert len(stored(experiment, "00")) == 2 * (256 + 64)


def test_unused_it_changes_no_name_and_no_file(compose_experiment: Compose) -> None:
    plain_run = compose_experiment(*PANEL, *SCRIPTED, *ROWS)
    other = compose_experiment(*PANEL, *SCRIPTED, *ROWS, "judge.dear_share=0.5")
    assert fingerprint(plain_run) == fingerprint(other)
    dear = [compose_experiment(*TWO_TIERS, f"judge.dear_share={share}") for share in (0.25, 0.5)]
    assert len({fingerprint(one) for one in (plain_run, *dear)}) == 3
    Judges(cheap={0: 99}, dear={0: 99})
    run(plain_run, display=quiet())
    assert "dear" not in (run_folder(plain_run) / "config.yaml").read_text().replace("dearly", "")
    assert "answers" not in metrics(plain_run)[0]["judges"][CHEAP]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["judge.dear=[nobody]"], "'nobody' is no member of the panel; take from endpoint, pocket_strict."),
        ([f"judge.dear=[{CHEAP},{DEAR}]"], "nobody is left to judge every answer"),
        (["judge.dear_share=0"], "judge.dear_share=0.0: must lie above 0, and be at most 1."),
        (["judge.dear_share=1.5"], "judge.dear_share=1.5: must lie above 0"),
        (["loop.gate.against=service_llm"], "take loop.gate.against=threshold, or no dear judges."),
        (["judge.kind=reference", "synthesis=none"], "judge=reference asks nobody"),
    ],
)
def test_what_can_not_work_is_refused(
    compose_experiment: Compose, monkeypatch: pytest.MonkeyPatch, changed: list[str], said: str
) -> None:
    monkeypatch.setattr("llamaduo.checks.problems", lambda _: [])
    found = problems(compose_experiment(*TWO_TIERS, *changed))
    assert [line for line in found if said in line], found
