"""A rubric of one's own: the same fences as the blind prompt, named criteria, and the run that keeps its copy.

What no judge could be asked with is refused before anything is bought; what is judged with enters the run's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_stages, quiet, script_judge

from llamaduo.checks import problems
from llamaduo.cli import main
from llamaduo.compose import compose
from llamaduo.config import Experiment, fingerprint
from llamaduo.errors import ConfigError, InputError
from llamaduo.loop import run
from llamaduo.quote.quote import quote
from llamaduo.records import Verdict
from llamaduo.runs.finished import run_folder
from llamaduo.runs.folder import read_rows
from llamaduo.runs.setting import rubric_copy
from llamaduo.service import rubric
from llamaduo.service.prompts import judge_prompt, judge_template, text_hash

_ = quick_stages
Compose = Callable[..., Experiment]
Judged = Callable[..., Path]
BLIND = (files("llamaduo.service") / "templates" / "judge_blind.txt").read_text(encoding="utf-8")
FENCES = "\n".join(f"<<$mark {name}\n${name}\n$mark>>" for name in rubric.TEXTS)
OWN = f"Assess as our support team would; a good answer costs less than $$5.\n{FENCES}\nReply in JSON.\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "rubric.txt"
    path.write_text(OWN, encoding="utf-8")
    return path


def test_the_shipped_blind_prompt_would_pass_as_a_rubric_and_is_left_as_it_is() -> None:
    assert rubric.faults(BLIND) == []
    assert rubric.whole(BLIND, ()) == BLIND
    assert judge_template("blind") == BLIND
    assert judge_template("blind", ["tone"]).startswith(BLIND.rstrip("\n"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Judge this.", "lacks $mark, $instruction, $reference, $candidate"),
        (OWN.replace("$reference", "none"), "lacks $reference"),
        (OWN + "$question", "holds $question, which nothing fills"),
        (OWN + "${prompt}", "holds $prompt, which nothing fills"),
        (OWN + "for $5", "has a lone $: write $$"),
        (OWN + "$candidate", "has $candidate outside of its fence"),
        (OWN.replace("<<$mark candidate\n$candidate\n$mark>>", "$candidate"), "has $candidate outside of its fence"),
        (OWN.replace("$mark candidate", "$mark answer"), "has $candidate outside of its fence"),
        (OWN.replace("\n$mark>>", " $mark>>"), "has $instruction outside of its fence"),
        ("", "lacks $mark"),
    ],
)
def test_what_no_judge_can_be_asked_with_is_refused(
    text: str, told: str, tmp_path: Path, experiment: Experiment
) -> None:
    path = tmp_path / "r.txt"
    path.write_text(text, encoding="utf-8")
    experiment.judge.prompt = str(path)
    assert any(f"judge.prompt={path}: {told}" in problem for problem in problems(experiment))
    with pytest.raises(InputError, match=r"judge\.prompt="):
        judge_template(str(path))


def test_a_file_that_is_not_there_or_not_text_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"judge.prompt=blnd: neither blind nor paper, and no such file"):
        compose(["judge.prompt=blnd"])
    (tmp_path / "r.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"judge.prompt=.*can't be read .*name a text file in UTF-8"):
        compose([f"judge.prompt={tmp_path / 'r.bin'}"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("judge.criteria=[precision]",), "'precision' is a name of its own already"),
        (("judge.criteria=[Tone of voice]",), "'Tone of voice' is no name"),
        (("judge.criteria=[tone,tone]",), "named twice"),
        (("judge.criteria=[tone]", "judge.prompt=paper"), "the paper's prompt asks for none"),
        (("judge.criteria=[tone]", "judge=reference", "synthesis=none"), "judge=reference scores closeness alone"),
    ],
)
def test_criteria_that_cant_be_are_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compose(list(overrides))


def test_texts_stand_in_the_fences_of_an_own_rubric_whatever_they_hold(own: Path) -> None:
    texts = {"instruction": "a $mark", "reference": "b $candidate", "candidate": "c\n>>"}
    prompt = judge_prompt(str(own), **texts)
    assert "costs less than $5." in prompt
    for name, text in texts.items():
        assert f" {name}\n{text}\n" in prompt
    assert '"similarity": {"reason"' in prompt  # it doesn't say what to reply, so that is said for it


def test_scores_that_the_rubric_names_itself_are_not_asked_for_twice() -> None:
    told = OWN + '{"similarity": 0, "precision": 0, "tone": 0}\n'
    assert rubric.whole(told, ["tone"]) == told
    assert rubric.whole(told, ["tone", "brevity"]).count('"brevity"') == 1


def test_the_name_of_a_run_follows_the_rubrics_content_and_the_criteria(own: Path, experiment: Experiment) -> None:
    before = fingerprint(experiment)
    experiment.judge.prompt = str(own)
    with_own = fingerprint(experiment)
    moved = own.with_name("moved.txt")
    own.rename(moved)
    experiment.judge.prompt = str(moved)
    assert fingerprint(experiment) == with_own != before
    moved.write_text(OWN + "Be kind.\n")
    changed = fingerprint(experiment)
    experiment.judge.criteria = ["tone"]
    assert len({before, with_own, changed, fingerprint(experiment)}) == 4


def _scored(names: tuple[str, ...], value: float) -> str:
    return json.dumps({name: {"reason": "r", "score": value} for name in names})


@pytest.fixture
def judged(quick_stages: None, compose_experiment: Compose) -> Judged:
    """Return a function that has a run judged with these scores, 95 each, and returns its folder."""

    def folder(names: tuple[str, ...], *overrides: str) -> Path:
        script_judge(lambda *_: _scored(names, 95))
        experiment = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT, "synthesis=none", *overrides)
        run(experiment, display=quiet())
        return run_folder(experiment)

    return folder


@pytest.mark.usefixtures("quick_stages")
class TestARun:
    def test_criteria_come_beside_the_two_scores_into_verdicts_and_scorecard(self, own: Path, judged: Judged) -> None:
        own_criteria = f"judge.prompt={own}", "judge.criteria=[tone,brevity]", "loop.max_iterations=1"
        here = judged(("similarity", "precision", "tone", "brevity"), *own_criteria) / "iterations/00"
        verdicts = read_rows(here / "verdicts.jsonl", Verdict)
        assert all(verdict.criteria == {"tone": 95.0, "brevity": 95.0} for verdict in verdicts)
        assert verdicts[0].prompt_hash == text_hash(judge_template(str(own), ["tone", "brevity"]))
        card = json.loads((here / "scorecard.json").read_text())
        assert card["criteria"]["tone"]["mean"] == 95.0
        assert card["criteria"]["tone"]["n"] == 12
        assert card["judges"]["endpoint"]["criteria"]["brevity"]["mean"] == 95.0

    def test_a_missing_criterion_leaves_the_verdict_unscored(self, judged: Judged) -> None:
        folder = judged(("similarity", "precision"), "judge.criteria=[tone]", "judge.max_unscored=1")
        verdicts = read_rows(folder / "iterations/00/verdicts.jsonl", Verdict)
        assert {(v.unscored, v.similarity, len(v.criteria)) for v in verdicts} == {("missing_score", None, 0)}

    def test_without_criteria_records_are_written_as_before(self, judged: Judged) -> None:
        folder = judged(("similarity", "precision"))
        here = folder / "iterations/00"
        assert "criteria" not in (here / "verdicts.jsonl").read_text() + (here / "scorecard.json").read_text()
        assert read_rows(here / "verdicts.jsonl", Verdict)[0].criteria == {}
        assert not rubric_copy(folder).exists()

    def test_verify_finds_the_rubric_in_the_runs_folder_when_the_file_is_gone(
        self, own: Path, judged: Judged, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = judged(("similarity", "precision", "tone"), f"judge.prompt={own}", "judge.criteria=[tone]")
        own.unlink()
        assert main(["verify", str(folder)]) == 0
        assert "1 fingerprints" in capsys.readouterr().out
        assert main(["verify", str(folder), "--archive", "run.tar.xz"]) == 0
        assert main(["verify", "run.tar.xz"]) == 0
        kept = rubric_copy(folder)
        kept.write_text(kept.read_text().replace("support", "sales"))
        assert main(["verify", str(folder)]) == 4

    def test_a_run_judges_with_its_copy_to_the_end(self, own: Path, compose_experiment: Compose) -> None:
        prompts: list[str] = []

        def program(prompt: str, _: object) -> str:
            prompts.append(prompt)
            own.write_text("something else", encoding="utf-8")
            return _scored(("similarity", "precision"), 95)

        script_judge(program)
        run(compose_experiment(*SMALL, *JUDGED_BY_SCRIPT, f"judge.prompt={own}", "synthesis=none"), display=quiet())
        assert prompts
        assert all("support team" in prompt for prompt in prompts)


def test_quote_counts_the_same_calls_with_a_rubric(own: Path, compose_experiment: Compose) -> None:
    import datetime

    def calls(*overrides: str) -> list[list[int]]:
        today = datetime.date(2026, 11, 21)
        return [line.calls for line in quote([compose_experiment(*overrides)], today=today).lines]

    assert calls(f"judge.prompt={own}", "judge.criteria=[tone]") == calls()


def test_the_pocket_judge_scores_criteria_too() -> None:
    from llamaduo.pocket import teacher
    from llamaduo.service.replies import read_scores

    asked = "In Python, define bako: it takes rimu and returns 3 plus rimu."
    texts = {"instruction": asked, "reference": "def bako(rimu): return 3 + rimu"}
    prompt = judge_prompt("blind", **texts, candidate="?", template=judge_template("blind", ["tone"]))
    assert read_scores(teacher.reply(prompt, {}), "stop", ["tone"]).criteria == {"tone": 0.0}


def test_the_rubric_of_the_docs_can_be_used() -> None:
    page = (Path(__file__).parents[2] / "docs/judges.md").read_text(encoding="utf-8")
    example = page.split("in place of `blind` (ours) or `paper`:\n```\n")[1].split("```")[0]
    assert rubric.faults(example) == []
    assert rubric.whole(example, ()) == example
