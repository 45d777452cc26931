"""What is accepted, from the first byte to the open socket.

The websockets library's own server asks a task of each connection to answer, and parses what
comes behind a request before that task has run: the answer is lost then. So only the library's
protocol core is used.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import Any, Final

from receiver.transports import handshake
from receiver.transports.acceptor import Acceptor, Connect, open_sockets
from receiver.transports.interface import Limits, UpgradePolicy
from receiver.transports.pending import PendingConnection, PendingConnections
from receiver.transports.shared_port import SharedPort
from receiver.transports.upgrade import AcceptedUpgrade, House, UpgradeProtocol
from receiver.transports.websockets_socket import Socket

_GOING_AWAY: Final = 1001


async def listen(
    gate: UpgradePolicy,
    *,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    limits: Limits,
    shared: SharedPort | None = None,
) -> SocketListener:
    """Listen on `host` and `port` (0: a free one), or take turns on a port that is `shared`.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    handshake.allow_long_lines(limits)
    listener = SocketListener(gate, limits)
    connect = functools.partial(listener.connect, ssl_context=ssl_context)
    await listener.start(connect, host=host, port=port, shared=shared)
    return listener


class SocketListener:
    """A server and the connections it has accepted."""

    server: Acceptor

    def __init__(self, gate: UpgradePolicy, limits: Limits) -> None:
        self.limits = limits
        self.house = House(gate, limits, upgrade=self._upgrade, left=self.see_if_empty)
        self.sockets: set[Socket] = set()  # all that are open
        self._gone = asyncio.Event()

    async def start(
        self, connect: Connect, *, host: str, port: int, shared: SharedPort | None
    ) -> None:
        """Listen, and have `connect` make a transport of each accepted socket.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        sockets = shared.sockets if shared else await open_sockets(host, port)
        lobby = PendingConnections(self.limits, self.house.gate.count_refused)
        self.server = Acceptor(sockets, lobby, connect, shared=shared)

    async def connect(
        self, waiting: PendingConnection, *, ssl_context: ssl.SSLContext | None
    ) -> None:
        """Make a transport of the event loop's."""
        await asyncio.get_running_loop().connect_accepted_socket(
            functools.partial(UpgradeProtocol, self.house, waiting),
            waiting.tcp,
            ssl=ssl_context,
            ssl_handshake_timeout=self.limits.handshake_timeout_seconds if ssl_context else None,
        )

    def _upgrade(self, admitted: AcceptedUpgrade) -> None:
        socket = Socket(admitted.peer, self)
        self.sockets.add(socket)
        socket.open(admitted)

    @property
    def port(self) -> int:
        """Return the port, also where a free one was asked for."""
        port: int = self._names[0][1]
        return port

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return every address it listens on."""
        return tuple(name[0] for name in self._names)

    @property
    def pending(self) -> int:
        """How many connections were accepted and are not yet admitted or refused."""
        return self.server.pending

    @functools.cached_property
    def _names(self) -> list[Any]:
        return [listening.getsockname() for listening in self.server.sockets]

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections live on."""
        self.server.close()

    async def close(self) -> None:
        """Close every connection with 1001 and return when all sockets are gone."""
        self.server.close()
        for doorway in list(self.house.doorways):
            doorway.abort()
        for socket in list(self.sockets):
            socket.start_closing(_GOING_AWAY, "the receiver is shutting down")
        self._gone.clear()
        self.see_if_empty()
        await self._gone.wait()
        await self.server.wait_closed()

    def see_if_empty(self) -> None:
        """Let `close` return when the last connection is gone."""
        if not self.house.doorways and not self.sockets:
            self._gone.set()
