r"""Restoring: real values in the place of made-up ones, in a text that a model wrote.

    restorer = Restorer([("mail", "maria@firm.de", "greta.hartwick41@example.com")])
    restorer.restore("Sent to GRETA.HARTWICK41@EXAMPLE.COM.").text        "Sent to maria@firm.de."

A model may write another case, other spaces and dashes, JSON with escapes, a phone number without its country's.
Inside of JSON what is put in is escaped, so that it stays JSON.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from llamaduo.privacy.found import CARD, IBAN, ID, IP, KEY, MAIL, NAME, PHONE
from llamaduo.privacy.plain_text import plain_text

_BETWEEN = r"[\s().\-/]{0,3}"
_AT = r"\s?(?:@|%40|&#64;|\(at\)|\[at\])\s?"
_SPACE = r"(?:\s|\\[nrt])*"
_LOOKS_MADE_UP = {
    MAIL: re.compile(r"\b[a-z]{3,7}\.[a-z]{5,13}\d\d@example\.com", re.IGNORECASE),
    PHONE: re.compile(r"(?<!\d)\d{3}\)?[ .-]?555[ .-]?01\d\d(?!\d)"),
    IP: re.compile(r"(?<![\d.])(?:192\.0\.2|198\.51\.100|203\.0\.113)\.\d{1,3}(?!\d)|\b2001:db8:[0-9a-f:]{4,}", re.I),
    CARD: re.compile(r"(?<!\d)(?:4242[ -]?42|5555[ -]?55|3782[ -]?82|6011[ -]?11|6200[ -]?00)\d\d[ -]?[\d -]{5,13}\d"),
}
"""What could be a made-up value that a model changed, so that nobody knows any more what it stood for."""
_ESCAPED = re.compile(r"\\u00|-----\\n")
"""Of a value that was found in JSON, escaped."""
_MOST_JSON = 500
"""Places of a text at which JSON may begin that are looked at."""


@dataclass(frozen=True)
class Restored:
    """A text that came back."""

    text: str
    counts: Counter[str] = field(default_factory=Counter)
    """How many values were put back, by type."""
    lost: Counter[str] = field(default_factory=Counter)
    """How many look like made-up values and stand for nothing that was sent, by type."""


class Restorer:
    """The way back for the made-up values of one request."""

    def __init__(self, pairs: Sequence[tuple[str, str, str]]) -> None:
        """`pairs` are (type, real, made up)."""
        self._exact = {plain_text(made).text: (type_, real) for type_, real, made in pairs}
        self._by_signs: dict[str, tuple[str, str]] = {}
        forms: dict[str, None] = {}
        for type_, real, made in sorted(pairs, key=lambda pair: -len(pair[2])):
            for written in _writings(type_, plain_text(made).text):
                self._by_signs.setdefault(_signs(written), (type_, real))
                forms[_form(type_, written)] = None
        self._any = re.compile("|".join(forms), re.IGNORECASE)
        self._types = {type_ for type_, _, _ in pairs}

    def restore(self, text: str) -> Restored:
        """Return the text with real values in it."""
        read, counts = plain_text(text), Counter[str]()
        parts, at, within = [], 0, None
        for match in self._any.finditer(read.text):
            known = self._exact.get(match[0]) or self._by_signs.get(_signs(match[0]))
            if known is None:
                continue
            type_, real = known
            start, end = read.span(match.start(), match.end())
            within = within or _Json(text)
            parts += [text[at:start], within.fitting(_cased(real, match[0], type_, self._exact), start)]
            counts[type_] += 1
            at = end
        left = "".join([*parts[::2], text[at:]])
        return Restored("".join([*parts, text[at:]]), counts, self._lost(left))

    def _lost(self, left: str) -> Counter[str]:
        """Count what looks made up in what is left of a text; of types that were sent alone."""
        looks = ((type_, look) for type_, look in _LOOKS_MADE_UP.items() if type_ in self._types)
        return Counter({type_: count for type_, look in looks if (count := len(look.findall(left)))})


def _signs(text: str) -> str:
    return re.sub(r"%40|&#64;|[(\[]at[)\]]|\\[nrt]|[\W_]", "", text.casefold())


def _writings(type_: str, made: str) -> Iterator[str]:
    """Yield how a made-up value may come back: a phone number of a country also without the country's."""
    yield made
    found = re.match(r"(?:\+|00)(1|33|44|46|49|61|353)[\s().\-/]*(?=\d)", made) if type_ == PHONE else None
    if found:
        national = re.sub(r"^\(?0\)?", "", made[found.end() :])
        yield national if found[1] == "1" else f"0{national}"


