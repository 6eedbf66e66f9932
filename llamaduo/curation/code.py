"""Code: rows whose response has code that doesn't parse (`parsing.py`).

Looked at are fenced blocks with a language that is known. Blocks without one, and responses that are code without any
fence, are looked at where coverage's are of one language: eight or more, of which a share of `curation.parses` parses.
A language is asked of new rows only where that share of the coverage rows' code in it parses (or there is none of it):
whose coverage has snippets that don't parse gets such. SQL has too many dialects for its grammar: it is asked only
where coverage shows that its own parses.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, ClassVar

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.fences import fenced
from llamaduo.curation.filters import Filter, Found, Known, Reason
from llamaduo.curation.parsing import LANGUAGES, parses
from llamaduo.records import Example

_SHARE = 0.8
_ROWS = 8
"""Texts from which a language is guessed, or that have to show that a language's grammar is good for them."""
_UNSURE = {"sql"}
_BARE, _WHOLE = "", "whole response"
_GUESSED = ("sql", "python", "javascript", "java", "c", "cpp", "c_sharp", "go", "rust", "ruby", "kotlin", "swift")
_LIKE_CODE = re.compile(r"\w\(|[{};]|\w ?[=:]=? ?[\w\"'\[({]|^\s*(?:select|with|import|from|def)\s", re.IGNORECASE)
_NAMES = {"c_sharp": "C#", "cpp": "C++", "c": "C", "php": "PHP", "sql": "SQL", "html": "HTML", "css": "CSS",
          "json": "JSON", "tsx": "TSX", "javascript": "JavaScript", "typescript": "TypeScript"}  # fmt: skip


class Code(Filter):
    """Removes rows with code that doesn't parse."""

    name: ClassVar = CurationFilter.code
    reason: ClassVar = Reason(
        "code", "with code that does not parse", "with code that does not parse", "Broken code", "with broken code",
        "set curation.parses higher than the share of the coverage rows' code that parses",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        texts: dict[str, list[str]] = defaultdict(list)
        for row in rows.coverage:
            for language, code in pieces(row.response):
                texts[language].append(code)
        self._share = config.parses or _SHARE
        self._guessed = {place: self._guess(texts.pop(place, [])) for place in (_BARE, _WHOLE)}
        self._coverage = texts
        self._asked: dict[str, bool] = {}

    def _guess(self, texts: list[str]) -> str | None:
        """Return the language that most of some texts are in; None where it can't be told."""
        texts = [text for text in texts if text.strip()]
        if len(texts) < _ROWS or sum(bool(_LIKE_CODE.search(text)) for text in texts) < self._share * len(texts):
            return None
        return next((one for one in _GUESSED if self._most_parse(one, texts)), None)

    def _most_parse(self, language: str, texts: list[str]) -> bool:
        """Tell whether the asked share of some texts parses; no more are read than needed for it."""
        left = math.floor((1 - self._share) * len(texts) + 1e-9)
        for text in texts:
            left -= not parses(language, text)
            if left < 0:
                return False
        return True

    def _is_asked(self, language: str) -> bool:
        """Tell whether coverage's own code in a language parses, by and large."""
        if language not in self._asked:
            texts = self._coverage.get(language, [])
            enough = len(texts) >= (_ROWS if language in _UNSURE else 0)
            self._asked[language] = enough and self._most_parse(language, texts)
        return self._asked[language]

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return the first piece that doesn't parse."""
        for place, code in pieces(example.response):
            guessed = place in self._guessed
            language = self._guessed[place] if guessed else place
            if language and (guessed or self._is_asked(language)) and not parses(language, code):
                return Found(why=f"{_NAMES.get(language, language.capitalize())} that does not parse", shown=code)
        return None


def pieces(response: str) -> Iterator[tuple[str, str]]:
    """Yield (language, code) of a response's blocks; of one without any, all of it."""
    blocks = fenced(response).blocks
    for block in blocks:
        language = LANGUAGES.get(block.language) if block.language else _BARE
        if language is not None:
            yield language, block.code
    if not blocks:
        yield _WHOLE, response
