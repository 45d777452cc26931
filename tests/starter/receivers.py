"""A small real WebSocket server in place of the receiver; it keeps everything that it receives."""

from __future__ import annotations

import json
import queue
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from tests.bounds import at_most


@dataclass
class ReceivedStream:
    """What arrived on one connection."""

    path: str
    authorization: str | None
    messages: list[dict[str, Any]] = field(default_factory=list)
    close_code: int | None = None

    @property
    def events(self) -> list[str]:
        """The events in order, with repeated ones once."""
        names = [message["event"] for message in self.messages]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def media(self, track: str) -> list[dict[str, str]]:
        """The media bodies of one track, in order of arrival."""
        bodies = [message["media"] for message in self.messages if "media" in message]
        return [body for body in bodies if body["track"] == track]


class ReceiverDouble:
    """Accepts streams on 127.0.0.1 in a thread of its own.

    `/refuse/CODE` is answered with that HTTP status, `/close/CODE` closes after `start`, `/talk`
    sends one message back.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._ended: queue.Queue[ReceivedStream] = queue.Queue()
        self.media_arrived = threading.Event()
        self._server = serve(
            self._receive, "127.0.0.1", 0, ssl=tls, process_request=self._admit, compression=None
        )
        self._thread = threading.Thread(target=self._server.serve_forever)
        scheme = "ws" if tls is None else "wss"
        self.url = f"{scheme}://127.0.0.1:{self._server.socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()

    def next_stream(self) -> ReceivedStream:
        """The next connection that has ended; waits for it."""
        return self._ended.get(timeout=at_most(10))

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        word, _, code = request.path.strip("/").partition("/")
        if word != "refuse":
            return None
        response = connection.respond(HTTPStatus(int(code)), "no\n")
        if code.startswith("3"):
            response.headers["Location"] = "/audio"
        return response

    def _receive(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        path = connection.request.path
        received = ReceivedStream(path, connection.request.headers.get("Authorization"))
        with suppress(ConnectionClosed):
            for text in connection:
                received.messages.append(json.loads(text))
                self._react(connection, path, received.messages[-1]["event"])
        received.close_code = connection.close_code
        self._ended.put(received)

    def _react(self, connection: ServerConnection, path: str, event: str) -> None:
        reactions: dict[str, Callable[[], None]] = {
            "/close": lambda: connection.close(int(path.rpartition("/")[2]), "as asked"),
            "/talk": lambda: connection.send("{}"),
        }
        if event == "media":
            self.media_arrived.set()
        for prefix, react in reactions.items():
            if event == "start" and path.startswith(prefix):
                react()
