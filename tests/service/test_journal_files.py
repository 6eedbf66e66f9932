"""Files that are no journal of today's shape: healthy ones are read or refused, and none is `repaired` into less."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asking import rows
from numbered import ROWS, TEXTS, ask_all, change

from llamaduo.errors import InputError
from llamaduo.service.attempts import count_again
from llamaduo.service.journal import Journal
from llamaduo.service.ledger import export, spend, take_in, verify
from llamaduo.service.schema import VERSION, connect, is_empty


@pytest.fixture
def path(original: Path, asked: list[int], tmp_path: Path) -> Path:
    """Return a copy of a journal with a dozen replies."""
    return Path(shutil.copyfile(original, tmp_path / "journal.sqlite"))


def kept_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob("journal.sqlite.damaged-*"))


def without_a_schema(path: Path) -> bytes:
    """Damage the tree of the schema; return what the file holds now."""
    content = bytearray(path.read_bytes())
    content[100:108] = bytes(8)
    path.write_bytes(content)
    return bytes(content)


REWRITTEN = {
    **{f"pages of {size}": (f"PRAGMA page_size={size}",) for size in (512, 1024, 8192, 16384, 65536)},
    "auto_vacuum": ("PRAGMA auto_vacuum=FULL",),
    "incremental": ("PRAGMA auto_vacuum=INCREMENTAL",),
    "an application's mark": ("PRAGMA application_id=77",),
    "a cache size": ("PRAGMA default_cache_size=4000",),
}


@pytest.mark.parametrize("name", REWRITTEN)
def test_a_healthy_file_of_another_layout_is_read_and_written(name: str, path: Path, asked: list[int]) -> None:
    change(path, "PRAGMA journal_mode=DELETE", *REWRITTEN[name], "VACUUM")
    assert ask_all(path) == (TEXTS, [])
    assert asked == []
    assert kept_aside(path) == []


def test_a_healthy_file_in_another_encoding_is_read(path: Path, asked: list[int], tmp_path: Path) -> None:
    other = tmp_path / "other" / "journal.sqlite"
    other.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        script = list(db.iterdump())
    with closing(sqlite3.connect(other, isolation_level=None)) as db:
        db.execute("PRAGMA encoding='UTF-16le'")
        db.executescript("\n".join(script))
        db.execute(f"PRAGMA user_version={VERSION}")
    assert ask_all(other) == (TEXTS, [])
    assert asked == []


@pytest.mark.parametrize("size", [512, 8192, 65536])
def test_a_damaged_file_of_another_page_size_keeps_what_is_sound(size: int, path: Path, asked: list[int]) -> None:
    change(path, "PRAGMA journal_mode=DELETE", f"PRAGMA page_size={size}", "VACUUM")
    without_a_schema(path)
    texts, notes = ask_all(path)
    assert texts == TEXTS
    assert f"{ROWS} replies are sound" in " ".join(notes)
    assert asked == []


NEWER = ("ALTER TABLE replies ADD COLUMN more TEXT", "CREATE TABLE others (id)", f"PRAGMA user_version={VERSION + 1}")


def test_a_newer_version_is_refused_and_left_as_it_is(path: Path) -> None:
    change(path, "PRAGMA journal_mode=DELETE", *NEWER)
    content = path.read_bytes()
    for opened in ({}, {"read_only": True}):
        with pytest.raises(InputError, match=f"its format {VERSION + 1} is that of a newer llamaduo"):
            Journal(path, **opened)
    assert rows(path, "SELECT COUNT(*) FROM replies") == [(ROWS,)]
    assert rows(path, "PRAGMA user_version") == [(VERSION + 1,)]
    assert kept_aside(path) == []
    assert path.read_bytes()[100:] == content[100:]


def test_a_damaged_newer_version_is_refused_too(path: Path) -> None:
    change(path, "PRAGMA journal_mode=DELETE", *NEWER)
    content = without_a_schema(path)
    with pytest.raises(InputError, match="it is left as it is; use the newer llamaduo that made it"):
        Journal(path)
    assert path.read_bytes() == content
    assert kept_aside(path) == []


def test_a_table_that_lost_an_index_or_has_a_column_more_loses_no_row(path: Path, asked: list[int]) -> None:
    change(path, "DROP INDEX reserved", "ALTER TABLE replies ADD COLUMN mine TEXT")
    texts, _ = ask_all(path)
    assert (texts, asked) == (TEXTS, [])


# ---------------------------------------------------------------- the log beside a file


def test_a_file_whose_log_can_not_be_read_in_place_is_copied_whole(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Journal(path)
    writer.write_now(lambda db: db.execute("UPDATE requests SET failure = 'in the log'"))
    there = tmp_path / "there"
    there.mkdir()
    for end in ("", "-wal"):
        shutil.copyfile(f"{path}{end}", there / f"journal.sqlite{end}")
    writer.close()
    before = sorted(one.name for one in there.iterdir())
    real = sqlite3.connect

    def no_shared_memory(database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        """Refuse what SQLite refuses where it may not make a file for its log's index."""
        if str(there) in str(database) and "immutable" not in str(database):
            raise sqlite3.OperationalError("unable to open database file")
        return real(database, *args, **kwargs)

    monkeypatch.setattr(sqlite3, "connect", no_shared_memory)
    monkeypatch.setattr(os, "access", lambda *_: False)
    reader = Journal(there / "journal.sqlite", read_only=True)
    assert reader.query("SELECT DISTINCT failure FROM requests") == [("in the log",)]
    assert export(reader, tmp_path / "all.jsonl") == ROWS
    reader.close()
    assert sorted(one.name for one in there.iterdir()) == before


