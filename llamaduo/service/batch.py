"""Batches: many requests handed in at once, at half the price, answered within a day.

    replies = Batches(llm, journal, tariff, run="study/run", caps=caps)
    outcome = await replies.ask(request)      # a Reply, or None: ask live

Requests gather for half a second and are handed in together. Everything that identifies a batch is in the journal
before it is handed in, so any process can collect it: one that was killed while it waited, or another one that
wants one of its rows. Of a batch that expired, the rows that are done are kept.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from llamaduo.config import ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.service.attempts import Attempt, Caps, Elsewhere, Reply, Short, no_money
from llamaduo.service.billing import Allowed, Beyond, bill_of
from llamaduo.service.bodies import most_billed
from llamaduo.service.journal import Journal
from llamaduo.service.liveness import alive
from llamaduo.service.prices import Tariff
from llamaduo.service.reading import form_of, read
from llamaduo.service.received import parsed
from llamaduo.service.requests import Request
from llamaduo.service.transport import batch_body, batch_call

T = TypeVar("T")

_GATHER_S = 0.5
_MOST_ROWS = 50_000
_MARK = "llamaduo"
_ENDED = ("completed", "failed", "expired", "cancelled")
_WAIT_S = 2.0
_LOOKS = 4
_MOST_CHARACTERS = 50_000_000
_Row = tuple[Request, "asyncio.Future[None]"]


def _one_file(rows: list[_Row]) -> tuple[list[_Row], list[_Row]]:
    """Return as many of the first rows as a batch's file may hold, and the rest."""
    size = 0
    for number, (request, _) in enumerate(rows[:_MOST_ROWS]):
        size += request.characters
        if number and size > _MOST_CHARACTERS:
            return rows[:number], rows[number:]
    return rows[:_MOST_ROWS], rows[_MOST_ROWS:]


