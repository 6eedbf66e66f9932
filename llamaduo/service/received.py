r"""Received: the JSON value that a server's body comes to, however it was sent.

    received('{"choices": [...]}')                           that object
    received('data: {"choices": [{"delta": ...}]}\\n\\n...')   the one reply that the pieces of a stream make up

A body is a text whose half surrogates stand for bytes that are no UTF-8. Other encodings, gzip that nobody undid, marks
before a value and words behind it hide no reply that is paid for. Nothing of a reply's own text is changed.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_GZIP = b"\x1f\x8b"
_LONGEST = 64 << 20
"""Bytes beyond which nothing is unpacked."""
_DEEPEST = 100
"""Lists and objects within each other in a reply, of which some ten are usual."""
_REPLY = re.compile(
    r'"(choices|candidates|finish_?reason|stop_?reason|usage|usage_?metadata)\\?"\s*:|"type"\s*:\s*"message"',
    re.IGNORECASE,
)
_FIELD = re.compile(r"^data:[ \t]*(.*?)\r?$", re.MULTILINE)
_BEGIN = re.compile(r"[\s\ufeff]*(?=[\[{])")
_Piece = Mapping[str, Any]


def parsed(text: str) -> Any:
    """Return the JSON value that a text is, None for what is none; what lies too deep in it is left out."""
    text = text.lstrip("\ufeff")
    for number in (int, float):  # an int of five thousand digits is refused by Python, not by JSON
        with contextlib.suppress(ValueError, RecursionError):
            return _shallow(json.loads(text, parse_int=number))
    return None


def _shallow(tree: Any) -> Any:
    """Empty whatever is nested more deeply than any reply: how deep it can be read would depend on the caller."""
    level: list[Any] = [[tree]]
    for _ in range(_DEEPEST):
        inside = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for values in inside for inner in values if isinstance(inner, dict | list)]
    for one in level:
        one.clear()
    return tree


def received(body: str) -> Any:
    """Return the value that a body comes to, None for what is none."""
    text = _as_text(body)
    whole = parsed(text)
    if whole is not None and not isinstance(whole, list):
        return whole
    pieces = [piece for piece in _pieces(text) if isinstance(piece, Mapping)]
    return _joined(pieces) if pieces else whole


def holds_a_reply(body: str) -> bool:
    """Tell whether a body that can't be read has what replies alone have: it is paid for, though it broke off."""
    return _REPLY.search(_as_text(body)) is not None


def _as_text(body: str) -> str:
    """Return a body in the encoding that its first bytes tell of, which is UTF-8 nearly always."""
    if "\0" not in body[:8] and not ("\udc80" <= body[:1] <= "\udcff" or body.startswith("\x1f")):
        return body
    content = body.encode("utf-8", "surrogateescape")
    if content.startswith(_GZIP):
        content = _unzipped(content)
    encoding = json.detect_encoding(content)
    if encoding.startswith("utf-8"):
        return content.decode("utf-8", "surrogateescape")
    return content.decode(encoding, "replace")


def _unzipped(content: bytes) -> bytes:
    """Return what gzip makes of bytes, as far as it comes."""
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    found, size = [], 0
    with contextlib.suppress(zlib.error):
        for at in range(len(content)):  # one by one: what precedes a fault is kept
            found.append(unpacking.decompress(content[at : at + 1], _LONGEST))
            size += len(found[-1])
            if size >= _LONGEST:
                break
    return b"".join(found)


def _pieces(text: str) -> Iterator[Any]:
    """Yield the values of a stream's events, of a list, or those that stand one behind the other."""
    decoder = json.JSONDecoder(strict=False)
    for part in [text] if _BEGIN.match(text) else _FIELD.findall(text):
        at = 0
        while begin := _BEGIN.match(part, at):
            try:
                value, at = decoder.raw_decode(part, begin.end())
            except (ValueError, RecursionError):
                break
            yield from _shallow(value) if isinstance(value, list) else [_shallow(value)]


def _joined(pieces: Sequence[_Piece]) -> _Piece:
    """Return the reply that pieces make up: the first of whole ones, or one of all that is said in parts."""
    for name, join in (("choices", _openai), ("candidates", _gemini), ("message", _anthropic)):
        if any(name in piece for piece in pieces):
            return join(pieces)
    return pieces[0]


def _of(piece: _Piece, *path: str) -> _Piece:
    """Return the object at a path, of lists the first member; an empty one where there is none."""
    found: Any = piece
    for step in path:
        found = found.get(step) if isinstance(found, Mapping) else None
        found = found[0] if isinstance(found, list) and found else found
    return found if isinstance(found, Mapping) else {}


def _openai(pieces: Sequence[_Piece]) -> _Piece:
    whole = next((piece for piece in pieces if "message" in _of(piece, "choices")), None)
    if whole is not None:
        return whole
    said: dict[str, Any] = {}
    message: dict[str, Any] = {}
    reason = None
    for piece in pieces:
        choice = _of(piece, "choices")
        said |= {name: value for name, value in piece.items() if value}
        if choice.get("index") in (0, None):
            for name, value in _of(choice, "delta").items():
                before = message.get(name)
                both = isinstance(before, str) and isinstance(value, str)
                message[name] = before + value if both else value or before
            reason = choice.get("finish_reason") or reason
        reason = "error" if piece.get("error") else reason
    return {**said, "choices": [{"message": message, "finish_reason": reason}]}


def _gemini(pieces: Sequence[_Piece]) -> _Piece:
    said: dict[str, Any] = {}
    parts: list[Any] = []
    reason = None
    for piece in pieces:
        candidate = _of(piece, "candidates")
        found = _of(candidate, "content").get("parts")
        parts += found if isinstance(found, list) and not reason else []
        reason = reason or candidate.get("finishReason")
        said |= piece
    return {**said, "candidates": [{"content": {"parts": parts}, "finishReason": reason}]}


def _anthropic(pieces: Sequence[_Piece]) -> _Piece:
    said: dict[str, Any] = {}
    usage: dict[str, Any] = {}
    blocks: dict[str, dict[str, Any]] = {}
    for piece in pieces:
        said |= _of(piece, "message")
        block = blocks.setdefault(str(piece.get("index")), {}) if "index" in piece else {}
        block |= _of(piece, "content_block")
        delta = _of(piece, "delta")
        for name in ("text", "thinking"):
            if isinstance(delta.get(name), str):
                block[name] = block.get(name, "") + delta[name]
        said |= delta if piece.get("type") == "message_delta" else {}
        said |= {"stop_reason": "error"} if "error" in piece else {}
        usage |= {**_of(piece, "message", "usage"), **_of(piece, "usage")}
    return {**said, "content": list(blocks.values()), "usage": usage}
