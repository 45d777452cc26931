"""A media-stream server, as consumers of forwarded calls run it; it keeps what it gets."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from typing import Any

from websockets.sync.server import Server, ServerConnection, serve

from tests.end_to_end.receiver_process import WAIT_SECONDS


class Consumer:
    """A media-stream server of the test: keeps messages, closes on request."""

    def __init__(self) -> None:
        self.calls: queue.Queue[queue.Queue[dict[str, Any] | None]] = queue.Queue()
        self.tokens: list[str | None] = []
        self.sockets: list[ServerConnection] = []
        self._server: Server | None = None
        self._socket = socket.socket()  # bound from now on, though not listening yet
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._socket.getsockname()[1]}/stream"

    def start(self) -> None:
        """Listen."""
        self._socket.listen()
        self._server = serve(self._take, sock=self._socket, compression=None)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.shutdown()
        self._socket.close()

    def _take(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.tokens.append(connection.request.headers.get("Authorization"))
        self.sockets.append(connection)
        messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.calls.put(messages)
        with contextlib.suppress(Exception):
            for message in connection:
                messages.put(json.loads(message))
        messages.put(None)

    def call(self) -> queue.Queue[dict[str, Any] | None]:
        """Wait for the next connection; return its messages as they come."""
        return self.calls.get(timeout=WAIT_SECONDS)


def rest_of(messages: queue.Queue[dict[str, Any] | None]) -> list[dict[str, Any]]:
    """Return everything up to the end of a connection."""
    found = []
    while (message := messages.get(timeout=WAIT_SECONDS)) is not None:
        found.append(message)
    return found
