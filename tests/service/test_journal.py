"""The journal: a reply that was paid for is there for ever, raw, for every run and every process.

The key of a request depends on everything that is sent and on the repeat's number, and on nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import InputError
from llamaduo.service.client import Request
from llamaduo.service.journal import Journal, Reply, default_path, request_key

LLM = ServiceLLM(
    name="a", provider="openai", model="m", price=Price(1.0, 2.0, "today"), parameters={"top_p": 0.5, "more": {"x": 1}}
)
REQUEST = Request(LLM, "prompt", {"type": "object"}, 0, "judge")


def key_of(request: Request) -> str:
    return request_key(request.sent())


def with_llm(**changes: Any) -> Request:
    return dataclasses.replace(REQUEST, llm=dataclasses.replace(LLM, **changes))


def reply(key: str, cost_usd: float = 0.25) -> Reply:
    return Reply(key, "text", "stop", 3, 4, cost_usd)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "deep/journal.sqlite")


@pytest.mark.parametrize(
    "changed",
    [
        with_llm(provider="anthropic"),
        with_llm(base_url="http://localhost:8000/v1"),
        with_llm(model="m2"),
        with_llm(max_tokens=17),
        with_llm(temperature=0.0),
        with_llm(send_seed=True),
        with_llm(json_schema=False),
        with_llm(parameters={"top_p": 0.6, "more": {"x": 1}}),
        with_llm(parameters={"top_p": 0.5, "more": {"x": 2}}),
        with_llm(parameters={}),
        dataclasses.replace(REQUEST, prompt="prompt "),
        dataclasses.replace(REQUEST, prompt="Prompt"),
        dataclasses.replace(REQUEST, schema={"type": "array"}),
        dataclasses.replace(REQUEST, schema=None),
        dataclasses.replace(REQUEST, repeat=1),
    ],
)
def test_the_key_changes_with_everything_sent_and_with_the_repeat(changed: Request) -> None:
    assert key_of(changed) != key_of(REQUEST)


@pytest.mark.parametrize(
    "changed",
    [
        with_llm(name="b"),
        with_llm(api_key_env="OTHER_KEY"),
        with_llm(key_required=False),
        with_llm(concurrency=1),
        with_llm(timeout_s=1.0),
        with_llm(max_attempts=1),
        with_llm(price=None),
        with_llm(retired="2020-01-01"),
        with_llm(parameters={"more": {"x": 1}, "top_p": 0.5}),
        dataclasses.replace(REQUEST, stage="synthesize"),
    ],
)
def test_the_key_does_not_change_with_what_is_not_sent(changed: Request) -> None:
    assert key_of(changed) == key_of(REQUEST)


def test_every_field_of_a_service_llm_is_classified_above() -> None:
    sent = {"provider", "base_url", "model", "max_tokens", "temperature", "send_seed", "json_schema", "parameters"}
    not_sent = {
        "name", "api_key_env", "key_required", "concurrency", "timeout_s", "max_attempts", "price", "retired",
    }  # fmt: skip
    assert {field.name for field in dataclasses.fields(ServiceLLM)} == sent | not_sent


def test_the_key_is_the_same_in_every_process_and_for_any_text() -> None:
    request = dataclasses.replace(REQUEST, prompt="äöü 日本語 \ud800 \u2028")
    code = (
        "from llamaduo.service.journal import request_key; import json, sys; "
        "print(request_key(json.loads(sys.stdin.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(request.sent()), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == key_of(request)


def test_no_key_of_a_provider_is_stored(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    journal.intend([(key_of(REQUEST), REQUEST.sent())], run="r", stage="judge")
    journal.record(reply(key_of(REQUEST)), raw="{}", run="r")
    journal.close()
    assert b"sk-very-secret" not in (tmp_path / "deep/journal.sqlite").read_bytes()


def test_an_unknown_key_has_no_reply(journal: Journal) -> None:
    journal.intend([("k", {"model": "m"})], run="r", stage="judge")
    assert journal.find("k") is None
    assert journal.spent("r") == 0.0


def test_a_reply_reads_back_equal_and_the_first_one_stays(journal: Journal) -> None:
    first = Reply("k", "text \x00 äöü 日本語\r\n", "length", 3, 4, 0.1 + 0.2)
    journal.record(first, raw="{}", run="r")
    journal.record(Reply("k", "other", "stop", 1, 1, 9.0), raw="{}", run="s")
    assert journal.find("k") == first
    assert journal.spent("s") == 0.0


def test_spent_is_by_run_and_adds_up(journal: Journal) -> None:
    for number in range(4):
        journal.record(reply(f"k{number}"), raw="{}", run="a" if number else "b")
    assert journal.spent("a") == pytest.approx(0.75)
    assert journal.spent("b") == pytest.approx(0.25)
    assert journal.spent("c") == 0.0


def test_a_second_connection_and_a_second_process_see_a_reply_at_once(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "deep/journal.sqlite"
    second = Journal(path)
    journal.record(reply("k"), raw="{}", run="r")
    assert second.find("k") == reply("k")
    code = (
        "import sys; from pathlib import Path; from llamaduo.service.journal import Journal, Reply; "
        f"j = Journal(Path({str(path)!r})); print(j.find('k').text); "
        "j.record(Reply('k2', 'theirs', 'stop', 1, 1, 0.5), raw='{}', run='other')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "text"
    found = journal.find("k2")
    assert found is not None
    assert found.text == "theirs"
    assert journal.spent("other") == 0.5


def test_a_process_that_dies_right_after_recording_has_recorded(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from llamaduo.service.journal import Journal, Reply; "
        "j = Journal(Path('journal.sqlite')); "
        "j.record(Reply('k', 't', 'stop', 1, 1, 0.5), raw='{}', run='r'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert Journal(tmp_path / "journal.sqlite").spent("r") == 0.5


def test_requests_are_stored_with_run_and_stage_before_any_reply(journal: Journal, tmp_path: Path) -> None:
    journal.intend([("k", REQUEST.sent())], run="study/run", stage="judge")
    journal.intend([("k", REQUEST.sent())], run="study/later", stage="judge")
    rows = sqlite3.connect(tmp_path / "deep/journal.sqlite").execute("SELECT key, request, run, stage FROM requests")
    ((key, request, run, stage),) = rows
    assert (key, run, stage) == ("k", "study/run", "judge")
    assert json.loads(request)["messages"] == [{"role": "user", "content": "prompt"}]


def _folder(path: Path) -> None:
    path.mkdir()


def _no_database(path: Path) -> None:
    path.write_bytes(b"this is a diary and no database" * 100)


def _below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where the folder should be")


@pytest.mark.parametrize("spoil", [_folder, _no_database, _below_a_file])
def test_a_path_that_can_not_be_used_is_an_input_error_with_a_way_out(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "home" / "journal.sqlite"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(InputError, match=r"journal .*journal\.sqlite: .*service\.journal") as caught:
        Journal(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_full_disk_is_an_input_error_and_the_journal_stays_usable(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A connection whose disk is full as long as `full` is set."""

        full = True

        def __init__(self, real: sqlite3.Connection) -> None:
            self.real = real

        def executemany(self, *arguments: Any) -> Any:
            if self.full:
                raise sqlite3.OperationalError("database or disk is full")
            return self.real.executemany(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    full = Full(journal._db)
    monkeypatch.setattr(journal, "_db", full)
    with pytest.raises(InputError, match="disk is full"):
        journal.record(reply("k"), raw="{}", run="r")
    full.full = False
    journal.record(reply("k"), raw="{}", run="r")
    assert journal.find("k") == reply("k")


def test_the_default_path_follows_the_home_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_path() == tmp_path / "home/journal.sqlite"
    monkeypatch.delenv("LLAMADUO_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".llamaduo/journal.sqlite"
