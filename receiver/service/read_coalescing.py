"""Reads sockets in batches while many streams live, as network cards coalesce interrupts.

Streams in real time are too many to let a process rest and too few to keep it busy: with 150
calls a chunk comes every 67 us, and each one wakes the process up and is read by itself. A
short sleep every few rounds of the event loop lets chunks gather, two to a read where nothing
needs a low latency. An idle receiver, or one with few streams, never sleeps that way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

FEWEST_STREAMS: Final = 20
"""With fewer, less than a handful of chunks would gather."""
INTERVAL_SECONDS: Final = 0.02
"""What one packet lasts. The journal's writer comes round ten times more seldom."""
BRISK_INTERVAL_SECONDS: Final = 0.001
"""... and where somebody waits for what comes, such as a listener."""
_ROUNDS: Final = 3
"""Of the event loop between two long rests, so that a task which is woken up gets on."""


class ReadCoalescer:
    """Slows the running event loop down while there are streams enough.

    `low_latency` returns whether somebody would notice a long rest; it is called every round.
    """

    def __init__(self, low_latency: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._low_latency = low_latency
        self._streams = 0
        self._rested_at = -INTERVAL_SECONDS
        self._round = 0  # since the last rest
        self._ticking = False

    def observe(self, streams: int) -> None:
        """Set how many streams live."""
        self._streams = streams
        if not self._ticking and streams >= FEWEST_STREAMS:
            self._ticking = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        """Rest for what is left of the interval; a loop that is late does not rest at all."""
        if self._streams < FEWEST_STREAMS:
            self._ticking = False
            return
        self._round += 1
        if self._low_latency():
            self._rest(BRISK_INTERVAL_SECONDS)
        elif self._round >= _ROUNDS:
            self._rest(INTERVAL_SECONDS)
        self._loop.call_soon(self._tick)

    def _rest(self, interval: float) -> None:
        left = self._rested_at + interval - time.monotonic()
        if left > 0:
            time.sleep(left)
        self._rested_at = time.monotonic()
        self._round = 0
