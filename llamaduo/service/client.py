"""Asking service LLMs: each distinct request once, through the journal, within the budgets and the limits.

    service = Service(journal, run="runs/pocket_llama-coding-1a2b3c4d", budget_usd=5.0)
    outcomes = service.ask(requests, progress)      # a Reply or a Failure each, in the order of the requests
    async for answer in service.stream(requests):   # the same, in the order in which they come
        ...

A reply that lies in the journal is taken from there; one that another process has in flight is waited for; the
rest is bought. Faults that waiting may mend (408, 409, 429, 5xx, broken connections) are tried again, not before
Retry-After says so and without holding a slot meanwhile; refusals by the provider (400, 401, 403, 404) end the
stage at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any

from llamaduo.config import Price
from llamaduo.errors import ServiceError
from llamaduo.service.attempts import Caps, Reply
from llamaduo.service.buying import Buyer
from llamaduo.service.concealing import Concealing
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Again, Answer, Failure, Outcome, Request
from llamaduo.service.standing_clock import StandingClock
from llamaduo.service.transport import hang_up

Progress = Callable[[int, int], None]
"""Takes how many are done and how many there are."""

_GRACE_S = 30.0
_FED_AT_ONCE = 32


def _never(_: Request, __: Outcome) -> None:
    return None


class Service:
    """One run's access to service LLMs; close it when done.

    With `replay` nothing is ever sent: what the journal doesn't hold raises ServiceError.
    """

    def __init__(
        self,
        journal: Journal,
        *,
        run: str,
        budget_usd: float | None,
        study_budget_usd: float | None = None,
        prices: Mapping[str, Price] | None = None,
        replay: bool = False,
        reasks: int = 0,
        concealing: Concealing | None = None,
    ) -> None:
        self._journal = journal
        self._run = run
        caps = Caps(budget_usd, study_budget_usd)
        self._buyer = Buyer(journal, run=run, caps=caps, prices=prices or {})
        self._replay = replay
        self.reasks = reasks
        """How often replies that can't be used are asked for besides."""
        self.concealing = concealing
        """What keeps real values from being sent, with `privacy=on`."""
        self._runner = asyncio.Runner(loop_factory=StandingClock)
        self._grace_s = _GRACE_S
        self._shared: dict[str, asyncio.Future[Outcome]] = {}
        """Every request that this process is asking now, by its key."""
        self.asked: set[str] = set()
        """The keys of all requests that were asked here, bought or not."""

    @property
    def says(self) -> Callable[[str], None]:
        """Takes what a reader should know at once: who is waited for."""
        return self._journal.says

    @says.setter
    def says(self, says: Callable[[str], None]) -> None:
        self._journal.says = says

    @property
    def spent_usd(self) -> float:
        """What this run has paid so far, in US dollars, resumes included, unknown outcomes at their worst."""
        return self._journal.spent(self._run)

    @property
    def outlook(self) -> list[str]:
        """What a reader should know of the journal before anything is asked: how many of its replies are imported."""
        count = self._journal.imported()
        if not count:
            return []
        if self._journal.takes_imported:
            how = "they are used" + ("" if self._replay else " as if they had been bought here (service.imported=true)")
        else:
            how = (
                "they are not used, and what is needed of them is bought; service.imported=true uses them, as "
                "service.replay=true does"
            )
        return [
            f"journal {self._journal.path}: {count:,} {'reply is' if count == 1 else 'replies are'} imported: {how}."
        ]

    @property
    def notes(self) -> list[str]:
        """What a reader should know about the state in which the journal was found."""
        return [*self._journal.notes, *self._buyer.notes]

    @property
    def remarks(self) -> list[str]:
        """What should be looked at once a run is done."""
        return self._buyer.remarks

    def stored(self, key: str) -> Reply | None:
        """Return the reply that the journal holds for a request's key."""
        return self._journal.find(key)

    def can_answer(self, request: Request) -> bool:
        """Tell whether a request can be answered at all: in a replay the journal has to hold what came of it."""
        key = self.key(request)
        return not self._replay or bool(self._journal.find(key) or self._journal.failure(key))

    def key(self, request: Request) -> str:
        """Return the key under which the journal holds what comes of a request: that of what is sent."""
        return self.concealing.request(request)[0].key if self.concealing else request.key

    @contextlib.contextmanager
    def from_the_journal_alone(self) -> Iterator[None]:
        """Send nothing for a while: what the journal doesn't hold raises ServiceError, as with `replay`."""
        before, self._replay = self._replay, True
        try:
            yield
        finally:
            self._replay = before

    def close(self) -> None:
        """Close the event loop, the limits and the journal, each of them even if an interruption ends another's."""
        with contextlib.ExitStack() as after:
            after.callback(self._journal.close)
            self._buyer.close(after)
            after.callback(self._runner.close)
            self._runner.run(hang_up())

    def ask(self, requests: Sequence[Request], progress: Progress, again: Again = _never) -> list[Outcome]:
        """Return the outcome of every request, in order; raises ServiceError and BudgetError.

        The longest prompts are sent first: they tend to take longest, and a straggler at the end leaves slots idle.
        """
        return self._runner.run(self._ask(requests, progress, again))

    async def _ask(self, requests: Sequence[Request], progress: Progress, again: Again) -> list[Outcome]:
        distinct = {request.key: request for request in requests}
        outcomes: dict[str, Outcome] = {}
        progress(0, len(distinct))
        longest_first = sorted(distinct.values(), key=lambda request: -len(request.prompt))
        async with contextlib.aclosing(self.stream(longest_first, again)) as answers:
            async for answer in answers:
                outcomes[answer.request.key] = answer.outcome
                progress(len(outcomes), len(distinct))
        return [outcomes[request.key] for request in requests]

    async def stream(
        self, requests: Iterable[Request] | AsyncIterable[Request], again: Again = _never
    ) -> AsyncGenerator[Answer, None]:
        """Yield an answer for every request, as they come; raises ServiceError and BudgetError.

        Where `again` returns another request for an outcome, that one is asked at once, and its outcome, which
        holds the replies `before` it, takes the place of the first.
        """
        self._buyer.stopping, self._grace_s = False, _GRACE_S
        done: asyncio.Queue[asyncio.Task[Answer | None]] = asyncio.Queue()
        tasks: set[asyncio.Task[Any]] = set()

        def start(coroutine: Any) -> None:
            task = asyncio.create_task(coroutine)
            tasks.add(task)
            task.add_done_callback(done.put_nowait)

        async def feed() -> None:
            number = 0
            async for request in _each(requests):
                start(self._answer(request, again))
                number += 1
                if number % _FED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # the first calls needn't wait until the last is prepared

        start(feed())
        try:
            while tasks:
                task = await done.get()
                tasks.discard(task)
                answer = task.result()
                if answer is not None:
                    yield answer
        except Exception:
            self._grace_s = max(_GRACE_S, self._buyer.patience_s)  # nobody is in a hurry: what is sent is waited for
            raise
        finally:
            await self._wind_up(tasks)
            if self.concealing:
                self.concealing.tally.keep()

    async def _wind_up(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Send nothing more, and wait a while for what is sent: it is paid for."""
        self._buyer.stopping = True
        if not tasks:
            return
        for task in tasks:
            if task not in self._buyer.in_flight:
                task.cancel()
        _, late = await asyncio.wait(tasks, timeout=self._grace_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, request: Request, again: Again) -> Answer:
        """Ask, and ask again as long as `again` wants it."""
        asked = request
        before: tuple[Reply, ...] = ()
        while True:
            outcome = await self._concealed(asked)
            following = again(asked, outcome)
            if following is None:
                return Answer(request, dataclasses.replace(outcome, before=before))
            before = (*before, outcome) if isinstance(outcome, Reply) else before
            asked = following

    async def _concealed(self, request: Request) -> Outcome:
        """Return the outcome of a request, of which nothing is sent that has to stay here."""
        if self.concealing is None:
            return await self._outcome(request)
        sent, hidden = self.concealing.request(request)
        return self.concealing.outcome(await self._outcome(sent), hidden)

    async def _outcome(self, request: Request) -> Outcome:
        """Return the outcome of a request, which is shared by all that ask the same at the same time."""
        self.asked.add(request.key)
        while shared := self._shared.get(request.key):
            try:
                return await asyncio.shield(shared)
            except asyncio.CancelledError:
                if not shared.cancelled():
                    raise
        stored = self._journal.find(request.key)
        if stored:
            self._buyer.take_down(request, stored)
            return stored
        shared = self._shared[request.key] = asyncio.get_running_loop().create_future()
        try:
            outcome = self._replayed(request) if self._replay else await self._buyer.buy(request)
        except BaseException as error:
            shared.set_exception(error) if isinstance(error, Exception) else shared.cancel()
            if not shared.cancelled():
                shared.exception()  # it is seen here; whoever else waits sees it too
            raise
        else:
            shared.set_result(outcome)
            return outcome
        finally:
            del self._shared[request.key]

    def _replayed(self, request: Request) -> Failure:
        """Return the failure that the journal has for a request; anything else is a miss."""
        reason, _, message = (self._journal.failure(request.key) or "").partition(": ")
        if reason:
            return Failure(request.key, reason, message)
        raise ServiceError(
            f"replay: the journal {self._journal.path} holds no reply of {request.llm.provider}/{request.llm.model} to "
            f"request {request.key[:8]} ({request.stage}, repeat {request.repeat}): it was made with other data or "
            "another configuration. Nothing was sent."
        )


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
