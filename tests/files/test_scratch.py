"""Scratch folders: gone with their work, however that ends, and never taken from a process that lives."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamaduo.files.scratch import scratch_folder

HOLDS = """
import sys, time
from llamaduo.files.scratch import scratch_folder
from llamaduo.commands.signals import interrupt_on_signals

interrupt_on_signals()
with scratch_folder() as place:
    (place / "unpacked").write_text("a stranger's")
    print(place, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def another() -> Iterator[subprocess.Popen[str]]:
    """A process that holds a scratch folder, whose path is the first line of its output."""
    process = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def place_of(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    place = Path(process.stdout.readline().strip())
    assert (place / "unpacked").exists()
    return place


def test_it_is_empty_and_gone_behind_its_work(temporary: Path) -> None:
    def work() -> None:
        with scratch_folder() as place:
            assert place.parent == temporary
            assert list(place.iterdir()) == []
            (place / "folder").mkdir()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert list(temporary.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next_one(temporary: Path, another: subprocess.Popen[str]) -> None:
    left = place_of(another)
    another.kill()
    another.wait()
    assert (left / "unpacked").exists()
    with scratch_folder() as place:
        assert {path.stem for path in temporary.iterdir()} == {place.name}
    assert list(temporary.iterdir()) == []


def test_what_a_living_process_holds_stays(another: subprocess.Popen[str]) -> None:
    held = place_of(another)
    with scratch_folder():
        pass
    assert (held / "unpacked").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing(temporary: Path, another: subprocess.Popen[str], number: signal.Signals) -> None:
    place_of(another)
    another.send_signal(number)
    another.wait(60)
    assert list(temporary.iterdir()) == []


def test_what_is_not_ours_is_not_touched(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (temporary / "llamaduo-scratch-x.lock").symlink_to(elsewhere / "file")
    (temporary / "llamaduo-scratch-x").symlink_to(elsewhere)
    (temporary / "llamaduo-scratch-y").mkdir()
    with scratch_folder():
        pass
    assert (elsewhere.is_dir(), (temporary / "llamaduo-scratch-y").is_dir()) == (True, True)
