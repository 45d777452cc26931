"""The journals of live streams: appended in memory by the event loop, written by one thread.

The socket's reader only appends to a queue. Every 200 ms the thread takes what came in and
writes one block per journal; what was written is synced at most `sync_interval_ms` later, by
another thread. A slow disk delays these two, never a socket. What the disk does not take stays
in memory, up to a bound, and is written when it does.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from receiver.disk import layout
from receiver.disk.lock import FolderLock
from receiver.journal.records import Header
from receiver.journal.syncer import Syncer
from receiver.journal.writer import JournalWriter

BATCH_INTERVAL_SECONDS: Final = 0.2
"""How long appended records wait for company before they are written."""
MOST_HELD_SECONDS: Final = 30.0
"""For how long a disk that takes nothing is bridged by memory, for each stream."""
MOST_HELD_BYTES: Final = 2**30
"""... and for all streams together; whoever holds most of it loses chunks then."""
MOST_HELD_BYTES_EACH: Final = 2**25
"""... and for one: a stream brings under 100 KB a second, and a flood is not to fill the rest."""
_SPARED: Final = 0.75
"""Of the memory for all, what those may hold who go on when it is full ..."""
_LAST_RESORT: Final = 1.25
"""... and what all may hold together before nobody goes on."""
LONGEST_FAREWELL_SECONDS: Final = 8.0
"""How long the end of the process waits for a disk that takes nothing."""
_LAST_ROUND_SECONDS: Final = 1.0
"""... and how long the thread may take to notice."""
_TROUBLE_INTERVAL_SECONDS: Final = 1.0
_GUARD_INTERVAL_SECONDS: Final = 1.0

log = structlog.get_logger("receiver.spool")


@dataclass(slots=True)
class SpoolFigures:
    """What the thread has met so far, for metrics; read from any thread."""

    written_bytes: int = 0
    held_bytes: int = 0
    held_seconds: float = 0.0  # how old the oldest record is that is not yet synced
    sync_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=4096))
    errors: Counter[str] = field(default_factory=Counter)  # by errno's name


class Spool:
    """The folder of journals and the thread that writes them; one process owns it (a lock)."""

    def __init__(self, folder: Path, *, sync_interval_ms: int = 500) -> None:
        self.folder = folder
        self.figures = SpoolFigures()
        self._lock = FolderLock(folder)
        self._sync_interval = sync_interval_ms / 1000
        self._journals: set[JournalWriter] = set()
        self._opened: deque[JournalWriter] = deque()
        self._wake = threading.Event()
        self._close_by: float | None = None
        self._synced_at = self._complained_at = time.monotonic()
        self._complained_at -= _TROUBLE_INTERVAL_SECONDS
        self._round_since: float | None = None  # when the thread began the round it is in
        self._over = threading.Event()
        self._syncer = Syncer(self._lock.descriptor, done=self._wake.set)
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()
        threading.Thread(target=self._guard, name="journal-guard", daemon=True).start()

    def __len__(self) -> int:
        """Return how many journals the disk does not hold in full, ended ones among them."""
        return len(self._journals) + len(self._opened)

    def open(self, header: Header) -> JournalWriter:
        """Begin the journal of a new recording; nothing waits for the disk."""
        opened = JournalWriter(self.folder / layout.journal_name(header.recording_id), header)
        self._opened.append(opened)
        self._wake.set()  # header and start are synced before the first batch
        return opened

    def flush(self) -> None:
        """Have the thread go round now, instead of at its next interval."""
        self._wake.set()

    def close(self, seconds: float | None = None) -> None:
        """Write and sync everything, end the thread, release the lock; idempotent.

        A disk that takes nothing is given `LONGEST_FAREWELL_SECONDS`, or less where the caller
        has less; what is then still in memory is lost, and the log says so.
        """
        given = LONGEST_FAREWELL_SECONDS if seconds is None else seconds
        if self._close_by is None:
            self._close_by = time.monotonic() + min(given, LONGEST_FAREWELL_SECONDS)
        self._wake.set()
        self._thread.join(max(0.0, self._close_by - time.monotonic()) + _LAST_ROUND_SECONDS)
        if self._thread.is_alive() or self._syncer.busy:  # the lock goes with the process
            log.error("audio_lost", reason="the disk hangs", bytes=self._held())
            return
        self._lock.close()

    def _run(self) -> None:
        while True:
            self._wake.wait(BATCH_INTERVAL_SECONDS)
            self._wake.clear()
            close_by = self._close_by  # read before the round: what came until then counts
            self._round_since = time.monotonic()
            try:
                self._go_round(hurry=close_by is not None)
            except Exception:
                log.exception("journal_round_failed")  # the thread outlives a mistake of ours
            self._round_since = None
            if close_by is None:
                continue
            if not self._held() or time.monotonic() > close_by:
                self._say_farewell()
                self._over.set()
                return

    def _guard(self) -> None:
        """Bound what memory holds while the thread hangs in one write."""
        while not self._over.wait(_GUARD_INTERVAL_SECONDS):
            since = self._round_since
            lasted = time.monotonic() - since if since is not None else 0.0
            if lasted < _GUARD_INTERVAL_SECONDS:
                continue
            held = self._take_figures()
            self._lighten(held)
            if lasted > MOST_HELD_SECONDS:
                for journal in held:
                    journal.start_dropping(f"a disk call has hung for {lasted:.0f} s")

    def _all(self) -> tuple[JournalWriter, ...]:
        """Return every journal, also those that the thread has not seen; for any thread."""
        return (*self._journals, *self._opened)

    def _held(self) -> int:
        return sum(journal.held_bytes for journal in self._all())

    def _go_round(self, *, hurry: bool) -> None:
        """Write all journals, have those synced for which it is time, part with the ended."""
        self._journals |= {self._opened.popleft() for _ in range(len(self._opened))}
        for journal in list(self._journals):
            self._write(journal)
        self._take_synced()
        if not self._syncer.busy:
            self._begin_sync(hurry=hurry)
        for journal in [journal for journal in self._journals if journal.finished]:
            self._journals.discard(journal)
            journal.close()
        held = self._take_figures()
        self._bound_memory()
        self._lighten(held)

    def _begin_sync(self, *, hurry: bool) -> None:
        now = time.monotonic()
        # A round follows each sync, to take its outcome; that alone is no batch of its own.
        due = hurry or now - self._synced_at >= max(self._sync_interval, BATCH_INTERVAL_SECONDS / 2)
        if due:
            self._synced_at = now
        journals = [j for j in self._journals if j.unsynced and (due or j.fresh or j.ended)]
        if journals:
            self._syncer.begin(journals)

    def _take_synced(self) -> None:
        """Let go of what the disk holds by now; what it failed to take is written anew."""
        synced = self._syncer.take()
        if synced is None:
            return
        self.figures.sync_seconds.append(synced.seconds)
        failed = dict(synced.failed)
        for journal in synced.journals:
            if journal not in failed:
                journal.mark_synced()
        for journal, error in failed.items():
            self._rescue(journal, error)

    def _rescue(self, journal: JournalWriter, error: OSError) -> None:
        # What the kernel could not write back it may drop from its cache, and says so only
        # once: this file is not to be trusted any more.
        journal.distrust(error)
        self._complain("journal_sync_failed", journal, error)
        try:
            journal.begin_anew(error)
        except OSError as second:
            self._complain("journal_rescue_failed", journal, second)

    def _bound_memory(self) -> None:
        """Stop keeping chunks for which the disk was not ready in time."""
        now = time.monotonic()
        for journal in self._journals:
            seconds = journal.failing_seconds(now)
            if seconds > MOST_HELD_SECONDS:
                journal.start_dropping(f"the disk has failed for {seconds:.0f} s")

    def _lighten(self, held: Mapping[JournalWriter, int]) -> None:
        """Stop keeping chunks of those who hold too much, however the disk is."""
        for journal, reason in _too_heavy(held):
            journal.start_dropping(reason, light_bytes=held[journal] / 2)

    def _write(self, journal: JournalWriter) -> None:
        """Write one journal; its trouble is no other's."""
        try:
            self.figures.written_bytes += journal.write()
        except OSError as error:
            self._complain("journal_write_failed", journal, error)

    def _complain(self, event: str, journal: JournalWriter, error: OSError) -> None:
        """Count a disk's trouble, and log it at most once a second."""
        self.figures.errors[errno.errorcode.get(error.errno or 0, "unknown")] += 1
        now = time.monotonic()
        if now - self._complained_at >= _TROUBLE_INTERVAL_SECONDS:
            self._complained_at = now
            log.error(
                event,
                error=error.strerror,
                journal=journal.path.name,
                held_bytes=journal.held_bytes,
                errors=self.figures.errors.total(),
            )

    def _take_figures(self) -> dict[JournalWriter, int]:
        """Return what each journal holds."""
        now = time.monotonic()
        held = {journal: journal.held_bytes for journal in self._all()}
        self.figures.held_bytes = sum(held.values())
        self.figures.held_seconds = max((j.held_seconds(now) for j in held), default=0.0)
        return held

    def _say_farewell(self) -> None:
        self._syncer.close()
        if self._syncer.busy:
            return  # a sync hangs, and `close` says what that means
        for journal in self._journals:
            if journal.held_bytes:
                log.error("audio_lost", journal=journal.path.name, bytes=journal.held_bytes)
            journal.close()


def _too_heavy(held: Mapping[JournalWriter, int]) -> Iterator[tuple[JournalWriter, str]]:
    """Yield the journals whose chunks are to be dropped because of what they hold, and why.

    Dropping frees nothing, but ends growth. So it is the heaviest that go, until those who
    are left have room: a flood on one stream takes no other's.
    """
    growing = [journal for journal in held if not journal.dropping and not journal.ended]
    total, spared = sum(held.values()), sum(held[journal] for journal in growing)
    for journal in sorted(growing, key=held.__getitem__, reverse=True):
        reason = _too_much(held[journal], total=total, spared=spared)
        if not reason:
            return
        yield journal, reason
        spared -= held[journal]


def _too_much(held: int, *, total: int, spared: int) -> str:
    """Return why the heaviest journal holds too much, or nothing."""
    if held > MOST_HELD_BYTES_EACH:
        return "it holds too much"
    if total > MOST_HELD_BYTES * _LAST_RESORT:
        return "all together hold far too much"
    if total > MOST_HELD_BYTES and spared > MOST_HELD_BYTES * _SPARED:
        return "all together hold too much, and it the most"
    return ""
