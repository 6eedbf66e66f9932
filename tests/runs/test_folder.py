"""A run's folder: an artifact is complete if and only if its marker exists, and one process writes at a time.

Whatever breaks off leaves the old content or none; a folder that can't be written is an error with a way out.
"""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_records import example, iteration, prediction

from llamaduo.errors import RunFolderError
from llamaduo.files.writing import write_text
from llamaduo.records import Adapter, Example, Prediction, from_json, to_json
from llamaduo.runs import layout
from llamaduo.runs.folder import RunDir, read_rows, read_state
from llamaduo.runs.state import Iteration, RunState

ADAPTER = Adapter("adapter", 8, 0, 30, 1234, 0.5)
WHOLE_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


class KilledError(BaseException):
    """The process ends here."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir(tmp_path / "results/study/run") as opened:
        yield opened


class Made:
    """Makes rows and counts how often it was asked to."""

    def __init__(self) -> None:
        self.times = 0

    def rows(self) -> list[Prediction]:
        self.times += 1
        return [prediction("p", f"answer {self.times}")]

    def tree(self) -> dict[str, int]:
        self.times += 1
        return {"times": self.times}

    def folder(self, path: Path) -> Adapter:
        self.times += 1
        (path / "deep").mkdir()
        (path / "deep/weights").write_text(f"weights {self.times}")
        return ADAPTER


def hidden(path: Path) -> list[str]:
    return [file.name for file in path.rglob(".*.tmp*")]


class TestArtifacts:
    def test_rows_are_made_once_and_read_back_equal(self, folder: RunDir) -> None:
        made, path = Made(), folder.iteration(0) / "predictions.jsonl"
        first = folder.rows(path, Prediction, made.rows)
        assert folder.rows(path, Prediction, made.rows) == first == [prediction("p", "answer 1")]
        assert made.times == 1

    def test_a_tree_is_made_once(self, folder: RunDir) -> None:
        made, path = Made(), folder.iteration(0) / "scorecard.json"
        assert folder.tree(path, made.tree) == folder.tree(path, made.tree) == {"times": 1}

    def test_a_folder_is_made_once_with_its_record(self, folder: RunDir) -> None:
        made, path = Made(), folder.iteration(0) / "adapter"
        assert folder.folder(path, Adapter, made.folder) == folder.folder(path, Adapter, made.folder) == ADAPTER
        assert made.times == 1
        assert (path / "deep/weights").read_text() == "weights 1"

    def test_without_its_marker_an_artifact_is_made_again(self, folder: RunDir) -> None:
        made, where = Made(), folder.iteration(0)
        for name, make in {
            "rows.jsonl": lambda path: folder.rows(path, Prediction, made.rows),
            "tree.json": lambda path: folder.tree(path, made.tree),
            "adapter": lambda path: folder.folder(path, Adapter, made.folder),
        }.items():
            made.times = 0
            make(where / name)
            (where / f"{name}.done").unlink()
            make(where / name)
            assert made.times == 2, name
            assert (where / f"{name}.done").exists()
        assert (where / "adapter/deep/weights").read_text() == "weights 2"

    def test_a_marker_says_size_digest_and_seconds(self, folder: RunDir) -> None:
        path = folder.iteration(0) / "tree.json"
        folder.tree(path, lambda: {"a": 1})
        marker = json.loads((path.parent / "tree.json.done").read_text())
        assert marker["bytes"] == path.stat().st_size
        assert marker["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert 0 <= marker["seconds"] < 5
        assert layout.seconds(path, path.parent / "nothing") == marker["seconds"]

    @pytest.mark.parametrize("kind", ["rows", "tree", "folder"])
    def test_killed_between_rename_and_marker_is_made_again(
        self, kind: str, folder: RunDir, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, path = Made(), folder.iteration(0) / "artifact"

        def make() -> Any:
            if kind == "rows":
                return folder.rows(path, Prediction, made.rows)
            return folder.tree(path, made.tree) if kind == "tree" else folder.folder(path, Adapter, made.folder)

        def killed(*_: Any) -> None:
            raise KilledError

        with monkeypatch.context() as patch:
            patch.setattr("llamaduo.runs.folder._mark", killed)
            with pytest.raises(KilledError):
                make()
        assert path.exists()
        make()
        assert made.times == 2
        assert path.with_name("artifact.done").exists()

    def test_killed_before_the_rename_leaves_no_artifact(self, folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
        def killed(*_: Any) -> None:
            raise KilledError

        monkeypatch.setattr(os, "replace", killed)
        made, path = Made(), folder.iteration(0) / "adapter"
        with pytest.raises(KilledError):
            folder.folder(path, Adapter, made.folder)
        assert not path.exists()
        assert not path.with_name("adapter.done").exists()

    @pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt(), KilledError()])
    def test_a_stage_that_fails_leaves_nothing_behind(self, error: BaseException, folder: RunDir) -> None:
        where = folder.iteration(0)

        def fails(path: Path | None = None) -> Any:
            if path:
                (path / "half").write_text("of it")
            raise error

        for make in (
            lambda: folder.rows(where / "rows.jsonl", Prediction, fails),
            lambda: folder.tree(where / "tree.json", fails),
            lambda: folder.folder(where / "adapter", Adapter, fails),
        ):
            with pytest.raises(type(error)):
                make()
        assert list(where.iterdir()) == []

    def test_rows_that_break_off_midway_leave_nothing_behind(self, folder: RunDir) -> None:
        where = folder.iteration(0)

        def some() -> Iterator[Prediction]:
            yield prediction()
            raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            folder.rows(where / "rows.jsonl", Prediction, some)
        assert list(where.iterdir()) == []

    def test_what_a_killed_process_left_behind_is_removed_by_the_next(self, tmp_path: Path) -> None:
        code = (
            "import os; from pathlib import Path\n"
            "from llamaduo.records import Adapter; from llamaduo.runs.folder import RunDir\n"
            "def make(path):\n"
            "    (path / 'weights').write_text('large'); os._exit(9)\n"
            "with RunDir(Path('run')) as folder:\n"
            "    folder.folder(folder.iteration(0) / 'adapter', Adapter, make)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
        assert len(hidden(tmp_path / "run")) == 1
        with RunDir(tmp_path / "run") as folder:
            assert hidden(folder.path) == []
            folder.folder(folder.iteration(0) / "adapter", Adapter, Made().folder)

    def test_a_marker_without_its_artifact_is_no_artifact(self, folder: RunDir) -> None:
        made, path = Made(), folder.iteration(0) / "rows.jsonl"
        folder.rows(path, Prediction, made.rows)
        path.unlink()
        folder.rows(path, Prediction, made.rows)
        assert made.times == 2


class TestWriteText:
    def test_it_replaces_and_leaves_nothing_private(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        write_text(path, "old")
        write_text(path, "new 日本語\n")
        assert path.read_text(encoding="utf-8") == "new 日本語\n"
        assert os.listdir(tmp_path) == ["a.txt"]

    @pytest.mark.parametrize("point", ["fsync", "replace", "open"])
    def test_a_failure_keeps_the_old_content(self, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "a.txt"
        write_text(path, "old")

        def full(*_: Any, **__: Any) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(builtins if point == "open" else os, point, full)
            with pytest.raises(
                RunFolderError, match=r"a\.txt: can't be written \(No space left on device\)\. Free space"
            ):
                write_text(path, "new")
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["a.txt"]

    def test_a_kill_at_any_moment_leaves_the_old_content_or_the_new(self, tmp_path: Path) -> None:
        path = tmp_path / "a.txt"
        write_text(path, "0" * 100_000)
        code = (
            "import itertools; from pathlib import Path; from llamaduo.files.writing import write_text\n"
            "for n in itertools.count():\n"
            f"    write_text(Path({str(path)!r}), str(n % 10) * 100_000)\n"
            "    n or print('go', flush=True)\n"
        )
        for wait in range(3):
            with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"go\n"
                try:
                    process.wait(0.01 * wait + 0.005)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                process.wait(10)
            text = path.read_text()
            assert len(text) == 100_000
            assert len(set(text)) == 1

    def test_text_that_can_not_be_encoded_is_an_error_of_ours(self, tmp_path: Path) -> None:
        with pytest.raises(RunFolderError):
            write_text(tmp_path / "a.txt", "half of an emoji: \ud83d")


HOLD = """
import sys
from pathlib import Path
from llamaduo.runs.folder import RunDir
with RunDir(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


class TestLock:
    @pytest.fixture
    def holder(self, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
            process.kill()

    def test_a_run_that_another_process_works_on_is_refused(
        self, holder: subprocess.Popen[str], tmp_path: Path
    ) -> None:
        with pytest.raises(RunFolderError, match=rf"another process \(pid {holder.pid} on .+\) works on this run"):
            RunDir(tmp_path / "run").__enter__()

    def test_the_lock_ends_with_its_process_however_it_ends(
        self, holder: subprocess.Popen[str], tmp_path: Path
    ) -> None:
        holder.kill()
        holder.wait(10)
        with RunDir(tmp_path / "run") as mine:
            assert (mine.path / ".lock").read_text().startswith(f"pid {os.getpid()} on ")

    def test_the_state_can_be_read_without_the_lock(self, holder: subprocess.Popen[str], tmp_path: Path) -> None:
        assert holder.poll() is None
        assert read_state(tmp_path / "run") == RunState()

    def test_it_is_held_within_one_process_too_and_released_at_the_end(self, tmp_path: Path) -> None:
        with RunDir(tmp_path / "run"), pytest.raises(RunFolderError, match="works on this run"):
            RunDir(tmp_path / "run").__enter__()
        with RunDir(tmp_path / "run"):
            pass

    def test_two_runs_do_not_meet(self, tmp_path: Path) -> None:
        with RunDir(tmp_path / "a"), RunDir(tmp_path / "b"):
            assert (tmp_path / "a/iterations").is_dir()


def _refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Let the disk refuse every new file, folder and sync."""

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    opened = builtins.open

    def guarded(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        return opened(file, mode, *args, **kwargs) if mode in ("r", "rb") else refused()

    monkeypatch.setattr(builtins, "open", guarded)
    monkeypatch.setattr(os, "fsync", refused)
    monkeypatch.setattr(os, "mkdir", refused)
    monkeypatch.setattr(os, "replace", refused)


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")]
)
class TestUnwritable:
    def test_every_write_is_an_error_with_a_way_out(
        self, code: int, words: str, folder: RunDir, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, where = Made(), folder.iteration(0)
        with monkeypatch.context() as patch:
            _refuse(patch, code)
            for write in (
                lambda: folder.iteration(1),
                lambda: folder.write_state(RunState()),
                lambda: folder.rows(where / "rows.jsonl", Prediction, made.rows),
                lambda: folder.tree(where / "tree.json", made.tree),
                lambda: folder.folder(where / "adapter", Adapter, made.folder),
            ):
                with pytest.raises(RunFolderError, match=rf"can't be written \({words}\).*runtime\.results") as caught:
                    write()
                assert len(str(caught.value).splitlines()) == 1
        assert not list(where.glob("*.done"))

    def test_opening_it_is_an_error_with_a_way_out(
        self, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _refuse(monkeypatch, code)
        with pytest.raises(RunFolderError, match=rf"run: can't be written \({words}\)"):
            RunDir(tmp_path / "run").__enter__()

    def test_a_lock_file_that_can_not_be_written_is_an_error_with_a_way_out(
        self, code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*_: Any) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "pwrite", refused)
        with pytest.raises(RunFolderError, match=words):
            RunDir(tmp_path / "run").__enter__()


def test_a_file_in_the_folders_place_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("I am a file")
    with pytest.raises(RunFolderError, match=r"can't be written \((Not a directory|File exists)\)"):
        RunDir(tmp_path / "results/study/run").__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_folder_without_permission_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir(mode=0o500)
    with pytest.raises(RunFolderError, match="Permission denied"):
        RunDir(tmp_path / "results/run").__enter__()


class TestState:
    def test_it_reads_back_equal(self, folder: RunDir) -> None:
        state = RunState("done", "passed", 3, 2, 1.25, 2, "Passed: ü", None, {"similarity": {"mean": 1.0, "low": None}})
        folder.write_state(state)
        assert folder.read_state() == read_state(folder.path) == state
        assert json.loads((folder.path / "state.json").read_text())["stop_reason"] == "passed"

    def test_a_new_folder_has_a_fresh_state(self, folder: RunDir) -> None:
        assert folder.read_state() == RunState()

    @pytest.mark.parametrize("text", ["", "{", '{"status": "done", "colour": "red"}', "nonsense"])
    def test_a_state_that_can_not_be_read_is_an_error_with_a_way_out(self, text: str, folder: RunDir) -> None:
        (folder.path / "state.json").write_text(text)
        with pytest.raises(RunFolderError, match=r"state\.json: can't be read \(.*\); remove it and run again"):
            folder.read_state()

    @pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe{}"])
    def test_a_state_of_another_shape_is_an_error_with_a_way_out(self, content: bytes, folder: RunDir) -> None:
        (folder.path / "state.json").write_bytes(content)
        with pytest.raises(RunFolderError, match=r"state\.json: can't be read"):
            folder.read_state()


class TestRecords:
    @given(prompt=WHOLE_TEXT, response=WHOLE_TEXT)
    def test_any_text_is_one_line_and_reads_back_equal(self, prompt: str, response: str) -> None:
        row = example(prompt, response, generator="g", seed_id=None)
        line = to_json(row)
        assert "\n" not in line
        assert from_json(Example, line) == row

    def test_rows_with_odd_line_ends_read_back_equal(self, tmp_path: Path) -> None:
        rows = [example(text, text) for text in ("a\rb", "a\u2028b", "a\x85b", "a\x0bb\x0cc\x1cd", "a\r\nb\n")]
        write_text(tmp_path / "rows.jsonl", "".join(to_json(row) + "\n" for row in rows))
        assert read_rows(tmp_path / "rows.jsonl", Example) == rows

    @given(st.floats(allow_nan=False, allow_infinity=False))
    def test_numbers_read_back_equal(self, value: float) -> None:
        assert from_json(Iteration, to_json(iteration(0, value, None))) == iteration(0, value, None)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_what_is_no_number_is_never_written(self, value: float) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            to_json(iteration(0, value, 1.0))


def test_iterations_have_two_digits_and_others_a_name(folder: RunDir) -> None:
    found = [folder.iteration(number).relative_to(folder.path).as_posix() for number in (0, 12, "test", 0)]
    assert found == ["iterations/00", "iterations/12", "iterations/test", "iterations/00"]


class TestTwoMachines:
    """A network file system whose locks reach nobody else: two machines are let into one folder."""

    @pytest.fixture
    def both(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RunDir, RunDir]]:
        monkeypatch.setattr("fcntl.flock", lambda *_: None)
        monkeypatch.setattr("llamaduo.runs.folder.network_file_system", lambda path: "lustre")
        with RunDir(tmp_path / "run") as one, RunDir(tmp_path / "run") as other:
            yield one, other

    def test_who_comes_second_keeps_what_was_completed_first(self, both: tuple[RunDir, RunDir]) -> None:
        one, other = both
        path = one.path / "adapter"

        def filled(by: str) -> Any:
            def fill(private: Path) -> Adapter:
                (private / "weights").write_text(by)
                return ADAPTER

            return fill

        def slow(private: Path) -> Adapter:
            os.rename(private, private.with_name(".elsewhere.tmp"))  # made on another machine, under another name
            one.folder(path, Adapter, filled("one"))
            os.rename(private.with_name(".elsewhere.tmp"), private)
            return filled("other")(private)

        other.folder(path, Adapter, slow)
        assert (path / "weights").read_text() == "one"
        rows = one.path / "rows.jsonl"
        made = other.rows(rows, Example, lambda: one.rows(rows, Example, lambda: [example("a")]) and [example("b")])
        assert made == [example("a")]
        (marker,) = one.path.glob("rows.jsonl.done")
        assert json.loads(marker.read_text())["sha256"] == hashlib.sha256(rows.read_bytes()).hexdigest()

    def test_nobody_removes_what_another_machine_is_writing(
        self, both: tuple[RunDir, RunDir], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one, _ = both
        mine = one.path / f".a.{socket.gethostname()}.1.tmp"
        theirs = one.path / ".a.elsewhere.1.tmp"
        for left in (mine, theirs):
            left.touch()
        with RunDir(one.path):
            assert (mine.exists(), theirs.exists()) == (False, True)


class TestForgotten:
    def test_a_new_folder_goes_with_those_above_it_that_it_needed(self, tmp_path: Path) -> None:
        with RunDir(tmp_path / "results" / "study" / "run") as folder:
            folder.forget()
            assert folder.is_forgotten
        assert not (tmp_path / "results").exists()

    def test_what_others_have_put_beside_it_stays(self, tmp_path: Path) -> None:
        with RunDir(tmp_path / "results" / "study" / "run") as folder:
            (tmp_path / "results" / "study" / "grid.json").touch()
            folder.forget()
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["grid.json"]

    def test_a_folder_that_was_there_or_holds_an_artifact_stays(self, tmp_path: Path) -> None:
        with RunDir(tmp_path / "old"):
            pass
        with RunDir(tmp_path / "old") as folder:
            folder.forget()
            assert not folder.is_forgotten
        with RunDir(tmp_path / "new") as folder:
            folder.tree(folder.iteration(0) / "scorecard.json", dict)
            folder.forget()
            assert not folder.is_forgotten
