"""A stand-in service LLM over HTTP that speaks the wire formats of OpenAI, Anthropic and Gemini, faults included.

    python tests/wire_double.py --port 0 --median-s 1 --sigma 0.3 --fault 429=0.03 --fault 500=0.02

prints `{"port": N}` when it listens, and answers until it is stopped:

    POST /v1/chat/completions, GET /v1/models, /v1/files ..., /v1/batches ...    OpenAI
    POST /v1/messages                                                            Anthropic
    POST /v1beta/models/{model}:generateContent                                  Gemini
    POST /control    changes any field of `Settings`; {"reset": true} forgets what came so far
    GET /bill        what was billed, every call's timeline, the peak concurrency, and how 429s were waited out

Latencies and faults are drawn by `seed`, prompt and attempt, so they are the same whatever the order of arrival
and whoever asks. Inside tests and benchmarks, `with serving(Settings(...)) as double:` runs it as a process of its
own. The bill file gets its line before the answer goes out: it tells what was paid, whatever happened afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import email.utils
import hashlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

PROVIDERS = ("openai", "anthropic", "gemini")
STATUSES = ("400", "401", "403", "404", "408", "429", "500", "503", "529")
REFUSALS = ("context", "policy", "quota")
"""A prompt too long, a prompt against the rules, and an account without credit, in each provider's own way."""
CUTS = ("drop_on_arrival", "drop_before_headers", "drop_after_headers", "cut_body")
ODD_ANSWERS = ("error_200", "empty", "length", "hang")
KINDS = (*STATUSES, *REFUSALS, *CUTS, *ODD_ANSWERS)
_AT_ONCE = {"400", "401", "403", "404", "429", "529", *REFUSALS, "drop_on_arrival"}
_NORMAL = statistics.NormalDist()


@dataclass
class Settings:
    """What the double does; every field is an option of the command line and a key of POST /control."""

    seed: int = 1
    median_s: float = 0.0
    """Median latency; 0 answers at once."""
    sigma: float = 0.0
    """Sigma of the log-normal latency."""
    faults: dict[str, float] = field(default_factory=dict)
    """Probability of each kind of fault (`KINDS`) for an attempt."""
    script: list[str] = field(default_factory=list)
    """Faults of the first, second ... attempt of every call, in place of `faults`; "ok" and beyond its end: none."""
    scripts: dict[str, list[str]] = field(default_factory=dict)
    """The same for calls whose prompt contains a text."""
    endpoint_scripts: dict[str, list[str]] = field(default_factory=dict)
    """Faults of successive requests to the files and batches endpoints, by "POST /v1/batches" and the like (an id in
    the address is written {id}). What drops or cuts the answer does so after the work is done."""
    retry_after_s: float = 1.0
    retry_after_form: str = "seconds"
    """seconds, date, body (Gemini's RetryInfo alone, no header) or none; Gemini's body tells it unless none."""
    rps: float | None = None
    """Calls a second, exactly: a token bucket that holds one second's worth; beyond it calls get a 429."""
    hang_s: float = 3600.0
    says: str = "echo"
    """echo, judge (a verdict), pocket (the pocket LLM's reply) or text:SOMETHING."""
    bodies: dict[str, str] = field(default_factory=dict)
    """The very body to answer with, billed, by a text that the prompt contains."""
    statuses: dict[str, int] = field(default_factory=dict)
    """The status that such a body comes with in place of 200; it isn't billed then."""
    finish_reason: str = "stop"
    """In OpenAI's words: stop, length (the text loses its last third) or content_filter."""
    echo_secrets: bool = False
    """Repeat the keys that came with a request inside error messages."""
    echo_in_replies: bool = False
    """Repeat them inside what comes with status 200."""
    keep_requests: bool = False
    """Tell each call's address, headers and body in the bill."""
    batch_polls: int = 1
    """A batch ends when it is asked for the n-th time; until then it is in progress (0: at its creation)."""
    batch_outcome: str = "completed"
    """completed, expired or failed (at validation)."""
    batch_share: float = 0.5
    """Share of the rows that are done when a batch expires or is cancelled."""
    batch_error_share: float = 0.0
    """Share of the rows that end in the error file."""
    bill_path: str | None = None

    def __post_init__(self) -> None:
        unknown = {*self.faults, *self.script, *(k for s in self.scripts.values() for k in s)} - {*KINDS, "ok"}
        if unknown:
            raise ValueError(f"unknown faults {sorted(unknown)}; there are {', '.join(KINDS)}")


def draw(settings: Settings, what: str, prompt: str, attempt: int) -> float:
    """Return a number between 0 and 1 that depends on these alone."""
    told = f"{settings.seed}\n{what}\n{attempt}\n{prompt}".encode(errors="replace")
    return (int.from_bytes(hashlib.sha256(told).digest()[:6]) + 0.5) / 2**48


