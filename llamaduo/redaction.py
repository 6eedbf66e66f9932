"""What may be written and printed: no key, no control character, and in any terminal's own letters.

redact("... sk-abc ...")            "... [OPENAI_API_KEY] ...": every key of the environment by its variable's name
key_in(text), keys_in(text)         what in a text of somebody else's has the shape of a key, one or all
with plain_output(): ...            whatever is printed is clean, and no terminal's encoding ends a command
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging
    from types import TracebackType

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
    import base64
    import json
    from urllib.parse import quote

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
    import logging
    import traceback

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
    import traceback

    sys.stderr.write(redact_message("".join(traceback.format_exception(kind, error, trace))))


_SHAPES = {
    "sk-": (
        "an API key (sk-...)",
        r"\bsk-(?:[A-Za-z0-9_]+-)*?(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{16,}[\w-]*",
    ),
    "AIza": ("a Google API key", r"\bAIza[A-Za-z0-9_-]{30,}"),
    "ya29.": ("a Google access token", r"\bya29\.[A-Za-z0-9_-]{20,}"),
    "hf_": ("a Hugging Face token", r"\bhf_[A-Za-z0-9]{20,}"),
    "gsk_": ("a Groq key", r"\bgsk_[A-Za-z0-9]{20,}"),
    "r8_": ("a Replicate token", r"\br8_[A-Za-z0-9]{20,}"),
    "xai-": ("an xAI key", r"\bxai-[A-Za-z0-9]{20,}"),
    "AKIA": ("an AWS access key", r"\bAKIA[A-Z0-9]{16}\b"),
    "ASIA": ("an AWS access key", r"\bASIA[A-Z0-9]{16}\b"),
    "gh": ("a GitHub token", r"\bgh[opusr]_[A-Za-z0-9]{36,}"),
    "github_pat_": ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{22,}"),
    "glpat-": ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "xox": ("a Slack token", r"\bxox[abeprs]-[A-Za-z0-9-]{10,}"),
    "k_": ("a Stripe key", r"\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    "npm_": ("an npm token", r"\bnpm_[A-Za-z0-9]{36}"),
    "eyJ": ("a JSON web token", r"\beyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*)?"),
    "PRIVATE KEY": (
        "a private key",
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----(?:.{0,9999}?-----END [A-Z ]*PRIVATE KEY(?: BLOCK)?-----)?",
    ),
}
"""By a text that is in every key of the shape: what it is called, and the shape."""


@cache
def _shape(mark: str) -> re.Pattern[str]:
    return re.compile(_SHAPES[mark][1], re.ASCII | re.DOTALL)


def _found(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield every shape that a text has a key of: what it is called, and the key."""
    for mark, (name, _) in _SHAPES.items():
        if mark in text and (match := _shape(mark).search(text)):
            yield name, match


def shape_in(text: str) -> str | None:
    """Return what a key in a text is called; None without one."""
    return next((name for name, _ in _found(text)), None)


def key_in(text: str) -> str | None:
    """Return a key that is in a text; None without one."""
    return next((match[0] for _, match in _found(text)), None)


def keys_in(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    """Yield everything in a text that has a key's shape: what is in every key of that shape, and the key."""
    for mark in _SHAPES:
        if mark in text:
            yield from ((mark, match) for match in _shape(mark).finditer(text))


def is_key(mark: str, text: str) -> bool:
    """Tell whether a text as a whole is a key of a shape that `keys_in` names."""
    return _shape(mark).fullmatch(text) is not None


def without_keys(text: str) -> str:
    """Return a text with `[key]` in place of everything that has a key's shape."""
    for mark in _SHAPES:
        if mark in text:
            text = _shape(mark).sub("[key]", text)
    return text


_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # such as a colour or a movement of the cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"  # such as a window's title
    r"|\x1b[ -/]*[0-~]"
)
_LINES = re.compile("[\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text as it may be printed: line feeds, carriage returns and tabs are the only controls left in it."""
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub("", _LINES.sub(" ", _ESCAPES.sub("", text)))


class _Printed:
    """A stream on which nothing but text is written; `rich_proxied_file` leads consoles to what lies behind it."""

    def __init__(self, stream: IO[str], *, returns: bool) -> None:
        self.rich_proxied_file = stream
        self._returns = returns

    def write(self, text: str) -> int:
        """Write what may be printed of a text; a carriage return only where libraries draw progress with it."""
        shown = redact(printable(text))
        self.rich_proxied_file.write(shown if self._returns else shown.replace("\r", ""))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write some texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


@contextmanager
def plain_output() -> Iterator[None]:
    """Print nothing but text while this lasts, and no key."""
    before = sys.stdout, sys.stderr
    try:
        print_plainly()
        yield
    finally:
        sys.stdout, sys.stderr = before


def print_plainly() -> None:
    """Print nothing but text from here on, and no key."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if sys.stdout is not None and not isinstance(sys.stdout, _Printed):
        sys.stdout = _Printed(sys.stdout, returns=False)
    if sys.stderr is not None and not isinstance(sys.stderr, _Printed):
        sys.stderr = _Printed(sys.stderr, returns=True)
