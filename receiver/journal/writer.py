"""One live stream's write-ahead journal, between the event loop and the writer's thread.

Operations: the event loop appends encoded records to a queue and waits for nothing. The writer's
thread joins what came into one block and writes it with `pwrite`; the syncer's thread has the
disk sync it.

A record passes through three places, and memory holds it until the disk does:

    _queue       appended, by the event loop
    _unwritten   joined into a block, by the writer's thread
    _unsynced    written, but not covered by a sync that succeeded
    (the disk)   synced: memory holds it no longer

Two rules of failure follow:

* A write that fails is tried again at the same place. So a journal never holds half a record in
  its middle.
* A sync that fails is final for the file. The kernel reports a page that it could not write once,
  and then forgets the page, so a second sync that succeeds proves nothing. The journal is written
  again into another file, from what was synced and from what memory holds, and takes the old
  one's name.

Where memory holds as much as it may, chunks are dropped: only their bounds are kept, and written
when the disk is back.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

import structlog

from receiver.disk import files, layout
from receiver.disk.files import create_private, write_at
from receiver.journal import records
from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    RejectedRecord,
)
from receiver.media import Chunk, GapKind, RejectedChunk, Track

_ROW_BYTES: Final = 64
_MOST_ROWS: Final = 8
"""Of one track: enough for a few late chunks, not for counters that are anywhere."""
_MOST_APART_MS: Final = 60_000  # timestamps of neighbours in a row


class DroppedChunks:
    """The bounds of chunks that were not kept, as rows; each becomes a gap of the recording.

    Chunks that are near each other share a row, so that its bounds say where they were, and there
    are few rows. Near is what is at most `MOST_APART` chunk numbers and a minute of timestamps
    away. Example of a late chunk, and of a counter that restarts while the clock goes on:

        chunk      65534    65535     5     0        1
        timestamp  2000000  2000020   100   2000040  2000060
        row        1        1         2     3        3

    The event loop adds, the writer's thread drains. `lock` also guards the change between
    keeping and dropping, so that no chunk falls between the two.

    Args:
        kind: Why they are not kept.
    """

    def __init__(self, kind: GapKind = GapKind.DISK) -> None:
        self._kind = kind
        self.lock = threading.Lock()
        self._by_track: dict[Track, list[DroppedRecord]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_track.values()))

    @property
    def held_bytes(self) -> int:
        """Return about how many bytes the rows will be."""
        return _ROW_BYTES * len(self)

    def add(self, record: ChunkRecord | Chunk | RejectedChunk) -> None:
        """Count one chunk."""
        with self.lock:
            rows = self._by_track.setdefault(record.track, [])
            row = _row_of(record, self._kind)
            near = (at for at, before in enumerate(rows) if _are_near(before, row))
            at = next(near, len(rows))
            if at < len(rows):
                rows[at] = _joined(rows[at], row)
            elif at < _MOST_ROWS:
                rows.append(row)
            else:  # where chunks are anywhere, only their number is worth keeping
                rows[-1] = DroppedRecord(row.kind, row.track, rows[-1].chunks + 1, *[None] * 4)

    def drain(self) -> list[DroppedRecord]:
        """Return the rows and remove them."""
        with self.lock:
            drained, self._by_track = list(self._by_track.values()), {}
            return list(itertools.chain.from_iterable(drained))


def _row_of(record: ChunkRecord | Chunk | RejectedChunk, kind: GapKind) -> DroppedRecord:
    number, stamp = record.chunk, record.timestamp_ms
    return DroppedRecord(kind, record.track, 1, number, number, stamp, stamp)


def _are_near(row: DroppedRecord, other: DroppedRecord) -> bool:
    """Whether a chunk belongs to a row: by the counters that both have, or where neither has any.

    A late chunk makes a row of its own, and so does a counter that restarts: the bounds of both
    together would say nothing.
    """
    bounds = (
        (row.first_chunk, row.last_chunk, other.first_chunk, records.MOST_APART),
        (row.first_timestamp_ms, row.last_timestamp_ms, other.first_timestamp_ms, _MOST_APART_MS),
    )
    near = [
        first - apart <= value <= last + apart
        for first, last, value, apart in bounds
        if first is not None and last is not None and value is not None
    ]
    counters = [(chunks.first_chunk, chunks.first_timestamp_ms) for chunks in (row, other)]
    return all(near) if near else counters[0] == counters[1]


def _joined(row: DroppedRecord, other: DroppedRecord) -> DroppedRecord:
    return DroppedRecord(
        kind=row.kind,
        track=row.track,
        chunks=row.chunks + other.chunks,
        first_chunk=_outer(min, row.first_chunk, other.first_chunk),
        last_chunk=_outer(max, row.last_chunk, other.last_chunk),
        first_timestamp_ms=_outer(min, row.first_timestamp_ms, other.first_timestamp_ms),
        last_timestamp_ms=_outer(max, row.last_timestamp_ms, other.last_timestamp_ms),
    )


def _outer(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    """Return the outer one of two bounds: chunks need not come in order."""
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)


_COPY_BYTES: Final = 2**20
_MOST_MESSAGE_BYTES: Final = 2**20
"""Of messages that are kept while chunks are dropped; further ones are only counted."""

log = structlog.get_logger("receiver.journal.writer")


class JournalWriter:
    """The journal of one stream while it lives. Its file is created by the first write.

    Who calls, in which thread:

    * `append` and `end`: the event loop. `append` is the queue's own method, or `_drop` while
      chunks are dropped: look it up for each record, the writer's thread exchanges it.
    * `sync`: the syncer's thread. All it needs to know was set by `start_sync`.
    * `start_dropping`, `held_bytes` and the other properties: also the guard's thread.
    * Everything else: the writer's thread.

    What must never happen:

    * `append` or `end` waits for a disk or for a lock that is held during a call to the disk.
    * Memory releases a record that no successful sync has covered.
    * Something is written to a file of which a sync has failed, as if it were safe.

    Args:
        path: Where the journal will be. Nothing may have that name.
        header: The first record.
        now: The clock of all seconds here.
    """

    def __init__(
        self, path: Path, header: Header, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self._now = now
        self._file: FileIO | None = None
        first = records.encode(header)
        self._queue = deque([first])
        self._header_bytes = len(first)
        self.append: Callable[[bytes], None] = self._queue.append  # no frame of our own
        self._unwritten: deque[bytes] = deque()
        self._unsynced: list[bytes] = []
        self._written_bytes = 0
        self._synced_bytes = 0
        self._covered = (0, 0, 0.0)  # by the sync that was started: blocks, bytes, and since when
        self._entry_synced = False  # the file's name in its folder
        self._sync_error: OSError | None = None  # since then the file is not trusted
        self._oldest = self._now()  # when the oldest record came that is not synced
        self._failing_since: float | None = None
        self._dropped = DroppedChunks()
        self._message_bytes = 0  # of messages that came while chunks were dropped
        self._messages_left_out = 0  # of those, how many were not kept
        self._resume_bytes = math.inf  # holding no more, chunks are kept again
        self._on_ended: Callable[[Path], None] | None = None

    # For the event loop.

    def end(self, record: EndRecord, on_ended: Callable[[Path], None]) -> None:
        """Append the last record.

        Args:
            record: Why the recording ended.
            on_ended: Called once with the journal's path, in the writer's thread, when the disk
                holds all of it. It must not wait; an exception of its own is logged there.
        """
        self._queue.append(records.encode(record))
        self._on_ended = on_ended

    # For the writer's thread; the properties also for the guard's.

    @property
    def held_bytes(self) -> int:
        """Return how many bytes memory holds because the disk does not yet."""
        return self._waiting_bytes() + self._dropped.held_bytes

    def _waiting_bytes(self) -> int:
        # Copies, because the other threads go on; making one is a single step for them.
        parts = (tuple(self._queue), tuple(self._unwritten), tuple(self._unsynced))
        return sum(len(block) for blocks in parts for block in blocks)

    def held_seconds(self, now: float) -> float:
        """Return how old the oldest record is that the disk does not hold."""
        return now - self._oldest if self.held_bytes else 0.0

    def failing_seconds(self, now: float) -> float:
        """Return for how long writes or syncs have failed without a success between them."""
        return now - self._failing_since if self._failing_since is not None else 0.0

    @property
    def ended(self) -> bool:
        """Whether the last record was appended."""
        return self._on_ended is not None

    @property
    def fresh(self) -> bool:
        """Whether at most the header is synced: a power cut would leave no name of the call."""
        return self._synced_bytes <= self._header_bytes

    @property
    def unsynced(self) -> bool:
        """Whether something was written that is not synced."""
        return bool(self._unsynced)

    @property
    def trusted(self) -> bool:
        """Whether no sync of the file has failed."""
        return self._sync_error is None

    @property
    def finished(self) -> bool:
        """Whether the disk holds the last record."""
        if not self.ended:  # first: the event loop may append, and end, during this
            return False
        return self.is_synced

    @property
    def is_synced(self) -> bool:
        """Whether the disk holds everything that was appended; for any thread."""
        return not (self._queue or self._unwritten or self._unsynced or self._dropped)

    @property
    def dropping(self) -> bool:
        """Whether chunks are only counted at the moment."""
        return self.append != self._queue.append

    def write(self) -> int:
        """Write what was appended, and return how many bytes that were.

        Raises:
            OSError: not all of it could be written; the rest is kept, and can be tried again.
        """
        self._drain_queue()
        before = self._written_bytes
        try:
            while self._unwritten:
                self._write_block(self._unwritten[0])
                self._unsynced.append(self._unwritten.popleft())
        except OSError:
            self._record_failure()
            raise
        if self.trusted:
            self._failing_since = None
            self._stop_dropping()
        return self._written_bytes - before

    def _record_failure(self) -> None:
        if self._failing_since is None:
            self._failing_since = self._now()

    def _drain_queue(self) -> None:
        queue = self._queue
        if not queue:
            return
        if not self._unwritten and not self._unsynced:
            self._oldest = self._now()
        self._unwritten.append(b"".join([queue.popleft() for _ in range(len(queue))]))

    def _write_block(self, block: bytes) -> None:
        if self._file is None:
            self._file = create_private(self.path)
        # Moved on only now: half a block is written again from its start.
        self._written_bytes = write_at(self._file, block, self._written_bytes)

    def start_sync(self) -> None:
        """Record what a sync covers that starts now; writing may go on meanwhile."""
        self._covered = (len(self._unsynced), self._written_bytes, self._now())

    def sync(self) -> None:
        """Sync what was written; in the syncer's thread, since it may take long.

        Raises:
            OSError: it failed, now or before; only `rewrite` mends that.
        """
        if self._sync_error is not None:
            raise self._sync_error
        if not self._entry_synced:  # without a name in its folder a power cut leaves nothing of it
            files.sync_folder(self.path.parent)
        if self._file is not None:
            os.fdatasync(self._file.fileno())

    def mark_synced(self) -> None:
        """Release what the sync that was started has covered; call it when that has succeeded."""
        blocks, self._synced_bytes, self._oldest = self._covered
        del self._unsynced[:blocks]
        self._entry_synced = True

    def distrust(self, error: OSError) -> None:
        """Mark the file as one of which a sync has failed, so that every further one fails."""
        self._sync_error = error
        self._record_failure()

    def rewrite(self, error: OSError) -> None:
        """Write the journal again into another file: what was synced, what memory holds, a note.

        Args:
            error: Why the file is not trusted, for the note.

        Raises:
            OSError: that failed, too; nothing has changed, and it can be tried again.
        """
        text = f"{error.strerror}: the journal was written again from memory"
        note = records.encode(NoteRecord(0, "journal_rewritten", text))
        path = self.path.with_suffix(layout.REWRITTEN_SUFFIX)
        path.unlink(missing_ok=True)
        file = create_private(path)
        try:
            length = self._copy_synced(file)
            for block in (*self._unsynced, note):
                length = write_at(file, block, length)
            os.fdatasync(file.fileno())
            path.rename(self.path)
            files.sync_folder(self.path.parent)
        except OSError:
            file.close()
            path.unlink(missing_ok=True)  # a full disk has better use for its space
            raise
        _close(self._file)
        self._file, self._written_bytes = file, length
        self._sync_error = self._failing_since = None
        self.start_sync()
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

    def start_dropping(self, reason: str, *, resume_bytes: float = math.inf) -> None:
        """Keep no more chunks, only their bounds, until the disk has caught up.

        The first write that succeeds while at most `resume_bytes` wait ends it. An ended journal
        has no more chunks, so nothing happens. Two threads may call this.
        """
        with self._dropped.lock:
            if self.dropping or self.ended:
                return
            self._resume_bytes = resume_bytes
            self.append = self._drop
        name, held_bytes = self.path.name, self.held_bytes
        log.error("dropping_chunks", journal=name, held_bytes=held_bytes, reason=reason)

    def _drop(self, record: bytes) -> None:
        decoded = records.decode(record)
        if isinstance(decoded, ChunkRecord):
            self._dropped.add(decoded)
        elif isinstance(decoded, MessageRecord | RejectedRecord) and self._is_too_much(record):
            self._messages_left_out += 1
        else:
            self._queue.append(record)

    def _is_too_much(self, record: bytes) -> bool:
        """Whether messages, too, are more than memory is to hold; calls have few, small ones."""
        self._message_bytes += len(record)
        return self._message_bytes > _MOST_MESSAGE_BYTES

    def _stop_dropping(self) -> None:
        if not self.dropping and not self._dropped:
            return
        if self._waiting_bytes() > self._resume_bytes:
            return
        with self._dropped.lock:
            self.append = self._queue.append
        self._resume_bytes = math.inf  # for a chunk that was being dropped at this moment
        rows = self._dropped.drain()
        self._queue.extend(records.encode(row) for row in rows)
        self._log_dropped(rows)
        left_out, self._message_bytes, self._messages_left_out = self._messages_left_out, 0, 0
        if left_out:
            text = f"{left_out} messages while the disk took nothing"
            self._queue.append(records.encode(NoteRecord(0, "messages_not_kept", text)))

    def _log_dropped(self, rows: list[DroppedRecord]) -> None:
        chunks = sum(row.chunks for row in rows)
        log.error("chunks_dropped", journal=self.path.name, chunks=chunks)

    def close(self) -> None:
        """Close the file, and call `on_ended` if the journal is finished."""
        file, self._file = self._file, None
        _close(file)
        if self._dropped:  # the process ends, and the disk took not even their bounds
            self._log_dropped(self._dropped.drain())
        if self.finished and self._on_ended is not None:
            self._on_ended(self.path)


def _close(file: FileIO | None) -> None:
    if file is not None:
        with contextlib.suppress(OSError):  # of a network's file system; what counts is synced
            file.close()
