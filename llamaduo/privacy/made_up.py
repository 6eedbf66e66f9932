"""Made-up values: of the same type and form as a value, natural to read, and nobody's.

made_up(Found("mail", ...), "maria@firm.de", Draws(...))       "greta.hartwick41@example.com"

Mail is at example.com (RFC 2606), IP addresses are those of documentation (RFC 5737, RFC 3849), phone numbers those
that authorities keep free for fiction, cards those of test ranges. Cards, IBANs and national ids pass their checks.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import cache

from llamaduo.privacy.accounts import NETWORKS, is_iban
from llamaduo.privacy.draws import Draws
from llamaduo.privacy.found import CARD, IBAN, ID, IP, KEY, MAIL, NAME, PHONE, Found
from llamaduo.privacy.national_ids import is_valid
from llamaduo.redaction import is_key

_TRIES = 400
_FEW = 50
_FIRST: list[str] = re.findall(
    r"\w+",
    "Alva Arno Birte Bodil Calla Cosima Dorit Edda Eike Elin Enno Falk Fenna Frauke Geske Greta Gunda Hedda "
    "Henrik Ilka Imke Ingmar Isolde Jette Jorun Kaja Klara Leif Lasse Lioba Malin Marit Merle Mika Nele Nils Oda "
    "Ole Orla Pelle Ragna Rieke Runa Silje Soeren Svea Tilda Thore Ulla Ville Wanja Wiebke Yngve",
)
_BEGINS: list[str] = re.findall(
    r"\w+",
    "Ald Bram Brenn Cald Corn Dren Eld Fenn Garr Hald Hart Holl Jess Kell Kend Lang Lind Marl Mell Nor Oak Pell "
    "Quill Rand Roth Sand Sell Stan Tarr Thorn Uld Vann Wald Warr Wend Wil Yard Zell",
)
_ENDS: list[str] = re.findall(
    r"\w+",
    "brook bury by cott croft dale den field ford garth gate ham hurst land ley man mere mond moor ridge shaw "
    "smith sted stead ton ville wall ward wick wood worth",
)
_NETS = ("192.0.2.", "198.51.100.", "203.0.113.")
_CARDS = {
    "amex": "378282", "diners": "305693", "discover": "601111", "jcb": "356600", "mastercard": "555555",
    "unionpay": "620000", "visa": "424242", "maestro": "675964",
}  # fmt: skip
"""How the numbers begin that payment services take in tests."""
_AREAS: list[str] = re.findall(
    r"\w+",
    "201 202 203 206 207 208 212 213 214 215 216 217 301 302 303 304 305 307 308 309 310 312 313 314 315 401 402 "
    "404 405 406 410 412 413 414 415 501 502 503 504 505 507 508 509 512 513 515 601 602 603 605 606 607 608 609 "
    "612 614",
)
_FICTION = {
    "44": ("7700900###", "2079460###", "1632960###", "1134960###", "1144960###", "1154960###", "1164960###",
           "1174960###", "1184960###", "1214960###", "1314960###", "1414960###", "1514960###", "1614960###",
           "1914980###", "2890180###", "2920180###"),
    "61": ("491570###", "255500###", "270100###", "355500###", "370100###", "755500###", "770100###", "855500###",
           "870100###"),
    "33": ("19900####", "26191####", "35301####", "46571####", "53649####", "63998####"),
    "49": ("3023125###", "6990009###", "4066969###", "2214710###", "8999998###", "176040690##"),
    "46": ("3139006##", "4062804##", "84650045#", "9803192##", "7017406##"),
    "353": ("2091#####",),
}  # fmt: skip
"""By country: national numbers that are given to nobody, for films and books."""
_PREFIX = re.compile(
    r"sk-(?:[a-z]{2,8}\d{0,2}-)*|AIza|ya29\.|hf_|gsk_|r8_|xai-|AKIA|ASIA|gh[opusr]_|github_pat_|glpat-|xox[a-z]-|"
    r"[sr]k_(?:live|test)_|npm_|eyJ"
)
"""What tells whose a key is."""
_BODY = re.compile(r"(?<=KEY-----)(?!$).*?(?=-----END|\Z)|(?<=BLOCK-----)(?!$).*?(?=-----END|\Z)", re.DOTALL)


def made_up(found: Found, written: str, draws: Draws, turn: int = 0) -> str:
    """Return a value in the place of one, in its form; later turns may leave what is usual, where all else is taken."""
    kinds: dict[str, Callable[[], str]] = {
        MAIL: lambda: _mail(written, draws),
        PHONE: lambda: _phone(found, written, draws),
        CARD: lambda: _grouped(written, _card(found, draws)),
        IBAN: lambda: _grouped(written, _iban(found, draws)),
        ID: lambda: _grouped(written, _id(found, written, draws)),
        IP: lambda: _ip(found, written, draws, wide=turn > _FEW),
        KEY: lambda: _key(found, written, draws),
        NAME: lambda: _name(written, draws),
    }
    return kinds[found.type]() if found.type in kinds else _own(found, written, draws)


def _grouped(written: str, made: str) -> str:
    """Return letters and digits in the groups and the case of a value."""
    made = made.lower() if written.islower() else made
    return _in_form(written, made) or made


def _in_form(written: str, signs: str) -> str | None:
    """Return signs in the place of a value's letters and digits; None if they are more or fewer."""
    if sum(map(str.isalnum, written)) != len(signs):
        return None
    left = iter(signs)
    return "".join(next(left) if mark.isalnum() else mark for mark in written)


