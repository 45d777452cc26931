"""How a connection that is already open gets into picows, and how picows tells of errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from picows import WSAutoPingStrategy, WSListener, WSUpgradeResponse, WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # only its use is documented

from receiver.transports import handshake

READ_BUFFER_BYTES: Final = 4096
"""Per connection, to begin with. Ten chunks fit in; it grows where messages are longer."""
_MOST_READ_BYTES: Final = 65_536
"""At a time. picows doubles a buffer that was filled, so without a bound whoever sends without
end is read in ever larger bites, and everybody else waits until such a bite is digested."""
_PROTOCOL_ERROR: Final = 1002
_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
)


class Ears:
    """Listens to what picows logs, which is how it tells that it has closed a connection."""

    def __init__(self, broken_off: Callable[[int], None]) -> None:
        self._broken_off = broken_off

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  a logger's own spelling
        """Want nothing of the details."""
        return False

    def debug(self, *_: object) -> None:
        """Drop it."""

    info = warning = debug

    def error(self, text: str, *arguments: Any) -> None:
        """Take the close code out of the note about a unit that breaks the protocol."""
        codes = [int(a[0]) for a in arguments if isinstance(a, tuple) and a]
        self._broken_off(codes[0] if codes else _PROTOCOL_ERROR)

    exception = error


class _Protocol(WSProtocol):  # type: ignore[misc]  # it has no annotations
    """picows' protocol with bounded reads."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the transport shall put what it reads."""
        buffer: memoryview = WSProtocol.get_buffer(self, sizehint)
        return buffer[:_MOST_READ_BYTES]


def make_protocol(listener: WSListener, ears: Ears, *, max_message_bytes: int) -> Any:
    """Return picows' protocol of one server connection; `listener` takes what it reads."""
    response = WSUpgradeResponse.create_101_response({"Server": handshake.SERVER})
    return _Protocol(
        None,  # host, of clients
        None,  # path, of clients
        False,  # is_client_side
        lambda _: WSUpgradeResponseWithListener(response, listener),
        ears,
        False,  # disconnect_on_exception
        None,  # websocket_handshake_timeout: it is over
        False,  # enable_auto_ping: liveness is judged by media, not by pongs
        1.0,
        1.0,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong
        max_message_bytes,
        None,  # extra_headers, of clients
        READ_BUFFER_BYTES,
    )


def hand_over(protocol: Any, transport: Any, *, key: str, rest: bytes) -> None:
    """Have picows answer the upgrade, and give it what came behind the request."""
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    _feed(protocol, _REQUEST % key.encode())
    _feed(protocol, rest)


def _feed(protocol: Any, received: bytes) -> None:
    """Give picows bytes as a transport would."""
    rest = memoryview(received)
    while rest:
        room = protocol.get_buffer(-1)
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        protocol.buffer_updated(size)
        rest = rest[size:]
