"""Liveness: an owner is alive until it is closed or its process ends, however it ends."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llamaduo.service.liveness import Owner, alive, who


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep/live"


def test_an_owner_lives_until_it_is_closed(folder: Path) -> None:
    owner, other = Owner(folder), Owner(folder)
    assert owner.name != other.name
    assert alive(folder, owner.name)
    assert alive(folder, owner.name)  # asking changes nothing
    owner.close()
    assert not alive(folder, owner.name)
    assert alive(folder, other.name)
    other.close()
    assert list(folder.iterdir()) == []


def test_nobody_is_not_alive(folder: Path) -> None:
    assert not alive(folder, "nobody")  # nor is there a folder
    folder.mkdir(parents=True)
    assert not alive(folder, "nobody")


def forked(folder: Path, then: Callable[[], None]) -> tuple[int, str]:
    """Return the id and the owner's name of a child that has an owner and does what it is told."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, Owner(folder).name.encode())
            then()
        finally:
            os._exit(1)
    os.close(write)
    name = os.read(read, 64).decode()
    os.close(read)
    return child, name


def kill(child: int) -> None:
    """Kill a child, and wait until it has died."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_owner_of_another_process_lives_as_long_as_that(folder: Path) -> None:
    child, name = forked(folder, signal.pause)
    assert alive(folder, name)
    kill(child)
    assert not alive(folder, name)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "end", [lambda: os._exit(0), lambda: os.execv("/bin/true", ["true"]), lambda: os.kill(os.getpid(), signal.SIGTERM)]
)
def test_it_is_dead_however_the_process_ends(end: Callable[[], None], folder: Path) -> None:
    child, name = forked(folder, end)
    os.waitpid(child, 0)
    assert not alive(folder, name)


def test_a_stopped_process_is_alive(folder: Path) -> None:
    child, name = forked(folder, signal.pause)
    os.kill(child, signal.SIGSTOP)
    os.waitpid(child, os.WUNTRACED)
    assert alive(folder, name)
    kill(child)
    assert not alive(folder, name)


def test_a_program_that_was_started_does_not_keep_its_parent_alive(folder: Path) -> None:
    """A child that runs another program inherits no lock."""
    code = (
        "import subprocess, sys, pathlib\n"
        "from llamaduo.service.liveness import Owner\n"
        "owner = Owner(pathlib.Path(sys.argv[1]))\n"
        "child = subprocess.Popen(['sleep', '60'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(owner.name, child.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    name, child = done.stdout.split()
    assert not alive(folder, name)
    os.kill(int(child), signal.SIGKILL)


def test_many_may_ask_at_once(folder: Path) -> None:
    owner = Owner(folder)
    child, dead = forked(folder, signal.pause)
    kill(child)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: alive(folder, owner.name), range(400)))
        list(pool.map(lambda _: alive(folder, dead), range(100)))
    assert not alive(folder, dead)
    owner.close()


def test_a_new_owner_is_never_seen_dead(folder: Path) -> None:
    def come() -> None:
        owners = [Owner(folder) for _ in range(200)]
        while owners:
            signal.pause()

    child, _ = forked(folder, come)
    seen: set[str] = set()
    while len(seen) < 201:
        seen = {path.name for path in folder.glob("[!.]*")}
        assert all(alive(folder, name) for name in seen)
    kill(child)
    assert not any(alive(folder, name) for name in seen)


def test_its_file_is_for_its_user_alone(folder: Path) -> None:
    owner = Owner(folder)
    assert stat.S_IMODE((folder / owner.name).stat().st_mode) == 0o600
    owner.close()


def test_who_is_waited_for_is_named_and_a_stopped_one_with_how_it_goes_on(tmp_path: Path) -> None:
    owner = Owner(tmp_path)
    assert who(tmp_path, owner.name) == f"process {os.getpid()}"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (tmp_path / "other").write_text(str(other.pid), encoding="ascii")
        os.kill(other.pid, signal.SIGSTOP)
        os.waitpid(other.pid, os.WUNTRACED)
        stopped = who(tmp_path, "other")
        other.kill()
    if sys.platform == "linux":
        assert stopped.startswith(f"process {other.pid}, which is stopped (kill -CONT {other.pid} lets it go on")
    assert who(tmp_path, "nobody") == "another process"
    owner.close()
