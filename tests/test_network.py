"""Without a network the Hub's clients are put offline, once and soon: no answer, no such name, a slow name server."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from llamaduo import environment as network
from llamaduo.environment import answers, settle_hub


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(network, "_PATIENCE_S", 0.3)
    answers.cache_clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Return a server that takes connections and never says anything, in the Hub's place."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{made.getsockname()[1]}")
        yield made


def offline() -> bool:
    settle_hub()
    assert bool(constants.HF_HUB_OFFLINE) == (os.environ["HF_HUB_OFFLINE"] == "1")
    return bool(constants.HF_HUB_OFFLINE)


@pytest.mark.usefixtures("server")
def test_a_server_that_swallows_everything_does_not_answer() -> None:
    assert offline()


def test_any_answer_is_one(server: socket.socket) -> None:
    def refuse() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    network._PATIENCE_S = 20.0
    threading.Thread(target=refuse, daemon=True).start()
    assert not offline()


def test_a_name_that_is_not_found_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://nothing.invalid")
    assert offline()


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hangs(*_: object, **__: object) -> None:
        over.wait(30)
        raise socket.gaierror("nobody knows")

    monkeypatch.setattr(socket, "getaddrinfo", hangs)
    monkeypatch.setattr(constants, "ENDPOINT", "http://somewhere.example")
    assert offline()
    assert not over.is_set()
    over.set()


def test_who_is_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(network, "answers", lambda address: pytest.fail(f"{address} was asked"))
    settle_hub()
