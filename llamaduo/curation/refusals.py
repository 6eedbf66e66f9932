"""Refusals: rows whose response begins by declining, or by speaking of itself as an AI, in several languages.

What counts as declining is `audit/texts.py`'s list: the response's own words at its beginning, not what it quotes, nor
code. If more than `curation.usual` of the coverage rows do so, refusing is part of the product: nothing is removed for
it. A prompt that itself asks for words of regret is answered with them, and passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

from llamaduo.audit.texts import refuses
from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.filters import Filter, Found, Known, Reason, usual
from llamaduo.records import Example

_AI = re.compile(
    r"as an? (?:large |artificial |helpful )?(?:ai|llm|language model|intelligence)"
    r"(?: (?:language model|model|assistant|system|chatbot))?(?:\s*[,.;:]|\s+i\b)"
    r"|(?:(?:as|since) )?i(?:'m| am) (?:just |only )?an? (?:ai|large language model|language model)\b"
    r"|(?:as of )?my (?:last |latest )?(?:knowledge|training)(?: data)?(?: cut-?off| update)"
    r"|as of my last (?:\w+ )?update"
    r"|als (?:eine? )?(?:ki|künstliche intelligenz|(?:ki-|großes )?sprachmodell)\b"
    r"|en tant qu(?:e modèle de langage|'ia|'intelligence artificielle)\b"
    r"|como (?:una? |uma? )?(?:ia|modelo de len(?:guaje|gua)|inteligencia artificial)\b"
    r"|como (?:uma? )?(?:modelo de linguagem|inteligência artificial)\b"
    r"|in quanto (?:modello linguistico|intelligenza artificiale|ia)\b"
    r"|als (?:ai|ai-taalmodel|taalmodel)\b"
    r"|jako (?:model językowy|sztuczna inteligencja)\b"
    r"|как (?:языковая модель|ии)\b"
    r"|(?:作为|作為)(?:一个|一個|一名)?(?:ai|人工智能|语言模型|大型语言模型)"
    r"|(?:ai|私はai)(?:言語モデル)?(?:として|なので|です)"
    r"|ai (?:언어 ?모델)?로서"
    r"|i(?:'m| am) not comfortable (?:with|answering|providing|helping|writing|discussing|sharing)\b"
    r"|i (?:do not|don't) have (?:the (?:ability|capability) to|access to (?:real|current|the internet)"
    r"|personal (?:opinions|feelings|experiences|beliefs))",
    re.IGNORECASE,
)
_REGRET = re.compile(
    r"\W*(?:(?:i(?:'m| am) )?(?:so |very |really )?sorry|i apologi[sz]e|my apologies|apologies|certainly)\W+"
    r"(?:but\W+)?",
    re.IGNORECASE,
)
_POLICY = re.compile(
    r"[^.!?\n]{0,60}\bwe (?:can't|cannot|can not|are unable to|won't|will not)\b"
    r"(?! (?:help|assist|answer|comply|fulfil))",
    re.IGNORECASE,
)
"""What a company says of itself, and an answer."""
_QUOTED = "\"'\u201c\u2018\u00ab\u201e>`"
_ASKED_FOR = re.compile(r"\b(?:sorry|apolog\w+|declin\w+|refus\w+|reject\w+|as an ai)\b", re.IGNORECASE)


class Refusals(Filter):
    """Removes responses that decline, or that speak of themselves as an AI."""

    name: ClassVar = CurationFilter.refusals
    reason: ClassVar = Reason(
        "refusals", "that refuse to answer", "that refuse to answer", "Refusals", "that refuses to answer",
        "set curation.usual to the share of rows in which your product refuses",
    )  # fmt: skip

    def __init__(self, rows: Known, config: Curation) -> None:
        super().__init__(rows, config)
        self._usual = usual(rows, refusals, config.usual)

    def match(self, example: Example, compared: Any) -> Found | None:
        """Return how a response declines."""
        if self._usual or _ASKED_FOR.search(example.messages[-1]["content"]):
            return None
        why = next(refusals(example), None)
        return Found(why=why, shown=example.response[:_HEAD]) if why else None


_HEAD = 160
"""Characters of a response that an example shows: its beginning, and not its end as usual."""


def refusals(row: Example) -> Iterator[str]:
    """Yield how a row's response declines."""
    response = row.response.replace("\u2019", "'").lstrip()
    if response.startswith(tuple(_QUOTED)) or _POLICY.match(response):
        return
    behind = _REGRET.sub("", response, count=1) if _REGRET.match(response) else response
    if refuses(response) or refuses(behind):
        yield "it declines"
    elif _AI.match(behind):
        yield "it speaks as an AI"
