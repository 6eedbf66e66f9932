"""The journal: every request to a service LLM and its raw reply, for ever, in one SQLite file.

    requests   key, request, failure                                what was asked; why it was given up, if it was
    replies    key, text, finish_reason, tokens, cost, raw ...      what came back, with a checksum; or imported
    attempts   key, run, stage, llm, owner, worst_usd, outcome ...  each sending, before it and after it: the ledger
    spent      scope, usd                                           the ledger's sums by run and by study
    batches    id, remote_id ...                                    batches handed in, to be collected by anybody

A request's key is the sha256 of everything that was sent (provider, address, model, messages, parameters, schema)
and of the repeat's number. An attempt is stored before it is sent and the raw reply before anything reads it. An
open attempt is a claim: while the process that made it lives, every other one waits for its reply. An attempt
whose process has died has an unknown outcome, and counts at the most it can have cost.

A row whose checksum is wrong is set aside and bought again; a file that SQLite can't read is kept beside a new
one that has every row that could be read. A reply that was imported is one for readers alone, who buy nothing, or
where it is asked for; otherwise it is bought.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from llamaduo.errors import InputError
from llamaduo.files.contents import home
from llamaduo.redaction import redact
from llamaduo.service import attempts
from llamaduo.service.attempts import Attempt, Caps, Elsewhere, Reply, Short
from llamaduo.service.liveness import Owner, alive, clear, stopped, who
from llamaduo.service.one_host import claim, release
from llamaduo.service.repair import is_sound, salvaged
from llamaduo.service.schema import SELECT_REPLY, connect, connect_read_only, is_empty, is_first, reply_is_sound
from llamaduo.service.stops import unstopped

T = TypeVar("T")
_LOOKS_S, _LOOKS, _LOOKS_UNSAID = 1.0, 60, 3
"""How long another process's transaction is waited for at a time, how often, and how often without a word."""


def default_path() -> Path:
    """Return `$LLAMADUO_HOME/journal.sqlite`, or `~/.llamaduo/journal.sqlite`."""
    return home() / "journal.sqlite"


