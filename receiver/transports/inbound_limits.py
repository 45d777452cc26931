"""How fast one connection is read: faster than any call, but not without end.

Nobody else is slowed down by it, and nothing is lost: what is not read waits in the kernels and
with the sender. A call brings less than 0.2 MB a second, and what was held up for minutes fits
into the burst.
"""

from __future__ import annotations

import asyncio
from typing import Any

from receiver.transports.interface import Limits


class ReadRateLimit:
    """Counts what was read down from `credit`, and pauses reading where that is used up."""

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self.credit = float(limits.max_burst_bytes)
        self.paused = False
        self._stopped = False
        self._loop = loop
        self._burst = limits.max_burst_bytes
        self._per_second = limits.bytes_per_second
        self._filled_at = loop.time()

    def slow_down(self, transport: Any) -> None:
        """Call this where `credit` is below zero; `transport` is paused until it is not."""
        self._fill()
        if self.credit < 0 and not self.paused:
            self.paused = True
            transport.pause_reading()
            self._wait(transport)

    def stop(self, transport: Any) -> None:
        """Read no more of `transport`, for good."""
        self.paused = self._stopped = True
        transport.pause_reading()

    def _fill(self) -> None:
        now = self._loop.time()
        gained = (now - self._filled_at) * self._per_second
        self._filled_at = now
        self.credit = min(self._burst, self.credit + gained)

    def _wait(self, transport: Any) -> None:
        self._loop.call_later(-self.credit / self._per_second, self._go_on, transport)

    def _go_on(self, transport: Any) -> None:
        self._fill()
        if self.credit < 0:
            self._wait(transport)
        elif not self._stopped and not transport.is_closing():
            self.paused = False
            transport.resume_reading()
