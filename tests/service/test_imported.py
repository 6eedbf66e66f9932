"""Journals of strangers: marked when taken in, read as tables, believed no further than their raw replies."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from numbered import REQUESTS, ROWS, answering, ask_all, filled, text_of

from llamaduo.config import Experiment
from llamaduo.errors import InputError
from llamaduo.service.access import open_service
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.ledger import TakenIn, export, take_in, verify
from llamaduo.service.schema import REPLY, checksum

TEXTS = [text_of(number) for number in range(ROWS)]


@pytest.fixture(scope="module")
def asked() -> Iterator[list[int]]:
    with answering() as asked:
        yield asked


@pytest.fixture(scope="module")
def original(asked: list[int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(tmp_path_factory.mktemp("original") / "journal.sqlite")


@pytest.fixture
def path(tmp_path: Path, asked: list[int]) -> Path:
    asked.clear()
    return tmp_path / "mine" / "journal.sqlite"


def rows_of(original: Path, place: Path) -> list[dict[str, Any]]:
    reader = Journal(original, read_only=True)
    export(reader, place / "all.jsonl")
    reader.close()
    return [json.loads(line) for line in (place / "all.jsonl").read_text(encoding="utf-8").splitlines()]


def taken(path: Path, file: Path) -> TakenIn:
    journal = Journal(path)
    try:
        return take_in(journal, file)
    finally:
        journal.close()


def written(place: Path, rows: list[dict[str, Any]]) -> Path:
    file = place / "export.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def signed(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with the checksum that it needs: anybody can make one."""
    return {**row, "checksum": checksum(*(row[name] for name in (*REPLY, "raw")))}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".sqlite"])
def test_imported_replies_are_for_replays_and_for_whoever_asks_for_them(
    suffix: str, original: Path, path: Path, asked: list[int], tmp_path: Path
) -> None:
    file = tmp_path / f"export{suffix}"
    if suffix == ".sqlite":
        shutil.copyfile(original, file)
    else:
        reader = Journal(original, read_only=True)
        export(reader, file)
        reader.close()
    assert taken(path, file) == TakenIn(ROWS, 0, 0)
    reader = Journal(path, read_only=True)
    assert verify(reader).faults == ()
    assert reader.query("SELECT DISTINCT imported FROM replies") == [(file.name,)]
    reader.close()
    assert ask_all(path, replay=True)[0] == TEXTS
    assert ask_all(path, imported=True)[0] == TEXTS
    assert asked == []
    assert ask_all(path)[0] == TEXTS
    assert sorted(asked) == list(range(ROWS))
    assert ask_all(path)[0] == TEXTS
    assert len(asked) == ROWS
    reader = Journal(path, read_only=True)
    assert (reader.imported(), verify(reader).faults) == (0, ())
    reader.close()


def test_a_run_after_an_import_asks_everything_itself(
    original: Path, path: Path, asked: list[int], tmp_path: Path
) -> None:
    taken(path, shutil.copyfile(original, tmp_path / "theirs.sqlite"))
    assert ask_all(path)[0] == TEXTS
    assert sorted(asked) == list(range(ROWS))


def test_a_run_says_how_many_are_imported_and_what_becomes_of_them(
    original: Path, path: Path, experiment: Experiment, tmp_path: Path
) -> None:
    taken(path, shutil.copyfile(original, tmp_path / "theirs.sqlite"))
    said = {}
    for settings in ({}, {"imported": True}, {"replay": True}):
        service = replace(experiment.service, journal=str(path), **settings)
        opened = open_service(replace(experiment, service=service), tmp_path / "study" / "run")
        assert isinstance(opened, Service)
        (said[tuple(settings)],) = opened.outlook
        opened.close()
    assert all(f"{ROWS} replies are imported" in text for text in said.values())
    assert "they are not used" in said[()]
    assert "service.imported=true" in said[()]
    assert "as if they had been bought here" in said["imported",]
    assert said["replay",].endswith("they are used.")


def test_what_was_bought_here_stays_and_is_no_import(
    original: Path, path: Path, asked: list[int], tmp_path: Path
) -> None:
    filled(path)
    assert taken(path, shutil.copyfile(original, tmp_path / "theirs.sqlite")) == TakenIn(0, ROWS, 0)
    reader = Journal(path, read_only=True)
    assert reader.imported() == 0
    reader.close()


def test_an_export_of_imported_replies_is_the_one_they_came_from(original: Path, path: Path, tmp_path: Path) -> None:
    rows = rows_of(original, tmp_path)
    taken(path, written(tmp_path, rows))
    assert rows_of(path, tmp_path) == rows


DOCTORED = {
    "text": {"text": "similarity 100"},
    "nothing": {"text": ""},
    "reason": {"finish_reason": "length"},
    "raw": {"raw": json.dumps({"choices": [{"message": {"content": "other"}, "finish_reason": "stop"}]})},
    "no raw": {"raw": "{}"},
    "no JSON": {"raw": "text"},
    "more tokens of the prompt": {"prompt_tokens": 10**6},
    "more tokens of the reply": {"completion_tokens": 10**6},
}


@pytest.mark.parametrize("name", DOCTORED)
def test_words_that_are_not_those_of_the_raw_reply_are_refused(
    name: str, original: Path, path: Path, tmp_path: Path
) -> None:
    rows = rows_of(original, tmp_path)
    rows[3] = signed({**rows[3], **DOCTORED[name]})
    assert taken(path, written(tmp_path, rows)) == TakenIn(ROWS - 1, 0, 1, 1)