def latency(settings: Settings, prompt: str, attempt: int) -> float:
    """Return how many seconds an attempt takes."""
    if not settings.median_s:
        return 0.0
    return settings.median_s * math.exp(settings.sigma * _NORMAL.inv_cdf(draw(settings, "latency", prompt, attempt)))


def fault(settings: Settings, prompt: str, attempt: int) -> str | None:
    """Return the kind of fault that an attempt meets."""
    script = next((script for text, script in settings.scripts.items() if text in prompt), settings.script)
    if script:
        kind = script[attempt - 1] if attempt <= len(script) else "ok"
        return None if kind == "ok" else kind
    drawn = draw(settings, "fault", prompt, attempt)
    for kind, probability in settings.faults.items():
        drawn -= probability
        if drawn < 0:
            return kind
    return None


def tokens(text: str) -> int:
    """Return how many tokens a text counts as: a quarter of its bytes."""
    return max(1, len(text.encode(errors="replace")) // 4)


def body_hash(model: str, body: Any) -> str:
    """Return a hash of the model and a request's body, whatever the order of its keys."""
    canonical = json.dumps([model, body], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]


def said(settings: Settings, prompt: str, parameters: dict[str, Any]) -> str:
    """Return the text of an answer, before a finish reason cuts it."""
    if settings.says == "judge":
        digest = hashlib.sha256(prompt.encode(errors="replace")).digest()
        named = zip(("similarity", "precision"), digest[:2], strict=True)
        return json.dumps({name: {"reason": "as drawn", "score": byte * 100 // 255} for name, byte in named})
    if settings.says == "pocket":
        sys.path.insert(0, str(Path(__file__).parents[1]))
        from llamaduo.pocket.teacher import reply

        return reply(prompt, parameters)
    return settings.says.removeprefix("text:") if settings.says.startswith("text:") else f"echo: {prompt}"


@dataclass(frozen=True)
class Answer:
    """What a model said, for the wire formats to put into their words."""

    model: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    number: str
    """Identifies the answer."""


@dataclass(frozen=True)
class Trouble:
    """An error, for the wire formats to put into their words."""

    status: int
    kind: str
    message: str
    retry_after: float | None
    number: str


_MESSAGES = {
    "400": "Invalid value: the request is malformed.",
    "401": "Incorrect API key provided.",
    "403": "This key may not use this model.",
    "404": "The model does not exist or you do not have access to it.",
    "408": "The request timed out.",
    "429": "Rate limit reached for requests. Please try again later.",
    "500": "The server had an error while processing your request.",
    "503": "The server is overloaded or not ready yet.",
    "529": "Overloaded",
}


def _joined(content: Any) -> str:
    """Return the text of a message's content: a string, or parts."""
    if isinstance(content, list):
        return "\n".join(_joined(part) for part in content)
    return str(content.get("text", "")) if isinstance(content, dict) else str(content or "")


class OpenAI:
    """The chat completions of OpenAI."""

    name = "openai"
    messages = {
        "context": "This model's maximum context length is 8192 tokens. However, your messages have 9001 tokens.",
        "policy": "Your request was rejected as a result of our safety system.",
        "quota": "You exceeded your current quota, please check your plan and billing details.",
    }
    refusal_status = {"context": 400, "policy": 400, "quota": 429}
    _types: dict[str, tuple[str, str | None]] = {
        "400": ("invalid_request_error", None),
        "401": ("invalid_request_error", "invalid_api_key"),
        "403": ("request_forbidden", "unsupported_country_region_territory"),
        "404": ("invalid_request_error", "model_not_found"),
        "408": ("timeout", "request_timeout"),
        "429": ("requests", "rate_limit_exceeded"),
        "context": ("invalid_request_error", "context_length_exceeded"),
        "policy": ("invalid_request_error", "content_policy_violation"),
        "quota": ("insufficient_quota", "insufficient_quota"),
    }

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        return "\n".join(_joined(message.get("content")) for message in body["messages"])

    @staticmethod
    def answer(answer: Answer) -> dict[str, Any]:
        spent = {"cached_tokens": 0, "audio_tokens": 0}
        message = {"role": "assistant", "content": answer.text, "refusal": None, "annotations": []}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
        usage = {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens + answer.completion_tokens,
            "prompt_tokens_details": spent,
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        }
        return {
            "id": f"chatcmpl-{answer.number}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": answer.model,
            "choices": [choice],
            "usage": usage,
            "service_tier": "default",
            "system_fingerprint": "fp_double",
        }

    @classmethod
    def error(cls, trouble: Trouble) -> dict[str, Any]:
        kind, code = cls._types.get(trouble.kind, ("server_error", None))
        return {"error": {"message": trouble.message, "type": kind, "param": None, "code": code}}

    @staticmethod
    def error_200(message: str, number: str) -> dict[str, Any]:
        return {"error": {"message": message, "code": 502}, "user_id": f"user_{number}"}

    @staticmethod
    def headers(number: str, seconds: float) -> dict[str, str]:
        return {
            "x-request-id": f"req_{number}",
            "openai-processing-ms": str(round(seconds * 1000)),
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-reset-requests": "6ms",
        }


class Anthropic:
    """The messages of Anthropic."""

    name = "anthropic"
    messages = {
        "context": "prompt is too long: 210000 tokens > 200000 maximum",
        "policy": "Output blocked by content filtering policy",
        "quota": "Your credit balance is too low to access the Anthropic API.",
    }
    refusal_status = {"context": 400, "policy": 400, "quota": 400}
    _types = {
        "401": "authentication_error",
        "403": "permission_error",
        "404": "not_found_error",
        "408": "timeout_error",
        "429": "rate_limit_error",
        "500": "api_error",
        "503": "api_error",
        "529": "overloaded_error",
    }
    _stops = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        system = [_joined(body["system"])] if body.get("system") else []
        return "\n".join([*system, *(_joined(message.get("content")) for message in body["messages"])])

    @classmethod
    def answer(cls, answer: Answer) -> dict[str, Any]:
        return {
            "id": f"msg_{answer.number}",
            "type": "message",
            "role": "assistant",
            "model": answer.model,
            "content": [{"type": "text", "text": answer.text}] if answer.text else [],
            "stop_reason": cls._stops[answer.finish_reason],
            "stop_sequence": None,
            "usage": {
                "input_tokens": answer.prompt_tokens,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": answer.completion_tokens,
                "service_tier": "standard",
            },
        }

    @classmethod
    def error(cls, trouble: Trouble) -> dict[str, Any]:
        kind = cls._types.get(trouble.kind, "invalid_request_error")
        told = {"type": kind, "message": trouble.message}
        return {"type": "error", "error": told, "request_id": f"req_{trouble.number}"}

    @classmethod
    def error_200(cls, message: str, number: str) -> dict[str, Any]:
        return cls.error(Trouble(200, "529", message, None, number))

    @staticmethod
    def headers(number: str, seconds: float) -> dict[str, str]:
        return {
            "request-id": f"req_{number}",
            "anthropic-ratelimit-requests-limit": "4000",
            "anthropic-ratelimit-requests-remaining": "3999",
        }


class Gemini:
    """The generateContent of Google's AI Studio."""

    name = "gemini"
    messages = {
        "context": "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
        "policy": "",
        "quota": "You exceeded your current quota, please check your plan and billing details.",
    }
    refusal_status = {"context": 400, "policy": 200, "quota": 429}
    _types = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "NOT_FOUND",
        408: "DEADLINE_EXCEEDED",
        429: "RESOURCE_EXHAUSTED",
        500: "INTERNAL",
    }
    _stops = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}

    @staticmethod
    def prompt(body: dict[str, Any]) -> str:
        system = body.get("systemInstruction") or body.get("system_instruction") or {}
        texts = [_joined(content.get("parts")) for content in ([system] if system else []) + body["contents"]]
        return "\n".join(texts)

    @classmethod
    def answer(cls, answer: Answer) -> dict[str, Any]:
        said_nothing = not answer.text or answer.finish_reason == "content_filter"
        content: dict[str, Any] = (
            {"role": "model"} if said_nothing else {"parts": [{"text": answer.text}], "role": "model"}
        )
        return {
            "candidates": [{"content": content, "finishReason": cls._stops[answer.finish_reason], "index": 0}],
            "usageMetadata": cls._usage(answer.prompt_tokens, answer.completion_tokens),
            "modelVersion": answer.model,
            "responseId": answer.number,
        }

    @staticmethod
    def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        return {
            "promptTokenCount": prompt_tokens,
            "candidatesTokenCount": completion_tokens,
            "totalTokenCount": prompt_tokens + completion_tokens,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt_tokens}],
        }

    @classmethod
    def error(cls, trouble: Trouble) -> dict[str, Any]:
        if trouble.kind == "policy":
            return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": cls._usage(8, 0)}
        told: dict[str, Any] = {
            "code": trouble.status,
            "message": trouble.message,
            "status": cls._types.get(trouble.status, "UNAVAILABLE"),
        }
        if trouble.retry_after is not None:
            delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{trouble.retry_after:g}s"}
            quota = {"quotaMetric": "generativelanguage.googleapis.com/generate_content_requests"}
            told["details"] = [
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [quota]},
                delay,
            ]
        return {"error": told}

    @classmethod
    def error_200(cls, message: str, number: str) -> dict[str, Any]:
        return cls.error(Trouble(503, "503", message, None, number))

    @staticmethod
    def headers(number: str, seconds: float) -> dict[str, str]:
        return {"server": "scaffolding on HTTPServer2", "server-timing": f"gfet4t7; dur={round(seconds * 1000)}"}


