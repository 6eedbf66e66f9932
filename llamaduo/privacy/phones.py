"""Phone numbers in a text.

list(phones("+1 212 736 5000", ()))            [Found("phone", 0, 15, "+12127365000", "1")]
list(phones("030 901820", ("DE",)))            national writing takes a region

Without a region those are found that begin with + or 00, those written as in North America, (212) 736-5000, and what
a word such as `Tel.` stands before. Digits without a space or a sign between them are a number of something else unless
they begin with + or 0, or such a word stands before: 2147483647 is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from llamaduo.privacy.found import LIKELY, PHONE, POSSIBLE, UNSPACED, Found

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

_ENOUGH = re.compile(r"\d(?:[^\w\n]{0,4}\d){5}")
_NORTH_AMERICAN = re.compile(
    r"(?<![\w.+-])(?<!\d )(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w-]|\.\d| ?[-+*/=] ?\d)",
    re.ASCII,
)
_ZEROS = re.compile(r"(?<![\w.+-])(?<!\d )00 ?[1-9](?:[ \-./()]{0,2}\d){8,14}(?![\w]|\.\d)", re.ASCII)
_PLUS = re.compile(r"(?<![\w+])\+[1-9](?:[ \-./()]{0,2}\d){7,30}", re.ASCII)
_WORD = (
    rf"(?:(?<![^\W{UNSPACED}])(?:tel(?:e(?:phone|fon[eo]?))?|phones?|mobile|mobil(?:e|telefon)?|cell(?:ular)?|handy|fax|"
    r"whatsapp|call|"
    r"text|sms|ring|dial|reach|hotline|contact|telefoon|téléphone|tél|teléfono|móvil|celular|telefono|cellulare|"
    r"numéro|portable|gsm|puhelin|telefonu|anrufen|appeler|llamar|rufen)\b|тел(?:ефон)?|电话|電話|手机|전화|फोन|هاتف|☎|📞)"
)
_SAID = re.compile(
    rf"{_WORD}[.:]?(?:[ ]?(?:no|nr|number|num|nummer|número|is|at|me|us|him|her|on|under|unter|au|al|:|#|号码)[.:]?)"
    r"{0,3}[ :=\"'(]{0,3}$",
    re.IGNORECASE,
)
_AFTER_WORD = re.compile(r"(?<![\w+])(?<!\d\.)\(?\d(?:[ \-./()]{0,2}\d){6,13}(?![\w]|[.,]\d)", re.ASCII)
_NEVER = frozenset(("2147483647", "2147483648", "4294967295", "4294967296", "1234567890", "0123456789"))
_INTERNAL = re.compile(r"[ ,;]*\bint\b")
_NO_NUMBER = re.compile(
    r"\d{4}-\d\d-\d\d.*|\d{1,2} ?[-./] ?\d{1,2} ?[-./] ?\d{2,4}|[\d ]{1,6}|\d{1,2} \d{6,}|(?:\d{1,2} ){4,}\d"
)
"""Dates, and counts one behind the other."""
_ARITHMETIC = re.compile(r"[\d)\]]\s*$")


def phones(text: str, regions: Sequence[str]) -> Iterator[Found]:
    """Yield every phone number; `regions` say where numbers without a country's are from (DE, US)."""
    if not _ENOUGH.search(text):
        return
    for region in regions or (None,):
        yield from _matched(text, region)
    if "US" not in regions and "CA" not in regions:
        yield from _written_as(text, _NORTH_AMERICAN, "US", "")
    yield from _written_as(text, _ZEROS, None, "+")
    yield from _before_other_digits(text)
    for found in _AFTER_WORD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if digits not in _NEVER and _SAID.search(text[max(0, found.start() - 48) : found.start()]):
            yield Found(PHONE, found.start(), found.end(), digits, "", POSSIBLE)


def _matched(text: str, region: str | None) -> Iterator[Found]:
    """Yield what phonenumbers finds, less what is a number of something else."""
    import phonenumbers

    for match in phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.POSSIBLE):
        written = _INTERNAL.split(match.raw_string)[0]  # it takes the C word `int` for an extension's
        before, end = text[: match.start], match.start + len(written)
        valid = phonenumbers.is_valid_number(match.number)
        apart = re.search(r"\d[^\d]+\d", written) is not None
        digits = re.sub(r"\D", "", written)
        if written.startswith(("+", "(+")):
            plain = not apart and (len(digits) < 9 or _ARITHMETIC.search(before[-3:]))
            good = not plain and (valid or apart or len(digits) >= 11)
        else:
            said = _SAID.search(before[-48:]) is not None
            good = valid and digits not in _NEVER and (said or _usual(written, apart, text, match.start, end))
        if good:
            yield _found(match.start, end, match.number)


def _usual(written: str, apart: bool, text: str, start: int, end: int) -> bool:
    """Tell whether digits look like a phone number as people write it where they live."""
    beside = text[start - 1 : start] + text[end : end + 1]
    if any(sign in "=*/%^_<>[]{}$€£#" for sign in beside) or re.fullmatch(r"[\d.]+", written):
        return written.startswith("0") and not apart and len(written) >= 10 and beside.strip(",.;)( \n") == ""
    return apart and not _NO_NUMBER.fullmatch(written)


def _written_as(text: str, form: re.Pattern[str], region: str | None, added: str) -> Iterator[Found]:
    """Yield what has a form, if there can be such a number."""
    import phonenumbers

    for found in form.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        try:
            number = phonenumbers.parse(added + (digits.removeprefix("00") if added else digits), region)
        except phonenumbers.NumberParseException:
            continue
        fictional = number.country_code == 1 and str(number.national_number)[3:6] == "555"
        if phonenumbers.is_valid_number(number) or fictional:
            yield _found(found.start(), found.end(), number)


def _before_other_digits(text: str) -> Iterator[Found]:
    """Yield numbers with + that other numbers follow, as far as they go."""
    import phonenumbers

    for run in _PLUS.finditer(text):
        ends = [part.end() for part in re.finditer(r"\d+", run[0])]
        for end in reversed(ends[1:]):
            try:
                number = phonenumbers.parse(run[0][:end], None)
            except phonenumbers.NumberParseException:
                continue
            if phonenumbers.is_valid_number(number):
                yield _found(run.start(), run.start() + end, number)
                break


def _found(start: int, end: int, number: PhoneNumber) -> Found:
    zero = "0" if number.italian_leading_zero else ""
    value = f"+{number.country_code}{zero}{number.national_number}"
    return Found(PHONE, start, end, value, str(number.country_code), LIKELY)
