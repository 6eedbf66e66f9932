"""A server of OpenAI's format that says one thing, whatever it is asked."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from wire_double import Answer, OpenAI


@contextmanager
def plain_server(text: str, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Yield the server's address, and the headers of each request to it with its path."""
    seen: list[dict[str, str]] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps(OpenAI.answer(Answer("m", text, "stop", 3, 3, "1"))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    server.socket = tls.wrap_socket(server.socket, server_side=True) if tls else server.socket
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
