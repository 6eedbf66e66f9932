"""Journals of strangers: marked when taken in, read as tables, believed no further than their raw replies."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asking import rows
from numbered import REQUESTS, ROWS, TEXTS, ask_all, change, filled

from llamaduo.config import Experiment
from llamaduo.errors import InputError
from llamaduo.service.access import open_service
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.ledger import TakenIn, export, take_in, verify
from llamaduo.service.schema import REPLY, checksum


@pytest.fixture
def path(tmp_path: Path, asked: list[int]) -> Path:
    return tmp_path / "mine" / "journal.sqlite"


@pytest.fixture
def theirs(original: Path, tmp_path: Path) -> Path:
    """Return a stranger's journal."""
    return Path(shutil.copyfile(original, tmp_path / "theirs.sqlite"))


def imports_and_faults(path: Path) -> tuple[int, tuple[str, ...]]:
    """Return how many replies of a journal are imported, and what is wrong with it."""
    with closing(Journal(path, read_only=True)) as reader:
        return reader.imported(), verify(reader).faults


def rows_of(original: Path, place: Path) -> list[dict[str, Any]]:
    with closing(Journal(original, read_only=True)) as reader:
        export(reader, place / "all.jsonl")
    return [json.loads(line) for line in (place / "all.jsonl").read_text(encoding="utf-8").splitlines()]


def taken(path: Path, file: Path) -> TakenIn:
    with closing(Journal(path)) as journal:
        return take_in(journal, file)


def written(place: Path, found: list[dict[str, Any]]) -> Path:
    file = place / "export.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
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
        with closing(Journal(original, read_only=True)) as reader:
            export(reader, file)
    assert taken(path, file) == TakenIn(ROWS, 0, 0)
    assert imports_and_faults(path) == (ROWS, ())
    assert rows(path, "SELECT DISTINCT imported FROM replies") == [(file.name,)]
    assert ask_all(path, replay=True)[0] == TEXTS
    assert ask_all(path, imported=True)[0] == TEXTS
    assert asked == []
    assert ask_all(path)[0] == TEXTS
    assert sorted(asked) == list(range(ROWS))
    assert ask_all(path)[0] == TEXTS
    assert len(asked) == ROWS
    assert imports_and_faults(path) == (0, ())


def test_a_run_after_an_import_asks_everything_itself(path: Path, theirs: Path, asked: list[int]) -> None:
    taken(path, theirs)
    assert ask_all(path)[0] == TEXTS
    assert sorted(asked) == list(range(ROWS))


def test_a_run_says_how_many_are_imported_and_what_becomes_of_them(
    path: Path, theirs: Path, experiment: Experiment, tmp_path: Path
) -> None:
    taken(path, theirs)
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


def test_what_was_bought_here_stays_and_is_no_import(path: Path, theirs: Path) -> None:
    filled(path)
    assert taken(path, theirs) == TakenIn(0, ROWS, 0)
    assert imports_and_faults(path) == (0, ())


def test_an_export_of_imported_replies_is_the_one_they_came_from(original: Path, path: Path, tmp_path: Path) -> None:
    found = rows_of(original, tmp_path)
    taken(path, written(tmp_path, found))
    assert rows_of(path, tmp_path) == found


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


@pytest.mark.parametrize(
    ("altered", "other_words"),
    [(altered, int(name in DOCTORED)) for name, altered in (DOCTORED | STRANGE).items()],
    ids=DOCTORED | STRANGE,
)
def test_values_of_another_kind_and_words_that_are_not_those_of_the_raw_reply_are_refused(
    altered: dict[str, Any], other_words: int, original: Path, path: Path, tmp_path: Path
) -> None:
    found = rows_of(original, tmp_path)
    found[3] = signed({**found[3], **altered})
    assert taken(path, written(tmp_path, found)) == TakenIn(ROWS - 1, 0, 1, other_words)


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
def test_only_tables_are_read(name: str, path: Path, theirs: Path) -> None:
    change(theirs, *VIEWS[name])
    with pytest.raises(InputError, match="are not the tables of a journal; nothing is read of it"):
        taken(path, theirs)
    assert rows(path, "SELECT COUNT(*) FROM requests") == [(0,)]


def test_triggers_of_a_strangers_file_are_not_carried_out(path: Path, theirs: Path) -> None:
    trigger = "CREATE TRIGGER all_gone AFTER INSERT ON requests BEGIN DELETE FROM replies; END"
    change(theirs, "PRAGMA journal_mode=DELETE", trigger)
    content = theirs.read_bytes()
    assert taken(path, theirs) == TakenIn(ROWS, 0, 0)
    assert theirs.read_bytes() == content


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
    found = rows_of(original, tmp_path)
    text = "a?" if name == "half a surrogate" else found[3]["text"]
    found[3] = signed({**found[3], "text": text, **HOSTILE[name]})
    came = taken(path, written(tmp_path, found))
    assert (came.new, came.known, came.refused) == (ROWS - 1, 0, 1)


def test_a_line_nested_deeply_is_refused(original: Path, path: Path, tmp_path: Path) -> None:
    file = written(tmp_path, rows_of(original, tmp_path))
    file.write_text(f"{_deep(100_000)}\n{file.read_text()}")
    assert taken(path, file) == TakenIn(ROWS, 0, 1)
