"""Without a network the Hub's clients are put offline, once and soon: no answer, no such name, a slow name server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

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


COMMANDS = {
    "quote": ("data=hub", "data.path=a/b", f"data.revision={'0' * 40}"),
    "run": ("data=file", "data.path=rows.jsonl", "local_model=gemma_2b"),
}
LIBRARY = {"quote": "datasets", "run": "transformers"}
"""What takes long to load, and isn't timed."""
WAITED_S = 15.0
"""Retrying, the Hub's clients take 25 s and more."""
TIMED = """
import sys, time
import {library}
from llamaduo.cli import main
began = time.monotonic()
code = main(sys.argv[1:])
print("TOOK", code, time.monotonic() - began)
"""


@pytest.mark.parametrize(("command", "exit_code"), [("quote", "4"), ("run", "2")])
def test_a_command_without_a_network_ends_with_one_line_and_tries_once(
    command: str, exit_code: str, tmp_path: Path
) -> None:
    rows = [{"prompt": f"prompt {n} {chr(97 + n % 26) * 5}", "response": f"response {n}"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    environment = {name: value for name, value in os.environ.items() if name not in offline}
    environment |= {"HF_ENDPOINT": "http://nothing.invalid", "HF_HOME": str(tmp_path / "hub")}
    arguments = [command, *COMMANDS[command], "judge=reference", "synthesis=none"]
    code = TIMED.replace("{library}", LIBRARY[command])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False,
        timeout=100,
    )  # fmt: skip
    code, seconds = done.stdout.split("TOOK ")[1].split()
    assert (code, len(done.stderr.splitlines())) == (exit_code, 1), done.stderr
    assert "the Hub can't be reached" in done.stderr
    assert float(seconds) < WAITED_S
