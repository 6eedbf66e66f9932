"""How fast a run trained and answered, from its artifacts and the seconds in their markers.

    answering(run.folder)      one `Work` for each iteration and one for the test split
    rate(answering(folder))    tokens of answers a second

Reads `adapter/record.json`, `predictions.jsonl` and their `.done` markers. The seconds are those of the whole stage,
with the time to load the model, so a rate is lower than what the GPU does when it is busy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from llamaduo.config import Beside
from llamaduo.errors import InputError
from llamaduo.records import ANSWERED
from llamaduo.runs import layout
from llamaduo.runs.record import read_tree, told_seconds


@dataclass(frozen=True)
class Work:
    """What a stage did once."""

    tokens: int
    """Tokens trained on, padding not counted; or tokens drawn."""
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens a second; 0 where no time was measured."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Answers:
    """The answers of a split, as far as they were given, and how long their texts are."""

    prompt_ids: tuple[str, ...]
    prompt_tokens: tuple[int, ...]
    """Of the rendered prompt, by the local model's tokenizer."""
    completion_tokens: tuple[int, ...]
    """Drawn by the local model, the end mark included."""
    characters: tuple[int, ...]
    """Of the answer."""
    reference_characters: tuple[int, ...]
    """Of the response that the answer is compared with."""

    @cached_property
    def characters_a_token(self) -> float | None:
        """Mean characters of a token of the answers; None where there are none."""
        tokens, characters = sum(self.completion_tokens), sum(self.characters)
        return characters / tokens if tokens and characters else None

    def mean_by_prompt(self, values: Iterable[float]) -> list[float]:
        """Return a value an answer as one value a prompt: the mean over its answers."""
        by_prompt: dict[str, list[float]] = {}
        for prompt, value in zip(self.prompt_ids, values, strict=True):
            by_prompt.setdefault(prompt, []).append(value)
        return [fmean(found) for found in by_prompt.values()]


_NONE = Answers((), (), (), (), ())


def answered_by_service_llm(folder: Path) -> bool:
    """Tell whether the answers in one of a run's folders are the service LLM's, which stands beside the local model."""
    return folder.name.endswith(Beside.service_llm)


def read_answers(path: Path) -> Answers:
    """Return the answers of a `predictions.jsonl`, none if there is none; raises InputError where it is damaged."""
    if not path.exists():
        return _NONE
    try:
        with open(path, encoding="utf-8") as file:
            rows = [answer for line in file if (answer := _answer(line))]
    except (ValueError, TypeError, KeyError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path}: damaged ({type(error).__name__}: {told}); move its run elsewhere.") from error
    return Answers(*zip(*rows, strict=True)) if rows else _NONE


def _answer(line: str) -> tuple[str, int, int, int, int] | None:
    """Return the fields of `Answers` of one prediction, None where no answer was given."""
    row = json.loads(line)
    if row["finish_reason"] not in ANSWERED or row["completion_tokens"] <= 0:
        return None
    return row["prompt_id"], row["prompt_tokens"], row["completion_tokens"], len(row["text"]), len(row["reference"])


def training(folder: Path) -> list[Work]:
    """Return what each iteration's training did; iterations without a marker are left out.

    Adapters may be gone, as they are from an archive: their seconds count, their tokens are not known.
    """
    return [Work(_trained_on(path), told_seconds(path)) for path in layout.marked(folder, layout.ADAPTER)]


def _trained_on(adapter: Path) -> int:
    record = adapter / layout.RECORD
    return int(read_tree(record).get("tokens", 0)) if record.exists() else 0


def answering(folder: Path) -> list[Work]:
    """Return what answering did in each iteration and for the test split."""
    found = (path for path in layout.marked(folder, layout.PREDICTIONS) if not answered_by_service_llm(path.parent))
    return [Work(sum(read_answers(path).completion_tokens), told_seconds(path)) for path in found]


def rate(works: Sequence[Work]) -> float | None:
    """Return tokens a second over all of them, None where nothing was measured."""
    measured = [work for work in works if work.rate > 0]
    if not measured:
        return None
    return sum(work.tokens for work in measured) / sum(work.seconds for work in measured)
