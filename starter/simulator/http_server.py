"""A small HTTP server for the simulated provider: requests in, replies out, both as values."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from starter.errors import ConfigError
from starter.simulator.provider_rules import HttpReply, HttpRequest

HOST: Final = "127.0.0.1"
_LARGEST_BODY_BYTES: Final = 1 << 20
_POLL_SECONDS: Final = 0.05  # how soon the server notices that it is to end

_log = logging.getLogger("starter.simulator")

Answer = Callable[[HttpRequest], HttpReply]


@asynccontextmanager
async def serve(port: int, answer: Answer) -> AsyncIterator[int]:
    """Serve on 127.0.0.1 while the context is open; yields the port, chosen if `port` is 0.

    `answer` runs on the event loop, so it needs no locks. Raises ConfigError if the port is taken.
    """
    loop = asyncio.get_running_loop()

    async def on_loop(request: HttpRequest) -> HttpReply:
        return answer(request)

    def from_thread(request: HttpRequest) -> HttpReply:
        return asyncio.run_coroutine_threadsafe(on_loop(request), loop).result()

    try:
        server = _Server(port, from_thread)
    except OSError as error:
        raise ConfigError(f"cannot listen on {HOST}:{port}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        # an exchange under way may still need the loop: wait for it elsewhere
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(thread.join)
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Holds what every exchange needs."""

    daemon_threads = True

    def __init__(self, port: int, answer: Answer) -> None:
        self.answer = answer
        super().__init__((HOST, port), _Exchange)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log a broken exchange in one line; the inherited method prints a traceback."""
        _log.warning("an HTTP exchange broke: %r", sys.exc_info()[1])


class _Exchange(BaseHTTPRequestHandler):
    """Reads one request after the other from a connection."""

    protocol_version = "HTTP/1.1"
    server_version = "simulated-provider"
    timeout = 10
    server: _Server

    def do_POST(self) -> None:
        """Answer a request with a form."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self._refuse(411, "Content-Length is needed")
        elif int(length) > _LARGEST_BODY_BYTES:
            self._refuse(413, "The body is too large")
        else:
            body = self.rfile.read(int(length))
            if len(body) < int(length):
                self._refuse(400, "The body ends early")
            else:
                self._answer(body)

    def do_GET(self) -> None:
        """Answer a request without a body."""
        self._answer(b"")

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002  as inherited
        """Log nothing: the simulated provider reports streams, not requests."""

    def _answer(self, body: bytes) -> None:
        request = HttpRequest(
            method=self.command,
            path=self.path.partition("?")[0],
            authorization=self.headers.get("Authorization"),
            content_type=self.headers.get("Content-Type"),
            body=body,
        )
        self._reply(self.server.answer(request))

    def _refuse(self, status: int, message: str) -> None:
        self.close_connection = True  # what follows on it would be the unread body
        fields = {"code": 20001, "message": message, "more_info": "", "status": status}
        self._reply(HttpReply(status, fields))

    def _reply(self, reply: HttpReply) -> None:
        body = json.dumps(reply.body).encode()
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
