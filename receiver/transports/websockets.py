"""The websockets library behind the seam: the only place that imports it.

`websockets.serve` hands out messages through a queue and a task per connection, and stops
reading when the queue is full. A provider throws audio away when its peer reads slowly, so
messages are taken here as they are parsed, in the event loop's read callback: no queue, no
wake-up, no back-pressure. See `process_event` in websockets.asyncio.connection.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Final, cast

from websockets.asyncio.server import Server, ServerConnection
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from receiver.transports import Gate, HttpAnswer, Limits, Listener, Peer, handshake
from receiver.transports.acceptor import Acceptor, open_sockets
from receiver.transports.connection import SocketConnection
from receiver.transports.lobby import Lobby, Waiting
from receiver.transports.sharing import SharedPort
from receiver.transports.units import UnitReader

_BROKEN: Final = 1006
_LARGE_READ_BYTES: Final = 32_768  # a stream in real time brings less than 1 KiB at a time
_log = logging.getLogger(__name__)


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
            lambda: _Socket(house, waiting),
            waiting.tcp,
            ssl=ssl_context,
            ssl_handshake_timeout=limits.handshake_timeout_seconds if ssl_context else None,
        )

    # What `websockets.serve` would listen with, were it not for the lobby.
    house.server.server = cast(
        asyncio.Server, Acceptor(tcp_sockets, Lobby(limits), connect, shared=shared)
    )
    return _WebSocketListener(house)


class _House:
    """What the sockets of one listener share."""

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self.gate = gate
        self.limits = limits
        self.sockets: set[_Socket] = set()  # all that are alive
        self.server = Server(_never, self.look_after)  # type: ignore[arg-type]  # always a _Socket

    async def look_after(self, socket: _Socket) -> None:
        """Live as long as the socket; when cancelled, take the socket along."""
        ask = functools.partial(_ask, self.gate)
        try:
            async with asyncio.timeout(self.limits.handshake_timeout_seconds):
                await socket.handshake(ask, None, handshake.SERVER)
            if socket.protocol.state is State.OPEN:
                self.server.all_connections.add(socket)
                socket.open()
                await socket.wait_closed()
        except TimeoutError:
            _log.debug("a handshake took too long")
        finally:
            self.server.all_connections.discard(socket)
            self.server.handler_tasks.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            socket.transport.abort()
            socket.finish()


async def _never() -> asyncio.Server:
    raise NotImplementedError  # the acceptor stands in for what this would make


def _ask(gate: Gate, socket: _Socket, request: Request) -> Response | None:
    if request.method != "GET":
        return handshake.method_refusal(socket.protocol)
    address = socket.connection.remote_address
    decision = gate.admit(handshake.upgrade_request(request, address))
    if isinstance(decision, HttpAnswer):
        return handshake.refusal(socket.protocol, decision)
    socket.peer = decision
    return None


class _Socket(ServerConnection):
    """One connection; its messages go to `peer` between `opened` and `closed`."""

    def __init__(self, house: _House, waiting: Waiting) -> None:
        limits = house.limits
        super().__init__(
            ServerProtocol(max_size=limits.max_message_bytes),
            house.server,
            ping_interval=None,  # liveness is judged by media, not by pongs
            close_timeout=limits.close_timeout_seconds,
        )
        self.peer: Peer | None = None  # set when the gate admits the request
        self.connection = SocketConnection(self)
        self._house = house
        self._waiting = waiting
        self._limits = limits
        self._opened = False
        self._finished = False
        self._failed = False  # the peer raised an error: it gets no more messages
        self._received_bytes = 0  # before it opened
        self._early: list[Frame] = []  # came before it opened
        self._receive: Callable[[bytes], None] = (
            super().data_received
        )  # of the library, until whole units can be cut
        self._at_a_border = False  # what came so far ends with the request
        self._fragments = bytearray()  # of a message that is not yet whole
        self._pong: asyncio.TimerHandle | None = None  # sends the pong that is held back
        self._cut: asyncio.TimerHandle | None = None  # ends a closing handshake that hangs
        self._backlogged = False  # the last read was large: more is waiting in the kernel
        self._resume: Callable[[], None] | None = None  # of a peer that sends messages

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._house.sockets.add(self)

    def data_received(self, data: bytes) -> None:
        if not self._opened and not self._may_go_on(data):
            return
        self._backlogged = len(data) >= _LARGE_READ_BYTES
        self._receive(data)
        if self.close_deadline is not None and self._cut is None:
            # The library waits for the other end, which may never close its side.
            self._cut = self.loop.call_at(self.close_deadline, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._house.sockets.discard(self)
        self._waiting.leave()
        for timer in (self._pong, self._cut):
            if timer is not None:
                timer.cancel()
        self.finish()

    # What the library calls.

    def process_event(self, event: Event) -> None:
        if not isinstance(event, Frame):
            super().process_event(event)
        elif not self._opened:
            self._early.append(event)
        elif event.opcode in DATA_OPCODES:
            self._take(event)

    def send_data(self) -> None:
        """Write what is due, but hold back pongs, which are all we write on an open stream.

        A write to a socket that the other end has reset makes the event loop drop it with all
        that was received and not yet read. A pong may wait (RFC 6455, section 5.5.3: the most
        recent ping is enough), so it waits until the socket has been read empty.
        """
        if self._opened and self.protocol.state is State.OPEN:
            # What is due here is pongs, since messages are written as they are sent: one is
            # enough, and none where the other end does not even read what it came for.
            drop_all = self._resume is not None and self.paused
            del self.protocol.writes[: None if drop_all else -1]
            if self._resume is None:
                if self.protocol.writes and self._pong is None:
                    self._wait_with_pong()
                return
        super().send_data()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._resume is not None and self._can_send():
            self._resume()

    # What this module calls.

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Keep what waits for the other end small, and tell `resume` when it has gone."""
        self._resume = resume
        limit = self._limits.send_buffer_bytes
        self.transport.set_write_buffer_limits(limit)
        self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, limit)

    def send_message(self, message: bytes | str) -> bool:
        """Write one message now; tell whether another one may follow."""
        if not self._can_send():
            return False
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        super().send_data()
        return not self.paused

    def _can_send(self) -> bool:
        return self.protocol.state is State.OPEN and not self.transport.is_closing()

    def open(self) -> None:
        """Tell the peer, then give it what came too early."""
        assert self.peer is not None  # noqa: S101  the library upgrades only what was admitted
        self._opened = True
        self._waiting.leave()
        try:
            self.peer.opened(self.connection)
        except Exception:
            self._fail()
        early, self._early = self._early, []
        for event in early:
            self.process_event(event)
        if self._at_a_border:
            longest = self._limits.max_message_bytes
            units = UnitReader(self._deliver, self._receive, self._is_sound, longest=longest)
            self._receive = units.receive

    def _is_sound(self) -> bool:
        return self.protocol.parser_exc is None and self.protocol.close_rcvd is None

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close message, unless the connection is closing already."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return
        self.protocol.send_close(code, handshake.cut_reason(reason))
        self.close_deadline = self.loop.time() + self._limits.close_timeout_seconds
        self._cut = self.loop.call_at(self.close_deadline, self.transport.abort)
        self.send_data()

    def finish(self) -> None:
        """Tell the peer once that no more comes."""
        if not self._opened or self._finished or self.peer is None:
            return
        self._finished = True
        received, sent = self.protocol.close_rcvd, self.protocol.close_sent
        last = received or sent
        try:
            self.peer.closed(code=last.code if last else _BROKEN, clean=received is not None)
        except Exception:
            _log.exception("a peer failed at its end")

    def _wait_with_pong(self) -> None:
        self._pong = self.loop.call_later(self._limits.pong_delay_seconds, self._send_pong)

    def _send_pong(self) -> None:
        self._pong = None
        if self._backlogged:
            self._backlogged = False  # until another large read comes
            self._wait_with_pong()
        elif self.protocol.state is State.OPEN and not self.transport.is_closing():
            super().send_data()

    def _may_go_on(self, data: bytes) -> bool:
        """Bound the request, and answer what the library would drop: a POST with a body."""
        first = not self._received_bytes
        self._received_bytes += len(data)
        self._at_a_border = self.request is None and data.endswith(b"\r\n\r\n")
        if self._received_bytes > self._limits.max_handshake_bytes:
            self.transport.abort()
            return False
        if first and handshake.OTHER_METHOD.match(data):
            self.protocol.send_response(handshake.method_refusal(self.protocol))
            self.send_data()
            return False
        return True

    def _take(self, event: Frame) -> None:
        """Deliver a message once its last fragment is there; most have only one."""
        if event.fin and event.opcode is not Opcode.CONT:
            self._deliver(bytes(event.data))
            return
        self._fragments += event.data
        if event.fin:
            message, self._fragments = bytes(self._fragments), bytearray()
            self._deliver(message)

    def _deliver(self, message: bytes) -> None:
        if self._failed or self._finished or self.peer is None:
            return
        try:
            self.peer.message_received(message)
        except Exception:
            self._fail()

    def _fail(self) -> None:
        """Called where the peer raised an error: a mistake of ours ends this socket only."""
        self._failed = True
        _log.exception("a peer failed; its connection is closed")
        self.start_closing(1011, "internal error")


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
