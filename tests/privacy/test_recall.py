"""A thousand planted items of nine types in real text: what is found, what is taken for one, and the way back.

The items are drawn here, by rules of their own: national numbers of phones from the numbering plans' examples, check
digits computed as the standards say. The text is that of real coverage rows, where they lie beside the checkout.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from llamaduo.config import Privacy
from llamaduo.privacy import accounts, search
from llamaduo.privacy.found import Found
from llamaduo.privacy.hiding import Hider

REAL = Path(__file__).parents[3] / "shared/data/no_robots_coding.jsonl"
SECRET = b"s" * 32
IDS = (
    "12345678Z", "X1234567L", "RSSMRA85T10A562S", "390.533.447-05", "85.07.30-033.28", "811228-9874", "131052-308T",
    "756.9217.0769.85", "BOXW310820HNERXN09", "30.686.957-4", "AB123456C", "34052419800101001X",
)  # fmt: skip
"""One each of ES, ES, IT, BR, BE, SE, FI, CH, MX, CL, GB, CN: what the issuing countries give as examples."""


def luhn(body: str) -> str:
    """Return digits with their check digit (ISO/IEC 7812)."""
    doubled = [int(digit) * (2 if at % 2 == 0 else 1) for at, digit in enumerate(reversed(body))]
    return body + str(-sum(digit - 9 if digit > 9 else digit for digit in doubled) % 10)


def digits(draw: random.Random, count: int) -> str:
    return "".join(draw.choice("0123456789") for _ in range(count))


def a_card(draw: random.Random) -> str:
    begin, length = draw.choice([("4", 16), ("51", 16), ("2223", 16), ("37", 15), ("6011", 16), ("35", 16), ("36", 14)])
    begin = "3530" if begin == "35" else begin
    number = luhn(begin + digits(draw, length - len(begin) - 1))
    groups = [4, 6, 5] if length == 15 else [4, 6, 4] if length == 14 else [4, 4, 4, 4]
    parts = [number[sum(groups[:at]) : sum(groups[: at + 1])] for at in range(len(groups))]
    return draw.choice(["", " ", "-"]).join(parts)


def an_iban(draw: random.Random) -> str:
    country, account = draw.choice(
        [
            ("DE", digits(draw, 18)),
            ("GB", "NWBK" + digits(draw, 14)),
            ("NL", "ABNA" + digits(draw, 10)),
            ("PL", digits(draw, 24)),
            ("AT", digits(draw, 16)),
            ("CH", digits(draw, 17)),
        ]
    )
    as_number = "".join(str(int(sign, 36)) for sign in f"{account}{country}00")
    whole = f"{country}{98 - int(as_number) % 97:02d}{account}"
    return " ".join(re.findall(".{1,4}", whole)) if draw.random() < 0.5 else whole


def a_phone(draw: random.Random) -> str:
    import phonenumbers

    region = draw.choice("US GB DE FR ES IT NL BR IN JP AU MX PL SE CH ZA".split())  # noqa: SIM905
    kind = (
        phonenumbers.PhoneNumberType.MOBILE if region not in ("US", "MX") else phonenumbers.PhoneNumberType.FIXED_LINE
    )
    known = phonenumbers.example_number_for_type(region, kind)
    form = draw.choice([phonenumbers.PhoneNumberFormat.INTERNATIONAL, phonenumbers.PhoneNumberFormat.E164])
    changed = str(known.national_number)[:-3] + digits(draw, 3)
    number = phonenumbers.PhoneNumber(country_code=known.country_code, national_number=int(changed))
    return str(phonenumbers.format_number(number, form))


def a_key(draw: random.Random) -> str:
    signs = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
    some = lambda count: "".join(draw.choice(signs) for _ in range(count))  # noqa: E731
    return draw.choice(
        [f"sk-proj-a1{some(30)}", f"ghp_{some(36)}", f"hf_{some(34)}", f"AIza{some(35)}", f"gsk_{some(40)}"]
    )


def an_ip(draw: random.Random) -> str:
    return ".".join(str(draw.randrange(1, 255)) for _ in range(4)).replace("127.", "128.", 1)


def a_mail(draw: random.Random) -> str:
    name = draw.choice(["anna", "li.wei", "o'brien", "j_doe", "björn", "m.garcía", "ivan+shop", "x", "иван"])
    return (
        f"{name}{draw.randrange(99)}@{draw.choice(['mail.de', 'firm.co.uk', 'post.example.org', 'a-b.io', 'uni.edu'])}"
    )


MADE: dict[str, Callable[[random.Random], str]] = {
    "mail": a_mail,
    "phone": a_phone,
    "phone of one region": lambda draw: (
        f"({draw.choice([212, 415, 617])}) {draw.randrange(230, 999)}-{digits(draw, 4)}"
    ),
    "card": a_card,
    "iban": an_iban,
    "ssn": lambda draw: f"{draw.randrange(101, 600)}-{draw.randrange(10, 99)}-{draw.randrange(1000, 9999)}",
    "national_id": lambda draw: draw.choice(IDS),
    "ip": an_ip,
    "ip6": lambda draw: f"2a0{draw.randrange(1, 9)}:{draw.randrange(4096, 65535):x}:1::{draw.randrange(256, 4096):x}",
    "key": a_key,
}
"""Nine types and more: SSNs apart from other national ids, and two kinds of IP addresses."""
SAID = (
    "write to {}.",
    "it is {}, he said",
    'who = "{}"',
    "({})",
    "{}\n",
    "Mine is {} and no other",
    "<b>{}</b>",
    "- {};",
)


@cache
def real_texts() -> list[str]:
    if not REAL.exists():
        pytest.skip(f"{REAL} is not there")
    rows = map(json.loads, REAL.read_text().splitlines())
    return [turn["content"] for row in rows for turn in row["messages"]]


@cache
def planted() -> list[tuple[str, str, str]]:
    """Return 1,000 times (type, item, real text with it)."""
    draw, texts = random.Random(7), real_texts()
    found = []
    for at in range(1000):
        type_ = list(MADE)[at % len(MADE)]
        item, text = MADE[type_](draw), texts[draw.randrange(len(texts))]
        words = text.split(" ")
        place = draw.randrange(len(words) + 1)
        sentence = draw.choice(SAID).format(item)
        found.append((type_, item, " ".join([*words[:place], sentence, *words[place:]])))
    return found


def recall(hider: Hider, most: int = 1000) -> tuple[float, Counter[str]]:
    """Return the share of planted items that are not sent, and those that are, by type."""
    some = planted()[:most]
    missed = Counter(type_ for type_, item, text in some if item in hider.hide([text]).texts[0])
    return 1 - missed.total() / len(some), missed


@pytest.fixture(scope="module")
def hider() -> Hider:
    return Hider(Privacy(enabled=True), SECRET)


def test_a_thousand_planted_items_are_found_but_for_two_in_a_hundred(hider: Hider) -> None:
    share, missed = recall(hider)
    assert share >= 0.98, missed
    assert all(count <= 5 for count in missed.values()), missed


def test_every_text_comes_back_as_it_was(hider: Hider) -> None:
    for _, _, text in planted():
        hidden = hider.hide([text])
        assert hidden.restore(hidden.texts[0]).text == text


def test_hardly_anything_else_is_replaced(hider: Hider) -> None:
    """At most one row in two hundred of the real ones, as they are."""
    replaced = [pair for text in real_texts() for pair in hider.hide([text]).pairs]
    assert sum(bool(hider.find(text)) for text in real_texts()) <= 0.005 * len(real_texts()), replaced
    others = [
        pair.real
        for _, item, text in planted()
        for pair in hider.hide([text]).pairs
        if pair.real not in item and item not in pair.real
    ]
    assert len(others) <= 0.005 * len(planted()), others


@pytest.mark.parametrize("name", ["mails", "phones", "cards", "ibans", "national_ids", "ips", "_keys"])
def test_a_copy_that_lacks_a_search_falls_short(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Callable[..., list[Found]] = lambda *_: []  # noqa: E731
    monkeypatch.setattr(search, name, nothing)
    assert recall(Hider(Privacy(enabled=True), SECRET), 100)[0] < 0.98


def test_a_copy_without_a_check_digit_takes_other_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "order 4929 1234 5678 9012 of 4111 1111 1111 1111"
    hider = Hider(Privacy(enabled=True, types=["card"]), SECRET)
    assert [text[one.start : one.end] for one in hider.find(text)] == ["4111 1111 1111 1111"]
    from stdnum import luhn as check

    monkeypatch.setattr(check, "is_valid", lambda _: True)
    assert len(hider.find(text)) == 2
    assert accounts.network_of("4929123456789012") == "visa"
