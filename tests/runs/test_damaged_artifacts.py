"""Damage at every file of a run's folder, in many ways: none of it passes in silence.

The run is made again to the very same files, or refused with the name of what is damaged; a report refuses it by name,
and never shows a number that the run didn't come to. Training and answering are `fakes.quick_stages`.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_stages, quiet, rows_of, script_judge, verdict

from llamaduo.cli import main
from llamaduo.config import Experiment
from llamaduo.errors import InputError, LlamaduoError, RunFolderError
from llamaduo.loop import run
from llamaduo.runs.finished import finished, run_folder
from llamaduo.runs.folder import read_state
from llamaduo.runs.layout import CHECKSUMS, marker
from llamaduo.runs.marks import faults
from llamaduo.runs.record import read_runs
from llamaduo.service.buying import Buyer
from llamaduo.service.journal import default_path
from llamaduo.sweeps.job import run_one

__all__ = ["quick_stages"]

Compose = Callable[..., Experiment]
Damage = Callable[[Path, random.Random], None]
_VIEWS = {".lock", "report.html"}
"""What no number is read from."""


@pytest.fixture
def experiment(compose_experiment: Compose, quick_stages: None) -> Experiment:
    """Return an experiment whose run is finished: three iterations, two of them with synthesis."""
    scores = {0: 20, 16: 60, 32: 95}
    script_judge(lambda prompt, _: verdict(scores[max(rows for rows in scores if rows <= rows_of(prompt))]))
    made = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT)
    run(made, display=quiet())
    return made


def files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in _VIEWS]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files(folder)}


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(content))


def cut(path: Path, draw: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(1, len(content))])


def empty(path: Path, _: random.Random) -> None:
    path.write_bytes(b"")


def append(path: Path, _: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content + (content.splitlines(keepends=True) or [b"\n"])[-1])


def lose_half(path: Path, _: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))


def swap_rows(path: Path, _: random.Random) -> None:
    first, *between, last = path.read_bytes().splitlines(keepends=True) * 2
    path.write_bytes(b"".join([last, *between, first]))


def alter_a_number(path: Path, draw: random.Random) -> None:
    text = path.read_text(errors="surrogateescape")
    found = draw.choice(list(re.finditer(r"\d", text)) or [re.match("", text)])
    assert found is not None
    other = str((int(found[0]) + 3) % 10) if found[0] else "7"
    path.write_text(text[: found.start()] + other + text[found.end() :], errors="surrogateescape")


DAMAGES: tuple[Damage, ...] = (flip, cut, empty, append, lose_half, swap_rows, alter_a_number)


def damages(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield every damage, with its name: each kind at each file, then files and folders in each other's place."""
    for path in files(folder):
        for kind in DAMAGES:
            name = f"{kind.__name__} {path.relative_to(folder)}"
            yield name, lambda path=path, kind=kind, name=name: kind(path, random.Random(name))  # type: ignore[misc]
    first, second = (folder / "iterations" / number for number in ("00", "01"))
    for name in ("adapter", "predictions.jsonl", "verdicts.jsonl", "scorecard.json", "synthetic.jsonl"):
        for whole in (False, True):
            both = [name, marker(Path(name)).name] if whole else [name]
            yield f"swapped {both}", lambda both=both: [swap(first / one, second / one) for one in both]  # type: ignore[misc]
    yield "swapped iterations", lambda: swap(first, second)


