"""The spool: the folder of live streams' journals, and the threads that bring them to the disk.

The event loop only appends to queues in memory. Three threads do the rest:

    journal-writer   every 200 ms writes one block per journal of what came in
    journal-syncer   syncs what was written, at most `sync_interval_ms` later
    journal-guard    bounds what memory holds, also while the writer hangs in a call to the disk

What was written survives the process, what was synced survives the machine. A disk that takes
seconds to sync must not delay the writes, which are what a killed receiver leaves behind.

So a slow disk delays these threads, never a socket. What the disk does not take stays in memory,
up to two bounds, and is written when it does: a disk that fails is bridged for
`MOST_HELD_SECONDS`, and bytes are bounded for each journal and for all of them together. Long
before that the spool is `stalled`, and no new streams are admitted. All of these seconds are of a
`RunningClock`: a process that was stopped for a minute had no minute in which to write.

A journal that stops keeping chunks frees nothing at once, but it stops growing. So the heaviest
ones stop, until those that go on have room: a flood on one stream costs no other stream's audio.
Example, in units of the bound for all journals together, which hold 1.1:

    a 0.5, b 0.4, c 0.2     all go on: too much, and 1.1 is above the spared 0.75
    a stops                 b and c hold 0.6, which is below it: they go on
    a holds 0.25 or less    a keeps chunks again (see `JournalWriter.start_dropping`)
    above 1.25 in all       every journal stops, whatever it holds
"""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Final, TypeVar

import structlog

from receiver.disk import files, layout
from receiver.disk.folders import FolderLock
from receiver.journal.records import Header
from receiver.journal.writer import JournalWriter
from receiver.rate_limit import LogThrottle

MOST_HELD_SECONDS: Final = 30.0
"""For how long memory bridges a disk that takes nothing, for each stream."""
MOST_HELD_BYTES: Final = 2**30
"""What all journals together may hold; beyond it the heaviest stop keeping chunks."""
MOST_HELD_BYTES_EACH: Final = 2**25
"""What one journal may hold. A stream brings under 100 KB a second, so a call never gets there."""
_SPARED: Final = 0.75
"""Of the bound for all, what those journals may hold that go on when it is passed."""
_LAST_RESORT: Final = 1.25
"""Of the bound for all, what no journal goes on beyond."""

_Journal = TypeVar("_Journal")


def too_heavy(growing: Mapping[_Journal, int], *, total: int) -> Iterator[tuple[_Journal, str]]:
    """Yield the journals that have to stop keeping chunks, heaviest first, and why.

    Args:
        growing: The bytes that each journal holds which still keeps chunks.
        total: The bytes that all journals hold, those which keep none any more among them.
    """
    spared = sum(growing.values())
    for journal in sorted(growing, key=growing.__getitem__, reverse=True):
        reason = _too_much(growing[journal], total=total, spared=spared)
        if not reason:
            return
        yield journal, reason
        spared -= growing[journal]


def _too_much(held: int, *, total: int, spared: int) -> str:
    """Return why the heaviest journal holds too much, or an empty text."""
    if held > MOST_HELD_BYTES_EACH:
        return "it holds too much"
    if total > MOST_HELD_BYTES * _LAST_RESORT:
        return "all together hold far too much"
    if total > MOST_HELD_BYTES and spared > MOST_HELD_BYTES * _SPARED:
        return "all together hold too much, and it the most"
    return ""


BATCH_INTERVAL_SECONDS: Final = 0.2
"""How long appended records wait for others before they are written together."""
LONGEST_CLOSE_SECONDS: Final = 8.0
"""How long the end of the process waits for a disk that takes nothing."""
_LAST_ROUND_SECONDS: Final = 1.0
"""... and how long the writer's thread may take to notice."""
_GUARD_INTERVAL_SECONDS: Final = 1.0
_LONGEST_STEP_SECONDS: Final = 1.25
"""What a `RunningClock` counts of the time between two ticks, a guard's interval apart."""
STALLED_SECONDS: Final = 3.0
"""A disk on which a journal has failed, or a call has hung, for so long is taken to be broken."""
LONGEST_SYNC_SECONDS: Final = 10.0
"""... as is one that takes so much longer to sync than it is asked to: none does that in use."""
_STALLED_BYTES: Final = 0.5
"""... and one that has left so much to memory, as a part of `MOST_HELD_BYTES`."""

log = structlog.get_logger("receiver.journal.spool")


@dataclass(slots=True)
class SpoolCounters:
    """What the spool's threads count and measure, for metrics; read from any thread."""

    written_bytes: int = 0
    held_bytes: int = 0  # by memory, because the disk does not yet
    held_seconds: float = 0.0  # how old the oldest record is that is not yet synced
    stalled: bool = False  # the disk takes nothing, or not enough, of some journal
    sync_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    errors: Counter[str] = field(default_factory=Counter)  # by errno's name


