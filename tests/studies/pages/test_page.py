"""Pages: what they say of whole and broken-off runs, that they are self-contained, that hostile texts stay texts."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import DataSource, Experiment
from llamaduo.display import pocket_note
from llamaduo.errors import InputError
from llamaduo.runs.record import RunRecord, read_runs
from llamaduo.runs.saved_config import typed
from llamaduo.studies.costs.by_stage import data_flow, seconds, spending
from llamaduo.studies.pages import bundle
from llamaduo.studies.pages.curves import curve
from llamaduo.studies.pages.page import outcome, run_page, study_page, write_run_page
from llamaduo.studies.parts import Cell, Figure, Table
from llamaduo.studies.study import Study, read_study
from tests.made_runs import configuration, make_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u2028 & \"quoted\" 'too'"


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return configuration("preset=service", "judge=paper_panel", "service.replay=true", "study=s")


@pytest.fixture
def folder(config: dict[str, Any]) -> Path:
    return make_run(Path("results/s/run-1a2b3c4d"), config=config, prompts=4, samples=2, repeats=2)


def the_run(folder: Path) -> RunRecord:
    (run,) = read_runs(folder)
    return run


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rewrite(path: Path, made: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in made))


def visible(page: str) -> str:
    """Return the page's text without style sheet, scripts and tags, white space folded."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


class Unpacked:
    """The packed answers of a split, read as the page's script reads them."""

    def __init__(self, page: str, name: str) -> None:
        (coded,) = re.findall(rf'<script type="text/plain" id="pack-{name}">([^<]*)</script>', page)
        raw = zlib.decompress(base64.b64decode(coded))
        size = int.from_bytes(raw[:4], "little")
        self.head = json.loads(raw[4 : 4 + size])
        self._body = raw[4 + size :]

    def column(self, name: str, kind: str = "i") -> list[Any]:
        at, count = self.head["columns"][name]
        return list(struct.unpack_from(f"<{count}{kind}", self._body, at))

    def texts(self, name: str) -> list[str]:
        cuts = self.column(f"{name}.offsets")
        at, _ = self.head["columns"][f"{name}.bytes"]
        return [self._body[at + a : at + b].decode() for a, b in itertools.pairwise(cuts)]

    def verdicts(self) -> dict[tuple[str, int, str, int], tuple[Any, ...]]:
        """Return by (prompt, sample, judge, repeat): the two scores, the reasons and why there is no score."""
        ids, whys, found = self.texts("id"), self.texts("whys"), {}
        words = {name: self.texts(f"words_{name}") for name in ("similarity", "precision", "unscored")}
        said = {name: self.column(f"said_{name}") for name in words}
        scores = [self.column(name, "f") for name in ("similarity", "precision")]
        unscored, at = self.column("unscored"), 0
        for prompt, sample in zip(self.column("prompt"), self.column("sample"), strict=True):
            for judge in self.head["judges"]:
                for repeat in range(self.head["repeats"]):
                    reasons = {name: words[name][places[at]] for name, places in said.items() if places[at] >= 0}
                    why = whys[unscored[at]] if unscored[at] >= 0 else None
                    values = [None if s[at] != s[at] else s[at] for s in scores]
                    found[ids[prompt], sample, judge, repeat] = (*values, reasons, why)
                    at += 1
        return found


# A run's page


def test_it_says_the_verdict_and_the_scores_with_interval_n_and_gate(folder: Path) -> None:
    run = the_run(folder)
    text = visible(run_page(run))
    found = (run.state.test or {})["precision"]
    assert "Not passed Not passed: plateau." in text
    told = f"{found['mean']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"
    assert f"{told} n = {found['prompts']} prompts, 8 answers, gate 90" in text
    assert "judged by gpt_4o, claude_3_sonnet, gemini_1_5_flash" in text
    assert "Stopped by: plateau." in text


def test_a_score_without_an_interval_has_no_brackets(folder: Path, config: dict[str, Any]) -> None:
    run = the_run(make_run(Path("results/one"), config=config, prompts=1, samples=1, repeats=1))
    run.history[:] = [dataclasses.replace(line, precision_low=None, precision_high=None) for line in run.history]
    run.state.test = None
    drawn = curve(run, "precision")
    assert f"0: {run.history[0].precision_mean:.1f}" in drawn
    assert "[" not in drawn
    assert "[" in curve(the_run(folder), "precision")


