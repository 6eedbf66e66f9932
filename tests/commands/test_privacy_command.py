"""`llamaduo privacy FILE`: counts and examples of what would be replaced; and what is wrong with the configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llamaduo.cli import main


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = ("write to maria@firm.de", "nothing", "again maria@firm.de, 030 901820, C-123456")
    lines = [json.dumps({"prompt": f"{at}: {text}", "response": "ok"}) for at, text in enumerate(texts)]
    (tmp_path / "pairs.jsonl").write_text("\n".join([*lines, "no row"]) + "\n")
    return tmp_path / "pairs.jsonl"


def test_counts_and_examples(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = ("privacy.region=DE", "privacy.patterns.customer='C-[0-9]{6}'")
    assert main(["privacy", str(rows), *keys, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["rows"], told["left_out"], told["rows_with_any"]) == (3, 1, 2)
    assert told["types"] == {
        "customer": {"values": 1, "rows": 1},
        "mail": {"values": 1, "rows": 2},
        "phone": {"values": 1, "rows": 1},
    }
    assert told["examples"][0]["found"] == "maria@firm.de"
    assert told["examples"][0]["sent"].endswith("@example.com")
    assert main(["privacy", str(rows), "privacy.types=[mail]"]) == 0
    printed = capsys.readouterr().out
    assert "maria@firm.de" in printed
    assert "phone" not in printed


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "usage"),
        (["gone.jsonl"], "no such file"),
        (["{rows}", "privacy.types=[post]"], "take from mail, phone"),
        (["{rows}", "privacy.region=XX"], "is no region"),
        (["{rows}", "privacy.patterns.x='('"], "no regular expression"),
        (["{rows}", "privacy.patterns.x='a*'"], "the empty text"),
        (["{rows}", "privacy=off", "privacy.region=DE"], "add privacy=on"),
        (["{rows}", "privacy.names=true"], "llamaduo[names]"),
    ],
)
def test_what_is_wrong_is_said(
    rows: Path,
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("llamaduo.privacy.names.MODEL", "no_such_model")
    assert main(["privacy", *(argument.format(rows=rows) for argument in arguments)]) == 2
    assert told in capsys.readouterr().err
