"""Closeness to a reference without a judge: chrF and ROUGE-L, each 0 to 100.

chrF (Popović 2015) is sacrebleu's, an F-score over character n-grams; ROUGE-L (Lin 2004) is
rouge-score's, an F-score over the longest common subsequence of words, with words split by Unicode so
that no script scores zero for being one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any


class _Words:
    """rouge-score's tokenizer interface."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+|[^\w\s]", text.casefold())


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


@cache
def _chrf() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


def rouge_l(reference: str, text: str) -> float:
    """Return ROUGE-L F1 in percent."""
    return round(100 * float(_rouge().score(reference, text)["rougeL"].fmeasure), 4)


def chrf(reference: str, text: str) -> float:
    """Return chrF2 in percent."""
    return round(float(_chrf().sentence_score(text, [reference]).score), 4)


METRICS: dict[str, Callable[[str, str], float]] = {"chrf": chrf, "rouge_l": rouge_l}
"""The judges of `judge=reference` by name."""
