"""The picows library behind the seam: protocol units are parsed in C, straight from the socket.

picows knows 16 KiB requests and the answer 400 only, so a request is read and answered here,
with the same parser as in the other adapter; an admitted connection is then handed over with
the shortest request that picows takes. aiofastnet, which comes with picows, reads the sockets:
on both event loops and with TLS it costs less than what they bring along (see DESIGN.md).
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import http
import logging
import ssl
import termios
from collections.abc import Callable
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, Final

import aiofastnet
from picows import (
    WSAutoPingStrategy,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # only its use is documented
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from receiver.errors import ConfigurationError
from receiver.transports import Gate, HttpAnswer, Limits, Listener, Peer, handshake

READ_BUFFER_BYTES: Final = 4096
"""Per connection, to begin with. Ten chunks fit in; it grows where messages are longer."""
_BROKEN: Final = 1006
_NO_CODE: Final = 1005
_END_OF_HEAD: Final = b"\r\n\r\n"
_ONE_UNIT: Final = (WSMsgType.TEXT, WSMsgType.BINARY)
_log = logging.getLogger(__name__)


async def listen(
    gate: Gate, *, host: str, port: int, ssl_context: ssl.SSLContext | None, limits: Limits
) -> Listener:
    """Listen on `host` and `port` (0: a free one) until the listener is closed.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    handshake.allow_long_lines(limits)
    house = _House(gate, limits)
    try:
        server = await aiofastnet.create_server(
            asyncio.get_running_loop(),
            lambda: _Doorway(house),
            host,
            port,
            ssl=ssl_context,
            ssl_handshake_timeout=limits.handshake_timeout_seconds if ssl_context else None,
        )
    except (OSError, UnicodeError) as error:
        why = handshake.why_not_listening(error)
        raise ConfigurationError(f"cannot listen on {host} port {port}: {why}") from error
    return _PicowsListener(server, house)


class _House:
    """What the connections of one listener share: the gate, the limits, and a list of them."""

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self.gate = gate
        self.limits = limits
        self.doorways: set[_Doorway] = set()
        self.sockets: set[_Socket] = set()
        self.empty = asyncio.Event()  # means something only once the listener is closing

    def left(self) -> None:
        """Note that a connection is gone."""
        if not self.doorways and not self.sockets:
            self.empty.set()