def _form(type_: str, made: str) -> str:
    """Return an expression for a made-up value as a model may write it."""
    if type_ == NAME:
        return rf"(?<![^\W\d_]){re.escape(made)}(?=s?(?![^\W\d_]))"
    if type_ == MAIL:
        return "".join(
            _AT if sign == "@" else rf"\\?{re.escape(sign)}" if sign in "._-+" else re.escape(sign) for sign in made
        )
    if type_ == IP and ":" not in made:
        return r"(?<!\d)(?<!\d\.)" + made.replace(".", r"\[?\.\]?") + r"(?!\.?\d)"
    if type_ in (PHONE, CARD, IBAN, ID):
        return _grouped(made)
    body = "".join(_SPACE if part.isspace() else re.escape(part) for part in re.split(r"(\s+)", made) if part)
    body = body.replace('"', r"\\?" + '"')
    return _bounded(made, body) if type_ != KEY else body


def _grouped(made: str) -> str:
    """Return an expression for letters and digits in whatever groups they stand."""
    before = made[: next((at for at, sign in enumerate(made) if sign.isalnum()), 0)]
    signs = [re.escape(sign) for sign in made if sign.isalnum()]
    lead = "".join(rf"(?:{re.escape(sign)})?" for sign in before) or r"(?:\((?=\d{2,5}\)[ -]?\d))?"
    return _bounded(made.lstrip("+( "), lead + _BETWEEN.join(signs))


def _bounded(made: str, form: str) -> str:
    """Return an expression with no further digit at its ends."""
    return (r"(?<!\d)" if made[:1].isdigit() else "") + form + (r"(?!\d)" if made[-1:].isdigit() else "")


def _cased(real: str, match: str, type_: str, exact: dict[str, tuple[str, str]]) -> str:
    """Return a name in the case in which a model wrote the made-up one."""
    if type_ != NAME or match in exact:
        return real
    return real.upper() if match.isupper() else real.lower() if match.islower() else real


class _Json:
    """Where a text holds JSON."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans: list[tuple[int, int]] | None = None

    def fitting(self, real: str, at: int) -> str:
        """Return a value as it may stand at a place: escaped in JSON's texts, quoted where a number stood."""
        escaped = real if _ESCAPED.search(real) else json.dumps(real, ensure_ascii=False)[1:-1]
        number = real.isdecimal() and not real.startswith("0")
        if (escaped == real and (number or '"' in self._text[at - 1 : at])) or not {"{", "["} & set(self._text):
            return real
        if self._spans is None:
            self._spans = list(_json_in(self._text))
        span = next((span for span in self._spans if span[0] < at < span[1]), None)
        if span is None:
            return real
        quotes = re.findall(r'(?<!\\)(?:\\\\)*"', self._text[span[0] : at])
        return escaped if len(quotes) % 2 else real if number else f'"{escaped}"'


def _json_in(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the JSON in a text begins and ends, that around others once."""
    decoder, at, looks = json.JSONDecoder(strict=False), 0, 0
    while (begin := re.compile(r"[{\[]").search(text, at)) and looks < _MOST_JSON:
        looks += 1
        try:
            _, at = decoder.raw_decode(text, begin.start())
        except (ValueError, RecursionError):
            at = begin.end()
        else:
            yield begin.start(), at
