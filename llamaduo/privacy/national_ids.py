"""National identity numbers in a text: those of some fifty countries whose check digits python-stdnum knows.

list(national_ids("12345678Z", ()))                    [Found("national_id", 0, 9, "12345678Z", "es.dni")]
list(national_ids("her BSN is 111222333", ()))         a check of one digit in eleven says little: a word has to as well

Where the form alone says what it is (123-45-6789, 12345678Z, RSSMRA85T10A562S) that is enough; what are digits in a row
counts where a word stands beside it (`PESEL`, `tax number`, `ID card`), or the country is one of `privacy.region`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from llamaduo.privacy.found import CERTAIN, ID, POSSIBLE, UNSPACED, Found


@dataclass(frozen=True)
class Form:
    """How the ids of a country are written."""

    name: str
    """python-stdnum's module, `us.ssn`."""
    form: str
    """A regular expression."""
    words: str = ""
    """What stands beside one; empty where the form is enough."""


_DATED = r"\d\d(?:0[1-9]|[1-7]\d|8[0-9]|9[0-2])\d\d"
FORMS = (
    Form("us.ssn", r"\d{3}-\d{2}-\d{4}"),
    Form("us.ssn", r"\d{3} ?\d{2} ?\d{4}", "ssn|social security"),
    Form("us.itin", r"9\d{2}-\d{2}-\d{4}"),
    Form("us.ein", r"\d{2}-\d{7}", "ein|employer"),
    Form("es.dni", r"\d{2}\.?\d{3}\.?\d{3}[ -]?[A-Z]"),
    Form("es.nie", r"[XYZ][ -]?\d{7}[ -]?[A-Z]"),
    Form(
        "it.codicefiscale", r"[A-Z]{3} ?[A-Z]{3} ?[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2} ?[A-Z][0-9LMNP-V]{3} ?[A-Z]"
    ),
    Form("fr.nir", r"[12] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d"),
    Form("gb.nino", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]"),
    Form("gb.nhs", r"\d{3}[ -]?\d{3}[ -]?\d{4}", "nhs|patient|health"),
    Form("gb.utr", r"\d{5} ?\d{5}", "utr|taxpayer reference"),
    Form("br.cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}"),
    Form("br.cpf", r"\d{11}", "cpf"),
    Form("de.idnr", r"\d{2} \d{3} \d{3} \d{3}"),
    Form("de.idnr", r"\d{11}", "steuer|idnr|identifikationsnummer|idn"),
    Form("nl.bsn", r"\d{4}\.?\d{2}\.?\d{3}", "bsn|burgerservice|sofi"),
    Form("be.nn", r"\d{2}\.\d{2}\.\d{2}[-.]\d{3}[.-]\d{2}"),
    Form("be.nn", rf"{_DATED}\d{{5}}", "rijksregister|registre national|numéro national|niss|insz|nrn"),
    Form("pl.pesel", rf"{_DATED}\d{{5}}", "pesel"),
    Form("se.personnummer", r"(?:19|20)?\d{6}[-+]\d{4}"),
    Form("se.personnummer", r"(?:19|20)?\d{10}", "personn"),
    Form("fi.hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]"),
    Form("dk.cpr", r"\d{6}-?\d{4}", "cpr|personn"),
    Form("no.fodselsnummer", r"[0-7]\d{5} ?\d{5}"),
    Form("is_.kennitala", r"\d{6}-\d{4}"),
    Form("pt.cc", r"\d{8} ?\d ?[A-Z0-9]{2}\d"),
    Form("pt.nif", r"[12]\d{2} ?\d{3} ?\d{3}", "nif|contribuinte"),
    Form("ro.cnp", rf"[1-8]{_DATED}\d{{6}}"),
    Form("cz.rc", r"\d{6}/\d{3,4}"),
    Form("bg.egn", r"\d{10}", "егн|egn|единен"),
    Form("hr.oib", r"\d{11}", "oib"),
    Form("ee.ik", r"[1-6]\d{10}", "isikukood"),
    Form("lt.asmens", r"[3-6]\d{10}", "asmens"),
    Form("lv.pvn", r"\d{6}-\d{5}", "personas kods|personas"),
    Form("ch.ssn", r"756\.?\d{4}\.?\d{4}\.?\d{2}"),
    Form("gr.amka", r"[0-3]\d{10}", "amka|αμκα"),
    Form("ie.pps", r"\d{7}[A-W][ABHWTX]?"),
    Form("in_.aadhaar", r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}"),
    Form("in_.aadhaar", r"[2-9]\d{11}", "aadhaar|aadhar|uidai|आधार"),
    Form("in_.pan", r"[A-Z]{3}[ABCFGHJLPT][A-Z]\d{4}[A-Z]"),
    Form("cn.ric", r"[1-9]\d{5}(?:19|20)\d{9}[\dX]"),
    Form("kr.rrn", rf"{_DATED}-\d{{7}}"),
    Form("tr.tckimlik", r"[1-9]\d{10}", "kimlik|tckn|t\\.?c\\.? no|turkish"),
    Form("za.idnr", rf"{_DATED}\d{{4}}[01]\d{{2}}", "south african|sa id|za id"),
    Form("mx.curp", r"[A-Z][AEIOUX][A-Z]{2}\d{6}[HM][A-Z]{5}[0-9A-Z]\d"),
    Form("mx.rfc", r"[A-ZÑ&]{4}\d{6}[A-Z0-9]{3}"),
    Form("ar.cuit", r"(?:2[0347]|3[034])-\d{8}-\d"),
    Form("ar.dni", r"\d{2}\.?\d{3}\.?\d{3}", "dni"),
    Form("cl.rut", r"\d{1,2}\.\d{3}\.\d{3}-[\dK]"),
    Form("cl.rut", r"\d{7,8}-?[\dK]", "rut|run"),
    Form("co.nit", r"\d{3}\.\d{3}\.\d{3}-\d"),
    Form("ca.sin", r"\d{3}-\d{3}-\d{3}"),
    Form("ca.sin", r"\d{3} ?\d{3} ?\d{3}", "sin|nas|social insurance"),
    Form("au.tfn", r"\d{3} ?\d{3} ?\d{2,3}", "tfn|tax file"),
    Form("nz.ird", r"\d{2,3}-?\d{3}-?\d{3}", "ird"),
    Form("il.idnr", r"\d{8}-?\d", "teudat|zehut|israeli|תעודת"),
    Form("my.nric", r"\d{6}-\d{2}-\d{4}"),
    Form("th.pin", r"\d-\d{4}-\d{5}-\d{2}-\d"),
    Form("th.pin", r"[1-8]\d{12}", "thai|บัตรประชาชน|ประจำตัว"),
    Form("jp.in_", r"\d{4}[ -]?\d{4}[ -]?\d{4}", "my number|マイナンバー|個人番号"),
    Form("id.nik", r"\d{16}", "nik|ktp"),
    Form("ua.rntrc", r"\d{10}", "рнокпп|іпн|rntrc|ипн"),
    Form("ru.inn", r"\d{12}", "инн|inn"),
    Form("ec.ci", r"\d{9}-?\d", "cédula|cedula"),
    Form("do.cedula", r"\d{3}-\d{7}-\d"),
    Form("ve.rif", r"[VEJPG]-\d{8}-\d"),
    Form("at.vnr", r"\d{4} ?\d{6}", "svnr|sv-nummer|sozialversicherung|versicherungsnummer"),
    Form("si.emso", r"[0-3]\d{12}", "emšo|emso|jmbg|јмбг"),
    Form("pk.cnic", r"\d{5}-\d{7}-\d"),
)
"""By and large in the order of how sure a form is."""
_ANY = (
    r"national (?:id|identity|insurance|number)|identity|identification|id[ -]?(?:card|no\b|nr|num|#|:)|"
    r"(?:\bid\b(?! ?=))|tax(?:payer)?[ -](?:id|no|num|file|ref)|tin|social (?:security|insurance)|passport|citizen|"
    r"personal (?:id|code|no|num)|"
    r"ausweis|document|documento|identidad|identità|identité|удостовер|身份证|주민"
)
_NEAR = 48


