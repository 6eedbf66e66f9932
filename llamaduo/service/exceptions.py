"""Exceptions: what those of litellm, httpx and OpenAI's SDK mean for the bill, and how long a server asks to wait.

translated(error, llm)      a RefusedError, UnknownOutcomeError, TransientError or ServiceError, without any key
"""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Iterator, Mapping

from llamaduo.config import ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.redaction import redact
from llamaduo.service.refusals import NoReplyError, RefusedError, UnknownOutcomeError, error_of


def translated(error: Exception, llm: ServiceLLM) -> ServiceError:
    """Return our exception for one of a library's, without any key in its text."""
    text = redact(" ".join(str(error).split()))[:300].encode("utf-8", "replace").decode()
    name = type(error).__name__
    if name in ("ContentPolicyViolationError", "ContextWindowExceededError"):
        return RefusedError(f"{llm.name} refused: {text}")
    if any("httpx.DecodingError" in _ancestors(link) for link in _chain(error)):
        return NoReplyError(f"{llm.name}: what came is not compressed as its Content-Encoding says: {text}")
    missing = _missing(error)
    if missing:
        return ServiceError(f"{llm.name}: {missing}; nothing was sent.")
    status = _status(error)
    if status is not None:
        return error_of(llm, status, text, retry_after=retry_after(error))
    if _was_never_sent(error):
        return TransientError(f"{llm.name}: {text}{_certificates(text)}")
    if name in ("Timeout", "APITimeoutError") or any("Timeout" in kind for kind in _ancestors(error)):
        text = f"timed out after {llm.timeout_s:g} s"
    return UnknownOutcomeError(f"{llm.name}: {text or name}")


def _missing(error: Exception) -> str | None:
    """Return what a provider of litellm's lacks on this machine, a package or credentials, None if nothing is known."""
    for link in _chain(error):
        package = re.search(r"No module named '([\w.]+)'", str(link)) if isinstance(link, ImportError) else None
        if package:
            return f"its provider needs the Python package that has {package[1]}, which is not installed"
        if type(link).__name__ in ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError"):
            return f"no credentials were found: {redact(str(link))[:200]}"
    return None


def _certificates(text: str) -> str:
    """Return what to set where a certificate is not trusted."""
    wrong = "certificate" in text.lower()
    return "; set SSL_CERT_FILE (or REQUESTS_CA_BUNDLE) to your authority's certificates." if wrong else ""


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
    found = [0.0]
    for link in _chain(error):
        for headers in (getattr(link, "litellm_response_headers", None), _headers(link)):
            found += waits(headers or {}, str(link))
    return max(found)


def waits(headers: Mapping[str, str], text: str) -> list[float]:
    """Return every wait that a header or a body asks for, 0 among them."""
    asked = headers.get("retry-after")
    return [0.0, _seconds(asked) if asked else 0.0, *(float(delay) for delay in _GEMINI_DELAY.findall(text))]


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
