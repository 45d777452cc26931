"""The websockets library behind the seam: its protocol core, behind the doorway that all share.

The library's own server asks a task of each connection to answer, and parses what comes behind
a request before that task has run: the answer is lost then.
"""

from __future__ import annotations

import functools
import ssl

from receiver.transports import handshake
from receiver.transports.interface import Gate, Limits, Listener
from receiver.transports.listener import SocketListener
from receiver.transports.shared_port import SharedPort
from receiver.transports.upgrade import AcceptedUpgrade
from receiver.transports.websockets_socket import Socket


async def listen(
    gate: Gate,
    *,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    limits: Limits,
    shared: SharedPort | None = None,
) -> Listener:
    """Listen on `host` and `port` (0: a free one), or take turns on a port that is `shared`.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    handshake.allow_long_lines(limits)
    listener = SocketListener(gate, limits, _upgrade)
    connect = functools.partial(listener.connect, ssl_context=ssl_context)
    await listener.start(connect, host=host, port=port, shared=shared)
    return listener


def _upgrade(admitted: AcceptedUpgrade, listener: SocketListener) -> None:
    socket = Socket(admitted.peer, listener)
    listener.sockets.add(socket)
    socket.open(admitted)