def _mail(written: str, draws: Draws) -> str:
    name = f"{draws.pick(_FIRST)}.{draws.pick(_BEGINS)}{draws.pick(_ENDS)}{10 + draws.below(90)}".lower()
    made = f"{name}@example.com"
    if written.isupper():
        return made.upper()
    return made[0].upper() + made[1:] if written[:1].isupper() else made


def _name(written: str, draws: Draws) -> str:
    """Return a name that hardly anybody has."""
    made = draws.pick(_BEGINS) + draws.pick(_ENDS)
    return made.upper() if written.isupper() and len(written) > 1 else made if written[:1].isupper() else made.lower()


def _phone(found: Found, written: str, draws: Draws) -> str:
    """Return a number kept for fiction: of the same country where it has such numbers, else North American."""
    country, digits = found.of, re.sub(r"\D", "", written)
    international = written.lstrip("( ").startswith(("+", "00"))
    if not country:
        country = "44" if digits.startswith("0") else "1"
    home = country if country in _FICTION or not international else "1"
    forms = _FICTION.get(home)
    if forms is None:
        home, national = "1", f"{draws.pick(_AREAS)}55501{draws.below(10)}{draws.below(10)}"
    else:
        length = len(found.value) - 1 - len(country)
        national = re.sub(
            "#", lambda _: str(draws.below(10)), draws.pick([f for f in forms if len(f) == length] or forms)
        )
    zeros = "00" if written.lstrip("( ").startswith("00") else ""
    writings = [zeros + home + national, zeros + home + "0" + national] if international else [national, "0" + national]
    writings += [] if international or home != "1" else ["1" + national]
    grouped = f"{national[:3]} {national[3:6]} {national[6:]}"
    plain = f"+{home} {grouped}" if international else national if home == "1" else "0" + national
    if international and home != found.of:
        return plain
    return next((made for one in writings if (made := _in_form(written, one))), plain)


def _card(found: Found, draws: Draws) -> str:
    from stdnum import luhn

    begin, length = _CARDS[found.of], len(found.value)
    assert re.match(NETWORKS[found.of][0], begin)
    body = begin + "".join(str(draws.below(10)) for _ in range(length - len(begin) - 1))
    return f"{body}{luhn.calc_check_digit(body)}"


def _iban(found: Found, draws: Draws) -> str:
    from stdnum import iban

    country, bank = found.value[:2], found.value[4:]
    for attempt in range(4 * _TRIES):
        account = draws.like(bank)
        made = country + iban.calc_check_digits(f"{country}00{account}") + account
        if is_iban(made) and (attempt >= 3 * _TRIES or iban.is_valid(made)):
            return str(made)
    return found.value[:4] + draws.like(bank)


def _id(found: Found, written: str, draws: Draws) -> str:
    """Return an id that passes its check; of the US one that is never given to anybody, which begins with 9."""
    value = found.value
    if found.of == "us.ssn":
        return f"9{draws.below(10)}{draws.below(10)}{10 + draws.below(40)}{1000 + draws.below(9000)}"

    def stands(made: str) -> bool:
        return is_valid(found.of, _in_form(written, made) or made)

    for _ in range(_TRIES):
        made = draws.like(value)
        if stands(made):
            return made
    made = value
    for _ in range(2 * _TRIES):  # dates and places within: two signs at a time, so that most stay right
        at = {draws.below(len(value)), draws.below(len(value))}
        other = "".join(draws.like(mark) if place in at else mark for place, mark in enumerate(made))
        made = other if stands(other) else made
    return draws.like(value) if made == value else made


def _ip(found: Found, written: str, draws: Draws, *, wide: bool) -> str:
    if found.of == "4" and wide:  # kept for measuring (RFC 2544)
        return f"198.{18 + draws.below(2)}.{100 + draws.below(156)}.{100 + draws.below(155)}"
    if found.of == "4":
        return f"{draws.pick(_NETS)}{100 + draws.below(155)}"
    groups = ":".join(f"{0x1000 + draws.below(0xF000 - 0x1000):x}" for _ in range(3))
    made = ipaddress.IPv6Address(f"2001:db8:{groups.replace(':', '::', 1)}").compressed
    return made.upper() if written.upper() == written and re.search("[A-F]", written) else made


def _key(found: Found, written: str, draws: Draws) -> str:
    """Return a key of the same shape: what tells whose it is stays."""
    if found.of == "PRIVATE KEY":
        return _BODY.sub(lambda body: draws.like(body[0], "nr"), written, count=1)
    begin = _PREFIX.match(written)
    kept = begin.end() if begin else 0
    for _ in range(_TRIES):
        made = written[:kept] + draws.like(written[kept:])
        if is_key(found.of, made):
            break
    return made


def _own(found: Found, written: str, draws: Draws) -> str:
    """Return other digits, or other letters too, such that the user's own pattern still takes it for one."""
    pattern = _compiled(found.of)
    letters = "".join(set(filter(str.isalpha, written)))
    for attempt in range(_TRIES):
        made = draws.like(written, letters if sum(map(str.isdigit, written)) >= 4 and attempt < _TRIES // 2 else "")
        if made != written and (pattern is None or pattern.fullmatch(made)):
            return made
    return draws.like(written)


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    return re.compile(pattern) if pattern else None
