"""Received: a body is read in whatever encoding, wrapping or pieces it came; what broke off is known as a reply."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from typing import Any

import httpx
import pytest

from llamaduo.config import ServiceLLM
from llamaduo.service.reading import form_of, read_body
from llamaduo.service.received import holds_a_reply, received
from llamaduo.service.refusals import UnknownOutcomeError
from llamaduo.service.transport import _whole, call, hang_up

USAGE = {"prompt_tokens": 3, "completion_tokens": 4}
WHOLE = {
    "model": "m",
    "choices": [{"index": 0, "message": {"content": "\u00e4n answer"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
TEXT = json.dumps(WHOLE, ensure_ascii=False)


def as_body(content: bytes) -> str:
    """Return bytes as the journal holds them."""
    return content.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize(
    "content",
    [
        *(TEXT.encode(encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT.encode())[:-8] + b"\0" * 8,
        *((mark + TEXT).encode() for mark in ("\ufeff\ufeff", " \r\n\n", ": waiting\r\n\r\ndata: ")),
        *(
            (TEXT + more).encode()
            for more in (" trailing", ",", "\0", "\n<!-- cached -->", "\n\ndata: [DONE]\n\n", TEXT)
        ),
        f"[{TEXT}]".encode(),
        f"data: {TEXT}\n\ndata: [DONE]\n\n".encode(),
    ],
)
def test_a_whole_reply_is_found_however_it_was_sent(content: bytes) -> None:
    assert received(as_body(content)) == WHOLE


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more}


def part(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": reason}], "modelVersion": "m"}


OPENAI = [chunk({"role": "assistant", "content": ""}), chunk({"content": "an "}), chunk({"content": "answer"})]
OTHER = {"choices": [{"index": 1, "delta": {"content": "another"}, "finish_reason": "length"}]}
START = {
    "type": "message_start",
    "message": {"type": "message", "model": "m", "content": [], "usage": {"input_tokens": 3}},
}
ANTHROPIC = [
    START,
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "an "}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "answer"}},
]
ENDED = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
BROKE = {"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}


@pytest.mark.parametrize("form", ["data: {}\n\n", "event: x\r\ndata: {}\r\n\r\n", "{}\n"])
@pytest.mark.parametrize(
    ("pieces", "text", "reason", "tokens"),
    [
        ([*OPENAI, chunk({}, "stop"), {"choices": [], "usage": USAGE}], "an answer", "stop", (3, 4)),
        ([*OPENAI, OTHER, chunk({}, "stop")], "an answer", "stop", (0, 0)),
        (OPENAI, "an answer", "unknown", (0, 0)),
        ([*OPENAI, chunk({}, "length", usage=USAGE)], "an answer", "length", (3, 4)),
        ([*OPENAI, {"error": {"message": "broke down"}}], "an answer", "error", (0, 0)),
        ([chunk({"tool_calls": [{"id": "a"}]}), chunk({}, "stop")], "", "tool_calls", (0, 0)),
        ([*ANTHROPIC, ENDED, {"type": "message_stop"}], "an answer", "stop", (3, 4)),
        (ANTHROPIC, "an answer", "unknown", (3, 0)),
        ([*ANTHROPIC, BROKE], "an answer", "error", (3, 0)),
        (
            [part("an "), part("answer", "STOP"), {"usageMetadata": {"promptTokenCount": 3}}],
            "an answer",
            "stop",
            (3, 0),
        ),
        ([part("an "), part("answer")], "an answer", "unknown", (0, 0)),
    ],
)
def test_a_stream_that_nobody_asked_for_is_one_reply(
    form: str, pieces: list[Any], text: str, reason: str, tokens: tuple[int, int]
) -> None:
    body = received("".join(form.replace("{}", json.dumps(piece)) for piece in pieces))
    said = read_body(form_of(body) or "openai", body)
    assert (said.text, said.finish_reason, said.model) == (text, reason, "m")
    assert (said.prompt_tokens, said.completion_tokens) == tokens


def test_what_broke_off_is_known_as_a_reply_and_a_page_is_none() -> None:
    for body in (TEXT[:40], ")]}'\n" + TEXT, json.dumps({"data": WHOLE}), json.dumps(TEXT), '{"type": "message", "a'):
        assert holds_a_reply(body), body
        assert form_of(received(body)) is None
    assert holds_a_reply(as_body(gzip.compress(TEXT.encode())[:-20]))
    for body in (
        "",
        "OK",
        "<html>log in</html>",
        '{"detail": "Not Found"}',
        "[]",
        '"text"',
        "data: [DONE]",
        "\x1f\x8b",
    ):
        assert not holds_a_reply(body), body


@pytest.mark.parametrize("content", [TEXT.encode(), gzip.compress(TEXT.encode())[:-8] + b"\0" * 8])
def test_bytes_that_are_not_compressed_as_they_say_are_kept_as_they_came(content: bytes) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(content))

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
            whole: httpx.Response = await _whole(
                await client.send(client.build_request("POST", "http://x"), stream=True)
            )
            return whole

    assert asyncio.run(ask()).content == content
    assert received(as_body(content)) == WHOLE


@pytest.mark.parametrize("provider", ["openai", "mistral"])
def test_a_body_that_never_ends_is_waited_for_twice_the_timeout(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.setenv(f"{provider.upper()}_API_KEY", "the-key")

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"1\r\n \r\n")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    async def ask() -> None:
        async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            llm = ServiceLLM(
                name="it", provider=provider, model="m", base_url=f"http://127.0.0.1:{port}", timeout_s=0.3
            )
            try:
                await asyncio.wait_for(call(llm, "a prompt", schema=None, seed=0), 60)
            finally:
                await hang_up()

    with pytest.raises(UnknownOutcomeError, match=r"timed out after 0\.3 s"):
        asyncio.run(ask())
