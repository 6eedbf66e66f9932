"""What may not leave: the types, and one value of one of them in a text.

Found("mail", 8, 21, "maria@firm.de")        signs 8 to 21 of a text
"""

from __future__ import annotations

from dataclasses import dataclass

MAIL, PHONE, CARD, IBAN, ID, IP, KEY, NAME = "mail", "phone", "card", "iban", "national_id", "ip", "key", "name"
TYPES = (MAIL, PHONE, CARD, IBAN, ID, IP, KEY)
"""What `privacy.types` may name; names and patterns of one's own have fields of their own."""
UNSPACED = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""For a class in an expression: letters of Chinese, Japanese and Korean, behind which a word needs no space."""
CERTAIN, LIKELY, POSSIBLE = 3, 2, 1
"""By a check digit or a shape that nothing else has; by its form; by the words beside it."""


@dataclass(frozen=True)
class Found:
    """A value in a text."""

    type: str
    """One of these, or the name of a pattern of the user's."""
    start: int
    end: int
    value: str
    """What it is, however it is written: two writings of one phone number have one value."""
    of: str = ""
    """Which country's phone, card network, national id, kind of key; or the pattern."""
    certainty: int = LIKELY


def apart(found: list[Found]) -> list[Found]:
    """Return the values that count where some overlap, in order: the longest, and of these the most certain."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (one.start - one.end, -one.certainty, one.start)):
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)