class Journal:
    """An open journal; what a method has written is durable when it returns."""

    def __init__(self, path: Path, *, read_only: bool = False, imported: bool | None = None) -> None:
        """Open a journal; `imported` tells whether replies that were imported count, by default for readers alone."""
        self.path = path
        self.takes_imported = read_only if imported is None else imported
        """Whether replies that were imported count as replies."""
        self.notes: list[str] = []
        """What a reader should know about the state in which the file was found."""
        self.says: Callable[[str], None] = lambda _: None
        """Takes what a reader should know at once: who is waited for."""
        self.live = path.parent / "live"
        """The folder of all processes that use it."""
        self._queue: list[tuple[Callable[[sqlite3.Connection], Any], asyncio.Future[Any]]] = []
        self._flushing: asyncio.Task[None] | None = None
        self._writing = threading.Lock()
        self._read_only = read_only
        self.is_first = False
        """Whether a reader has a file whose attempts have no checksums and whose imports no mark."""
        self._in_use: int | None = None
        self._mark: Path | None = None
        """On a network file system: the file that says which machine uses the journal."""
        try:
            if read_only:
                self._db = self._reader = connect_read_only(path)
                self.is_first = is_first(self._db)
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
        self._in_use = _share(self.path)  # first: whoever takes the mark away looks for those who hold it
        try:
            self._mark = claim(self.path)
        except BaseException:
            os.close(self._in_use)
            raise
        if self.path.exists() and is_empty(self.path) and self._alone():
            self.notes.append(f"journal {self.path}: the file was empty (0 bytes): whatever it may have held is gone.")
            self._share_again()
        elif self.path.exists() and not is_sound(self.path):
            self._salvage()
        self._db, self._reader = connect(self.path), connect(self.path)
        self._db.execute(f"PRAGMA busy_timeout={_LOOKS_S * 1000:.0f}")
        self._owner = Owner(self.live)
        clear(self.live)
        self._commit([self._bury, attempts.count_again])

    def _bury(self, db: sqlite3.Connection) -> int:
        return attempts.bury(db, self.live)

    @property
    def owner(self) -> str:
        """The name under which this process has requests in flight."""
        return self._owner.name

    def close(self) -> None:
        """Close the file; whatever is still in flight has an unknown outcome from here on."""
        if not self._read_only:
            self._owner.close()
            with contextlib.suppress(InputError):
                self._commit([self._bury])
            self._reader.close()
        self._db.close()
        if self._in_use is not None:
            release(self._mark, self._in_use)
            os.close(self._in_use)

    # reading

    def find(self, key: str) -> Reply | None:
        """Return the stored reply to a request, or None; one whose checksum is wrong is set aside."""
        row = self._row(f"{SELECT_REPLY} WHERE key = ?", key)
        if row is None:
            return None
        if reply_is_sound(row):
            return attempts.stored_reply(row) if self.takes_imported or row[-2] is None else None
        if not self._read_only:
            self._commit([partial(attempts.set_aside, key=key)])
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

    def asked_by(self, key: str) -> list[str]:
        """Return which other living processes have a request in flight, in words."""
        query = "SELECT DISTINCT owner FROM attempts WHERE key = ? AND outcome IS NULL AND batch IS NULL AND owner != ?"
        return [who(self.live, owner) for (owner,) in self._rows(query, key, self.owner) if alive(self.live, owner)]

    def short(self, attempt: Attempt, caps: Caps) -> Short | None:
        """Return which budget has no room for an attempt now, those of dead processes settled."""
        short = attempts.room_lacking(self._reader, attempt, caps, self.live)
        if short and self.write_now(self._bury):
            short = attempts.room_lacking(self._reader, attempt, caps, self.live)
        return short

    def imported(self) -> int:
        """Return how many replies are imported."""
        return int(self._rows("SELECT COUNT(*) FROM replies WHERE imported IS NOT NULL")[0][0])

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
        return await self.write(lambda db: self._begin(db, attempt, caps))

    def _begin(self, db: sqlite3.Connection, attempt: Attempt, caps: Caps) -> int | Reply | Elsewhere | Short:
        return attempts.begin(db, attempt, caps, self.owner, self.live, imported=self.takes_imported)

    async def record(self, attempt: int, reply: Reply, raw: str) -> None:
        """Store a reply as it came."""
        await self.write(lambda db: attempts.record(db, attempt, reply, raw))

    async def fail(self, attempt: int, *, cost_usd: float, outcome: str) -> None:
        """Store that an attempt brought no reply: `failed` (not billed) or `unknown` (perhaps billed)."""
        await self.write(lambda db: attempts.end(db, attempt, outcome, cost_usd))

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
        said: set[str] = set()
        for look in range(_LOOKS):
            with unstopped():
                try:
                    self._db.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                        raise
                else:
                    return self._carried_out(operations)
            for one in set(stopped(self.live)) - said if look >= _LOOKS_UNSAID else ():
                said.add(one)
                self.says(f"waiting for {one}: it holds the journal {self.path}.")
        holding = " and ".join(sorted(said)) or "another process"
        raise InputError(f"journal {self.path}: {holding} holds it, and did so for {_LOOKS * _LOOKS_S:.0f} s.")

    def _carried_out(self, operations: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[Any]:
        try:
            results = [operation(self._db) for operation in operations]
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return results

    # repair

    def _alone(self) -> bool:
        """Tell whether no other process uses the journal; if so, none can until `_share_again`."""
        assert self._in_use is not None
        try:
            fcntl.flock(self._in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _share_again(self) -> None:
        assert self._in_use is not None
        fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def _salvage(self) -> None:
        """Put every row that can be read and is sound into a new file, and keep the old one beside it."""
        if not self._alone():
            raise InputError(
                f"journal {self.path}: it is damaged, and another process uses it: stop that one, then run again."
            )
        self.notes.append(salvaged(self.path))
        self._share_again()


def _share(path: Path) -> int:
    """Mark the journal as in use, until the process's end."""
    file = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_SH)
    return file