class Batches:
    """Access to one service LLM through its provider's batch API."""

    def __init__(
        self, llm: ServiceLLM, journal: Journal, tariff: Tariff, *, run: str, caps: Caps, beyond: Beyond
    ) -> None:
        self._beyond = beyond
        self._llm, self._journal, self._tariff = llm, journal, tariff
        self._run, self._caps = run, caps
        self._gathered: list[_Row] = []
        self._gathering: asyncio.Task[None] | None = None
        self._collecting: dict[str, asyncio.Task[bool]] = {}

    async def ask(self, request: Request) -> Reply | None:
        """Return the reply to a request; None if the batch brought none."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.append((request, settled))
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())
        await settled
        return self._journal.find(request.key)

    async def _gather(self) -> None:
        """Hand in what has come together, as long as something comes."""
        while self._gathered:
            before = 0
            while before < len(self._gathered) < _MOST_ROWS:
                before = len(self._gathered)
                await asyncio.sleep(_GATHER_S)
            rows, self._gathered = _one_file(self._gathered)
            rows = [(request, settled) for request, settled in rows if not settled.done()]
            try:
                left = await self._hand_in([request for request, _ in rows])
            except Exception as error:
                for _, settled in rows:
                    if not settled.done():
                        settled.set_exception(error)
                continue
            for request, settled in rows:
                if request.key in left:
                    self._gathered.append((request, settled))
                elif not settled.done():
                    settled.set_result(None)

    async def _hand_in(self, requests: Sequence[Request]) -> set[str]:
        """Hand in what nobody has asked yet and wait for it; return the keys that have to wait.

        They do so for room in the budget, or for somebody who asks them live; or they were in a batch that its maker,
        now dead, did not hand in.
        """
        if not self._tariff.free:
            self._beyond.refuse(self._llm)
        batch = uuid.uuid4().hex
        begun = await asyncio.gather(*(self._journal.begin(self._wish(r, batch), self._caps) for r in requests))
        ours = [r for r, found in zip(requests, begun, strict=True) if isinstance(found, int)]
        if ours:
            await self._create_or_call_off(batch, ours)
            await self.collect(batch)
        others = {found.batch for found in begun if isinstance(found, Elsewhere) and found.batch}
        lost = [Elsewhere(other) for other in others if not await self.collect(other)]
        short = [found for found in begun if isinstance(found, Short)]
        if short and not ours and not others and short[0].reserved_usd <= 0:
            worst = max(self._wish(request, batch).worst_usd for request in requests)
            raise no_money(short[0], self._caps, worst)
        waiting = [Elsewhere(None), *short, *lost]
        left = {request.key for request, found in zip(requests, begun, strict=True) if found in waiting}
        if left and not ours:
            await asyncio.sleep(_WAIT_S)
        return left

    def _wish(self, request: Request, batch: str) -> Attempt:
        worst = self._tariff.cost(request.longest_prompt, request.longest_reply, batch=True)
        llm = f"{self._llm.provider}/{self._llm.model}"
        return Attempt(request.key, request.sent, self._run, request.stage, llm, worst, batch)

    async def _create_or_call_off(self, batch: str, requests: Sequence[Request]) -> None:
        """Hand in a batch; if the provider refuses it, settle its rows."""
        try:
            await self._create(batch, requests)
        except TransientError:
            raise
        except ServiceError:
            for attempt, _, _ in self._journal.open_rows(batch):
                await self._journal.fail(attempt, cost_usd=0.0, outcome="failed")
            raise

    async def _create(self, batch: str, requests: Sequence[Request]) -> None:
        """Hand in a batch, once, even where it is not known whether a first try arrived."""
        lines = "".join(json.dumps(self._line(request)) + "\n" for request in requests)
        name = (f"{batch}.jsonl", lines.encode())
        file = await self._patiently(lambda: batch_call(self._llm, "files.create", file=name, purpose="batch"))

        tried = False

        async def create() -> str:
            nonlocal tried
            known = await self._look_for(batch) if tried else None
            tried = True
            if known:
                return known
            remote = await batch_call(
                self._llm,
                "batches.create",
                completion_window="24h",
                endpoint="/v1/chat/completions",
                input_file_id=file.id,
                metadata={_MARK: batch},
            )
            return str(remote.id)

        await self._remember(batch, await self._patiently(create))

    async def _remember(self, batch: str, remote_id: str) -> None:
        values = (batch, f"{self._llm.provider}/{self._llm.model}", remote_id, time.time())
        statement = "INSERT OR REPLACE INTO batches (id, llm, remote_id, created_at) VALUES (?, ?, ?, ?)"
        await self._journal.write(lambda db: db.execute(statement, values))

    def _line(self, request: Request) -> dict[str, Any]:
        body = batch_body(
            self._llm, request.prompt, schema=request.schema, seed=request.repeat, earlier=request.earlier
        )
        return {"custom_id": request.key, "method": "POST", "url": "/v1/chat/completions", "body": body}

    async def _look_for(self, batch: str) -> str | None:
        """Return the provider's id of a batch that may have been handed in; its list may take a while to show it."""
        for look in range(_LOOKS):
            found = await self._patiently(lambda: self._find_remote(batch))
            if found:
                return found
            if look + 1 < _LOOKS:
                await asyncio.sleep(_WAIT_S)
        return None

    async def _find_remote(self, batch: str) -> str | None:
        """Return the provider's id of a batch that was handed in, by its mark; None if it never arrived."""
        after: str | None = None
        while True:
            page = await batch_call(self._llm, "batches.list", limit=100, **({"after": after} if after else {}))
            found = list(page.data)
            for remote in found:
                if (remote.metadata or {}).get(_MARK) == batch:
                    return str(remote.id)
            if not found or not getattr(page, "has_more", False):
                return None
            after = found[-1].id

    async def collect(self, batch: str) -> bool:
        """Wait for a batch to end and store what it brought; return whether anybody has handed it in."""
        if batch not in self._collecting:
            self._collecting[batch] = asyncio.create_task(self._collect(batch))
        try:
            return await asyncio.shield(self._collecting[batch])
        except ServiceError:
            self._collecting.pop(batch, None)
            raise

    async def _collect(self, batch: str) -> bool:
        remote_id = await self._remote_id(batch)
        lines: dict[str, str] = {}
        completed = False
        if remote_id is not None:
            remote = await self._ended(remote_id)
            completed = remote.status == "completed"
            for file in (remote.output_file_id, getattr(remote, "error_file_id", None)):
                lines |= await self._lines(file) if file else {}
        for attempt, key, worst in self._journal.open_rows(batch):
            line = lines.get(key)
            reply = self._reply(key, line, worst) if line else None
            if line and reply:
                await self._journal.record(attempt, reply, line)
            elif _answered(line) if line else completed:
                await self._journal.fail(attempt, cost_usd=worst, outcome="unknown")
            else:
                await self._journal.fail(attempt, cost_usd=0.0, outcome="failed")
        return remote_id is not None

    async def _remote_id(self, batch: str) -> str | None:
        """Return the provider's id of a batch; of one whose maker died while handing it in, look for its mark."""
        while (remote_id := self._journal.batch(batch)) is None:
            owners = self._journal.query("SELECT DISTINCT owner FROM attempts WHERE batch = ?", batch)
            if not any(alive(self._journal.live, owner) for (owner,) in owners):
                found = await self._look_for(batch)
                if found:
                    await self._remember(batch, found)
                return found
            await asyncio.sleep(_WAIT_S)
        return remote_id

    async def _ended(self, remote_id: str) -> Any:
        while True:
            remote = await self._patiently(lambda: batch_call(self._llm, "batches.retrieve", batch_id=remote_id))
            if remote.status in _ENDED:
                return remote
            await asyncio.sleep(self._llm.batch_poll_s)

    async def _lines(self, file: str) -> dict[str, str]:
        """Return the rows of a result file, as they came, by their key; one that is no JSON object is left out."""
        content = await self._patiently(lambda: batch_call(self._llm, "files.content", file_id=file))
        found = {}
        for line in content.text.split("\n"):  # splitlines would cut a reply at its U+2028
            row = parsed(line)
            if isinstance(row, Mapping) and "custom_id" in row:
                found[str(row["custom_id"])] = line.encode("utf-8", "replace").decode()
        return found

    def _reply(self, key: str, line: str, worst: float) -> Reply | None:
        """Return the reply in a row of a result file, None if it holds an error."""
        response = parsed(line).get("response")
        if not isinstance(response, Mapping) or response.get("status_code") != 200 or not form_of(response.get("body")):
            return None
        said = read(line)
        allowed = Allowed(most_billed(self._llm), worst, bounded=not self._llm.unbounded_usage)
        bill = bill_of(said, self._tariff, allowed, batch=True)
        self._beyond.count(self._llm, bill)
        counted = bill.prompt_tokens, bill.completion_tokens, bill.cost_usd
        return Reply(key, said.text, said.finish_reason, *counted, model=said.model, aside=said.aside)

    async def _patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try something that may be tried again, as often as the service LLM's `max_attempts` says."""
        for tries in range(1, self._llm.max_attempts + 1):
            try:
                return await attempt()
            except TransientError as error:
                if tries == self._llm.max_attempts:
                    raise ServiceError(f"{error}; run the same command again, and the batch is collected.") from error
                await asyncio.sleep(max(_WAIT_S * tries, error.retry_after))
        raise AssertionError("max_attempts is at least 1")


def _answered(line: str) -> bool:
    """Tell whether a row of a result file is that of a request which was carried out, and so was billed."""
    response = parsed(line).get("response")
    return isinstance(response, Mapping) and response.get("status_code") == 200
