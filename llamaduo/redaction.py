"""Secrets: what the environment holds as keys appears nowhere else.

    redact("401: Incorrect API key provided: sk-abc...")      "401: Incorrect API key provided: [OPENAI_API_KEY]"
    redact_logs()                                             the same for every record of every logger

A secret is the value of an environment variable whose name ends like a key's (`OPENAI_API_KEY`, `HF_TOKEN`,
`DB_PASSWORD`), or that a configuration names with `api_key_env`. It is found as it is, in base64 (wherever it
begins in the encoded text), URL-encoded and escaped as JSON does it.
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

_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$", re.IGNORECASE)
_KEY_NAME = re.compile(r"(KEY|TOKEN)$", re.IGNORECASE)
_SHORTEST = 8
_SHORTEST_KEY = 12
_LITERAL = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,}|hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|"
    r"r8_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}|eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{10,})"
)
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
    for form, variable in _forms(_secrets()):
        if form in text:
            text = text.replace(form, f"[{variable}]")
    return text


def complain(text: str) -> None:
    """Print a line of complaint on stderr, without keys."""
    print(f"llamaduo: {redact_message(text)}", file=sys.stderr)


def redact_reply(text: str) -> str:
    """Return a reply without the keys of service LLMs; other secrets stay, which may be ordinary words."""
    for form, variable in _forms(_keys()):
        if form in text:
            text = text.replace(form, f"[{variable}]")
    return text


def _keys() -> tuple[tuple[str, str], ...]:
    """Return (value, variable) of every secret that can only be a key: a service LLM's, or a long one and no path."""
    return tuple((value, name) for value, name in _secrets() if name in _named or _is_key(name, value))


def _is_key(name: str, value: str) -> bool:
    return bool(_KEY_NAME.search(name)) and len(value) >= _SHORTEST_KEY and not value.startswith(("/", "."))


def _secrets() -> tuple[tuple[str, str], ...]:
    """Return (value, variable) of every secret in the environment, the longest first."""
    found = [
        (value, name)
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and (name in _named or _NAME.search(name))
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
    return _LITERAL.sub("[key]", redact(text))


def one_line(text: str) -> str:
    """Return what may be shown of a stranger's text: without secrets, and what isn't printable written as an escape."""
    shown = (mark if mark.isprintable() else mark.encode("unicode_escape").decode() for mark in redact_message(text))
    return "".join(shown)


def literal_key(text: str) -> str | None:
    """Return the variable into which a key in a configuration's or a command line's text belongs; None without one."""
    for form, variable in _forms(_keys()):
        if form in text:
            return variable
    literal = _LITERAL.search(text)
    if literal is None:
        return None
    return next((name for start, name in _VARIABLES if literal[0].startswith(start)), "the provider's variable")


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


def _redacted_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(redact_message("".join(traceback.format_exception(kind, error, trace))))
