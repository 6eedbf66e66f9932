"""One call to a service LLM through litellm: keys, options, and its exceptions made ours.

litellm is the transport and nothing more: no retries, no budget, no streaming, an explicit timeout.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import logging
import operator
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError, ServiceError, TransientError
from llamaduo.redaction import name_secret, redact

_LONGEST_RETRY_AFTER = 900.0
_MOST_TOKENS = 10**9


class RefusedError(ServiceError):
    """The provider refused this one request: its safety filter, or a prompt beyond its context."""


class UnknownOutcomeError(TransientError):
    """The request was sent and no whole answer came; it may have been billed all the same."""


_TEXT_PROGRAMS: dict[str, Callable[[str, Mapping[str, Any]], str]] = {}


def register(provider: str, program: Callable[[str, Mapping[str, Any]], str]) -> None:
    """Make a program answer for a provider: it takes the prompt and the parameters and returns the reply.

    The program stands behind litellm's custom provider, so that prompts, parsing, journal, budget and
    retries are those of a real service LLM.
    """
    _TEXT_PROGRAMS[provider] = program


def load_litellm() -> Any:
    """Import litellm, quiet and offline, with the registered programs behind it."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = False  # a quarter less processor time than its httpx transport
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    _send_once()
    known = {entry["provider"] for entry in litellm.custom_provider_map}
    for provider in _TEXT_PROGRAMS:
        if provider not in known:
            entry = {"provider": provider, "custom_handler": _behind_litellm(litellm, provider)}
            litellm.custom_provider_map.append(entry)
    litellm.utils.custom_llm_setup()
    return litellm


def _send_once() -> None:
    """Keep litellm from sending a request again, unasked and uncounted, where its connection broke."""
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    async def not_again(*_: Any, **__: Any) -> NoReturn:
        raise  # noqa: PLE0704 - it is called while the broken connection's exception is handled

    AsyncHTTPHandler.single_connection_post_request = not_again


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
    variable = llm.api_key_env or f"{llm.provider.upper()}_API_KEY"
    name_secret(variable)
    return variable


def api_key(llm: ServiceLLM) -> str | None:
    """Return the key out of the environment; raises ConfigError if a required one is missing."""
    variable = key_variable(llm)
    key = os.environ.get(variable) if variable else None
    if variable and llm.key_required and not key:
        raise ConfigError(f"{llm.name}: the environment variable {variable} is not set; set it to the provider's key.")
    if key and not (key.isascii() and key.isprintable() and key == key.strip()):
        raise ConfigError(f"{llm.name}: {variable} holds what no key does, such as a line break or a space at its end.")
    return key


_FINISHED = {"stop", "end_turn", "stop_sequence", "eos", "eos_token", "complete"}


def content(response: Any) -> tuple[str, str]:
    """Return text and finish reason of a response, whatever it looks like; half a surrogate becomes `?`.

    litellm says `stop` for every reason that it doesn't know: the provider's own word counts then.
    """
    if not response.choices:
        return "", "no_choices"
    choice = response.choices[0]
    text = (choice.message.content if choice.message else None) or ""
    reason = choice.finish_reason or "unknown"
    if reason == "stop":
        native = (getattr(choice, "provider_specific_fields", None) or {}).get("native_finish_reason")
        refusal = (getattr(choice.message, "provider_specific_fields", None) or {}).get("refusal")
        if isinstance(native, str) and native.lower() not in _FINISHED:
            reason = native
        elif refusal and not text:
            text, reason = str(refusal), "refusal"
    text, reason = (words.encode("utf-8", "replace").decode() for words in (text, reason))
    return text, reason


def billed(usage: Any) -> tuple[int, int]:
    """Return how many tokens the prompt and the reply are billed at; 0 for a count that can't be."""
    names = ("prompt_tokens", "completion_tokens")
    told = (usage.get(name) if isinstance(usage, Mapping) else getattr(usage, name, None) for name in names)
    prompt, reply = (int(n) if isinstance(n, int | float) and 0 < n < _MOST_TOKENS else 0 for n in told)
    return prompt, reply


