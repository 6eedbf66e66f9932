"""Refusals: what a server's error is about, by its status and its code: this one prompt, everything, or the moment.

    error_of(llm, 400, {"error": {"code": "context_length_exceeded", ...}})      a RefusedError: this prompt
    error_of(llm, 401, {"error": {"code": "invalid_api_key", ...}})              a ServiceError: ends the run
    error_of(llm, 503, {}, retry_after=2.0)                                      a TransientError: tried again

Many servers give no code, so that their words for a prompt that is too long, or that a filter refused, count too; they
are looked for in the server's own message, and with the statuses of a refused request alone.
"""

from __future__ import annotations

import http
import re
from collections.abc import Iterator, Mapping
from typing import Any

from llamaduo.config import ServiceLLM
from llamaduo.errors import ServiceError, TransientError
from llamaduo.redaction import redact

TOO_LONG = "the prompt is too long"
"""Stands in the message where a prompt exceeds the model's context."""
_LONGEST_RETRY_AFTER = 900.0
_LONGEST_MESSAGE = 300
_WORTH_ANOTHER_TRY = {408, 409, 425, 429, 499, 529}
_PERHAPS_BILLED = {408, 499, 500, 502, 504, 520, 522, 524}
"""A server broke down over the request, or a gateway gave up waiting: whoever stands behind it may have gone on."""
_BILLS_NO_500 = {"gemini"}
"""Providers that say they don't bill a request which ends with 500 (ai.google.dev/gemini-api/docs/billing)."""
_OF_A_REQUEST = {400, 403, 413, 422, 451}
"""Statuses with which one request may be refused."""
_LENGTH_CODES = {
    "context_length_exceeded", "string_above_max_length", "exceed_context_size_error", "request_too_large",
    "prompt_too_long", "context_window_exceeded", "max_context_length_exceeded", "input_too_long",
}  # fmt: skip
_FILTER_CODES = {
    "content_filter", "content_policy_violation", "responsibleaipolicyviolation", "invalid_prompt", "safety_violation",
    "content_filtered", "prompt_blocked", "moderation_blocked", "data_inspection_failed", "prohibited_content",
    "content_moderation", "moderation_failed", "flagged_input", "input_blocked", "content_policy",
}  # fmt: skip
_SENSITIVE = re.compile(r"sensitive_?(content|word|information)|data_?inspection_?failed")
"""Words within codes of a filter."""
_PARAMETER_CODES = {"unknown_parameter", "unsupported_parameter", "unsupported_value"}
_FOR_GOOD_CODES = {
    "insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "invalid_api_key", "model_not_found",
    "authentication_error", "permission_error", "permission_denied", "insufficient_credits", "account_deactivated",
    "api_key_invalid", "api_key_expired", "failed_precondition", "consumer_suspended",
}  # fmt: skip
_LENGTH_WORDS = re.compile(
    r"context[ _-]?(length|window|size)|maximum (context|model|input|prompt) length|max_model_len|prompt is too long|"
    r"(token count|input tokens|prompt|input|message)\b.{0,60}(exceeds?\b|longer than|too long|too large|larger than)|"
    r"token count\b.{0,60}only supports|range of input length|must have less than \d+ tokens|"
    r"too many (input )?tokens|tokens?\b.{0,60}must be <=|reduce the length",
    re.IGNORECASE | re.DOTALL,
)
_FILTER_WORDS = re.compile(
    r"content.?(filter|policy|management)|safety system|usage (guidelines|policies)|flagged|moderation|guardrail|"
    r"responsible ai|(inappropriate|sensitive|unsafe) (content|information)|content exists risk|content blocked|"
    r"\u654f\u611f\u5185\u5bb9",
    re.IGNORECASE,
)
_ACCOUNT_WORDS = re.compile(r"\b(credits?|billing|quota|balance|payment|subscription|api.?key)\b", re.IGNORECASE)


class RefusedError(ServiceError):
    """The provider refused this one request: its safety filter, or a prompt beyond its context."""


class PerhapsRefusedError(RefusedError):
    """A request was refused for a reason that nobody knows: it concerns all of them, unless others are answered."""