def test_coverage_has_its_interval_and_n(folder: Path) -> None:
    study = read_study(folder.parent)
    (row,) = study.reported()
    limits = f"{row['coverage']:.0f}% [{row['coverage_low']:.0f}%, {row['coverage_high']:.0f}%]"
    assert f"{limits} of {row['coverage_n']} answers to {row['prompts']} prompts" in visible(run_page(study.runs[0]))
    assert limits in visible(study_page(study, [], []))


def test_every_iteration_is_a_line_and_a_mark(folder: Path) -> None:
    run = the_run(folder)
    page = run_page(run)
    for line in run.history:
        interval = f"{line.precision_mean:.1f} [{line.precision_low:.1f}, {line.precision_high:.1f}]"
        assert interval in visible(page)
        assert (
            f"<title>iteration {line.iteration}: {interval}, n = {line.prompts} prompts, "
            f"{run.scored[line.iteration]['precision']} answers</title>" in page
        )
    assert page.count('<svg class="curve"') == 2
    assert "gate 90" in page
    assert "test split: " in page


def test_the_explorer_holds_every_answer_and_verdict(folder: Path) -> None:
    path = folder / "iterations" / "01" / "verdicts.jsonl"
    judged = rows(path)
    for number, row in enumerate(judged):
        row["reasons"] = {"similarity": f"reason {number}", "precision": "the same Ü"} if number % 3 else {}
    judged[5] |= {"unscored": "no_reply", "similarity": None, "precision": None, "reasons": {"unscored": "503 <busy>"}}
    judged[7] |= {"similarity": None}
    rewrite(path, judged[::-1])
    page = run_page(the_run(folder))
    found = Unpacked(page, "01")
    wanted = {
        (v["prompt_id"], v["sample"], v["judge"], v["repeat"]): (
            v["similarity"], v["precision"], v["reasons"], v["unscored"]
        )
        for v in judged
    }  # fmt: skip
    assert found.verdicts() == wanted
    asked = rows(folder / "iterations" / "01" / "predictions.jsonl")
    assert found.texts("text") == [row["text"] for row in asked]
    prompts, references = found.texts("prompts"), found.texts("references")
    assert [prompts[at] for at in found.column("prompt")] == [row["prompt"] for row in asked]
    assert [references[at] for at in found.column("reference")] == [row["reference"] for row in asked]
    for name in ("00", "01", "test"):
        assert Unpacked(page, name).head["answers"] == 8


def test_a_verdict_that_says_unscored_shows_no_score_even_if_it_carries_one(folder: Path) -> None:
    path = folder / "iterations" / "00" / "verdicts.jsonl"
    judged = rows(path)
    judged[0] |= {"unscored": "out_of_range", "similarity": 120.0, "precision": 50.0}
    rewrite(path, judged)
    key = judged[0]["prompt_id"], 0, judged[0]["judge"], 0
    assert Unpacked(run_page(the_run(folder)), "00").verdicts()[key][:2] == (None, None)


def test_verdicts_that_are_missing_or_about_no_answer_hurt_nothing(folder: Path) -> None:
    path = folder / "iterations" / "00" / "verdicts.jsonl"
    judged = rows(path)
    stranger = judged[0] | {"prompt_id": "f" * 16}
    rewrite(path, [*judged[3:], stranger])
    found = Unpacked(run_page(the_run(folder)), "00").verdicts()
    gone = [(v["prompt_id"], v["sample"], v["judge"], v["repeat"]) for v in judged[:3]]
    assert [found[key] for key in gone] == [(None, None, {}, None)] * 3
    assert not any(prompt == "f" * 16 for prompt, *_ in found)


def test_hostile_texts_stay_texts(folder: Path, config: dict[str, Any]) -> None:
    for name in ("predictions", "verdicts"):
        path = folder / "iterations" / "01" / f"{name}.jsonl"
        changes = {"text": HOSTILE, "prompt": HOSTILE} if name == "predictions" else {"reasons": {"precision": HOSTILE}}
        rewrite(path, [row | changes for row in rows(path)])
    changed(folder / "state.json", verdict=HOSTILE, error=HOSTILE)
    known = json.loads(json.dumps(config))
    known["local_model"]["name"] = "<b>gemma</b>"
    (folder / "config.yaml").write_text(json.dumps(known))
    page = run_page(the_run(folder))
    assert set(Unpacked(page, "01").texts("text")) == {HOSTILE}
    assert "<img" not in page
    assert "<b>gemma" not in page
    assert "alert(1)" in visible(page)
    assert page.count("<script>") == 1
    assert len(re.findall(r"<script\b", page)) == 4  # three splits and the program


