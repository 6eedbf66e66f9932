"""Answers that people scored, from a file, to hold a judge against.

A row of the file (JSONL, JSON, CSV, Parquet) is an answer, with scores from 0 to 100 where a person gave one:

    {"prompt": "Which city is it for? ...", "response": "Taveno", "similarity": 100, "precision": 90}
    {"prompt_id": "5b1f...", "answer": "Roma", "human_precision": 0}
    {"prompt": "...", "reference": "Taveno", "response": "Tavena"}        an answer without a human score

`reference` may be left out where the prompt is one of the coverage data. Rows without a human score are answers that
the judge alone scores: with them, its mean over all answers is corrected by those that people scored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.data.formats import read_rows
from llamaduo.errors import InputError
from llamaduo.records import Example, Prediction, prompt_id

_SCORES = ("similarity", "precision")


@dataclass(frozen=True)
class Labelled:
    """An answer, and what a person made of it."""

    prediction: Prediction
    """The answer; its `sample` tells it from others to the same prompt."""
    similarity: float | None
    """0 to 100; null where no person said."""
    precision: float | None


def read_labels(path: Path, coverage: Iterable[Example]) -> list[Labelled]:
    """Return the answers of a file, in order; raises InputError with the row that can't be used and why."""
    known = {example.prompt_id: example for example in coverage}
    found: list[Labelled] = []
    samples: dict[str, int] = {}
    for place, filled in read_rows(path):
        row = {name: value for name, value in filled.items() if value is not None}
        prompt, reference, where = _prompt(row, place, known)
        answer = row.get("response", row.get("answer"))
        if not isinstance(answer, str):
            raise InputError(f"{place}: needs the answer that was scored, as text in `response` or `answer`.")
        sample = samples[where] = samples.get(where, -1) + 1
        scores = [_score(row, name, place) for name in _SCORES]
        found.append(Labelled(Prediction(where, sample, prompt, reference, answer, "stop", 0, 0), *scores))
    human = [score for one in found for score in (one.similarity, one.precision) if score is not None]
    if not human:
        raise InputError(f"{path}: no row has a human score: name it `similarity` or `precision`, from 0 to 100.")
    if max(human) <= 10 and max(human) > 0:
        raise InputError(f"{path}: no human score exceeds {max(human):g}; the scale is 0 to 100: multiply them.")
    return found


def _prompt(row: dict[str, Any], place: str, known: dict[str, Example]) -> tuple[str, str, str]:
    """Return (prompt, reference, prompt's id) of a row."""
    prompt, where = row.get("prompt"), row.get("prompt_id")
    if isinstance(prompt, str) and prompt.strip():
        where = prompt_id(({"role": "user", "content": prompt},))
    elif not isinstance(where, str) or where not in known:
        told = f"prompt_id {where!r} is none of the coverage data's" if where else "has neither prompt nor prompt_id"
        raise InputError(f"{place}: {told}; give the prompt's text in `prompt`.")
    example = known.get(where)
    reference = row.get("reference") or (example.response if example else None)
    if not isinstance(reference, str):
        raise InputError(f"{place}: its prompt is none of the coverage data's, so it needs a `reference`.")
    return prompt or (example.prompt if example else ""), reference, where


def _score(row: dict[str, Any], name: str, place: str) -> float | None:
    """Return a person's score, null where there is none."""
    value = row.get(f"human_{name}", row.get(name))
    if value is None or value == "":
        return None
    try:
        score = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError):
        score = float("nan")
    if not 0 <= score <= 100:
        raise InputError(f"{place}: `{name}` is {value!r}; a score is a number from 0 to 100, or left out.")
    return score
