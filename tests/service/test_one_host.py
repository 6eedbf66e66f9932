"""A journal on a network file system belongs to one machine at a time; on a local disk nothing is marked."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llamaduo.environment import network_file_system
from llamaduo.errors import InputError
from llamaduo.service import one_host
from llamaduo.service.journal import Journal

On = Callable[[str], None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> On:
    """Let journals lie on a network file system, and return a function that goes to a machine; it is node1's turn."""
    monkeypatch.setattr(one_host, "network_file_system", lambda path: "nfs4")
    monkeypatch.setattr("socket.gethostname", lambda: "node1")
    return lambda host: monkeypatch.setattr("socket.gethostname", lambda: host)


def test_the_longest_mount_point_tells_the_file_system(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    shared = tmp_path / "shared home"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {str(shared).replace(' ', chr(92) + '040')} nfs4 rw 0 0\n")
    assert network_file_system(shared / "a" / "b", mounts) == "nfs4"
    assert network_file_system(tmp_path / "local", mounts) is None
    assert network_file_system(shared, tmp_path / "absent") is None


def test_a_second_machine_is_refused_while_the_first_has_it_open(tmp_path: Path, path: Path, on: On) -> None:
    first, second = Journal(path), Journal(path)
    on("node2")
    with pytest.raises(InputError, match=r"nfs4 and node1 uses it.*journal import"):
        Journal(path)
    first.close()
    with pytest.raises(InputError, match="node1 uses it"):
        Journal(path)
    second.close()
    Journal(path).close()
    assert not [left for left in os.listdir(tmp_path) if "host" in left]


def test_what_a_killed_process_left_binds_the_same_machine_not_at_all(path: Path, on: On) -> None:
    one_host.claim(path)
    Journal(path).close()
    assert not path.with_name("journal.sqlite.host").exists()


def test_a_mark_that_goes_between_the_link_and_the_look_is_made_again(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, on: On
) -> None:
    mark = tmp_path / "journal.sqlite.host"
    mark.write_text("node2")
    link, tries = os.link, []

    def late(source: Path, target: Path) -> None:
        tries.append(target)
        try:
            link(source, target)
        except FileExistsError:
            mark.unlink()  # node2 closes the journal just now
            raise

    monkeypatch.setattr(os, "link", late)
    assert one_host.claim(path) == mark
    assert len(tries) == 2
    assert mark.read_text() == "node1"


def test_the_mark_stays_when_the_last_one_closes_while_the_next_one_opens(
    path: Path, monkeypatch: pytest.MonkeyPatch, on: On
) -> None:
    """The first process closes at the moment when the second one has seen the mark, but has no journal open yet."""
    first, claim = Journal(path), one_host.claim

    def seen(journal: Path) -> Path | None:
        mark = claim(journal)
        first.close()
        return mark

    monkeypatch.setattr("llamaduo.service.journal.claim", seen)
    second = Journal(path)
    on("node2")
    monkeypatch.setattr("llamaduo.service.journal.claim", claim)
    with pytest.raises(InputError, match="node1 uses it"):
        Journal(path)
    second.close()
    Journal(path).close()


def test_a_refused_process_holds_nothing(tmp_path: Path, path: Path, on: On) -> None:
    (tmp_path / "journal.sqlite.host").write_text("node2")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError, match="node2 uses it"):
        Journal(path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_local_disk_needs_no_mark(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    assert not (tmp_path / "journal.sqlite.host").exists()
    journal.close()
