"""Search: everything in a text that may not leave.

search = Search(Privacy(enabled=True, region="DE"))
search.find("Call 030 901820 or write to maria@firm.de")       [Found("phone", ...), Found("mail", ...)], in order
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from llamaduo.config import Privacy
from llamaduo.privacy.accounts import cards, ibans
from llamaduo.privacy.addresses import ips, mails
from llamaduo.privacy.found import CARD, CERTAIN, IBAN, ID, IP, KEY, MAIL, NAME, PHONE, TYPES, Found, apart
from llamaduo.privacy.names import missing, names
from llamaduo.privacy.national_ids import national_ids
from llamaduo.privacy.phones import phones
from llamaduo.privacy.plain_text import plain_text
from llamaduo.redaction import keys_in


def hidden_types(wanted: Privacy) -> tuple[str, ...]:
    """Return the types that are replaced; none with privacy=off."""
    if not wanted:
        return ()
    named = tuple(name for name in TYPES if name in (wanted.types or TYPES))
    return (*named, *([NAME] if wanted.names else []), *wanted.patterns)


class Search:
    """A search for what a configuration names."""

    def __init__(self, wanted: Privacy) -> None:
        regions = wanted.regions
        by_type: dict[str, Callable[[str], Iterable[Found]]] = {
            MAIL: mails,
            PHONE: lambda text: phones(text, regions),
            CARD: cards,
            IBAN: ibans,
            ID: lambda text: national_ids(text, regions),
            IP: ips,
            KEY: _keys,
        }
        self._searches = [by_type[name] for name in wanted.types or TYPES]
        if wanted.names:
            self._searches.append(names)
        self._own = {name: re.compile(pattern) for name, pattern in wanted.patterns.items()}

    def find(self, text: str) -> list[Found]:
        """Return what is found in a text, apart from each other, at its places in the text as it is written."""
        read = plain_text(text)
        found = [one for search in self._searches for one in search(read.text)]
        found += self._of_own(read.text)
        kept = apart(found)
        if not read.places:
            return kept
        places = [read.span(one.start, one.end) for one in kept]
        return [
            Found(one.type, *place, one.value, one.of, one.certainty) for one, place in zip(kept, places, strict=True)
        ]

    def _of_own(self, text: str) -> Iterator[Found]:
        for name, pattern in self._own.items():
            for match in pattern.finditer(text):
                if match[0].strip():
                    yield Found(name, match.start(), match.end(), match[0], pattern.pattern, CERTAIN + 1)


def _keys(text: str) -> Iterator[Found]:
    for mark, match in keys_in(text):
        yield Found(KEY, match.start(), match.end(), match[0], mark, CERTAIN)


def problems(wanted: Privacy) -> list[str]:
    """Return a sentence for everything that is wrong with a configuration."""
    if not wanted:
        set_all_the_same = [name for name in ("types", "names", "region", "patterns") if getattr(wanted, name)]
        return [f"privacy.{name} is set, and privacy is off: add privacy=on." for name in set_all_the_same]
    told = [
        f"privacy.types: {name!r} is none; take from {', '.join(TYPES)} (names have privacy.names)."
        for name in wanted.types
        if name not in TYPES
    ]
    told += [f"privacy.names: {why}." for why in [missing()] if wanted.names and why]
    return told + _wrong_regions(wanted) + _wrong_patterns(wanted)


def _wrong_regions(wanted: Privacy) -> list[str]:
    if not wanted.regions:
        return []
    import phonenumbers

    hint = ' In YAML, NO has to be written "NO".' if "FALSE" in wanted.regions else ""
    return [
        f"privacy.region={wanted.region}: {one} is no region; take two letters such as DE, US or GB.{hint}"
        for one in wanted.regions
        if one not in phonenumbers.SUPPORTED_REGIONS
    ]


def _wrong_patterns(wanted: Privacy) -> list[str]:
    told = []
    for name, pattern in wanted.patterns.items():
        if name in (*TYPES, NAME):
            told.append(f"privacy.patterns.{name}: has the name of a type; take another one.")
        try:
            empty = re.compile(str(pattern)).match("") is not None
        except (re.error, RecursionError) as error:
            told.append(f"privacy.patterns.{name}: no regular expression ({error}).")
        else:
            told += [f"privacy.patterns.{name}: finds the empty text; ask for a sign at least."] if empty else []
    return told
