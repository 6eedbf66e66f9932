"""What was read, used and left out: on the screen at a run's start, in its folder, its page, its archive, the quote."""

from __future__ import annotations

import datetime
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import quick_stages

from llamaduo.config import Experiment
from llamaduo.display import Display
from llamaduo.loop import run
from llamaduo.quote.quote import quote
from llamaduo.runs.finished import run_folder
from llamaduo.studies.pages.page import write_run_page
from llamaduo.verify.archive import pack

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
OWN = (
    "data=file",
    "data.path=log.jsonl",
    "judge=reference",
    "synthesis=none",
    "loop.gate.precision=null",
    "loop.beside=[]",
)
LINES = [
    "data: 60 rows of log.jsonl, 40 used, 20 left out:",
    "  20: the answer is cut off (finish_reason: length); first log.jsonl:3",
    "  columns that are not read: <id> (40).",
]


@pytest.fixture
def experiment_of_a_log(compose_experiment: Compose) -> Experiment:
    rows = [
        {
            "prompt": f"What about invoice {n * 7919}, {n * 104729}?",
            "response": f"It was {n}.",
            "finish_reason": "length" if n % 3 == 0 else "stop",
            "<id>": n,
        }
        for n in range(1, 61)
    ]
    Path("log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return compose_experiment(*OWN, "loop.gate.similarity=null", "infer.samples=1", "infer.temperature=0")


@pytest.mark.usefixtures("quick_stages")
def test_it_is_said_at_the_start_and_kept(experiment_of_a_log: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    with Display() as display:
        run(experiment_of_a_log, display=display)
    said = capsys.readouterr().out.splitlines()
    assert all(line in said for line in LINES), said
    folder = run_folder(experiment_of_a_log)
    kept = json.loads((folder / "data.json").read_text())
    assert (kept["read"], sum(kept["used"].values()), kept["left_out"][0]["rows"]) == (60, 40, 20)
    write_run_page(folder)
    page = (folder / "report.html").read_text()
    assert "left out: the answer is cut off (finish_reason: length)</th><td>20</td>" in page
    assert '<td class="label">log.jsonl:3</td>' in page
    assert "Columns that are not read: &lt;id&gt; (40)." in page
    pack(folder.parent, Path("runs.tar.xz"), [folder], [], [])
    with tarfile.open("runs.tar.xz") as tar:
        assert f"{folder.name}/data.json" in tar.getnames()
    for name in ("data.json", ".checksums.json"):  # a run from before there were such files
        (folder / name).unlink()
    write_run_page(folder)
    assert "Rows of log.jsonl" not in (folder / "report.html").read_text()


def test_a_quote_says_it_too(experiment_of_a_log: Experiment) -> None:
    made = quote([experiment_of_a_log], today=datetime.date(2026, 1, 1))
    assert list(made.outlook[: len(LINES)]) == LINES


@pytest.mark.usefixtures("quick_stages")
def test_rows_that_can_not_be_used_are_listed_in_the_runs_folder_and_its_archive(
    experiment_of_a_log: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("log.jsonl").open("a") as log:
        log.write("{broken\n")
    with Display() as display:
        run(experiment_of_a_log, display=display)
    folder = run_folder(experiment_of_a_log)
    listed = [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]
    assert len(listed) == 21
    assert listed[-1] == {
        "place": "log.jsonl:61", "file": "log.jsonl", "line": 61, "reason": "not JSON", "excerpt": "{broken"
    }  # fmt: skip
    assert "  each of the 21 that can't be used: " in capsys.readouterr().out
    pack(folder.parent, Path("runs.tar.xz"), [folder], [], [])
    with tarfile.open("runs.tar.xz") as tar:
        assert f"{folder.name}/left_out.jsonl" in tar.getnames()
