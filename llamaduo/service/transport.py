"""One call to a service LLM through litellm: keys, prices, options, and its exceptions made ours.

litellm is the transport and nothing more: no retries, no budget, no streaming, an explicit timeout.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError, ServiceError, TransientError

_LONGEST_RETRY_AFTER = 900.0


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


def content(response: Any) -> tuple[str, str]:
    """Return text and finish reason of a response, whatever it looks like; half a surrogate becomes `?`."""
    if not response.choices:
        return "", "no_choices"
    choice = response.choices[0]
    text = (choice.message.content if choice.message else None) or ""
    return text.encode("utf-8", "replace").decode(), choice.finish_reason or "unknown"


async def call(llm: ServiceLLM, prompt: str, *, schema: Mapping[str, Any] | None, seed: int) -> Any:
    """Make one litellm call and return its response; schema and seed go only to a service LLM that takes them.

    Raises RefusedError, TimedOutError, TransientError or ServiceError.
    """
    litellm = _litellm()
    options: dict[str, Any] = dict(llm.parameters)
    if llm.temperature is not None:
        options["temperature"] = llm.temperature
    if llm.send_seed:
        options["seed"] = seed
    if schema is not None and llm.json_schema:
        named = {"name": "reply", "schema": dict(schema), "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": named}
    try:
        return await litellm.acompletion(
            model=f"{llm.provider}/{llm.model}",
            messages=[{"role": "user", "content": prompt}],
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
