"""Numbers of payment cards and bank accounts in a text: each has its check digits, its length and its beginning.

list(cards("4111 1111 1111 1111"))                 [Found("card", 0, 19, "4111111111111111", "visa")]
list(ibans("DE89 3704 0044 0532 0130 00"))         [Found("iban", 0, 27, "DE89370400440532013000", "DE")]
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from llamaduo.privacy.found import CARD, CERTAIN, IBAN, Found

_DIGITS = re.compile(r"(?<![\d.,])(?<!\d[ -])\d(?:[ -]?\d){12,30}(?!\d|[.,]\d)")
NETWORKS = {
    "amex": (r"3[47]", (15,)),
    "diners": (r"3(?:0[0-5]|[689])", (14, 16)),
    "discover": (r"6(?:011|4[4-9]|5)", (16, 19)),
    "jcb": (r"35(?:2[89]|[3-8])", (16,)),
    "mastercard": (r"5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)", (16,)),
    "unionpay": (r"62", (16, 17, 18, 19)),
    "visa": (r"4", (13, 16, 19)),
    "maestro": (r"50|5[6-8]|6[0-9]", (16, 18, 19)),
}
"""By network: how a number begins, and how many digits it may have."""


def cards(text: str) -> Iterator[Found]:
    """Yield every card number: digits in a row, or in groups with spaces or dashes between them."""
    for run in _DIGITS.finditer(text):
        groups = [(part.start() + run.start(), part.end() + run.start()) for part in re.finditer(r"\d+", run[0])]
        at = 0
        while at < len(groups):
            for last in range(len(groups), at, -1):
                start, end = groups[at][0], groups[last - 1][1]
                digits = re.sub(r"\D", "", text[start:end])
                if (network := network_of(digits)) and _grouped(groups[at:last]):
                    yield Found(CARD, start, end, digits, network, CERTAIN)
                    at = last - 1
                    break
            at += 1


def _grouped(groups: list[tuple[int, int]]) -> bool:
    """Tell whether digits stand in groups as they do on cards: none of a single digit."""
    return len(groups) == 1 or all(end - start >= 3 for start, end in groups)


def network_of(digits: str) -> str | None:
    """Return whose card number digits are, None where they are none."""
    from stdnum import luhn

    for network, (begins, lengths) in NETWORKS.items():
        if len(digits) in lengths and re.match(begins, digits) and len(set(digits)) > 1 and luhn.is_valid(digits):
            return network
    return None


_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}[ -]?\d{2}(?=[ -]?[A-Za-z0-9])")


def ibans(text: str) -> Iterator[Found]:
    """Yield every IBAN, in groups or not."""
    for begun in _IBAN.finditer(text):
        length = iban_length(begun[0][:2].upper())
        signs, at = "", begun.start()
        while length and len(signs) < length and at < len(text):
            sign = text[at]
            if sign.isascii() and sign.isalnum():
                signs += sign
            elif sign not in " -" or text[at - 1] in " -":
                break
            at += 1
        if len(signs) == length and not text[at : at + 1].isalnum() and is_iban(signs.upper()):
            yield Found(IBAN, begun.start(), at, signs.upper(), signs[:2].upper(), CERTAIN)


def is_iban(compact: str) -> bool:
    """Tell whether an IBAN passes its check; the checks within, which some countries have, are no matter."""
    from stdnum import iban

    return bool(iban.is_valid(compact, check_country=False))


@cache
def iban_length(country: str) -> int:
    """Return how long a country's IBANs are, 0 for one without any."""
    from stdnum import iban

    ((_, known), *_rest) = iban._ibandb.info(country + "0" * 30) or ((None, {}),)
    structure = str(known.get("bban", ""))
    return 4 + sum(int(count) for count in re.findall(r"(\d+)!", structure)) if structure else 0
