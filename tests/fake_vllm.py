"""A program that stands in for `vllm`: it takes the same arguments and speaks the same wire format, without a model.

    python tests/fake_vllm.py serve MODEL --port 8000 --enable-lora --lora-modules '{"name": ..., "path": ...}' ...

Prompts become tokens by the tokenizer and the chat template that it is given. What it says follows from prompt, seed
and model. The variable FAKE_VLLM makes it fail in one of the ways of `WAYS`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

WAYS = {
    "ignores_adapter": "serves the base model under the adapter's name",
    "noisy": "the same, and log-probabilities differ from call to call",
    "other_template": "renders prompts in its own way",
    "no_logprobs": "tells no log-probabilities",
    "never_ready": "is never healthy",
    "dies": "ends while it starts",
    "dies_later": "ends at the third request for an answer",
    "stubborn": "takes no notice of SIGTERM",
}
NUMBERS = ("--port", "--max-model-len", "--max-num-seqs", "--seed", "--max-lora-rank", "--max-loras")
TEXTS = (
    "--host", "--served-model-name", "--tokenizer", "--tokenizer-revision", "--revision", "--dtype", "--quantization",
    "--generation-config", "--lora-modules", "--chat-template", "--chat-template-content-format",
)  # fmt: skip
SWITCHES = ("--enable-lora", "--trust-remote-code")


def drawn(*parts: Any) -> float:
    """Return a number between 0 and 1 that depends on the parts alone."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:6]) / 2**48


class Model:
    """What is served, and how it fails."""

    def __init__(self, told: argparse.Namespace, way: str) -> None:
        self.told, self.way, self.calls = told, way, 0
        self.tokenizer = Tokenizer.from_file(f"{told.tokenizer}/tokenizer.json")
        self.special = json.loads(Path(told.tokenizer, "tokenizer_config.json").read_text())
        written_as = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        template = re.sub(r"{%-? (end)?generation -?%}", "", Path(told.chat_template).read_text())
        self.template = written_as.from_string(template)
        self.adapter = json.loads(told.lora_modules) if told.enable_lora else None
        if self.adapter:
            assert Path(self.adapter["path"], "adapter_config.json").is_file()

    def names(self) -> list[str]:
        return [self.told.served_model_name, *([self.adapter["name"]] if self.adapter else [])]

    def who(self, name: str) -> str:
        """Return the model that answers for a name."""
        assert name in self.names()
        return self.told.served_model_name if self.way in ("ignores_adapter", "noisy") else name

    def prompt_ids(self, messages: list[dict[str, str]]) -> list[int]:
        named = {name: self.special.get(name) for name in ("bos_token", "eos_token")}
        text = self.template.render(messages=messages, add_generation_prompt=True, **named)
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        if self.way == "other_template":
            messages = [{"role": "user", "content": " " + message["content"]} for message in messages]
        ids = self.prompt_ids(messages)
        assert len(ids) + body["max_tokens"] <= self.told.max_model_len
        who = self.who(body["model"])
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": f" {who} {body.get('seed')} {messages[-1]['content']}"}
        if body.get("logprobs") and self.way != "no_logprobs":
            noise = time.monotonic_ns() if self.way == "noisy" else 0
            said = [
                {"token": f"t{at}", "logprob": -drawn(who, ids, at) - 0.01 * drawn(noise, at)}
                for at in range(body["max_tokens"])
            ]
            choice["logprobs"] = {"content": said}
        usage = {"prompt_tokens": len(ids), "completion_tokens": 5, "total_tokens": len(ids) + 5}
        told = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"]}
        told |= {"choices": [choice], "usage": usage}
        return told | ({"prompt_token_ids": ids} if body.get("return_token_ids") else {})


def handler(model: Model, takes_down: str | None) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                self.reply(503 if model.way == "never_ready" else 200, {})
            else:
                self.reply(200, {"data": [{"id": name} for name in model.names()]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if takes_down:
                with open(takes_down, "a") as file:
                    file.write(json.dumps(body) + "\n")
            model.calls += "logprobs" not in body
            if model.way == "dies_later" and model.calls >= 3:
                print("CudaError: the GPU fell off the bus", flush=True)
                os._exit(7)
            self.reply(200, model.answer(body))

        def reply(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("serve", choices=["serve"])
    parser.add_argument("model")
    for name in NUMBERS:
        parser.add_argument(name, type=int)
    for name in TEXTS:
        parser.add_argument(name)
    for name in SWITCHES:
        parser.add_argument(name, action="store_true")
    told = parser.parse_args()
    way = os.environ.get("FAKE_VLLM", "")
    assert not way or way in WAYS
    if place := os.environ.get("FAKE_VLLM_PID"):
        Path(place).write_text(str(os.getpid()))
    if way == "stubborn":
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if way == "dies":
        print("INFO loading\nValueError: Free memory on device is less than desired\nbye", file=sys.stderr)
        sys.exit(3)
    served = handler(Model(told, way), os.environ.get("FAKE_VLLM_REQUESTS"))
    ThreadingHTTPServer((told.host, told.port), served).serve_forever()


if __name__ == "__main__":
    main()