class UnknownOutcomeError(TransientError):
    """The request was sent and no whole answer came; it may have been billed all the same.

    `status` is the one that came in place of an answer, null where none did.
    """

    def __init__(self, message: str, *, retry_after: float = 0.0, status: int | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.status = status


class NoReplyError(ServiceError):
    """A server answered with success and with something that is no reply; perhaps billed, and not tried again."""


def error_of(
    llm: ServiceLLM, status: int, body: Any, *, retry_after: float = 0.0, place: str | None = None
) -> ServiceError:
    """Return what a server's error means; `body` is its JSON, or its text, `place` the address that was asked."""
    text = told(body)
    codes = set(_codes(body))
    about = about_the_prompt(status, codes, message_of(body))
    if about:
        return RefusedError(f"{llm.name} refused: {about}: {text}")
    for_good = codes & _FOR_GOOD_CODES
    if (status in _WORTH_ANOTHER_TRY or status >= 500) and not for_good:
        if retry_after > _LONGEST_RETRY_AFTER:
            return ServiceError(
                f"{llm.name} asks to come back in {retry_after:,.0f} s: {text}; run the same command then."
            )
        message = f"{llm.name}: {text or f'status {status}'}"
        if _may_be_billed(llm, status):
            return UnknownOutcomeError(message, retry_after=retry_after, status=status)
        return TransientError(message, retry_after=retry_after)
    message = f"{llm.name} refused the call ({_phrase(status)}, {status}): {text}{_way_on(llm, status, text, place)}"
    nobody_knows = status in (400, 422) and not for_good and not _ACCOUNT_WORDS.search(text)
    return PerhapsRefusedError(message) if nobody_knows else ServiceError(message)


def _may_be_billed(llm: ServiceLLM, status: int) -> bool:
    """Tell whether a provider may bill a request that ended like this; whoever stands at another address may."""
    own = llm.provider in _BILLS_NO_500 and llm.base_url is None
    return status in _PERHAPS_BILLED and not (status == 500 and own)


def about_the_prompt(status: int, codes: set[str], message: str) -> str | None:
    """Return what is wrong with the prompt, None where an error is not known to be about it."""
    if codes & _LENGTH_CODES or status == 413:
        return TOO_LONG
    if codes & _FILTER_CODES or any(map(_SENSITIVE.search, codes)):
        return "a filter"
    if status not in _OF_A_REQUEST or codes & (_FOR_GOOD_CODES | _PARAMETER_CODES):
        return None
    if status != 403 and _LENGTH_WORDS.search(message):
        return TOO_LONG
    return "a filter" if _FILTER_WORDS.search(message) else None


def error_under_success(llm: ServiceLLM, body: Any) -> ServiceError | None:
    """Return the error that a body says under status 200, None where it says none; it may have been billed."""
    found = body.get("error") if isinstance(body, Mapping) else None
    if not found:
        return None
    code = found.get("code") if isinstance(found, Mapping) else None
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    meant = error_of(llm, status, body)
    message = f"{llm.name}: an error under status 200: {told(body)}"
    if isinstance(meant, PerhapsRefusedError):
        return NoReplyError(message)
    return UnknownOutcomeError(message) if isinstance(meant, TransientError) else meant


def told(body: Any) -> str:
    """Return the words of an error for a message: on one line, cut, without any key."""
    text = redact(" ".join(message_of(body).split()))[:_LONGEST_MESSAGE]
    return text.encode("utf-8", "replace").decode()


def message_of(body: Any) -> str:
    """Return the server's own words: its error's message, or all that it said."""
    for path in (("error", "message"), ("error",), ("message",), ("detail",), ("errors",)):
        found = body
        for step in path:
            found = found[0] if isinstance(found, list) and found else found
            found = found.get(step) if isinstance(found, Mapping) else None
        if isinstance(found, str) and found:
            return found
    return body if isinstance(body, str) else str(body)


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "no known status"


def _codes(tree: Any, depth: int = 0) -> Iterator[str]:
    """Yield every code, type, status and reason that an error names, in lower case."""
    if depth > 6:
        return
    if isinstance(tree, list):
        for item in tree:
            yield from _codes(item, depth + 1)
    elif isinstance(tree, Mapping):
        for name, value in tree.items():
            if isinstance(value, str) and str(name).lower() in ("code", "type", "status", "reason"):
                yield value.lower()
            if name == "flagged_input" and value:
                yield "flagged_input"
            yield from _codes(value, depth + 1)


def _way_on(llm: ServiceLLM, status: int, text: str, place: str | None) -> str:
    """Return what to set where a server names a parameter that it doesn't take, or has nothing at an address."""
    if status in (404, 405) and place:
        return f" (asked at {redact(place)})"
    if "max_completion_tokens" in text:
        return (
            f"; set {llm.name}'s parameters.max_completion_tokens={llm.max_tokens} (it takes the place of max_tokens)"
        )
    if "max_tokens" in text and "supported" in text:
        return f"; set {llm.name}'s parameters.max_tokens={llm.max_tokens}"
    return ""
