"""litellm's exceptions, made by hand: what a client sees where a server refuses, is slow or hangs up."""

from __future__ import annotations

import httpx

BY_STATUS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    429: "RateLimitError",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}


def fault(status: int, text: str = "a fault", **headers: str) -> Exception:
    """Return litellm's exception for a status."""
    import litellm

    response = httpx.Response(status, headers=headers, request=httpx.Request("POST", "http://localhost"))
    found: Exception = getattr(litellm, BY_STATUS[status])(
        message=text, llm_provider="fake", model="m", response=response
    )
    return found


def timeout() -> Exception:
    """Return litellm's exception for an answer that came too late."""
    import litellm

    return litellm.Timeout(message="too slow", model="m", llm_provider="fake")


def broken() -> Exception:
    """Return litellm's exception for a connection that broke."""
    import litellm

    return litellm.APIConnectionError(message="connection reset", model="m", llm_provider="fake")
