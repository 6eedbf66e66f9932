"""Identity terms in each other's place: a prompt and its reference as they would read of somebody else.

    categories = read_categories(None)                      the lists that ship with the package, or one's own
    swapped(example, categories[0])                         {"female": example, "male": the same of a man}
    swapped(example_of_two, categories[0])                  "two terms": why it is left alone

Reads `lists/identity.yaml`, or a file of that form. All turns and the reference are changed alike; case, plural and the
article before a term are kept right. A text is left alone where that would hardly make sense: it names two terms of
the category, names one in code or in a name (`Wonder Woman`, `Indian Ocean`), has a word that ties it to one of them,
or a form whose counterpart can't be told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from llamaduo.audit.texts import CODE, LISTS, read_list
from llamaduo.errors import InputError
from llamaduo.files.regular import read
from llamaduo.files.yaml_limits import refuse_too_much
from llamaduo.records import Example, prompt_id

PEOPLE, FUNCTION = "people", "function"


@cache
def _words(kind: str) -> frozenset[str]:
    return frozenset(read_list("words.yaml")[kind])


_START = re.compile(r"(?:\A|[.!?:\n\"\u201c*>-])\s*\Z")
_ARTICLE = re.compile(r"\b([Aa])(n?)( +)\Z")
_VOWEL = re.compile(r"[aeio]|u(?!ni|se)", re.IGNORECASE)
_NOT_A_VOWEL = re.compile(r"eu|one\b|once\b", re.IGNORECASE)

NO_TERM, TWO, IN_CODE, IN_A_NAME, TIED, UNCLEAR = (
    "no term", "two terms", "a term in code", "a term in a name", "tied to a term", "no clear counterpart"
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A form of every term."""

    forms: tuple[str, ...]
    before: str = ""
    """What has to follow: `word`, `none`, `person`; empty asks for nothing."""
    not_after: frozenset[str] = frozenset()
    """Words after which nobody can tell."""


@dataclass(frozen=True)
class Category:
    """Terms that are put in each other's place."""

    name: str
    terms: tuple[str, ...]
    rows: tuple[Row, ...]
    unless: re.Pattern[str] | None
    pattern: re.Pattern[str]

    def places(self, form: str) -> Iterator[tuple[Row, int]]:
        """Yield (row, column) of every place at which a form stands."""
        for row in self.rows:
            for column, known in enumerate(row.forms):
                if known.casefold() == form.casefold() and (known.islower() or not form.islower()):
                    yield row, column


def read_categories(path: Path | None) -> list[Category]:
    """Return the categories that ship with the package; a file's own take the place of those of the same name.

    A category of the file that is null is left out. Raises InputError for a file that isn't of this form.
    """
    found = _read(LISTS / "identity.yaml")
    if path is not None:
        try:
            found |= _read(path)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"audit.terms={path}: can't be read ({' '.join(str(error).split())}).") from error
    try:
        return [_category(name, of) for name, of in found.items() if of is not None]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        told = "docs/audit.md shows one"
        raise InputError(f"audit.terms={path}: no list of terms ({type(error).__name__}: {error}); {told}.") from error


def _read(path: Path) -> dict[str, Any]:
    import yaml

    text = read(path).decode()
    try:
        refuse_too_much(text)
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {error}") from error
    if not isinstance(found, dict):
        raise TypeError("it holds no categories")
    return found


def _category(name: str, of: Mapping[str, Any]) -> Category:
    terms = tuple(map(str, of["terms"]))
    rows = tuple(
        Row(tuple(map(str, row["forms"])), row.get("before", ""), frozenset(row.get("not_after", ())))
        for row in of["rows"]
    )
    if len(terms) < 2 or not rows or any(len(row.forms) != len(terms) for row in rows):
        raise ValueError(f"{name}: every row needs a form of each of its terms, of which there are two at least")
    if any(row.before not in ("", "word", "none", "person") for row in rows):
        raise ValueError(f"{name}: before is word, none or person")
    unless = [re.escape(str(word)) for word in of.get("unless", ())]
    return Category(
        str(name),
        terms,
        rows,
        re.compile(rf"(?<!\w)(?:{'|'.join(unless)})(?!\w)", re.IGNORECASE) if unless else None,
        re.compile("|".join(map(_bounded, _forms(rows))), re.IGNORECASE),
    )


def _forms(rows: Sequence[Row]) -> list[str]:
    """Return all forms, longer ones first."""
    return sorted({form for row in rows for form in row.forms}, key=lambda form: (-len(form), form))


def _bounded(form: str) -> str:
    """Return a pattern of a form as a word of its own; scripts without spaces have no such thing."""
    ends = [r"(?<![\w-])" if form[0] < "\u0e00" else "", r"(?![\w-])" if form[-1] < "\u0e00" else ""]
    return ends[0] + re.escape(form) + ends[1]


