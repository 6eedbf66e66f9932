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
import json
import random
from collections import Counter
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
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llamaduo.config import Price, ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.service.answered_by import AnsweredBy
from llamaduo.service.attempts import Attempt, Caps, Elsewhere, Reply, Short, no_money
from llamaduo.service.batch import Batches
from llamaduo.service.billing import Allowed, Beyond, bill_of
from llamaduo.service.bodies import most_billed, parameters
from llamaduo.service.journal import Journal
from llamaduo.service.limits import Gate
from llamaduo.service.prices import tariff
from llamaduo.service.reading import read
from llamaduo.service.refusals import NoReplyError, PerhapsRefusedError, RefusedError, UnknownOutcomeError
from llamaduo.service.schema import request_key
from llamaduo.service.set_apart import SetApart
from llamaduo.service.standing_clock import StandingClock
from llamaduo.service.transport import api_key, call, hang_up, messages

Progress = Callable[[int, int], None]
"""Takes how many are done and how many there are."""

_LONGEST_WAIT = 60.0
_GRACE_S = 30.0
_LOOK_AGAIN_S = 0.1
_SAY_S = 5.0
"""Who is waited for this long is named."""
_FED_AT_ONCE = 32


@dataclass(frozen=True)
class Request:
    """One call to make."""

    llm: ServiceLLM
    """Whom to ask."""
    prompt: str
    """What to ask, as the user's message."""
    schema: Mapping[str, Any] | None
    """JSON schema of the reply; sent where the service LLM takes one."""
    repeat: int
    """Number of the repeat: the same request with another number is another purchase."""
    stage: str
    """Which stage asks."""
    earlier: tuple[Mapping[str, str], ...] = ()
    """What goes before the prompt, as `{"role", "content"}` turns: a system's, a conversation's."""

    @cached_property
    def sent(self) -> dict[str, Any]:
        """Everything that identifies the call: what is sent, and the repeat's number."""
        llm = self.llm
        return {
            "provider": llm.provider,
            "base_url": llm.base_url,
            "model": llm.model,
            "messages": messages(self.prompt, self.earlier),
            "max_tokens": llm.max_tokens,
            "temperature": llm.temperature,
            "seed": self.repeat if llm.send_seed else None,
            "schema": self.schema if llm.json_schema else None,
            "parameters": parameters(llm),
            "repeat": self.repeat,
            **({"base_url_env": llm.base_url_env} if llm.base_url_env else {}),
            **({"headers_env": dict(llm.headers_env)} if llm.headers_env else {}),
        }

    @cached_property
    def key(self) -> str:
        """The request's key in the journal."""
        return request_key(self.sent)

    @property
    def characters(self) -> int:
        """The characters of all turns."""
        return len(self.prompt) + sum(len(turn["content"]) for turn in self.earlier)

    @property
    def longest_prompt(self) -> int:
        """The most tokens that the prompt can have: no tokenizer makes more tokens than bytes."""
        schema = len(json.dumps(self.schema)) if self.schema and self.llm.json_schema else 0
        earlier = sum(len(turn["content"].encode(errors="replace")) + 64 for turn in self.earlier)
        return len(self.prompt.encode(errors="replace")) + earlier + schema + 64

    @property
    def longest_reply(self) -> int:
        """The most tokens that the reply may have."""
        return most_billed(self.llm)


@dataclass(frozen=True)
class Failure:
    """A call that got no usable reply, all tries included."""

    key: str
    """The request's key in the journal."""
    reason: str
    """`no_reply` or `refused`."""
    message: str
    """What the service said."""
    before: tuple[Reply, ...] = dataclasses.field(default=(), compare=False)
    """Unreadable replies after which this one was asked for."""


Outcome = Reply | Failure
Again = Callable[[Request, Outcome], Request | None]
"""Takes a request and its outcome; returns what to ask instead if that outcome is of no use, else None."""


