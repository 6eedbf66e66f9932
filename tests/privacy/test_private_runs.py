"""A run with `privacy=on`: nothing that was planted in its data is sent, and everything comes back.

Training and answering are `fakes.quick_stages`; teacher and judges are programs that take down what they are sent. What
is sent lies in the journal and in W&B's folder: none of the planted values may be in either, as it is or escaped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_train, quiet, script_judge, verdict

from llamaduo.config import Experiment
from llamaduo.local.job import AnswerJob
from llamaduo.loop import run
from llamaduo.privacy.hiding import Hidden
from llamaduo.privacy.tally import lines
from llamaduo.records import Example, Prediction
from llamaduo.runs import layout
from llamaduo.runs.finished import run_folder
from llamaduo.runs.record import read_runs
from llamaduo.service.journal import default_path
from llamaduo.studies.pages.page import run_page
from llamaduo.verify.archive import pack, unpacked
from llamaduo.verify.verify import verify

Compose = Callable[..., Experiment]
PLANTED = (
    "maria.lopez@firm.de", "Jürgen.Groß@büro.example.org", "+1 212 736 5000", "+49 30 901820", "4111 1111 1111 1111",
    "378282246310005", "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "536-22-1234", "12345678Z",
    "93.184.216.34", "2a00:1450:4001:81b::200e", "sk-abcdEFGH1234567890abcdefgh", "C-482915",
)  # fmt: skip
TEACHER = (
    "service_llm=endpoint",
    "service_llm.provider=scripted",
    "service_llm.base_url=http://localhost:9",
    "service_llm.model=teacher",
)
PRIVATE = ("privacy=on", "privacy.patterns.customer='C-[0-9]{6}'")


def rows(path: Path) -> Path:
    """Write 24 rows, each with two of the planted values."""
    with path.open("w") as file:
        for at in range(24):
            one, other = PLANTED[at % len(PLANTED)], PLANTED[(at * 5 + 3) % len(PLANTED)]
            prompt = f"Ticket {at}, version 1.2.3.4: I am the one with {one}, what is open about {at * 7 + 3}?"
            file.write(json.dumps({"prompt": prompt, "response": f"For {other}: case {at} is open."}) + "\n")
    return path


class Asked:
    """A teacher and a judge that take down what they are sent."""

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, prompt: str, _: Mapping[str, Any]) -> str:
        """Answer; the teacher writes the seed again, in another case and with escapes."""
        self.prompts.append(prompt)
        if "candidate" in prompt:
            return verdict(60.0 + len(prompt) % 7)
        instruction, response = re.findall(r"<<\w{16} \w+\n(.*?)\n\w{16}>>", prompt, re.DOTALL)[:2]
        number = len(self.prompts)
        pairs = [
            {"instruction": f"{instruction} Again, number {number}-{n}.", "response": f"{response} And {n}."}
            for n in range(8)
        ]
        return json.dumps({"contents": pairs}).replace("@", "\\u0040")


def echoing(job: AnswerJob, examples: tuple[Example, ...], *, progress: Any, **_: Any) -> list[Prediction]:
    """Answer with the prompt."""
    progress(1, 1)
    return [
        Prediction(e.prompt_id, k, e.prompt, e.response, f"You say {e.prompt}", "stop", 3, 3, cluster=e.cluster)
        for e in examples
        for k in range(job.config.samples)
    ]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr("llamaduo.steps.steps.train", quick_train)
    monkeypatch.setattr("llamaduo.steps.steps.infer", echoing)
    made = Asked()
    script_judge(made)
    return made


@pytest.fixture
def private(compose_experiment: Compose, tmp_path: Path) -> Experiment:
    data = rows(tmp_path / "pairs.jsonl")
    setup = ("data=file", f"data.path={data}", *SMALL, "loop.max_iterations=2")
    return compose_experiment(*setup, *JUDGED_BY_SCRIPT, *TEACHER, *PRIVATE)


def told_of(content: str) -> list[str]:
    """Return the planted values that show in a text."""
    escaped = {value: {value, json.dumps(value)[1:-1], value.replace("@", "\\u0040")} for value in PLANTED}
    return [value for value, forms in escaped.items() if any(form in content for form in forms)]


def journal_dump() -> str:
    with contextlib.closing(sqlite3.connect(default_path())) as db:
        return "\n".join(str(line) for line in db.iterdump())


def test_nothing_planted_is_sent_or_lies_in_the_journal(private: Experiment, asked: Asked) -> None:
    run(private, display=quiet())
    folder = run_folder(private)
    assert len(asked.prompts) > 10
    assert told_of("\n".join(asked.prompts)) == []
    assert told_of(journal_dump()) == []
    assert "@example.com" in journal_dump()
    assert "1.2.3.4" in "\n".join(asked.prompts)  # a version
    synthetic = (layout.place(folder, 0) / layout.SYNTHETIC).read_text()
    assert len(told_of(synthetic)) > 3  # what came back has the real values again
    assert "example.com" not in synthetic
    predictions = (layout.place(folder, 0) / layout.PREDICTIONS).read_text()
    assert len(told_of(predictions)) > 3

    told = {line.type: line for line in lines(folder / layout.PRIVACY)}
    assert told["mail"].values == 2
    assert told["mail"].rows > 2
    assert told["mail"].replaced > told["mail"].restored
    assert set(told) == {"mail", "phone", "card", "iban", "national_id", "ip", "key", "customer"}
    page = run_page(*read_runs(folder))
    assert "Values that were replaced before anything was sent" in page

    before = len(asked.prompts)
    again = replace(private, runtime=replace(private.runtime, results=f"{private.runtime.results}2"))
    run(again, display=quiet())
    assert len(asked.prompts) == before  # another run sends the same texts: nothing is bought twice


def test_without_privacy_it_would_be_sent(private: Experiment, asked: Asked) -> None:
    private.privacy.enabled, private.data.allow_keys = False, True
    run(private, display=quiet())
    assert len(told_of("\n".join(asked.prompts))) == len(told_of(journal_dump())) > 10


def test_a_copy_that_restores_nothing_would_be_found(
    private: Experiment, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llamaduo.privacy.restoring import Restored

    monkeypatch.setattr(Hidden, "restore", lambda _, text: Restored(text))
    run(private, display=quiet())
    synthetic = (layout.place(run_folder(private), 0) / layout.SYNTHETIC).read_text()
    assert told_of(synthetic) == []


def test_the_run_is_derived_again_on_another_machine(
    private: Experiment, asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(private, display=quiet())
    folder = run_folder(private)
    here = verify(folder)
    assert here.differences == []
    file = tmp_path / "runs.tar.xz"
    pack(folder.parent, file, [folder], here.keys, here.journals)
    monkeypatch.setenv("LLAMADUO_HOME", str(tmp_path / "elsewhere"))
    shutil.rmtree(folder)
    with unpacked(file) as (root, journal):
        there = verify(root, journal=journal, whole=True)
    assert there.differences == []
    assert there.counts["verdicts"] == here.counts["verdicts"] > 0
    asked.prompts.clear()


def test_wandbs_folder_holds_nothing_planted(private: Experiment, asked: Asked) -> None:
    private.tracking = replace(private.tracking, wandb=type(private.tracking.wandb).offline)
    run(private, display=quiet())
    folder = run_folder(private) / "wandb"
    files = [path for path in folder.rglob("*") if path.is_file()]
    content = b"\n".join(os.fsencode(path) + path.read_bytes() for path in files).decode("utf-8", "replace")
    assert "example.com" in content
    assert told_of(content) == []
    assert "C-[0-9]{6}" not in content