@dataclass(frozen=True)
class _Found:
    """A term in a text."""

    start: int
    end: int
    row: Row
    column: int


def swapped(example: Example, category: Category) -> dict[str, Example] | str:
    """Return the example with each term in place of the one that its prompt names, or why it is left alone."""
    texts = [*(message["content"] for message in example.messages), example.response]
    if not any(category.pattern.search(text) for text in texts[:-1]):
        return NO_TERM
    if category.unless and any(category.unless.search(text) for text in texts):
        return TIED
    found: list[list[_Found]] = []
    for text in texts:
        told = _found(text, category)
        if isinstance(told, str):
            return told
        found.append(told)
    columns = {one.column for some in found for one in some}
    if len(columns) != 1 or not any(found[:-1]):
        return TWO if len(columns) > 1 else NO_TERM
    made = {}
    for column, term in enumerate(category.terms):
        *turns, response = (_put(text, some, column) for text, some in zip(texts, found, strict=True))
        messages = tuple({**message, "content": turn} for message, turn in zip(example.messages, turns, strict=True))
        made[term] = replace(example, prompt_id=prompt_id(messages), messages=messages, response=response)
    return made


def _found(text: str, category: Category) -> list[_Found] | str:
    """Return the terms in a text, or why it is left alone."""
    found = []
    code = [match.span() for match in CODE.finditer(text)]
    for match in category.pattern.finditer(text):
        places = list(category.places(match[0]))
        if not places:
            continue  # `polish` is no Polish
        if any(start <= match.start() < end for start, end in code):
            return IN_CODE
        if _is_name(text, match, places[0][0].forms[places[0][1]]):
            return IN_A_NAME
        fitting = [(row, column) for row, column in places if _fits(row, text, match)]
        if not fitting and all(row.before == "person" for row, _ in places):
            continue  # a white wall, an Indian summer
        if not fitting:
            return UNCLEAR
        found.append(_Found(match.start(), match.end(), *fitting[0]))
    return found


def _is_name(text: str, match: re.Match[str], form: str) -> bool:
    """Tell whether a match is part of a name: it, or what stands beside it, begins with a capital inside a sentence."""
    starts = bool(_START.search(text[: match.start()]))
    if form.islower() and match[0][0].isupper() and not match[0].isupper() and not starts:
        return True
    if match[0].isupper() and len(match[0]) > 1:
        return False
    following = re.match(r"[ \t]+([A-Z][a-z]+)", text[match.end() :])
    proper = not form.islower()
    if following and (proper or match[0][0].isupper()):
        return True
    before = re.search(r"([^\W\d_]+)[ \t]+\Z", text[: match.start()])
    return bool(
        proper
        and before
        and before[1][0].isupper()
        and before[1].casefold() not in _words(FUNCTION)
        and not _START.search(text[: before.start()])
    )


def _fits(row: Row, text: str, match: re.Match[str]) -> bool:
    before = re.search(r"([^\W\d_]+)[ \t]+\Z", text[: match.start()])
    if before and before[1].casefold() in row.not_after:
        return False
    if not row.before:
        return True
    following = re.match(r"[ \t]+([^\W\d_][\w-]*)", text[match.end() :])
    word = following[1].casefold() if following else ""
    if row.before == "person":
        return word in _words(PEOPLE)
    return (bool(word) and word not in _words(FUNCTION)) == (row.before == "word")


def _put(text: str, found: Sequence[_Found], column: int) -> str:
    """Return a text with the forms of a column in the place of those that are there."""
    made, at = [], 0
    for one in found:
        old, new = text[one.start : one.end], one.row.forms[column]
        head = text[at : one.start]
        made += [_with_article(head, new) if one.column != column else head]
        made.append(old if one.column == column else _in_case(old, one.row.forms[one.column], new, text[: one.start]))
        at = one.end
    return "".join([*made, text[at:]])


def _with_article(head: str, new: str) -> str:
    """Return what stands before a term, with the `a` or `an` that it needs."""
    article = _ARTICLE.search(head)
    if not article:
        return head
    vowel = bool(_VOWEL.match(new)) and not _NOT_A_VOWEL.match(new)
    return f"{head[: article.start()]}{article[1]}{'n' * vowel}{article[3]}"


def _in_case(old: str, form: str, new: str, head: str) -> str:
    """Return a form in the case of what stands there: capitals throughout, at the beginning, or its own."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    capital = old[0].isupper() and (form[0].islower() or bool(_START.search(head)))
    return new[0].upper() + new[1:] if capital else new
