"""Attempts: who sends what, and what may it cost. Operations on the journal inside a transaction.

An open attempt is a claim and a reservation: while the process that made it lives, every other one waits for its
reply, and its worst case counts in the budgets. An attempt whose process has died has an unknown outcome, and counts
at the most it can have cost.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llamaduo.errors import BudgetError
from llamaduo.service.liveness import alive
from llamaduo.service.reading import read
from llamaduo.service.schema import ATTEMPT, INSERT_REPLY, REPLY, SELECT_REPLY, checksum, insert_attempt, reply_is_sound

_ADD_SPENT = "INSERT INTO spent (scope, usd) VALUES (?, ?) ON CONFLICT (scope) DO UPDATE SET usd = usd + excluded.usd"


@dataclass(frozen=True)
class Reply:
    """What a service LLM answered."""

    key: str
    """The request's key in the journal."""
    text: str
    """What was answered, without the thoughts before it."""
    finish_reason: str
    """Why the reply ended: stop, length, content_filter ..., or the provider's own word (`reading.py`)."""
    prompt_tokens: int
    """Tokens sent, as billed."""
    completion_tokens: int
    """Tokens received, as billed."""
    cost_usd: float
    """Its price."""
    before: tuple[Reply, ...] = field(default=(), compare=False)
    """Unreadable replies after which this one was asked for."""
    model: str = field(default="", compare=False)
    """Which model says it answered; empty where that is not told."""
    aside: str = field(default="", compare=False)
    """Thoughts that stood in the text itself, and are no part of it."""
    sender: str = field(default="", compare=False)
    """Which version of litellm made what was sent; empty where that was made here."""
    as_it_came: str = field(default="", compare=False)
    """With `privacy=on`, the text with made-up values in it; empty where it is the text."""

    @property
    def quotable(self) -> str:
        """What messages may quote of it: the text as it came, or the thoughts where there is none."""
        return self.as_it_came or self.text or self.aside


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


def begin(
    db: sqlite3.Connection, attempt: Attempt, caps: Caps, owner: str, live: Path, *, imported: bool
) -> int | Reply | Elsewhere | Short:
    """Open an attempt and return its number, or what speaks against it; an imported reply does so if `imported`."""
    row = db.execute(f"{SELECT_REPLY} WHERE key = ?", (attempt.key,)).fetchone()
    if row and not reply_is_sound(row):
        set_aside(db, attempt.key)
    elif row and (imported or row[-2] is None):
        return stored_reply(row)
    open_ones = "SELECT id, owner, batch, worst_usd FROM attempts WHERE key = ? AND outcome IS NULL"
    for number, other, batch, worst in db.execute(open_ones, (attempt.key,)).fetchall():
        if batch or (other != owner and alive(live, other)):  # one of ours was cut off: a service asks each key once
            return Elsewhere(batch)
        end(db, number, "unknown", worst)
    short = room_lacking(db, attempt, caps, live)
    if short and bury(db, live):
        short = room_lacking(db, attempt, caps, live)
    if short:
        return short
    request = json.dumps(attempt.request, sort_keys=True)
    db.execute("INSERT OR IGNORE INTO requests (key, request) VALUES (?, ?)", (attempt.key, request))
    values = (
        attempt.key, attempt.run, attempt.stage, attempt.llm, owner, attempt.batch, attempt.worst_usd, time.time(),
        None, None,
    )  # fmt: skip
    return insert_attempt(db, values)


def stored_reply(row: Sequence[Any]) -> Reply:
    """Return the reply in a row of `SELECT_REPLY`."""
    said = read(row[len(REPLY)])
    return dataclasses.replace(Reply(*row[: len(REPLY)]), model=said.model, aside=said.aside, sender=said.sender)


def study_of(run: str) -> str:
    """Return the study of a run named `study/run`."""
    return run.rsplit("/", 1)[0]


def room_lacking(db: sqlite3.Connection, attempt: Attempt, caps: Caps, live: Path) -> Short | None:
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


def record(db: sqlite3.Connection, attempt: int, reply: Reply, raw: str) -> None:
    """Store a reply, which takes the place of an imported one, and settle its attempt."""
    db.execute("DELETE FROM replies WHERE key = ? AND imported IS NOT NULL", (reply.key,))
    row = (*(getattr(reply, name) for name in REPLY), raw)
    db.execute(INSERT_REPLY, (*row, time.time(), checksum(*row)))
    db.execute("UPDATE requests SET failure = NULL WHERE key = ?", (reply.key,))
    end(db, attempt, "replied", reply.cost_usd)


def end(db: sqlite3.Connection, attempt: int, outcome: str, cost_usd: float) -> None:
    """Settle an open attempt, and add what it cost to its run's and its study's sum."""
    query = f"SELECT {', '.join(ATTEMPT[:-2])} FROM attempts WHERE id = ? AND outcome IS NULL"
    for row in db.execute(query, (attempt,)).fetchall():
        values, run = (outcome, cost_usd, checksum(*row, outcome, cost_usd), attempt), row[1]
        db.execute("UPDATE attempts SET outcome = ?, cost_usd = ?, checksum = ? WHERE id = ?", values)
        for scope in _scopes(run):
            db.execute(_ADD_SPENT, (scope, cost_usd))


def _scopes(run: str) -> set[str]:
    """Return whose sums a run's attempts count in; a name that damage left half a character in has a `?` there."""
    whole = run.encode("utf-8", "replace").decode()
    return {whole, study_of(whole)}


def count_again(db: sqlite3.Connection) -> None:
    """Derive the sums of the ledger from its attempts."""
    db.execute("DELETE FROM spent")
    paid = db.execute("SELECT run, SUM(cost_usd) FROM attempts WHERE outcome IS NOT NULL GROUP BY run").fetchall()
    for run, cost in paid:
        for scope in _scopes(run):
            db.execute(_ADD_SPENT, (scope, cost or 0.0))


def bury(db: sqlite3.Connection, live: Path) -> int:
    """Settle the attempts of dead processes, at their worst; return their number."""
    query = "SELECT id, owner, worst_usd FROM attempts WHERE outcome IS NULL AND batch IS NULL"
    open_ones = db.execute(query).fetchall()
    living = {owner: alive(live, owner) for owner in {owner for _, owner, _ in open_ones}}
    dead = [(number, worst) for number, owner, worst in open_ones if not living[owner]]
    for number, worst in dead:
        end(db, number, "unknown", worst)
    return len(dead)


def set_aside(db: sqlite3.Connection, key: str) -> None:
    """Take a reply whose checksum is wrong out of the way."""
    row = db.execute("SELECT * FROM replies WHERE key = ?", (key,)).fetchone()
    values = (key, "replies: checksum", json.dumps(row, default=repr), time.time())
    db.execute("INSERT INTO set_aside (key, why, row, found_at) VALUES (?, ?, ?, ?)", values)
    db.execute("DELETE FROM replies WHERE key = ?", (key,))
