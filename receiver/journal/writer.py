"""One live stream's journal, between the event loop that appends and the thread that writes.

Records wait in a queue, then as written but unsynced blocks; they leave memory when the disk
holds them. A write that fails is tried again at the same place, so a journal never holds half
a record in its middle. A sync that fails is final for the file: the journal is begun anew in
another one from what was synced and what memory still holds.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import time
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

import structlog

from receiver.disk import layout, sync
from receiver.disk.files import create_private, write_at
from receiver.journal import records
from receiver.journal.dropped import DroppedChunks
from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    RejectedRecord,
)

_COPY_BYTES: Final = 2**20
_MOST_BESIDES_BYTES: Final = 2**20
"""Of what is no audio, kept while chunks are dropped; the rest is counted, too."""

log = structlog.get_logger("receiver.live_journal")


class JournalWriter:
    """`append` and `end` are for the event loop, the rest for the writer's thread."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path = path
        self._file: FileIO | None = None
        first = records.encode(header)
        self._queue = deque([first])
        self._header_bytes = len(first)
        self.append: Callable[[bytes], None] = self._queue.append  # no frame of our own
        self._unwritten: deque[bytes] = deque()
        self._unsynced: list[bytes] = []  # written, but the disk may not hold them yet
        self._written_bytes = 0
        self._synced_bytes = 0
        self._covered = (0, 0, 0.0)  # by the sync that was begun: blocks, bytes, and since when
        self._entry_synced = False  # the disk knows the file by name
        self._distrusted: OSError | None = None  # why the file is not to be trusted any more
        self._oldest = time.monotonic()  # when the oldest record came that is not synced
        self._failing_since: float | None = None
        self._dropped = DroppedChunks()
        self._besides_bytes = 0  # of what else came while chunks were dropped
        self._left_out = 0  # records of it that were not kept
        self._light_bytes = math.inf  # holding no more, chunks are kept again
        self._on_ended: Callable[[Path], None] | None = None

    # For the event loop.

    def end(self, record: EndRecord, ended: Callable[[Path], None]) -> None:
        """Append the last record; `ended` is called, in the thread, once all is on disk."""
        self._queue.append(records.encode(record))
        self._on_ended = ended

    # For the writer's thread.

    @property
    def held_bytes(self) -> int:
        """Return how much memory holds because the disk does not yet."""
        return self._waiting_bytes() + self._dropped.held_bytes

    def _waiting_bytes(self) -> int:
        # Copies, because the other threads go on; making one is a single step for them.
        parts = (tuple(self._queue), tuple(self._unwritten), tuple(self._unsynced))
        return sum(len(block) for blocks in parts for block in blocks)

    def held_seconds(self, now: float) -> float:
        """Return how old the oldest record is that the disk does not hold."""
        return now - self._oldest if self.held_bytes else 0.0

    def failing_seconds(self, now: float) -> float:
        """Return for how long the disk has not taken what was written."""
        return now - self._failing_since if self._failing_since is not None else 0.0

    @property
    def ended(self) -> bool:
        """Whether the last record was appended."""
        return self._on_ended is not None

    @property
    def fresh(self) -> bool:
        """Whether the disk holds no more than its header: a power cut would leave no name."""
        return self._synced_bytes <= self._header_bytes

    @property
    def unsynced(self) -> bool:
        """Whether something was written that is not synced."""
        return bool(self._unsynced)

    @property
    def trusted(self) -> bool:
        """Whether no sync of the file has failed."""
        return self._distrusted is None

    @property
    def finished(self) -> bool:
        """Whether the disk holds the last record."""
        if not self.ended:  # first: the event loop may append, and end, while we look
            return False
        return not (self._queue or self._unwritten or self._unsynced or self._dropped)

    @property
    def dropping(self) -> bool:
        """Whether chunks are only counted at the moment."""
        return self.append != self._queue.append

    def write(self) -> int:
        """Write what was appended and return its size.

        Raises:
            OSError: the disk did not take all of it; the rest is kept, and can be tried again.
        """
        self._take_queue()
        before = self._written_bytes
        try:
            while self._unwritten:
                self._write_block(self._unwritten[0])
                self._unsynced.append(self._unwritten.popleft())
        except OSError:
            self._note_failure()
            raise
        if self.trusted:
            self._failing_since = None
            self._stop_dropping()
        return self._written_bytes - before

    def _note_failure(self) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()

    def _take_queue(self) -> None:
        queue = self._queue
        if not queue:
            return
        if not self._unwritten and not self._unsynced:
            self._oldest = time.monotonic()
        self._unwritten.append(b"".join([queue.popleft() for _ in range(len(queue))]))

    def _write_block(self, block: bytes) -> None:
        if self._file is None:
            self._file = create_private(self.path)
        # Moved on only now: half a block is written again from its start.
        self._written_bytes = write_at(self._file, block, self._written_bytes)

    def begin_sync(self) -> None:
        """Note what a sync that begins now covers; writing may go on meanwhile."""
        self._covered = (len(self._unsynced), self._written_bytes, time.monotonic())

    def sync(self) -> None:
        """Have the disk hold what was written; for any thread, since it may take long.

        Raises:
            OSError: it failed, now or before; `begin_anew` is what is left.
        """
        if self._distrusted is not None:
            # The kernel tells of a page that it could not write once, then forgets the page.
            raise self._distrusted
        if not self._entry_synced:  # without a name in its folder a power cut leaves nothing of it
            sync.sync_folder(self.path.parent)
        if self._file is not None:
            os.fdatasync(self._file.fileno())

    def mark_synced(self) -> None:
        """Let go of what the sync that was begun has brought to the disk."""
        blocks, self._synced_bytes, self._oldest = self._covered
        del self._unsynced[:blocks]
        self._entry_synced = True

    def distrust(self, error: OSError) -> None:
        """Never believe the file again, of which a sync has failed."""
        self._distrusted = error
        self._note_failure()

    def begin_anew(self, error: OSError) -> None:
        """Go on in another file: what was synced, what memory holds, and a note.

        Raises:
            OSError: that failed too; nothing has changed, and it can be tried again.
        """
        text = f"{error.strerror}: the journal was written again from memory"
        note = records.encode(NoteRecord(0, "journal_rewritten", text))
        fresh = self.path.with_suffix(layout.REWRITTEN_SUFFIX)
        fresh.unlink(missing_ok=True)
        file = create_private(fresh)
        try:
            length = self._copy_synced(file)
            for block in (*self._unsynced, note):
                length = write_at(file, block, length)
            os.fdatasync(file.fileno())
            fresh.rename(self.path)
            sync.sync_folder(self.path.parent)
        except OSError:
            file.close()
            fresh.unlink(missing_ok=True)  # a full disk has better use for its space
            raise
        _close(self._file)
        self._file, self._written_bytes = file, length
        self._distrusted = self._failing_since = None
        self.begin_sync()
        self.mark_synced()

    def _copy_synced(self, file: FileIO) -> int:
        copied = 0
        while self._file is not None and copied < self._synced_bytes:
            size = min(_COPY_BYTES, self._synced_bytes - copied)
            block = os.pread(self._file.fileno(), size, copied)
            if not block:
                raise OSError(errno.EIO, "the journal is shorter than what was synced")
            copied = write_at(file, block, copied)
        return copied

    def start_dropping(self, reason: str, *, light_bytes: float = math.inf) -> None:
        """Keep no more chunks, only their bounds: memory has bridged what it may.

        It is over with the first write that works while no more than `light_bytes` wait.
        An ended journal has no more chunks. Two threads may call this.
        """
        with self._dropped.lock:
            if self.dropping or self.ended:
                return
            self._light_bytes = light_bytes
            self.append = self._drop
        name, held_bytes = self.path.name, self.held_bytes
        log.error("dropping_chunks", journal=name, held_bytes=held_bytes, reason=reason)

    def _drop(self, record: bytes) -> None:
        decoded = records.decode(record)
        if isinstance(decoded, ChunkRecord):
            self._dropped.add(decoded)
        elif isinstance(decoded, MessageRecord | RejectedRecord) and self._is_too_much(record):
            self._left_out += 1
        else:
            self._queue.append(record)

    def _is_too_much(self, record: bytes) -> bool:
        """Whether messages, too, are more than memory is to hold; calls have few, small ones."""
        self._besides_bytes += len(record)
        return self._besides_bytes > _MOST_BESIDES_BYTES

    def _stop_dropping(self) -> None:
        if not self.dropping and not self._dropped:
            return
        if self._waiting_bytes() > self._light_bytes:
            return
        with self._dropped.lock:
            self.append = self._queue.append
        self._light_bytes = math.inf  # for a chunk that was being dropped at this moment
        rows = self._dropped.take()
        self._queue.extend(records.encode(row) for row in rows)
        self._tell_dropped(rows)
        left_out, self._besides_bytes, self._left_out = self._left_out, 0, 0
        if left_out:
            text = f"{left_out} messages while the disk took nothing"
            self._queue.append(records.encode(NoteRecord(0, "messages_not_kept", text)))

    def _tell_dropped(self, rows: list[DroppedRecord]) -> None:
        chunks = sum(row.chunks for row in rows)
        log.error("chunks_dropped", journal=self.path.name, chunks=chunks)

    def close(self) -> None:
        """Give the file back; tell whoever waits for its end, if it is finished."""
        file, self._file = self._file, None
        _close(file)
        if self._dropped:  # the process ends, and the disk took not even their bounds
            self._tell_dropped(self._dropped.take())
        if self.finished and self._on_ended is not None:
            self._on_ended(self.path)


def _close(file: FileIO | None) -> None:
    if file is not None:
        with contextlib.suppress(OSError):  # of a network's file system; what counts is synced
            file.close()
