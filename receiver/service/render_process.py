"""The processes that render, one journal at a time: each dies of its own journal only."""

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
from typing import Final, TypeVar

from receiver.recording import publish
from receiver.recording.publish import Outcome
from receiver.recording.render import RenderOptions

T = TypeVar("T")

POLITE: Final = 10
"""By how much nicer than we are rendering is while streams live."""
ORDINARY: Final = 0
MOST: Final = 8
"""Processes at once, however many cores there are: each takes some 60 MB."""


class RenderProcess:
    """One process, begun with its first journal, and begun anew when it has died."""

    def __init__(self, *, niceness: int) -> None:
        self._niceness = niceness
        self._pool = _new_pool(niceness)
        self._pid: int | None = None
        self.journal: Path | None = None  # what it works on

    async def publish(self, journal: Path, recordings: Path, options: RenderOptions) -> Outcome:
        """Have the process publish one journal; see `publish.publish`.

        Raises:
            BrokenProcessPool: the process died; the next journal gets a new one.
            OSError: the journal cannot be published now.
        """
        self.journal = journal
        try:
            await self.start()
            return await self._run(publish.publish, journal, recordings, options)
        finally:
            self.journal = None

    async def start(self) -> None:
        """Wait until the process runs.

        Raises:
            BrokenProcessPool: it died.
        """
        self._pid = await self._run(os.getpid)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        except BrokenProcessPool:
            self._pid, self._pool = None, _new_pool(self._niceness)
            raise

    def hasten(self) -> bool:
        """Be polite no longer, and return whether the system allows that: it asks for rights."""
        if self._pid is None:
            return False
        try:
            os.setpriority(os.PRIO_PROCESS, self._pid, os.getpriority(os.PRIO_PROCESS, 0))
        except OSError:
            return False
        self._niceness = ORDINARY
        return True

    def kill(self) -> None:
        """End the process whatever it does."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait for the end of the process, which has no work left or was killed; idempotent."""
        self._pool.shutdown(cancel_futures=True)


def most() -> int:
    """Return how many processes may render at once when nothing else matters: one a core."""
    if hasattr(os, "sched_getaffinity"):  # Linux; where we may run only on some of them
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(cores, MOST)


def _new_pool(niceness: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork would copy sockets and locks
    return ProcessPoolExecutor(1, mp_context=context, initializer=_settle_in, initargs=(niceness,))


def _settle_in(niceness: int) -> None:
    """Prepare a rendering process: deaf to signals, and gone when its parent is."""
    os.nice(niceness)
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when work ends
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # what was half rendered is rendered again at the next start
