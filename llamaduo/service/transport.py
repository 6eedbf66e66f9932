"""One call to a service LLM: keys, the sending, and what came back, as the journal stores it.

    raw = await call(llm, "a prompt", schema=None, seed=0)      # reading.read(raw) says what it says

What goes to OpenAI-compatible servers, Anthropic and Gemini is made by `bodies.py`, and litellm's HTTP client sends it;
everything else goes through litellm whole, a hook on its client keeping the body as it came. No retries, no budget, no
streaming, an explicit timeout. Whatever a server answers with success is brought back, converted by nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import operator
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError, ServiceError
from llamaduo.redaction import name_secret, redact
from llamaduo.service.addresses import address
from llamaduo.service.addresses import headers as more_headers
from llamaduo.service.bodies import ADDRESSES, encoded, is_own, key_header, parameters, sending_of, token_limits
from llamaduo.service.exceptions import translated, waits
from llamaduo.service.loading import ARRIVED, TEXT_PROGRAMS, load_litellm, trusted
from llamaduo.service.prices import litellm_version
from llamaduo.service.reading import NO_CHOICES, form_of, read_body
from llamaduo.service.received import holds_a_reply, received
from llamaduo.service.refusals import NoReplyError, error_of, error_under_success, told
from llamaduo.service.requests import messages

_OWN_CREDENTIALS = ("bedrock", "bedrock_converse", "sagemaker", "sagemaker_chat", "vertex_ai", "vertex_ai_beta")
"""Providers that are reached with credentials of the cloud's own: AWS's variables or profile, Google's default ones."""
_VARIABLES = {
    "fireworks_ai": "FIREWORKS_API_KEY",
    "huggingface": "HF_TOKEN",
    "perplexity": "PERPLEXITYAI_API_KEY",
    "together_ai": "TOGETHERAI_API_KEY",
}
"""Where a provider's usual variable is not its name's."""


def key_variable(llm: ServiceLLM) -> str | None:
    """Return the environment variable that holds the key: the named one, or the provider's usual one."""
    if llm.provider in TEXT_PROGRAMS or (llm.provider in _OWN_CREDENTIALS and not llm.api_key_env):
        return None
    variable = llm.api_key_env or _VARIABLES.get(llm.provider, f"{llm.provider.upper()}_API_KEY")
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


def options(llm: ServiceLLM, *, schema: Mapping[str, Any] | None, seed: int) -> dict[str, Any]:
    """Return what is sent beside model and messages; schema and seed go only to a service LLM that takes them."""
    chosen: dict[str, Any] = {**({} if token_limits(llm) else {"max_tokens": llm.max_tokens}), **parameters(llm)}
    if llm.temperature is not None:
        chosen["temperature"] = llm.temperature
    if llm.send_seed:
        chosen["seed"] = seed
    if llm.headers_env:
        chosen["extra_headers"] = {**(chosen.get("extra_headers") or {}), **more_headers(llm)}
    if schema is not None and llm.json_schema:
        named = {"name": "reply", "schema": dict(schema), "strict": True}
        chosen["response_format"] = {"type": "json_schema", "json_schema": named}
    return chosen


def connection(llm: ServiceLLM) -> dict[str, Any]:
    """Return how a library reaches a service LLM: its key, its address, its patience."""
    key = api_key(llm)
    return {
        **({"api_key": key} if key else {}),
        "api_base": address(llm) or ADDRESSES.get(llm.provider),
        "timeout": llm.timeout_s,
        "max_retries": 0,
    }


_SLOWEST = 2
"""Timeouts that a call may take at most: each wait has its own, and a reply may come a sign at a time for ever."""


async def call(
    llm: ServiceLLM,
    prompt: str,
    *,
    schema: Mapping[str, Any] | None,
    seed: int,
    earlier: Sequence[Mapping[str, str]] = (),
) -> str:
    """Make one call and return the raw reply as the journal stores it, whatever it looks like.

    Raises RefusedError, NoReplyError, UnknownOutcomeError, TransientError or ServiceError.
    """
    if is_own(llm) and llm.provider not in TEXT_PROGRAMS:
        return await _own_call(llm, messages(prompt, earlier), schema=schema, seed=seed)
    litellm = load_litellm()
    arrived: list[Any] = []
    keeping = ARRIVED.set(arrived)
    try:
        async with asyncio.timeout(_SLOWEST * llm.timeout_s):
            response = await litellm.acompletion(
                model=f"{llm.provider}/{llm.model}",
                messages=messages(prompt, earlier),
                num_retries=0,
                allowed_openai_params=[name for name in parameters(llm) if name not in ("extra_body", "extra_headers")],
                **connection(llm),
                **options(llm, schema=schema, seed=seed),
            )
    except Exception as error:
        if not arrived:
            raise translated(error, llm) from error
        return _accepted(llm, "openai", arrived[-1], sender=litellm_version())
    finally:
        ARRIVED.reset(keeping)
    found = form_of(received(_text(arrived[-1]))) if arrived else None
    if found:
        return _enveloped(found, arrived[-1], sender=litellm_version())
    dump = response.model_dump()
    if arrived:
        return _enveloped("litellm", arrived[-1], sender=litellm_version(), dump=dump)
    return json.dumps(dump, default=str)


