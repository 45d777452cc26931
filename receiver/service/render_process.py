"""The process that renders, one journal at a time, so that rendering never holds up a socket.

Rendering decodes and hashes for seconds; in a thread of the serving process it would take the
interpreter from the event loop 5 ms at a time. A journal that makes the process die
costs no other one: the next one gets a new process.
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
from typing import Final, TypeVar

from receiver.recording.document import Outcome, RenderOptions

T = TypeVar("T")

_LOW_PRIORITY: Final = 10
"""By how much nicer than the serving process rendering is while streams live."""
_SAME_PRIORITY: Final = 0


class RenderProcess:
    """One process, started with its first journal, and started again when it has died."""

    def __init__(self) -> None:
        self._niceness = _LOW_PRIORITY
        self._pool = _new_pool(self._niceness)
        self._pid: int | None = None  # of the process, once it runs
        self.journal: Path | None = None  # the one that is being published

    async def publish(self, journal: Path, recordings: Path, options: RenderOptions) -> Outcome:
        """Publish one journal in the process; see `receiver.recording.publish`.

        Raises:
            BrokenProcessPool: the process died; the next journal gets a new one.
            OSError: the journal cannot be published now.
        """
        self.journal = journal
        try:
            if self._pid is None:  # `kill` needs it before the work is done
                self._pid = await self._run(os.getpid)
            return await self._run(_publish, journal, recordings, options)
        finally:
            self.journal = None

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        except BrokenProcessPool:
            self._pid, self._pool = None, _new_pool(self._niceness)
            raise

    def raise_priority(self) -> None:
        """Render at the priority of the serving process, whose end waits for it.

        A process that runs already is raised where the system allows it, which asks for rights.
        """
        self._niceness = _SAME_PRIORITY
        if self._pid is not None:
            ours = os.getpriority(os.PRIO_PROCESS, 0)
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._pid, ours)
        elif self.journal is None:  # not even being started
            self._pool.shutdown(wait=False)
            self._pool = _new_pool(self._niceness)

    def kill(self) -> None:
        """End the process whatever it does."""
        if self._pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait for the end of the process, which has no work left or was killed; idempotent."""
        self._pool.shutdown(cancel_futures=True)


def _new_pool(niceness: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork would copy sockets and locks
    return ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(niceness,))


def _prepare(niceness: int) -> None:
    """Prepare the rendering process: it ignores signals, and ends with its parent."""
    os.nice(niceness)
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when work ends
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # what was half rendered is rendered again at the next start


def _publish(journal: Path, recordings: Path, options: RenderOptions) -> Outcome:
    # Imported here, as only this process is to map numpy and libsndfile.
    from receiver.recording.publish import publish_journal

    return publish_journal(journal, recordings, options)