def swap(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


class Tried:
    """Tries damages one by one on copies of a run's folder, and counts what came of them."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment, self.folder = experiment, run_folder(experiment)
        self.whole = contents(self.folder)
        self.silent: list[str] = []
        self.counts = {"tried": 0, "mended": 0, "refused": 0}
        self._kept = self.folder.with_name("kept")
        shutil.copytree(self.folder, self._kept)

    def try_one(self, name: str, damage: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self._kept, self.folder)
        damage()
        if contents(self.folder) == self.whole:
            return  # such as the swap of two equal files
        self.counts["tried"] += 1
        capsys.readouterr()
        if not self._report_names_it() or not self._run_mends_or_names_it(capsys):
            self.silent.append(name)

    def _report_names_it(self) -> bool:
        try:
            read_runs(self.folder)
        except InputError as error:
            return any(path.name in str(error) for path in [*files(self.folder), self.folder])
        return False

    def _run_mends_or_names_it(self, capsys: pytest.CaptureFixture[str]) -> bool:
        try:
            run_one(self.experiment)
        except LlamaduoError as error:
            self.counts["refused"] += 1
            return error.exit_code == 2 and str(self.folder) in str(error) and "emove" in str(error)
        self.counts["mended"] += 1
        said = capsys.readouterr().out
        return "is finished already" not in said and self._is_whole()

    def _is_whole(self) -> bool:
        now = contents(self.folder)
        return all(_same(name, now.get(name, b""), content) for name, content in self.whole.items())


def _same(name: str, now: bytes, before: bytes) -> bool:
    """Compare files but for the seconds that a marker lost, and what the sums of such times come to."""
    if name in (CHECKSUMS, "environment.json"):
        return bool(now)
    timed = name.endswith(".done") or name == "metrics.jsonl"
    return (
        re.sub(rb'"seconds": [\d.]+', b"", now) == re.sub(rb'"seconds": [\d.]+', b"", before)
        if timed
        else now == before
    )


@pytest.fixture
def nothing_bought(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a call that is sent from now on be a fault, and pages be left out."""

    async def bought(*_: object) -> object:
        raise AssertionError("a call was made for what is paid already")

    monkeypatch.setattr(Buyer, "_complete", bought)
    monkeypatch.setattr("llamaduo.studies.pages.page.write_run_page", lambda folder, **_: None)


@pytest.mark.usefixtures("nothing_bought")
class TestAnyDamage:
    def test_some_of_all(self, experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
        tried = Tried(experiment)
        for name, damage in list(damages(tried.folder))[::23]:
            tried.try_one(name, damage, capsys)
        assert tried.silent == []
        assert tried.counts["tried"] >= 12

    @pytest.mark.slow
    def test_none_passes_in_silence(self, experiment: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
        tried = Tried(experiment)
        for name, damage in damages(tried.folder):
            tried.try_one(name, damage, capsys)
        assert tried.silent == []
        assert tried.counts["tried"] >= 200
        assert min(tried.counts.values()) > 50
        with capsys.disabled():
            print(
                "\ndamaged files: {tried} tried, {mended} made again the same, {refused} refused".format(**tried.counts)
            )


def test_altered_scores_are_made_again_from_the_journal_and_said(
    experiment: Experiment, capsys: pytest.CaptureFixture[str], nothing_bought: None
) -> None:
    folder = run_folder(experiment)
    path, before = folder / "iterations/01/verdicts.jsonl", contents(folder)
    path.write_text(path.read_text().replace('"precision": 60.0', '"precision": 99.0', 6))
    assert main(["report", str(folder)]) == 2
    assert f"{path}: damaged (not what its marker was made for" in capsys.readouterr().err
    run_one(experiment)
    assert f"{path}: damaged (not what its marker was made for" in capsys.readouterr().out
    assert contents(folder) == before
    run_one(experiment)
    assert "is finished already" in capsys.readouterr().out


def test_what_the_journal_does_not_hold_any_more_is_refused(experiment: Experiment, nothing_bought: None) -> None:
    path = run_folder(experiment) / "iterations/01/verdicts.jsonl"
    append(path, random.Random(0))
    default_path().unlink()
    with pytest.raises(RunFolderError, match=r"01/verdicts\.jsonl: damaged .* can't be made again: replay: .* remove"):
        run(experiment, display=quiet())


@pytest.mark.parametrize("name", ["adapter/weights.json", "predictions.jsonl"])
def test_what_a_model_made_is_refused_with_what_to_do(name: str, experiment: Experiment) -> None:
    folder, before = run_folder(experiment), contents(run_folder(experiment))
    flip(folder / "iterations/01" / name, random.Random(1))
    artifact = name.partition("/")[0]
    with pytest.raises(RunFolderError, match=rf"iterations/01/{artifact}: damaged .* remove .*iterations/01, what was"):
        run(experiment, display=quiet())
    for where in ("01", "02", "test"):
        shutil.rmtree(folder / "iterations" / where)
    (folder / "state.json").unlink()
    assert run(experiment, display=quiet()).status == "done"
    after = contents(folder)
    assert all(_same(file, after[file], content) for file, content in before.items())


def test_a_lost_marker_is_set_again_where_the_rest_says_that_all_is_whole(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(experiment) / "iterations/01/predictions.jsonl"
    before = marker(path).read_bytes()
    marker(path).unlink()
    run_one(experiment)
    assert f"{path}: its marker is not as it was written; it itself is whole" in capsys.readouterr().out
    assert marker(path).read_bytes() == before


@pytest.mark.parametrize("command", ["run", "report", "status"])
def test_a_damaged_state_is_an_input_error_with_the_way_on(
    command: str, experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(experiment)
    checksums = (folder / CHECKSUMS).read_bytes()
    for text in ("", "null", "[]", '{"status": "done", "iterations": "x"}', "[" * 100_000, "\0\xff"):
        (folder / "state.json").write_bytes(text.encode("latin-1"))
        for known in (checksums, None):
            (folder / CHECKSUMS).write_bytes(known) if known else (folder / CHECKSUMS).unlink()
            if command == "run":
                with pytest.raises(RunFolderError, match=r"state\.json: .*; remove it and run again: it is made again"):
                    run(experiment, display=quiet())
            else:
                assert main([command, str(folder)]) == 2
                assert re.search(r"state\.json: .*; remove it and run again", capsys.readouterr().err)


def test_a_state_that_was_removed_is_made_again(experiment: Experiment, nothing_bought: None) -> None:
    folder = run_folder(experiment)
    before = read_state(folder)
    (folder / "state.json").unlink()
    assert run(experiment, display=quiet()) == before
    assert not faults(folder)


def test_runs_of_early_versions_are_read_with_a_note(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(experiment)
    (folder / CHECKSUMS).unlink()
    for path in folder.glob("iterations/*/*.done"):
        path.write_text('{"seconds": 1.0}')
    assert finished(experiment)
    assert main(["report", str(folder)]) == 0
    assert "artifacts have markers without a sha256" in capsys.readouterr().out
    (folder / "state.json").unlink()
    run_one(experiment)
    assert "predictions.jsonl: its marker has no sha256" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["00/scorecard.json", "02/scorecard.json", "test/scorecard.json", "00/curation.json", "test", "02"]
)
def test_what_is_gone_with_its_marker_is_missed_without_its_copy(
    name: str, experiment: Experiment, nothing_bought: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(experiment)
    before = contents(folder)
    (folder / CHECKSUMS).unlink()
    assert finished(experiment)
    path = folder / "iterations" / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
        marker(path).unlink()
    assert finished(experiment) is None
    run_one(experiment)
    assert "is finished already" not in capsys.readouterr().out
    after = contents(folder)
    assert all(_same(file, after.get(file, b""), content) for file, content in before.items())


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("name", "put"),
    [
        ("iterations/01/scorecard.json", a_pipe),
        ("iterations/01/scorecard.json.done", a_pipe),
        ("state.json", a_pipe),
        ("iterations/01/adapter/record.json", a_folder),
        ("iterations/00/synthesis.json.done", deep),
        (CHECKSUMS, deep),
        (CHECKSUMS, a_pipe),
    ],
)
def test_what_is_no_file_or_nested_deeply_is_damage(
    name: str, put: Callable[[Path], None], experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run_folder(experiment) / name
    put(path)
    assert main(["report", str(run_folder(experiment))]) == 2
    told = name.removesuffix(".done").replace("adapter/record.json", "adapter")
    assert told in capsys.readouterr().err
    assert main(["verify", str(run_folder(experiment))]) in (2, 4)
    said = capsys.readouterr()
    assert told in said.out + said.err
    assert main(["status", str(run_folder(experiment).parent)]) in (0, 2)
    refused = ""
    try:
        run(experiment, display=quiet())
    except LlamaduoError as error:
        refused = str(error)
    assert not refused or told in refused


def test_status_reads_whatever_a_strangers_files_hold(
    experiment: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(experiment)
    (folder / CHECKSUMS).unlink()
    deep(folder / "config.yaml")
    (folder / ".lock").write_bytes(b"\xff")
    (folder.parent / "loop").symlink_to("loop")
    (folder / "metrics.jsonl").write_text('{"seconds": 1' + "0" * 400 + "}\n")
    assert main(["status", str(folder.parent)]) == 0
    assert folder.name in capsys.readouterr().out
