"""litellm as it is used here: quiet, offline, sending once, keeping what came, with programs behind it.

register("pocket", program)     a program answers for a provider, through litellm like any other
litellm = load_litellm()
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

TEXT_PROGRAMS: dict[str, Callable[[str, Mapping[str, Any]], str]] = {}


def register(provider: str, program: Callable[[str, Mapping[str, Any]], str]) -> None:
    """Make a program answer for a provider: it takes the prompt and the parameters and returns the reply.

    The program stands behind litellm's custom provider, so that prompts, parsing, journal, budget and
    retries are those of a real service LLM.
    """
    TEXT_PROGRAMS[provider] = program


def load_litellm() -> Any:
    """Import litellm, quiet and offline, with the registered programs behind it."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS", "True")
    import litellm

    litellm.suppress_debug_info = True
    litellm.disable_aiohttp_transport = False  # a quarter less processor time than its httpx transport
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    _send_once()
    if _keep_bodies():
        trusted()
    known = {entry["provider"] for entry in litellm.custom_provider_map}
    for provider in TEXT_PROGRAMS:
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


def trusted() -> Any:
    """Return the TLS context of all calls: SSL_CERT_FILE or certifi's, and what other tools' variables name besides."""
    from litellm.llms.custom_httpx.http_handler import get_ssl_configuration

    context = get_ssl_configuration()  # one for all of litellm's clients
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_DIR"):
        bundle = os.environ.get(variable)
        if bundle and isinstance(context, ssl.SSLContext):
            place = {"capath": bundle} if Path(bundle).is_dir() else {"cafile": bundle}
            with contextlib.suppress(OSError):  # no such file, or none of certificates
                context.load_verify_locations(**place)
    return context


ARRIVED: ContextVar[list[Any] | None] = ContextVar("ARRIVED", default=None)
"""The responses that came to a call of litellm's, the last one last."""


def _keep_bodies() -> bool:
    """Hook the clients that litellm makes, to keep what comes; return whether that was left to do."""
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler
    from litellm.llms.openai.common_utils import BaseOpenAILLM

    if getattr(AsyncHTTPHandler.create_client, "hooked", False):
        return False

    async def keep(response: Any) -> None:
        arrived = ARRIVED.get()
        if arrived is not None:
            await response.aread()
            arrived.append(response)

    def hooked(make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **kwargs: Any) -> Any:
            client = make(*args, **kwargs)
            if client is not None:
                client.event_hooks = {**client.event_hooks, "response": [*client.event_hooks["response"], keep]}
            return client

        made.hooked = True  # type: ignore[attr-defined]
        return made

    AsyncHTTPHandler.create_client = hooked(AsyncHTTPHandler.create_client)
    BaseOpenAILLM._get_async_http_client = staticmethod(hooked(BaseOpenAILLM._get_async_http_client))
    return True


def _behind_litellm(litellm: Any, provider: str) -> Any:
    class Program(litellm.CustomLLM):  # type: ignore[misc]
        async def acompletion(self, **call: Any) -> Any:
            prompt = call["messages"][-1]["content"]
            text = TEXT_PROGRAMS[provider](prompt, call["optional_params"])
            response = call["model_response"]
            response.choices[0].message.content = text
            response.choices[0].finish_reason = "stop"
            words = len(prompt.split()), len(text.split())
            response.usage = litellm.Usage(prompt_tokens=words[0], completion_tokens=words[1], total_tokens=sum(words))
            return response

    return Program()
