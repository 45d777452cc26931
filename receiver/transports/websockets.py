"""The websockets library behind the seam: its server, without what takes messages from us."""

from __future__ import annotations

import asyncio
import functools
import http
import ssl
from collections.abc import Awaitable
from typing import cast

from websockets.asyncio.server import Server
from websockets.http11 import Request, Response
from websockets.protocol import State

from receiver.transports import Gate, HttpAnswer, Limits, Listener, handshake
from receiver.transports.acceptor import Acceptor, open_sockets
from receiver.transports.lobby import Lobby, Waiting
from receiver.transports.sharing import SharedPort
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
    house = _House(gate, limits)
    tcp_sockets = shared.sockets if shared else await open_sockets(host, port)

    async def connect(waiting: Waiting) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Socket(house, waiting),
            waiting.tcp,
            ssl=ssl_context,
            ssl_handshake_timeout=limits.handshake_timeout_seconds if ssl_context else None,
        )

    # What `websockets.serve` would listen with, were it not for the lobby.
    house.server.server = cast(
        asyncio.Server,
        Acceptor(tcp_sockets, Lobby(limits, gate.turned_away), connect, shared=shared),
    )
    return _WebSocketListener(house)


class _House:
    """What the sockets of one listener share."""

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self.gate = gate
        self.limits = limits
        self.sockets: set[Socket] = set()  # all that are alive
        self.server = Server(_never, self.look_after)  # type: ignore[arg-type]  # always a Socket

    async def look_after(self, socket: Socket) -> None:
        """Live as long as the socket; when cancelled, take the socket along."""
        ask = functools.partial(_ask, self.gate)
        look_over = functools.partial(_look_over, self.gate)
        try:
            async with asyncio.timeout(self.limits.handshake_timeout_seconds):
                await socket.handshake(ask, look_over, handshake.SERVER)
            if socket.protocol.state is State.OPEN:
                self.server.all_connections.add(socket)
                socket.open()
                await socket.wait_closed()
        except TimeoutError:
            socket.waiting.turn_away("timeout")
        finally:
            self.server.all_connections.discard(socket)
            self.server.handler_tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            socket.transport.abort()
            socket.finish()


async def _never() -> asyncio.Server:
    raise NotImplementedError  # the acceptor stands in for what this would make


async def _ask(gate: Gate, socket: Socket, request: Request) -> Response | None:
    if request.method != "GET":
        socket.waiting.turn_away("bad_method")
        return handshake.method_refusal(socket.protocol)
    address = socket.connection.remote_address
    try:
        decision = gate.admit(handshake.upgrade_request(request, address))
        if isinstance(decision, Awaitable):
            decision = await decision
    except Exception:
        socket.waiting.asked = True
        raise
    socket.waiting.asked = True
    if isinstance(decision, HttpAnswer):
        return handshake.refusal(socket.protocol, decision)
    socket.peer = decision
    return None


def _look_over(gate: Gate, socket: Socket, request: Request, response: Response) -> Response | None:
    """Replace what the library says to one who was admitted, but asks for no upgrade."""
    if socket.peer is None or response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
        return None
    gate.turned_away("bad_request", socket.connection.remote_address)
    return handshake.without_details(socket.protocol, response)


class _WebSocketListener:
    """A websockets server and the sockets it has accepted."""

    def __init__(self, house: _House) -> None:
        self._server = house.server
        self._sockets = house.sockets
        names = [listening.getsockname() for listening in house.server.sockets]
        self.port: int = names[0][1]
        self.addresses: tuple[str, ...] = tuple(name[0] for name in names)

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections live on."""
        self._server.server.close()

    async def close(self) -> None:
        """Close every connection with 1001 and return when all sockets are gone."""
        self._server.close(reason="the receiver is shutting down")
        for socket in list(self._sockets):
            if socket.protocol.state is State.CONNECTING:
                socket.transport.abort()
        await self._server.wait_closed()
