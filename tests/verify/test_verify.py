"""Verification: what is stored is what its replies come to, and whatever was changed is found and named.

Training and answering are `fakes.quick_stages`; the run's folder, its journal and everything derived are real.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_stages, quiet, rows_of, script_judge, verdict

from llamaduo.cli import main
from llamaduo.config import Experiment
from llamaduo.errors import InputError, ServiceError
from llamaduo.loop import run
from llamaduo.runs.finished import run_folder
from llamaduo.runs.layout import CHECKSUMS
from llamaduo.service.journal import default_path
from llamaduo.verify.archive import NAME, pack, unpacked
from llamaduo.verify.compare import Verified
from llamaduo.verify.verify import verify

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
CHECKOUT = Path(__file__).parents[2]


def a_run(compose: Compose, *overrides: str) -> Path:
    """Make a run of three iterations with two rounds of synthesis; return its folder."""
    scores = {0: 20, 16: 60, 32: 95}
    script_judge(lambda prompt, _: verdict(scores[max(rows for rows in scores if rows <= rows_of(prompt))]))
    experiment = compose(*SMALL, *JUDGED_BY_SCRIPT, *overrides)
    run(experiment, display=quiet())
    return run_folder(experiment)


@pytest.fixture
def folder(compose_experiment: Compose, quick_stages: None) -> Path:
    return a_run(compose_experiment)


def change(path: Path, pattern: str, replacement: str) -> None:
    """Change the first match in a file."""
    text = path.read_text()
    changed = re.sub(pattern, replacement, text, count=1)
    assert changed != text
    path.write_text(changed)


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_untouched_run_comes_out_as_it_is_stored_and_is_left_alone(folder: Path) -> None:
    before = contents(folder)
    found = verify(folder)
    assert (found.differences, list(found.unchecked)) == ([], ["adapters: their weights are not here."])
    assert found.counts["predictions taken as stored"] == 48
    assert found.counts["verdicts"] == 4 * 6 * 2
    assert found.counts["scorecards"] == 4
    assert found.counts["synthetic rows"] >= 24
    assert (found.counts["lines of metrics"], found.counts["states"], found.counts["fingerprints"]) == (3, 1, 1)
    assert contents(folder) == before


CHANGES = {
    "a verdict": (
        "iterations/01/verdicts.jsonl", r'"similarity": 60.0', '"similarity": 61.0', "stored as 61.0, derived as 60.0"
    ),
    "a verdict made unscored": (
        "iterations/00/verdicts.jsonl", r'"unscored": null', '"unscored": "empty"', "unscored is stored as"
    ),
    "a scorecard": ("iterations/02/scorecard.json", r'"mean": 95.0', '"mean": 99.0', "scorecard.json:3"),
    "a line of metrics": (
        "metrics.jsonl", r'"precision_mean": 60.0', '"precision_mean": 66.0', "precision_mean is stored as 66.0"
    ),
    "the time": ("metrics.jsonl", r'"seconds": [\d.]+', '"seconds": 12345.0', "seconds is stored as 12345.0"),
    "a synthetic row": ("iterations/00/synthetic.jsonl", r'"response": "', '"response": "x', "synthetic.jsonl:1"),
    "what curation counted": ("iterations/00/curation.json", r'"wanted": \d+', '"wanted": 1', "curation.json"),
    "the stop reason": ("state.json", r'"passed"', '"plateau"', 'stop_reason is stored as "plateau"'),
    "the verdict": ("state.json", r"takes over", "does not take over", "verdict is stored as"),
    "the cost": ("state.json", r'"cost_usd": 0.0', '"cost_usd": -1.0', "cost_usd is stored as -1.0"),
    "the test split": ("state.json", r'"scored": 12', '"scored": 13', "test is stored as"),
    "the configuration": ("config.yaml", r"max_iterations: 5", "max_iterations: 6", "come to fingerprint"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_is_changed_is_found_and_named(name: str, folder: Path) -> None:
    file, pattern, replacement, told = CHANGES[name]
    change(folder / file, pattern, replacement)
    assert any(told in difference for difference in verify(folder).differences), verify(folder).differences


def test_a_changed_answer_has_no_verdict(folder: Path) -> None:
    path = folder / "iterations/00/predictions.jsonl"
    change(path, r"rows=8 sample=0", "rows=8 sample=9")
    found = verify(folder)
    assert any("not what its marker was made for" in text for text in found.differences)
    assert any("holds no reply" in text for text in found.unchecked)


def test_without_a_journal_the_rest_is_derived_from_the_stored_verdicts(folder: Path) -> None:
    default_path().unlink()
    found = verify(folder)
    assert found.differences == []
    assert any("no journal" in text for text in found.unchecked)
    assert "verdicts" not in found.counts
    assert found.counts["scorecards"] == 4
    change(folder / "iterations/01/verdicts.jsonl", r'"similarity": 60.0', '"similarity": 61.0')
    assert any("scorecard.json" in text for text in verify(folder).differences)


def test_a_run_that_failed_is_compared_as_far_as_it_came(compose_experiment: Compose, quick_stages: None) -> None:
    script_judge(lambda prompt, _: verdict(20) if rows_of(prompt) < 16 else "no JSON")
    experiment = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT)
    with pytest.raises(ServiceError, match="unscored"):
        run(experiment, display=quiet())
    found = verify(run_folder(experiment))
    assert found.differences == []
    assert any("not finished (failed)" in text for text in found.unchecked)
    assert found.counts["verdicts"] == 12


ACCOUNTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "rows read": (lambda told: told.update(read=told["read"] + 1), "does not come to the 41 rows read"),
    "a count": (lambda told: told["used"].update(dev=told["used"]["dev"] + 1), "does not come to the 40 rows read"),
    "a split": (
        lambda told: told["used"].update(dev=told["used"]["dev"] + 1, test=told["used"]["test"] - 1),
        "data.json: used is stored as",
    ),
    "a reason": (lambda told: told["left_out"][0].update(reason="old"), "data.json: left_out is stored as"),
    "a note": (lambda told: told["notes"].clear(), "data.json: notes is stored as"),
    "no counts": (lambda told: told.clear(), "can't be compared"),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_what_was_read_of_the_data_is_derived_again(
    name: str, compose_experiment: Compose, quick_stages: None, tmp_path: Path
) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Say {n} in {n + 3} words", "response": f"number {n}", "finish_reason": "stop" if n else "length"}
        | {"id": n}
        for n in range(40)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = a_run(compose_experiment, "data=file", f"data.path={data}", "synthesis=none")
    (made / CHECKSUMS).unlink()  # an archive has none
    found = verify(made)
    assert (found.differences, found.counts["accounts of data"]) == ([], 1)
    account = json.loads((made / "data.json").read_text())
    change_account, told = ACCOUNTS[name]
    change_account(account)
    (made / "data.json").write_text(json.dumps(account))
    assert any(told in text for text in verify(made).differences), verify(made).differences


def test_a_run_killed_before_it_answered_is_no_fault(folder: Path) -> None:
    for name in ("predictions.jsonl", "verdicts.jsonl", "scorecard.json"):
        for path in folder.glob(f"iterations/02/{name}*"):
            path.unlink()
    shutil.rmtree(folder / "iterations/test")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:2]))
    change(folder / "state.json", '"status": "done"', '"status": "running"')
    found = verify(folder)
    assert found.differences == []
    assert any("not finished (running)" in text for text in found.unchecked)


def test_without_the_data_file_synthetic_rows_are_taken_as_stored(
    compose_experiment: Compose,
    quick_stages: None,
    tmp_path: Path,
) -> None:
    data = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"Say the number {n} in {n + 3} words", "response": f"number {n}"} for n in range(40)]
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    made = a_run(compose_experiment, "data=file", f"data.path={data}", "synthesis=none")
    assert not verify(made).differences
    data.unlink()
    found = verify(made)
    assert found.differences == []
    assert any("taken as stored" in text and "pairs.jsonl" in text for text in found.unchecked)
    assert found.counts["verdicts"] > 0
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs[1:]))
    assert any("fingerprint" in text for text in verify(made).differences)


def test_a_run_killed_while_it_judged_is_no_fault(folder: Path) -> None:
    for path in [*folder.glob("iterations/01/verdicts.jsonl*"), *folder.glob("iterations/01/scorecard.json*")]:
        path.unlink()
    for name in ("02", "test"):
        shutil.rmtree(folder / "iterations" / name)
    for path in [*folder.glob("iterations/01/[sc][yu]*"), *folder.glob("iterations/01/provenance*")]:
        path.unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(lines[0])
    change(folder / "state.json", '"status": "done"', '"status": "running"')
    assert verify(folder).differences == []
    default_path().unlink()
    assert verify(folder).differences == []


def test_a_run_that_its_budget_stopped_is_derived_to_its_verdict(
    compose_experiment: Compose,
    quick_stages: None,
) -> None:
    script_judge(lambda prompt, _: verdict(20))
    price = "+judge.panel.endpoint.price={input: 0, output: 1000, as_of: test}"
    priced = (*SMALL, *JUDGED_BY_SCRIPT, price, "judge.panel.endpoint.max_tokens=100")
    whole = run(compose_experiment(*priced, "study=whole", "data.seed=7"), display=quiet())
    experiment = compose_experiment(*priced, f"loop.budget_usd={whole.cost_usd / 2 + 0.1}")
    state = run(experiment, display=quiet())
    assert (state.status, state.stop_reason) == ("done", "budget")
    assert state.iterations
    found = verify(run_folder(experiment))
    assert (found.differences, found.counts["states"]) == ([], 1)


def test_an_artifact_too_many_or_too_few_is_named(folder: Path) -> None:
    for name in ("scorecard.json", "scorecard.json.done"):
        (folder / "iterations/00" / name).unlink()
    shutil.copytree(folder / "iterations/02", folder / "iterations/07")
    told = "\n".join(verify(folder).differences)
    assert "iterations/00/scorecard.json: is missing" in told
    assert "iterations/07/verdicts.jsonl: nothing leads to it" in told


def test_a_torn_marker_is_a_difference(folder: Path) -> None:
    (folder / "iterations/00/verdicts.jsonl.done").write_text("")
    assert any("00/verdicts.jsonl: not what its marker" in text for text in verify(folder).differences)


class TestArchive:
    def packed(self, folder: Path) -> tuple[Path, Verified]:
        found = verify(folder.parent)
        file = folder.parent / NAME
        pack(folder.parent, file, [folder], found.keys, found.journals)
        return file, found

    def test_a_stranger_derives_the_same_from_the_archive_alone(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file, found = self.packed(folder)
        assert len(found.keys) > 4 * 12
        monkeypatch.setenv("LLAMADUO_HOME", str(tmp_path / "another home"))
        shutil.rmtree(folder)
        assert main(["verify", str(file)]) == 0
        assert main(["verify", str(file.parent)]) == 0
        assert "48 verdicts" in capsys.readouterr().out
        assert not (tmp_path / "another home").exists()

    def test_the_same_runs_make_the_same_bytes(self, folder: Path) -> None:
        file, found = self.packed(folder)
        again = file.with_name("again.tar.xz")
        pack(folder.parent, again, [folder], found.keys, found.journals)
        assert again.read_bytes() == file.read_bytes()

    def test_a_reply_that_was_taken_out_is_a_difference(self, folder: Path) -> None:
        file, read = self.packed(folder)
        with unpacked(file) as (inside, journal):
            rows = (inside / "replies.jsonl").read_text().splitlines()
            assert len(rows) == len(read.keys)
            found = verify(inside, journal=journal, whole=True)
            assert found.differences == []
        repacked(
            file, lambda name, content: b"\n".join(content.split(b"\n")[4:]) if name == "replies.jsonl" else content
        )
        with unpacked(file) as (inside, journal):
            found = verify(inside, journal=journal, whole=True)
            assert any("holds no reply" in text for text in found.differences)

    def test_a_changed_reply_is_refused(self, folder: Path) -> None:
        file, _ = self.packed(folder)
        repacked(file, lambda _, content: content.replace(b'\\"score\\": 60', b'\\"score\\": 99', 1))
        with pytest.raises(InputError, match="1 of its replies are damaged"), unpacked(file):
            pass

    def test_a_member_may_not_leave_the_folder(self, folder: Path, tmp_path: Path) -> None:
        file, _ = self.packed(folder)
        repacked(file, lambda _, content: content, extra="../outside.txt")
        with pytest.raises(InputError, match="no archive of a study"), unpacked(file):
            pass
        assert not list(tmp_path.rglob("outside.txt"))

    def test_what_is_no_archive_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "x.tar.xz"
        file.write_bytes(b"nonsense")
        with pytest.raises(InputError, match="no archive of a study"), unpacked(file):
            pass


def repacked(file: Path, change: Callable[[str, bytes], bytes], extra: str | None = None) -> None:
    """Write an archive again with changed members."""
    with tarfile.open(file, "r:xz") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    changed = {name: change(name, content) for name, content in members.items()} | ({extra: b"x"} if extra else {})
    with lzma.open(file, "wb") as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in changed.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def test_the_command_says_what_differs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder)]) == 0
    change(folder / "metrics.jsonl", r'"precision_mean": 60.0', '"precision_mean": 66.0')
    assert main(["verify", str(folder)]) == 4
    told = capsys.readouterr()
    assert "DIFFERENT: " in told.out
    assert "1 differences from what its replies come to" in told.err
    target = folder.parent / "never.tar.xz"
    assert main(["verify", str(folder), "--archive", str(target)]) == 4
    assert not target.exists()


def test_a_report_is_written_again_and_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = folder.parent
    assert main(["report", str(study)]) == 0
    assert main(["verify", str(study)]) == 0
    assert "files of the report" in capsys.readouterr().out
    change(study / "runs.csv", r",60\.0,", ",61.0,")
    change(study / "report.html", r"95\.0", "99.0")
    change(folder / "report.html", r"95\.0", "99.0")
    (study / "tables" / "ours.csv").write_text("a,b\n")
    (study / "tables" / "runs.md").unlink()
    assert main(["verify", str(study)]) == 4
    told = capsys.readouterr().out
    assert "runs.csv:" in told
    assert "DIFFERENT: report.html:" in told
    assert f"DIFFERENT: {folder.name}/report.html:" in told
    assert "tables/ours.csv: no file of a report" in told
    assert "tables/runs.md: is missing" in told


def test_all_archived_studies_of_a_folder_are_verified(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        (folder.parent.parent / name).mkdir()
        assert main(["verify", str(folder), "--archive", str(folder.parent.parent / name / NAME)]) == 0
    shutil.rmtree(folder.parent)
    capsys.readouterr()
    assert main(["verify", str(folder.parent.parent)]) == 0
    assert capsys.readouterr().out.count("48 verdicts") == 2


@pytest.mark.parametrize("wrong", [[], ["a", "b"], ["--archive", "x"], ["--help-me"]])
def test_wrong_arguments_are_explained(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", *wrong]) == 2
    assert "usage: llamaduo verify" in capsys.readouterr().err


def test_nothing_heavy_is_loaded(folder: Path) -> None:
    code = (
        "import sys; from llamaduo.cli import main; "
        f"assert main(['verify', {str(folder)!r}]) == 0; "
        "sys.exit(str([m for m in ('torch', 'litellm', 'transformers', 'wandb', 'datasets') if m in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.stderr.strip() == "[]", done.stderr


ARCHIVES = sorted((CHECKOUT / "results").glob(f"*/{NAME}"))


@pytest.mark.skipif(not ARCHIVES, reason="no rehearsal is committed under results/")
@pytest.mark.parametrize("file", ARCHIVES, ids=lambda file: file.parent.name)
def test_a_committed_rehearsal_comes_out_as_it_is_stored(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(file.parent)]) == 0, capsys.readouterr()
