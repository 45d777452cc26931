"""By when all must be over, once somebody is in a hurry: a second SIGTERM, or Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import structlog

T = TypeVar("T")

LAST_SECONDS: Final = 9.7
"""After this the process ends whatever it is in the midst of; see `ShutdownDeadline.enforce`."""
_LAST_WORD_SECONDS: Final = 0.2
"""For the line that says so: whoever reads our stderr may hang, too."""

log = structlog.get_logger("receiver.hurry")


class ShutdownDeadline:
    """The clock that begins to run with `begin`; before that there is all the time."""

    def __init__(self) -> None:
        self._began = asyncio.Event()
        self._began_for_threads = threading.Event()
        self._began_at = 0.0

    @property
    def begun(self) -> bool:
        """Whether somebody is in a hurry."""
        return self._began.is_set()

    def begin(self) -> None:
        """Be in a hurry from now on; idempotent."""
        if not self.begun:
            self._began_at = time.monotonic()
            self._began.set()
            self._began_for_threads.set()

    def left(self, seconds: float) -> float | None:
        """Return what is left of so many seconds after the hurry began; `None`: no hurry."""
        if not self.begun:
            return None
        return max(0.0, self._began_at + seconds - time.monotonic())

    async def allow(self, work: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T | None:
        """Do `work` to its end, or give it up so many seconds after the hurry began.

        Returns what it returned, or `None` where it was given up.
        """
        working = asyncio.create_task(work())
        late = asyncio.create_task(self.passed(seconds))
        try:
            await asyncio.wait((working, late), return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
            given_up = not working.done()
            working.cancel()
        return None if given_up else await working

    async def passed(self, seconds: float) -> None:
        """Wait until so many seconds after the hurry began."""
        await self._began.wait()
        await asyncio.sleep(self.left(seconds) or 0.0)

    def enforce(self, left_behind: Callable[[], Mapping[str, object]]) -> None:
        """From now on end this process `LAST_SECONDS` after a hurry has begun, whatever hangs.

        What `left_behind` returns becomes part of the last log line. It is called in a thread,
        and must not touch a disk, which may be what hangs.
        """
        threading.Thread(
            target=self._end_process, args=(left_behind,), name="last-resort", daemon=True
        ).start()

    def _end_process(self, left_behind: Callable[[], Mapping[str, object]]) -> None:
        self._began_for_threads.wait()
        time.sleep(self.left(LAST_SECONDS) or 0.0)
        try:
            speaking = threading.Thread(target=_say_last_word, args=(left_behind,), daemon=True)
            speaking.start()
            speaking.join(_LAST_WORD_SECONDS)
        finally:
            os._exit(1)  # rendering processes end with their parent


def _say_last_word(left_behind: Callable[[], Mapping[str, object]]) -> None:
    log.error("ended_by_force", seconds=LAST_SECONDS, **left_behind())
    sys.stderr.flush()
