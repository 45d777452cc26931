"""How fast one connection is read, and how many frames it may send that carry next to nothing.

Both are far above what any call needs, so they slow down or end only what would take the event
loop from all other connections. Reading slower loses nothing: what is not read waits in the
kernels and with the sender. A call brings less than 0.2 MB a second, and what was held up for
minutes fits into the burst.
"""

from __future__ import annotations

import asyncio
from typing import Any

from receiver.rate_limit import TokenBucket
from receiver.transports.interface import Limits


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
