"""No filter takes what people wrote: real coverage rows, asked of as if a service LLM had written them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llamaduo.config import Curation, CurationFilter
from llamaduo.curation.curate import curate
from llamaduo.records import Example, prompt_id

NO_ROBOTS = Path(__file__).parents[3] / "shared/data/no_robots_coding.jsonl"
BY_THEMSELVES = [
    CurationFilter.secrets, CurationFilter.shape, CurationFilter.refusals, CurationFilter.labels,
    CurationFilter.language, CurationFilter.code,
]  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> list[Example]:
    if not NO_ROBOTS.exists():
        pytest.skip(f"{NO_ROBOTS.name} is absent: the shared data lie beside the checkout")
    chats = [tuple(json.loads(line)["messages"]) for line in NO_ROBOTS.read_text(encoding="utf-8").splitlines()]
    return [Example(prompt_id(chat[:-1]), chat[:-1], chat[-1]["content"]) for chat in chats]


@pytest.mark.parametrize("begin", [0, 1, None], ids=["beside one half", "beside the other half", "beside nothing"])
@pytest.mark.parametrize("name", BY_THEMSELVES)
def test_at_most_one_in_a_hundred_real_rows_is_taken(
    name: CurationFilter, begin: int | None, rows: list[Example]
) -> None:
    known = [] if begin is None else rows[begin::2]
    new = [replace(row, generator="a service LLM") for row in (rows if begin is None else rows[1 - begin :: 2])]
    found = curate(new, known=known, held_out=[], config=Curation(filters=[name]))
    assert len(found.removed) <= len(new) / 100, [(new[one.row].response[:200], one.why) for one in found.removed]
