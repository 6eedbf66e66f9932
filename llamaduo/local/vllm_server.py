"""A vLLM server of our own: started, waited for, and always stopped.

    with serving(arguments(job), template, job.runtime) as server:
        server.ask("/v1/chat/completions", {...})

vLLM lives in an environment of its own; `infer.vllm` names its program, and all else goes over HTTP on this machine.
The server ends with the block, with this process, and at Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamaduo.config import Infer, Quantization, Runtime, model_location
from llamaduo.environment import gpus
from llamaduo.errors import ConfigError, InputError, ServiceError
from llamaduo.files.scratch import scratch_folder
from llamaduo.local.job import AnswerJob
from llamaduo.redaction import redact

BASE, ADAPTER = "base", "adapter"
"""The names that the server has for the two models."""
KEY = "VLLM_API_KEY"
"""The variable from which vLLM itself takes the key that it asks for."""

_START_S = 1800.0
"""Room for fetching weights, loading them and capturing CUDA graphs."""
_STOP_S = 30.0
_LOOK_S = 0.5
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as --max-lora-rank."""
_DIES_WITH_US = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit("whoever started this is gone")
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Turns into the program that it is given, which then gets SIGTERM when this process dies, of SIGKILL too."""


def program(config: Infer) -> str:
    """Return the path of vLLM's program; raises ConfigError if there is none."""
    found = shutil.which(config.vllm)
    if found is None:
        raise ConfigError(
            f"infer.vllm={config.vllm}: there is no such program. Install vLLM in an environment of its own and give "
            "its path (infer.vllm=ENV/bin/vllm), or take infer=default."
        )
    return found


def arguments(job: AnswerJob) -> list[str]:
    """Return vLLM's program and its arguments, all but port and chat template (flags as of vLLM 0.32)."""
    model, config, runtime, adapter = job.model, job.config, job.runtime, job.adapter
    usual = "bfloat16" if gpus() and runtime.device != "cpu" else "float32"
    told: dict[str, Any] = {
        "--served-model-name": BASE,
        "--tokenizer": model_location(model.tokenizer or model.path),
        "--dtype": usual if runtime.dtype == "auto" else runtime.dtype,
        "--max-model-len": model.context,
        "--max-num-seqs": config.batch_size,
        "--seed": runtime.seed,
        "--generation-config": "vllm",  # no top_p, top_k or temperature of the model's own
    }
    told |= {"--revision": model.revision} if model.revision else {}
    pinned = model.tokenizer_revision if model.tokenizer else model.revision
    told |= {"--tokenizer-revision": pinned} if pinned else {}
    if job.quantization is Quantization.nf4:
        told["--quantization"] = "bitsandbytes"  # made at loading, as nf4 with double quantisation
    if adapter is not None:
        place = {"name": ADAPTER, "path": str(Path(adapter).resolve()), "base_model_name": BASE}
        told |= {"--max-lora-rank": _rank(Path(adapter)), "--max-loras": 1, "--lora-modules": json.dumps(place)}
    switches = ["--enable-lora"] if adapter is not None else []
    switches += ["--trust-remote-code"] if model.trust_remote_code else []
    listed = [str(word) for pair in told.items() for word in pair]
    return [program(config), "serve", model_location(model.path), *listed, *switches]


def _rank(adapter: Path) -> int:
    """Return the least --max-lora-rank that holds an adapter; raises ConfigError for what vLLM can't apply whole."""
    try:
        known = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        rank = max(known["r"], *known.get("rank_pattern", {}).values(), 0)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{adapter}: no adapter of peft's can be read there ({error}).") from error
    if known.get("trainable_token_indices") or known.get("modules_to_save"):
        raise ConfigError(
            f"{adapter} holds embedding rows of tokens that the base model never saw, which vLLM does not apply: take "
            "infer=default, or a tokenizer without such tokens."
        )
    if rank > _RANKS[-1]:
        raise ConfigError(f"train.lora_r={rank}: vLLM takes adapters up to rank {_RANKS[-1]}; take infer=default.")
    return next(least for least in _RANKS if least >= rank)


@contextlib.contextmanager
def serving(command: Sequence[str], template: str, runtime: Runtime) -> Iterator[Server]:
    """Run vLLM until the block ends, however it ends; it renders prompts with the chat template `template`."""
    with scratch_folder() as place:
        log, port = place / "log.txt", _free_port()
        (place / "template.jinja").write_text(template, encoding="utf-8")
        shown = ["--chat-template", str(place / "template.jinja"), "--chat-template-content-format", "string"]
        process = _start([*command, *shown, "--host", "127.0.0.1", "--port", str(port)], log, runtime)
        try:
            server = Server(f"http://127.0.0.1:{port}", place)
            _wait_until_ready(server, process, log)
            try:
                yield server
            except ServiceError as error:
                if process.poll() is None:
                    raise
                raise ServiceError(f"vLLM ended meanwhile (exit code {process.returncode}): {_last(log)}") from error
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _start(command: Sequence[str], log: Path, runtime: Runtime) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, so that a Ctrl-C reaches it through `_stop` alone."""
    with log.open("wb") as written:
        return subprocess.Popen(
            [sys.executable, "-c", _DIES_WITH_US, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            env=_environment(runtime),
            start_new_session=True,
        )


def _environment(runtime: Runtime) -> dict[str, str]:
    """Return the environment of another Python's program, which sees the GPU of `runtime.device` if it is numbered."""
    told = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    if runtime.device.startswith("cuda:"):
        number = int(runtime.device.removeprefix("cuda:"))
        seen = [name for name in told.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        told["CUDA_VISIBLE_DEVICES"] = seen[number] if number < len(seen) else str(number)
    return told


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and whatever it has started, patiently first."""
    try:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not server.is_ready():
        if process.poll() is not None:
            raise ServiceError(f"vLLM did not start (exit code {process.returncode}): {_last(log)}")
        if time.monotonic() > deadline:
            raise ServiceError(f"vLLM was not ready after {_START_S:g} s: {_last(log)}")
        time.sleep(_LOOK_S)


def _last(log: Path) -> str:
    """Return the last three lines of a log that name an error, else its last three."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    telling = list(dict.fromkeys(line for line in lines if "Error" in line)) or lines
    return redact(" | ".join(line[-300:] for line in telling[-3:])) or "it said nothing"


@dataclass(frozen=True)
class Server:
    """A vLLM server."""

    url: str
    scratch: Path
    """A folder that lives as long as the server."""

    def is_ready(self) -> bool:
        """Tell whether it is up and has our models: somebody else's server may have got the port."""
        try:
            self.ask("/health", timeout=5)
            known = {entry["id"] for entry in json.loads(self.ask("/v1/models", timeout=5))["data"]}
        except (OSError, ValueError, LookupError, TypeError):
            return False
        return BASE in known

    def ask(self, path: str, body: Mapping[str, Any] | None = None, *, timeout: float) -> bytes:
        """Send a request, past any proxy, and return what comes; raises OSError."""
        headers = {"Content-Type": "application/json"}
        if os.environ.get(KEY):
            headers["Authorization"] = f"Bearer {os.environ[KEY]}"
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310 - http to this machine
        with opener.open(request, timeout=timeout) as answer:
            return bytes(answer.read())