class RunningClock:
    """Seconds in which this process ran: a pause of the whole process counts as next to nothing.

    While a process is stopped (SIGSTOP, a frozen container) every other clock goes on. It would
    find each deadline passed, although none of its threads could do anything about it.

    One thread calls `tick` about once a second; `now` is for any thread.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._latest = (monotonic(), 0.0)  # a tick, and what had passed by then

    def now(self) -> float:
        """Return the seconds since the clock was made; never less than before."""
        ticked_at, passed = self._latest
        return passed + min(self._monotonic() - ticked_at, _LONGEST_STEP_SECONDS)

    def tick(self) -> None:
        """Go on from here: what has passed since the last tick counts, up to a step."""
        passed = self.now()
        self._latest = (self._monotonic(), passed)


MOST_SYNCED_SINGLY: Final = 4
"""More files than this are synced faster by one syncfs; figures are in the page of `disk/`."""


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


class Spool:
    """The folder of journals and the threads that write them; one process owns it (a lock).

    Who calls, in which thread: the event loop calls `open`, `flush` and `len`, none of which
    waits; `close` waits for the disk, so a thread of its own calls it. `counters` may be read
    anywhere.

    What must never happen:

    * One journal's failure, or a mistake of ours in one round, ends the writing of the others.
    * Memory grows without a bound because a call to the disk does not return.
    * The lock is released while a thread may still write.

    Args:
        folder: Made if it is missing; private to one user.
        sync_interval_ms: How long what was written may wait for its sync. New and ended journals
            are synced in the next round.

    Raises:
        ConfigurationError: another living process owns the folder, or it cannot be used.
    """

    def __init__(self, folder: Path, *, sync_interval_ms: int = 500) -> None:
        self.folder = folder
        self.counters = SpoolCounters()
        self._lock = FolderLock(folder)
        self._sync_interval = sync_interval_ms / 1000
        self._journals: set[JournalWriter] = set()
        self._opened: deque[JournalWriter] = deque()  # those that the writer has not seen
        self._wake = threading.Event()
        self._clock = RunningClock()
        self._close_by: float | None = None
        self._synced_at = self._clock.now()
        self._log_throttle = LogThrottle()
        self._round_since: float | None = None  # when the writer started the round it is in
        self._over = threading.Event()
        self._syncer = Syncer(self._lock.descriptor, on_done=self._wake.set)
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()
        threading.Thread(target=self._guard, name="journal-guard", daemon=True).start()

    def __len__(self) -> int:
        """Return how many journals the disk does not hold in full, ended ones among them."""
        return len(self._journals) + len(self._opened)

    def open(self, header: Header) -> JournalWriter:
        """Return the journal of a new recording; its file is created in the next round."""
        path = self.folder / layout.journal_name(header.recording_id)
        opened = JournalWriter(path, header, now=self._clock.now)
        self._opened.append(opened)
        self._wake.set()  # header and start are synced before the first batch
        return opened

    def flush(self) -> None:
        """Start a round now, instead of at the next interval; returns at once."""
        self._wake.set()

    def close(self, seconds: float | None = None) -> bool:
        """Write and sync everything, end the threads, release the lock; idempotent.

        A disk that takes nothing is given `LONGEST_CLOSE_SECONDS`, or `seconds` where that is
        less. What memory then still holds is lost, and the log says so (`audio_lost`).

        Returns:
            Whether the disk holds everything.
        """
        given = LONGEST_CLOSE_SECONDS if seconds is None else seconds
        if self._close_by is None:
            self._close_by = self._clock.now() + min(given, LONGEST_CLOSE_SECONDS)
        self._wake.set()
        while (left := self._close_by + _LAST_ROUND_SECONDS - self._clock.now()) > 0:
            self._thread.join(min(left, _GUARD_INTERVAL_SECONDS))
            if not self._thread.is_alive():
                break
        if self._thread.is_alive() or self._syncer.busy:  # the lock goes with the process
            log.error("audio_lost", reason="the disk hangs", bytes=self._held_bytes())
            return False
        self._lock.close()
        return not self._held_bytes()

    # The writer's thread.

    def _run(self) -> None:
        while True:
            self._wake.wait(BATCH_INTERVAL_SECONDS)
            self._wake.clear()
            close_by = self._close_by  # read before the round: what came until then counts
            self._round_since = self._clock.now()
            try:
                self._run_round(closing=close_by is not None)
            except Exception:
                log.exception("journal_round_failed")  # the thread outlives a mistake of ours
            self._round_since = None
            if close_by is None:
                continue
            if not self._held_bytes() or self._clock.now() > close_by:
                self._close_journals()
                self._over.set()
                return

    def _run_round(self, *, closing: bool) -> None:
        """Write all journals, start the sync that is due, close the journals that are finished."""
        self._journals |= {self._opened.popleft() for _ in range(len(self._opened))}
        for journal in list(self._journals):
            self._write(journal)
        self._collect_synced()
        if not self._syncer.busy:
            self._start_sync(closing=closing)
        for journal in [journal for journal in self._journals if journal.finished]:
            self._journals.discard(journal)
            journal.close()
        held = self._measure()
        self._drop_failing()
        self._drop_heaviest(held)

    def _write(self, journal: JournalWriter) -> None:
        try:
            self.counters.written_bytes += journal.write()
        except OSError as error:
            self._log_failure("journal_write_failed", journal, error)

    def _start_sync(self, *, closing: bool) -> None:
        now = self._clock.now()
        # A round follows each sync, to collect its outcome; that alone is no batch of its own.
        interval = max(self._sync_interval, BATCH_INTERVAL_SECONDS / 2)
        due = closing or now - self._synced_at >= interval
        if due:
            self._synced_at = now
        journals = [j for j in self._journals if j.unsynced and (due or j.fresh or j.ended)]
        if journals:
            self._syncer.start(journals)

    def _collect_synced(self) -> None:
        """Release what the disk holds by now, and rewrite the journals whose sync has failed."""
        synced = self._syncer.collect()
        if synced is None:
            return
        self.counters.sync_seconds.append(synced.seconds)
        failed = dict(synced.failed)
        for journal in synced.journals:
            if journal not in failed:
                journal.mark_synced()
        for journal, error in failed.items():
            self._rewrite(journal, error)

    def _rewrite(self, journal: JournalWriter, error: OSError) -> None:
        journal.distrust(error)
        self._log_failure("journal_sync_failed", journal, error)
        try:
            journal.rewrite(error)
        except OSError as second:
            self._log_failure("journal_rescue_failed", journal, second)

    def _log_failure(self, event: str, journal: JournalWriter, error: OSError) -> None:
        """Count a failure of the disk, and log it, at most once a second for all journals."""
        self.counters.errors[errno.errorcode.get(error.errno or 0, "unknown")] += 1
        if self._log_throttle.count("disk", time.monotonic()):
            log.error(
                event,
                error=error.strerror,
                journal=journal.path.name,
                held_bytes=journal.held_bytes,
                errors=self.counters.errors.total(),
            )

    def _drop_failing(self) -> None:
        """Stop keeping the chunks of journals whose disk has failed for too long."""
        now = self._clock.now()
        for journal in self._journals:
            seconds = journal.failing_seconds(now)
            if seconds > MOST_HELD_SECONDS:
                journal.start_dropping(f"the disk has failed for {seconds:.0f} s")

    def _close_journals(self) -> None:
        self._syncer.close()
        if self._syncer.busy:
            return  # a sync hangs, and `close` logs what that means
        for journal in self._journals:
            if journal.held_bytes:
                log.error("audio_lost", journal=journal.path.name, bytes=journal.held_bytes)
            journal.close()

    # The guard's thread; what it calls, the writer's thread calls, too.

    def _guard(self) -> None:
        """Bound what memory holds while the writer hangs in a call to the disk."""
        while not self._over.wait(_GUARD_INTERVAL_SECONDS):
            self._clock.tick()
            lasted = self._round_seconds()
            if lasted < _GUARD_INTERVAL_SECONDS:
                continue
            held = self._measure()
            self._drop_heaviest(held)
            if lasted > MOST_HELD_SECONDS:
                for journal in held:
                    journal.start_dropping(f"a disk call has hung for {lasted:.0f} s")

    def _round_seconds(self) -> float:
        """Return for how long the writer has been in its round; 0 between two of them."""
        since = self._round_since
        return self._clock.now() - since if since is not None else 0.0

    def _all(self) -> tuple[JournalWriter, ...]:
        """Return every journal, also those that the writer has not seen."""
        return (*self._journals, *self._opened)

    def _held_bytes(self) -> int:
        return sum(journal.held_bytes for journal in self._all())

    def _measure(self) -> dict[JournalWriter, int]:
        """Return how many bytes each journal holds, and update the counters."""
        now = self._clock.now()
        held = {journal: journal.held_bytes for journal in self._all()}
        self.counters.held_bytes = sum(held.values())
        self.counters.held_seconds = max((j.held_seconds(now) for j in held), default=0.0)
        failing = max((j.failing_seconds(now) for j in held), default=0.0)
        self._record_stalled(max(failing, self._round_seconds()))
        return held

    def _record_stalled(self, broken_seconds: float) -> None:
        """Decide whether the disk takes too little for new streams to be admitted."""
        counters = self.counters
        stalled = (
            broken_seconds >= STALLED_SECONDS
            or counters.held_seconds >= LONGEST_SYNC_SECONDS + self._sync_interval
            or counters.held_bytes >= _STALLED_BYTES * MOST_HELD_BYTES
        )
        if stalled and not counters.stalled:
            seconds, held = round(counters.held_seconds, 1), counters.held_bytes
            log.error("disk_stalled", held_seconds=seconds, held_bytes=held)
        elif counters.stalled and not stalled:
            log.info("disk_writes_again")
        counters.stalled = stalled

    def _drop_heaviest(self, held: Mapping[JournalWriter, int]) -> None:
        """Stop keeping the chunks of journals that hold too much, whether the disk fails or not."""
        growing = {j: size for j, size in held.items() if not j.dropping and not j.ended}
        for journal, reason in too_heavy(growing, total=sum(held.values())):
            journal.start_dropping(reason, resume_bytes=held[journal] / 2)
