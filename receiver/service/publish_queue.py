"""Publishes finished journals in other processes, so that rendering never holds up a socket.

One process renders one journal after the other at low priority. Once somebody is in a hurry
there is one for each core, at ordinary priority, and what they have not published in time stays
in the spool for the next start. So does a journal that makes its process fail twice. One that
cannot be published now (no space) is tried again later.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Final

import structlog

from receiver.rate_limit import LogThrottle
from receiver.recording import publish
from receiver.recording.publish import Discarded, Empty, Outcome, Published
from receiver.recording.render import RenderOptions
from receiver.service import render_process
from receiver.service.render_process import RenderProcess
from receiver.service.shutdown_deadline import ShutdownDeadline

IN_TIME_SECONDS: Final = 8.0
"""For rendering after a hurry has begun; the process has two more for everything else."""
_TIDY_SECONDS: Final = 9.0
"""By when what is half rendered is removed; a disk that hangs keeps it until the next start."""
_RETRY_SECONDS: Final = (1.0, 5.0, 30.0)
_MOST_BROKEN: Final = 2

log = structlog.get_logger("receiver.publisher")


class PublishQueue:
    """Takes the paths of finished journals and has each published once.

    `most` is how many processes may render at once once the shutdown deadline runs, which
    `start_deadline` starts, for everybody who was given the same one.
    """

    def __init__(
        self,
        recordings: Path,
        options: RenderOptions,
        *,
        published: Callable[[Published], None] = lambda _: None,
        quarantined: Callable[[], None] = lambda: None,
        discarded: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
        most: int | None = None,
        deadline: ShutdownDeadline | None = None,
    ) -> None:
        self._recordings = recordings
        self._options = options
        self._published = published
        self._quarantined = quarantined
        self._discarded = discarded
        self._failed = failed
        self._most = most or render_process.most()
        self._journals: dict[asyncio.Task[None], Path] = {}  # that are not yet published
        self._closing = asyncio.Event()
        self._deadline = deadline or ShutdownDeadline()
        self._throttle = LogThrottle()
        self._renderers = [RenderProcess(niceness=render_process.POLITE)]
        self._retired: RenderProcess | None = None
        self._reserve = 0  # how many processes may be started
        self._starting: set[asyncio.Task[None]] = set()
        self._free = list(self._renderers)
        self._waiting: dict[
            asyncio.Future[RenderProcess], int
        ] = {}  # for one; bytes of the journal

    def __len__(self) -> int:
        """Return how many journals are not yet published."""
        return len(self._journals)

    def submit(self, journal: Path) -> None:
        """Have `journal` published; for the event loop's thread."""
        task = asyncio.create_task(self._publish(journal))
        self._journals[task] = journal
        task.add_done_callback(self._journals.pop)

    def start_deadline(self) -> None:
        """Render on every core, and leave what is not published in time; idempotent."""
        if self._deadline.started:
            return
        self._deadline.start()
        polite, idle = self._renderers[0], self._free
        hastened = polite.hasten()
        self._retired = None if hastened else polite  # it may finish what it has begun
        self._reserve = self._most - hastened
        self._free = idle if hastened else []
        self._deal()

    async def _start_another(self) -> None:
        """Have one more process take part once it runs; the last streams have ended then, too."""
        renderer = RenderProcess(niceness=render_process.ORDINARY)
        self._renderers.append(renderer)
        with contextlib.suppress(BrokenProcessPool):  # the first journal meets it again
            await renderer.start()
        self._free.append(renderer)
        self._deal()

    async def close(self) -> None:
        """Publish what was submitted, then end the processes; idempotent.

        What fails now is not tried again: its journal waits for the next start.
        """
        self._closing.set()
        await self._deadline.run_until(self._finish, IN_TIME_SECONDS)
        if self._journals:
            await self._leave_the_rest()
        await self._deadline.run_until(self._end_renderers, _TIDY_SECONDS)

    async def _end_renderers(self) -> None:
        for renderer in self._renderers:
            await asyncio.to_thread(renderer.close)

    async def _finish(self) -> None:
        while self._journals:
            await asyncio.wait(self._journals)

    async def _leave_the_rest(self) -> None:
        """End the processes in the midst of their work; the journals are safe in the spool."""
        journals = dict(self._journals)
        begun = [renderer.journal for renderer in self._renderers if renderer.journal]
        for renderer in self._renderers:
            renderer.kill()
        for task in (*journals, *self._starting):
            task.cancel()
        await asyncio.gather(*journals, *self._starting, return_exceptions=True)
        all_of_them = list(journals.values())
        tidying = functools.partial(asyncio.to_thread, self._tidy_up, begun, all_of_them)
        left = await self._deadline.run_until(tidying, _TIDY_SECONDS)
        if left is None:  # the disk hangs, and nobody can say what is on it
            left = len(all_of_them)
        if left:
            log.warning(
                "left_for_next_start",
                journals=left,
                spool=str(next(iter(journals.values())).parent),
            )

    def _tidy_up(self, begun: list[Path], journals: list[Path]) -> int:
        """Remove what is half rendered, and return how many journals are left."""
        for renderer in self._renderers:
            renderer.close()  # it must be dead: it could still be writing
        for journal in begun:
            publish.forget_rendering(journal, self._recordings)
        return sum(journal.exists() for journal in journals)

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
                self._complain(journal, str(error))
            except Exception:  # a mistake of ours: the journal stays for the next start
                self._failed()
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
        turn: asyncio.Future[RenderProcess] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = _size(journal)
        self._deal()
        try:
            renderer = await turn
        finally:
            self._waiting.pop(turn, None)
        try:
            return await renderer.publish(journal, self._recordings, self._options)
        finally:
            if renderer is not self._retired:
                self._free.append(renderer)
            self._deal()

    def _deal(self) -> None:
        """Give work to who has none: the oldest journals first, in a hurry the smallest ones."""
        while self._free and self._waiting:
            by_size = self._waiting.__getitem__
            turn = (
                min(self._waiting, key=by_size)
                if self._deadline.started
                else next(iter(self._waiting))
            )
            del self._waiting[turn]
            if not turn.done():
                turn.set_result(self._free.pop())
        while self._reserve and len(self._starting) < len(self._waiting):
            self._reserve -= 1
            task = asyncio.create_task(self._start_another())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    def _complain(self, journal: Path, error: str) -> None:
        """Count a failure, and tell of each kind at most once a second."""
        self._failed()
        if times := self._throttle.count(error, time.monotonic()):
            log.error("publishing_failed", journal=journal.name, error=error, times=times)

    def _report(self, outcome: Outcome) -> None:
        if isinstance(outcome, Empty):
            log.warning("journal_empty", journal=outcome.journal.name)
            return
        if isinstance(outcome, Discarded):
            log.warning("journal_discarded", journal=outcome.journal.name, reason=outcome.reason)
            self._discarded()
            return
        if not isinstance(outcome, Published):
            log.error("journal_quarantined", journal=str(outcome.journal), reason=outcome.reason)
            self._quarantined()
            return
        if outcome.set_aside is not None:
            self._report(outcome.set_aside)
        document = outcome.recording
        self._published(outcome)  # before the log: whoever reads it may look at the figures
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


def _size(journal: Path) -> int:
    return journal.stat().st_size


def _gone(journal: Path) -> bool:
    return not journal.exists()
