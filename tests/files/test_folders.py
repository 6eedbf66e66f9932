"""Runs behind symbolic links count in every command that looks below a folder, and each once."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from llamaduo.files.folders import below, files_below
from llamaduo.runs.record import read_runs
from llamaduo.studies.report import report
from llamaduo.sweeps.status import status
from llamaduo.verify.verify import verify
from tests.made_runs import configuration, make_run


def test_links_are_followed_once_whatever_they_form() -> None:
    Path("far/deep").mkdir(parents=True)
    Path("far/deep/x").touch()
    Path("root/own").mkdir(parents=True)
    Path("root/own/x").touch()
    Path("root/linked").symlink_to("../far")
    Path("root/again").symlink_to("own")
    Path("far/deep/up").symlink_to("../../root")
    Path("root/gone").symlink_to("nowhere")
    assert files_below(Path("root"), "x") == [Path("root/linked/deep/x"), Path("root/own/x")]
    assert [folder for folder, _ in below(Path("root"))] == [
        Path(name) for name in ("root", "root/linked", "root/linked/deep", "root/own")
    ]


@pytest.fixture
def results() -> Path:
    """Return a folder with a study in it, a linked study, a linked run, and a second link to a run."""
    config = configuration("preset=service", "judge=paper_panel", "service.replay=true", "study=near")
    first = make_run(Path("results/near/run-00000000"), config=config, prompts=2, samples=1, repeats=1)
    for place in ("disk/study/run-11111111", "disk/run-22222222"):
        shutil.copytree(first, place)
    Path("results/linked").symlink_to("../disk/study")
    Path("results/near/run-22222222").symlink_to("../../disk/run-22222222")
    Path("results/near/latest").symlink_to("run-00000000")
    return Path("results")


NAMES = ["linked/run-11111111", "near/run-00000000", "near/run-22222222"]


def test_report_has_every_run(results: Path) -> None:
    assert [run.name for run in read_runs(results)] == NAMES
    report(str(results))
    with open(results / "runs.csv", newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == set(NAMES)
    assert all((results / name / "report.html").exists() for name in NAMES)


def test_status_has_every_run_and_each_once(results: Path) -> None:
    assert sorted(cell.run for cell in status(str(results)).cells) == sorted(name.split("/")[1] for name in NAMES)
    Path("results/other").symlink_to("near")
    assert len(status(str(results)).cells) == 3


def test_verify_has_every_run_and_artifacts_behind_a_link(results: Path) -> None:
    shutil.move("disk/study/run-11111111/iterations", "disk/moved")
    Path("disk/study/run-11111111/iterations").symlink_to("../../moved")
    Path("disk/moved/00/predictions.jsonl.done").write_text("{}")
    found = verify(results)
    assert found.counts["runs"] == 3
    told = "linked/run-11111111/iterations/00/predictions.jsonl: not what its marker was made for"
    assert any(text.startswith(told) for text in found.differences)


def test_a_study_whose_runs_are_all_links_is_one() -> None:
    config = configuration("preset=service", "judge=paper_panel", "service.replay=true")
    make_run(Path("disk/run-00000000"), config=config, prompts=2, samples=1, repeats=1)
    Path("results").mkdir()
    Path("results/run-00000000").symlink_to("../disk/run-00000000")
    assert [run.name for run in read_runs(Path("results"))] == ["run-00000000"]
