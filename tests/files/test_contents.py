"""Contents as hashes: what is changed is noticed, its size and its time notwithstanding; what is large is read once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from llamaduo.files import contents
from llamaduo.files.contents import of_file, of_folder, of_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "additional_chat_templates").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", "modeling.py"):
        (folder / name).write_text(f"this is {name}")
    (folder / "additional_chat_templates/tools.jinja").write_text("{{ tools }}")
    return folder


def test_every_file_that_is_loaded_changes_a_models_hash(model: Path) -> None:
    seen = {of_model(model)}
    files = [path for path in model.rglob("*") if path.is_file()]
    for path in files:
        path.write_text(path.read_text().swapcase())
        seen.add(of_model(model))
    (model / "generation_config.json").write_text("{}")
    assert len(seen | {of_model(model)}) == len(files) + 2


def test_what_is_not_loaded_does_not(model: Path) -> None:
    before = of_model(model)
    for name in ("README.md", ".gitattributes", "optimizer.pt", "checkpoint-5/model.safetensors", ".git/index.json"):
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("more")
    assert of_model(model) == before


def test_two_files_in_each_others_place_are_another_model(model: Path) -> None:
    before = of_model(model)
    os.rename(model / "config.json", model / "aside")
    os.rename(model / "tokenizer.json", model / "config.json")
    os.rename(model / "aside", model / "tokenizer.json")
    assert of_model(model) != before


def test_a_folder_of_data_counts_whole(tmp_path: Path) -> None:
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train/0.parquet").write_bytes(b"rows")
    before = of_folder(tmp_path / "data")
    (tmp_path / "data/.cache").write_text("hidden")
    assert of_folder(tmp_path / "data") == before
    (tmp_path / "data/train/1.parquet").write_bytes(b"")
    assert of_folder(tmp_path / "data") != before


class TestLarge:
    @pytest.fixture(autouse=True)
    def read(self, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
        """Let every file be large; return the files that are read."""
        read: list[Path] = []
        plain = contents._read
        monkeypatch.setattr(contents, "_LARGE", 1)
        monkeypatch.setattr(contents, "_SETTLED_NS", -(10**9))
        monkeypatch.setattr(contents, "_read", lambda path: read.append(path) or plain(path))
        return read

    def test_it_is_read_once_until_it_changes(self, tmp_path: Path, read: list[Path]) -> None:
        path = tmp_path / "weights"
        path.write_bytes(b"one")
        first = of_file(path)
        assert (of_file(path), len(read)) == (first, 1)
        path.write_bytes(b"two")
        assert of_file(path) != first
        assert len(read) == 2

    def test_the_same_size_and_time_do_not_hide_a_change(self, tmp_path: Path, read: list[Path]) -> None:
        path = tmp_path / "weights"
        path.write_bytes(b"one")
        told, first = path.stat(), of_file(path)
        while time.time_ns() // 10**7 == told.st_ctime_ns // 10**7:  # the clock of files ticks some 100 times a second
            pass
        path.write_bytes(b"two")
        os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (told.st_size, told.st_mtime_ns)
        assert of_file(path) != first

    def test_a_file_that_was_just_written_is_read_again(
        self, tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(contents, "_SETTLED_NS", 10**15)
        path = tmp_path / "weights"
        path.write_bytes(b"one")
        assert of_file(path) == of_file(path)
        assert len(read) == 2

    def test_a_home_that_can_not_be_written_costs_time_alone(
        self, tmp_path: Path, read: list[Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("no folder")
        monkeypatch.setenv("LLAMADUO_HOME", str(tmp_path / "file"))
        path = tmp_path / "weights"
        path.write_bytes(b"one")
        assert of_file(path) == of_file(path)
        assert len(read) == 2
