"""Language: rows in a language that coverage hasn't, prompts and responses each by themselves.

Allowed is what `curation.languages` names, or each language in which more than `curation.usual` of the coverage rows'
prompts (or responses) are. The language of the prose is told by `audit/texts.py`; code, fenced or not, is left out, and
what then is too short, or told with a score below `curation.language_score`, passes. Languages that the model takes for
one another count as one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

from llamaduo.audit.texts import language_told
from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.fences import fenced
from llamaduo.curation.filters import USUAL, Filter, Found, Known, Reason
from llamaduo.records import Example

_SCORE = 0.7
_ROWS = 8
"""Coverage texts in a language that was told, from which they say what is allowed."""
_CODE = re.compile(
    r"[;{}\\]\s*$|^\s*(?:[<@$]|//|/\*)|[\w\])]\([^()]*\)[;:{]?\s*$|\w\.\w+\(|[=!<>+-]=|\w ?= ?[\w\"'\[({]|->|=>|::|</"
    r"|^\s*(?:import|from|def|class|return|if|for|while|select|insert|public|private|const|let|var)\b.*[:(,]\s*$",
    re.IGNORECASE,
)
"""Of a line of code that stands outside a fence."""
_MOST = 4000
"""Characters of prose that tell its language."""
_LINE = 1000
"""Characters of a line that are looked at for it."""
_LINKS = re.compile(r"https?://\S+|\S+@\S+\.\w+")
_ALIKE = (
    {"no", "nb", "nn", "da"}, {"hr", "sr", "bs", "sh"}, {"id", "ms"}, {"cs", "sk"}, {"zh", "yue", "wuu"},
    {"es", "gl", "ast", "an"}, {"pt", "gl"}, {"fa", "azb"}, {"hi", "mr", "ne"}, {"de", "als", "nds", "lb"},
)  # fmt: skip


class Language(Filter):
    """Removes rows in other languages."""

    name: ClassVar = CurationFilter.language
    reason: ClassVar = Reason(
        "language", "in another language", "in another language", "Another language", "in another language",
        "name their languages in curation.languages",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        named = {name.casefold().replace("_", "-").split("-")[0] for name in config.languages}
        self._prompts = named or self._usual(row.messages[-1]["content"] for row in rows.coverage)
        self._responses = named or self._usual(row.response for row in rows.coverage)

    def _usual(self, texts: Iterable[str]) -> set[str]:
        """Return the languages of coverage texts; none where too few of them are in one that was told."""
        told = Counter(found for text in texts if (found := self._told(text)))
        if told.total() < _ROWS:
            return set()
        return {one for one, count in told.items() if count > (self.config.usual or USUAL) * told.total()}

    def _told(self, text: str) -> str | None:
        lines = _LINKS.sub(" ", fenced(text).prose[:_MOST]).split("\n")
        told = language_told(" ".join(line for line in lines if not _CODE.search(line[:_LINE])))
        return told[0] if told and told[1] >= (self.config.language_score or _SCORE) else None

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return which of the two is in which other language."""
        asked = (
            ("prompt", example.messages[-1]["content"], self._prompts),
            ("response", example.response, self._responses),
        )
        for which, text, allowed in asked:
            found = self._told(text) if allowed else None
            if found and found not in allowed and not any(found in some and some & allowed for some in _ALIKE):
                return Found(why=f"a {which} in `{found}`", shown=text)
        return None
