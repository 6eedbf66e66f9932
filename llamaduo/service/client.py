"""Asking service LLMs: each distinct request once, through the journal, within the budget.

    service = Service(journal, run="runs/pocket_llama-coding-1a2b3c4d", budget_usd=5.0)
    outcomes = service.ask(requests, progress)      # a Reply or a Failure each, in the order of the requests

Each distinct request is sent once. Faults that waiting may mend (408, 409, 429, 5xx, broken
connections) are tried again, not before Retry-After says so and without holding a slot meanwhile;
refusals by the provider (400, 401, 403, 404) end the stage at once.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.service.budget import Budget
from llamaduo.service.journal import Journal, Reply, request_key
from llamaduo.service.transport import RefusedError, TimedOutError, api_key, call, content, prices

Progress = Callable[[int, int], None]
"""Takes how many are done and how many there are."""

_LONGEST_WAIT = 60.0
_GRACE_S = 30.0
_COUNTS = ("prompt_tokens", "completion_tokens")


@dataclass(frozen=True)
class Request:
    """One call to make."""

    llm: ServiceLLM
    """Whom to ask."""
    prompt: str
    """What to ask, as one user message."""
    schema: Mapping[str, Any] | None
    """JSON schema of the reply; sent where the service LLM takes one."""
    repeat: int
    """Number of the repeat: the same request with another number is another purchase."""
    stage: str
    """Which stage asks."""

    def sent(self) -> dict[str, Any]:
        """Return everything that identifies the call: what is sent, and the repeat's number."""
        llm = self.llm
        return {
            "provider": llm.provider,
            "base_url": llm.base_url,
            "model": llm.model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": llm.max_tokens,
            "temperature": llm.temperature,
            "seed": self.repeat if llm.send_seed else None,
            "schema": self.schema if llm.json_schema else None,
            "parameters": dict(llm.parameters),
            "repeat": self.repeat,
        }


@dataclass(frozen=True)
class Failure:
    """A call that got no usable reply, all tries included."""

    key: str
    """The request's key in the journal."""
    reason: str
    """`no_reply` or `refused`."""
    message: str
    """What the service said."""


class Service:
    """One run's access to service LLMs; close it when done."""

    def __init__(self, journal: Journal, *, run: str, budget_usd: float | None) -> None:
        self._journal = journal
        self._run = run
        self._budget = Budget(budget_usd, journal.spent(run))
        self._runner = asyncio.Runner()
        self._failed_in_a_row = 0
        self._stopping = False
        self._in_flight: set[asyncio.Task[Any] | None] = set()
        """Calls that are sent: what they cost is paid, so their replies are waited for whatever happens."""

    @property
    def spent_usd(self) -> float:
        """What this run has paid so far, in US dollars, resumes included."""
        return self._budget.spent_usd

    def close(self) -> None:
        """Close the event loop and the journal."""
        self._runner.close()
        self._journal.close()

    def ask(self, requests: Sequence[Request], progress: Progress) -> list[Reply | Failure]:
        """Return the outcome of every request, in order; raises ServiceError and BudgetError."""
        return self._runner.run(self._ask(requests, progress))

    async def _ask(self, requests: Sequence[Request], progress: Progress) -> list[Reply | Failure]:
        keys = [request_key(request.sent()) for request in requests]
        outcomes: dict[str, Reply | Failure] = {}
        missing: dict[str, Request] = {}
        for key, request in zip(keys, requests, strict=True):
            stored = self._journal.find(key)
            if stored:
                outcomes[key] = stored
            else:
                missing[key] = request
        bought = 0
        progress(bought, len(missing))
        async for outcome in self._buy(missing):
            outcomes[outcome.key] = outcome
            bought += 1
            progress(bought, len(missing))
        return [outcomes[key] for key in keys]

    async def _buy(self, missing: Mapping[str, Request]) -> AsyncIterator[Reply | Failure]:
        """Send each request once and yield outcomes as they come."""
        if not missing:
            return
        self._stopping = False
        for request in missing.values():
            api_key(request.llm), prices(request.llm)
        first = next(iter(missing.values()))
        self._journal.intend(
            ((key, request.sent()) for key, request in missing.items()), run=self._run, stage=first.stage
        )
        slots = {request.llm.name: asyncio.Semaphore(request.llm.concurrency) for request in missing.values()}
        tasks = [
            asyncio.create_task(self._complete(key, request, slots[request.llm.name]))
            for key, request in missing.items()
        ]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            await self._wind_up(tasks)

    async def _wind_up(self, tasks: Sequence[asyncio.Task[Any]]) -> None:
        """Send nothing more, and wait a while for what is sent: it is paid for."""
        self._stopping = True
        for task in tasks:
            if task not in self._in_flight:
                task.cancel()
        _, late = await asyncio.wait(tasks, timeout=_GRACE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _complete(self, key: str, request: Request, slot: asyncio.Semaphore) -> Reply | Failure:
        """Try a call until it is answered, refused or given up."""
        jitter = random.Random(key)
        for attempt in range(1, request.llm.max_attempts + 1):
            try:
                async with slot:
                    reply = await self._send(key, request)
                self._failed_in_a_row = 0
                return reply
            except RefusedError as error:
                return Failure(key, "refused", str(error))
            except TransientError as error:
                if attempt == request.llm.max_attempts or self._stopping:
                    return self._given_up(key, request, error)
                wait = min(_LONGEST_WAIT, 0.5 * 2**attempt) * jitter.uniform(0.5, 1.0)
                await asyncio.sleep(max(wait, error.retry_after))
        raise AssertionError("max_attempts is at least 1")

    def _given_up(self, key: str, request: Request, error: TransientError) -> Failure:
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= max(4, request.llm.concurrency):
            raise ServiceError(
                f"{request.llm.name} is out of reach: {self._failed_in_a_row} calls in a row failed, "
                f"{request.llm.max_attempts} tries each; last: {error}. Run the same command again when it is back."
            ) from error
        return Failure(key, "no_reply", str(error))

    async def _send(self, key: str, request: Request) -> Reply:
        """Send once, within the budget, and store the raw reply before anything reads it."""
        llm = request.llm
        input_price, output_price = prices(llm)
        longest_prompt = len(request.prompt.encode(errors="replace")) + 64
        worst = longest_prompt * input_price + llm.max_tokens * output_price
        await self._budget.reserve(worst)
        paid = 0.0
        self._in_flight.add(asyncio.current_task())
        try:
            stored = self._journal.find(key)  # another process may have bought it meanwhile
            if stored:
                return stored
            response = await call(llm, request.prompt, schema=request.schema, seed=request.repeat)
            usage = getattr(response, "usage", None)
            prompt_tokens, completion_tokens = (getattr(usage, name, None) or 0 for name in _COUNTS)
            paid = prompt_tokens * input_price + completion_tokens * output_price if prompt_tokens else worst
            text, finish_reason = content(response)
            reply = Reply(key, text, finish_reason, prompt_tokens, completion_tokens, paid)
            self._journal.record(reply, raw=json.dumps(response.model_dump(), default=str), run=self._run)
            return reply
        except TimedOutError:
            paid = worst  # the server may have answered, and billed, after we stopped listening
            raise
        finally:
            self._in_flight.discard(asyncio.current_task())
            await self._budget.settle(worst, paid)
