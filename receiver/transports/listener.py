"""A listening adapter: what it has accepted, from the doorway to the open socket."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

from receiver.transports.acceptor import Acceptor, Connect, open_sockets
from receiver.transports.interface import Gate, Limits
from receiver.transports.pending import PendingConnection, PendingConnections
from receiver.transports.shared_port import SharedPort
from receiver.transports.upgrade import AcceptedUpgrade, House, UpgradeProtocol

_GOING_AWAY: Final = 1001


class Socket(Protocol):
    """An open connection, as far as its listener may act on it."""

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close message, unless the connection is closing already."""


class SocketListener:
    """A server and the connections it has accepted; `upgrade` opens those that are admitted."""

    server: Acceptor

    def __init__(
        self, gate: Gate, limits: Limits, upgrade: Callable[[AcceptedUpgrade, SocketListener], None]
    ) -> None:
        self.limits = limits
        self.house = House(
            gate, limits, upgrade=lambda admitted: upgrade(admitted, self), left=self.see_if_empty
        )
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
        lobby = PendingConnections(self.limits, self.house.gate.turned_away)
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
    def entering(self) -> int:
        """How many connections were accepted and are not yet admitted or refused."""
        return self.server.entering

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
