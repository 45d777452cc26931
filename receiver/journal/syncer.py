"""The thread that waits for the disk's syncs, while the journals' writer goes on writing.

What was written survives the process, what was synced survives the machine. A disk that takes
seconds to sync must not delay the writes, which are what a killed receiver leaves behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Final

import structlog

from receiver.disk import files
from receiver.journal.writer import JournalWriter

MOST_SYNCED_SINGLY: Final = 4
"""More files than this are synced faster by one syncfs; figures are in the page of `disk/`."""

log = structlog.get_logger("receiver.journal.syncer")


@dataclass(frozen=True, slots=True)
class Synced:
    """The outcome of one round of syncs: which failed and why, and how long all of it took."""

    journals: Sequence[JournalWriter]
    failed: Sequence[tuple[JournalWriter, OSError]]
    seconds: float


class Syncer:
    """Syncs journals in a thread of its own, one round at a time.

    The writer's thread calls everything here; nothing but `on_done` runs in the syncer's thread.

    Args:
        file_system: A descriptor on the disk that is older than every journal.
        on_done: Called in the syncer's thread after each round.
    """

    def __init__(self, file_system: int, *, on_done: Callable[[], None]) -> None:
        self._file_system = file_system
        self._on_done = on_done
        self._rounds: SimpleQueue[Sequence[JournalWriter] | None] = SimpleQueue()
        self._outcomes: SimpleQueue[Synced] = SimpleQueue()
        self._busy = False
        threading.Thread(target=self._run, name="journal-syncer", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a round was started that was not collected."""
        return self._busy

    def start(self, journals: Sequence[JournalWriter]) -> None:
        """Start a round that covers what was written of `journals` until now; never while busy."""
        for journal in journals:
            journal.start_sync()
        self._busy = True
        self._rounds.put(journals)

    def collect(self) -> Synced | None:
        """Return the outcome of the round that was started, once; `None` while there is none."""
        if self._outcomes.empty():
            return None
        self._busy = False
        return self._outcomes.get()

    def close(self) -> None:
        """End the thread after the round that it is in; returns at once."""
        self._rounds.put(None)

    def _run(self) -> None:
        while (journals := self._rounds.get()) is not None:
            started = time.monotonic()
            try:
                failed = self._sync(journals)
            except Exception as error:  # the thread outlives a mistake of ours
                log.exception("journal_sync_broken")
                failed = [(journal, OSError(0, str(error))) for journal in journals]
            self._outcomes.put(Synced(journals, failed, time.monotonic() - started))
            self._on_done()

    def _sync(self, journals: Sequence[JournalWriter]) -> list[tuple[JournalWriter, OSError]]:
        """Sync all at once where that is faster; where it fails, singly, to find which failed."""
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
        # Not with a journal's own descriptor: it misses errors from before it was opened, once
        # another caller has been given them.
        try:
            files.sync_file_system(self._file_system)
        except OSError:
            return False
        return True