# ---------------------------------------------------------------- empty files


def test_an_empty_file_is_said_to_be_empty(tmp_path: Path, asked: list[int]) -> None:
    path = tmp_path / "journal.sqlite"
    path.touch()
    with pytest.raises(InputError, match=r"the file is empty \(0 bytes\)"):
        Journal(path, read_only=True)
    texts, notes = ask_all(path)
    assert texts == TEXTS
    assert len(notes) == 1
    assert "the file was empty (0 bytes)" in notes[0]
    assert ask_all(path)[1] == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.sqlite"])
def test_an_empty_file_is_not_taken_in(name: str, path: Path, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with closing(Journal(path)) as journal, pytest.raises(InputError, match=r"the file is empty \(0 bytes\)"):
        take_in(journal, tmp_path / name)


# ---------------------------------------------------------------- sums


ALTERED = {
    "a cost": ("UPDATE attempts SET cost_usd = cost_usd / 2 WHERE id = 4", "attempts, row 4"),
    "a worst case": ("UPDATE attempts SET worst_usd = 0 WHERE id = 4", "attempts, row 4"),
    "an outcome": ("UPDATE attempts SET outcome = 'failed' WHERE id = 4", "attempts, row 4"),
    "a run": ("UPDATE attempts SET run = 'other/run' WHERE id = 4", "attempts, row 4"),
    "a checksum": ("UPDATE attempts SET checksum = NULL WHERE id = 4", "it has no checksum"),
    "a reply that is gone": ("DELETE FROM replies WHERE id = 4", "it brought a reply, and there is none"),
    "an attempt that is gone": ("DELETE FROM attempts WHERE id = 4", "there is no attempt that brought it"),
    "a sum": ("UPDATE spent SET usd = usd - 0.01 WHERE scope = 'study'", "spent, study:"),
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_ledger_is_found(name: str, path: Path) -> None:
    statement, said = ALTERED[name]
    with closing(Journal(path, read_only=True)) as journal:
        assert verify(journal).faults == ()
        change(path, statement)
        assert said in " ".join(verify(journal).faults)


# ---------------------------------------------------------------- the format before checksums of attempts

FIRST = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, request TEXT NOT NULL, failure TEXT
);
CREATE TABLE IF NOT EXISTS replies (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, cost_usd REAL NOT NULL, raw TEXT NOT NULL,
    received_at REAL NOT NULL, checksum TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS attempts (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, llm TEXT NOT NULL,
    owner TEXT NOT NULL, batch TEXT, worst_usd REAL NOT NULL, started_at REAL NOT NULL, outcome TEXT, cost_usd REAL
);
CREATE TABLE IF NOT EXISTS spent (id INTEGER PRIMARY KEY, scope TEXT NOT NULL UNIQUE, usd REAL NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, llm TEXT NOT NULL, remote_id TEXT NOT NULL, created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS set_aside (id INTEGER PRIMARY KEY, key TEXT, why TEXT, row TEXT, found_at REAL);
CREATE INDEX IF NOT EXISTS open_attempts ON attempts (key) WHERE outcome IS NULL;
CREATE INDEX IF NOT EXISTS reserved ON attempts (run, worst_usd, owner) WHERE outcome IS NULL;
"""


@pytest.fixture
def first(path: Path, tmp_path: Path) -> Path:
    """Return the same journal in the first format that had checksums."""
    made = tmp_path / "first" / "journal.sqlite"
    made.parent.mkdir()
    with closing(sqlite3.connect(made, isolation_level=None)) as db:
        db.executescript(FIRST)
        db.execute("ATTACH ? AS now", (str(path),))
        for table in ("requests", "replies", "attempts", "spent"):
            names = ", ".join(name for _, name, *_ in db.execute(f"PRAGMA main.table_info({table})").fetchall())
            db.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM now.{table}")
        db.execute("PRAGMA user_version=1")
    return made


def test_the_first_format_is_read_as_it_is(first: Path, asked: list[int], tmp_path: Path) -> None:
    content = first.read_bytes()
    assert ask_all(first, replay=True) == (TEXTS, [])
    with closing(Journal(first, read_only=True)) as reader:
        assert verify(reader).faults == ()
        assert sum(row.replies for row in spend(reader)) == ROWS
        assert export(reader, tmp_path / "all.jsonl") == ROWS
    assert (first.read_bytes(), asked) == (content, [])


def test_the_first_format_is_taken_over_and_nothing_is_bought_again(first: Path, path: Path, asked: list[int]) -> None:
    assert ask_all(first) == (TEXTS, [])
    assert asked == []
    assert rows(first, "PRAGMA user_version") == rows(path, "PRAGMA user_version") == [(VERSION,)]
    tables = "SELECT name, sql FROM sqlite_master"
    assert set(rows(first, tables)) == set(rows(path, tables))
    with closing(Journal(first, read_only=True)) as reader:
        assert verify(reader).faults == ()


def test_a_damaged_file_of_the_first_format_keeps_what_is_sound(first: Path, asked: list[int]) -> None:
    without_a_schema(first)
    texts, notes = ask_all(first)
    assert (texts, asked) == (TEXTS, [])
    assert f"{ROWS} replies are sound" in " ".join(notes)
    assert rows(first, "SELECT COUNT(*), COUNT(checksum) FROM attempts") == [(ROWS, ROWS)]


def test_what_was_imported_into_the_first_format_is_known_by_having_no_attempt(first: Path, asked: list[int]) -> None:
    change(first, "DELETE FROM attempts WHERE key = (SELECT key FROM replies WHERE id = 5)")
    assert ask_all(first, replay=True)[0] == TEXTS
    assert ask_all(first)[0] == TEXTS
    assert len(asked) == 1


def test_sums_are_derived_though_damage_left_half_a_character_in_a_name(path: Path) -> None:
    db = connect(path)
    db.execute("UPDATE attempts SET run = CAST(x'612ff4' AS TEXT)")
    count_again(db)
    assert {scope for (scope,) in db.execute("SELECT scope FROM spent")} == {"a", "a/?"}
    db.close()


def test_a_log_that_another_process_removes_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.sqlite"
    path.touch()
    monkeypatch.setattr(Path, "exists", lambda _, **__: True)  # as it was a moment ago
    assert is_empty(path)