class _Doorway(asyncio.Protocol):
    """One connection up to its upgrade, or up to the answer that refuses it."""

    def __init__(self, house: _House) -> None:
        self._house = house
        self._received = bytearray()
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # aiofastnet's own kind, or the event loop's
        self._house.doorways.add(self)
        timeout = self._house.limits.handshake_timeout_seconds
        self._cut = asyncio.get_running_loop().call_later(timeout, transport.abort)  # type: ignore[attr-defined]  # every transport of a socket has it

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return  # what follows a refused request is for nobody
        searched = max(0, len(self._received) - len(_END_OF_HEAD))
        self._received += data
        end = self._received.find(_END_OF_HEAD, searched) + len(_END_OF_HEAD)
        longest = self._house.limits.max_handshake_bytes
        if end < len(_END_OF_HEAD):
            if len(self._received) > longest:
                self.abort()
        elif end > longest:
            self.abort()
        else:
            self._decide(bytes(self._received[:end]), bytes(self._received[end:]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def abort(self) -> None:
        """Drop the socket."""
        self._transport.abort()

    def _decide(self, head: bytes, rest: bytes) -> None:
        protocol = ServerProtocol()
        if handshake.OTHER_METHOD.match(head):
            self._refuse(handshake.method_refusal(protocol))
            return
        protocol.receive_data(head)
        requests = protocol.events_received()
        if not requests or not isinstance(requests[0], Request):
            self._transport.close()  # it is no HTTP, so no answer would be understood
            return
        decision = self._ask(protocol, requests[0])
        if isinstance(decision, Response):
            self._refuse(decision)
            return
        response = protocol.accept(requests[0])
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(response)
            return
        self._leave()
        socket = _Socket(decision, self._transport, self._house)
        socket.take_over(requests[0].headers["Sec-WebSocket-Key"], rest)

    def _ask(self, protocol: ServerProtocol, request: Request) -> Response | Peer:
        remote_address = handshake.address_of(self._transport.get_extra_info("peername"))
        try:
            decision = self._house.gate.admit(handshake.upgrade_request(request, remote_address))
        except Exception:
            _log.exception("the gate failed; a connection is refused")
            return protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, "internal error\n")
        if isinstance(decision, HttpAnswer):
            return handshake.refusal(protocol, decision)
        return decision

    def _refuse(self, response: Response) -> None:
        """Answer, and wait for the other end to hang up: a body may still be on its way."""
        self._answered = True
        response.headers["Server"] = handshake.SERVER
        self._transport.write(response.serialize())
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _leave(self) -> None:
        self._cut.cancel()
        self._house.doorways.discard(self)
        self._house.left()


class _Socket(WSListener):
    """One open connection; its messages go to `peer` between `opened` and `closed`."""

    def __init__(self, peer: Peer, transport: Any, house: _House) -> None:
        self.transport = transport
        self.paused = False  # the other end does not read, or not fast enough
        self._peer = peer
        self._receive = peer.message_received
        self._house = house
        self._loop = asyncio.get_running_loop()
        self._wire: WSTransport | None = None  # picows' side of the transport, once it is open
        self._deaf = False  # nothing that comes now is a message any more
        self._closing = False  # we have sent a close message
        self._received_code: int | None = None  # of the close message that came
        self._sent_code: int | None = None
        self._fragments: bytearray | None = None  # of a message that is not yet whole
        self._ping = b""  # the latest, to be answered
        self._pong: asyncio.TimerHandle | None = None  # answers it
        self._cut: asyncio.TimerHandle | None = None  # ends a connection that hangs in closing
        self._resume: Callable[[], None] | None = None  # of a peer that sends messages

    def take_over(self, key: str, rest: bytes) -> None:
        """Make picows answer the upgrade, and give it what came behind the request."""
        protocol = _picows_protocol(self._answer, _Ears(self), self._house.limits)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        _feed(protocol, _REQUEST % key.encode())
        _feed(protocol, rest)

    def _answer(self, _: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        response = WSUpgradeResponse.create_101_response({"Server": handshake.SERVER})
        return WSUpgradeResponseWithListener(response, self)

    # What picows calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._wire = transport
        self._house.sockets.add(self)
        try:
            self._peer.opened(_PicowsConnection(self))
        except Exception:
            self._fail()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._deaf:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.break_off(1002, "reserved bits are set")
        elif frame.fin and self._fragments is None and frame.msg_type in _ONE_UNIT:
            self._deliver(frame.get_payload_as_bytes())
        else:
            self._take_other(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._deaf = True
        self._house.sockets.discard(self)
        for timer in (self._pong, self._cut):
            if timer is not None:
                timer.cancel()
        codes = (self._received_code, self._sent_code, _BROKEN)
        code = next(code for code in codes if code is not None)
        try:
            self._peer.closed(code=code, clean=self._received_code is not None)
        except Exception:
            _log.exception("a peer failed at its end")
        self._house.left()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._resume is not None and self.can_send():
            self._resume()

    # What this module calls.

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close message, unless the connection is closing already."""
        if self._closing or self._received_code is not None or not self.can_send():
            return
        self._send_close(code, handshake.cut_reason(reason))
        self._cut_later()

    def break_off(self, code: int, reason: str) -> None:
        """Close because of what the other end sent; nothing of it is listened to any more."""
        self._deaf = True
        if not self._closing:
            self._send_close(code, reason)
        self._cut_later()
        self.transport.close()

    def broken_off(self, code: int) -> None:
        """Learn that picows sends a close message because of what the other end sent.

        picows reads one unit ahead: the last good one is delivered after this call. What would
        be read from here on would be taken for units from a wrong place, so nothing is.
        """
        self.transport.pause_reading()
        self._closing = True
        if self._sent_code is None:
            self._sent_code = code
        self._cut_later()

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Keep what waits for the other end small, and tell `resume` when it has gone."""
        self._resume = resume
        limit = self._house.limits.send_buffer_bytes
        self.transport.set_write_buffer_limits(limit)
        self.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, limit)

    def send_message(self, message: bytes | str) -> bool:
        """Write one message now; tell whether another one may follow."""
        if not self.can_send():
            return False
        kind = WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY
        self._wire.send(kind, message)  # type: ignore[union-attr]  # can_send has looked
        return not self.paused

    def can_send(self) -> bool:
        """Whether what is sent now may still arrive."""
        closing = self._closing or self._received_code is not None or self.transport.is_closing()
        return self._wire is not None and not closing

    def _take_other(self, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind is WSMsgType.PING:
            self._take_ping(frame.get_payload_as_bytes())
        elif kind is WSMsgType.CLOSE:
            self._take_close(frame)
        elif kind is not WSMsgType.PONG:
            self._take_fragment(frame, first=kind is not WSMsgType.CONTINUATION)

    def _take_fragment(self, frame: WSFrame, *, first: bool) -> None:
        if first is (self._fragments is not None):
            self.break_off(1002, "a fragment without its message")
            return
        if self._fragments is None:
            self._fragments = bytearray()
        self._fragments += frame.get_payload_as_memoryview()
        if len(self._fragments) > self._house.limits.max_message_bytes:
            self.break_off(1009, "the message is too long")
        elif frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._deliver(message)

    def _take_close(self, frame: WSFrame) -> None:
        self._deaf = True
        code = int(frame.get_close_code())  # type: ignore[call-overload]  # IntFlag; 0: none
        if not self._closing and not self.transport.is_closing():
            self._send_close(code, "")
        self._received_code = code or _NO_CODE
        self._cut_later()
        self.transport.close()

    def _take_ping(self, ping: bytes) -> None:
        """Answer the latest of several pings, later.

        A write to a socket that the other end has reset makes the event loop drop it with all
        that was received and not yet read. A pong may wait (RFC 6455, section 5.5.3: the most
        recent ping is enough), so it waits until the socket has been read empty.
        """
        self._ping = ping
        if self._resume is not None and not self.paused:
            self._send_pong_now()
        elif self._pong is None:
            self._wait_with_pong()

    def _wait_with_pong(self) -> None:
        delay = self._house.limits.pong_delay_seconds
        self._pong = self._loop.call_later(delay, self._send_pong)

    def _send_pong(self) -> None:
        self._pong = None
        if self.transport.is_closing() or self._closing or self.paused:
            return
        if _unread_bytes(self.transport.get_extra_info("socket").fileno()):
            self._wait_with_pong()
        else:
            self._send_pong_now()

    def _send_pong_now(self) -> None:
        assert self._wire is not None  # noqa: S101  it came from there
        self._wire.send_pong(self._ping)

    def _deliver(self, message: bytes) -> None:
        try:
            self._receive(message)
        except Exception:
            self._fail()

    def _fail(self) -> None:
        """Called where the peer raised an error: a mistake of ours ends this socket only."""
        _log.exception("a peer failed; its connection is closed")
        self._receive = _drop
        self.start_closing(1011, "internal error")

    def _send_close(self, code: int, reason: str) -> None:
        assert self._wire is not None  # noqa: S101  what has no wire cannot be closing
        self._closing = True
        if code:
            self._sent_code = code
            self._wire.send_close(code, reason.encode())  # type: ignore[arg-type]  # any code will do
        else:
            self._wire.send(WSMsgType.CLOSE, b"")

    def _cut_later(self) -> None:
        if self._cut is None:
            timeout = self._house.limits.close_timeout_seconds
            self._cut = self._loop.call_later(timeout, self.transport.abort)


class _PicowsConnection:
    """What a peer may do with its socket."""

    def __init__(self, socket: _Socket) -> None:
        self._socket = socket
        name = socket.transport.get_extra_info("peername")
        self.remote_address = handshake.address_of(name)

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake and return at once."""
        self._socket.start_closing(code, reason)

    def abort(self) -> None:
        """Drop the socket."""
        self._socket.transport.abort()

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Prepare the socket for messages of ours."""
        self._socket.start_sending(resume)

    def send(self, message: bytes | str) -> bool:
        """Send one message; tell whether the socket takes more now."""
        return self._socket.send_message(message)


class _Ears:
    """Listens to what picows logs, which is how it tells that it has closed a connection."""

    def __init__(self, socket: _Socket) -> None:
        self._socket = socket

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802  a logger's own spelling
        """Want nothing of the details."""
        return False

    def debug(self, *_: object) -> None:
        """Drop it."""

    info = warning = debug

    def error(self, text: str, *arguments: Any) -> None:
        """Take the close code out of the note about a unit that breaks the protocol."""
        codes = [int(a[0]) for a in arguments if isinstance(a, tuple) and a]
        self._socket.broken_off(codes[0] if codes else 1002)

    exception = error


class _PicowsListener:
    """A server and the connections it has accepted."""

    def __init__(self, server: asyncio.Server, house: _House) -> None:
        self._server = server
        self._house = house
        names = [listening.getsockname() for listening in server.sockets]
        self.port: int = names[0][1]
        self.addresses: tuple[str, ...] = tuple(name[0] for name in names)

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections live on."""
        self._server.close()

    async def close(self) -> None:
        """Close every connection with 1001 and return when all sockets are gone."""
        self._server.close()
        house = self._house
        for doorway in list(house.doorways):
            doorway.abort()
        for socket in list(house.sockets):
            socket.start_closing(1001, "the receiver is shutting down")
        house.left()
        await house.empty.wait()
        await self._server.wait_closed()


_REQUEST: Final = (
    b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
)


def _picows_protocol(answer: Callable[..., object], ears: _Ears, limits: Limits) -> Any:
    return WSProtocol(
        None,  # host, of clients
        None,  # path, of clients
        False,  # is_client_side
        answer,
        ears,
        False,  # disconnect_on_exception
        None,  # websocket_handshake_timeout: it is over
        False,  # enable_auto_ping: liveness is judged by media, not by pongs
        1.0,
        1.0,
        WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong
        limits.max_message_bytes,
        None,  # extra_headers, of clients
        READ_BUFFER_BYTES,
    )


def _feed(protocol: Any, received: bytes) -> None:
    """Give picows bytes as a transport would."""
    rest = memoryview(received)
    while rest:
        room = protocol.get_buffer(-1)
        size = min(len(room), len(rest))
        room[:size] = rest[:size]
        protocol.buffer_updated(size)
        rest = rest[size:]


def _unread_bytes(descriptor: int) -> int:
    """Return how much the kernel holds for us."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):  # the socket is gone
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def _drop(message: bytes) -> None:
    """Take the messages of a peer that failed."""
