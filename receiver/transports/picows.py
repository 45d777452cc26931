"""The picows library behind the seam: protocol units are parsed in C, straight from the socket.

picows knows 16 KiB requests and the answer 400 only, so requests are read by our own doorway,
with the same parser as in the other adapter. aiofastnet, which comes with picows, reads the
sockets: it costs less than what the event loops bring along. TLS is the event loop's own all
the same: aiofastnet 1.2 keeps about 15 KB of every handshake that fails, for good.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import functools
import logging
import ssl
import termios
from collections.abc import Callable
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, Final

import aiofastnet
from picows import WSFrame, WSListener, WSMsgType, WSTransport

from receiver.transports import Gate, Limits, Listener, Peer, handshake, picows_wiring
from receiver.transports.acceptor import Acceptor, open_sockets
from receiver.transports.connection import SocketConnection
from receiver.transports.doorway import Admitted, Doorway, House
from receiver.transports.lobby import Lobby, Waiting
from receiver.transports.sharing import SharedPort

_BROKEN: Final = 1006
_NO_CODE: Final = 1005
_GOING_AWAY: Final = 1001
_ONE_UNIT: Final = (WSMsgType.TEXT, WSMsgType.BINARY)
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
    listener = _PicowsListener(gate, limits)
    sockets = shared.sockets if shared else await open_sockets(host, port)

    async def connect(waiting: Waiting) -> None:
        loop = asyncio.get_running_loop()
        make = functools.partial(Doorway, listener.house, waiting)
        if ssl_context is None:
            await aiofastnet.connect_accepted_socket(loop, make, waiting.tcp)
        else:
            timeout = limits.handshake_timeout_seconds
            await loop.connect_accepted_socket(
                make, waiting.tcp, ssl=ssl_context, ssl_handshake_timeout=timeout
            )

    listener.server = Acceptor(sockets, Lobby(limits), connect, shared=shared)
    return listener


class _PicowsListener:
    """A server and the connections it has accepted."""

    server: Acceptor

    def __init__(self, gate: Gate, limits: Limits) -> None:
        self.house = House(gate, limits, upgrade=self._upgrade, left=self.see_if_empty)
        self.sockets: set[_Socket] = set()
        self._gone = asyncio.Event()

    @property
    def port(self) -> int:
        """Return the port, also where a free one was asked for."""
        port: int = self._names[0][1]
        return port

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return every address it listens on."""
        return tuple(name[0] for name in self._names)

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

    def _upgrade(self, admitted: Admitted) -> None:
        socket = _Socket(admitted.peer, admitted.transport, self)
        ears = picows_wiring.Ears(socket.broken_off)
        longest = self.house.limits.max_message_bytes
        protocol = picows_wiring.make_protocol(socket, ears, max_message_bytes=longest)
        self.sockets.add(socket)
        picows_wiring.hand_over(protocol, admitted.transport, key=admitted.key, rest=admitted.rest)


class _Socket(WSListener):
    """One open connection; its messages go to `peer` between `opened` and `closed`."""

    def __init__(self, peer: Peer, transport: Any, listener: _PicowsListener) -> None:
        self.transport = transport
        self.paused = False  # the other end does not read, or not fast enough
        self._peer = peer
        self._receive = peer.message_received
        self._listener = listener
        self._limits = listener.house.limits
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

    # What picows calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._wire = transport
        try:
            self._peer.opened(SocketConnection(self))
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
        self._listener.sockets.discard(self)
        for timer in (self._pong, self._cut):
            if timer is not None:
                timer.cancel()
        codes = (self._received_code, self._sent_code, _BROKEN)
        code = next(code for code in codes if code is not None)
        try:
            self._peer.closed(code=code, clean=self._received_code is not None)
        except Exception:
            _log.exception("a peer failed at its end")
        self._listener.see_if_empty()

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
        limit = self._limits.send_buffer_bytes
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
        if len(self._fragments) > self._limits.max_message_bytes:
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
        delay = self._limits.pong_delay_seconds
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
            timeout = self._limits.close_timeout_seconds
            self._cut = self._loop.call_later(timeout, self.transport.abort)


def _unread_bytes(descriptor: int) -> int:
    """Return how much the kernel holds for us."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):  # the socket is gone
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]


def _drop(message: bytes) -> None:
    """Take the messages of a peer that failed."""
