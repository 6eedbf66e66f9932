"""The journal: every request to a service LLM and its raw reply, for ever, in one SQLite file.

    requests   key, request, failure                                what was asked; why it was given up, if it was
    replies    key, text, finish_reason, tokens, cost, raw ...      what came back, with a checksum
    attempts   key, run, stage, llm, owner, worst_usd, outcome ...  each sending, before it and after it: the ledger
    spent      scope, usd                                           the ledger's sums by run and by study
    batches    id, remote_id ...                                    batches handed in, to be collected by anybody

A request's key is the sha256 of everything that was sent (provider, address, model, messages, parameters, schema)
and of the repeat's number. An attempt is stored before it is sent and the raw reply before anything reads it. An
open attempt is a claim: while the process that made it lives, every other one waits for its reply. An attempt
whose process has died has an unknown outcome, and counts at the most it can have cost.

A row whose checksum is wrong is set aside and bought again; a file that SQLite can't read is kept beside a new
one that has every row that could be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from llamaduo.errors import BudgetError, InputError
from llamaduo.redaction import redact
from llamaduo.service.liveness import Owner, alive, clear
from llamaduo.service.salvage import rows

T = TypeVar("T")

VERSION = 1
_SCHEMA = """
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
_REPLY = ("key", "text", "finish_reason", "prompt_tokens", "completion_tokens", "cost_usd")
_SELECT_REPLY = f"SELECT {', '.join(_REPLY)}, raw, checksum FROM replies"


@dataclass(frozen=True)
class Reply:
    """What a service LLM answered."""

    key: str
    """The request's key in the journal."""
    text: str
    """The message's content, as it came."""
    finish_reason: str
    """The provider's word for why the reply ended: stop, length, content_filter ..."""
    prompt_tokens: int
    """Tokens sent, as billed."""
    completion_tokens: int
    """Tokens received, as billed."""
    cost_usd: float
    """Its price."""
    before: tuple[Reply, ...] = field(default=(), compare=False)
    """Unreadable replies after which this one was asked for."""


@dataclass(frozen=True)
class Attempt:
    """One sending of a request, or the wish for one."""

    key: str
    request: Mapping[str, Any]
    """Everything that is sent."""
    run: str
    """Who asks: `study/run`."""
    stage: str
    llm: str
    """`provider/model`."""
    worst_usd: float
    """The most that it can cost."""
    batch: str | None = None
    """The batch that it is part of."""


@dataclass(frozen=True)
class Caps:
    """The most that a run and its study may spend, in US dollars; null for no limit."""

    run_usd: float | None = None
    study_usd: float | None = None


@dataclass(frozen=True)
class Elsewhere:
    """Somebody else has the request in flight; `batch` if it is in one."""

    batch: str | None


@dataclass(frozen=True)
class Short:
    """The worst case doesn't fit into a budget."""

    scope: str
    """`run` or `study`."""
    spent_usd: float
    reserved_usd: float
    """What living processes have in flight, at its worst; once it is settled there may be room."""
    abandoned_usd: float = 0.0
    """What lies in batches that dead processes handed in: their runs collect them when they are started again."""


