"""A stranger's archive: nothing of it is extracted, run, resolved or believed.

A sound archive is made once; each attack is that archive with something done to it. Whatever it is, `llamaduo verify`
ends with an exit code of its own and without a traceback, and nothing appears outside of its scratch folder.
"""

from __future__ import annotations

import json
import lzma
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes import JUDGED_BY_SCRIPT, SMALL, quick_infer, quick_train, quiet, rows_of, script_judge, verdict

from llamaduo.cli import main
from llamaduo.config import Experiment
from llamaduo.loop import run
from llamaduo.runs.finished import run_folder
from llamaduo.verify import members
from llamaduo.verify.archive import NAME, pack, unpacked
from llamaduo.verify.verify import verify

CANARY = "canary-0123456789abcdef"
Files = dict[str, bytes]
_once: Files = {}


@pytest.fixture
def files(compose_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Files:
    """Return the members of a sound archive; training and answering are out of reach from here on."""
    if not _once:
        with monkeypatch.context() as patch:
            patch.setattr("llamaduo.steps.steps.train", quick_train)
            patch.setattr("llamaduo.steps.steps.infer", quick_infer)
            script_judge(lambda prompt, _: verdict(95 if rows_of(prompt) >= 16 else 20))
            experiment = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT)
            run(experiment, display=quiet())
        folder = run_folder(experiment)
        found = verify(folder)
        assert found.differences == []
        pack(folder.parent, tmp_path / NAME, [folder], found.keys, found.journals)
        with tarfile.open(tmp_path / NAME) as tar:
            _once.update({m.name: tar.extractfile(m).read() for m in tar})  # type: ignore[union-attr]
    monkeypatch.setenv("LLAMADUO_HOME", str(tmp_path / "another home"))
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    return dict(_once)


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test if a derivation reaches training or a model's answers."""
    reached: list[str] = []
    for name in ("steps.train", "steps.infer", "opening.program"):
        monkeypatch.setattr(f"llamaduo.steps.{name}", lambda *_, _name=name, **__: reached.append(_name))
    yield
    assert reached == []


def run_of(files: Files) -> str:
    return next(name.split("/")[0] for name in files if name.endswith("state.json"))


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any) -> bytes:
    """Return a member as it lies in an archive, made by hand so that nothing keeps it honest."""
    made = tarfile.TarInfo(name)
    made.type, made.size = kind, fields.pop("size", len(content))
    for field, value in fields.items():
        setattr(made, field, value)
    return made.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + padded(content)


def padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 512)


def extended(records: dict[str, str | bytes], name: str = "run/state.json", content: bytes = b"") -> bytes:
    """Return a member behind an extended header."""
    header = b""
    for key, value in records.items():
        text = b" " + key.encode() + b"=" + (value.encode() if isinstance(value, str) else value) + b"\n"
        size = len(text) + 2 if len(text) < 98 else len(text) + 3
        header += str(size).encode() + text
    return entry("./PaxHeaders/x", header, tarfile.XHDTYPE) + entry(name, content)


def packed(files: Files, *more: bytes, first: bytes = b"", tail: bytes = b"") -> bytes:
    body = first + b"".join(entry(name, content) for name, content in files.items()) + b"".join(more)
    return lzma.compress(body + b"\0" * 1024 + tail, preset=0)


