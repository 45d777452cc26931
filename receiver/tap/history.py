"""The past of a live stream, read from its journal while the journal grows.

Reading is for a thread; what it finds are the events that listeners would have heard.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from receiver.disk.files import BLOCK_BYTES, open_regular
from receiver.journal.records import ChunkRecord, EndRecord, MessageRecord, Reader
from receiver.media import Chunk, EndReason, MediaFormat, Track
from receiver.tap.events import LiveChunk, LiveMessage, PrecedingChunk, StreamPosition

Heard = LiveChunk | LiveMessage


class JournalTail:
    """What a journal holds from `begin_ms` of the stream's clock on.

    `since_ms` is the same moment on the clock of arrival times, for what has no timestamp.
    `origin_ms` is the timestamp at which the stream's clock begins.
    """

    def __init__(
        self,
        journal: Path,
        media: MediaFormat,
        *,
        begin_ms: float,
        since_ms: float,
        origin_ms: int = 0,
    ) -> None:
        self._journal = journal
        self._media = media
        self._begin_ms = begin_ms + origin_ms
        self._since_ms = since_ms
        self._file: FileIO | None = None
        # A listener may leave while the thread reads: the descriptor must not be given back, and
        # taken by a socket, under its hands.
        self._lock = threading.Lock()
        self._closed = False
        self._hungry = False  # whether the reader may have another block
        self.end_reason: EndReason | None = None  # why the stream ended, once that was read
        self.at_end = False  # whether the latest `read` found nothing new in the file
        self._records = Reader(self._blocks())
        self._chunks = 0  # read so far
        self._messages = 0
        self._reached = begin_ms <= 0  # whether what is asked for began: messages have no timestamp
        # The latest chunk of each track that was not asked for; none, once one was.
        self._before: dict[Track, ChunkRecord | None] = {}
        self._beyond = False  # the end was met, or a record that came later than asked for

    def read(self, until: StreamPosition | None = None) -> list[Heard]:
        """Return what the next block of the file holds of what was asked for.

        That may be nothing, though more follows: `at_end` tells whether the file ended here.
        With `until`, what came after a stream stood there is left out.
        """
        self._hungry = True
        found: list[Heard] = []
        for _, record in self._records:
            if isinstance(record, EndRecord):
                self.end_reason, self._beyond = record.reason, True
            elif until is not None and self._is_beyond(record, until):
                self._beyond = True
                break
            self._take(record, found)
            if until is not None and self.has_reached(until):
                break
        found.extend(_told(PrecedingChunk, before) for before in self._before.values() if before)
        return found

    def has_reached(self, standing: StreamPosition) -> bool:
        """Whether everything was read that had come when the stream stood there."""
        everything = self._chunks >= standing.chunks and self._messages >= standing.messages
        return self._beyond or everything

    def close(self) -> None:
        """Give the file back; idempotent."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _is_beyond(self, record: object, until: StreamPosition) -> bool:
        """Whether a record came after the stream stood there.

        Counting tells exactly; the time of arrival does where chunks of the past were dropped
        because the disk was full, and counting would go on into the present.
        """
        if self.has_reached(until):
            return True
        known = isinstance(record, ChunkRecord | MessageRecord)
        return known and record.arrival_ms > until.arrival_ms  # type: ignore[attr-defined]  # both have one

    def _take(self, record: object, found: list[Heard]) -> None:
        if isinstance(record, ChunkRecord):
            self._chunks += 1
            self._take_chunk(record, found)
        elif isinstance(record, MessageRecord):
            self._messages += 1
            if self._reached:
                found.append(LiveMessage(record.message, record.arrival_ms))

    def _take_chunk(self, record: ChunkRecord, found: list[Heard]) -> None:
        stamp = record.timestamp_ms
        if stamp is None:
            wanted = reached = record.arrival_ms >= self._since_ms
        else:
            end_ms = stamp + len(record.payload) / self._media.bytes_per_ms
            wanted, reached = end_ms > self._begin_ms, end_ms >= self._begin_ms
        self._reached = self._reached or reached
        if not wanted:
            self._keep_before(record)
            return
        if before := self._before.get(record.track):
            found.append(_told(PrecedingChunk, before))
        self._before[record.track] = None
        found.append(_told(LiveChunk, record))

    def _keep_before(self, record: ChunkRecord) -> None:
        """Keep the one that the others are behind; chunks may have overtaken each other."""
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
            hungry, self._hungry = self._hungry, False
            with self._lock:
                block = self._read_block() if hungry and not self._closed else b""
            if hungry:
                self.at_end = not block
            yield block

    def _read_block(self) -> bytes:
        if self._file is None:
            try:
                self._file = open_regular(self._journal)
            except FileNotFoundError:
                return b""  # the first batch has yet to be written
        return self._file.read(BLOCK_BYTES)


def _told(kind: type[LiveChunk], record: ChunkRecord) -> LiveChunk:
    chunk = Chunk(
        record.track, record.sequence_number, record.chunk, record.timestamp_ms, record.payload
    )
    return kind(chunk, record.arrival_ms)
