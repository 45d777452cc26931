"""One open connection of the websockets library; see `websockets` for the listener behind it.

`websockets.serve` hands out messages through a queue and a task per connection, and stops
reading when the queue is full. A provider throws audio away when its peer reads slowly, so
messages are taken here as they are parsed, in the event loop's read callback: no queue, no
wake-up, no back-pressure. See `process_event` in websockets.asyncio.connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from websockets.asyncio.connection import Connection
from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import Event, State
from websockets.server import ServerProtocol

from receiver.transports import handshake
from receiver.transports.connection import SocketConnection
from receiver.transports.deferred_pong import DeferredPong
from receiver.transports.frames import FrameReader
from receiver.transports.inbound_limits import ReadRateLimit
from receiver.transports.interface import FAILURES, TOO_MANY_SMALL_FRAMES, Limits, Peer
from receiver.transports.small_units import SmallFrameLimit
from receiver.transports.upgrade import AcceptedUpgrade

_BROKEN: Final = 1006
_SLICE_BYTES: Final = 16_384  # a stream in real time brings less than 1 KiB at a time
_MOST_PARSED_BYTES: Final = 4_096  # by the library before we look at what it found
_log = logging.getLogger(__name__)


class SocketHouse(Protocol):
    """What the sockets of one listener share."""

    limits: Limits
    sockets: set[Any]  # all that are open

    def see_if_empty(self) -> None:
        """Look whether that was the last connection."""


class Socket(Connection):
    """One open connection; its messages go to `peer` between `opened` and `closed`."""

    def __init__(self, peer: Peer, house: SocketHouse) -> None:
        limits = house.limits
        super().__init__(
            ServerProtocol(max_size=limits.max_message_bytes, state=State.OPEN),
            ping_interval=None,  # liveness is judged by media, not by pongs
            close_timeout=limits.close_timeout_seconds,
        )
        self._peer = peer
        self._house = house
        self._limits = limits
        self._farewell_bytes = 0  # came after our close message
        self._failed = False  # the peer raised an error: it gets no more messages
        self._broken_off = False  # it gets none because of what the other end sent
        units = FrameReader(
            self._deliver, self._parse, self._is_sound, longest=limits.max_message_bytes
        )
        self._receive = units.receive
        self._fragments = bytearray()  # of a message that is not yet whole
        self._pace = ReadRateLimit(limits, self.loop)
        self._small_frames = SmallFrameLimit(limits, self.loop)
        self._late_pong = DeferredPong(
            self.loop, self._send_pong, delay_seconds=limits.pong_delay_seconds
        )
        self._cut: asyncio.TimerHandle | None = None  # ends a closing handshake that hangs
        self._resume: Callable[[], None] | None = None  # of a peer that sends messages

    # What the event loop calls.

    def data_received(self, data: bytes) -> None:
        """Take what was read: units."""
        self._pace.credit -= len(data)
        if self._pace.credit < 0:
            self._pace.slow_down(self.transport)
        if self._cut is None and len(data) <= _SLICE_BYTES:
            self._receive(data)
        else:
            self._receive_slices(data)
        if self.close_deadline is not None and self._cut is None:
            # The library waits for the other end, which may never close its side.
            self._cut = self.loop.call_at(self.close_deadline, self.transport.abort)

    def _receive_slices(self, data: bytes) -> None:
        """Take a large read in slices, to notice where the end has come meanwhile."""
        self._give_turn()
        for start in range(0, len(data), _SLICE_BYTES):
            part = data[start : start + _SLICE_BYTES]
            if self._cut is not None:
                self._farewell_bytes += len(part)
            if self._farewell_bytes > self._limits.max_bytes_after_close:
                self._pace.stop(self.transport)  # an end now might outrun our close message
                return
            self._receive(part)

    def _give_turn(self) -> None:
        """Let the other sockets be read first: uvloop would read this one 32 times in a row."""
        if not self._pace.paused:
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing() and not self._pace.paused:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody that the connection is gone."""
        super().connection_lost(exc)
        self._house.sockets.discard(self)
        self._late_pong.cancel()
        if self._cut is not None:
            self._cut.cancel()
        self._tell_the_end()
        self._house.see_if_empty()

    def _tell_the_end(self) -> None:
        received, sent = self.protocol.close_rcvd, self.protocol.close_sent
        last = received or sent
        try:
            self._peer.closed(code=last.code if last else _BROKEN, clean=received is not None)
        except Exception:
            _log.exception("a peer failed at its end")

    # What the library calls.

    def process_event(self, event: Event) -> None:
        """Take a unit that the library has parsed."""
        if isinstance(event, Frame):  # an open connection has no other events
            self._take(event)

    def send_data(self) -> None:
        """Write what is due, but hold back pongs, which are all we write on an open stream."""
        if self.protocol.state is State.OPEN:
            # What is due here is pongs, since messages are written as they are sent: one is
            # enough, and none where the other end does not even read what it came for.
            drop_all = self._resume is not None and self.paused
            del self.protocol.writes[: None if drop_all else -1]
            if self._resume is None:
                if self.protocol.writes:
                    self._late_pong.owe(self.transport.get_extra_info("socket").fileno())
                return
        super().send_data()

    def resume_writing(self) -> None:
        """Tell a peer that sends that the socket takes more."""
        super().resume_writing()
        if self._resume is not None and self._can_send():
            self._resume()

    # What this module calls.

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Remember whom to tell when the socket takes more."""
        self._resume = resume

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

    def open(self, admitted: AcceptedUpgrade) -> None:
        """Answer the request, tell the peer, and give it what came too early."""
        transport = admitted.transport
        transport.set_protocol(self)
        self.connection_made(transport)
        transport.write(admitted.answer)
        try:
            self._peer.opened(SocketConnection(self, self._limits))
        except Exception:
            self._fail()
        if admitted.rest:
            self.data_received(admitted.rest)

    def _parse(self, data: bytes) -> None:
        """Have the library take what was read, in pieces after which it can be stopped."""
        for start in range(0, len(data), _MOST_PARSED_BYTES):
            super().data_received(data[start : start + _MOST_PARSED_BYTES])
            if self._broken_off:
                return

    def _is_sound(self) -> bool:
        protocol = self.protocol
        return not (protocol.parser_exc or protocol.close_rcvd or self._broken_off)

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close message, unless the connection is closing already."""
        if self.protocol.state is not State.OPEN or self.transport.is_closing():
            return
        self.protocol.send_close(code, handshake.cut_reason(reason))
        self._cut_later()
        self.send_data()

    def _send_pong(self) -> None:
        if self.protocol.state is State.OPEN and not self.transport.is_closing():
            super().send_data()

    def _break_off(self) -> None:
        """Close because of what the other end sends; nothing of it is listened to any more."""
        self._broken_off = True
        self.protocol.fail(TOO_MANY_SMALL_FRAMES, FAILURES[TOO_MANY_SMALL_FRAMES])
        self._cut_later()
        self.send_data()

    def _cut_later(self) -> None:
        if self._cut is None:
            self.close_deadline = self.loop.time() + self._limits.close_timeout_seconds
            self._cut = self.loop.call_at(self.close_deadline, self.transport.abort)

    def _take(self, event: Frame) -> None:
        control = event.opcode not in DATA_OPCODES
        if self._broken_off:
            return
        if not self._small_frames.bear(len(event.data), control=control):
            self._break_off()
        elif not control:
            self._take_fragment(event)

    def _take_fragment(self, event: Frame) -> None:
        """Deliver a message once its last fragment is there; most have only one."""
        if event.fin and event.opcode is not Opcode.CONT:
            self._deliver(bytes(event.data))
            return
        self._fragments += event.data
        if event.fin:
            message, self._fragments = bytes(self._fragments), bytearray()
            self._deliver(message)

    def _deliver(self, message: bytes) -> None:
        if self._failed:
            return
        try:
            self._peer.message_received(message)
        except Exception:
            self._fail()

    def _fail(self) -> None:
        """Called where the peer raised an error: a mistake of ours ends this socket only."""
        self._failed = True
        _log.exception("a peer failed; its connection is closed")
        self.start_closing(1011, "internal error")
