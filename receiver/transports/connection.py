"""One open WebSocket connection: a protocol of the event loop, a `Connection` of the seam.

The websockets library's own connection hands out messages through a queue and a task, and stops
reading when the queue is full. A provider throws audio away when its peer reads slowly, so here
messages go to the peer as they are read, in the event loop's callback: no queue, no wake-up, no
back-pressure. Of the library only the protocol core is used, which does no input or output, and
`FrameReader` gives it only the frames that are not whole messages.

How a connection ends, as `ServerProtocol` counts its states:

    OPEN     close(), a close message, a protocol error or too many small frames: -> CLOSING
    CLOSING  what was on its way is still delivered after our close(), never after the others;
             the close time-out runs, and at most `max_bytes_after_close` are read
    gone     `connection_lost`: the peer's last call, `closed`

How fast a connection is read, and how many frames it may send that carry next to nothing, is
bounded far above what any call needs. So these bounds slow down or end only what would take the
event loop from all other connections. Reading slower loses nothing: what is not read waits in the
kernels and with the sender. A call brings less than 0.2 MB a second, and what was held up for
minutes fits into the burst.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from websockets.frames import DATA_OPCODES, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from receiver.rate_limit import TokenBucket
from receiver.transports import handshake, tcp
from receiver.transports.frames import FrameReader
from receiver.transports.interface import FAILURES, TOO_MANY_SMALL_FRAMES, Limits, Peer


class ReadRateLimit:
    """Pauses the reading of one transport: for a rate, for a turn of the event loop, for good.

    The caller subtracts every byte read from `credit`, and calls `slow_down` where that goes
    below zero: an attribute costs less than a call.
    """

    def __init__(self, limits: Limits, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.credit = float(limits.max_burst_bytes)
        self._transport = transport
        self._loop = loop
        self._burst = limits.max_burst_bytes
        self._per_second = limits.bytes_per_second
        self._filled_at = loop.time()
        self._paused = False  # until there is credit, or for good
        self._stopped = False

    def slow_down(self) -> None:
        """Pause reading until `credit` is no longer below zero."""
        self._refill()
        if self.credit < 0 and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            self._resume_later()

    def skip_turn(self) -> None:
        """Read the other sockets first: uvloop would read this one 32 times in a row."""
        if not self._paused:
            self._transport.pause_reading()
            self._loop.call_soon(self._end_turn)

    def stop(self) -> None:
        """Read no more, for good."""
        self._paused = self._stopped = True
        self._transport.pause_reading()

    def _end_turn(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._transport.resume_reading()

    def _refill(self) -> None:
        now = self._loop.time()
        gained = (now - self._filled_at) * self._per_second
        self._filled_at = now
        self.credit = min(self._burst, self.credit + gained)

    def _resume_later(self) -> None:
        self._loop.call_later(-self.credit / self._per_second, self._resume)

    def _resume(self) -> None:
        self._refill()
        if self.credit < 0:
            self._resume_later()
        elif not self._stopped and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()


class SmallFrameLimit:
    """Counts control frames and small fragments: each costs as much as a chunk of audio.

    A large fragment makes up for a small one, because some libraries end each message with an
    empty fragment. Whole messages are not counted: what they may be, their peer decides.
    """

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._now = loop.time
        self._small_bytes = limits.small_frame_bytes
        self._bucket = TokenBucket(limits.max_small_frames, limits.small_frames_per_second)

    def allows(self, length: int, *, control: bool) -> bool:
        """Count a frame with a payload of `length` bytes; return whether it is within the limit."""
        if length >= self._small_bytes and not control:
            self._bucket.give_back()
            return True
        return self._bucket.take(self._now())


class DeferredPong:
    """Calls `send` some time after a ping, when the kernel holds nothing more to be read.

    A write to a socket that the other end has reset makes the event loop drop it with all that
    was received and not yet read. On a stream that records, pongs are all we write. A pong may
    wait (RFC 6455, section 5.5.3: the most recent ping is enough), so it does.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[], None], *, delay_seconds: float
    ) -> None:
        self._loop = loop
        self._send = send
        self._delay_seconds = delay_seconds
        self._descriptor = -1
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self, descriptor: int) -> None:
        """Send a pong to the socket of `descriptor` later; pings that come meanwhile share it."""
        self._descriptor = descriptor
        if self._timer is None:
            self._start_timer()

    def cancel(self) -> None:
        """Send nothing any more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self) -> None:
        self._timer = self._loop.call_later(self._delay_seconds, self._send_if_drained)

    def _send_if_drained(self) -> None:
        self._timer = None
        if tcp.unread_bytes(self._descriptor):
            self._start_timer()
        else:
            self._send()


class Liveness:
    """Finds out by pings whether the other end of a silent connection is still there.

    A call on hold may bring nothing for an hour, so silence says nothing. Signs of life are
    anything that comes, a pong among it, and that the other end's TCP acknowledges a ping, which
    shows that its host is there: some programs answer none.

        nothing came for `ping_seconds`    `ping`
        it is answered or acknowledged     from the beginning
        it is not                          `ping` again after as long, and the seconds add up

    No clock is read: the caller counts time that it has lived through itself. A process that was
    stopped for minutes finds answers in its sockets, and takes nobody for dead.
    """

    __slots__ = ("_ping", "_ping_seconds", "_pinged", "_quiet", "_unanswered")

    def __init__(self, ping: Callable[[], None], *, ping_seconds: float) -> None:
        self._ping = ping
        self._ping_seconds = ping_seconds
        self._quiet = 0.0  # seconds since the last sign of life, or the last ping
        self._unanswered = 0.0  # seconds since the first ping that had no answer
        self._pinged = False

    def count(self, seconds: float, *, came: bool, descriptor: int) -> float:
        """Count time that has passed; return for how many seconds pings are unanswered.

        Args:
            came: whether anything was read meanwhile.
            descriptor: the socket's. What its kernel holds has come, too: a ping to a socket
                that was reset would lose it.
        """
        self._quiet += seconds
        if self._pinged:
            self._unanswered += seconds
        if came or self._has_answer(descriptor):
            self._quiet = self._unanswered = 0.0
            self._pinged = False
        elif self._quiet >= self._ping_seconds:
            self._quiet = 0.0
            self._pinged = True
            self._ping()
        return self._unanswered

    def _has_answer(self, descriptor: int) -> bool:
        """Return whether the kernel has an answer; it is asked only where a ping is out or due."""
        if self._pinged and not tcp.unacknowledged_bytes(descriptor):
            return True
        return self._quiet >= self._ping_seconds and tcp.unread_bytes(descriptor) > 0


_PING: Final = Frame(Opcode.PING, b"").serialize(mask=False)
"""Made once: a thousand calls on hold may be pinged in one turn of the event loop."""
_INTERNAL_ERROR: Final = 1011
_BROKEN: Final = 1006
_SLICE_BYTES: Final = 16_384  # a stream in real time brings less than 1 KiB at a time
_PARSED_BYTES: Final = 4_096  # by the library, before what it found is checked
_log = logging.getLogger(__name__)


class WebSocketConnection(asyncio.BaseProtocol):
    """A connection whose messages go to its peer between `opened` and `closed`.

    `on_lost` is called when it is gone, behind the peer's `closed`.
    """

    def __init__(
        self,
        peer: Peer,
        transport: Any,
        limits: Limits,
        *,
        on_lost: Callable[[WebSocketConnection], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._peer = peer
        self._transport = transport
        self._limits = limits
        self._on_lost = on_lost
        self._protocol = ServerProtocol(max_size=limits.max_message_bytes, state=State.OPEN)
        self._frames = FrameReader(
            peer.message_received,
            self._feed_library,
            max_message_bytes=limits.max_message_bytes,
        )
        self._fragments = bytearray()  # of a message that is not yet whole
        self._read_limit = ReadRateLimit(limits, transport, loop)
        self._small_frames = SmallFrameLimit(limits, loop)
        self._pong = DeferredPong(loop, self._send_pong, delay_seconds=limits.pong_delay_seconds)
        self._liveness = Liveness(self._send_ping, ping_seconds=limits.ping_seconds)
        self._credit_seen = self._read_limit.credit  # it falls with every byte that is read
        self._abort_timer: asyncio.TimerHandle | None = None  # runs while the connection closes
        self._bytes_after_close = 0
        self._ended = False  # nothing that comes now is a message any more
        self._resume: Callable[[], None] | None = None  # of a peer that sends messages
        self._writing_paused = False

    def open(self, response: bytes, early: bytes) -> None:
        """Answer the request, open the peer, and process what came behind the request."""
        self._transport.set_protocol(self)
        self._transport.write(response)
        try:
            self._peer.opened(self)
        except Exception:
            self._fail()
        if early:
            self.data_received(early)

    # A `Connection` of the seam.

    @property
    def remote_address(self) -> str:
        """Return the other end's address, without the port."""
        return handshake.address_of(self._transport.get_extra_info("peername"))

    def close(self, code: int, reason: str) -> None:
        """Send a close message, unless the connection is closing already."""
        if self._can_send():
            self._protocol.send_close(code, handshake.cut_reason(reason))
            self._write()
            self._abort_later()

    def abort(self) -> None:
        """Drop the socket."""
        self._transport.abort()

    def unanswered_seconds(self, passed: float) -> float:
        """Count seconds, ping a silent other end, return for how long it has not answered."""
        if not self._can_send():
            return 0.0  # the close time-out runs
        credit, self._credit_seen = self._credit_seen, self._read_limit.credit
        return self._liveness.count(
            passed,
            came=credit != self._credit_seen,
            descriptor=self._transport.get_extra_info("socket").fileno(),
        )

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Prepare the socket for messages of ours; one who listens may be silent for ever."""
        size = self._limits.send_buffer_bytes
        self._transport.set_write_buffer_limits(size)
        tcp.prepare_sending(self._transport.get_extra_info("socket"), send_buffer_bytes=size)
        self._resume = resume

    def send(self, message: bytes | str) -> bool:
        """Write one message; return whether another one may follow now."""
        if not self._can_send():
            return False
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        self._write()
        return not self._writing_paused

    # Callbacks of the event loop.

    def data_received(self, data: bytes) -> None:
        """Process what was read; nearly always a whole frame or two of a stream in real time."""
        size = len(data)
        limit = self._read_limit
        limit.credit -= size
        if limit.credit < 0:
            limit.slow_down()
        if size > _SLICE_BYTES or self._abort_timer is not None:
            self._receive_slices(data)
            return
        try:
            self._frames.feed(data)
        except Exception:
            self._fail_and_go_on()

    def eof_received(self) -> None:
        """Close the transport, which the loop does: nothing is sent behind the other end's end."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the peer: nothing more comes."""
        self._pong.cancel()
        if self._abort_timer is not None:
            self._abort_timer.cancel()
        received = self._protocol.close_rcvd
        last = received or self._protocol.close_sent
        try:
            self._peer.closed(code=last.code if last else _BROKEN, clean=received is not None)
        except Exception:
            _log.exception("a peer failed at its end")
        self._on_lost(self)

    def pause_writing(self) -> None:
        """Record that the socket takes no more."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Call back a peer that sends: the socket takes more."""
        self._writing_paused = False
        if self._resume is not None and self._can_send():
            self._resume()

    # Receiving.

    def _receive_slices(self, data: bytes) -> None:
        """Process a large read in slices, to notice where the end has come meanwhile."""
        self._read_limit.skip_turn()
        for start in range(0, len(data), _SLICE_BYTES):
            part = data[start : start + _SLICE_BYTES]
            if self._abort_timer is not None:
                self._bytes_after_close += len(part)
            if self._bytes_after_close > self._limits.max_bytes_after_close:
                self._read_limit.stop()  # an end now might outrun our close message
                return
            try:
                self._frames.feed(part)
            except Exception:
                self._fail_and_go_on()

    def _feed_library(self, data: bytes) -> bool:
        """Process frames that are no whole messages; return whether more frames are wanted."""
        for start in range(0, len(data), _PARSED_BYTES):
            self._protocol.receive_data(data[start : start + _PARSED_BYTES])
            if self._protocol.state is State.OPEN:
                self._hold_pongs()
            else:
                self._write()
                self._abort_later()
            for frame in self._protocol.events_received():
                if isinstance(frame, Frame):  # an open connection has no other events
                    self._receive_frame(frame)
            if self._ended or self._protocol.parser_exc or self._protocol.close_rcvd:
                self._ended = True
                break
        return not self._ended

    def _receive_frame(self, frame: Frame) -> None:
        control = frame.opcode not in DATA_OPCODES
        if self._ended:
            return
        if not self._small_frames.allows(len(frame.data), control=control):
            self._ended = True
            self._protocol.fail(TOO_MANY_SMALL_FRAMES, FAILURES[TOO_MANY_SMALL_FRAMES])
            self._write()
            self._abort_later()
        elif not control:
            self._receive_fragment(frame)

    def _receive_fragment(self, frame: Frame) -> None:
        """Deliver a message once its last fragment is there; most have only one."""
        self._fragments += frame.data
        if frame.fin:
            message, self._fragments = bytes(self._fragments), bytearray()
            try:
                self._frames.on_message(message)
            except Exception:
                self._fail()

    def _fail(self) -> None:
        """End this connection only, for an error of ours that the peer raised."""
        _log.exception("a peer failed; its connection is closed")
        self._frames.on_message = _drop
        self.close(_INTERNAL_ERROR, "internal error")

    def _fail_and_go_on(self) -> None:
        self._fail()
        self._frames.feed(b"")  # what was read behind the message at which the peer failed

    # Sending.

    def _can_send(self) -> bool:
        return self._protocol.state is State.OPEN and not self._transport.is_closing()

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            else:
                self._write_end()

    def _write_end(self) -> None:
        if not self._transport.can_write_eof():  # TLS
            self._transport.close()
            return
        with contextlib.suppress(OSError, RuntimeError):  # uvloop's, where it is closed
            self._transport.write_eof()

    def _hold_pongs(self) -> None:
        """Keep the latest pong only; messages are written at once, so nothing else is due.

        A peer that sends gets its pong now, and none while it does not read what it came for.
        """
        writes = self._protocol.writes
        if self._resume is None:
            del writes[:-1]
            if writes:
                self._pong.schedule(self._transport.get_extra_info("socket").fileno())
        else:
            del writes[: None if self._writing_paused else -1]
            self._write()

    def _send_pong(self) -> None:
        if self._can_send():
            self._write()

    def _send_ping(self) -> None:
        self._transport.write(_PING)

    def _abort_later(self) -> None:
        """Bound how long closing takes: the other end may never close its side."""
        if self._abort_timer is None:
            timeout = self._limits.close_timeout_seconds
            self._abort_timer = self._loop.call_later(timeout, self._transport.abort)


class TlsConnection(WebSocketConnection, asyncio.BufferedProtocol):
    """A connection whose plaintext is read into one buffer that the whole process shares.

    Without a buffer of ours, uvloop sets 256 KiB aside for each TLS record, which is each chunk,
    and gives back what it does not need. Until a first connection has closed, that is `mmap`,
    `mremap` and `munmap`: 20 us a record, and 3 us with the buffer. The loop fills what
    `get_buffer` returns and calls `buffer_updated` at once, so nothing comes between.
    """

    _plaintext = memoryview(bytearray(_SLICE_BYTES))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the loop writes plaintext: all of it, as what is left over may be lost."""
        if sizehint > len(TlsConnection._plaintext):
            TlsConnection._plaintext = memoryview(bytearray(sizehint))
        return TlsConnection._plaintext

    def buffer_updated(self, nbytes: int) -> None:
        """Process what the loop has written."""
        self.data_received(TlsConnection._plaintext[:nbytes].tobytes())


def _drop(message: bytes) -> None:
    """Ignore messages of a peer that failed."""
