"""The call's past before its present: `since`, without a break between the two.

The journal is followed to its end at the listener's own pace. Only then does the replay
subscribe to the live stream: what comes from there on is held, the little that the journal lacks
up to that moment is waited for (a batch is written every 200 ms), and the held part follows.

    journal:   c1 c2 ... c900 | c901 c902     (the last batch is not written yet)
    subscribe: position says 902 chunks; c903, c904 are held
    played:    c1 ... c900, c901, c902, c903, c904, and then live

How much the journal had been given at the moment of subscribing is known exactly, so nothing is
sent twice and nothing is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any, Final

import msgspec

from receiver.disk.files import BLOCK_BYTES, open_regular
from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    MessageRecord,
    PauseRecord,
    Reader,
    ResumeRecord,
)
from receiver.media import Chunk, EndReason, GapKind, MediaFormat, Track
from receiver.tap.encoding.format import start_ms
from receiver.tap.feed import Feed
from receiver.tap.hub import (
    Callback,
    Hub,
    LiveChunk,
    LiveMessage,
    LivePause,
    PrecedingChunk,
    StreamEnded,
    StreamEvent,
    StreamPosition,
    Subscribed,
    Unsubscribe,
)
from receiver.tap.listener import Listener

JournalEvent = LiveChunk | LiveMessage
_USUAL_MS: Final = 20
_LONGEST_SILENCE_BYTES: Final = 2**16


class JournalTail:
    """What a journal holds from `start_ms` of the stream's clock on.

    `since_ms` is the same moment on the clock of arrival times, for what has no timestamp.
    `position` says where the stream's clock begins, and what its timestamps count.
    """

    def __init__(
        self,
        journal: Path,
        media: MediaFormat,
        *,
        start_ms: float,
        since_ms: float,
        position: StreamPosition,
    ) -> None:
        self._journal = journal
        self._media = media
        self._start_ms = start_ms
        self._position = position
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
        self._paused = _PausedChunks(media)
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
        for silent in self._paused.chunks() if until is not None else ():
            self._add_chunk(silent, found)  # nothing more of them comes before the present
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
        if isinstance(record, DroppedRecord) and record.kind is GapKind.PAUSED:
            self._messages += 1
            self._paused.add(record)
            return
        for silent in self._paused.chunks():
            self._add_chunk(silent, found)
        if isinstance(record, ChunkRecord):
            self._chunks += 1
            self._paused.follow(record)
            self._add_chunk(record, found)
        elif isinstance(record, MessageRecord):
            self._messages += 1
            if self._reached:
                found.append(LiveMessage(record.message, record.arrival_ms))
        elif isinstance(record, PauseRecord | ResumeRecord):
            self._messages += 1
            self._add_pause(record, found)

    def _add_pause(self, record: PauseRecord | ResumeRecord, found: list[JournalEvent]) -> None:
        if isinstance(record, PauseRecord):
            self._paused.begin(record)
        lasting = self._paused.lasting
        if self._reached and lasting is not None:
            over = isinstance(record, ResumeRecord)
            about = (lasting.reason, lasting.until_ms, over)
            found.append(LivePause(b"", record.arrival_ms, *about))

    def _add_chunk(self, record: ChunkRecord, found: list[JournalEvent]) -> None:
        stamp = record.timestamp_ms
        if stamp is None:
            wanted = reached = record.arrival_ms >= self._since_ms
        else:
            length_ms = len(record.payload) / self._media.bytes_per_ms
            end_ms = self._position.stream_ms(stamp) + length_ms
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


class _PausedChunks:
    """Makes silence of the rows that a journal has in the place of what came during a pause.

    Rows of all tracks that were written together are one stretch: their chunks come in the order
    in which they did, as far as their clocks say.
    """

    def __init__(self, media: MediaFormat) -> None:
        self.lasting: PauseRecord | None = None  # the latest one
        self._media = media
        self._rows: list[DroppedRecord] = []
        self._before: dict[Track, ChunkRecord] = {}  # the latest chunk of each track
        self._sequence: int | None = None  # the highest so far

    def begin(self, pause: PauseRecord) -> None:
        """Begin a pause."""
        self.lasting = pause

    def follow(self, record: ChunkRecord) -> None:
        """Record a chunk: what comes behind it goes on from there."""
        self._before[record.track] = record
        if record.sequence_number is not None:
            self._sequence = max(self._sequence or 0, record.sequence_number)

    def add(self, row: DroppedRecord) -> None:
        """Add a row of chunks."""
        self._rows.append(row)

    def chunks(self) -> list[ChunkRecord]:
        """Return all rows as silent chunks, once."""
        rows, self._rows = self._rows, []
        made = [chunk for row in rows for chunk in self._chunks_of(row)]
        found = []
        for chunk in sorted(made, key=lambda chunk: chunk.arrival_ms):
            if self._sequence is not None:
                chunk = msgspec.structs.replace(chunk, sequence_number=self._sequence + 1)
            self.follow(chunk)
            found.append(chunk)
        return found

    def _chunks_of(self, row: DroppedRecord) -> Iterator[ChunkRecord]:
        before, one_ms = self._before.get(row.track), self._media.bytes_per_ms
        size = len(before.payload) if before else _USUAL_MS * one_ms
        first, last = row.first_timestamp_ms, row.last_timestamp_ms
        if first is not None and last is not None and row.chunks > 1:
            size = (last - first) * one_ms // (row.chunks - 1)
        arrival_ms, stamp = self._base(before)
        for at in range(row.chunks):
            number = _between(row.first_chunk, row.last_chunk, at, row.chunks)
            at_ms = _between(first, last, at, row.chunks)
            waited = at * size // one_ms if at_ms is None or stamp is None else at_ms - stamp
            came_ms = arrival_ms + max(0, waited)
            silence = self._media.silence(min(size, _LONGEST_SILENCE_BYTES))
            yield ChunkRecord(row.track, None, number, at_ms, came_ms, silence)

    def _base(self, before: ChunkRecord | None) -> tuple[int, int | None]:
        """Return when the chunk before came, and what time it was by its clock."""
        if before is not None:
            return before.arrival_ms, before.timestamp_ms
        return (self.lasting.arrival_ms if self.lasting else 0), None


def _between(first: int | None, last: int | None, at: int, count: int) -> int | None:
    """Return a counter between two bounds, if there are any."""
    if first is None or last is None:
        return None
    return first + at * (last - first) // max(1, count - 1)


def _event(event_type: type[LiveChunk], record: ChunkRecord) -> LiveChunk:
    chunk = Chunk(
        record.track, record.sequence_number, record.chunk, record.timestamp_ms, record.payload
    )
    return event_type(chunk, record.arrival_ms)


_LONGEST_LAG_SECONDS: Final = 2.0
"""How long the journal may lack what has come; a failing disk does not hold up the present."""
_PAUSE_SECONDS: Final = 0.02
_EVERYTHING: Final = StreamPosition(2**62, 2**62, 2**62, None)
_MOST_HELD: Final = 1000
"""Of what comes while the past is played; then the listener's queue decides what is dropped."""


