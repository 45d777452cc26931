"""What a peer may do with its socket, whatever library is behind it."""

from __future__ import annotations

from collections.abc import Callable
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, Protocol

from receiver.transports import handshake
from receiver.transports.interface import Limits
from receiver.transports.tcp import keep_alive


class Socket(Protocol):
    """What an adapter's socket can do."""

    transport: Any  # the event loop's, or a library's that stands in for it

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close message, unless the connection is closing already."""

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Remember whom to tell when the socket takes more."""

    def send_message(self, message: bytes | str) -> bool:
        """Write one message now; tell whether another one may follow."""


class SocketConnection:
    """A `Connection` of the seam."""

    def __init__(self, socket: Socket, limits: Limits) -> None:
        self._socket = socket
        self._send_buffer_bytes = limits.send_buffer_bytes

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
        transport = self._socket.transport
        transport.set_write_buffer_limits(self._send_buffer_bytes)
        tcp = transport.get_extra_info("socket")
        tcp.setsockopt(SOL_SOCKET, SO_SNDBUF, self._send_buffer_bytes)
        keep_alive(tcp)
        self._socket.start_sending(resume)

    def send(self, message: bytes | str) -> bool:
        """Send one message; tell whether the socket takes more now."""
        return self._socket.send_message(message)
