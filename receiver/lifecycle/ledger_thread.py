"""The ledger for an event loop: a thread of its own appends, so that no audio waits for a disk."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from receiver.errors import LedgerError, UnsafeFolderError
from receiver.lifecycle.ledger import Act, Entry, Ledger
from receiver.rate_limit import LogThrottle

log = structlog.get_logger("receiver.ledger")


class LedgerThread:
    """Appends entries in the order in which they are given; for the event loop's thread.

    Args:
        recordings: The recordings folder.
    """

    def __init__(self, recordings: Path) -> None:
        self._ledger = Ledger(recordings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._pending: set[asyncio.Future[Entry]] = set()
        self._closed = False
        self._throttle = LogThrottle()

    async def append(self, what: Act, **fields: Any) -> None:
        """Append an entry, and return when it is on disk; see `Ledger.append` for `fields`.

        Raises:
            LedgerError: it cannot be written, which is logged; what it says must not be done.
        """
        try:
            await self._start(what, fields)
        except (LedgerError, UnsafeFolderError) as error:
            self._log(error)
            raise LedgerError(str(error)) from error

    def submit(self, what: Act, **fields: Any) -> None:
        """Append what was done already, without waiting; a failure is logged."""
        try:
            self._start(what, fields).add_done_callback(self._submitted)
        except LedgerError as error:
            self._log(error)

    def _start(self, what: Act, fields: dict[str, Any]) -> asyncio.Future[Entry]:
        if self._closed:
            raise LedgerError("the ledger is closed: the receiver ends")
        work = partial(self._ledger.append, what, **fields)
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _submitted(self, future: asyncio.Future[Entry]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self._log(error)

    def _log(self, error: BaseException) -> None:
        if times := self._throttle.count("", time.monotonic()):
            log.error("ledger_failed", reason=str(error), times=times)

    async def close(self) -> bool:
        """Wait for all that was given, and end the thread; return that it is so. Idempotent."""
        self._closed = True
        while self._pending:
            await asyncio.wait(tuple(self._pending))
        self._thread.shutdown(wait=False)
        return True