class Replay:
    """One listener's way from the past into the present.

    `make_feed` returns a feed that starts at so many milliseconds of the stream's clock; `flush`
    has the journal written now.
    """

    def __init__(
        self, hub: Hub, make_feed: Callable[[float], Feed], *, flush: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._make_feed = make_feed
        self._flush = flush
        self._on_event: Callback = lambda _: None
        self._unsubscribe: Unsubscribe = lambda: None
        self._feed: Feed | None = None
        self._held: deque[StreamEvent] = deque()  # what came while the past was played

    def play(
        self, listener: Listener, recording_id: str, *, since_seconds: float, journal: Path
    ) -> Coroutine[Any, Any, None]:
        """Return what sends a listener the last `since_seconds`; then its feed sends what comes.

        The stream's position is asked for at once: it may end before the first turn of a task.

        Raises, when it is awaited:
            OSError: the journal cannot be read.
            JournalError: it is none.
        """
        first: asyncio.Future[StreamEvent] = asyncio.get_running_loop().create_future()
        self._unsubscribe = self._hub.subscribe(
            recording_id, lambda event: None if first.done() else first.set_result(event)
        )
        if first.done():
            self._unsubscribe()
        return self._play(listener, recording_id, first, since_seconds, journal)

    async def _play(
        self,
        listener: Listener,
        recording_id: str,
        first: asyncio.Future[StreamEvent],
        since_seconds: float,
        journal: Path,
    ) -> None:
        subscribed = await first
        self._unsubscribe()
        if not isinstance(subscribed, Subscribed):
            listener.end()
            return
        live, position = subscribed.live, subscribed.position
        start = max(0.0, start_ms(subscribed) - since_seconds * 1000)
        tail = JournalTail(
            journal,
            live.media_format,
            start_ms=start,
            since_ms=max(0.0, position.arrival_ms - since_seconds * 1000),
            position=position,
        )
        feed = self._feed = self._make_feed(start)
        pacer = _ReplayPacer(feed, listener, live.media_format, self._held)
        try:
            feed.add(listener)
            feed.on_event(subscribed)
            await self._follow(tail, pacer)
            await self._catch_up(tail, pacer, recording_id)
            self._on_event = feed.on_event
            feed.reach_present(lambda: self._hub.is_behind(recording_id))
        finally:
            tail.close()

    def stop(self) -> None:
        """Unsubscribe; idempotent."""
        self._unsubscribe()
        if self._feed is not None:
            self._feed.close()

    async def _follow(self, tail: JournalTail, pacer: _ReplayPacer) -> None:
        """Play what the journal's file holds, no faster than the listener reads."""
        while not tail.at_end:
            for event in await _in_thread(tail.read):
                await pacer.play(event)

    async def _catch_up(self, tail: JournalTail, pacer: _ReplayPacer, recording_id: str) -> None:
        """Subscribe, and play what the journal lacked, then what came meanwhile."""
        held, arrived = self._held, asyncio.Event()

        def hold(event: StreamEvent) -> None:
            held.append(event)
            arrived.set()

        self._on_event = hold
        self._unsubscribe = self._hub.subscribe(recording_id, lambda event: self._on_event(event))
        await arrived.wait()
        first = held.popleft()
        if isinstance(first, Subscribed):
            await self._read_up_to(tail, first.position, pacer)
        else:  # it ended meanwhile: its journal holds the rest, and says why
            await self._read_up_to(tail, _EVERYTHING, pacer)
            held.append(StreamEnded(tail.end_reason or EndReason.CLOSED, 0))
        while held:
            await pacer.play(held.popleft())

    async def _read_up_to(
        self, tail: JournalTail, until: StreamPosition, pacer: _ReplayPacer
    ) -> None:
        waited = 0.0  # for the journal, not for the listener
        while not tail.has_reached(until) and waited < _LONGEST_LAG_SECONDS:
            for event in await _in_thread(tail.read, until):
                await pacer.play(event)
            if tail.at_end and not tail.has_reached(until):
                self._flush()
                await asyncio.sleep(_PAUSE_SECONDS)
                waited += _PAUSE_SECONDS


class _ReplayPacer:
    """Plays the past at the listener's pace, unless too much of the present is held meanwhile."""

    def __init__(self, feed: Feed, listener: Listener, media: MediaFormat, held: Sized) -> None:
        self._feed = feed
        self._listener = listener
        self._bytes_per_ms = media.bytes_per_ms
        self._held = held  # of the present

    async def play(self, event: StreamEvent) -> None:
        """Feed an event when what is before it has been sent."""
        while self._crowds(event) and len(self._held) < _MOST_HELD:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_LAG_SECONDS):
                    await self._feed.drained()
                    await self._listener.drained()
                    break
        self._feed.on_event(event)

    def _crowds(self, event: StreamEvent) -> bool:
        size = len(event.chunk.payload) if isinstance(event, LiveChunk) else 0
        coming_ms = self._feed.coming_ms + size / self._bytes_per_ms
        return self._listener.queue.is_crowded(coming_ms)


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="past")


async def _in_thread(
    call: Callable[..., list[JournalEvent]], *arguments: object
) -> list[JournalEvent]:
    """Read in a thread that all listeners share.

    Reading is Python: several threads of it would take the interpreter from the event loop by
    turns, and whoever else needs a thread would wait for them.
    """
    return await asyncio.get_running_loop().run_in_executor(_thread(), call, *arguments)