def request_key(request: Mapping[str, Any]) -> str:
    """Return the sha256 of a request's canonical JSON."""
    canonical = json.dumps(request, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def default_path() -> Path:
    """Return `$LLAMADUO_HOME/journal.sqlite`, or `~/.llamaduo/journal.sqlite`."""
    return Path(os.environ.get("LLAMADUO_HOME") or Path.home() / ".llamaduo") / "journal.sqlite"


def checksum(*values: Any) -> str:
    """Return the sha256 of a row's values."""
    return hashlib.sha256(json.dumps(values, default=repr).encode()).hexdigest()  # a damaged row may hold bytes


class Journal:
    """An open journal; what a method has written is durable when it returns."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.notes: list[str] = []
        """What a reader should know about the state in which the file was found."""
        self.live = path.parent / "live"
        """The folder of all processes that use it."""
        self._queue: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._writing = threading.Lock()
        self._read_only = read_only
        self._in_use: int | None = None
        try:
            if read_only:
                self._db = self._reader = _connect_read_only(path)
            else:
                self._open()
        except (OSError, sqlite3.Error) as error:
            mend = "set LLAMADUO_HOME or service.journal elsewhere"
            if read_only and not path.is_file():
                mend = "there is no such file: llamaduo journal import FILE makes one of an export"
            elif read_only:
                mend = "if it is a damaged journal, the next llamaduo run that uses it repairs it"
            raise InputError(f"journal {path}: {error}; {mend}.") from error

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._in_use = _share(self.path)
        if self.path.exists() and not _sound(self.path):
            self._salvage()
        self._db, self._reader = _connect(self.path), _connect(self.path)
        self._owner = Owner(self.live)
        clear(self.live)
        self._commit([_bury(self.live), _count_again])

    @property
    def owner(self) -> str:
        """The name under which this process has requests in flight."""
        return self._owner.name

    def close(self) -> None:
        """Close the file; whatever is still in flight has an unknown outcome from here on."""
        if not self._read_only:
            self._owner.close()
            with contextlib.suppress(InputError):
                self._commit([_bury(self.live)])
            self._reader.close()
        self._db.close()
        if self._in_use is not None:
            os.close(self._in_use)

    # reading

    def find(self, key: str) -> Reply | None:
        """Return the stored reply to a request, or None; one whose checksum is wrong is set aside."""
        row = self._row(f"{_SELECT_REPLY} WHERE key = ?", key)
        if row is None:
            return None
        if checksum(*row[:-1]) == row[-1]:
            return Reply(*row[: len(_REPLY)])
        if not self._read_only:
            self._commit([_set_aside("replies", key, "checksum")])
            self.notes.append(f"journal: the reply to request {key[:8]} was damaged; it is set aside and bought again.")
        return None

    def failure(self, key: str) -> str | None:
        """Return why a request was given up when it was last asked, or None."""
        row = self._row("SELECT failure FROM requests WHERE key = ?", key)
        return row[0] if row else None

    def spent(self, scope: str) -> float:
        """Return what a run (`study/run`) or a study has paid, in US dollars; unknown outcomes at their worst."""
        row = self._row("SELECT usd FROM spent WHERE scope = ?", scope)
        return float(row[0]) if row else 0.0

    def elsewhere(self, key: str) -> bool:
        """Tell whether another living process has a request in flight, for which there is no reply yet."""
        query = "SELECT owner, batch FROM attempts WHERE key = ? AND outcome IS NULL"
        return any(batch or alive(self.live, owner) for owner, batch in self._rows(query, key))

    def short(self, attempt: Attempt, caps: Caps) -> Short | None:
        """Return which budget has no room for an attempt now, those of dead processes settled."""
        short = _short(self._reader, attempt, caps, self.live)
        if short and self.write_now(_bury(self.live)):
            short = _short(self._reader, attempt, caps, self.live)
        return short

    def batch(self, batch: str) -> str | None:
        """Return the provider's id of a batch."""
        row = self._row("SELECT remote_id FROM batches WHERE id = ?", batch)
        return row[0] if row else None

    def open_rows(self, batch: str) -> list[tuple[int, str, float]]:
        """Return (attempt, key, worst case) of each row of a batch that is not settled."""
        return self._rows("SELECT id, key, worst_usd FROM attempts WHERE batch = ? AND outcome IS NULL", batch)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT."""
        return self._rows(statement, *values)

    def _row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        rows = self._rows(query, *values)
        return rows[0] if rows else None

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise InputError(
                f"journal {self.path}: {error}; run again, and it is repaired as far as possible."
            ) from error

    # writing

    async def begin(self, attempt: Attempt, caps: Caps) -> int | Reply | Elsewhere | Short:
        """Store that a request is about to be sent, its worst case reserved; return the attempt's number.

        Returns the reply if there is one by now, Elsewhere while another living process has it in flight, and
        Short if a budget could be passed.
        """
        return await self.write(lambda db: _begin(db, attempt, caps, self.owner, self.live))

    async def record(self, attempt: int, reply: Reply, raw: str) -> None:
        """Store a reply as it came."""
        await self.write(lambda db: _record(db, attempt, reply, raw))

    async def fail(self, attempt: int, *, cost_usd: float, outcome: str) -> None:
        """Store that an attempt brought no reply: `failed` (not billed) or `unknown` (perhaps billed)."""
        await self.write(lambda db: _end(db, attempt, outcome, cost_usd))

    async def give_up(self, key: str, why: str) -> None:
        """Store that a request is not tried again in this run."""
        await self.write(lambda db: db.execute("UPDATE requests SET failure = ? WHERE key = ?", (redact(why), key)))

    async def write(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Carry out an operation together with all that wait now, in one transaction; return when it is durable."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._queue.append((operation, done))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())
        return await asyncio.shield(done)

    async def _each_alone(
        self, waiting: Sequence[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]]
    ) -> None:
        for operation, done in waiting:
            try:
                (result,) = await asyncio.to_thread(self._commit, [operation])
                done.set_result(result)
            except Exception as error:
                done.set_exception(error)

    def write_now(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Carry out an operation in a transaction of its own, outside of any event loop."""
        result: T = self._commit([operation])[0]
        return result

    async def _flush(self) -> None:
        while self._queue:
            waiting, self._queue = self._queue, []
            try:
                results = await asyncio.to_thread(self._commit, [operation for operation, _ in waiting])
            except InputError as error:
                for _, done in waiting:
                    done.set_exception(error)
            except Exception as error:  # a mistake in one of them must not undo the others
                if len(waiting) == 1:
                    waiting[0][1].set_exception(error)
                else:
                    await self._each_alone(waiting)
            else:
                for (_, done), result in zip(waiting, results, strict=True):
                    done.set_result(result)
        self._flushing = None

    def _commit(self, operations: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        try:
            with self._writing:
                return self._in_one_transaction(operations)
        except sqlite3.Error as error:
            raise InputError(
                f"journal {self.path}: {error}; free space or set service.journal elsewhere, then run again."
            ) from error

    def _in_one_transaction(self, operations: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            results = [operation(self._db) for operation in operations]
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

    # repair

    def _salvage(self) -> None:
        """Put every row that can be read and is sound into a new file, and keep the old one beside it."""
        assert self._in_use is not None
        try:
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"journal {self.path}: it is damaged, and another process uses it: stop that one, then run again."
            ) from None
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.new")
        counts = _copy_sound_rows(self.path, fresh)
        kept = self.path.with_name(f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        for end in ("-wal", "-shm"):
            if Path(f"{self.path}{end}").exists():
                os.replace(f"{self.path}{end}", f"{kept}{end}")
        os.link(self.path, kept)
        os.replace(fresh, self.path)
        fcntl.flock(self._in_use, fcntl.LOCK_SH)
        self.notes.append(
            f"journal {self.path}: it was damaged; {counts['replies']:,} replies are sound and kept, the rest is "
            f"bought again when it is needed. The damaged file: {kept.name}."
        )


def _share(path: Path) -> int:
    """Mark the journal as in use, until the process's end."""
    file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    db.text_factory = _lenient
    _wait_for_wal(db)
    db.execute("PRAGMA synchronous=FULL")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        _bring_up_to_date(db)
    return db


def _connect_read_only(path: Path) -> sqlite3.Connection:
    writable = os.access(path.parent, os.W_OK)
    uri = f"{path.resolve().as_uri()}?mode=ro{'' if writable else '&immutable=1'}"
    db = sqlite3.connect(uri, uri=True, timeout=60, check_same_thread=False)
    db.text_factory = _lenient
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        db.close()
        raise InputError(f"journal {path}: its format is {version}, not {VERSION}; open it once with llamaduo run.")
    return db


def _lenient(text: bytes) -> str:
    return text.decode(errors="surrogateescape")


def _wait_for_wal(db: sqlite3.Connection) -> None:
    """Switch to write-ahead logging; while another process does the same, SQLite refuses without waiting."""
    for _ in range(100):
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            time.sleep(0.05)
    db.execute("PRAGMA journal_mode=WAL")


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """Make the tables, or those of an older version into today's."""
    db.execute("BEGIN IMMEDIATE")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if _schema(db) == _todays()[0]:  # the number alone is damaged
        version = VERSION
    if version > VERSION:
        db.execute("ROLLBACK")
        raise sqlite3.DatabaseError(f"its format {version} is newer than this llamaduo, which knows {VERSION}")
    if version < VERSION:
        old = _is_version_0(db)
        if old:
            db.execute("DROP INDEX IF EXISTS replies_by_run")
            for table in ("requests", "replies"):
                db.execute(f"ALTER TABLE {table} RENAME TO {table}_0")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        if old:
            _from_version_0(db)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")


def _from_version_0(db: sqlite3.Connection) -> None:
    """Take over the rows of the first format, which had neither checksums nor attempts."""
    db.execute("INSERT INTO requests (key, request) SELECT key, request FROM requests_0")
    query = f"""SELECT {", ".join(f"p.{name}" for name in _REPLY)}, p.raw, p.received_at, p.run, r.stage, r.request
        FROM replies_0 p JOIN requests_0 r USING (key)"""
    for *row, received_at, run, stage, request in db.execute(query).fetchall():
        db.execute(_INSERT_REPLY, (*row, received_at, checksum(*row)))
        sent = json.loads(request)
        llm, cost = f"{sent['provider']}/{sent['model']}", row[5]
        values = (row[0], run, stage, llm, "", None, cost, received_at)
        (number,) = db.execute(_INSERT_ATTEMPT, values).fetchone()
        _end(db, number, "replied", cost)
    for table in ("requests", "replies"):
        db.execute(f"DROP TABLE {table}_0")


_INSERT_REPLY = (
    "INSERT OR IGNORE INTO replies (key, text, finish_reason, prompt_tokens, completion_tokens, cost_usd, raw, "
    "received_at, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_INSERT_ATTEMPT = (
    "INSERT INTO attempts (key, run, stage, llm, owner, batch, worst_usd, started_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "RETURNING id"
)
_ADD_SPENT = "INSERT INTO spent (scope, usd) VALUES (?, ?) ON CONFLICT (scope) DO UPDATE SET usd = usd + excluded.usd"


def _begin(
    db: sqlite3.Connection, attempt: Attempt, caps: Caps, owner: str, live: Path
) -> int | Reply | Elsewhere | Short:
    row = db.execute(f"{_SELECT_REPLY} WHERE key = ?", (attempt.key,)).fetchone()
    if row and checksum(*row[:-1]) == row[-1]:
        return Reply(*row[: len(_REPLY)])
    if row:
        _set_aside("replies", attempt.key, "checksum")(db)
    open_ones = "SELECT id, owner, batch, worst_usd FROM attempts WHERE key = ? AND outcome IS NULL"
    for number, other, batch, worst in db.execute(open_ones, (attempt.key,)).fetchall():
        if batch or (other != owner and alive(live, other)):  # one of ours was cut off: a service asks each key once
            return Elsewhere(batch)
        _end(db, number, "unknown", worst)
    short = _short(db, attempt, caps, live)
    if short and _bury(live)(db):
        short = _short(db, attempt, caps, live)
    if short:
        return short
    request = json.dumps(attempt.request, sort_keys=True)
    db.execute("INSERT OR IGNORE INTO requests (key, request) VALUES (?, ?)", (attempt.key, request))
    values = (
        attempt.key, attempt.run, attempt.stage, attempt.llm, owner, attempt.batch, attempt.worst_usd, time.time(),
    )  # fmt: skip
    (number,) = db.execute(_INSERT_ATTEMPT, values).fetchone()
    return int(number)


def study_of(run: str) -> str:
    """Return the study of a run named `study/run`."""
    return run.rsplit("/", 1)[0]


def _short(db: sqlite3.Connection, attempt: Attempt, caps: Caps, live: Path) -> Short | None:
    """Return which budget has no room for the attempt's worst case beside all that is spent and in flight."""
    study = study_of(attempt.run)
    for scope, name, cap, of in (
        ("run", attempt.run, caps.run_usd, "run = ?"),
        ("study", study, caps.study_usd, "substr(run, 1, length(?1) + 1) = ?1 || '/'"),
    ):
        if cap is None:
            continue
        row = db.execute("SELECT usd FROM spent WHERE scope = ?", (name,)).fetchone()
        spent = row[0] if row else 0.0
        in_flight = f"SELECT COALESCE(SUM(worst_usd), 0) FROM attempts WHERE outcome IS NULL AND {of}"
        (reserved,) = db.execute(in_flight, (name,)).fetchone()
        if spent + reserved + attempt.worst_usd > cap + 1e-9:
            by_owner = f"{in_flight.replace('SELECT', 'SELECT owner,')} AND batch IS NOT NULL GROUP BY owner"
            batches = db.execute(by_owner, (name,)).fetchall()
            abandoned = sum(usd for owner, usd in batches if not alive(live, owner))
            return Short(scope, spent, reserved - abandoned, abandoned)
    return None


def no_money(short: Short, caps: Caps, worst_usd: float) -> BudgetError:
    """Return the error that ends a run for which there is no room in a budget."""
    run = short.scope == "run"
    name, cap = ("loop.budget_usd", caps.run_usd) if run else ("service.study_budget_usd", caps.study_usd)
    lie = f", ${short.abandoned_usd:.4f} lie in batches that runs which ended have left to be collected"
    return BudgetError(
        f"{name}={cap:g}: ${short.spent_usd:.4f} are spent{lie if short.abandoned_usd else ''}, the next call could "
        f"cost ${worst_usd:.4f}. Raise the budget and run again: nothing is bought twice."
    )


def _record(db: sqlite3.Connection, attempt: int, reply: Reply, raw: str) -> None:
    row = (*(getattr(reply, name) for name in _REPLY), raw)
    db.execute(_INSERT_REPLY, (*row, time.time(), checksum(*row)))
    db.execute("UPDATE requests SET failure = NULL WHERE key = ?", (reply.key,))
    _end(db, attempt, "replied", reply.cost_usd)


def _end(db: sqlite3.Connection, attempt: int, outcome: str, cost_usd: float) -> None:
    """Settle an open attempt, and add what it cost to its run's and its study's sum."""
    statement = "UPDATE attempts SET outcome = ?, cost_usd = ? WHERE id = ? AND outcome IS NULL RETURNING run"
    for (run,) in db.execute(statement, (outcome, cost_usd, attempt)).fetchall():
        for scope in {run, study_of(run)}:
            db.execute(_ADD_SPENT, (scope, cost_usd))


def _count_again(db: sqlite3.Connection) -> None:
    """Derive the sums of the ledger from its attempts."""
    db.execute("DELETE FROM spent")
    paid = db.execute("SELECT run, SUM(cost_usd) FROM attempts WHERE outcome IS NOT NULL GROUP BY run").fetchall()
    for run, cost in paid:
        for scope in {run, study_of(run)}:
            db.execute(_ADD_SPENT, (scope, cost or 0.0))


def _bury(live: Path) -> Callable[[sqlite3.Connection], int]:
    """Return the operation that settles the attempts of dead processes, at their worst; it returns their number."""

    def bury(db: sqlite3.Connection) -> int:
        query = "SELECT DISTINCT owner FROM attempts WHERE outcome IS NULL AND batch IS NULL"
        dead = [owner for (owner,) in db.execute(query).fetchall() if not alive(live, owner)]
        buried = 0
        for owner in dead:
            query = "SELECT id, worst_usd FROM attempts WHERE outcome IS NULL AND batch IS NULL AND owner = ?"
            for number, worst in db.execute(query, (owner,)).fetchall():
                _end(db, number, "unknown", worst)
                buried += 1
        return buried

    return bury


def _set_aside(table: str, key: str, why: str) -> Callable[[sqlite3.Connection], None]:
    def set_aside(db: sqlite3.Connection) -> None:
        row = db.execute(f"SELECT * FROM {table} WHERE key = ?", (key,)).fetchone()
        values = (key, f"{table}: {why}", json.dumps(row, default=repr), time.time())
        db.execute("INSERT INTO set_aside (key, why, row, found_at) VALUES (?, ?, ?, ?)", values)
        db.execute(f"DELETE FROM {table} WHERE key = ?", (key,))

    return set_aside


# repair


def _sound(path: Path) -> bool:
    """Tell whether SQLite can read the whole file, and finds a journal in it; an empty, older or newer one is sound."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as db:
            if db.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok":
                return False
            schema = _schema(db)
            (version,) = db.execute("PRAGMA user_version").fetchone()
            other = not schema or _is_version_0(db) or version > VERSION
            return (other or _todays()[0] <= schema) and _header_is_sound(path)
    except sqlite3.OperationalError as error:
        if "lock" in str(error) or "busy" in str(error):
            raise
        return False
    except sqlite3.DatabaseError:
        return False


@cache
def _todays() -> tuple[set[tuple[str, str | None]], bytes]:
    """Return the schema and the header of a new journal."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        return _schema(db), db.serialize()[:100]


def _schema(db: sqlite3.Connection) -> set[tuple[str, str | None]]:
    """Return name and statement of every table and index."""
    return set(db.execute("SELECT name, sql FROM sqlite_master").fetchall())


def _is_version_0(db: sqlite3.Connection) -> bool:
    """Tell whether the tables are those of the first format, whose replies named their run and had no checksum."""
    columns = {name for _, name, *_ in db.execute("PRAGMA table_info(replies)").fetchall()}
    return "run" in columns and "checksum" not in columns


def _header_is_sound(path: Path) -> bool:
    """Tell whether what is the same in every journal's header is so; SQLite believes whatever is there."""
    with path.open("rb") as file:
        header = file.read(100)
    todays = _todays()[1]
    begin = header[:18] == todays[:18] and header[20:24] == todays[20:24] and header[18:20] in (b"\1\1", b"\2\2")
    rest = all(header[at] in (0, todays[at]) for at in (*range(44, 60), *range(64, 92)) if at < len(header))
    return not header or (begin and rest)  # zeros before the first checkpoint


_COLUMNS = {
    "requests": ("key", "request", "failure"),
    "replies": (*_REPLY, "raw", "received_at", "checksum"),
    "attempts": (
        "key", "run", "stage", "llm", "owner", "batch", "worst_usd", "started_at", "outcome", "cost_usd",
    ),
}  # fmt: skip


def row_is_sound(table: str, row: Mapping[str, Any]) -> bool:
    """Tell whether a row of `requests` or `replies` is what was once stored."""
    try:
        if table == "requests":
            return bool(request_key(json.loads(row["request"])) == row["key"])
        if table == "replies":
            return bool(checksum(*(row[name] for name in (*_REPLY, "raw"))) == row["checksum"])
    except (ValueError, TypeError, UnicodeError):
        return False
    words = all(isinstance(row[name], str) for name in ("key", "run", "stage", "llm", "owner"))
    sums = all(_is_sum(row[name]) for name in ("worst_usd", "started_at"))
    settled = row["outcome"] in ("replied", "failed", "unknown") and _is_sum(row["cost_usd"])
    return words and sums and (settled or row["outcome"] is row["cost_usd"] is None)


def _is_sum(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value < math.inf


def _copy_sound_rows(damaged: Path, fresh: Path) -> dict[str, int]:
    """Fill a new journal with the sound rows of a damaged one; return how many of each table."""
    for leftover in (fresh, Path(f"{fresh}-wal"), Path(f"{fresh}-shm")):
        leftover.unlink(missing_ok=True)
    counts = dict.fromkeys(_COLUMNS, 0)
    with contextlib.closing(_connect(fresh)) as new:
        new.execute("BEGIN IMMEDIATE")
        for table, columns in _COLUMNS.items():
            names = ("id", *columns) if table == "attempts" else columns
            statement = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            for number, (_, *values) in rows(damaged, len(columns) + 1):
                if row_is_sound(table, dict(zip(columns, values, strict=True))):
                    known = (number, *values) if table == "attempts" else values
                    counts[table] += new.execute(statement, known).rowcount
        _count_again(new)
        new.execute("COMMIT")
        new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        new.execute("PRAGMA journal_mode=DELETE")
    return counts
