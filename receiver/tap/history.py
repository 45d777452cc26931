"""The past of a live stream, read from its journal while the journal grows.

Reading is for a thread; it returns the events that live listeners got.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from receiver.disk.files import BLOCK_BYTES, open_regular
from receiver.journal.reader import Reader
from receiver.journal.records import ChunkRecord, EndRecord, MessageRecord
from receiver.media import Chunk, EndReason, MediaFormat, Track
from receiver.tap.events import LiveChunk, LiveMessage, PrecedingChunk, StreamPosition

JournalEvent = LiveChunk | LiveMessage


class JournalTail:
    """What a journal holds from `start_ms` of the stream's clock on.

    `since_ms` is the same moment on the clock of arrival times, for what has no timestamp.
    `origin_ms` is the timestamp at which the stream's clock begins.
    """

    def __init__(
        self,
        journal: Path,
        media: MediaFormat,
        *,
        start_ms: float,
        since_ms: float,
        origin_ms: int = 0,
    ) -> None:
        self._journal = journal
        self._media = media
        self._start_ms = start_ms + origin_ms
        self._since_ms = since_ms
        self._file: FileIO | None = None
        # A listener may leave while the thread reads: the descriptor must not be closed, and
        # reused by a socket, before the read has returned.
        self._lock = threading.Lock()
        self._closed = False
        self._wants_block = False  # `read` was called and has had none
        self.end_reason: EndReason | None = None  # why the stream ended, once that was read
        self.at_end = False  # whether the latest `read` found nothing new in the file
        self._records = Reader(self._blocks())
        self._chunks = 0  # read so far
        self._messages = 0
        self._reached = start_ms <= 0  # what is asked for; messages have no timestamp
        # The latest chunk of each track that was not asked for; none, once one was.
        self._before: dict[Track, ChunkRecord | None] = {}
        self._is_past_end = False  # the end was met, or a record that came later than asked for

    def read(self, until: StreamPosition | None = None) -> list[JournalEvent]:
        """Return what the next block of the file holds of what was asked for.

        That may be nothing, though more follows: `at_end` says whether the file ended here.
        With `until`, whatever came after that position is left out.
        """
        self._wants_block = True
        found: list[JournalEvent] = []
        for _, record in self._records:
            if isinstance(record, EndRecord):
                self.end_reason, self._is_past_end = record.reason, True
            elif until is not None and self._is_beyond(record, until):
                self._is_past_end = True
                break
            self._add(record, found)
            if until is not None and self.has_reached(until):
                break
        found.extend(_event(PrecedingChunk, before) for before in self._before.values() if before)
        return found

    def has_reached(self, position: StreamPosition) -> bool:
        """Return whether everything was read that the journal had been given up to a position."""
        everything = self._chunks >= position.chunks and self._messages >= position.messages
        return self._is_past_end or everything

    def close(self) -> None:
        """Close the file; idempotent."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _is_beyond(self, record: object, until: StreamPosition) -> bool:
        """Return whether a record came after a position.

        Counting is exact. Where chunks of the past were dropped because the disk was full,
        counting would go on into the present: there the time of arrival decides.
        """
        if self.has_reached(until):
            return True
        known = isinstance(record, ChunkRecord | MessageRecord)
        return known and record.arrival_ms > until.arrival_ms  # type: ignore[attr-defined]  # both have one

    def _add(self, record: object, found: list[JournalEvent]) -> None:
        if isinstance(record, ChunkRecord):
            self._chunks += 1
            self._add_chunk(record, found)
        elif isinstance(record, MessageRecord):
            self._messages += 1
            if self._reached:
                found.append(LiveMessage(record.message, record.arrival_ms))

    def _add_chunk(self, record: ChunkRecord, found: list[JournalEvent]) -> None:
        stamp = record.timestamp_ms
        if stamp is None:
            wanted = reached = record.arrival_ms >= self._since_ms
        else:
            end_ms = stamp + len(record.payload) / self._media.bytes_per_ms
            wanted, reached = end_ms > self._start_ms, end_ms >= self._start_ms
        self._reached = self._reached or reached
        if not wanted:
            self._keep_before(record)
            return
        if before := self._before.get(record.track):
            found.append(_event(PrecedingChunk, before))
        self._before[record.track] = None
        found.append(_event(LiveChunk, record))

    def _keep_before(self, record: ChunkRecord) -> None:
        """Keep the latest by timestamp: chunks may have overtaken each other."""
        track, stamp = record.track, record.timestamp_ms
        known = self._before.get(track, record)
        if known is None:
            return
        latest = known.timestamp_ms
        if stamp is None or latest is None or stamp >= latest:
            self._before[track] = record

    def _blocks(self) -> Iterator[bytes]:
        """Yield one block for each call of `read`, then nothing: the file may have grown later."""
        while True:
            wanted, self._wants_block = self._wants_block, False
            with self._lock:
                block = self._read_block() if wanted and not self._closed else b""
            if wanted:
                self.at_end = not block
            yield block

    def _read_block(self) -> bytes:
        if self._file is None:
            try:
                self._file = open_regular(self._journal)
            except FileNotFoundError:
                return b""  # the first batch has yet to be written
        return self._file.read(BLOCK_BYTES)


def _event(event_type: type[LiveChunk], record: ChunkRecord) -> LiveChunk:
    chunk = Chunk(
        record.track, record.sequence_number, record.chunk, record.timestamp_ms, record.payload
    )
    return event_type(chunk, record.arrival_ms)
