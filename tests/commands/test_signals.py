"""Signals and output: what ends or silences a command from outside loses nothing that is paid for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llamaduo.commands.signals import interrupt_on_signals, lasting_output
from llamaduo.redaction import plain_output

CODE = """
import os, signal, sys
from llamaduo.commands.signals import interrupt_on_signals
interrupt_on_signals()
try:
    for number in (signal.{first}, signal.SIGHUP, signal.SIGTERM):
        os.kill(os.getpid(), number)
    print("went on")
except KeyboardInterrupt:
    try:
        for number in (signal.SIGHUP, signal.SIGTERM):
            os.kill(os.getpid(), number)
        print("wound up")
    except KeyboardInterrupt:
        print("broken off")
"""


def said(code: str, **kwargs: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50, **kwargs
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


@pytest.mark.parametrize("first", ["SIGTERM", "SIGHUP"])
def test_the_first_signal_interrupts_and_the_others_leave_the_winding_up_alone(first: str) -> None:
    assert said(CODE.format(first=first)) == "wound up"


def test_what_nohup_ignores_stays_ignored() -> None:
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + CODE.format(first="SIGHUP")
    assert said(ignored.replace("signal.SIGHUP, signal.SIGTERM)", "signal.SIGHUP)")) == "went on"


def test_every_command_heeds_a_closed_terminal() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    try:
        interrupt_on_signals()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), before, strict=True):
            signal.signal(number, handler)


PRINTING = """
import sys
from rich.console import Console
from llamaduo.redaction import plain_output
from llamaduo.commands.signals import lasting_output
with plain_output(), lasting_output():
    for _ in range(3):
        print("x" * 100_000, flush=True)
        Console(highlight=False, soft_wrap=True).print("y" * 20_000)
    open({done!r}, "w").write("done")
"""


def test_a_full_disk_behind_stdout_ends_nothing(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    done = tmp_path / "done"
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended = subprocess.run(
            [sys.executable, "-c", PRINTING.format(done=str(done))], stdout=full, check=False, timeout=50
        )
    assert (ended.returncode, done.read_text(encoding="utf-8")) == (0, "done")


def test_a_closed_pipe_behind_stdout_ends_nothing(tmp_path: Path) -> None:
    done = tmp_path / "done"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", PRINTING.format(done=str(done))], stdout=writing, check=False, timeout=50
        )
    finally:
        os.close(writing)
    assert (ended.returncode, done.read_text(encoding="utf-8")) == (0, "done")


def test_the_streams_are_as_before_afterwards() -> None:
    with plain_output():
        before = sys.stdout.rich_proxied_file  # type: ignore[attr-defined]
        with lasting_output():
            assert sys.stdout.rich_proxied_file is not before  # type: ignore[attr-defined]
        assert sys.stdout.rich_proxied_file is before  # type: ignore[attr-defined]
