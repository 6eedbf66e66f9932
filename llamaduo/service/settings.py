"""What is wrong with the settings of a service LLM, told before it is asked.

problems("service_llm", experiment.service_llm)      a sentence each; none if it can be asked
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from llamaduo.config import ServiceLLM, out_of_range
from llamaduo.service.prices import is_price


def problems(path: str, llm: ServiceLLM) -> list[str]:
    """Return every reason why a service LLM, or a server, can't be asked with its settings."""
    missing = [key for key in ("provider", "model") if not getattr(llm, key, None)]
    if missing:
        return [f"{path}.{key} is missing: set {path}.{key}=..." for key in missing]
    found = []
    if not llm.key_required and llm.provider != "pocket" and not (llm.base_url or llm.base_url_env):
        found.append(f"{path}.base_url is not set: add {path}.base_url=http://HOST:PORT/v1.")
    found += [f"{path}.{wrong}" for wrong in out_of_range(llm)]
    if llm.batch and llm.provider != "openai":
        found.append(
            f"{path}.batch: {llm.provider} has no batch API that llamaduo knows; only openai and compatible do."
        )
    found += _address_problems(path, llm)
    variables = {"base_url_env": llm.base_url_env} | {f"headers_env.{k}": name for k, name in llm.headers_env.items()}
    found += [
        f"{path}.{key}={name}: must be the name of a variable, such as OUR_GATEWAY."
        for key, name in variables.items()
        if name and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name)
    ]
    if llm.provider == "anthropic" and llm.send_seed:
        found.append(f"{path}.send_seed: Anthropic takes no seed; set {path}.send_seed=false.")
    found += _limit_problems(path, llm)
    found += [
        f"{path}.parameters.{name}: has a field of its own, or is llamaduo's to set."
        for name in _OURS
        if name in llm.parameters or name in (llm.parameters.get("extra_body") or {})
    ]
    found += [
        f"{path}.parameters.{name}: changes what a call costs in a way that no price here knows."
        for name in _OTHER_PRICES
        if name in llm.parameters or name in (llm.parameters.get("extra_body") or {})
    ]
    found += [
        f"{path}.parameters.{name}: keys come from the environment alone; use {path}.api_key_env."
        for name in _secret_names(llm.parameters)
    ]
    if llm.api_key_env and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", llm.api_key_env):
        found.append(f"{path}.api_key_env: must be the name of a variable, such as OPENAI_API_KEY, not a key.")
    if llm.price and not is_price(llm.price):
        found.append(f"{path}.price: must not be negative.")
    return found


_OURS = (
    "model", "messages", "temperature", "seed", "response_format", "stream", "n",
    "timeout", "api_base", "base_url", "num_retries", "max_retries", "metadata", "mock_response", "fallbacks",
)  # fmt: skip


def _limit_problems(path: str, llm: ServiceLLM) -> list[str]:
    """Look at a limit of replies that goes out under another name than `max_tokens`, or without guessing it."""
    places = {f"{path}.parameters": llm.parameters, f"{path}.parameters.extra_body": llm.parameters.get("extra_body")}
    given = {
        f"{place}.{name}": found[name]
        for place, found in places.items()
        for name in ("max_tokens", "max_completion_tokens")
        if isinstance(found, dict) and found.get(name) is not None
    }
    wrong = [
        f"{name}={value}: must be a number of tokens, at least 1."
        for name, value in given.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 1
    ]
    two = [f"{' and '.join(given)} are one limit: set one of them; it takes the place of max_tokens."]
    return wrong or (two if len(given) > 1 else [])


_OTHER_PRICES = ("service_tier", "max_output_tokens", "best_of", "tools", "functions", "web_search_options")


def _address_problems(path: str, llm: ServiceLLM) -> list[str]:
    if not llm.base_url:
        return []
    if llm.base_url_env:
        return [f"{path}.base_url_env={llm.base_url_env}: base_url is set as well; take one of them."]
    if not llm.base_url.startswith(("http://", "https://")):
        return [f"{path}.base_url={llm.base_url}: must begin with http:// or https://."]
    parts = urlsplit(llm.base_url)
    if parts.username or parts.password or parts.query:
        return [f"{path}.base_url: no user, password or query may be in it; keys come from {path}.api_key_env."]
    return []


_SECRET = re.compile(r"api[-_]?key|secret|password|authorization|bearer|(^|[-_])token$", re.IGNORECASE)


def _secret_names(tree: Any, prefix: str = "") -> list[str]:
    """Return the dotted names below `parameters` that look as if they held a secret."""
    if isinstance(tree, list | tuple):
        return [name for at, value in enumerate(tree) for name in _secret_names(value, f"{prefix}{at}.")]
    if not isinstance(tree, dict):
        return []
    found = []
    for name, value in tree.items():
        if _SECRET.search(str(name)):
            found.append(f"{prefix}{name}")
        found += _secret_names(value, f"{prefix}{name}.")
    return found
