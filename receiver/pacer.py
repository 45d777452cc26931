"""Has the event loop look at its sockets once a millisecond while many streams live.

Streams in real time are too many to let a process rest and too few to keep it busy: with 150
calls a chunk comes every 67 us, and each one wakes the process up for itself alone. Going to
sleep and waking up was a quarter of what a chunk cost. One short sleep in every round of the
loop lets some chunks gather; an idle receiver, or one with few streams, never does it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

FEWEST_STREAMS: Final = 20
"""With fewer, less than a handful of chunks would gather."""
INTERVAL_SECONDS: Final = 0.001


class Pacer:
    """Slows the running event loop down while there are streams enough."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._streams = 0
        self._due = 0.0
        self._ticking = False

    def note(self, streams: int) -> None:
        """Learn how many streams live."""
        self._streams = streams
        if not self._ticking and streams >= FEWEST_STREAMS:
            self._ticking = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        """Rest for what is left of the interval; a loop that is late does not rest at all."""
        if self._streams < FEWEST_STREAMS:
            self._ticking = False
            return
        left = self._due - time.monotonic()
        if left > 0:
            time.sleep(left)
        self._due = time.monotonic() + INTERVAL_SECONDS
        self._loop.call_soon(self._tick)
