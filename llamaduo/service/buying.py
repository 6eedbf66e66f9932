"""Buying one reply: when limits and budgets allow it, tried again where that may help, and stored before it is read.

outcome = await Buyer(journal, run="study/run", caps=caps, prices={}).buy(request)      # a Reply or a Failure
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.service.answered_by import AnsweredBy
from llamaduo.service.attempts import Attempt, Caps, Elsewhere, Reply, Short, no_money
from llamaduo.service.batch import Batches
from llamaduo.service.billing import Allowed, Beyond, bill_of
from llamaduo.service.journal import Journal
from llamaduo.service.limits import Gate
from llamaduo.service.prices import tariff
from llamaduo.service.reading import read
from llamaduo.service.refusals import NoReplyError, PerhapsRefusedError, RefusedError, UnknownOutcomeError
from llamaduo.service.requests import Failure, Outcome, Request
from llamaduo.service.transport import api_key, call

_LONGEST_WAIT = 60.0
_LOOK_AGAIN_S = 0.1
_SAY_S = 5.0
"""Who is waited for this long is named."""


class Buyer:
    """One run's purchases."""

    def __init__(self, journal: Journal, *, run: str, caps: Caps, prices: Mapping[str, Price]) -> None:
        self._journal, self._run, self._caps, self._prices = journal, run, caps, prices
        self._gates: dict[tuple[str | None, ...], Gate] = {}
        self._batches: dict[str, Batches] = {}
        self._failed_in_a_row: Counter[str] = Counter()
        self._answered: set[str] = set()
        """What has been answered, by `_way`: asked like this, a service LLM takes requests."""
        self._answered_by = AnsweredBy()
        self._beyond = Beyond()
        self._waited_for: set[str] = set()
        self._settled = asyncio.Event()
        """Set whenever a call is settled: there may be room in the budget."""
        self._short = asyncio.Lock()
        """Held by the one call that waits for room in the budget; the others wait behind it."""
        self.stopping = False
        """Whether nothing more is to be sent."""
        self.patience_s = 0.0
        """The longest timeout of those asked."""
        self.in_flight: set[asyncio.Task[Any] | None] = set()
        """Calls that are sent: what they cost is paid, so their replies are waited for whatever happens."""

    @property
    def notes(self) -> list[str]:
        """What a reader should know of who answered, and of usage beyond what was allowed."""
        return [*self._answered_by.notes(), *self._beyond.notes()]

    @property
    def remarks(self) -> list[str]:
        """What should be looked at once a run is done."""
        return self._answered_by.remarks()

    def close(self, after: contextlib.ExitStack) -> None:
        """Have the limits closed by `after`."""
        for gate in self._gates.values():
            after.callback(gate.close)

    async def buy(self, request: Request) -> Outcome:
        """Buy what the journal doesn't hold: live or by a batch."""
        if request.llm.batch:
            reply = await self._batch(request.llm).ask(request)
            if reply is not None:
                self.take_down(request, reply)
                return reply
            if not request.llm.batch_fallback:
                await self._journal.give_up(request.key, "no_reply: its batch brought none")
                return Failure(request.key, "no_reply", "its batch brought none")
        return await self._complete(request)

    def _gate(self, llm: ServiceLLM) -> Gate:
        place = (llm.provider, llm.base_url or llm.base_url_env, llm.model)
        if place not in self._gates:
            folder = self._journal.path.parent / "limits"
            self._gates[place] = Gate(llm, folder, self._journal.owner, self._journal.live, self._journal.says)
        return self._gates[place]

    def _batch(self, llm: ServiceLLM) -> Batches:
        if llm.name not in self._batches:
            known = tariff(llm, self._prices)
            self._batches[llm.name] = Batches(
                llm, self._journal, known, run=self._run, caps=self._caps, beyond=self._beyond
            )
        return self._batches[llm.name]

    async def _complete(self, request: Request) -> Outcome:
        """Try a call until it is answered, refused or given up."""
        llm, key = request.llm, request.key
        self.patience_s = max(self.patience_s, llm.timeout_s)
        api_key(llm)
        jitter = random.Random(key)
        for tries in range(1, llm.max_attempts + 1):
            try:
                reply = await self._try(request, tries)
                self._failed_in_a_row[llm.name] = 0
                self.take_down(request, reply)
                return reply
            except PerhapsRefusedError as error:
                if _way(request) not in self._answered:
                    raise
                return await self._refused(request, error)
            except RefusedError as error:
                return await self._refused(request, error)
            except NoReplyError as error:
                return await self._given_up(request, error)
            except TransientError as error:
                if tries == llm.max_attempts or self.stopping:
                    return await self._given_up(request, error)
                wait = min(_LONGEST_WAIT, 0.5 * 2**tries) * jitter.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, error.retry_after))
        raise AssertionError("max_attempts is at least 1")

    def take_down(self, request: Request, reply: Reply) -> None:
        """Count a reply, bought or found: who answered, and what of it was set apart."""
        self._answered.add(_way(request))
        self._answered_by.count(request.llm, reply)

    async def _refused(self, request: Request, error: RefusedError) -> Failure:
        await self._journal.give_up(request.key, f"refused: {error}")
        return Failure(request.key, "refused", str(error))

    async def _given_up(self, request: Request, error: ServiceError) -> Failure:
        llm = request.llm
        self._failed_in_a_row[llm.name] += 1
        await self._journal.give_up(request.key, f"no_reply: {error}")
        if self._failed_in_a_row[llm.name] >= max(4, llm.concurrency):
            raise ServiceError(
                f"{llm.name} is out of reach: {self._failed_in_a_row[llm.name]} calls in a row failed, "
                f"{llm.max_attempts} tries each; last: {error}. Run the same command again when it is back."
            ) from error
        return Failure(request.key, "no_reply", str(error))

    async def _try(self, request: Request, tries: int) -> Reply:
        """Send once, when limits and budgets allow it, unless somebody else does or has done so."""
        llm = request.llm
        price = tariff(llm, self._prices)
        worst = price.cost(request.longest_prompt, request.longest_reply)
        wish = Attempt(request.key, request.sent, self._run, request.stage, f"{llm.provider}/{llm.model}", worst)
        tokens = request.characters // 4 + request.longest_reply
        while True:
            async with self._gate(llm).slot(tokens=tokens, tries=tries):
                self.in_flight.add(asyncio.current_task())
                try:
                    if not price.free:
                        self._beyond.refuse(llm)
                    begun = await self._journal.begin(wish, self._caps)
                    raw = await self._send(request, begun, worst) if isinstance(begun, int) else ""
                except BaseException:
                    self.in_flight.discard(asyncio.current_task())
                    raise
            try:
                if isinstance(begun, Reply):
                    return begun
                if isinstance(begun, int):
                    return await self._record(request, begun, raw, worst)
            finally:
                self.in_flight.discard(asyncio.current_task())
            await self._wait_for(begun, wish, llm)

    async def _wait_for(self, hindrance: Elsewhere | Short, wish: Attempt, llm: ServiceLLM) -> None:
        """Wait until another process may have the reply, or until there may be room in the budget."""
        if isinstance(hindrance, Elsewhere):
            if hindrance.batch:
                await self._batch(llm).collect(hindrance.batch)
            began = asyncio.get_running_loop().time()
            while self._journal.elsewhere(wish.key):
                if asyncio.get_running_loop().time() - began > _SAY_S:
                    self._say_who(wish.key)
                await asyncio.sleep(_LOOK_AGAIN_S)
            return
        async with self._short:
            while short := self._journal.short(wish, self._caps):
                if short.reserved_usd <= 0:
                    raise no_money(short, self._caps, wish.worst_usd)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._settled.wait(), _LOOK_AGAIN_S)
                self._settled.clear()

    def _say_who(self, key: str) -> None:
        """Say whom a request waits for, once of each."""
        for one in self._journal.asked_by(key):
            if one not in self._waited_for:
                self._waited_for.add(one)
                self._journal.says(f"waiting for {one}: it has the same request in flight, which is not bought twice.")

    async def _send(self, request: Request, attempt: int, worst: float) -> str:
        """Send, and settle at once what brought no reply."""
        if self.stopping:
            await self._journal.fail(attempt, cost_usd=0.0, outcome="failed")
            raise asyncio.CancelledError
        try:
            return await call(
                request.llm, request.prompt, schema=request.schema, seed=request.repeat, earlier=request.earlier
            )
        except (UnknownOutcomeError, NoReplyError) as error:
            billed = getattr(error, "status", None) not in tariff(request.llm, self._prices).unbilled
            await self._journal.fail(
                attempt, cost_usd=worst if billed else 0.0, outcome="unknown" if billed else "failed"
            )
            raise
        except Exception:
            await self._journal.fail(attempt, cost_usd=0.0, outcome="failed")
            raise
        finally:
            self._settled.set()

    async def _record(self, request: Request, attempt: int, raw: str, worst: float) -> Reply:
        """Store the raw reply, beside what it says."""
        said = read(raw)
        bounded = not request.llm.unbounded_usage
        allowed = Allowed(request.longest_reply, worst, request.longest_prompt, bounded)
        bill = bill_of(said, tariff(request.llm, self._prices), allowed)
        counted = bill.prompt_tokens, bill.completion_tokens, bill.cost_usd
        reply = Reply(request.key, said.text, said.finish_reason, *counted, model=said.model, aside=said.aside)
        self._beyond.count(request.llm, bill)  # before anything waits: the next call would be sent meanwhile
        await self._journal.record(attempt, reply, raw)
        self._settled.set()
        return reply


def _way(request: Request) -> str:
    """Return how a service LLM is asked, but for the words: who is answered once like this isn't asked in vain."""
    sent = {name: value for name, value in request.sent.items() if name not in ("messages", "repeat", "seed")}
    return json.dumps([request.stage, sent], sort_keys=True)
