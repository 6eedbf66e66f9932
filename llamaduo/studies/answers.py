"""Scores of single answers, read fast from a run's `verdicts.jsonl`.

    scores = read_scores(run.folder / "iterations/00/verdicts.jsonl")
    scores.of_answers("precision")            one number an answer: mean over its judges' means
    scores.of_answers("precision", "gpt_4o")  the same from one judge
    scores.clusters                           the prompt of each answer, near copies under one name

Reads `predictions.jsonl` beside it for the clusters of prompts. Verdicts without a score are nan and enter no mean.
900,000 verdicts take some seconds and 200 MB at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamaduo.runs import layout
from llamaduo.runs.record import RunRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """What a panel made of the answers to one split."""

    prompt_ids: NDArray[Any]
    """(answers,) text: the prompt of each answer; answers are sorted by prompt, then sample."""
    clusters: NDArray[Any]
    """(answers,) text: the same, but one name for prompts that are near copies of each other: they count once."""
    samples: NDArray[Any]
    """(answers,) integers: which of the K answers."""
    judges: tuple[str, ...]
    similarity: Floats
    """(answers, judges, repeats), 0 to 100, nan where there is no score."""
    precision: Floats
    """The same."""

    def of_answers(self, score: str, judge: str | None = None) -> Floats:
        """Return (answers,): the mean over a judge's repeats, and over the judges unless one is named."""
        by_judge = self.by_judge[score]
        return _mean(by_judge, 1) if judge is None else by_judge[:, self.judges.index(judge)]

    def covered(self, cut: float, judge: str | None = None) -> Floats:
        """Return (answers,): 100 where both scores reach the cut, 0 where one doesn't, nan where one is missing."""
        import numpy as np

        both = np.stack([self.of_answers(score, judge) for score in ("similarity", "precision")])
        return np.where(np.isnan(both).any(0), np.nan, 100.0 * (both >= cut).all(0))

    @cached_property
    def by_judge(self) -> dict[str, Floats]:
        """Of each score (answers, judges): the mean over repeats."""
        return {"similarity": _mean(self.similarity, 2), "precision": _mean(self.precision, 2)}


def _mean(values: Floats, axis: int) -> Floats:
    """Return the mean of what is there, nan where nothing is."""
    import numpy as np

    there = ~np.isnan(values)
    count = there.sum(axis)
    total = np.where(there, values, 0.0).sum(axis)
    mean: Floats = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean


def read_scores(path: Path) -> Scores:
    """Return the scores of a `verdicts.jsonl`; raises OSError or ValueError where it can't be read."""
    import numpy as np
    import pyarrow
    import pyarrow.json

    text, whole, number = pyarrow.string(), pyarrow.int64(), pyarrow.float64()
    schema = pyarrow.schema(
        [("prompt_id", text), ("sample", whole), ("judge", text), ("repeat", whole), ("similarity", number),
         ("precision", number), ("unscored", text)]
    )  # fmt: skip
    if path.stat().st_size == 0:
        none = np.zeros((0, 0, 0))
        text_ = np.array([], dtype=str)
        return Scores(text_, text_, np.array([], dtype=int), (), none, none)
    table = pyarrow.json.read_json(
        path,
        read_options=pyarrow.json.ReadOptions(block_size=1 << 22),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    columns = {name: table.column(name).combine_chunks() for name in schema.names}
    if any(columns[name].null_count for name in ("prompt_id", "sample", "judge", "repeat")):
        raise ValueError("a verdict names no prompt_id, sample, judge or repeat")
    prompt, prompts = _coded(columns["prompt_id"])
    judge, judges = _coded(columns["judge"])
    in_order = sorted(range(len(prompts)), key=prompts.__getitem__)
    place = np.argsort(np.array(in_order))[prompt]  # of the prompt of each verdict, among the sorted ones
    sample, repeat = _numbers(columns["sample"]), _numbers(columns["repeat"])
    samples = int(sample.max()) + 1
    answers, where = np.unique(place * samples + sample, return_inverse=True)
    scored = ~_there(columns["unscored"])
    made = {}
    for name in ("similarity", "precision"):
        values = np.full((len(answers), len(judges), int(repeat.max()) + 1), np.nan)
        known = scored & _there(columns[name])
        values[where, judge, repeat] = np.where(known, _numbers(columns[name]), np.nan)
        made[name] = values
    ids = np.array([prompts[at] for at in in_order])[answers // samples]
    clusters = _clustered(ids, read_clusters(path.with_name(layout.PREDICTIONS)))
    return Scores(ids, clusters, answers % samples, tuple(judges), made["similarity"], made["precision"])


def _clustered(ids: NDArray[Any], clusters: Mapping[str, str]) -> NDArray[Any]:
    """Return (answers,): the clusters of prompts."""
    import numpy as np

    if all(prompt == cluster for prompt, cluster in clusters.items()):
        return ids
    prompts, where = np.unique(ids, return_inverse=True)
    return np.array([clusters.get(prompt, prompt) for prompt in prompts.tolist()])[where]


def read_clusters(path: Path) -> dict[str, str]:
    """Return by prompt the name of its cluster, its own where it has no near copies; empty without predictions.

    Reads a `predictions.jsonl`, in older runs without the field; raises OSError or ValueError where it can't be read.
    """
    import pyarrow
    import pyarrow.json

    if not path.exists() or path.stat().st_size == 0:
        return {}
    schema = pyarrow.schema([("prompt_id", pyarrow.string()), ("cluster", pyarrow.string())])
    table = pyarrow.json.read_json(
        path,
        read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=1 << 22),
        parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )
    pairs = zip(table.column("prompt_id").to_pylist(), table.column("cluster").to_pylist(), strict=True)
    return {prompt: prompt if cluster is None else cluster for prompt, cluster in pairs}


def _coded(column: Any) -> tuple[NDArray[np.int64], list[str]]:
    """Return a column of text as (rows,) numbers, and the texts that they stand for, in order of appearance."""
    coded = column.dictionary_encode()
    return _numbers(coded.indices).astype("int64"), coded.dictionary.to_pylist()


def _numbers(column: Any) -> NDArray[Any]:
    """Return a column of numbers, anything where it is null; `to_numpy` would import pandas."""
    import numpy as np
    import pyarrow

    full = pyarrow.Array.from_buffers(column.type, len(column), [None, column.buffers()[1]], offset=column.offset)
    return np.from_dlpack(full)


def _there(column: Any) -> NDArray[np.bool_]:
    """Return where a column is not null."""
    found: NDArray[np.bool_] = _numbers(column.is_valid().cast("int8")) == 1
    return found


def reported_scores(run: RunRecord) -> Scores | None:
    """Return the scores of the answers that the run is reported by (see tidy), None where there are none.

    None, too, with dear judges, who saw some answers only: what the run recorded of both tiers together stands then.
    """
    place = run.reported_place
    if place is None or run.experiment.judge.dear:
        return None
    path = place / layout.VERDICTS
    return read_scores(path) if path.exists() else None