@dataclass(frozen=True)
class Answer:
    """A request, and what came of it."""

    request: Request
    outcome: Outcome


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
    ) -> None:
        self._journal = journal
        self._run = run
        self._caps = Caps(budget_usd, study_budget_usd)
        self._prices = prices or {}
        self._replay = replay
        self.reasks = reasks
        """How often replies that can't be used are asked for besides."""
        self._runner = asyncio.Runner(loop_factory=StandingClock)
        self._gates: dict[tuple[str | None, ...], Gate] = {}
        self._batches: dict[str, Batches] = {}
        self._failed_in_a_row: Counter[str] = Counter()
        self._answered: set[str] = set()
        """What has been answered, by `_way`: asked like this, a service LLM takes requests."""
        self._answered_by = AnsweredBy()
        self._set_apart = SetApart()
        self._beyond = Beyond()
        self._waited_for: set[str] = set()
        self._stopping = False
        self._grace_s = _GRACE_S
        self._patience_s = 0.0
        """The longest timeout of those asked."""
        self._settled = asyncio.Event()
        """Set whenever a call is settled: there may be room in the budget."""
        self._short = asyncio.Lock()
        """Held by the one call that waits for room in the budget; the others wait behind it."""
        self._shared: dict[str, asyncio.Future[Outcome]] = {}
        """Every request that this process is asking now, by its key."""
        self.asked: set[str] = set()
        """The keys of all requests that were asked here, bought or not."""
        self._in_flight: set[asyncio.Task[Any] | None] = set()
        """Calls that are sent: what they cost is paid, so their replies are waited for whatever happens."""

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
        return [*self._journal.notes, *self._answered_by.notes(), *self._beyond.notes()]

    @property
    def remarks(self) -> list[str]:
        """What should be looked at once a run is done."""
        return self._set_apart.notes()

    def stored(self, key: str) -> Reply | None:
        """Return the reply that the journal holds for a request's key."""
        return self._journal.find(key)

    def can_answer(self, request: Request) -> bool:
        """Tell whether a request can be answered at all: in a replay the journal has to hold what came of it."""
        return not self._replay or bool(self._journal.find(request.key) or self._journal.failure(request.key))

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
            for gate in self._gates.values():
                after.callback(gate.close)
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
        self._stopping, self._grace_s = False, _GRACE_S
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
            self._grace_s = max(_GRACE_S, self._patience_s)  # nobody is in a hurry: what is sent is waited for
            raise
        finally:
            await self._wind_up(tasks)

    async def _wind_up(self, tasks: set[asyncio.Task[Any]]) -> None:
        """Send nothing more, and wait a while for what is sent: it is paid for."""
        self._stopping = True
        if not tasks:
            return
        for task in tasks:
            if task not in self._in_flight:
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
            outcome = await self._outcome(asked)
            following = again(asked, outcome)
            if following is None:
                return Answer(request, dataclasses.replace(outcome, before=before))
            before = (*before, outcome) if isinstance(outcome, Reply) else before
            asked = following

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
            self._take_down(request, stored)
            return stored
        shared = self._shared[request.key] = asyncio.get_running_loop().create_future()
        try:
            outcome = await self._buy(request)
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

    async def _buy(self, request: Request) -> Outcome:
        """Buy what the journal doesn't hold: live or by a batch."""
        if self._replay:
            return self._replayed(request)
        if request.llm.batch:
            reply = await self._batch(request.llm).ask(request)
            if reply is not None:
                self._take_down(request, reply)
                return reply
            if not request.llm.batch_fallback:
                await self._journal.give_up(request.key, "no_reply: its batch brought none")
                return Failure(request.key, "no_reply", "its batch brought none")
        return await self._complete(request)

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

    def _gate(self, llm: ServiceLLM) -> Gate:
        place = (llm.provider, llm.base_url or llm.base_url_env, llm.model)
        if place not in self._gates:
            folder = self._journal.path.parent / "limits"
            self._gates[place] = Gate(llm, folder, self._journal.owner, self._journal.live, self.says)
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
        self._patience_s = max(self._patience_s, llm.timeout_s)
        api_key(llm)
        jitter = random.Random(key)
        for tries in range(1, llm.max_attempts + 1):
            try:
                reply = await self._try(request, tries)
                self._failed_in_a_row[llm.name] = 0
                self._take_down(request, reply)
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
                if tries == llm.max_attempts or self._stopping:
                    return await self._given_up(request, error)
                wait = min(_LONGEST_WAIT, 0.5 * 2**tries) * jitter.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, error.retry_after))
        raise AssertionError("max_attempts is at least 1")

    def _take_down(self, request: Request, reply: Reply) -> None:
        self._answered.add(_way(request))
        self._answered_by.count(request.llm, reply)
        self._set_apart.count(request.llm, reply)

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
                self._in_flight.add(asyncio.current_task())
                try:
                    if not price.free:
                        self._beyond.refuse(llm)
                    begun = await self._journal.begin(wish, self._caps)
                    raw = await self._send(request, begun, worst) if isinstance(begun, int) else ""
                except BaseException:
                    self._in_flight.discard(asyncio.current_task())
                    raise
            try:
                if isinstance(begun, Reply):
                    return begun
                if isinstance(begun, int):
                    return await self._record(request, begun, raw, worst)
            finally:
                self._in_flight.discard(asyncio.current_task())
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
                self.says(f"waiting for {one}: it has the same request in flight, which is not bought twice.")

    async def _send(self, request: Request, attempt: int, worst: float) -> str:
        """Send, and settle at once what brought no reply."""
        if self._stopping:
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


async def _each(requests: Iterable[Request] | AsyncIterable[Request]) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request
