"""Printing: nothing but text reaches a terminal, no key, and no encoding ends a run."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from fakes import quick_stages
from rich.table import Table
from rich.text import Text

from llamaduo.cli import main
from llamaduo.display import Display, plain_console
from llamaduo.redaction import plain_output, printable, redact_logs

__all__ = ["quick_stages"]
KEY = "sk-canary-0aG7Zk4TwE2x9Lm"


@pytest.fixture(autouse=True)
def hooks() -> Iterator[None]:
    """Undo what the command line does to the process."""
    before = logging.getLogRecordFactory(), sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    logging.setLogRecordFactory(before[0])
    sys.excepthook, threading.excepthook, sys.unraisablehook = before[1:]


HOSTILE = {
    "a\x1b[31mred\x1b[0m": "ared",
    "\x1b[2J\x1b[1;1Hgone": "gone",
    "\x1b]0;a title\x07here": "here",
    "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\": "link",
    "\x9b31mc1": "c1",
    "\x1bPdevice\x1b\\x": "x",
    "\x1bc reset": " reset",
    "bell\x07 back\x08space null\x00 del\x7f next\x85line": "bell backspace null del next line",
    "user\u202egnp.exe\u202c \u2066iso\u2069 \u200fmark\u061c": "usergnp.exe iso mark",
    "a\u2028b\u2029c\x0bd\x0ce": "a b c d e",
    "an unended \x1b[": "an unended ",
    "plain, ünïcödé 日本語 👩‍👩‍👧 \tand\nlines": "plain, ünïcödé 日本語 👩‍👩‍👧 \tand\nlines",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_only_text_is_printable(text: str) -> None:
    assert printable(text) == HOSTILE[text]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_prints_prints_text(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with plain_output():
        print(f"<{text}>")
        print(f"<{text}>", file=sys.stderr)
        plain_console().print(f"<{text}>")
    printed = capsys.readouterr()
    assert printed.out.startswith(f"<{HOSTILE[text]}>\n")
    assert printed.err == f"<{HOSTILE[text]}>\n"
    for shown in (printed.out, printed.err):
        assert not set(shown) & set("\x1b\x9b\x07\x08\x00\x7f\x85\u202e\u202c\u2066\u2069\u200f\u061c\u2028\x0b\x0c")


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_our_own_colours_pass_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = Terminal()
    monkeypatch.setattr(sys, "stdout", shown)
    with plain_output():
        display = Display()
        with display:
            display.note("\x1b]0;title\x1b\\a note")
            display.start(["iter\x1b[2Jation"], [])
            table = Table()
            table.add_column("na\x1b[31mme")
            table.add_row(Text("cell\x1b[5A"))
            display.console.print(table)
            print("\x1b[3Aprinted")
    written = shown.getvalue()
    assert "\x1b[33ma note" in written
    for hostile in ("\x1b]0;", "\x1b[2J", "\x1b[5A", "\x1b[3A"):
        assert hostile not in written
    assert all(word in written for word in ("iteration", "name", "cell", "printed"))


def test_a_carriage_return_can_hide_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_output():
        print("$5.00 spent\r$0.00")
        plain_console().print("$5.00 spent\r$0.00")
    assert capsys.readouterr().out == "$5.00 spent$0.00\n" * 2


def test_what_an_encoding_lacks_becomes_a_question_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, shown in (("ascii", "donn?es ? ?"), ("latin-1", "données ? ?")):
        stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        with plain_output():
            print("données █ \udcff")
            plain_console().print("données █ \udcff")
        stream.flush()
        assert stream.buffer.getvalue().decode(encoding).splitlines() == [shown, shown]  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict"])
def test_a_command_prints_on_any_terminal(encoding: str) -> None:
    code = "import sys; from llamaduo.cli import main; sys.exit(main(['status', 'données/日本語/\\x1b[31mnone']))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert b"donn" in done.stderr
    assert b"fault of llamaduo's" not in done.stderr
    assert b"\x1b" not in done.stderr


def _nobody(number: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {number}")


@pytest.mark.usefixtures("quick_stages")
@pytest.mark.parametrize("where", ["on an ASCII terminal", "on a full disk", "into a closed pipe", "without a home"])
def test_a_whole_run_comes_to_its_end_wherever_it_prints(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: io.TextIOWrapper = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    if where == "on a full disk":
        if not Path("/dev/full").exists():
            pytest.skip("there is no /dev/full")
        shown = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w", encoding="utf-8")
    elif where == "into a closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
        shown = os.fdopen(writing, "w", encoding="utf-8")
    elif where == "without a home":
        monkeypatch.setattr("pwd.getpwuid", _nobody)
        for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "LLAMADUO_HOME"):
            monkeypatch.delenv(name, raising=False)
    with contextlib.suppress(OSError), shown:
        monkeypatch.setattr(sys, "stdout", shown)
        main(["run", "preset=smoke", "loop.max_iterations=1", 'study="donn\u00e9es"'])
    states = [json.loads(path.read_text())["status"] for path in tmp_path.glob("results/*/*/state.json")]
    assert states == ["done"]


class Unraisable(NamedTuple):
    """What Python tells of an exception that nobody can catch."""

    exc_type: type[BaseException]
    exc_value: BaseException
    exc_traceback: None
    err_msg: None
    object: None


def test_no_key_is_printed_whoever_prints_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    redact_logs()  # as a command does before it is loaded
    with plain_output():
        print(KEY)
        print(KEY, file=sys.stderr)
        plain_console().print(KEY)
        threading.excepthook(threading.ExceptHookArgs((ValueError, ValueError(f"in a thread: {KEY}"), None, None)))
        sys.unraisablehook(Unraisable(ValueError, ValueError(f"in a destructor: {KEY}"), None, None, None))  # type: ignore[arg-type]
        logging.getLogger("somebody.elses").error("it failed with %s", KEY)
    printed = capsys.readouterr()
    assert KEY not in printed.out + printed.err
    assert printed.out.count("[OPENAI_API_KEY]") == 2
    assert "in a thread: [OPENAI_API_KEY]" in printed.err
    assert "in a destructor: [OPENAI_API_KEY]" in printed.err


def broken(*_: object, **__: object) -> None:
    raise ValueError(f"a fault, with {KEY}")


def test_debug_shows_a_redacted_traceback_and_returns_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("llamaduo.commands.doctor.examine", broken)
    monkeypatch.setattr(sys, "excepthook", broken)  # as W&B puts its own there
    assert main(["doctor", "--debug"]) == 1
    printed = capsys.readouterr()
    assert "Traceback" in printed.err
    assert "a fault, with [OPENAI_API_KEY]" in printed.err
    assert KEY not in printed.out + printed.err
    assert main(["status", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_name_longer_than_any_files_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("status", "report"):
        assert main([command, "n" * 300]) == 2
        shown = capsys.readouterr().err
        assert "shorten" in shown
        assert "fault" not in shown
