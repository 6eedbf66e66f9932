"""The journal: a reply that was paid for is there for ever, raw, for every run and every process.

The key of a request depends on everything that is sent and on the repeat's number, and on nothing else. A request in
flight belongs to one living process; what a dead one had in flight counts at its worst.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import rows

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import InputError
from llamaduo.service.attempts import Attempt, Caps, Elsewhere, Reply, Short
from llamaduo.service.journal import Journal, default_path
from llamaduo.service.requests import Request
from llamaduo.service.schema import VERSION, checksum, request_key

LLM = ServiceLLM(
    name="a", provider="openai", model="m", price=Price(1.0, 2.0, "today"), parameters={"top_p": 0.5, "more": {"x": 1}}
)
REQUEST = Request(LLM, "prompt", {"type": "object"}, 0, "judge")


def reply(key: str, cost_usd: float = 0.25) -> Reply:
    return Reply(key, "text", "stop", 3, 4, cost_usd)


def wish(key: str = "k", run: str = "r", worst_usd: float = 1.0) -> Attempt:
    return Attempt(key, REQUEST.sent, run, "judge", "openai/m", worst_usd)


async def begin(journal: Journal, key: str = "k", run: str = "r", worst_usd: float = 1.0) -> int:
    begun = await journal.begin(wish(key, run, worst_usd), Caps())
    assert isinstance(begun, int)
    return begun


async def bought(journal: Journal, found: Reply, run: str = "r", raw: str = "{}") -> None:
    """Have a reply bought and stored."""
    await journal.record(await begin(journal, found.key, run), found, raw)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep/journal.sqlite"


@pytest.fixture
def open_journal(path: Path) -> Iterator[Callable[..., Journal]]:
    """Return a function that opens the test's journal, as another process would."""
    opened = []

    def journal(**options: Any) -> Journal:
        opened.append(Journal(path, **options))
        return opened[-1]

    yield journal
    for journal_ in opened:
        journal_.close()


@pytest.fixture
def journal(open_journal: Callable[..., Journal]) -> Journal:
    return open_journal()


Open = Callable[..., Journal]


