"""Listening: every connection from `accept` to its end, in the three stages it goes through.

    Acceptor             accepts the socket and counts it; TLS
    UpgradeProtocol      reads the request and asks the policy
    WebSocketConnection  hands messages to the policy's peer

A request is read apart from all that comes behind it. A client has to wait for the response
(RFC 6455, section 4.1), but not every one does: what an admitted one has sent early is handed over
with its connection, and what follows a refused request is dropped.

    reading    until the empty line          -> deciding, or refused: too_large, bad_request ...
    deciding   the policy, at once or later  -> accepted, or refused
    accepted   another protocol takes over the transport
    refused    the response is sent; the other end hangs up, or the time-out ends it

The time-out answers half a request, too, before it ends the connection.

The websockets library's own server is not used: it asks a task of each connection to answer, and
parses what comes behind a request before that task has run. The answer is lost then.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from receiver.transports import handshake
from receiver.transports.acceptor import (
    Acceptor,
    PendingConnection,
    PendingConnections,
    SharedPort,
    open_sockets,
)
from receiver.transports.connection import TlsConnection, WebSocketConnection
from receiver.transports.interface import Decision, HttpAnswer, Limits, Peer, UpgradePolicy

_GOING_AWAY: Final = 1001
_END_OF_HEAD: Final = b"\r\n\r\n"
_LAST_SECONDS: Final = 1.0
"""For an answer to half a request, on its way to a peer that was slow already."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AcceptedUpgrade:
    """A connection to be upgraded; its request has not been answered yet."""

    peer: Peer
    transport: Any  # the event loop's
    response: bytes
    early: bytes  # what came behind the request


class UpgradeProtocol(asyncio.Protocol):
    """Reads one request, asks the policy, and answers or hands the connection over.

    Args:
        policy: decides about the request.
        pending: counts the connection until it is upgraded or gone.
        ongoing: holds this protocol from `connection_made` until then.
        on_accepted: called in the turn of the event loop in which the policy has decided.
        on_done: called when the connection is upgraded, behind `on_accepted`, or gone.
    """

    def __init__(
        self,
        policy: UpgradePolicy,
        pending: PendingConnection,
        limits: Limits,
        *,
        ongoing: set[UpgradeProtocol],
        on_accepted: Callable[[AcceptedUpgrade], None],
        on_done: Callable[[], None],
    ) -> None:
        self._policy = policy
        self._pending = pending
        self._limits = limits
        self._ongoing = ongoing
        self._on_accepted = on_accepted
        self._on_done = on_done
        self._received = bytearray()
        self._head_bytes = 0  # the length of the request, once that is whole and decided about
        self._deciding: asyncio.Task[None] | None = None  # the policy, where it takes its time
        self._answered = False

    def connection_made(self, transport: Any) -> None:
        """Start the time-out."""
        self._transport = transport
        self._ongoing.add(self)
        timeout = self._limits.handshake_timeout_seconds
        self._timer = asyncio.get_running_loop().call_later(timeout, self._time_out)

    def data_received(self, data: bytes) -> None:
        """Collect one request, of bounded length, and what comes while it is decided about."""
        if self._answered:
            return
        searched = max(0, len(self._received) - len(_END_OF_HEAD))
        self._received += data
        end = -1 if self._head_bytes else self._received.find(_END_OF_HEAD, searched)
        size = len(self._received) if end < 0 else end + len(_END_OF_HEAD)
        if size > self._limits.max_handshake_bytes and self._head_bytes:
            self._pending.refuse("too_large")
            self.abort()
            return
        try:
            if size > self._limits.max_handshake_bytes:
                raise handshake.too_large(self._limits)
            if end >= 0:
                self._head_bytes = size
                self._decide(bytes(self._received[:size]))
            elif not self._head_bytes:
                handshake.check_beginning(self._received, searched)
        except handshake.InvalidRequestError as invalid:
            self._pending.refuse(invalid.reason, invalid.detail)
            self._answer(invalid.response)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop deciding: the connection is gone."""
        if self._deciding is not None:
            self._deciding.cancel()
        self._finish()

    def abort(self) -> None:
        """Drop the socket."""
        self._transport.abort()

    def _time_out(self) -> None:
        """End the connection; half a request is answered, as far as the socket takes that."""
        if self._received and not self._head_bytes and not self._answered:
            slow = handshake.too_slow(self._limits)
            self._pending.refuse(slow.reason, slow.detail)
            self._answered = True
            self._transport.write(slow.response)
            self._transport.close()
            self._timer = asyncio.get_running_loop().call_later(_LAST_SECONDS, self.abort)
            return
        self._pending.refuse("timeout")
        self.abort()

    def _decide(self, head: bytes) -> None:
        address = handshake.address_of(self._transport.get_extra_info("peername"))
        self._handshake = handshake.read_request(head, address, self._limits.trusted_proxies)
        self._pending.move(self._handshake.request.remote_address)
        try:
            decision = self._policy.admit(self._handshake.request)
        except Exception as error:
            self._fail(error)
            return
        if isinstance(decision, Coroutine):
            self._deciding = asyncio.create_task(self._wait(decision))
            # Where the connection is gone before the task's first turn, nobody awaits it.
            self._deciding.add_done_callback(lambda _: decision.close())
        else:
            self._apply(decision)

    async def _wait(self, deciding: Coroutine[Any, Any, Decision]) -> None:
        """Await a decision and apply it before anything else can happen."""
        try:
            decision = await deciding
        except Exception as error:
            self._fail(error)
        else:
            self._apply(decision)

    def _apply(self, decision: Decision) -> None:
        if isinstance(decision, HttpAnswer):
            self._pending.decided = True
            self._answer(self._handshake.refusal(decision))
        elif (answer := self._handshake.request.no_upgrade) is not None:
            self._pending.refuse("bad_request", answer.body.strip())
            self._answer(self._handshake.refusal(answer))
        else:
            early = bytes(self._received[self._head_bytes :])
            response = self._handshake.response()
            self._on_accepted(AcceptedUpgrade(decision, self._transport, response, early))
            self._finish()

    def _fail(self, error: Exception) -> None:
        self._pending.decided = True
        _log.error("the upgrade policy failed; a connection is refused", exc_info=error)
        self._answer(self._handshake.failure())

    def _answer(self, response: bytes) -> None:
        """Answer, and wait for the other end to hang up: a body may still be on its way."""
        self._answered = True
        self._transport.write(response)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _finish(self) -> None:
        self._timer.cancel()
        self._pending.remove()
        self._ongoing.discard(self)
        self._on_done()


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
