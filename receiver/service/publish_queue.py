"""Finished journals in, recordings out: a queue, and behind it the process that renders.

Journals are published one after the other, the oldest first. One that cannot be published now
(no space, or the rendering process dies of it) is tried again later, behind ever longer waits in
which others have their turn. What is not published `IN_TIME_SECONDS` after the deadline of
the shutdown has begun stays in the spool for the next start: it is whole and synced.

Rendering has a process of its own, so that it never holds up a socket: it decodes and hashes for
seconds, and in a thread of the serving process it would take the interpreter from the event loop
5 ms at a time. A journal that makes the process die costs no other one: the next one gets a new
process.

**The seam: subscribers of `published`.** What counts or announces finished recordings (counters,
live taps, the demo) is a callable in that list.

- Called once for each recording of this process, when it is on disk under its final name, was
  read back, and its journal has been disposed of; in the order of the list, before the log line.
- Called in the event loop's thread: a subscriber returns at once. It must not wait, touch a
  disk, or call back into the queue; work of its own belongs into a task or thread of its own.
- One that raises is logged, and holds back neither the other subscribers nor the queue.
- A recording may be on disk and never be announced: by a process that was killed between both.
  A subscriber that must miss none follows `recording.publication_log` from a mark of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final, TypeVar

import structlog

from receiver.journal import backlog
from receiver.rate_limit import LogThrottle
from receiver.recording.document import (
    Discarded,
    Empty,
    Outcome,
    Published,
    Quarantined,
    RenderOptions,
)
from receiver.service.admission import DiskWatch
from receiver.service.event_loop import repeat
from receiver.service.shutdown_deadline import ShutdownDeadline

IN_TIME_SECONDS: Final = 8.0
"""For rendering, once the deadline has begun; the process has two more for everything else."""
_TIDY_SECONDS: Final = 9.0
"""By when what is half rendered is removed; a disk that hangs keeps it until the next start."""
_WATCH_SECONDS: Final = 0.5
_RETRY_SECONDS: Final = (1.0, 5.0, 30.0)
"""Between attempts that fail because the disk does; the last one is for all that follow."""
_DEATH_RETRY_SECONDS: Final = (0.0, 5.0, 30.0, 120.0, 600.0)
"""... and that end with the death of the process: once may be chance, and each costs all memory
there is where that is what the journal takes."""
_LOW_PRIORITY: Final = 10
"""By how much nicer than the serving process rendering is while streams live."""
_SAME_PRIORITY: Final = 0

T = TypeVar("T")

log = structlog.get_logger("receiver.publisher")


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
    from receiver.lifecycle.ledger import enter_published
    from receiver.recording.publish import publish_journal

    enter = functools.partial(enter_published, recordings)
    return publish_journal(journal, recordings, options, enter)


class PublishQueue:
    """Publishes each submitted journal once; for the event loop's thread.

    Args:
        recordings: The folder below which recordings are published.
        options: How journals are rendered.
        published: The subscribers; see the module's text for what they may do.
        quarantined: Called for each journal that was set aside.
        discarded: Called for each journal of which nothing may be kept.
        failed: Called for each attempt that failed, also by the death of the process.
        died: Called for each death of the rendering process.
        deadline: The shutdown's, shared with the server; `start_deadline` starts it.
    """

    def __init__(
        self,
        recordings: Path,
        options: RenderOptions,
        *,
        published: Sequence[Callable[[Published], None]] = (),
        quarantined: Callable[[], None] = lambda: None,
        discarded: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
        died: Callable[[], None] = lambda: None,
        deadline: ShutdownDeadline | None = None,
    ) -> None:
        self.published = list(published)
        self.disk_left = False  # it failed, or did not answer when `close` had to return
        self._recordings = recordings
        self._options = options
        self._quarantined = quarantined
        self._discarded = discarded
        self._failed = failed
        self._died = died
        self._deadline = deadline or ShutdownDeadline()
        self._journals: dict[asyncio.Task[None], Path] = {}  # that are not yet published
        self._closing = asyncio.Event()
        self._given_up: list[Path] = []  # journals that failed, and are not tried again
        self._throttle = LogThrottle()
        self._process = RenderProcess()
        self._disk = DiskWatch(recordings, sync=True)
        self._watching: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # of the process; the longest wait is next

    def __len__(self) -> int:
        """Return how many journals are not yet published."""
        return len(self._journals)

    def submit(self, journal: Path) -> None:
        """Publish `journal` when its turn comes."""
        task = asyncio.create_task(self._publish(journal))
        self._journals[task] = journal
        task.add_done_callback(self._journals.pop)

    def start_deadline(self) -> None:
        """Start the shutdown's clock; `close` leaves what is not published in time. Idempotent.

        From now on the disk is tried out: what is left may be so because it hangs.
        """
        if not self._deadline.started:
            self._deadline.start()
            self._process.raise_priority()
            self._watching = asyncio.create_task(repeat(self._disk.check, _WATCH_SECONDS))

    async def close(self) -> None:
        """Publish what was submitted, then end the process; idempotent.

        What fails now is not tried again: its journal waits for the next start.
        """
        self._closing.set()
        await self._deadline.run_until(self._finish, IN_TIME_SECONDS)
        if self._watching is not None:
            self._watching.cancel()
        if self._journals:
            self.disk_left |= self._disk.hangs
            await self._leave_rest()
        if self._given_up:
            _log_left(self._given_up)
            self._given_up.clear()
        end_process = functools.partial(asyncio.to_thread, self._process.close)
        await self._deadline.run_until(end_process, _TIDY_SECONDS)

    async def _finish(self) -> None:
        while self._journals:
            await asyncio.wait(self._journals)

    async def _leave_rest(self) -> None:
        """Kill the process in the midst of its work; the journals are safe in the spool."""
        journals, started = dict(self._journals), self._process.journal
        self._process.kill()
        for task in journals:
            task.cancel()
        await asyncio.gather(*journals, return_exceptions=True)
        paths = list(journals.values())
        tidy = functools.partial(asyncio.to_thread, self._tidy, started, paths)
        left = await self._deadline.run_until(tidy, _TIDY_SECONDS)
        if left is None:  # the disk hangs: what is on it is not known
            left, self.disk_left = len(paths), True
        if left:
            _log_left(paths, left)

    def _tidy(self, started: Path | None, journals: list[Path]) -> int:
        """Remove what is half rendered, and return how many journals are left."""
        self._process.close()  # it must be dead: it could still be writing
        if started is not None:
            backlog.discard_half_rendered(started, self._recordings)
        return sum(journal.exists() for journal in journals)

    async def _publish(self, journal: Path) -> None:
        """Try until the journal is published, or the queue is closed."""
        failures, deaths, times = iter(_RETRY_SECONDS), iter(_DEATH_RETRY_SECONDS), 0
        while True:
            try:
                async with self._turn:
                    outcome = await self._process.publish(journal, self._recordings, self._options)
            except BrokenProcessPool:
                delay = next(deaths, _DEATH_RETRY_SECONDS[-1])
                times += 1
                failed_by_disk = False
                self._log_death(journal, times, delay)
            except OSError as error:
                if _gone(journal):  # published by the renderer of a killed receiver
                    log.warning("journal_gone", journal=journal.name)
                    return
                delay, failed_by_disk = next(failures, _RETRY_SECONDS[-1]), True
                self._log_failure(journal, str(error))
            except Exception:  # a mistake of ours: the journal stays for the next start
                self._failed()
                log.exception("renderer_failed", journal=journal.name)
                return
            else:
                self._report(outcome)
                return
            if await self._closes_within(delay):
                self._given_up.append(journal)
                self.disk_left |= failed_by_disk
                return

    async def _closes_within(self, seconds: float) -> bool:
        """Wait before the next attempt; return whether there is to be none.

        At once is also while the queue closes: that may be the only attempt there is time for.
        """
        if seconds:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), seconds)
        return bool(seconds) and self._closing.is_set()

    def _log_death(self, journal: Path, times: int, retry_seconds: float) -> None:
        self._failed()
        self._died()
        name = journal.name
        log.error("renderer_failed", journal=name, times=times, retry_seconds=retry_seconds)

    def _log_failure(self, journal: Path, error: str) -> None:
        """Count a failure, and log each kind at most once a second."""
        self._failed()
        if times := self._throttle.count(error, time.monotonic()):
            log.error("publishing_failed", journal=journal.name, error=error, times=times)

    def _report(self, outcome: Outcome) -> None:
        match outcome:
            case Published():
                if outcome.quarantined is not None:
                    self._report(outcome.quarantined)
                self._announce(outcome)
            case Quarantined(journal, reason):
                log.error("journal_quarantined", journal=str(journal), reason=reason)
                self._quarantined()
            case Discarded(journal, reason):
                log.warning("journal_discarded", journal=journal.name, reason=reason)
                self._discarded()
            case Empty(journal):
                log.warning("journal_empty", journal=journal.name)

    def _announce(self, outcome: Published) -> None:
        for subscriber in self.published:
            try:
                subscriber(outcome)
            except Exception:
                log.exception("subscriber_failed", folder=str(outcome.folder))
        document = outcome.recording
        log.info(  # behind the subscribers: counters include it already
            "recording_published",
            recording_id=document.id,
            stream_sid=document.stream_sid,
            call_sid=document.call_sid,
            folder=str(outcome.folder),
            duration_ms=document.duration_ms,
            end_reason=document.end_reason.value,
            complete=document.complete,
        )


def _log_left(journals: Sequence[Path], count: int | None = None) -> None:
    count = len(journals) if count is None else count
    log.warning("left_for_next_start", journals=count, spool=str(journals[0].parent))


def _gone(journal: Path) -> bool:
    return not journal.exists()
