"""What a peer may do with its socket, whatever library is behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from receiver.transports import handshake
from receiver.transports.keepalive import keep_alive


class Socket(Protocol):
    """What an adapter's socket can do."""

    transport: Any  # the event loop's, or a library's that stands in for it

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close message, unless the connection is closing already."""

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Keep what waits for the other end small, and tell `resume` when it has gone."""

    def send_message(self, message: bytes | str) -> bool:
        """Write one message now; tell whether another one may follow."""


class SocketConnection:
    """A `Connection` of the seam."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    @property
    def remote_address(self) -> str:
        """Return the other end's address, without the port."""
        return handshake.address_of(self._socket.transport.get_extra_info("peername"))

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake and return at once."""
        self._socket.start_closing(code, reason)

    def abort(self) -> None:
        """Drop the socket."""
        self._socket.transport.abort()

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Prepare the socket for messages of ours; one who listens may be silent for ever."""
        keep_alive(self._socket.transport.get_extra_info("socket"))
        self._socket.start_sending(resume)

    def send(self, message: bytes | str) -> bool:
        """Send one message; tell whether the socket takes more now."""
        return self._socket.send_message(message)
