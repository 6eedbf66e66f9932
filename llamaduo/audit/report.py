"""An audit put together: what answers are like beside their references, and synthetic rows beside coverage rows.

    of_answers(predictions, before)       refusals, toxic words, languages, lengths; what changed since `before`
    of_rows(synthetic, coverage)          the same of rows, and how varied they are (`diversity`)

Both return plain values, as they stand in `audit.json`. Shares are in percent with the limits of a bounded mean
(`evidence.bounded`), near copies of a prompt as one; lengths are compared by the ratio of geometric mean numbers of
words, with Student's limits over prompts. docs/audit.md says what each number means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean, median, variance
from typing import Any

from llamaduo.audit import diversity
from llamaduo.audit.texts import language, refuses, toxic
from llamaduo.data.alike import words
from llamaduo.evidence.bounded import limits
from llamaduo.evidence.compare import by_prompt, difference, p_value
from llamaduo.records import Example, Prediction
from llamaduo.redaction import redact

FORMAT = 1
_RARE = 0.01
"""A language that fewer than this share of coverage texts are in is not one of coverage's."""
_TOLD = 20
"""Coverage texts of a language that can be told, from which on it is known which languages are usual."""
_SHOWN, _LONGEST = 3, 240
Tree = dict[str, Any]


def of_answers(predictions: Sequence[Prediction], before: Sequence[Prediction] = ()) -> Tree:
    """Return what a model's answers are like; `before` are those of the iteration before, to the same prompts."""
    given = [one for one in predictions if one.answered]
    texts, owners = [one.text for one in given], [one.cluster or one.prompt_id for one in given]
    references = {one.prompt_id: one.reference for one in given}
    told = list(references.values())
    spoken = {key: language(text) for key, text in references.items()}
    pairs = [(language(one.text), spoken[one.prompt_id]) for one in given]
    both = [at for at, (ours, theirs) in enumerate(pairs) if ours and theirs]
    other = [pairs[at][0] != pairs[at][1] for at in both]
    return {
        "answers": len(given),
        "prompts": len(set(owners)),
        **_of_texts(texts, owners),
        "references": _of_texts(told, list(references)),
        "language_drift": _share(other, [owners[at] for at in both])
        | {"examples": _examples([texts[at] for at, is_other in zip(both, other, strict=True) if is_other])},
        "length_ratio": _paired_lengths(given),
        "change": _change(given, [one for one in before if one.answered]),
    }


def of_rows(rows: Sequence[Example], coverage: Sequence[Example]) -> Tree:
    """Return what synthetic rows are like, their responses beside those of coverage rows."""
    texts, theirs = [row.response for row in rows], [row.response for row in coverage]
    owners = [row.prompt_id for row in rows]
    known = Counter(filter(None, map(language, theirs)))
    enough = known.total() >= _TOLD
    usual = {code for code, count in known.items() if enough and count >= _RARE * known.total()}
    spoken = [
        (text, code, owner)
        for text, code, owner in zip(texts, map(language, texts), owners, strict=True)
        if code and usual
    ]
    other = [code not in usual for _, code, _ in spoken]
    return {
        "rows": len(rows),
        "coverage_rows": len(coverage),
        **_of_texts(texts, owners),
        "coverage": _of_texts(theirs, [row.cluster or row.prompt_id for row in coverage]),
        "language_drift": _share(other, [owner for _, _, owner in spoken])
        | {"examples": _examples([text for (text, _, _), is_other in zip(spoken, other, strict=True) if is_other])},
        "length_ratio": _ratio(_logs(texts), _logs(theirs)),
        "diversity": of_diversity(rows, coverage),
    }


def of_diversity(rows: Sequence[Example], coverage: Sequence[Example]) -> Tree:
    """Return how varied synthetic rows are beside coverage rows, prompt and response together."""
    texts, theirs = ([f"{row.prompt}\n{row.response}" for row in some] for some in (rows, coverage))
    looked = diversity.spaced(texts, len(theirs))
    far, own = diversity.nearest(looked, theirs), diversity.nearest(theirs, theirs, same=True)
    return {
        "distinct": {
            "prompts": diversity.distinct_beside([row.prompt for row in rows], [row.prompt for row in coverage]),
            "responses": diversity.distinct_beside([row.response for row in rows], [row.response for row in coverage]),
        },
        "nearest": {"rows": len(looked), **_spread(far), "coverage": _spread(own)},
        "reach": asdict(diversity.reach(texts, theirs)),
    }


