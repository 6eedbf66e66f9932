"""Asking service LLMs, through litellm and through the journal.

    service = Service(journal, run="runs/pocket_llama-coding-1a2b3c4d", budget_usd=5.0)
    outcomes = service.ask(requests, progress)      # a Reply or a Failure each, in the order of the requests

Each distinct request is sent once. Faults that waiting may mend (408, 409, 429, 5xx, broken
connections) are tried again, not before Retry-After says so and without holding a slot meanwhile;
refusals by the provider (400, 401, 403, 404) end the stage at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError, ServiceError, TransientError
from llamaduo.service.budget import Budget
from llamaduo.service.journal import Journal, Reply, request_key

Progress = Callable[[int, int], None]
"""Takes how many are done and how many there are."""

_LONGEST_WAIT = 60.0
_GRACE_S = 30.0
_LONGEST_RETRY_AFTER = 900.0


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


class RefusedError(ServiceError):
    """The provider refused this one request: its safety filter, or a prompt beyond its context."""


class TimedOutError(TransientError):
    """No answer in time; the call may have been billed all the same."""


_TEXT_PROGRAMS: dict[str, Callable[[str, Mapping[str, Any]], str]] = {}


def register(provider: str, program: Callable[[str, Mapping[str, Any]], str]) -> None:
    """Make a program answer for a provider: it takes the prompt and the parameters and returns the reply.

    The program stands behind litellm's custom provider, so that prompts, parsing, journal, budget and
    retries are those of a real service LLM.
    """
    _TEXT_PROGRAMS[provider] = program


def _litellm() -> Any:
    """Import litellm, quiet and offline, with the registered programs behind it."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = True
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    known = {entry["provider"] for entry in litellm.custom_provider_map}
    for provider in _TEXT_PROGRAMS:
        if provider not in known:
            entry = {"provider": provider, "custom_handler": _behind_litellm(litellm, provider)}
            litellm.custom_provider_map.append(entry)
    litellm.utils.custom_llm_setup()
    return litellm


def _behind_litellm(litellm: Any, provider: str) -> Any:
    class Program(litellm.CustomLLM):  # type: ignore[misc]
        async def acompletion(self, **call: Any) -> Any:
            prompt = call["messages"][-1]["content"]
            text = _TEXT_PROGRAMS[provider](prompt, call["optional_params"])
            response = call["model_response"]
            response.choices[0].message.content = text
            response.choices[0].finish_reason = "stop"
            words = len(prompt.split()), len(text.split())
            response.usage = litellm.Usage(prompt_tokens=words[0], completion_tokens=words[1], total_tokens=sum(words))
            return response

    return Program()


def key_variable(llm: ServiceLLM) -> str | None:
    """Return the environment variable that holds the key: the named one, or the provider's usual one."""
    if llm.provider in _TEXT_PROGRAMS:
        return None
    return llm.api_key_env or f"{llm.provider.upper()}_API_KEY"


def api_key(llm: ServiceLLM) -> str | None:
    """Return the key out of the environment; raises ConfigError if a required one is missing."""
    variable = key_variable(llm)
    key = os.environ.get(variable) if variable else None
    if variable and llm.key_required and not key:
        raise ConfigError(f"{llm.name}: the environment variable {variable} is not set; set it to the provider's key.")
    return key


def prices(llm: ServiceLLM) -> tuple[float, float]:
    """Return US dollars per input and per output token; raises ConfigError if they are unknown."""
    if llm.price is not None:
        return llm.price.input / 1e6, llm.price.output / 1e6
    known = _litellm().model_cost
    entry = known.get(llm.model) or known.get(f"{llm.provider}/{llm.model}") or {}
    if entry.get("input_cost_per_token") is None or entry.get("output_cost_per_token") is None:
        raise ConfigError(
            f"{llm.name}: the price of {llm.provider}/{llm.model} is unknown; set price.input and price.output "
            "(US dollars per million tokens) and price.as_of."
        )
    return float(entry["input_cost_per_token"]), float(entry["output_cost_per_token"])


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
            response = await _call(request)
            usage = getattr(response, "usage", None)
            prompt_tokens, completion_tokens = (getattr(usage, name, None) or 0 for name in _COUNTS)
            paid = prompt_tokens * input_price + completion_tokens * output_price if prompt_tokens else worst
            text, finish_reason = _content(response)
            reply = Reply(key, text, finish_reason, prompt_tokens, completion_tokens, paid)
            self._journal.record(reply, raw=json.dumps(response.model_dump(), default=str), run=self._run)
            return reply
        except TimedOutError:
            paid = worst  # the server may have answered, and billed, after we stopped listening
            raise
        finally:
            self._in_flight.discard(asyncio.current_task())
            await self._budget.settle(worst, paid)


_COUNTS = ("prompt_tokens", "completion_tokens")


def _content(response: Any) -> tuple[str, str]:
    """Return text and finish reason of a response, whatever it looks like; half a surrogate becomes `?`."""
    if not response.choices:
        return "", "no_choices"
    choice = response.choices[0]
    text = (choice.message.content if choice.message else None) or ""
    return text.encode("utf-8", "replace").decode(), choice.finish_reason or "unknown"


async def _call(request: Request) -> Any:
    """Make one litellm call; its exceptions become ours."""
    litellm = _litellm()
    llm = request.llm
    options: dict[str, Any] = dict(llm.parameters)
    if llm.temperature is not None:
        options["temperature"] = llm.temperature
    if llm.send_seed:
        options["seed"] = request.repeat
    if request.schema is not None and llm.json_schema:
        named = {"name": "reply", "schema": dict(request.schema), "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": named}
    try:
        return await litellm.acompletion(
            model=f"{llm.provider}/{llm.model}",
            messages=[{"role": "user", "content": request.prompt}],
            api_key=api_key(llm) or "none",
            api_base=llm.base_url,
            max_tokens=llm.max_tokens,
            timeout=llm.timeout_s,
            num_retries=0,
            max_retries=0,
            **options,
        )
    except Exception as error:
        raise _translated(error, llm) from error


_WORTH_ANOTHER_TRY = {408, 409, 429, 529}


def _translated(error: Exception, llm: ServiceLLM) -> ServiceError:
    """Return our exception for one of litellm's, without any key in its text."""
    status = getattr(error, "status_code", None)
    text = " ".join(str(error).split())
    variable = key_variable(llm)
    key = os.environ.get(variable) if variable else None
    text = (text.replace(key, "[key]") if key else text)[:300]
    name = type(error).__name__
    if name in ("ContentPolicyViolationError", "ContextWindowExceededError"):
        return RefusedError(f"{llm.name} refused: {text}")
    if name in ("Timeout", "APITimeoutError"):
        return TimedOutError(f"{llm.name} timed out after {llm.timeout_s:g} s")
    if name == "APIConnectionError" or status in _WORTH_ANOTHER_TRY or (isinstance(status, int) and status >= 500):
        wait = _retry_after(error)
        if wait > _LONGEST_RETRY_AFTER:
            return ServiceError(f"{llm.name} asks to come back in {wait:,.0f} s: {text}; run the same command then.")
        return TransientError(f"{llm.name}: {text}", retry_after=wait)
    return ServiceError(f"{llm.name} refused the call ({name}, {status}): {text}")


def _retry_after(error: Exception) -> float:
    headers = getattr(error, "litellm_response_headers", None) or getattr(
        getattr(error, "response", None), "headers", None
    )
    try:
        return max(0.0, float((headers or {}).get("retry-after", 0)))
    except (TypeError, ValueError):
        return 0.0