def verified(archive: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Verify an archive; return exit code and all that was printed, after a look at what every attack must not do."""
    place = tmp_path / "theirs" / "study"
    place.mkdir(parents=True, exist_ok=True)
    (place / NAME).write_bytes(archive)
    before = {path for path in tmp_path.rglob("*") if "results" not in path.parts}
    code = main(["verify", str(place / NAME)])
    assert {path for path in tmp_path.rglob("*") if "results" not in path.parts} == before
    printed = "".join(capsys.readouterr())
    assert "a fault of llamaduo's" not in printed
    assert CANARY not in printed
    assert all(mark.isprintable() or mark == "\n" for mark in printed)
    return code, printed


LONG = "/".join(["d" * 200] * 20)
KINDS = {
    "a symbolic link": entry("run/state.json", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": entry("run/state.json", kind=tarfile.LNKTYPE, linkname="replies.jsonl"),
    "a link to a folder, then a file in it": entry("run", kind=tarfile.SYMTYPE, linkname="/tmp")
    + entry("run/state.json", b"x"),
    "a long chain of links": entry("run", kind=tarfile.SYMTYPE, linkname=LONG[:100]) + entry("run/state.json", b"x"),
    "a character device": entry("run/state.json", kind=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a block device": entry("run/state.json", kind=tarfile.BLKTYPE, devmajor=8),
    "a pipe": entry("run/state.json", kind=tarfile.FIFOTYPE),
    "a folder": entry("run/", kind=tarfile.DIRTYPE),
    "a file that says it is a folder": entry("run/iterations/", kind=tarfile.AREGTYPE),
    "a contiguous file": entry("run/state.json", b"x", kind=tarfile.CONTTYPE),
    "a sparse file of GNU": entry("run/state.json", kind=tarfile.GNUTYPE_SPARSE),
    "a sparse file of version 1": extended({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
    "a sparse file of version 0": extended({"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"}),
    "a name by GNU": entry("././@LongLink", b"../x\0", kind=tarfile.GNUTYPE_LONGNAME) + entry("run/state.json"),
    "a link's name by GNU": entry("././@LongLink", b"/etc\0", kind=tarfile.GNUTYPE_LONGLINK) + entry("run/state.json"),
    "a global header": entry("x", b"12 path=../x\n", kind=tarfile.XGLTYPE),
    "Solaris's header": entry("x", b"12 path=../x\n", kind=tarfile.SOLARIS_XHDTYPE),
    "a kind that nobody knows": entry("run/state.json", kind=b"Z"),
    "a path in a header": extended({"path": "../../x"}),
    "an absolute path in a header": extended({"path": "/tmp/x"}),
    "a size in a header": extended({"size": "99999999999"}),
    "a link in a header": extended({"linkpath": "/etc/passwd"}),
    "a header without a number": entry("x", b"path=../x\n", kind=tarfile.XHDTYPE),
    "a header of no length": entry("x", b"0 path=x\n", kind=tarfile.XHDTYPE),
    "a header of a negative length": entry("x", b"-5 path=x\n", kind=tarfile.XHDTYPE),
    "a header of four gigabytes": entry("x", kind=tarfile.XHDTYPE, size=4 << 30),
    "a negative size": entry("run/state.json", size=-512),
    "a size beyond the end": entry("run/metrics.jsonl", size=1 << 20),
    "a size beyond all limits": entry("run/state.json", size=1 << 40),
    "a damaged header": b"x" * 512,
}
NAMES = (
    "/etc/cron.d/x", "../x", "run/../../x", "run/iterations/../../../state.json", "./run/state.json", "run//state.json",
    "run/./state.json", "..\\run\\state.json", "run\\..\\state.json/state.json", "C:\\x", "~/state.json\n",
    "evil.py", "sitecustomize.py", "run/conftest.py", "run/.git/hooks/post-checkout", "run/iterations/00/x.pkl",
    "run/iterations/00/adapter/adapter_model.bin", "run/iterations/00/adapter/adapter_model.safetensors",
    "run/iterations/00/adapter/../../../state.json", "run/iterations/../state.json", "run/iterations//scorecard.json",
    "run/iterations/00/state.json\0/x", "a/b/c/d/e/state.json", "state.json", "run/", "", ".", "..", "run",
    "run/state.json ", "run/STATE.JSON", "run/state.json.done", "run/iterations/00/scorecard.json.done.done",
    "\x1b]0;owned\x07/state.json", "run\n/state.json", "run\t/state.json", "\u202egnp.exe/state.json",
    "run\u200b/state.json", "\ud800/state.json", "\udcff/state.json", "run\x7f/state.json", "d" * 256 + "/state.json",
    "run/iterations/\u0660\u0660/scorecard.json", "journal.sqlite", "../journal.sqlite", "run/replies.jsonl",
    "run/.lock", "grid.json", ".sweep/notes/x.json", "run/report.html",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", ["first", "last"])
def test_only_regular_files_are_taken(
    kind: str, at: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = KINDS[kind]
    code, printed = verified(packed(files, first=odd) if at == "first" else packed(files, odd), tmp_path, capsys)
    assert (code, "no archive of a study" in printed) == (2, True), printed


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_only_names_that_pack_writes_are_taken(
    name: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = name.encode("utf-8", "surrogatepass")
    plain = entry(raw.decode("utf-8", "surrogateescape"), b"x")
    for odd in (plain, extended({"path": raw}, content=b"x")):
        code, printed = verified(packed(files, odd), tmp_path, capsys)
        assert (code, "no archive of a study" in printed) == (2, True), printed


def _renamed(files: Files, change: Callable[[str], str]) -> bytes:
    run_ = run_of(files)
    return entry(f"{change(run_)}/state.json", files[f"{run_}/state.json"])


TWICE = {
    "the same name": str,
    "in capitals": str.upper,
    "composed otherwise": lambda name: name.replace("-", "-\u00e9", 1).replace("\u00e9", "e\u0301"),
}


@pytest.mark.parametrize("how", TWICE)
def test_no_name_is_taken_twice(how: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = _renamed(files, lambda name: name.replace("-", "-\u00e9", 1)) if how == "composed otherwise" else b""
    code, printed = verified(packed(files, first, _renamed(files, TWICE[how])), tmp_path, capsys)
    assert (code, "is there twice" in printed) == (2, True), printed


def test_a_file_is_no_folder_of_another(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = entry("x/state.json", b"{}") + entry("x/state.json/config.yaml", b"")
    assert verified(packed(files, odd), tmp_path, capsys)[0] == 2


def _bomb(name: str, size: int, byte: bytes = b"0") -> bytes:
    return lzma.compress(entry(name, byte * size) + b"\0" * 1024, preset=0)


def _wants_memory(archive: bytes) -> bytes:
    """Return an archive whose header asks for a dictionary of 1.5 GiB."""
    header = bytearray(archive[12 : 12 + (archive[12] + 1) * 4])
    header[4] = 37
    header[-4:] = struct.pack("<I", zlib.crc32(header[:-4]))
    return archive[:12] + bytes(header) + archive[12 + len(header) :]


BOMBS: dict[str, tuple[Callable[[Files], bytes], str]] = {
    "a long line": (lambda _: _bomb("run/metrics.jsonl", 20 << 20), "has a line of more than"),
    "a long line of replies": (lambda _: _bomb("replies.jsonl", 20 << 20), "has a line of more than"),
    "many lines": (lambda _: _bomb("replies.jsonl", 200 << 20, b"\n"), "it comes to more than"),
    "a large configuration": (lambda _: _bomb("run/config.yaml", 2 << 20), "of at most 1,048,576"),
    "a large tree": (lambda _: _bomb("run/state.json", 65 << 20), "of at most 67,108,864"),
    "zeros behind the end": (lambda files: packed(files, tail=bytes(200 << 20)), "it comes to more than"),
    "memory": (lambda files: _wants_memory(packed(files)), "no archive of a study"),
    "something behind the end": (lambda files: packed(files, tail=b"x" * 512), "goes on behind its end"),
    "another stream behind the first": (lambda files: packed(files) + packed(files), "goes on behind its end"),
    "bytes behind the stream": (lambda files: packed(files) + bytes(512), "goes on behind its end"),
    "cut short": (lambda files: packed(files)[:-100], "no archive of a study"),
    "without an end": (lambda files: lzma.compress(entry("replies.jsonl")), "ends too early"),
    "nothing in it": (lambda _: lzma.compress(b""), "ends too early"),
    "another compression": (lambda files: zlib.compress(b"x"), "no archive of a study"),
    "the older container": (lambda files: lzma.compress(b"x", lzma.FORMAT_ALONE), "no archive of a study"),
    "no replies": (lambda files: packed({k: v for k, v in files.items() if k != "replies.jsonl"}), "has no replies"),
    "no runs": (lambda files: packed({"replies.jsonl": files["replies.jsonl"]}), "no run folder in it"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_archive_fills_neither_disk_nor_memory(
    bomb: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, told = BOMBS[bomb]
    code, printed = verified(make(files), tmp_path, capsys)
    assert (code, told in printed) == (2, True), printed


def test_300_000_empty_members_are_not_taken(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = entry("run/state.json")
    assert verified(packed(files, block * 300_000), tmp_path, capsys)[0] == 2
    monkeypatch.setattr(members, "MOST_MEMBERS", len(files) + 9)
    many = (entry(f"run{number}/state.json") for number in range(10))
    code, printed = verified(packed(files, *many), tmp_path, capsys)
    assert (code, "members" in printed) == (2, True)


def test_an_untouched_one_is_sound(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = verified(packed(files), tmp_path, capsys)
    assert code == 0, printed
    mtime = extended({"mtime": "1.5", "path": "replies.jsonl"}, content=files.pop("replies.jsonl"))
    assert verified(packed(files, mtime), tmp_path, capsys)[0] == 0


KILLED = """
import os, signal, sys
from llamaduo.commands import verify as command
command.verify = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
from llamaduo.cli import main
main(["verify", sys.argv[1]])
"""


def test_what_a_killed_verify_has_unpacked_is_gone_after_the_next_command(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    temporary, archive = tmp_path / "temporary", tmp_path / "theirs.tar.xz"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    archive.write_bytes(packed(files))
    done = subprocess.run([sys.executable, "-c", KILLED, str(archive)], check=False, timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert list(temporary.rglob("state.json"))  # it was at work
    assert main(["verify", str(archive)]) == 0, capsys.readouterr().out
    assert list(temporary.iterdir()) == []


def _leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    pairs: Any = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield from _leaves(value, (*path, key))
    if path and not (isinstance(tree, dict) and tree):
        yield path


def with_config(files: Files, path: tuple[str | int, ...], value: Any) -> Files:
    """Return the archive's files with another value in the configuration."""
    name = f"{run_of(files)}/config.yaml"
    tree: Any = yaml.safe_load(files[name])
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return files | {name: yaml.safe_dump(tree, sort_keys=False).encode()}


def configured(files: Files) -> list[tuple[str | int, ...]]:
    return list(_leaves(yaml.safe_load(files[f"{run_of(files)}/config.yaml"])))


def test_no_interpolation_is_resolved_wherever_it_stands(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = configured(files)
    assert len(places) > 130
    name = run_of(files)
    once = {}
    for at, place in enumerate(places):
        changed = with_config(files, place, "a ${oc.env:OPENAI_API_KEY}")
        once |= {f"at{at}-{inside}": content for inside, content in changed.items() if inside.startswith(name)}
    once["replies.jsonl"] = files["replies.jsonl"]
    (tmp_path / NAME).write_bytes(packed(once))
    with unpacked(tmp_path / NAME) as (folder, journal):
        told = verify(folder, journal=journal, whole=True).differences
    refused = {line.split("-")[0] for line in told if "its configuration is refused" in line}
    assert refused == {f"at{at}" for at in range(len(places))}
    assert CANARY not in "".join(told)
    files[f"{name}/config.yaml"] = files[f"{name}/config.yaml"].replace(
        b"endpoint:\n", b"'${oc.env:OPENAI_API_KEY}':\n", 1
    )
    assert verified(packed(files), tmp_path, capsys)[0] == 4


WRONG: tuple[Any, ...] = (
    None, [], {}, {"a": 1}, [[]], -1, 10**30, 1e308, float("inf"), float("nan"), "", "x", "../../x", "/dev/zero", True,
    "\x1b[31m", "\u202e", "${x", "x" * 10_000,
)  # fmt: skip


def test_a_wrong_value_anywhere_in_the_configuration_is_no_fault(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for at, path in list(enumerate(configured(files)))[::3]:
        value = WRONG[at % len(WRONG)]
        assert verified(packed(with_config(files, path, value)), tmp_path, capsys)[0] in (0, 2, 4), (path, value)


def test_no_folder_that_a_stranger_names_is_opened(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    monkeypatch.setattr("llamaduo.files.contents.of_model", lambda folder: opened.append(folder) or "")
    for key in ("path", "tokenizer"):
        verified(packed(with_config(files, ("local_model", key), str(tmp_path))), tmp_path, capsys)
    assert opened == []


YAMLS = {
    "nested lists": b"[" * 100_000,
    "nested entries": b"- " * 50_000 + b"x",
    "nested keys": b"? " * 50_000 + b"x",
    "aliases": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 107)),
    "an object of Python's": b"study: !!python/object/apply:os.system ['touch owned']\n",
    "a number of many digits": b"study: " + b"9" * 100_000,
    "no mapping": b"- 1\n",
    "nothing": b"",
    "no text": b"\xff\xfe\x00",
    "a merge with itself": b"a: &a\n  <<: *a\n",
}


@pytest.mark.parametrize("text", YAMLS)
def test_no_yaml_ends_the_process(text: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files[f"{run_of(files)}/config.yaml"] = YAMLS[text]
    assert verified(packed(files), tmp_path, capsys)[0] == 2
    assert not (tmp_path / "owned").exists()


HOSTILE: dict[str, dict[tuple[str | int, ...], Any]] = {
    "code of a model": {("local_model", "trust_remote_code"): True, ("local_model", "path"): "theirs/model"},
    "a program": {("infer", "backend"): "vllm", ("infer", "vllm"): "theirs/program"},
    "a configuration of accelerate": {("runtime", "launch"): "accelerate", ("runtime", "accelerate"): "theirs/x.yaml"},
    "a process of its own": {("runtime", "isolation"): "process"},
    "W&B": {("tracking", "wandb"): "auto"},
    "a study elsewhere": {("study",): "../../../../x"},
    "a name elsewhere": {("name",): "../../x"},
    "results elsewhere": {("runtime", "results"): "owned"},
    "a cache elsewhere": {("runtime", "cache"): "owned"},
    "a journal elsewhere": {("service", "journal"): "owned/journal.sqlite"},
    "a live service": {("service", "replay"): False},
    "a rubric of ours": {("judge", "prompt"): "/etc/passwd"},
    "a file of ours": {("data", "source"): "file", ("data", "path"): "/etc/passwd"},
    "a device": {("data", "source"): "file", ("data", "path"): "/dev/zero"},
    "the Hub": {("data", "source"): "hub", ("data", "path"): "a/b", ("data", "revision"): "main"},
    "endless data": {("data", "train_rows"): 10**9},
    "endless judging": {("judge", "repeats"): 10**9},
    "endless growth": {("loop", "growth", "factor"): 1e300},
    "another server": {("infer", "backend"): "endpoint"},
}


LOST = ("", "adapter.done", "adapter/record.json", "predictions.jsonl", "predictions.jsonl.done")
CHANGES_NOTHING = (
    "a process of its own", "W&B", "a live service", "results elsewhere", "a cache elsewhere", "a journal elsewhere",
)  # fmt: skip
"""Ours take the place of these."""


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("what", HOSTILE)
def test_nothing_of_a_stored_configuration_runs_or_reads(
    what: str, lost: str, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, value in HOSTILE[what].items():
        files = with_config(files, path, value)
    if lost:
        del files[f"{run_of(files)}/iterations/00/{lost}"]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/program").write_text(f"#!/bin/sh\ntouch {tmp_path}/owned\n")
    (tmp_path / "theirs/program").chmod(0o755)
    code, printed = verified(packed(files), tmp_path, capsys)
    assert code == 4 or (not lost and what in CHANGES_NOTHING), printed
    assert not (tmp_path / "owned").exists()
    assert "root:" not in printed


TORN = (
    b"", b"{}", b"[]", b"null", b"5", b'"x"', b"\xff", b"[" * 200_000, b'{"a": 1}', b"NaN", b"1e999",
    b'{"a": 1e999}\n' * 3, b"{" + b'"a": {' * 3000,
)  # fmt: skip


def test_whatever_an_artifact_holds_is_a_difference_or_refused(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [name for name in files if name != "replies.jsonl" and not name.endswith(("environment.json", "data.json"))]
    for at, name in enumerate(names):
        for number in (at, at + 5):
            content = TORN[number % len(TORN)]
            code, printed = verified(packed(files | {name: content}), tmp_path, capsys)
            assert code in (2, 4), (name, content[:20], printed)


def test_whatever_a_row_holds_is_a_difference_or_refused(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ = run_of(files)
    names = ["replies.jsonl", *(f"{run_}/iterations/00/{name}.jsonl" for name in ("predictions", "verdicts"))]
    names += [f"{run_}/metrics.jsonl", f"{run_}/state.json"]
    for name in names:
        first, rest = (files[name], b"") if name.endswith("state.json") else files[name].split(b"\n", 1)
        for at, key in list(enumerate(row := json.loads(first)))[:: 1 if len(row) < 12 else 3]:
            changed = json.dumps(row | {key: WRONG[at % len(WRONG)]}).encode() + b"\n" + rest
            code, printed = verified(packed(files | {name: changed}), tmp_path, capsys)
            assert code in (0, 2, 4), (name, key, printed)


def test_what_is_printed_of_a_stranger_is_plain(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{run_of(files)}/state.json"
    state = json.loads(files[name]) | {"verdict": f"\x1b]0;owned\x07\u202e{CANARY}\x9b2J\r\n"}
    files[name] = json.dumps(state, ensure_ascii=False).encode()
    code, printed = verified(packed(files), tmp_path, capsys)
    assert code == 4
    assert "state.json" in printed
    assert "[OPENAI_API_KEY]" in printed


def test_a_folder_of_a_stranger_is_treated_alike(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = with_config(files, ("service_llm", "model"), "${oc.env:OPENAI_API_KEY}")
    for name, content in files.items():
        path = tmp_path / "unpacked" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert main(["verify", str(tmp_path / "unpacked")]) == 4
    printed = "".join(capsys.readouterr())
    assert "service_llm.model: a stored value has no ${...}" in printed
    assert CANARY not in printed


def test_a_text_that_looks_like_an_interpolation_is_stored_as_a_text(
    compose_experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamaduo.steps.steps.train", quick_train)
    monkeypatch.setattr("llamaduo.steps.steps.infer", quick_infer)
    script_judge(lambda prompt, _: verdict(95))
    experiment = compose_experiment(*SMALL, *JUDGED_BY_SCRIPT)
    experiment.infer.stop = ["${end}", "\\${x", "${"]
    run(experiment, display=quiet())
    found = verify(run_folder(experiment))
    assert found.differences == []
    assert found.counts["fingerprints"] == 1


def test_an_archive_holds_no_name_that_it_could_not_be_unpacked_with(tmp_path: Path) -> None:
    from llamaduo.errors import InputError

    folder = tmp_path / "a\u202eb"
    folder.mkdir()
    (folder / "state.json").write_text("{}")
    with pytest.raises(InputError, match="a name that no archive may hold"):
        pack(tmp_path, tmp_path / NAME, [folder], [], [])


def test_the_names_of_a_run_are_members_and_others_are_not() -> None:
    assert all(members.is_member(f"a/b/{name}") for name in members.RUN_FILES)
    assert all(members.is_member(f"run/iterations/test_base/{name}") for name in members.INSIDE)
    assert not members.is_member("run/iterations/00/checkpoints/x.pt")