def parameters(llm: ServiceLLM) -> dict[str, Any]:
    """Return the configured parameters that are sent: null, which litellm leaves out, unsets one."""
    return {name: value for name, value in llm.parameters.items() if value is not None}


def options(llm: ServiceLLM, *, schema: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
    """Return what is sent beside model and messages; schema and seed go only to a service LLM that takes them."""
    chosen: dict[str, Any] = {"max_tokens": llm.max_tokens, **parameters(llm)}
    if llm.temperature is not None:
        chosen["temperature"] = llm.temperature
    if llm.send_seed:
        chosen["seed"] = seed
    if schema is not None and llm.json_schema:
        named = {"name": "reply", "schema": dict(schema), "strict": True}
        chosen["response_format"] = {"type": "json_schema", "json_schema": named}
    return chosen


_ADDRESSES = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
}
"""Said in so many words, since litellm would let a variable of the environment change them, which no key covers."""


def connection(llm: ServiceLLM) -> dict[str, Any]:
    """Return how litellm reaches a service LLM: its key, its address, its patience."""
    return {
        "api_key": api_key(llm) or "none",
        "api_base": llm.base_url or _ADDRESSES.get(llm.provider),
        "timeout": llm.timeout_s,
        "max_retries": 0,
    }


def messages(prompt: str, earlier: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the turns of a request: those that go before the prompt, and the prompt as the user's."""
    return [*map(dict, earlier), {"role": "user", "content": prompt}]


async def call(
    llm: ServiceLLM,
    prompt: str,
    *,
    schema: Mapping[str, Any] | None,
    seed: int,
    earlier: Sequence[Mapping[str, str]] = (),
) -> Any:
    """Make one litellm call and return its response.

    Raises RefusedError, UnknownOutcomeError, TransientError or ServiceError.
    """
    litellm = load_litellm()
    try:
        return await litellm.acompletion(
            model=f"{llm.provider}/{llm.model}",
            messages=messages(prompt, earlier),
            num_retries=0,
            **connection(llm),
            **options(llm, schema=schema, seed=seed),
        )
    except Exception as error:
        raise translated(error, llm) from error


def batch_body(
    llm: ServiceLLM,
    prompt: str,
    *,
    schema: Mapping[str, Any] | None,
    seed: int,
    earlier: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Return the body of one row of a batch: what `call` would send."""
    chosen = load_litellm().get_optional_params(
        model=llm.model, custom_llm_provider=llm.provider, **options(llm, schema=schema, seed=seed)
    )
    extra = chosen.pop("extra_body", None) or {}
    chosen.pop("stream", None)
    return {"model": llm.model, "messages": messages(prompt, earlier), **chosen, **extra}


async def batch_call(llm: ServiceLLM, verb: str, **arguments: Any) -> Any:
    """Call one of the OpenAI SDK's functions for files and batches (`batches.create`, ...); raises as `call` does.

    litellm has the same ones, but opens a connection for each call and never closes it.
    """
    import openai

    known = connection(llm)
    sdk = openai.AsyncOpenAI(
        api_key=known["api_key"], base_url=known["api_base"], timeout=known["timeout"], max_retries=0
    )
    try:
        async with sdk:
            return await operator.attrgetter(verb)(sdk)(**arguments)
    except Exception as error:
        raise translated(error, llm) from error


async def hang_up() -> None:
    """Close the connections of the running event loop, which litellm would keep open until the process ends."""
    litellm = sys.modules.get("litellm")
    if litellm is None:
        return
    cache, loop = litellm.in_memory_llm_clients_cache, f"-{id(asyncio.get_running_loop())}"
    for key in [key for key in cache.cache_dict if key.endswith(loop)]:
        client = cache.cache_dict[key]
        cache._remove_key(key)
        with contextlib.suppress(Exception):
            await client.close()


_WORTH_ANOTHER_TRY = {408, 409, 429, 529}
_PERHAPS_BILLED = {408, 502, 504, 522, 524}
"""A gateway gave up waiting: whoever stands behind it may have gone on."""


def translated(error: Exception, llm: ServiceLLM) -> ServiceError:
    """Return our exception for one of litellm's, without any key in its text."""
    text = redact(" ".join(str(error).split()))[:300].encode("utf-8", "replace").decode()
    name = type(error).__name__
    if name in ("ContentPolicyViolationError", "ContextWindowExceededError"):
        return RefusedError(f"{llm.name} refused: {text}")
    status = _status(error)
    if status is None:
        if _was_never_sent(error):
            return TransientError(f"{llm.name}: {text}")
        if name in ("Timeout", "APITimeoutError"):
            text = f"timed out after {llm.timeout_s:g} s"
        return UnknownOutcomeError(f"{llm.name}: {text}")
    if status in _WORTH_ANOTHER_TRY or status >= 500:
        wait = retry_after(error)
        if wait > _LONGEST_RETRY_AFTER:
            return ServiceError(f"{llm.name} asks to come back in {wait:,.0f} s: {text}; run the same command then.")
        kind = UnknownOutcomeError if status in _PERHAPS_BILLED else TransientError
        return kind(f"{llm.name}: {text}", retry_after=wait)
    return ServiceError(f"{llm.name} refused the call ({name}, {status}): {text}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__  # type: ignore[assignment]


def _ancestors(error: BaseException) -> set[str]:
    """Return `package.Class` of an exception's class and its ancestors."""
    return {f"{kind.__module__.split('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}


def _status(error: Exception) -> int | None:
    """Return the HTTP status with which the server refused, None where it is not known that it did.

    litellm makes up a status for everything else: 500 for a broken connection, 408 for its own timeout, 422 or 502
    for an error under status 200. Without a response, and without anything that went wrong on the way to one, its
    status is that of a call which it did not send, or which a program refused.
    """
    for link in _chain(error):
        if "httpx.HTTPStatusError" in _ancestors(link):
            return int(link.response.status_code)  # type: ignore[attr-defined]
    made_up = {"litellm.APIConnectionError", "litellm.Timeout"}
    if all(type(link).__module__ == "litellm.exceptions" and not _ancestors(link) & made_up for link in _chain(error)):
        status = getattr(error, "status_code", None)
        return status if isinstance(status, int) and status >= 400 else None
    return None


def _was_never_sent(error: Exception) -> bool:
    """Tell whether no connection was made, so that nothing can have been billed.

    litellm calls a connection that broke later a ConnectError too: where aiohttp says what happened, it counts.
    """
    unsent = {"aiohttp.ClientConnectorError", "aiohttp.ConnectionTimeoutError"}
    told = [_ancestors(link) for link in _chain(error)]
    if not any(name.startswith("aiohttp.") for names in told for name in names):
        unsent = {"httpx.ConnectError", "httpx.ConnectTimeout", "httpx.PoolTimeout"}
    return any(names & unsent for names in told)


_GEMINI_DELAY = re.compile(r'retryDelay\\?"\s*:\s*\\?"(\d+(?:\.\d+)?)s', re.ASCII)


def retry_after(error: Exception) -> float:
    """Return the seconds that the server asks to wait, in whichever way it says so; 0 if it doesn't."""
    waits = [0.0]
    for link in _chain(error):
        for headers in (getattr(link, "litellm_response_headers", None), _headers(link)):
            waits += [_seconds(value) for value in [(headers or {}).get("retry-after")] if value]
        waits += [float(found) for found in _GEMINI_DELAY.findall(str(link))]
    return max(waits)


def _headers(error: BaseException) -> Mapping[str, str] | None:
    found: Mapping[str, str] | None = getattr(getattr(error, "response", None), "headers", None)
    return found or getattr(error, "headers", None)


def _seconds(value: str) -> float:
    """Return the seconds of a Retry-After header, which is a number or a date."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    if when.tzinfo is None:
        when = when.replace(tzinfo=datetime.UTC)
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
