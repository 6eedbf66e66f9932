"""Loading a local model's tokenizer: from where, and at which commit."""

from __future__ import annotations

from typing import Any

import pytest

from llamaduo.config import LocalModel, model_location
from llamaduo.local_model import load_chat


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"revision": "1" * 40}, ("owner/model", "1" * 40)),
        ({"revision": "1" * 40, "tokenizer": "other/tokenizer"}, ("other/tokenizer", None)),
        (
            {"revision": "1" * 40, "tokenizer": "other/tokenizer", "tokenizer_revision": "2" * 40},
            ("other/tokenizer", "2" * 40),
        ),
    ],
)
def test_a_tokenizer_is_asked_for_at_the_commit_of_its_own_repository(
    fields: dict[str, Any], asked: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    shipped = AutoTokenizer.from_pretrained(model_location("pocket:mistral"))
    seen = []

    def from_pretrained(path: str, *, revision: str | None, **_: Any) -> Any:
        seen.append((path, revision))
        return shipped

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    load_chat(LocalModel(name="m", path="owner/model", context=512, **fields))
    assert seen == [asked]