def test_it_is_self_contained_and_its_policy_allows_its_own_code_alone(folder: Path) -> None:
    page = run_page(the_run(folder))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    policy = policy.replace("&#39;", "'")
    for tag in ("script", "style"):
        (code,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert not re.search(r"url\(|@import|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", page)
    assert not re.search(r"""\sstyle=|\son\w+=["']""", page)  # the policy would refuse both


def test_the_same_folder_gives_the_same_page_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    page = run_page(the_run(folder))
    shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    assert run_page(the_run(folder)) == page
    assert run_page(the_run(tmp_path / "elsewhere" / folder.name)) == page
    assert str(tmp_path) not in page


def test_pages_that_another_zlib_packed_compare_equal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = the_run(folder)
    page = run_page(run)
    monkeypatch.setattr(bundle, "_LEVEL", 9)
    other = run_page(run)
    assert other != page
    assert bundle.inflated(other) == bundle.inflated(page)
    path = folder / "iterations" / "00" / "predictions.jsonl"
    rewrite(path, [row | {"text": "another"} for row in rows(path)])
    assert bundle.inflated(run_page(run)) != bundle.inflated(page)


def test_what_tells_of_this_machine_and_secrets_stay_out(
    folder: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine-0123456789")
    known = json.loads(json.dumps(config))
    known["runtime"]["results"] = "/home/me/results"
    known["task"]["topic"] = "sk-secret-of-mine-0123456789"
    (folder / "config.yaml").write_text(json.dumps(known))
    changed(folder / "state.json", error="401: sk-secret-of-mine-0123456789")
    page = run_page(the_run(folder))
    assert "secret-of-mine" not in page
    assert page.count("[OPENAI_API_KEY]") >= 2
    assert "/home/me" not in page
    assert "train.lora_r" in visible(page)


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ({"status": "running"}, "Not finished"),
        ({"status": "failed", "error": "gpt_4o is out of reach"}, "Failed"),
        ({"status": "done", "stop_reason": "budget", "verdict": "No verdict: the budget is spent."}, "budget"),
    ],
)
def test_a_run_without_iterations_is_shown_as_it_stands(folder: Path, state: dict[str, Any], shown: str) -> None:
    shutil.rmtree(folder / "iterations")
    (folder / "metrics.jsonl").unlink()
    (folder / "environment.json").unlink()
    (folder / "state.json").write_text(json.dumps(state))
    text = visible(run_page(the_run(folder)))
    assert shown in text
    assert state.get("error", "") in text
    assert "No iteration is complete." in text
    assert "No answer was given yet." in text


def test_a_run_that_was_broken_off_shows_what_it_has(folder: Path) -> None:
    changed(folder / "state.json", status="failed", error="out of memory", best_iteration=None, test=None, verdict=None)
    (folder / "iterations" / "01" / "verdicts.jsonl").unlink()
    (folder / "iterations" / "test" / "predictions.jsonl").write_text("")
    page = run_page(the_run(folder))
    assert Unpacked(page, "01").head == Unpacked(page, "01").head | {"answers": 8, "judges": [], "repeats": 0}
    assert 'id="pack-test"' not in page
    assert "out of memory" in visible(page)
    assert "not scored" in visible(page)


def test_a_score_that_does_not_exist_is_not_drawn(folder: Path) -> None:
    none = dict.fromkeys(("precision_mean", "precision_low", "precision_high"))
    rewrite(folder / "metrics.jsonl", [row | none for row in rows(folder / "metrics.jsonl")])
    changed(folder / "state.json", test=None)
    page = run_page(the_run(folder))
    assert page.count('<svg class="curve"') == 1
    assert "Precision, dev split not scored" in visible(page)


