"""By when a process must have ended, once a second SIGTERM or a SIGINT came.

Until then there is all the time in the world: a drain may last for hours. From then on every
part may use what is left of its own number of seconds, counted from the same moment, and a
thread ends the process if one of them hangs, as on a disk that does not answer.

The seconds are those of a `RunningClock`: a process that is paused meanwhile has as much time
left when it goes on.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, NoReturn, TypeVar

import structlog

from receiver.errors import DiskLeftError
from receiver.journal.spool import RunningClock

T = TypeVar("T")

LAST_SECONDS: Final = 9.7
"""After this the process ends, whatever it is doing; see `ShutdownDeadline.arm_watchdog`."""
_TICK_SECONDS: Final = 0.5
_LAST_LINE_SECONDS: Final = 0.2
"""For the log line about it: whatever reads our stderr may hang, too."""

log = structlog.get_logger("receiver.shutdown")


class ShutdownDeadline:
    """A clock that runs from `start` on; all seconds here are counted from that moment."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._clock = RunningClock(monotonic)
        self._started = asyncio.Event()
        self._started_for_threads = threading.Event()
        self._started_at = 0.0

    @property
    def started(self) -> bool:
        """Whether the clock runs."""
        return self._started.is_set()

    def start(self) -> None:
        """Start the clock; idempotent."""
        if not self.started:
            self._clock = RunningClock(self._monotonic)
            self._started_at = self._clock.now()
            threading.Thread(target=self._tick, name="shutdown-clock", daemon=True).start()
            self._started.set()
            self._started_for_threads.set()

    def remaining(self, seconds: float) -> float | None:
        """Return what is left of so many seconds; `None` where the clock does not run."""
        if not self.started:
            return None
        return max(0.0, self._started_at + seconds - self._clock.now())

    async def wait_until(self, seconds: float) -> None:
        """Return so many seconds after the start, which may never come."""
        await self._started.wait()
        left = self.remaining(seconds)
        while left:
            await asyncio.sleep(min(left, _TICK_SECONDS))
            left = self.remaining(seconds)

    async def run_until(
        self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float
    ) -> T | None:
        """Await `work`, but cancel it so many seconds after the start.

        Returns:
            What it returned, or `None` where it was cancelled.
        """
        working = asyncio.create_task(work())
        late = asyncio.create_task(self.wait_until(seconds))
        try:
            await asyncio.wait((working, late), return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
            cancelled = not working.done()
            working.cancel()
        return None if cancelled else await working

    def arm_watchdog(self, left_behind: Callable[[], Mapping[str, object]]) -> None:
        """End this process `LAST_SECONDS` after the start, whatever hangs.

        Args:
            left_behind: returns what becomes part of the last log line. It is called in a
                thread, and must not touch a disk, which may be what hangs.
        """
        threading.Thread(
            target=self._end_process, args=(left_behind,), name="last-resort", daemon=True
        ).start()

    def _tick(self) -> None:
        while True:
            time.sleep(_TICK_SECONDS)
            self._clock.tick()

    def _end_process(self, left_behind: Callable[[], Mapping[str, object]]) -> None:
        self._started_for_threads.wait()
        while left := self.remaining(LAST_SECONDS):
            time.sleep(min(left, _TICK_SECONDS))
        try:
            logging = threading.Thread(target=_log_end, args=(left_behind,), daemon=True)
            logging.start()
            logging.join(_LAST_LINE_SECONDS)
        finally:
            os._exit(1)  # rendering processes end with their parent


def leave_disk(error: DiskLeftError) -> NoReturn:
    """End this process, of which all is done that can be: Python would wait for hanging threads."""
    log.error("disk_left_behind", reason=str(error))
    sys.stderr.flush()
    os._exit(DiskLeftError.exit_code)


def _log_end(left_behind: Callable[[], Mapping[str, object]]) -> None:
    log.error("ended_by_force", seconds=LAST_SECONDS, **left_behind())
    sys.stderr.flush()