async def _own_call(
    llm: ServiceLLM, turns: Sequence[Mapping[str, str]], *, schema: Mapping[str, Any] | None, seed: int
) -> str:
    """Send a body of ours by litellm's HTTP client."""
    import httpx

    key = api_key(llm)
    sending = sending_of(llm, turns, schema=schema, seed=seed)
    load_litellm()
    from litellm.llms.custom_httpx.http_handler import get_async_httpx_client

    client = get_async_httpx_client("llamaduo").client
    headers = {"Content-Type": "application/json", **key_header(llm, key), **sending.headers, **more_headers(llm)}
    try:
        request = client.build_request(
            "POST", sending.url, content=encoded(sending.body), headers=headers, timeout=httpx.Timeout(llm.timeout_s)
        )
        async with asyncio.timeout(_SLOWEST * llm.timeout_s):
            response = await _whole(await client.send(request, stream=True, follow_redirects=False))
    except Exception as error:
        raise translated(error, llm) from error
    return _accepted(llm, sending.form, response)


async def _whole(response: Any) -> Any:
    """Return a response with all of its body; one that isn't compressed as it says has the bytes that came."""
    import httpx

    try:
        content = b"".join([part async for part in response.aiter_raw()])
    finally:
        await response.aclose()
    told = {"status_code": response.status_code, "request": response.request, "content": content}
    try:
        return httpx.Response(headers=response.headers, **told)
    except httpx.DecodingError:
        kept = [(name, value) for name, value in response.headers.raw if name.lower() != b"content-encoding"]
        return httpx.Response(headers=kept, **told)


def _accepted(llm: ServiceLLM, form: str, response: Any, **more: Any) -> str:
    """Return a server's reply as it is stored, with `more` beside it; raises what its status or an error means."""
    text = _text(response)
    body = received(text)
    if response.status_code >= 300:
        if response.status_code < 400:
            place = redact(response.headers.get("location", "nowhere"))
            raise ServiceError(f"{llm.name}: {response.url} redirects to {place}; set base_url to where it lies.")
        wait = max(waits(response.headers, text))
        told_of = text if body is None else body
        raise error_of(llm, response.status_code, told_of, retry_after=wait, place=str(response.url))
    found = form_of(body)
    if found is None or read_body(found, body).finish_reason == NO_CHOICES:
        error = error_under_success(llm, body)
        if error is not None:
            raise error
    if found is None and not holds_a_reply(text):
        shown = told(text) or "nothing at all"
        raise NoReplyError(f"{llm.name}: the server answered {response.status_code}, and no reply: {shown}")
    return _enveloped(found or form, response, **more)


def _text(response: Any) -> str:
    """Return a body as text; a byte that is no UTF-8 stays what it is, as half a surrogate."""
    content: bytes = response.content
    return content.decode("utf-8", "surrogateescape")


_HEADERS = re.compile(r"date|content-type|(x-|openai-|anthropic-|apim-|cf-)?.*(request-id|processing-ms|model|version)")
"""Headers that are stored: they tell which request it was, and who answered."""


def _enveloped(form: str, response: Any, **more: Any) -> str:
    """Return a body as the journal stores it: as it came, with its format, its status and the headers that matter.

    `sent` is the sha256 of the body that was sent; `more` what is told besides: which litellm made it, what it made of
    the reply.
    """
    kept = {name: value for name, value in response.headers.items() if _HEADERS.fullmatch(name.lower())}
    raw = {"format": form, "status": response.status_code, "headers": kept, "body": _text(response)}
    with contextlib.suppress(Exception):  # nothing that is paid for is lost for the sake of a hash
        raw["sent"] = hashlib.sha256(response.request.content).hexdigest()
    return json.dumps({**raw, **more}, default=str)


def batch_body(
    llm: ServiceLLM,
    prompt: str,
    *,
    schema: Mapping[str, Any] | None,
    seed: int,
    earlier: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Return the body of one row of a batch: what `call` would send."""
    return sending_of(llm, messages(prompt, earlier), schema=schema, seed=seed).body


async def batch_call(llm: ServiceLLM, verb: str, **arguments: Any) -> Any:
    """Call one of the OpenAI SDK's functions for files and batches (`batches.create`, ...); raises as `call` does.

    litellm has the same ones, but opens a connection for each call and never closes it.
    """
    load_litellm()
    import openai

    known = connection(llm)
    sdk = openai.AsyncOpenAI(
        api_key=known.get("api_key", "none"),
        base_url=known["api_base"],
        timeout=known["timeout"],
        max_retries=0,
        http_client=openai.DefaultAsyncHttpxClient(verify=trusted()),
        default_headers=more_headers(llm),
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