def test_damaged_answers_are_an_error_that_names_the_run(folder: Path) -> None:
    (folder / "iterations" / "00" / "verdicts.jsonl").write_text('{"prompt_id": "a", "sample": "b"}\n{')
    with pytest.raises(InputError, match=r"run-1a2b3c4d: damaged"):
        run_page(the_run(folder))


def test_writing_the_page_never_hurts_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run_page(folder)
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page == run_page(the_run(folder))
    (folder / "iterations" / "00" / "verdicts.jsonl").write_text("{")
    write_run_page(folder)
    assert "no report.html" in capsys.readouterr().err
    assert (folder / "report.html").read_text(encoding="utf-8") == page


def test_it_loads_no_model_and_asks_nobody(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from llamaduo.studies.pages.page import write_run_page; "
        f"write_run_page(Path({str(folder)!r})); "
        "print({'torch', 'transformers', 'litellm', 'wandb', 'datasets', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("set()", "")


# What became of data, money and time

GROWN = {"wanted": 100, "requests": 15, "failed": 1, "dropped": 3, "cost_usd": 0.25, "parsed": 117, "kept": 102,
         "removed": [{"reason": "duplicate"}] * 9 + [{"reason": "contamination"}] * 6}  # fmt: skip


def test_the_funnel_tells_what_became_of_the_rows(folder: Path) -> None:
    (folder / "iterations" / "00" / "curation.json").write_text(json.dumps(GROWN))
    run = the_run(folder)
    first, second = data_flow(run)
    assert (first.grown, first.coverage_rows) == (None, 334)
    assert second.grown == {"wanted": 100, "requests": 15, "failed": 1, "parsed": 117, "dropped": 3, "duplicate": 9,
                            "contamination": 6, "kept": 102}  # fmt: skip
    assert second.trained is run.history[1]
    text = visible(run_page(run))
    assert "1 100 15 1 117 3 9 6 102" in text
    assert "85%" in text  # of 120 that were sent, 102 were kept


def test_rows_that_no_iteration_was_trained_on_are_shown_too(folder: Path) -> None:
    (folder / "iterations" / "01" / "curation.json").write_text(json.dumps(GROWN))
    assert [(flow.iteration, flow.trained is None) for flow in data_flow(the_run(folder))] == [
        (0, False),
        (1, False),
        (2, True),
    ]


def test_costs_add_up_and_what_no_stage_names_is_said(folder: Path) -> None:
    run = the_run(folder)
    assert "not attributed" not in spending(run).by_stage()
    judging = run.state.cost_usd
    (folder / "iterations" / "00" / "curation.json").write_text(json.dumps(GROWN))
    changed(folder / "state.json", cost_usd=judging + 1.25)
    found = spending(the_run(folder)).by_stage()
    assert found["synthesis"] == 0.25
    assert found["not attributed"] == pytest.approx(1.0)
    assert sum(found.values()) - found["total"] == pytest.approx(found["total"])


def test_seconds_come_from_the_markers(folder: Path) -> None:
    assert seconds(the_run(folder)) == {}
    for name, spent in (("00/adapter", 5.0), ("01/adapter", 7.0), ("test/verdicts.jsonl", 2.5)):
        (folder / "iterations" / f"{name}.done").write_text(json.dumps({"seconds": spent}))
    assert seconds(the_run(folder)) == {"fine-tuning": 12.0, "judging": 2.5}


def test_the_outcome_is_that_of_the_state(folder: Path) -> None:
    said = []
    for state in ({"stop_reason": "passed"}, {"stop_reason": "plateau"}, {"stop_reason": "budget"}, {"status": "x"}):
        changed(folder / "state.json", status="done")
        changed(folder / "state.json", **state)
        said.append(outcome(the_run(folder)).text)
    assert said == ["Passed", "Not passed", "Stopped by the budget", "Not finished"]


def note(config: dict[str, Any]) -> str:
    return pocket_note(typed(Experiment, config))


def test_a_rehearsal_is_called_one(config: dict[str, Any]) -> None:
    assert note(config) == ""
    pocket = configuration()
    assert note(pocket) == (
        "made-up tickets, a program as the service LLM, a program as the judge, a local model of one million "
        "parameters. The loop around them is the real one."
    )
    served = pocket | {"infer": pocket["infer"] | {"backend": "endpoint"}, "data": {"source": "file"}}
    assert note(served).startswith("a program as the service LLM, a program as the judge. ")
    served["infer"]["server"] = {"provider": "pocket"}
    assert "a program that answers" in note(served)


# A study's page


@pytest.fixture
def study(config: dict[str, Any]) -> Study:
    for number, task in enumerate(("coding", "closed_qa", "coding #2?")):
        known = json.loads(json.dumps(config))
        known["task"]["name"] = task.split()[0]
        folder = Path("results/s") / f"{task}-{number}"
        make_run(folder, config=known, prompts=3, samples=1, repeats=1, seed=number)
    changed(Path("results/s/coding #2?-2/state.json"), status="failed", error="<gpt_4o> is out of reach")
    return read_study(Path("results/s"))


TABLE = Table(
    "main precision", "Precision <by> task", "Bold: best.", ("Model", "coding", "closed qa"),
    (
        (Cell("gemma"), Cell("81.0 [80.0, 82.0]", 81.0, bold=True), Cell("")),
        (Cell("llama"), Cell("9.5", 9.5, note="published & old"), Cell("7", 7.0, note="n = 3")),
    ),
)  # fmt: skip
FIGURE = Figure("scaling", "Scaling", "Bands: 95%.", [{"x": 1, "y": 2.34567}], "<svg onload='alert(3)'/>", b"")


def test_tables_are_shown_with_what_they_sort_by_and_their_notes(study: Study) -> None:
    page = study_page(study, [TABLE], [])
    assert "Precision &lt;by&gt; task" in page
    assert '<td data-value="81.0"><strong>81.0 [80.0, 82.0]</strong></td>' in page
    assert '<td data-value="9.5">9.5<sup title="published &amp; old">1</sup></td>' in page
    assert '<td data-value="7.0">7<sup title="n = 3">2</sup></td>' in page
    assert "<li>published &amp; old</li><li>n = 3</li>" in page
    assert '<th scope="row">gemma</th>' in page
    assert 'href="tables/main%20precision.csv"' in page


def test_figures_are_images_that_run_no_script(study: Study) -> None:
    page = study_page(study, [], [FIGURE])
    assert "<svg onload" not in page
    (source,) = re.findall(r'<img src="data:image/svg\+xml;base64,([^"]*)"', page)
    assert base64.b64decode(source).decode() == FIGURE.svg
    assert '<td data-value="2.34567">2.3457</td>' in page
    assert 'alt="Scaling. Bands: 95%."' in page


def test_runs_are_linked_and_those_without_a_result_are_named(study: Study) -> None:
    page = study_page(study, [], [])
    text = visible(page)
    links = re.findall(r'<th scope="row"><a href="([^"]*)">', page)
    assert links == ["closed_qa-1/report.html", "coding%20%232%3F-2/report.html", "coding-0/report.html"]
    assert "Failed coding #2?-2 , 2 iterations complete &lt;gpt_4o&gt; is out of reach" in text
    assert "which differ in task (2)." in text
    assert "Runs done 2 of 3" in text
    assert "sum over runs; a reply that several share counts in each" in text
    row = next(row for row in study.reported() if row["run"] == "coding-0")
    assert f"{row['precision_mean']:.1f} [{row['precision_low']:.1f}, {row['precision_high']:.1f}]" in text
    assert "Rehearsal" not in text


def test_a_run_of_a_study_leads_back_to_it(study: Study) -> None:
    page = run_page(study.runs[0], study)
    assert '<a href="../report.html">s</a>' in page
    alone = read_study(study.runs[0].folder)
    assert run_page(alone.runs[0], alone) == run_page(alone.runs[0])


def test_a_studys_page_is_the_same_wherever_it_lies(study: Study, tmp_path: Path) -> None:
    page = study_page(study, [TABLE], [FIGURE])
    shutil.copytree(study.root, tmp_path / "elsewhere" / "s")
    assert study_page(read_study(tmp_path / "elsewhere" / "s"), [TABLE], [FIGURE]) == page
    assert str(tmp_path) not in page
    assert not re.search(r"https?://", page)


def test_rehearsals_in_a_study_are_counted(study: Study) -> None:
    for run in study.runs[:2]:
        run.experiment.data.source = DataSource.pocket
    text = visible(study_page(study, [], []))
    assert "Rehearsal. 2 of 3 runs are of the pocket profile" in text