STRANGE = {
    "negative cost": {"cost_usd": -1.0},
    "infinite cost": {"cost_usd": 1e999},
    "cost as text": {"cost_usd": "0"},
    "tokens as text": {"prompt_tokens": "3"},
    "tokens as float": {"prompt_tokens": 3.0},
    "negative tokens": {"completion_tokens": -3},
    "text as number": {"text": 3},
    "raw as object": {"raw": {"choices": []}},
    "no time": {"received_at": None},
    "time as text": {"received_at": "today"},
    "failure as number": {"failure": 3},
}


@pytest.mark.parametrize("name", STRANGE)
def test_values_of_another_kind_are_refused(name: str, original: Path, path: Path, tmp_path: Path) -> None:
    rows = rows_of(original, tmp_path)
    rows[3] = signed({**rows[3], **STRANGE[name]})
    assert taken(path, written(tmp_path, rows)) == TakenIn(ROWS - 1, 0, 1)


def test_what_earlier_versions_stored_of_batches_and_thoughts_is_taken_in(path: Path, tmp_path: Path) -> None:
    message = {"role": "assistant", "content": "<think>so</think>yes"}
    body = {"choices": [{"message": message, "finish_reason": "eos"}], "usage": {}}
    raw = {"custom_id": REQUESTS[0].key, "response": {"status_code": 200, "body": body}}
    row = {
        "key": REQUESTS[0].key, "request": json.dumps(REQUESTS[0].sent), "text": message["content"],
        "finish_reason": "eos", "prompt_tokens": 1, "completion_tokens": 1, "cost_usd": 0.5, "raw": json.dumps(raw),
        "received_at": 1.0, "failure": None,
    }  # fmt: skip
    assert taken(path, written(tmp_path, [signed(row)])) == TakenIn(1, 0, 0)
    assert taken(path, written(tmp_path, [signed({**row, "text": "no"})])) == TakenIn(0, 0, 1, 1)


VIEWS = {
    "a view in the place of replies": (
        "ALTER TABLE replies RENAME TO hidden",
        "CREATE VIEW replies AS SELECT * FROM hidden WHERE (WITH RECURSIVE n(i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT COUNT(*) FROM n) = 3",
    ),
    "a view in the place of requests": (
        "ALTER TABLE requests RENAME TO hidden", "CREATE VIEW requests AS SELECT * FROM hidden",
    ),
    "a column that computes": (
        "ALTER TABLE replies ADD COLUMN more AS (length(text) + 1)",
    ),
    "no replies": ("DROP TABLE replies",),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEWS)
def test_only_tables_are_read(name: str, original: Path, path: Path, tmp_path: Path) -> None:
    file = Path(shutil.copyfile(original, tmp_path / "theirs.sqlite"))
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        for statement in VIEWS[name]:
            db.execute(statement)
    with pytest.raises(InputError, match="are not the tables of a journal; nothing is read of it"):
        taken(path, file)
    reader = Journal(path, read_only=True)
    assert reader.query("SELECT COUNT(*) FROM requests") == [(0,)]
    reader.close()


def test_triggers_of_a_strangers_file_are_not_carried_out(original: Path, path: Path, tmp_path: Path) -> None:
    file = Path(shutil.copyfile(original, tmp_path / "theirs.sqlite"))
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=DELETE")
        db.execute("CREATE TRIGGER all_gone AFTER INSERT ON requests BEGIN DELETE FROM replies; END")
    content = file.read_bytes()
    assert taken(path, file) == TakenIn(ROWS, 0, 0)
    assert file.read_bytes() == content


def test_a_line_without_end_is_refused(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamaduo.service.ledger._LONGEST_ROW", 1000)
    file = tmp_path / "export.jsonl"
    file.write_text("[" * 5000, encoding="utf-8")
    with pytest.raises(InputError, match="a line has 1,000 characters or more"):
        taken(path, file)


def _deep(depth: int) -> str:
    return "[" * depth + "]" * depth


HOSTILE = {
    "a raw reply of no format that there is": {"raw": '{"format": "x"}'},
    "a raw reply nested deeply": {"raw": json.dumps({"format": "openai", "body": f'{{"choices": {_deep(600)}}}'})},
    "a content nested deeply": {"raw": f'{{"choices": [{{"message": {{"content": {_deep(600)}}}}}]}}'},
    "half a surrogate": {"raw": '{"choices": [{"message": {"content": "a\ud800"}, "finish_reason": "stop"}]}'},
    "half a surrogate as a failure": {"failure": "\ud800"},
    "a cost beyond what SQLite holds": {"cost_usd": 10**29},
    "a time beyond what SQLite holds": {"received_at": 10**29},
    "a request nested deeply": {"request": _deep(100_000)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_a_row_holds_it_is_refused_and_the_others_are_taken(
    name: str, original: Path, path: Path, tmp_path: Path
) -> None:
    rows = rows_of(original, tmp_path)
    text = "a?" if name == "half a surrogate" else rows[3]["text"]
    rows[3] = signed({**rows[3], "text": text, **HOSTILE[name]})
    found = taken(path, written(tmp_path, rows))
    assert (found.new, found.known, found.refused) == (ROWS - 1, 0, 1)


def test_a_line_nested_deeply_is_refused(original: Path, path: Path, tmp_path: Path) -> None:
    file = written(tmp_path, rows_of(original, tmp_path))
    file.write_text(f"{_deep(100_000)}\n{file.read_text()}")
    assert taken(path, file) == TakenIn(ROWS, 0, 1)
