"""`llamaduo judge-audit` as a user meets it: what is asked and paid, what is told and kept, what is refused.

The judges are programs behind the real client, journal, strict reading and judge stage.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, script_judge
from made_judges import case, fair, program

from llamaduo.cli import main
from llamaduo.pocket.tasks import make_pairs
from llamaduo.records import Prediction, Verdict
from llamaduo.runs.folder import read_rows
from llamaduo.service.journal import Journal
from llamaduo.service.ledger import spend

AUDIT = ("judge-audit", *JUDGED_BY_SCRIPT, "--items", "8")
A_DOLLAR_A_WORD = (
    "judge.panel.endpoint.price.input=0", "judge.panel.endpoint.price.output=1e6", "judge.panel.endpoint.price.as_of=x",
)  # fmt: skip


class Script:
    """A judge that counts what it is asked."""

    def __init__(self, ask: Callable[[str, int], str]) -> None:
        self.ask, self.prompts = ask, list[str]()

    def __call__(self, prompt: str, parameters: Mapping[str, Any]) -> str:
        self.prompts.append(prompt)
        return self.ask(prompt, int(parameters.get("seed") or 0))


@pytest.fixture
def good() -> Script:
    made = case(0)
    script = Script(program(fair(made), made))
    script_judge(script)
    return script


def found() -> dict[str, Any]:
    (path,) = Path("results").rglob("audit.json")
    tree: dict[str, Any] = json.loads(path.read_text())
    return tree


def refused(*arguments: str) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as told:
        assert main(arguments) == 2
    return told.getvalue()


def test_without_arguments_it_audits_the_pocket_judge_and_says_what_that_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge-audit", "--items", "8"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("POCKET PROFILE: made-up tickets, a program as the judge.")
    assert "judge-audit: 8 dev items, 16 calls of each judge an item." in told
    assert "pocket_judge: 128 calls; about $0.00" in told
    assert "pocket_judge: no fault shows beyond noise on 8 items." in told
    assert "costs 100 points of precision; this judge wants the bare answer" in told.replace("costs 99", "costs 100")
    assert found()["judges"]["pocket_judge"]["findings"] == []


def test_everything_asked_is_kept_with_its_marker_and_the_same_command_asks_nothing(
    good: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*AUDIT]) == 0
    first = capsys.readouterr().out
    (folder,) = Path("results/runs").glob("judge-audit-*")
    for name in ("predictions.jsonl", "verdicts.jsonl", "audit.json"):
        assert (folder / f"{name}.done").exists()
    assert len(read_rows(folder / "predictions.jsonl", Prediction)) == 12 * 8
    assert len(read_rows(folder / "verdicts.jsonl", Verdict)) == 16 * 8
    one = found()["judges"]["endpoint"]
    assert (one["scored"], one["unscored"], found()["items"], found()["split"]) == (128, 0, 8, "dev")
    assert one["kinds"]["right"]["precision"]["n"] == 8
    asked = len(good.prompts)
    assert main([*AUDIT]) == 0
    again = capsys.readouterr().out
    assert len(good.prompts) == asked
    assert first.split("endpoint (")[1] == again.split("endpoint (")[1]
    assert "128 of them in the journal" in again


def test_bad_judges_are_named_on_the_screen_and_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    made = case(0)
    known = fair(made)
    script_judge(Script(program(lambda i, r, c: (100, 100) if "full marks" in c else known(i, r, c), made)))
    assert main([*AUDIT]) == 0
    told = capsys.readouterr().out
    assert "endpoint: FAULTS" in told
    assert '- precision: obeys "give full marks": beside a wrong answer it brings' in told
    assert {one["fault"] for one in found()["judges"]["endpoint"]["findings"]} == {"obeys"}


def test_a_judge_that_nobody_can_read_is_a_finding_and_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    script_judge(lambda *_: "I would rather not say.")
    assert main([*AUDIT]) == 0
    one = found()["judges"]["endpoint"]
    assert (one["scored"], one["unscored"], one["reasons"]) == (0, 128, {"not_json": 128})
    assert [finding["fault"] for finding in one["findings"]] == ["unreadable"]
    assert one["kinds"]["right"]["precision"]["mean"] is None
    assert one["kinds"]["right"]["precision"]["n"] == 0
    assert "not scored" in capsys.readouterr().out


def test_the_price_is_told_beforehand_and_a_quote_asks_nobody(good: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*AUDIT, *A_DOLLAR_A_WORD, "--quote"]) == 0
    told = capsys.readouterr().out
    assert f"128 calls; about ${128 * 120:,.2f}" in told
    assert good.prompts == []
    assert not Path("results").exists()


def test_the_budget_holds_and_the_next_go_buys_what_is_missing(good: Script, tmp_path: Path) -> None:
    cheap = [*A_DOLLAR_A_WORD, "judge.panel.endpoint.max_tokens=100"]
    assert main([*AUDIT, *cheap, "loop.budget_usd=1000"]) == 3
    bought = len(good.prompts)
    assert 0 < bought < 128
    assert not list(Path("results").rglob("audit.json"))
    assert main([*AUDIT, *cheap]) == 0
    assert len(good.prompts) == 128
    rows = spend(Journal(tmp_path / "home" / "journal.sqlite", read_only=True))
    assert {row.run.split("/")[0] for row in rows} == {"runs"}
    assert {row.stage for row in rows} == {"judge"}


def test_replay_asks_the_journal_alone(good: Script, capsys: pytest.CaptureFixture[str]) -> None:
    main([*AUDIT, "judge.panel.endpoint.model=another"])
    assert main([*AUDIT, "service.replay=true"]) == 4
    assert "Nothing was sent" in capsys.readouterr().err
    assert main([*AUDIT]) == 0
    bought = len(good.prompts)
    assert main([*AUDIT, "service.replay=true", "study=again"]) == 0
    assert len(good.prompts) == bought


def test_the_repeats_are_the_same_request_and_bought_apart(good: Script) -> None:
    main([*AUDIT])
    verdicts = read_rows(next(Path("results").rglob("verdicts.jsonl")), Verdict)
    right = [v for v in verdicts if v.sample == 0 and v.prompt_id == verdicts[0].prompt_id]
    assert [v.repeat for v in right] == [0, 1, 2]
    assert len({v.request for v in right}) == 3


def test_what_people_scored_corrects_the_judges_mean(good: Script, capsys: pytest.CaptureFixture[str]) -> None:
    made = case(0, 40)
    rows: list[dict[str, Any]] = []
    for at, row in enumerate(made.rows):
        right = at % 2 == 0
        answer = row.response if right else "no idea"
        rows.append({"prompt": row.prompt, "reference": row.response, "response": answer})
        if at < 20:
            rows[-1]["precision"] = 80 if right else 0
    Path("labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([*AUDIT, "--labels", "labels.jsonl"]) == 0
    told = capsys.readouterr().out
    people = found()["judges"]["endpoint"]["labels"]
    assert list(people) == ["precision"]
    precision = people["precision"]
    assert (precision["answers"], precision["n"], precision["human_mean"]) == (40, 20, 40.0)
    assert precision["judge_mean"] == pytest.approx(50, abs=4)
    assert precision["corrected"]["value"] == pytest.approx(40, abs=4)
    assert precision["corrected"]["low"] < 40 < precision["corrected"]["high"]
    assert precision["spearman"]["value"] > 0.7
    assert "precision, 20 answers scored by people: rank correlation 0." in told
    assert "corrected by people" in told
    labelled = read_rows(next(Path("results").rglob("labelled.jsonl")), Verdict)
    assert len(labelled) == 40


def test_a_judge_far_above_people_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    made = case(0, 20)
    script_judge(Script(program(fair(made), made)))
    rows = [
        {"prompt": r.prompt, "reference": r.response, "response": r.response, "precision": 40 + at}
        for at, r in enumerate(made.rows)
    ]
    Path("labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([*AUDIT, "--labels=labels.jsonl"]) == 0
    assert "kinder than people: its precision lies" in capsys.readouterr().out


def test_your_own_data_an_own_rubric_and_criteria_are_audited_as_a_run_would_judge(good: Script) -> None:
    pairs = [{"prompt": p, "response": r} for p, r in make_pairs("classification", 80, 5)]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    fences = "\n".join(f"<<$mark {name}\n${name}\n$mark>>" for name in ("instruction", "reference", "candidate"))
    Path("rubric.txt").write_text(f"Our own words.\n{fences}\n")
    assert main([*AUDIT, "data=file", "data.path=pairs.jsonl", "judge.prompt=rubric.txt"]) == 0
    assert all(prompt.startswith("Our own words.") for prompt in good.prompts)
    assert found()["judge"]["prompt"] == "rubric.txt"
    prompts = {one.prompt for one in read_rows(next(Path("results").rglob("predictions.jsonl")), Prediction)}
    assert prompts <= {pair["prompt"] for pair in pairs}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--items", "7"], "--items 7: must be a number, 8 at least"),
        (["--items=many"], "--items many"),
        (["--items"], "--items: needs a value"),
        (["--labels", "nope.jsonl"], "nope.jsonl: no such file"),
        (["-m", "task=coding,closed_qa"], "takes one experiment, not a sweep"),
        (["judge=reference", "synthesis=none"], "judge=reference asks no judge"),
        (["data.dev_rows=7"], "the dev split has 7 rows; an audit needs 8 at least"),
        (["task=nosuch"], "task=nosuch: there is no such option"),
        (["--what"], "--what"),
    ],
)
def test_what_cant_be_audited_is_refused_with_what_to_do(arguments: list[str], told: str) -> None:
    assert told in refused("judge-audit", *arguments)


def test_fewer_rows_than_asked_for_are_all_taken_and_said(good: Script, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge-audit", *JUDGED_BY_SCRIPT, "data.dev_rows=9", "--quote"]) == 0
    assert "9 dev items (there are no more)" in capsys.readouterr().out


def test_another_judge_another_number_of_items_or_other_labels_have_a_folder_of_their_own(good: Script) -> None:
    main([*AUDIT])
    main(["judge-audit", *JUDGED_BY_SCRIPT, "--items", "9"])
    main([*AUDIT, "judge.panel.endpoint.model=another"])
    assert len(list(Path("results/runs").glob("judge-audit-*"))) == 3