def _of_texts(texts: Sequence[str], owners: Sequence[str]) -> Tree:
    """Return refusals, toxic words, languages and lengths of texts; `owners` says which stand and fall together."""
    declined = [refuses(text) for text in texts]
    found = [toxic(text) for text in texts]
    spoken = Counter(map(language, texts))
    untold = spoken.pop(None, 0)
    counted = Counter(category for one in found for category in one)
    return {
        "refusals": _share(declined, owners)
        | {"examples": _examples([text for text, no in zip(texts, declined, strict=True) if no])},
        "toxic": _share([bool(one) for one in found], owners)
        | {"categories": dict(counted.most_common())}
        | {"examples": _examples([text for text, one in zip(texts, found, strict=True) if one])},
        "languages": dict(sorted(spoken.items(), key=lambda one: (-one[1], one[0] or ""))),
        "language_untold": untold,
        "words": median(len(words(text)) for text in texts) if texts else None,
    }


def _share(flags: Sequence[bool], owners: Sequence[str]) -> Tree:
    """Return in percent how many of the flags are set, with 95% limits over owners."""
    if not flags:
        return {"percent": None, "low": None, "high": None, "n": 0}
    sums, sizes = Counter[str](), Counter(owners)
    for flag, owner in zip(flags, owners, strict=True):
        sums[owner] += 100 * flag
    low, high = limits([sums[owner] for owner in sizes], list(sizes.values()))
    percent = 100 * sum(flags) / len(flags)
    return {"percent": round(percent, 3), "low": round(low, 3), "high": round(high, 3), "n": len(flags)}


def _examples(texts: Sequence[str]) -> list[str]:
    """Return the first few of different texts, short, and without what has the shape of a key."""
    shown = [" ".join(text.split()) for text in dict.fromkeys(texts)][:_SHOWN]
    return [redact(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...") for text in shown]


def _spread(distances: Sequence[float]) -> Tree:
    """Return median and first decile of distances, and how many are below 0.25; null where there are none."""
    if not distances:
        return {"median": None, "low_decile": None, "near_percent": None}
    ranked = sorted(distances)
    near = 100 * sum(one < 0.25 for one in ranked) / len(ranked)
    return {
        "median": round(median(ranked), 4),
        "low_decile": round(ranked[len(ranked) // 10], 4),
        "near_percent": round(near, 3),
    }


def _logs(texts: Sequence[str]) -> list[float]:
    return [math.log(1 + len(words(text))) for text in texts]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> Tree:
    """Return the ratio of two geometric means of values given by their logs, with Welch's limits."""
    if len(ours) < 2 or len(theirs) < 2:
        return {"ratio": None, "low": None, "high": None}
    parts = [variance(side) / len(side) for side in (ours, theirs)]
    total = sum(parts)
    degrees = total**2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (ours, theirs), strict=True)) if total else 1.0
    return _told_ratio(fmean(ours) - fmean(theirs), math.sqrt(total), degrees)


def _paired_lengths(given: Sequence[Prediction]) -> Tree:
    """Return the ratio of answers' lengths to those of their references, with Student's limits over prompts."""
    apart: dict[str, list[float]] = {}
    for one in given:
        ours, theirs = _logs([one.text, one.reference])
        apart.setdefault(one.cluster or one.prompt_id, []).append(ours - theirs)
    means = [fmean(values) for values in apart.values()]
    if len(means) < 2:
        return {"ratio": None, "low": None, "high": None}
    return _told_ratio(fmean(means), math.sqrt(variance(means) / len(means)), len(means) - 1)


def _told_ratio(log: float, error: float, degrees: float) -> Tree:
    from scipy.special import stdtrit

    reach = float(stdtrit(degrees, 0.975)) * error
    told = {"ratio": log, "low": log - reach, "high": log + reach}
    return {name: round(math.exp(value), 4) for name, value in told.items()}


_FLAGS: dict[str, Callable[[Prediction], bool]] = {
    "refusals": lambda one: refuses(one.text),
    "toxic": lambda one: bool(toxic(one.text)),
}


def _change(given: Sequence[Prediction], before: Sequence[Prediction]) -> Tree:
    """Return by how many points shares have changed since the iteration before; empty without one."""
    if not before:
        return {}
    found = {}
    for name, flag in _FLAGS.items():
        now, then = (_by_prompt(some, flag) for some in (given, before))
        told = difference(now, then)
        found[name] = {"points": told.value, "low": told.low, "high": told.high, "p": round(p_value(now, then), 4)}
    return found


def _by_prompt(given: Sequence[Prediction], flag: Callable[[Prediction], bool]) -> Any:
    import numpy as np

    owners = np.array([one.cluster or one.prompt_id for one in given])
    return by_prompt(owners, np.array([100.0 * flag(one) for one in given]))
