"""One connection behind picows; see `picows` for the listener that accepts it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from picows import WSFrame, WSListener, WSMsgType, WSTransport
from websockets.exceptions import ProtocolError
from websockets.frames import Close

from receiver.transports import handshake
from receiver.transports.connection import SocketConnection
from receiver.transports.deferred_pong import DeferredPong
from receiver.transports.inbound_limits import ReadRateLimit
from receiver.transports.interface import BROKEN_OFF, TOO_MANY_UNITS, Limits, Peer
from receiver.transports.small_units import SmallFrameLimit

_BROKEN: Final = 1006
_ONE_UNIT: Final = (WSMsgType.TEXT, WSMsgType.BINARY)
_HEAD_BYTES: Final = 6  # of a short unit, with its mask
_CONTROL: Final = (WSMsgType.PING, WSMsgType.PONG, WSMsgType.CLOSE)
_log = logging.getLogger(__name__)


class SocketHouse(Protocol):
    """What the sockets of one listener share."""

    limits: Limits
    sockets: set[Any]  # all that are open

    def see_if_empty(self) -> None:
        """Look whether that was the last connection."""


class Socket(WSListener):
    """One open connection; its messages go to `peer` between `opened` and `closed`."""

    def __init__(self, peer: Peer, transport: Any, house: SocketHouse) -> None:
        self.transport = transport
        self.paused = False  # the other end does not read, or not fast enough
        self._peer = peer
        self._receive = peer.message_received
        self._house = house
        self._limits = house.limits
        self._loop = asyncio.get_running_loop()
        self._wire: WSTransport | None = None  # picows' side of the transport, once it is open
        self._deaf = False  # nothing that comes now is a message any more
        self._farewell_bytes = 0  # came after our close message
        self._closing = False  # we have sent a close message
        self._received_code: int | None = None  # of the close message that came
        self._sent_code: int | None = None
        self._fragments: bytearray | None = None  # of a message that is not yet whole
        self._ping = b""  # the latest, to be answered
        self._late_pong = DeferredPong(
            self._loop, self._send_pong, delay_seconds=self._limits.pong_delay_seconds
        )
        self._pace = ReadRateLimit(self._limits, self._loop)
        self._small_units = SmallFrameLimit(self._limits, self._loop)
        self._cut: asyncio.TimerHandle | None = None  # ends a connection that hangs in closing
        self._resume: Callable[[], None] | None = None  # of a peer that sends messages

    # What picows calls.

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Learn that the upgrade is done."""
        self._wire = transport
        try:
            self._peer.opened(SocketConnection(self, self._limits))
        except Exception:
            self._fail()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take one unit."""
        pace = self._pace
        pace.credit -= frame.payload_size
        if pace.credit < 0:
            pace.slow_down(self.transport)
        if self._closing:
            self._bound_farewell(frame)
        if self._deaf:
            return
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.break_off(1002, "reserved bits are set")
        elif frame.fin and self._fragments is None and frame.msg_type in _ONE_UNIT:
            self._deliver(frame.get_payload_as_bytes())
        else:
            self._take_other(frame)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Tell everybody that the connection is gone."""
        self._deaf = True
        self._house.sockets.discard(self)
        self._late_pong.cancel()
        if self._cut is not None:
            self._cut.cancel()
        codes = (self._received_code, self._sent_code, _BROKEN)
        code = next(code for code in codes if code is not None)
        try:
            self._peer.closed(code=code, clean=self._received_code is not None)
        except Exception:
            _log.exception("a peer failed at its end")
        self._house.see_if_empty()

    def pause_writing(self) -> None:
        """Learn that the socket takes no more."""
        self.paused = True

    def resume_writing(self) -> None:
        """Tell a peer that sends that the socket takes more."""
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
        if self.transport.can_write_eof():
            self.transport.write_eof()  # closing with bytes unread would outrun our close message

    def broken_off(self, code: int) -> None:
        """Learn that picows sends a close message because of what the other end sent.

        picows reads one unit ahead: the last good one is delivered after this call. What would
        be read from here on would be taken for units from a wrong place, so nothing is.
        """
        self._pace.stop(self.transport)
        self._closing = True
        if self._sent_code is None:
            self._sent_code = code
        self._cut_later()

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Remember whom to tell when the socket takes more."""
        self._resume = resume

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

    def _bound_farewell(self, frame: WSFrame) -> None:
        """End a connection whose other end does not stop sending after our close message."""
        self._farewell_bytes += _HEAD_BYTES + frame.payload_size
        if self._farewell_bytes > self._limits.max_farewell_bytes:
            self._deaf = True
            self._pace.stop(self.transport)  # an end now might outrun our close message

    def _take_other(self, frame: WSFrame) -> None:
        kind = frame.msg_type
        control = kind in _CONTROL
        if not self._small_units.bear(frame.payload_size, control=control):
            self.break_off(TOO_MANY_UNITS, BROKEN_OFF[TOO_MANY_UNITS])
            return
        if not control:
            self._take_fragment(frame, first=kind is not WSMsgType.CONTINUATION)
        elif kind is WSMsgType.PING:
            self._take_ping(frame.get_payload_as_bytes())
        elif kind is WSMsgType.CLOSE:
            self._take_close(frame)

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
        payload = frame.get_payload_as_bytes()
        try:
            close = Close.parse(payload)  # picows itself lets pass codes that must not be sent
        except ProtocolError:
            self.break_off(1002, "no close code")
            return
        self._deaf = True
        if not self._closing and not self.transport.is_closing():
            self._write_close(close.code, payload)
        self._received_code = close.code
        self._cut_later()
        self.transport.close()

    def _take_ping(self, ping: bytes) -> None:
        self._ping = ping
        if self._resume is None:
            self._late_pong.owe(self.transport.get_extra_info("socket").fileno())
        elif not self.paused:
            self._send_pong_now()

    def _send_pong(self) -> None:
        if not (self.transport.is_closing() or self._closing or self.paused):
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
        self._write_close(code, Close(code, reason).serialize())

    def _write_close(self, code: int, payload: bytes) -> None:
        assert self._wire is not None  # noqa: S101  what has no wire cannot be closing
        self._closing = True
        self._sent_code = code
        self._wire.send(WSMsgType.CLOSE, payload)

    def _cut_later(self) -> None:
        if self._cut is None:
            timeout = self._limits.close_timeout_seconds
            self._cut = self._loop.call_later(timeout, self.transport.abort)


def _drop(message: bytes) -> None:
    """Take the messages of a peer that failed."""
