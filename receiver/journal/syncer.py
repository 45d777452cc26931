"""Waits for the disk, in a thread of its own, while the journals' writer goes on writing.

What was written survives us, what was synced survives the machine. A disk that takes seconds
to sync must not keep back the former, which is what a killed receiver leaves.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

import structlog

from receiver.disk import sync
from receiver.journal.writer import JournalWriter

MOST_SYNCED_SINGLY: Final = 4
"""More files than this are synced faster by one syncfs: see the design page for figures."""

log = structlog.get_logger("receiver.syncer")


@dataclass(frozen=True, slots=True)
class Synced:
    """What became of one round of syncs: whose failed and why, and how long it all took."""

    journals: Sequence[JournalWriter]
    failed: Sequence[tuple[JournalWriter, OSError]]
    seconds: float


class Syncer:
    """Syncs journals when it is told to, one round at a time.

    `file_system` is a descriptor on the disk, older than every journal. `done` is called in
    the thread after each round. Everything else is for the writer's thread.
    """

    def __init__(self, file_system: int, *, done: Callable[[], None]) -> None:
        self._file_system = file_system
        self._done = done
        self._orders: SimpleQueue[Sequence[JournalWriter] | None] = SimpleQueue()
        self._synced: SimpleQueue[Synced] = SimpleQueue()
        self._busy = False
        threading.Thread(target=self._run, name="journal-syncer", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a round was begun whose outcome nobody has taken."""
        return self._busy

    def begin(self, journals: Sequence[JournalWriter]) -> None:
        """Sync what was written of `journals` until now; only where it is not busy."""
        for journal in journals:
            journal.begin_sync()
        self._busy = True
        self._orders.put(journals)

    def take(self) -> Synced | None:
        """Return the outcome of the round that was begun, once, when there is one."""
        if self._synced.empty():
            return None
        self._busy = False
        return self._synced.get()

    def close(self) -> None:
        """Have the thread end, when the disk lets it."""
        self._orders.put(None)

    def _run(self) -> None:
        while (journals := self._orders.get()) is not None:
            began = time.monotonic()
            try:
                failed = self._sync(journals)
            except Exception as error:  # the thread outlives a mistake of ours
                log.exception("journal_sync_broken")
                failed = [(journal, OSError(0, str(error))) for journal in journals]
            self._synced.put(Synced(journals, failed, time.monotonic() - began))
            self._done()

    def _sync(self, journals: Sequence[JournalWriter]) -> list[tuple[JournalWriter, OSError]]:
        """Sync with one call where that is faster; where it fails, one by one they say whose."""
        singly = journals
        if len(journals) > MOST_SYNCED_SINGLY and self._sync_at_once():
            singly = [journal for journal in journals if not journal.trusted]
        failed = []
        for journal in singly:
            try:
                journal.sync()
            except OSError as error:
                failed.append((journal, error))
        return failed

    def _sync_at_once(self) -> bool:
        # A journal's own descriptor would not tell of errors before it was opened, if
        # somebody else has seen them.
        try:
            sync.sync_file_system(self._file_system)
        except OSError:
            return False
        return True
