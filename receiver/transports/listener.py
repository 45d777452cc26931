"""Listening: every connection from `accept` to its end, in the three stages it goes through.

    Acceptor             accepts the socket; PendingConnections counts it; TLS
    UpgradeProtocol      reads the request and asks the policy
    WebSocketConnection  hands messages to the policy's peer

The websockets library's own server is not used: it asks a task of each connection to answer, and
parses what comes behind a request before that task has run. The answer is lost then.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import Final

from receiver.transports import handshake
from receiver.transports.acceptor import (
    Acceptor,
    PendingConnection,
    PendingConnections,
    SharedPort,
    open_sockets,
)
from receiver.transports.connection import TlsConnection, WebSocketConnection
from receiver.transports.interface import Limits, UpgradePolicy
from receiver.transports.upgrade import AcceptedUpgrade, UpgradeProtocol

_GOING_AWAY: Final = 1001


async def listen(
    policy: UpgradePolicy,
    *,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    limits: Limits,
    shared: SharedPort | None = None,
) -> SocketListener:
    """Listen on `host` and `port` (0: a free one), or on a port that is `shared`.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    handshake.allow_long_lines(limits)
    sockets = shared.sockets if shared else await open_sockets(host, port)
    listener = SocketListener(policy, limits, ssl_context)
    pending = PendingConnections(limits, policy.count_refused)
    listener.acceptor = Acceptor(sockets, pending, listener.connect, shared=shared)
    return listener


class SocketListener:
    """Listening sockets and the connections that were accepted on them."""

    acceptor: Acceptor

    def __init__(
        self, policy: UpgradePolicy, limits: Limits, ssl_context: ssl.SSLContext | None
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._ssl_context = ssl_context
        self._handshakes: set[UpgradeProtocol] = set()
        self._connections: set[WebSocketConnection] = set()
        self._all_gone = asyncio.Event()

    @property
    def port(self) -> int:
        """Return the port, also where a free one was asked for."""
        port: int = self.acceptor.names[0][1]
        return port

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return every address it listens on."""
        return tuple(name[0] for name in self.acceptor.names)

    @property
    def pending(self) -> int:
        """How many connections were accepted and are not yet upgraded or refused."""
        return self.acceptor.pending

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections live on."""
        self.acceptor.close()

    async def close(self) -> None:
        """Close every connection with 1001 and return when all sockets are gone; idempotent."""
        self.acceptor.close()
        for upgrading in list(self._handshakes):
            upgrading.abort()
        for connection in list(self._connections):
            connection.close(_GOING_AWAY, "the receiver is shutting down")
        self._all_gone.clear()
        self._check_if_all_gone()
        await self._all_gone.wait()
        await self.acceptor.wait_closed()

    async def connect(self, pending: PendingConnection) -> None:
        """Make a transport of an accepted socket; return when TLS is done.

        Raises:
            OSError: TLS failed, or took longer than the handshake time-out.
        """
        timeout = self._limits.handshake_timeout_seconds if self._ssl_context else None
        await asyncio.get_running_loop().connect_accepted_socket(
            functools.partial(self._make_protocol, pending),
            pending.tcp,
            ssl=self._ssl_context,
            ssl_handshake_timeout=timeout,
        )

    def _make_protocol(self, pending: PendingConnection) -> UpgradeProtocol:
        return UpgradeProtocol(
            self._policy,
            pending,
            self._limits,
            ongoing=self._handshakes,
            on_accepted=self._open,
            on_done=self._check_if_all_gone,
        )

    def _open(self, accepted: AcceptedUpgrade) -> None:
        kind = TlsConnection if self._ssl_context else WebSocketConnection
        connection = kind(accepted.peer, accepted.transport, self._limits, on_lost=self._remove)
        self._connections.add(connection)
        connection.open(accepted.response, accepted.early)

    def _remove(self, connection: WebSocketConnection) -> None:
        self._connections.discard(connection)
        self._check_if_all_gone()

    def _check_if_all_gone(self) -> None:
        if not self._handshakes and not self._connections:
            self._all_gone.set()
