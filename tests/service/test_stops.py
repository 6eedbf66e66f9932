"""A process that is stopped, as by Ctrl-Z or SIGSTOP, stops nobody else, or it is said who is waited for."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import LLM, Open, ask_for, silent

from llamaduo.config import ServiceLLM
from llamaduo.errors import InputError
from llamaduo.service import buying, limits
from llamaduo.service import journal as journals
from llamaduo.service.attempts import Reply
from llamaduo.service.journal import Journal
from llamaduo.service.limits import Gate
from llamaduo.service.liveness import stopped

HOLDS = """
import os, signal, sys, time
from pathlib import Path
from llamaduo.commands.signals import interrupt_on_signals
from llamaduo.config import ServiceLLM
from llamaduo.service.journal import Journal
from llamaduo.service.limits import Gate
interrupt_on_signals()
place = Path(sys.argv[1])
journal = Journal(place / "journal.sqlite")

def work(*_):
    os.kill(os.getpid(), signal.SIGTSTP)
    time.sleep(0.2)
    (place / "went on").touch()

if sys.argv[2] == "journal":
    journal.write_now(work)
else:
    with Gate(ServiceLLM(name="m", provider="openai", model="m"), place / "limits", "me", journal.live)._state():
        work()
"""


def stopped_child(*command: str) -> subprocess.Popen[bytes]:
    """Start a program in a process group of its own, as a shell does, and return it when it has stopped."""
    child = subprocess.Popen(command, process_group=0)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), status
    return child


def end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


@pytest.fixture
def neighbour(tmp_path: Path) -> Iterator[int]:
    """A stopped process that is among a journal's living."""
    code = (
        "import os, pathlib, signal, sys; from llamaduo.service.liveness import Owner\n"
        "owner = Owner(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGSTOP)"
    )
    child = stopped_child(sys.executable, "-c", code, str(tmp_path / "live"))
    yield child.pid
    end(child)


ASKS = """
import os, signal, sys
from pathlib import Path
from llamaduo.config import Price, ServiceLLM
from llamaduo.service import loading
from llamaduo.service.client import Service
from llamaduo.service.journal import Journal
from llamaduo.service.requests import Request
loading.register(sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGSTOP))
llm = ServiceLLM(name="m", provider=sys.argv[2], model="m", max_tokens=64, price=Price(0.0, 0.0, "free"))
service = Service(Journal(Path(sys.argv[1]) / "journal.sqlite"), run="study/another", budget_usd=None)
service.ask([Request(llm, "a prompt", None, 0, "judge")], lambda *_: None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who is stopped")
def test_a_run_says_which_stopped_process_it_waits_for(
    llm: LLM, open_service: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buying, "_SAY_S", 0.2)
    fake = llm(lambda *_: "a reply")
    child = stopped_child(sys.executable, "-c", ASKS, str(tmp_path), fake.provider)
    given_up = threading.Timer(60, child.kill)
    given_up.start()
    told: list[str] = []

    def heard(text: str) -> None:
        told.append(text)
        end(child)

    service = open_service()
    service.says = heard
    (reply,) = service.ask([ask_for(fake, "a prompt")], silent)
    given_up.cancel()
    end(child)
    assert isinstance(reply, Reply)
    assert [f"process {child.pid}, which is stopped (kill -CONT" in text for text in told] == [True]


@pytest.mark.parametrize("what", ["journal", "limits"])
def test_ctrl_z_waits_until_what_others_need_is_let_go(what: str, tmp_path: Path) -> None:
    child = stopped_child(sys.executable, "-c", HOLDS, str(tmp_path), what)
    try:
        assert (tmp_path / "went on").exists()
        db = sqlite3.connect(tmp_path / "journal.sqlite", timeout=0, isolation_level=None)
        db.execute("BEGIN IMMEDIATE")
        db.close()
        for path in tmp_path.glob("limits/*.json"):
            with path.open() as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(child.pid, signal.SIGCONT)
        assert child.wait(30) == 0
    finally:
        end(child)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who is stopped")
def test_who_holds_the_journal_while_stopped_is_named(
    neighbour: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "_LOOKS_S", 0.01)
    monkeypatch.setattr(journals, "_LOOKS", 5)
    journal, said = Journal(tmp_path / "journal.sqlite"), []
    journal.says = said.append
    holder = sqlite3.connect(journal.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(InputError, match=f"process {neighbour}, which is stopped .* holds it"):
        journal.write_now(lambda db: None)
    assert len(said) == 1
    assert f"waiting for process {neighbour}, which is stopped (kill -CONT {neighbour}" in said[0]
    holder.execute("ROLLBACK")
    assert journal.write_now(lambda db: 7) == 7
    journal.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who is stopped")
def test_a_lock_of_limits_that_somebody_stopped_with_is_gone_without_and_told(
    neighbour: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_TRIES", 20)
    said: list[str] = []
    llm = ServiceLLM(name="m", provider="openai", model="m")
    gate = Gate(llm, tmp_path / "limits", "me", tmp_path / "live", said.append)
    (path,) = tmp_path.glob("limits/*.json")

    async def asks() -> None:
        for _ in range(3):
            async with gate.slot(tokens=1, tries=1):
                pass

    with path.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        given_up = threading.Timer(60, lambda: fcntl.flock(held, fcntl.LOCK_UN))
        given_up.start()
        asyncio.run(asks())
        waited_for_ever = not given_up.is_alive()
        given_up.cancel()
    gate.close()
    assert not waited_for_ever
    assert [f"process {neighbour}, which is stopped" in text for text in said] == [True]


def test_nobody_is_stopped_where_nobody_lives(tmp_path: Path) -> None:
    assert stopped(tmp_path / "live") == []
