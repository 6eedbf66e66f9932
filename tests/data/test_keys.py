"""Rows with what looks like a key are refused by their place, never with the key, or let in by a named setting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamaduo.config import Data, DataSource, Experiment, GateSplit, plain
from llamaduo.data.coverage import load_coverage
from llamaduo.errors import InputError

KEYS = (
    "sk-proj-0123456789abcdefABCDEF0123456789", "sk-ant-api03-0123456789abcdefghij-_", "AKIA2E0A8F3B244C9986",
    "AIza" + "SyA0123456789-abcdefghijklmnopqrstu", "hf_" + "abcdefghijklmnopqrstuvwxyz01234567", "ghp_" + "a1B2" * 9,
    "github_pat_11ABCDEFG0123456789_abcdef", "xoxb-123456789012-abcdefGHIJ", "glpat-abcdefghij0123456789",
    "gsk_" + "abcdefghij0123456789", "eyJhbGciOiJIUzI1NiIsInR5cCI6.eyJzdWIiOiIxMjM0.c2lnbmF0dXJl",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl",
    "sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc", "ya29.a0AfH6SMBx-1234567890abcdef",
)  # fmt: skip
HARMLESS = (
    "the sk-learn-pipelines-of-2024-are-fine", "sha1 0123456789abcdef0123456789abcdef01234567", "hf_hub_download(repo)",
    "123e4567-e89b-12d3-a456-426614174000", "task-force-141-and-other-things-like-that", "-----BEGIN CERTIFICATE-----",
    "AKIA is where AWS access keys begin", "export OPENAI_API_KEY=sk-...", "xoxo-hugs-and-kisses-for-2024",
)  # fmt: skip


def load(experiment: Experiment, rows: list[dict[str, object]], **data: object) -> int:
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    experiment.data = Data(source=DataSource.file, path="pairs.jsonl", dev_least=0, **data)  # type: ignore[arg-type]
    experiment.protocol.gate_split = GateSplit.dev
    dataset = load_coverage(experiment)
    return len(dataset.train) + len(dataset.dev) + len(dataset.test)


def pairs(count: int) -> list[dict[str, object]]:
    return [{"prompt": f"prompt number {n}", "response": f"response {n}"} for n in range(count)]


@pytest.mark.parametrize("key", KEYS)
def test_a_row_with_a_key_is_refused_by_its_place(key: str, experiment: Experiment) -> None:
    in_prompt = {"prompt": f"my key is {key}, is it safe?", "response": "no"}
    in_response = {"prompt": "what is the key?", "response": f"it is {key}."}
    turns = [{"role": "system", "content": f"use {key}"}, {"role": "user", "content": "a"}]
    in_turns = {"messages": [*turns, {"role": "assistant", "content": "b"}]}
    for row, where in ((in_prompt, "user turn"), (in_response, "response"), (in_turns, "system turn")):
        with pytest.raises(InputError) as told:
            load(experiment, [*pairs(20), row])
        assert str(told.value).startswith(f"pairs.jsonl:21: the {where} holds what looks like a")
        assert "data.allow_keys=true" in str(told.value)
        assert key not in str(told.value)
        assert load(experiment, [*pairs(20), row], allow_keys=True) == 21


def test_what_is_no_key_is_let_in(experiment: Experiment) -> None:
    rows = [{"prompt": f"{n}: {text}", "response": text} for n, text in enumerate(HARMLESS)]
    assert load(experiment, [*pairs(20), *rows]) == 20 + len(HARMLESS)


def test_the_setting_is_stored_only_where_it_is_set(experiment: Experiment) -> None:
    assert "allow_keys" not in plain(experiment)["data"]
    experiment.data.allow_keys = True
    assert plain(experiment)["data"]["allow_keys"] is True
