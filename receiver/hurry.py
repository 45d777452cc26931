"""By when all must be over, once somebody is in a hurry: a second SIGTERM, or Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Hurry:
    """The clock that begins to run with `begin`; before that there is all the time."""

    def __init__(self) -> None:
        self._began = asyncio.Event()
        self._began_at = 0.0

    @property
    def begun(self) -> bool:
        """Whether somebody is in a hurry."""
        return self._began.is_set()

    def begin(self) -> None:
        """Be in a hurry from now on; idempotent."""
        if not self.begun:
            self._began_at = asyncio.get_running_loop().time()
            self._began.set()

    async def allow(self, work: Callable[[], Coroutine[Any, Any, object]], seconds: float) -> None:
        """Do `work` to its end, or give it up so many seconds after the hurry began."""
        working = asyncio.create_task(work())
        late = asyncio.create_task(self.passed(seconds))
        try:
            await asyncio.wait((working, late), return_when=asyncio.FIRST_COMPLETED)
        finally:
            late.cancel()
            given_up = not working.done()
            working.cancel()
        if not given_up:
            await working

    async def passed(self, seconds: float) -> None:
        """Wait until so many seconds after the hurry began."""
        await self._began.wait()
        await asyncio.sleep(self._began_at + seconds - asyncio.get_running_loop().time())
