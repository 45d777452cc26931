"""Publishes finished journals in another process, so that rendering never holds up a socket.

One process renders one journal after the other at low priority. A journal that cannot be
published now (no space) is tried again later; one that makes the process itself fail twice
stays in the spool, and the next start tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

import structlog

from receiver import publish
from receiver.publish import Empty, Outcome, Published
from receiver.render import RenderOptions

_RETRY_SECONDS: Final = (1.0, 5.0, 30.0)
_MOST_BROKEN: Final = 2

log = structlog.get_logger("receiver.publisher")


class Publisher:
    """Takes the paths of finished journals and has each published once."""

    def __init__(
        self,
        recordings: Path,
        options: RenderOptions,
        *,
        published: Callable[[Published], None] = lambda _: None,
        quarantined: Callable[[], None] = lambda: None,
    ) -> None:
        self._recordings = recordings
        self._options = options
        self._published = published
        self._quarantined = quarantined
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = asyncio.Event()
        self._pool = _new_pool()
        self._turn = asyncio.Lock()

    def submit(self, journal: Path) -> None:
        """Have `journal` published; for the event loop's thread."""
        task = asyncio.create_task(self._publish(journal))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Publish what was submitted, then end the process; idempotent.

        What fails now is not tried again: its journal waits for the next start.
        """
        self._closing.set()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._pool.shutdown)

    async def _publish(self, journal: Path) -> None:
        broken = 0
        delays = iter(_RETRY_SECONDS)
        delay = _RETRY_SECONDS[0]
        while broken < _MOST_BROKEN:
            try:
                outcome = await self._render_elsewhere(journal)
            except BrokenProcessPool:
                broken += 1
                log.error("renderer_failed", journal=journal.name, times=broken)
                continue
            except OSError as error:
                if _gone(journal):  # the renderer of a killed receiver was faster
                    log.warning("journal_gone", journal=journal.name)
                    return
                log.error("publishing_failed", journal=journal.name, error=str(error))
            except Exception:  # a mistake of ours: the journal stays for the next start
                log.exception("renderer_failed", journal=journal.name)
                return
            else:
                self._report(outcome)
                return
            delay = next(delays, delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), delay)
            if self._closing.is_set():
                return

    async def _render_elsewhere(self, journal: Path) -> Outcome:
        loop = asyncio.get_running_loop()
        arguments = (journal, self._recordings, self._options)
        async with self._turn:  # one at a time, so that a process is taken down by its own journal
            try:
                return await loop.run_in_executor(self._pool, publish.publish, *arguments)
            except BrokenProcessPool:
                self._pool = _new_pool()
                raise

    def _report(self, outcome: Outcome) -> None:
        if isinstance(outcome, Empty):
            log.warning("journal_empty", journal=outcome.journal.name)
            return
        if not isinstance(outcome, Published):
            log.error("journal_quarantined", journal=str(outcome.journal), reason=outcome.reason)
            self._quarantined()
            return
        if outcome.set_aside is not None:
            self._report(outcome.set_aside)
        document = outcome.recording
        log.info(
            "recording_published",
            recording_id=document.id,
            stream_sid=document.stream_sid,
            call_sid=document.call_sid,
            folder=str(outcome.folder),
            duration_ms=document.duration_ms,
            end_reason=document.end_reason.value,
            complete=document.complete,
        )
        self._published(outcome)


def _gone(journal: Path) -> bool:
    return not journal.exists()


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork would copy sockets and locks
    return ProcessPoolExecutor(1, mp_context=context, initializer=_settle_in)


def _settle_in() -> None:
    """Prepare the rendering process: polite, deaf to signals, and gone when its parent is."""
    os.nice(10)
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when work ends
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # what was half rendered is rendered again at the next start