def national_ids(text: str, regions: Sequence[str]) -> Iterator[Found]:
    """Yield every national id; of countries in `regions` also those that no word stands beside."""
    for at, pattern in _candidates(text):
        form = FORMS[at]
        home = form.name.partition(".")[0].strip("_").upper() in regions
        for found in pattern.finditer(text):
            told = not form.words or home or _told(text, found.start(), found.end(), form.words)
            if told and is_valid(form.name, found[0]):
                certainty = POSSIBLE if form.words else CERTAIN
                yield Found(ID, found.start(), found.end(), compact(found[0]), form.name, certainty)


def _candidates(text: str) -> Iterator[tuple[int, re.Pattern[str]]]:
    if any(map(str.isdigit, text)):
        yield from enumerate(map(_pattern, FORMS))


@cache
def _pattern(form: Form) -> re.Pattern[str]:
    """Return what finds a form that stands alone; letters may be small ones in ids of many letters only."""
    return re.compile(rf"(?<![0-9A-Za-z.,])(?<![0-9][-/])(?:{form.form})(?![0-9A-Za-z]|[-/][0-9]|[.,]\d)")


@cache
def _words(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![^\W\d_{UNSPACED}])(?:{words}|{_ANY})", re.IGNORECASE)


def _told(text: str, start: int, end: int, words: str) -> bool:
    """Tell whether a word beside a number says what it is."""
    line = text.rfind("\n", 0, start) + 1
    return bool(
        _words(words).search(text[max(line, start - _NEAR) : start]) or _words(words).match(text[end:].lstrip(" (,"))
    )


def compact(text: str) -> str:
    """Return an id without what stands between its signs."""
    return re.sub(r"[^0-9A-Za-zÑ&+]", "", text).upper()


def is_valid(name: str, text: str) -> bool:
    """Tell whether an id passes its check; some have none, and a form and parts that were never given away."""
    digits = compact(text)
    if name in _OWN_CHECKS:
        return _OWN_CHECKS[name](digits)
    try:
        return bool(importlib.import_module(f"stdnum.{name}").is_valid(text.upper()))
    except Exception:  # some modules raise at numbers that nobody has
        return False


def _is_ssn(digits: str) -> bool:
    return digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def _is_nino(signs: str) -> bool:
    return signs[:2] not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def _is_ric(signs: str) -> bool:
    from stdnum.cn import ric

    months = 1 <= int(signs[10:12]) <= 12 and 1 <= int(signs[12:14]) <= 31
    return months and bool(ric.calc_check_digit(signs) == signs[-1])


_OWN_CHECKS: dict[str, Callable[[str], bool]] = {"us.ssn": _is_ssn, "gb.nino": _is_nino, "cn.ric": _is_ric}
