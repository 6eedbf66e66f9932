"""Answers that people scored: what a file may hold, and what is refused with its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample_records import example

from llamaduo.data.labels import Labelled, read_labels
from llamaduo.errors import InputError

KNOWN = example("known prompt", "known reference")


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[Labelled]:
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_labels(path, [KNOWN])


def test_rows_name_their_prompt_by_text_or_id_and_take_its_reference(tmp_path: Path) -> None:
    first, second, third = read(
        tmp_path,
        {"prompt": "known prompt", "response": "a", "similarity": 50, "precision": 60},
        {"prompt_id": KNOWN.prompt_id, "answer": "b", "human_precision": 0},
        {"prompt": "another", "reference": "r", "response": "", "human_similarity": 100.0},
    )
    assert (first.prediction.reference, first.prediction.prompt) == ("known reference", "known prompt")
    assert (first.similarity, first.precision) == (50.0, 60.0)
    assert (second.prediction.prompt_id, second.prediction.sample) == (KNOWN.prompt_id, 1)
    assert (second.prediction.text, second.similarity, second.precision) == ("b", None, 0.0)
    assert (third.prediction.reference, third.prediction.text, third.prediction.sample) == ("r", "", 0)


def test_a_csv_leaves_scores_empty_where_nobody_scored(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("prompt,response,precision\nknown prompt,a,80.5\nknown prompt,b,\n")
    assert [one.precision for one in read_labels(path, [KNOWN])] == [80.5, None]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"response": "a", "precision": 1}, "has neither prompt nor prompt_id"),
        ({"prompt_id": "nope", "response": "a", "precision": 1}, "prompt_id 'nope' is none of the coverage data's"),
        ({"prompt": "strange", "response": "a", "precision": 1}, "needs a `reference`"),
        ({"prompt": "known prompt", "precision": 1}, "in `response` or `answer`"),
        ({"prompt": "known prompt", "response": "a", "precision": 101}, "is 101; a score is a number from 0 to 100"),
        ({"prompt": "known prompt", "response": "a", "precision": "good"}, "'good'"),
        ({"prompt": "known prompt", "response": "a", "precision": True}, "True"),
        ({"prompt": "known prompt", "response": "a", "precision": "nan"}, "'nan'"),
    ],
)
def test_a_row_that_cant_be_used_is_refused_with_its_place(row: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels\.jsonl:1: ") as caught:
        read(tmp_path, row)
    assert told in str(caught.value)


def test_a_file_without_a_human_score_or_on_another_scale_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no row has a human score"):
        read(tmp_path, {"prompt": "known prompt", "response": "a"})
    with pytest.raises(InputError, match="no human score exceeds 5; the scale is 0 to 100"):
        read(tmp_path, {"prompt": "known prompt", "response": "a", "precision": 5})
