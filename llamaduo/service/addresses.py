"""What of a service LLM's connection lies in the environment, under names that the configuration gives.

    address(llm)      "https://gateway.example/v1": `base_url`, or what `base_url_env` names
    headers(llm)      {"X-Team": "..."}: what `headers_env` names

Neither is written anywhere: a request's key, the journal and the run's configuration hold the variables' names. Raises
ConfigError for a variable that is not set, or that holds what can't be sent.
"""

from __future__ import annotations

import os

from llamaduo.config import ServiceLLM
from llamaduo.errors import ConfigError
from llamaduo.redaction import name_secret


def address(llm: ServiceLLM) -> str | None:
    """Return the server's address, None for the provider's own."""
    if not llm.base_url_env:
        return llm.base_url
    found = _value(llm, "base_url_env", llm.base_url_env)
    if not found.startswith(("http://", "https://")):
        raise ConfigError(f"{llm.name}: {llm.base_url_env} (base_url_env) must begin with http:// or https://.")
    return found


def headers(llm: ServiceLLM) -> dict[str, str]:
    """Return the headers that every request has."""
    return {name: _value(llm, f"headers_env.{name}", variable) for name, variable in llm.headers_env.items()}


def _value(llm: ServiceLLM, key: str, variable: str) -> str:
    name_secret(variable)
    found = os.environ.get(variable, "")
    if not found:
        raise ConfigError(f"{llm.name}: the environment variable {variable} ({key}) is not set; set it.")
    if not (found.isascii() and found.isprintable() and found == found.strip()):
        raise ConfigError(f"{llm.name}: {variable} ({key}) holds what no header can, such as a line break.")
    return found