Wire = type[OpenAI] | type[Anthropic] | type[Gemini]


class Server:
    """The double's state and its handlers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._bill_file, self._epoch = -1, 0
        if settings.bill_path:
            self._bill_file = os.open(settings.bill_path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        self._requests = 0
        self._files: dict[str, dict[str, Any]] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._reset()

    def _reset(self) -> None:
        self._start = time.monotonic()
        self._epoch += 1
        self._calls: list[dict[str, Any]] = []
        self._billed: list[dict[str, Any]] = []
        self._arrivals: Counter[str] = Counter()
        self._attempts: Counter[str] = Counter()
        self._in_flight = self._peak = 0
        self._allowance, self._refilled = self.settings.rps or 0.0, self._start
        self._endpoint_requests: Counter[str] = Counter()

    def app(self) -> Any:
        from aiohttp import web

        app = web.Application(client_max_size=2**30)
        app.add_routes(
            [
                web.post("/v1/chat/completions", lambda request: self._call(request, OpenAI)),
                web.post("/v1/messages", lambda request: self._call(request, Anthropic)),
                web.post("/v1beta/models/{model}:generateContent", lambda request: self._call(request, Gemini)),
                web.get("/v1/models", self._models),
                web.post("/v1/files", self._work("POST /v1/files", self._upload)),
                web.get("/v1/files/{id}", self._work("GET /v1/files/{id}", self._file)),
                web.get("/v1/files/{id}/content", self._work("GET /v1/files/{id}/content", self._content)),
                web.post("/v1/batches", self._work("POST /v1/batches", self._create)),
                web.get("/v1/batches", self._work("GET /v1/batches", self._list)),
                web.get("/v1/batches/{id}", self._work("GET /v1/batches/{id}", self._poll)),
                web.post("/v1/batches/{id}/cancel", self._work("POST /v1/batches/{id}/cancel", self._cancel)),
                web.post("/control", self._control),
                web.get("/bill", self._bill),
            ]
        )
        return app

    def _now(self) -> float:
        return time.monotonic() - self._start

    def _number(self) -> str:
        self._requests += 1
        return f"{self._requests:08d}"

    # Calls

    async def _call(self, request: Any, wire: Wire) -> Any:
        """Take a call down, and answer it."""
        arrived, number = self._now(), self._number()
        try:
            body = json.loads(await request.read())
            model = request.match_info.get("model") or str(body["model"])
            prompt = wire.prompt(body)
        except (ValueError, LookupError, AttributeError, TypeError, ConnectionError) as error:
            return self._trouble(wire, "400", number, request, f"{_MESSAGES['400']} {error!r}")
        told = body_hash(model if wire is OpenAI else f"{wire.name}/{model}", body)
        call: dict[str, Any] = {"at": arrived, "provider": wire.name, "body": told, "again": self._arrivals[told]}
        call |= {"attempt": None, "fault": None, "latency": 0.0, "status": None, "answered": None, "billed": False}
        self._arrivals[told] += 1
        if self.settings.keep_requests:
            call["request"] = {"url": request.path_qs, "headers": dict(request.headers), "body": body}
        self._calls.append(call)
        epoch = self._epoch
        self._in_flight += 1
        self._peak = max(self._peak, self._in_flight)
        try:
            return await self._answer(request, wire, call, Asked(model, prompt, body, number))
        finally:
            self._in_flight -= epoch == self._epoch
            call["answered"] = self._now()

    async def _answer(self, request: Any, wire: Wire, call: dict[str, Any], asked: Asked) -> Any:
        if not self._within_rate():
            call["fault"] = "rps"
            return self._trouble(wire, "429", asked.number, request, call=call)
        self._attempts[call["body"]] += 1
        attempt = call["attempt"] = self._attempts[call["body"]]
        kind = call["fault"] = fault(self.settings, asked.prompt, attempt)
        if kind not in _AT_ONCE:
            call["latency"] = latency(self.settings, asked.prompt, attempt)
            await asyncio.sleep(call["latency"])
        if kind == "drop_on_arrival":
            return self._cut(request, kind, b"", {})
        if kind in STATUSES or kind in REFUSALS:
            return self._trouble(wire, kind, asked.number, request, call=call)
        answer, payload = self._said(request, wire, kind, asked)
        given = next((body for text, body in self.settings.bodies.items() if text in asked.prompt), None)
        body = (json.dumps(payload) if given is None else given).encode(errors="surrogateescape")
        status = next((status for text, status in self.settings.statuses.items() if text in asked.prompt), 200)
        if status == 200:
            self._charge(call, asked.model, answer, kind or "ok")
        if kind == "hang":
            await asyncio.sleep(self.settings.hang_s)
        headers = wire.headers(asked.number, call["latency"])
        call["status"] = status
        if kind in CUTS:
            return self._cut(request, kind, body, headers)
        return self._response(status, body, headers)

    def _within_rate(self) -> bool:
        if self.settings.rps is None:
            return True
        now = time.monotonic()
        self._allowance = min(self.settings.rps, self._allowance + (now - self._refilled) * self.settings.rps)
        self._refilled = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _said(self, request: Any, wire: Wire, kind: str | None, asked: Asked) -> tuple[Answer, dict[str, Any]]:
        """Return the answer to bill, and the body to send."""
        if kind == "error_200":
            message = "Provider returned error" + self._echoed(request)
            answer = Answer(asked.model, "", "stop", tokens(asked.prompt), 0, asked.number)
            return answer, wire.error_200(message, asked.number)
        text = said(self.settings, asked.prompt, asked.body) + self._echoed(request)
        finish_reason = "length" if kind == "length" else self.settings.finish_reason
        if finish_reason == "length":
            text = text[: 2 * len(text) // 3]
        if kind == "empty":
            text = ""
        spent = tokens(text) if text else 0
        answer = Answer(asked.model, text, finish_reason, tokens(asked.prompt), spent, asked.number)
        return answer, wire.answer(answer)

    def _charge(self, call: dict[str, Any], model: str, answer: Answer, kind: str, batch: str | None = None) -> None:
        """Bill an answer; the line is in the file when this returns."""
        call["billed"] = True
        line = {
            "body": call["body"],
            "model": model,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "kind": kind,
            "batch": batch,
        }
        self._billed.append(line)
        if self._bill_file >= 0:
            os.write(self._bill_file, json.dumps(line).encode() + b"\n")

    def _trouble(
        self,
        wire: Wire,
        kind: str,
        number: str,
        request: Any,
        message: str | None = None,
        call: dict[str, Any] | None = None,
    ) -> Any:
        """Answer with an error in the provider's words."""
        status = wire.refusal_status[kind] if kind in REFUSALS else int(kind)
        settings = self.settings
        limited = kind == "429" and settings.retry_after_form != "none"
        after = settings.retry_after_s if limited else None
        message = (message or wire.messages.get(kind) or _MESSAGES.get(kind, "")) + self._secrets(request)
        if call is not None:
            call["status"], call["retry_after"] = status, after
        headers = wire.headers(number, 0.0)
        if after is not None and settings.retry_after_form == "seconds":
            headers["retry-after"] = f"{after:g}"
        if after is not None and settings.retry_after_form == "date":
            headers["retry-after"] = email.utils.formatdate(math.ceil(time.time() + after), usegmt=True)
        told = wire.error(Trouble(status, kind, message, after, number))
        return self._response(status, json.dumps(told).encode(), headers)

    def _echoed(self, request: Any) -> str:
        return self._shown(request) if self.settings.echo_in_replies else ""

    def _secrets(self, request: Any) -> str:
        return self._shown(request) if self.settings.echo_secrets else ""

    @staticmethod
    def _shown(request: Any) -> str:
        named = {name: request.headers.get(name) for name in ("authorization", "x-api-key", "x-goog-api-key")}
        named["key"] = request.query.get("key")
        shown = [f"{name}={value}" for name, value in named.items() if value]
        return f" ({', '.join(shown)}; {request.method} {request.path_qs})"

    @staticmethod
    def _response(status: int, body: bytes, headers: dict[str, str]) -> Any:
        from aiohttp import web

        return web.Response(status=status, body=body, content_type="application/json", headers=headers)

    @staticmethod
    def _cut(request: Any, kind: str, body: bytes, headers: dict[str, str]) -> Any:
        """Close the connection at some point of the answer."""
        from aiohttp import web

        told = {"content-type": "application/json", "content-length": str(len(body)), **headers}
        head = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in told.items()) + "\r\n"
        if request.transport is not None:
            if kind in ("drop_after_headers", "cut_body"):
                request.transport.write(head.encode())
            if kind == "cut_body":
                request.transport.write(body[: len(body) // 2])
            request.transport.close()
        return web.Response()  # goes nowhere

    # Files and batches

    def _work(self, endpoint: str, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Return a handler of an endpoint that meets the faults of its script."""

        async def handle(request: Any) -> Any:
            number = self._number()
            script = self.settings.endpoint_scripts.get(endpoint, [])
            nth = self._endpoint_requests[endpoint]
            self._endpoint_requests[endpoint] += 1
            kind = script[nth] if nth < len(script) else "ok"
            if kind in STATUSES or kind in REFUSALS:
                return self._trouble(OpenAI, kind, number, request)
            if kind == "drop_on_arrival":
                return self._cut(request, kind, b"", {})
            body = await handler(request)
            if body is None:
                return self._trouble(OpenAI, "404", number, request, f"No such object: {request.path}")
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            if kind == "hang":
                await asyncio.sleep(self.settings.hang_s)
            if kind in CUTS:
                return self._cut(request, kind, sent, OpenAI.headers(number, 0.0))
            return self._response(200, sent, OpenAI.headers(number, 0.0))

        return handle

    async def _models(self, _: Any) -> Any:
        told = {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "double"}]}
        return self._response(200, json.dumps(told).encode(), {})

    def _keep(self, content: bytes, filename: str, purpose: str) -> dict[str, Any]:
        name = f"file-{self._number()}"
        told = {"id": name, "object": "file", "bytes": len(content), "created_at": int(time.time())}
        told |= {"filename": filename, "purpose": purpose, "status": "processed", "status_details": None}
        self._files[name] = {"told": told, "content": content}
        return told

    async def _upload(self, request: Any) -> Any:
        form = await request.post()
        given = form["file"]
        return self._keep(given.file.read(), given.filename, str(form["purpose"]))

    async def _file(self, request: Any) -> Any:
        kept = self._files.get(request.match_info["id"])
        return kept and kept["told"]

    async def _content(self, request: Any) -> Any:
        kept = self._files.get(request.match_info["id"])
        return kept and kept["content"]

    async def _create(self, request: Any) -> Any:
        asked = json.loads(await request.read())
        if asked["input_file_id"] not in self._files:
            return None
        now = int(time.time())
        nothing = ("errors", "output_file_id", "error_file_id", "in_progress_at", "finalizing_at", "completed_at")
        nothing += ("failed_at", "expired_at", "cancelling_at", "cancelled_at")
        batch = {"id": f"batch_{self._number()}", "object": "batch", "endpoint": asked["endpoint"]}
        batch |= {"input_file_id": asked["input_file_id"], "completion_window": asked["completion_window"]}
        batch |= {"status": "validating", "created_at": now, "expires_at": now + 86400}
        batch |= dict.fromkeys(nothing) | {"metadata": asked.get("metadata")}
        batch["request_counts"] = {"total": 0, "completed": 0, "failed": 0}
        self._batches[batch["id"]] = {"told": batch, "polls": 0}
        told = dict(batch)
        if self.settings.batch_polls == 0:
            self._move_on(batch["id"])
        return told

    async def _list(self, request: Any) -> Any:
        newest_first = [kept["told"] for kept in reversed(self._batches.values())]
        after, limit = request.query.get("after"), int(request.query.get("limit", 20))
        names = [batch["id"] for batch in newest_first]
        begin = names.index(after) + 1 if after in names else 0
        page = newest_first[begin : begin + limit]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return {"object": "list", "data": page, **ends, "has_more": begin + limit < len(newest_first)}

    async def _poll(self, request: Any) -> Any:
        name = request.match_info["id"]
        if name not in self._batches:
            return None
        self._batches[name]["polls"] += 1
        self._move_on(name)
        return self._batches[name]["told"]

    async def _cancel(self, request: Any) -> Any:
        kept = self._batches.get(request.match_info["id"])
        if kept is None:
            return None
        if kept["told"]["status"] in ("validating", "in_progress"):
            kept["told"] |= {"status": "cancelling", "cancelling_at": int(time.time())}
        return kept["told"]

    def _move_on(self, name: str) -> None:
        """Let a batch advance as far as it is due."""
        kept, now = self._batches[name], int(time.time())
        batch, settings = kept["told"], self.settings
        if batch["status"] == "cancelling":
            self._end(batch, "cancelled", settings.batch_share, None)
        elif batch["status"] in ("validating", "in_progress"):
            rows, wrong = _read_rows(self._files[batch["input_file_id"]]["content"], batch["endpoint"])
            if settings.batch_outcome == "failed" and not wrong:
                wrong = [{"code": "invalid_request", "line": 1, "message": "This batch is not welcome.", "param": None}]
            if wrong:
                batch |= {"status": "failed", "failed_at": now, "errors": {"object": "list", "data": wrong}}
            elif kept["polls"] < settings.batch_polls:
                batch |= {"status": "in_progress", "in_progress_at": now}
                batch["request_counts"]["total"] = len(rows)
            elif settings.batch_outcome == "expired":
                self._end(batch, "expired", settings.batch_share, "batch_expired")
            else:
                self._end(batch, "completed", 1.0, None)

    def _end(self, batch: dict[str, Any], status: str, share: float, undone_code: str | None) -> None:
        """Do a share of a batch's rows, in an order of their own, and write its files."""
        rows, _ = _read_rows(self._files[batch["input_file_id"]]["content"], batch["endpoint"])
        random.Random(f"{self.settings.seed} {batch['id']}").shuffle(rows)
        done = round(share * len(rows))
        outputs, errors = [], []
        for row in rows[:done]:
            line, ok = self._row(row, batch["id"])
            (outputs if ok else errors).append(line)
        failed = len(errors)
        if undone_code:
            message = "This request could not be executed before the completion window expired."
            told = {"code": undone_code, "message": message}
            errors += [self._row_line(row["custom_id"], None, told) for row in rows[done:]]
        for field_name, lines in (("output_file_id", outputs), ("error_file_id", errors)):
            if lines:
                content = "".join(json.dumps(line) + "\n" for line in lines).encode()
                batch[field_name] = self._keep(content, f"{batch['id']}_{field_name[:-8]}.jsonl", "batch_output")["id"]
        batch |= {"status": status, f"{status}_at": int(time.time())}
        batch["request_counts"] = {"total": len(rows), "completed": len(outputs), "failed": failed}

    def _row(self, row: dict[str, Any], batch: str) -> tuple[dict[str, Any], bool]:
        """Return a row's line for the output or the error file, and whether it went well."""
        body, number = row["body"], self._number()
        prompt = OpenAI.prompt(body)
        if draw(self.settings, "row", prompt, 1) < self.settings.batch_error_share:
            told = OpenAI.error(Trouble(400, "400", _MESSAGES["400"], None, number))
            return self._row_line(
                row["custom_id"], {"status_code": 400, "request_id": number, "body": told}, None
            ), False
        text = said(self.settings, prompt, body)
        answer = Answer(body["model"], text, self.settings.finish_reason, tokens(prompt), tokens(text), number)
        self._charge({"body": body_hash(body["model"], body)}, body["model"], answer, "ok", batch)
        sent = {"status_code": 200, "request_id": number, "body": OpenAI.answer(answer)}
        return self._row_line(row["custom_id"], sent, None), True

    def _row_line(self, custom_id: str, response: Any, error: Any) -> dict[str, Any]:
        return {"id": f"batch_req_{self._number()}", "custom_id": custom_id, "response": response, "error": error}

    # Control

    async def _control(self, request: Any) -> Any:
        changes = json.loads(await request.read())
        forget = changes.pop("reset", False)
        try:
            self.settings = replace(self.settings, **changes)
        except (TypeError, ValueError) as error:
            return self._response(400, json.dumps({"error": str(error)}).encode(), {})
        if forget or "rps" in changes:
            self._allowance, self._refilled = self.settings.rps or 0.0, time.monotonic()
        if forget:
            self._reset()
        return self._response(200, json.dumps(asdict(self.settings)).encode(), {})

    async def _bill(self, _: Any) -> Any:
        returns = self._returns()
        told = {
            "billed": self._billed,
            "calls": self._calls,
            "totals": {
                "calls": len(self._calls),
                "billed": len(self._billed),
                "prompt_tokens": sum(line["prompt_tokens"] for line in self._billed),
                "completion_tokens": sum(line["completion_tokens"] for line in self._billed),
                "kinds": Counter(line["kind"] for line in self._billed),
                "statuses": Counter(str(call["status"]) for call in self._calls),
                "faults": Counter(str(call["fault"]) for call in self._calls if call["fault"]),
            },
            "peak": self._peak,
            "returns": returns,
            "early": sum(1 for one in returns if one["waited"] is not None and one["waited"] < one["retry_after"]),
            "endpoints": self._endpoint_requests,
        }
        return self._response(200, json.dumps(told).encode(), {})

    def _returns(self) -> list[dict[str, Any]]:
        """Return, for every answer that said when to come back, when the same body came again."""
        found = []
        following: dict[tuple[str, int], float] = {(call["body"], call["again"]): call["at"] for call in self._calls}
        for call in self._calls:
            if call.get("retry_after") is not None and call["answered"] is not None:
                back = following.get((call["body"], call["again"] + 1))
                waited = None if back is None else back - call["answered"]
                told = {"body": call["body"], "answered": call["answered"], "came_again": back, "waited": waited}
                found.append(told | {"retry_after": call["retry_after"]})
        return found


@dataclass(frozen=True)
class Asked:
    """A call as it came."""

    model: str
    prompt: str
    body: dict[str, Any]
    number: str


def _read_rows(content: bytes, endpoint: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a batch file's rows, and what is wrong with it, as OpenAI's validation would say."""
    rows: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []

    def complain(code: str, line: int | None, message: str) -> None:
        wrong.append({"code": code, "line": line, "message": message, "param": None})

    seen: set[str] = set()
    for number, text in enumerate(content.decode(errors="replace").splitlines(), 1):
        try:
            row = json.loads(text)
            custom_id, model = row["custom_id"], row["body"]["model"]
            OpenAI.prompt(row["body"])
        except (ValueError, LookupError, TypeError, AttributeError):
            complain("invalid_json_line", number, "This line is not parseable as a valid request.")
            continue
        if custom_id in seen:
            complain("duplicate_custom_id", number, f"The custom_id '{custom_id}' is not unique.")
        if row.get("url") != endpoint or row.get("method") != "POST":
            complain("invalid_url", number, "The URL or method of this line does not match the batch's endpoint.")
        if rows and model != rows[0]["body"]["model"]:
            complain("mismatched_model", number, "All requests of a batch must have the same model.")
        seen.add(custom_id)
        rows.append(row)
    if not rows and not wrong:
        complain("empty_file", None, "The batch file is empty.")
    return rows, wrong


@dataclass(frozen=True)
class Double:
    """A running double, seen from a test."""

    port: int
    bill_path: Path
    process: subprocess.Popen[str]

    def url(self, provider: str) -> str:
        """Return the `api_base` (base_url) for openai, anthropic or gemini."""
        return f"http://127.0.0.1:{self.port}" + {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}[provider]

    def bill(self) -> dict[str, Any]:
        """Return GET /bill: `billed`, `calls`, `totals`, `peak`, `returns`, `early`, `endpoints`."""
        return self._ask("/bill", None)

    def control(self, **changes: Any) -> dict[str, Any]:
        """Change settings; `reset=True` forgets calls, bill and attempts, but neither files nor the bill file."""
        return self._ask("/control", changes)

    def receipts(self) -> list[dict[str, Any]]:
        """Return the lines of the bill file: everything that was ever billed, the double being alive or not."""
        return [json.loads(line) for line in self.bill_path.read_text(encoding="utf-8").splitlines()]

    def _ask(self, path: str, body: Any) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = None if body is None else json.dumps(body).encode()
        with opener.open(f"http://127.0.0.1:{self.port}{path}", data, timeout=30) as answer:
            return json.loads(answer.read())


@contextmanager
def serving(settings: Settings | None = None) -> Iterator[Double]:
    """Run a double in a process of its own; it ends with the block, or with this process."""
    with tempfile.TemporaryDirectory(prefix="wire-double-") as place:
        told = settings or Settings()
        bill = Path(told.bill_path or Path(place) / "bill.jsonl")
        bill.touch()
        text = json.dumps(asdict(replace(told, bill_path=str(bill))))
        command = [sys.executable, __file__, "--port", "0", "--settings", text, "--until-stdin-closes"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the double didn't start: exit code {process.wait()}")
                yield Double(json.loads(line)["port"], bill, process)
            finally:
                process.terminate()


def _options() -> tuple[int, bool, Settings]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--settings", default="{}", help="JSON object with fields of Settings")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND=P", help=f"kinds: {', '.join(KINDS)}")
    parser.add_argument("--until-stdin-closes", action="store_true")
    plain = {one.name: one.type for one in fields(Settings) if one.name != "faults"}
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "float | None": float, "str": str}
    readers |= {"str | None": str}
    for name, kind in plain.items():
        option = "--" + name.replace("_", "-")
        if kind == "bool":
            parser.add_argument(option, action="store_true", default=None)
        else:
            parser.add_argument(option, type=readers.get(str(kind), json.loads), help=f"{kind}")
    found = vars(parser.parse_args())
    given = {name: found[name] for name in plain if found[name] is not None}
    if found["fault"]:
        given["faults"] = {kind: float(p) for kind, p in (one.split("=") for one in found["fault"])}
    return found["port"], found["until_stdin_closes"], Settings(**(json.loads(found["settings"]) | given))


async def _serve(port: int, until_stdin_closes: bool, settings: Settings) -> None:
    from aiohttp import web

    runner = web.AppRunner(Server(settings).app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=2048)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    try:
        if until_stdin_closes:
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        else:
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_serve(*_options()))