def test_the_key_is_the_same_in_every_process_and_for_any_text() -> None:
    request = dataclasses.replace(REQUEST, prompt="äöü 日本語 \ud800 \u2028")
    code = (
        "from llamaduo.service.schema import request_key; import json, sys; "
        "print(request_key(json.loads(sys.stdin.read())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(request.sent), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == request.key


async def test_an_unknown_key_has_no_reply(journal: Journal) -> None:
    await begin(journal)
    assert journal.find("k") is None
    assert journal.failure("k") is None
    assert journal.spent("r") == 0.0


async def test_a_reply_reads_back_equal_and_the_first_one_stays(journal: Journal, path: Path) -> None:
    first = Reply("k", "text \x00 äöü 日本語\r\n", "length", 3, 4, 0.1 + 0.2)
    number = await begin(journal)
    await journal.record(number, first, '{"raw": 1}')
    await journal.record(number, Reply("k", "other", "stop", 1, 1, 9.0), '{"raw": 2}')
    assert journal.find("k") == first
    assert journal.spent("r") == 0.1 + 0.2
    assert rows(path, "SELECT raw FROM replies") == [('{"raw": 1}',)]


async def test_spent_is_by_run_and_by_study_and_adds_up(journal: Journal) -> None:
    for number in range(4):
        await bought(journal, reply(f"k{number}"), "s/a" if number else "s/b")
    assert journal.spent("s/a") == pytest.approx(0.75)
    assert journal.spent("s/b") == pytest.approx(0.25)
    assert journal.spent("s") == pytest.approx(1.0)
    assert journal.spent("s/c") == journal.spent("c") == 0.0


async def test_a_second_connection_and_a_second_process_see_a_reply_at_once(journal: Journal, path: Path) -> None:
    second = Journal(path)
    await bought(journal, reply("k"))
    assert second.find("k") == reply("k")
    second.close()
    code = "j = Journal(path); print(j.find('k').text); n = now(j.begin(wish('l', 1.0), Caps()))"
    process = in_a_process(path, f"{code}; now(j.record(n, reply('l', 0.5), '{{}}'))")
    assert process.communicate(timeout=60)[0] == "text\n"
    assert process.returncode == 0
    assert journal.find("l") == reply("l", 0.5)
    assert journal.spent("s/r") == 0.5


async def test_requests_are_stored_with_run_and_stage_before_any_reply(open_journal: Open, path: Path) -> None:
    first, second = open_journal(), open_journal()
    number = await begin(first, run="study/run")
    await first.fail(number, cost_usd=0.0, outcome="failed")
    await begin(second, run="study/later")
    ((key, request),) = rows(path, "SELECT key, request FROM requests")
    assert key == "k"
    assert json.loads(request)["messages"] == [{"role": "user", "content": "prompt"}]
    query = "SELECT run, stage, llm, worst_usd, outcome, cost_usd FROM attempts ORDER BY id"
    assert rows(path, query) == [
        ("study/run", "judge", "openai/m", 1.0, "failed", 0.0),
        ("study/later", "judge", "openai/m", 1.0, None, None),
    ]


async def test_why_a_request_was_given_up_stays_until_there_is_a_reply(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "very-secret-words-of-somebody")
    number = await begin(journal)
    await journal.fail(number, cost_usd=0.0, outcome="failed")
    await journal.give_up("k", "no_reply: very-secret-words-of-somebody is no key")
    assert journal.failure("k") == "no_reply: [SOME_API_KEY] is no key"
    await bought(journal, reply("k"))
    assert journal.failure("k") is None


# ---------------------------------------------------------------- claims


async def test_what_another_journal_has_in_flight_is_not_begun_again(open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    number = await begin(first)
    assert await second.begin(wish(), Caps()) == Elsewhere(None)
    await first.record(number, reply("k"), "{}")
    assert await second.begin(wish(), Caps()) == reply("k")


async def test_of_many_that_begin_at_once_one_has_it(open_journal: Open) -> None:
    found = await asyncio.gather(*(open_journal().begin(wish(), Caps()) for _ in range(6)))
    assert sorted(type(begun).__name__ for begun in found) == ["Elsewhere"] * 5 + ["int"]


@pytest.mark.parametrize("outcome", ["failed", "unknown"])
async def test_what_brought_no_reply_may_be_begun_by_anybody(outcome: str, open_journal: Open) -> None:
    first, second = open_journal(), open_journal()
    await first.fail(await begin(first), cost_usd=0.5, outcome=outcome)
    await begin(second)
    assert first.spent("r") == 0.5


async def test_closing_settles_what_is_still_in_flight_at_its_worst(open_journal: Open, path: Path) -> None:
    first, second = open_journal(), Journal(path)
    await begin(second, run="s/r", worst_usd=0.75)
    second.close()
    assert first.spent("s/r") == first.spent("s") == 0.75
    await begin(first)
    assert rows(path, "SELECT outcome, cost_usd FROM attempts ORDER BY id") == [("unknown", 0.75), (None, None)]


_PRELUDE = """
import asyncio, os, signal, sys
from pathlib import Path
from llamaduo.service import schema
from llamaduo.service.attempts import Attempt, Caps, Reply
from llamaduo.service.journal import Journal

path = Path(sys.argv[1])
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
wish = lambda key, worst: Attempt(key, {}, "s/r", "judge", "p/m", worst)
reply = lambda key, cost: Reply(key, "text", "stop", 3, 4, cost)
now = asyncio.Runner().run
"""


def in_a_process(path: Path, code: str) -> subprocess.Popen[str]:
    """Run code in a process of its own; it can `die()`, as by the kernel's hand."""
    command = [sys.executable, "-c", _PRELUDE + code, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed(path: Path, code: str) -> None:
    """Run code in a process that dies in it."""
    process = in_a_process(path, code)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL


async def test_what_a_dead_process_had_in_flight_counts_at_its_worst_and_may_be_begun_again(
    open_journal: Open, path: Path
) -> None:
    before = open_journal()
    code = "j = Journal(path); now(j.begin(wish('k', 0.75), Caps())); now(j.begin(wish('other', 0.5), Caps())); die()"
    killed(path, code)
    assert before.spent("s/r") == 0.0
    await begin(before, "k", "s/r")  # whoever wants one of them settles it
    assert before.spent("s/r") == before.spent("s") == 0.75
    open_journal()  # whoever opens the journal settles the rest
    assert before.spent("s/r") == 1.25


async def test_a_budget_that_seems_spent_settles_what_the_dead_had_in_flight(open_journal: Open, path: Path) -> None:
    journal = open_journal()
    killed(path, "j = Journal(path); now(j.begin(wish('other', 0.5), Caps())); die()")
    short = await journal.begin(wish("k", "s/r", 0.75), Caps(run_usd=1.0))
    assert short == Short("run", 0.5, 0.0)


async def test_what_a_living_process_has_in_flight_is_left_alone(open_journal: Open, path: Path) -> None:
    code = "j = Journal(path); now(j.begin(wish('k', 0.5), Caps())); print('begun', flush=True); signal.pause()"
    process = in_a_process(path, code)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    journal = open_journal()
    assert await journal.begin(wish("k", "s/r"), Caps()) == Elsewhere(None)
    assert await journal.begin(wish("l", "s/r"), Caps(run_usd=1.0)) == Short("run", 0.0, 0.5)
    process.kill()
    process.communicate(timeout=60)
    assert isinstance(await journal.begin(wish("k", "s/r"), Caps()), int)
    assert journal.spent("s/r") == 0.5


def test_a_process_that_dies_right_after_recording_has_recorded(open_journal: Open, path: Path) -> None:
    killed(path, "j = Journal(path); now(j.record(now(j.begin(wish('k', 1.0), Caps())), reply('k', 0.5), '{}')); die()")
    journal = open_journal()
    assert journal.find("k") == reply("k", 0.5)
    assert journal.spent("s/r") == 0.5


# ---------------------------------------------------------------- group commit


async def test_what_waits_is_written_together_and_is_there_when_it_returns(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    commit = Journal._commit

    def counted(self: Journal, operations: Any) -> list[Any]:
        sizes.append(len(operations))
        return commit(self, operations)

    monkeypatch.setattr(Journal, "_commit", counted)

    async def one(number: int) -> None:
        await journal.record(await begin(journal, f"k{number}"), reply(f"k{number}"), "{}")
        assert rows(path, f"SELECT outcome FROM attempts WHERE key = 'k{number}'") == [("replied",)]

    await asyncio.gather(*(one(number) for number in range(200)))
    assert sum(sizes) == 400
    assert len(sizes) < 40
    assert rows(path, "SELECT COUNT(*) FROM replies") == [(200,)]


async def test_results_come_back_to_whoever_asked_for_them(journal: Journal) -> None:
    writes = (journal.write(lambda db, n=n: db.execute("SELECT ?", (n,)).fetchone()[0]) for n in range(50))
    assert await asyncio.gather(*writes) == list(range(50))


async def test_a_write_whose_caller_has_gone_is_written_all_the_same(journal: Journal) -> None:
    number = await begin(journal)
    recording = asyncio.create_task(journal.record(number, reply("k"), "{}"))
    await asyncio.sleep(0)
    recording.cancel()
    await asyncio.gather(recording, return_exceptions=True)
    await journal.write(lambda _: None)
    assert journal.find("k") == reply("k")


def test_a_journal_outlives_an_event_loop_that_is_broken_off(journal: Journal) -> None:
    async def broken_off() -> None:
        async with asyncio.timeout(0.05):
            await journal.write(lambda _: time.sleep(0.2))

    async def later() -> int:
        async with asyncio.timeout(10):
            return await begin(journal)

    with pytest.raises(TimeoutError):
        asyncio.run(broken_off())
    assert asyncio.run(later()) == 1


async def test_an_error_undoes_the_whole_transaction_and_the_journal_stays_usable(journal: Journal, path: Path) -> None:
    def half(db: sqlite3.Connection) -> None:
        db.execute("INSERT INTO requests (key, request) VALUES ('half', '{}')")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await journal.write(half)
    assert rows(path, "SELECT * FROM requests") == []
    await bought(journal, reply("k"))
    assert journal.find("k") == reply("k")


async def test_a_mistake_in_one_write_loses_no_reply_that_is_written_with_it(journal: Journal) -> None:
    def mistaken(db: sqlite3.Connection) -> None:
        raise ZeroDivisionError

    number = await begin(journal)
    await asyncio.gather(journal.write(mistaken), journal.record(number, reply("k"), "{}"), return_exceptions=True)
    assert journal.find("k") == reply("k")


async def test_a_damaged_row_that_is_found_while_others_are_written_disturbs_none_of_them(
    journal: Journal, path: Path
) -> None:
    await bought(journal, reply("bad"))
    await bought(journal, reply("good"))
    await journal.write(lambda db: db.execute("UPDATE replies SET text = 'x' WHERE key = 'bad'"))
    number = await begin(journal, "k")
    slow = asyncio.create_task(journal.write(lambda _: time.sleep(0.2)))
    recording = asyncio.create_task(journal.record(number, reply("k"), "{}"))
    await asyncio.sleep(0.05)
    assert journal.find("bad") is None
    await asyncio.gather(slow, recording)
    assert [journal.find(key) for key in ("k", "good", "bad")] == [reply("k"), reply("good"), None]


# ---------------------------------------------------------------- damage


@pytest.mark.parametrize(
    "change",
    [
        "text = 'other'", "cost_usd = 0.0", "finish_reason = 'length'", "prompt_tokens = 4", "raw = '{ }'",
        "checksum = ''", "text = CAST(x'ff00' AS TEXT)",
    ],
)  # fmt: skip
async def test_a_row_that_is_not_what_was_stored_is_set_aside_and_may_be_bought_again(
    change: str, journal: Journal, path: Path
) -> None:
    await bought(journal, reply("k"))
    await bought(journal, reply("sound"))
    journal.write_now(lambda db: db.execute(f"UPDATE replies SET {change} WHERE key = 'k'"))
    assert journal.find("k") is None
    assert any("reply to request k was damaged" in note for note in journal.notes)
    assert rows(path, "SELECT key, why FROM set_aside") == [("k", "replies: checksum")]
    await bought(journal, reply("k"))
    assert journal.find("k") == reply("k")
    assert journal.find("sound") == reply("sound")
    assert journal.spent("r") == pytest.approx(0.75)  # what was paid stays paid


async def test_a_damaged_row_is_set_aside_by_whoever_begins_it_too(journal: Journal) -> None:
    await bought(journal, reply("k"))
    journal.write_now(lambda db: db.execute("UPDATE replies SET text = 'other'"))
    await bought(journal, reply("k"))
    assert journal.find("k") == reply("k")


def _folder(path: Path) -> None:
    path.mkdir()


def _below_a_file(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("a file where the folder should be")


def _of_the_future(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {VERSION + 1}")
        db.execute("CREATE TABLE replies (something_else)")


@pytest.mark.parametrize("spoil", [_folder, _below_a_file, _of_the_future])
def test_a_path_that_can_not_be_used_is_an_input_error_with_a_way_out(
    spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "home" / "journal.sqlite"
    path.parent.mkdir()
    spoil(path)
    with pytest.raises(InputError, match=r"journal .*journal\.sqlite: .*service\.journal") as caught:
        Journal(path)
    assert len(str(caught.value).splitlines()) == 1


def a_diary(path: Path) -> None:
    path.write_bytes(b"this is a diary and no database" * 100)


def addresses(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE addresses (name TEXT, street TEXT)")
        db.execute("INSERT INTO addresses VALUES ('Ada', 'St James Square')")
        db.commit()


@pytest.mark.parametrize("write", [a_diary, addresses])
def test_a_file_that_was_never_a_journal_is_refused_and_left_as_it_is(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / "notes.txt"
    write(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"notes\.txt: it is no journal; set service\.journal to another file"):
        Journal(path)
    assert path.read_bytes() == before
    assert sorted(one.name for one in tmp_path.iterdir()) == ["notes.txt", "notes.txt.lock"]


async def test_a_journal_of_which_nothing_is_left_is_kept_beside_a_new_one(path: Path) -> None:
    Journal(path).close()
    damaged = path.read_bytes()[:300]
    path.write_bytes(damaged)
    again = Journal(path)
    await bought(again, reply("k"))
    (note,) = again.notes
    (kept,) = path.parent.glob("journal.sqlite.damaged-*")
    assert "was damaged; 0 replies are sound" in note
    assert kept.name in note
    assert kept.read_bytes() == damaged
    again.close()


async def test_a_full_disk_is_an_input_error_and_the_journal_stays_usable(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """A connection whose disk is full as long as `full` is set."""

        full = True

        def __init__(self, real: sqlite3.Connection) -> None:
            self.real = real

        def execute(self, statement: str, *arguments: Any) -> Any:
            if self.full and statement == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return self.real.execute(statement, *arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.real, name)

    full = Full(journal._db)
    monkeypatch.setattr(journal, "_db", full)
    with pytest.raises(InputError, match="disk is full"):
        await begin(journal)
    full.full = False
    await bought(journal, reply("k"))
    assert journal.find("k") == reply("k")


# ---------------------------------------------------------------- read-only


async def test_a_read_only_journal_reads_and_leaves_no_trace(open_journal: Open, path: Path) -> None:
    writer = open_journal()
    await bought(writer, reply("k"))
    await begin(writer, "in flight")
    living = sorted(writer.live.iterdir())
    reader = open_journal(read_only=True)
    assert reader.find("k") == reply("k")
    await bought(writer, reply("later"))
    assert reader.find("later") == reply("later")
    assert reader.spent("r") == pytest.approx(0.5)
    assert sorted(writer.live.iterdir()) == living
    assert rows(path, "SELECT COUNT(*) FROM attempts WHERE outcome IS NULL") == [(1,)]
    with pytest.raises(InputError, match="readonly"):
        reader.write_now(lambda db: db.execute("DELETE FROM replies"))


async def test_a_read_only_journal_takes_a_damaged_row_for_none_and_leaves_it(open_journal: Open, path: Path) -> None:
    writer = open_journal()
    await bought(writer, reply("k"))
    writer.write_now(lambda db: db.execute("UPDATE replies SET text = 'other'"))
    assert open_journal(read_only=True).find("k") is None
    assert rows(path, "SELECT text FROM replies") == [("other",)]


def test_a_read_only_journal_has_to_exist(tmp_path: Path) -> None:
    for missing in (tmp_path / "journal.sqlite", tmp_path / "no/folder.sqlite"):
        with pytest.raises(InputError, match=r"unable to open database file"):
            Journal(missing, read_only=True)
        assert not missing.exists()


# ---------------------------------------------------------------- the first format

_FIRST_FORMAT = """
CREATE TABLE requests (
    key TEXT PRIMARY KEY, request TEXT NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, asked_at REAL NOT NULL
);
CREATE TABLE replies (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, finish_reason TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, cost_usd REAL NOT NULL, raw TEXT NOT NULL, run TEXT NOT NULL,
    received_at REAL NOT NULL
);
CREATE INDEX replies_by_run ON replies (run);
"""


@pytest.fixture
def old(path: Path) -> list[Reply]:
    """Make a journal of the first format, and return its replies."""
    path.parent.mkdir()
    replies = []
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(_FIRST_FORMAT)
        for number in range(5):
            sent = dataclasses.replace(REQUEST, repeat=number).sent
            run = "old/a" if number % 2 else "old/b"
            text = json.dumps(sent, sort_keys=True)
            db.execute("INSERT INTO requests VALUES (?, ?, ?, 'judge', 1.0)", (request_key(sent), text, run))
            if number < 4:
                replies.append(Reply(request_key(sent), f"text {number} äöü\x00", "stop", 3, 4, 0.25 * number))
                values = (*dataclasses.astuple(replies[-1])[:6], '{"raw": 1}', run, 1.7e9 + number)
                db.execute("INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
        db.commit()
    return replies


def test_a_journal_of_the_first_format_is_taken_over_whole(old: list[Reply], open_journal: Open, path: Path) -> None:
    journal = open_journal()
    assert [journal.find(found.key) for found in old] == old
    assert journal.spent("old/a") == pytest.approx(0.25 + 0.75)
    assert journal.spent("old/b") == pytest.approx(0.5)
    assert journal.spent("old") == pytest.approx(1.5)
    assert rows(path, "SELECT COUNT(*) FROM requests") == [(5,)]
    query = "SELECT run, stage, llm, outcome, cost_usd, started_at FROM attempts ORDER BY id LIMIT 2"
    assert rows(path, query) == [
        ("old/b", "judge", "openai/m", "replied", 0.0, 1.7e9),
        ("old/a", "judge", "openai/m", "replied", 0.25, 1.7e9 + 1),
    ]
    assert rows(path, "PRAGMA user_version") == [(VERSION,)]
    assert {name for (name,) in rows(path, "SELECT name FROM sqlite_master WHERE type = 'table'")} == {
        "requests", "replies", "attempts", "spent", "batches", "set_aside",
    }  # fmt: skip
    assert journal.notes == []


def test_it_is_taken_over_once_whoever_opens_it_at_the_same_time(old: list[Reply], path: Path) -> None:
    code = f"j = Journal(path); print(*(j.find(key) is not None for key in {[found.key for found in old]}))"
    processes = [in_a_process(path, code) for _ in range(4)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["True True True True\n"] * 4
    assert rows(path, "SELECT COUNT(*), SUM(cost_usd) FROM attempts") == [(4, 1.5)]
    assert rows(path, "SELECT usd FROM spent WHERE scope = 'old'") == [(1.5,)]


def test_it_is_taken_over_whole_or_not_at_all(old: list[Reply], path: Path, open_journal: Open) -> None:
    killed(path, "schema.checksum = die; Journal(path)")
    assert rows(path, "SELECT COUNT(*) FROM replies WHERE run LIKE 'old/%'") == [(4,)]
    journal = open_journal()
    assert [journal.find(found.key) for found in old] == old
    assert journal.spent("old") == pytest.approx(1.5)


async def test_a_reply_of_the_first_format_is_not_bought_again(old: list[Reply], open_journal: Open) -> None:
    assert await open_journal().begin(wish(old[0].key), Caps()) == old[0]


def test_a_journal_of_the_first_format_can_not_be_opened_read_only(old: list[Reply], path: Path) -> None:
    with pytest.raises(InputError, match=rf"its format is 0, not {VERSION}; open it once with llamaduo run"):
        Journal(path, read_only=True)


async def test_an_empty_file_becomes_a_journal(path: Path, open_journal: Open) -> None:
    path.parent.mkdir()
    path.touch()
    await bought(open_journal(), reply("k"))
    assert open_journal().find("k") == reply("k")


def test_the_checksum_depends_on_every_value_and_its_type() -> None:
    values = ("k", "text", "stop", 3, 4, 0.5, "{}")
    others = [(*values[:at], str(values[at]) + "x", *values[at + 1 :]) for at in range(len(values))]
    others += [("k", "text", "stop", "3", 4, 0.5, "{}"), ("kt", "ext", "stop", 3, 4, 0.5, "{}")]
    assert len({checksum(*row) for row in [values, *others]}) == 1 + len(others)


def test_the_default_path_follows_the_home_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_path() == tmp_path / "home/journal.sqlite"
    monkeypatch.delenv("LLAMADUO_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_path() == tmp_path / ".llamaduo/journal.sqlite"


def test_a_user_without_a_home_has_the_working_folders_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "LLAMADUO_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert default_path() == Path.cwd() / ".llamaduo" / "journal.sqlite"
