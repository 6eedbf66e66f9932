"""Secrets: the keys of a run's calls appear in nothing that we write about them.

    redact("401: Incorrect API key provided: sk-abc...")      "401: Incorrect API key provided: [OPENAI_API_KEY]"
    redact_logs()                                             the same for every record of every logger

A secret is where a key belongs: the value of a variable that a configuration names with `api_key_env`, of a provider's
usual one (`*_API_KEY`), or of another that Hugging Face, W&B or AWS read theirs from. It is found as it is, in base64
(wherever it begins in the encoded text), URL-encoded and escaped as JSON does it. A made-up one for a server that needs
none (`lm-studio`, `not-needed`) is an ordinary word, and taken out only behind `Bearer` or `key:`.

Messages, logs, tracebacks, failures and settings are redacted. Replies, answers and data never are: they aren't ours.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable
from functools import cache
from types import TracebackType
from typing import Any
from urllib.parse import quote

from llamaduo.key_shapes import key_in, without_keys

_USUAL = frozenset(
    ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
     "AWS_BEARER_TOKEN_BEDROCK")
)  # fmt: skip
_SHORTEST = 8
"""Of the forms in which a key is looked for."""
_LONG, _LONG_WITHOUT_DIGITS = 16, 24
"""What is shorter is a made-up key: an ordinary word or two."""
_VARIABLES = (
    ("sk-ant-", "ANTHROPIC_API_KEY"),
    ("AIza", "GEMINI_API_KEY"),
    ("hf_", "HF_TOKEN"),
    ("sk-", "OPENAI_API_KEY"),
)
_named: set[str] = set()


def name_secret(variable: str) -> None:
    """Count a variable among the secrets, whatever its name looks like."""
    _named.add(variable)


def redact(text: str) -> str:
    """Return the text with every secret of the environment replaced by its variable's name in brackets."""
    secrets = _secrets()
    for form, variable in _forms(tuple(secret for secret in secrets if _is_key(secret[0]))):
        if form in text:
            text = text.replace(form, f"[{variable}]")
    for value, variable in secrets:
        if value in text:  # a made-up one
            text = re.sub(_BEFORE + re.escape(value), rf"\1[{variable}]", text)
    return text


_BEFORE = r"(?i:(\bbearer\s+|\bbasic\s+|key(?: provided)?[\"'\\]*\s?[:=]\s?[\"'\\]*))"
"""What stands before a key in a header, and where a server tells of it."""


def complain(text: str) -> None:
    """Print a line of complaint on stderr, without keys."""
    print(f"llamaduo: {redact_message(text)}", file=sys.stderr)


def _is_key(value: str) -> bool:
    """Tell whether a value can only be a key; a made-up one for a server that needs none is an ordinary word."""
    return len(value) >= (_LONG if any(letter.isdigit() for letter in value) else _LONG_WITHOUT_DIGITS)


def _secrets() -> tuple[tuple[str, str], ...]:
    """Return (value, variable) of every variable that holds a key, the longest value first."""
    found = [
        (value, name)
        for name, value in os.environ.items()
        if value and (name in _named or name in _USUAL or name.endswith("_API_KEY"))
    ]
    return tuple(sorted(found, key=lambda secret: -len(secret[0])))


@cache
def _forms(secrets: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return every form in which a secret could appear, with its variable."""
    return tuple((form, name) for value, name in secrets for form in _written(value))


def _written(value: str) -> Iterable[str]:
    raw = value.encode(errors="surrogateescape")
    encoded_forms = {quote(raw, safe=""), quote(raw)}
    small = {re.sub("%..", lambda found: found[0].lower(), form) for form in encoded_forms}
    forms = {value, json.dumps(value)[1:-1], *encoded_forms, *small}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for shift in range(3):  # where it begins in the encoded text decides about how it looks there
            encoded = encode(b"\0" * shift + raw).decode()
            whole = (shift + len(raw)) // 3 * 4  # the last group depends on what follows
            forms.add(encoded[(0, 2, 3)[shift] : whole])
    return sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True)


def redact_message(text: str) -> str:
    """Return what may be shown of a message about somebody's input: no secret, and nothing that looks like a key."""
    return without_keys(redact(text))


def one_line(text: str) -> str:
    """Return what may be shown of a stranger's text: without secrets, and what isn't printable written as an escape."""
    shown = (mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in redact_message(text))
    return "".join(shown)


def literal_key(text: str) -> str | None:
    """Return the variable into which a key in a configuration's or a command line's text belongs; None without one."""
    for form, variable in _forms(tuple(secret for secret in _secrets() if _is_key(secret[0]))):
        if form in text:
            return variable
    literal = key_in(text)
    if literal is None:
        return None
    return next((name for start, name in _VARIABLES if literal.startswith(start)), "the provider's variable")


def refusal(where: str, variable: str) -> str:
    """Return the sentence that refuses a literal key, without it."""
    return f"{where}: a literal key; keys come from the environment alone: set {variable}, or name it with api_key_env."


def redact_logs() -> None:
    """Redact every log record at its birth, and every traceback that ends the program."""
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        try:
            message = record.getMessage()
        except Exception:  # somebody's mistake in a log call must not end the program
            message = f"{record.msg} {record.args}"
        record.msg, record.args = redact(message), None
        if record.exc_info and record.exc_info[1]:
            record.exc_text, record.exc_info = redact("".join(traceback.format_exception(record.exc_info[1]))), None
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)
    sys.excepthook = _redacted_traceback
    threading.excepthook = lambda args: _redacted_traceback(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )
    sys.unraisablehook = lambda args: _redacted_traceback(
        args.exc_type, args.exc_value or args.exc_type(), args.exc_traceback
    )


def show_traceback(error: BaseException) -> None:
    """Print an exception's traceback on stderr, without keys."""
    _redacted_traceback(type(error), error, error.__traceback__)


def _redacted_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact_message("".join(traceback.format_exception(kind, error, trace))))
