"""The journals of live streams: appended in memory by the event loop, written by one thread.

The socket reader only appends to a queue. The thread takes what came in since its last round,
writes one block per journal, and syncs those that were written; a slow disk delays the thread,
never a socket. A write that fails (disk full) keeps its block and tries again next round at
the same place, so a journal never holds half a record in its middle.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

from receiver import journal, paths
from receiver.errors import ConfigurationError
from receiver.journal import EndRecord, Header

BATCH_INTERVAL_SECONDS: Final = 0.2
"""How long appended records wait for company before they are written."""
_TROUBLE_INTERVAL_SECONDS: Final = 1.0

log = structlog.get_logger("receiver.spool")


class Journal:
    """One live stream's journal. `append` and `end` are for the event loop."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self.ended: Callable[[Path], None] | None = None
        self._queue = deque([journal.encode(header)])
        self.append = self._queue.append  # called for every chunk: no frame of our own
        self._unwritten = b""
        self._written_bytes = 0
        self._descriptor = -1
        self._synced = True

    @property
    def pending_bytes(self) -> int:
        """Return how much a failed write still holds back."""
        return len(self._unwritten)

    def end(self, record: EndRecord, ended: Callable[[Path], None]) -> None:
        """Append the last record; `ended` is called, in the thread, once all is on disk."""
        self.append(journal.encode(record))
        self.ended = ended

    def write(self) -> None:
        """Write what was appended; the writer thread only. Raises OSError; may be repeated."""
        queue = self._queue
        taken = [queue.popleft() for _ in range(len(queue))]
        self._unwritten += b"".join(taken)
        if not self._unwritten:
            return
        if self._descriptor < 0:
            self._create()
        self._synced = False
        while self._unwritten:
            count = os.pwrite(self._descriptor, self._unwritten, self._written_bytes)
            self._written_bytes += count
            self._unwritten = self._unwritten[count:]

    def _create(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        os.fdatasync(self._descriptor)
        sync_folder(self.path.parent)

    def sync(self) -> None:
        """Have the disk hold what was written; the writer thread only. Raises OSError."""
        if not self._synced:
            os.fdatasync(self._descriptor)
            self._synced = True

    @property
    def finished(self) -> bool:
        """Whether the last record is on disk."""
        return self.ended is not None and not self._queue and not self._unwritten and self._synced

    def close(self) -> None:
        """Give the file back; idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Spool:
    """The folder of journals and the thread that writes them; one process owns it (a lock)."""

    def __init__(self, folder: Path, *, sync_interval_ms: int = 500) -> None:
        self.folder = folder
        self._lock = lock(folder)
        self._sync_interval = sync_interval_ms / 1000
        self._journals: set[Journal] = set()
        self._opened: deque[Journal] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._synced_at = time.monotonic()
        self._complained_at = 0.0
        self._thread = threading.Thread(target=self._run, name="journal-writer", daemon=True)
        self._thread.start()

    def open(self, header: Header) -> Journal:
        """Begin the journal of a new recording; nothing waits for the disk."""
        opened = Journal(self.folder / paths.journal_name(header.recording_id), header)
        self._opened.append(opened)
        self._wake.set()  # header and start are synced before the first batch
        return opened

    def flush(self) -> None:
        """Have the thread go round now, instead of at its next interval."""
        self._wake.set()

    def close(self) -> None:
        """Write and sync everything, end the thread, release the lock; idempotent.

        The thread gives up on a disk that takes nothing any more, so this returns.
        """
        self._closing = True
        self._wake.set()
        self._thread.join()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _run(self) -> None:
        while True:
            self._wake.wait(BATCH_INTERVAL_SECONDS)
            self._wake.clear()
            closing = self._closing  # read before the round: what came until then is written
            fresh = self._take_opened()
            for journal_ in list(self._journals):
                self._tend(journal_, sync_now=journal_ in fresh or closing)
            self._mark_round()
            if closing:
                for journal_ in self._journals:
                    journal_.close()
                return

    def _take_opened(self) -> set[Journal]:
        fresh = {self._opened.popleft() for _ in range(len(self._opened))}
        self._journals |= fresh
        return fresh

    def _tend(self, journal_: Journal, *, sync_now: bool) -> None:
        """Write, sync when due, and finish one journal; its trouble is no other's."""
        try:
            journal_.write()
            due = time.monotonic() - self._synced_at >= self._sync_interval
            if sync_now or due or journal_.ended is not None:
                journal_.sync()
            if journal_.finished:
                self._finish(journal_)
        except OSError as error:
            self._complain(journal_, error)

    def _mark_round(self) -> None:
        now = time.monotonic()
        if now - self._synced_at >= self._sync_interval:
            self._synced_at = now

    def _finish(self, journal_: Journal) -> None:
        self._journals.discard(journal_)
        journal_.close()
        if journal_.ended is not None:
            journal_.ended(journal_.path)

    def _complain(self, journal_: Journal, error: OSError) -> None:
        now = time.monotonic()
        if now - self._complained_at < _TROUBLE_INTERVAL_SECONDS:
            return
        self._complained_at = now
        log.error(
            "journal_write_failed",
            error=error.strerror,
            journal=journal_.path.name,
            pending_bytes=journal_.pending_bytes,
        )


def sync_folder(folder: Path) -> None:
    """Have the disk hold the folder's entries."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a private folder with its parents; an existing one must be ours and private.

    Raises:
        ConfigurationError: it cannot be created, is no folder, or others can write to it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ConfigurationError(f"cannot use folder {folder}: {error.strerror}") from error
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"folder {folder} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"others can write to folder {folder}; chmod go-w {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigurationError(f"folder {folder} is not writable")


def lock(folder: Path) -> int:
    """Make this process the owner of a spool; return the lock's descriptor.

    Raises:
        ConfigurationError: another living receiver owns it, or it cannot be used.
    """
    make_folder(folder)
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(folder / "lock", flags, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot lock spool {folder}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(f"spool {folder} is in use by another receiver") from error
    return descriptor


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Own a spool for the length of a `with` block."""
    descriptor = lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)
