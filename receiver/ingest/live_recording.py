"""The recording that is open on a session: its journal, its tap, and what was counted of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

import receiver
from receiver.journal import records
from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    PartEnd,
    PauseRecord,
    PreviousPart,
    RejectedRecord,
    ResumeRecord,
)
from receiver.journal.writer import DroppedChunks, JournalWriter
from receiver.media import (
    Chunk,
    EndReason,
    GapKind,
    MediaFormat,
    PauseEnd,
    RejectedChunk,
    Track,
    timestamp,
)
from receiver.tap.hub import (
    SILENT,
    Hub,
    LiveChunk,
    LiveMessage,
    LivePause,
    LiveStream,
    StreamEnded,
    StreamPosition,
    Tap,
)
from receiver.timeline.jumps import live_origin_ms, shown_ticks_per_ms
from receiver.wire import parse
from receiver.wire.messages import Connected, Message, MessageRejected, Start

MOST_MESSAGES: Final = 10_000
"""Messages other than media that are kept of one recording; the rest is counted."""

NAMELESS: Final = Start("", "", "", (), {}, MediaFormat())
"""In the place of a start message that has not come."""

MOST_FIRST: Final = 100
"""Chunks that are asked what timestamps count, until two neighbours show it."""

MOST_EARLY: Final = 10
"""Messages that are kept until a recording opens which they belong into."""

MOST_EARLY_AUDIO: Final = 500
"""The same, of messages with audio that has no place: some seconds of it."""


@dataclass(slots=True)
class EarlyMessages:
    """Messages that recordings to come need: those before the first, and the latest openings."""

    connected: bytes = b""  # the latest connected message, verbatim
    start: bytes = b""  # the latest start message, verbatim
    _messages: list[bytes] = field(default_factory=list)
    _left_out: int = 0

    def keep(self, message: bytes, *, has_audio: bool = False) -> None:
        """Keep a message for the journal of the recording that opens next; count an empty one."""
        if message and len(self._messages) < (MOST_EARLY_AUDIO if has_audio else MOST_EARLY):
            self._messages.append(message)
        else:
            self._left_out += 1

    def hand_over(self, recording: LiveRecording) -> None:
        """Put what was kept into a recording that has opened; the next one starts without it."""
        for message in self._messages:
            if recording.withheld is not None and message != self.connected:
                recording.withheld.add_message(None)
                continue
            try:
                parse.parse(message)
            except MessageRejected as rejected:
                recording.keep_rejected(rejected, message)
            else:
                recording.keep(message)
        if self._left_out:
            recording.note("messages_not_kept", f"{self._left_out} messages before the recording")
        self._messages = [self.connected] if self.connected else []
        self._left_out = 0


_FLUSH_SECONDS: Final = 1.0
"""So often the journal gets the bounds of what came during a pause: a crash loses no more."""


class Withheld:
    """What comes during a pause: counted, and thrown away. Its bounds go into the journal.

    Everything is silence by the time it gets here: see `Session`.
    """

    def __init__(self, reason: str, until_ms: int) -> None:
        self.reason = reason
        self.until_ms = until_ms
        self.chunks = 0
        self.messages = 0  # other than media
        self._rows = DroppedChunks(GapKind.PAUSED)
        self._sequences: list[int] = []  # of messages other than media
        self._flushed_at = 0.0

    def add_chunk(self, chunk: Chunk | RejectedChunk) -> None:
        """Count a chunk."""
        self.chunks += 1
        self._rows.add(chunk)

    def add_message(self, sequence_number: int | None) -> None:
        """Count a message that is not media."""
        self.messages += 1
        if sequence_number is not None:
            self._sequences.append(sequence_number)

    def is_due(self, now: float) -> bool:
        """Whether the journal is to get what has come, for the first time or again."""
        return now - self._flushed_at >= _FLUSH_SECONDS

    def drain(self, now: float) -> tuple[list[DroppedRecord], list[bytes]]:
        """Return the rows of chunks, and in the place of each other message what is left of it."""
        self._flushed_at = now
        sequences, self._sequences = self._sequences, []
        return self._rows.drain(), [parse.omitted(sequence) for sequence in sequences]


@dataclass(slots=True)
class LiveRecording:
    """One open recording, from its journal's header to its last record.

    It is the hub's `StreamSource` of its stream's position. `latest_of_tracks` returns the latest
    chunk of each track of the stream, as the state machine has them.
    """

    header: Header
    journal: JournalWriter
    now: Callable[[], float]
    early: EarlyMessages
    latest_of_tracks: Callable[[], tuple[Chunk, ...]]
    opened_at: float = field(init=False)
    tap: Tap = field(init=False)  # where chunks are published
    live: Tap = SILENT  # until the stream has a name
    origin_ms: int = 0  # the timestamp at which stream time starts, by the first chunk
    ticks_per_ms: int = 1  # of timestamps: more where they count samples, by the first chunks
    start: Start | None = None  # names the call
    has_start_message: bool = False  # of its own: `start` may be that of the stream before it
    latest: Chunk | None = None
    latest_ms: int = 0  # when it came
    sequence_number: int = 0  # the highest of messages other than media
    previous_tracks: dict[Track, PartEnd] = field(default_factory=dict)  # where that one ended
    previous: PreviousPart | None = None
    continues_ms: int | None = None  # the timestamp at which the part before it ended
    chunks: int = 0
    messages: int = 0
    rejected: int = 0
    first_sequence: int | None = None  # that of the first chunk
    withheld: Withheld | None = None  # while the call is paused
    _numbered: int = 0  # messages since then, other than chunks, that a sequence number counts
    _noted: set[str] = field(default_factory=set)
    _pause_records: int = 0

    def __post_init__(self) -> None:
        self.opened_at = self.now()
        self.tap = _FirstChunksTap(self)

    def arrival_ms(self) -> int:
        """Return the time since the recording opened."""
        return int((self.now() - self.opened_at) * 1000)

    def keep_chunk(self, chunk: Chunk) -> None:
        """Put a chunk into the journal, and publish it where somebody listens: the hot path."""
        arrival_ms = self.latest_ms = int((self.now() - self.opened_at) * 1000)
        self.chunks += 1
        self.journal.append(records.encode_chunk(chunk, arrival_ms))
        self.latest = chunk
        if self.tap.has_subscribers:
            self.tap.publish(LiveChunk(chunk, arrival_ms))

    def withhold_chunk(self, chunk: Chunk) -> None:
        """Count a chunk that came during a pause; listeners get its silence."""
        assert self.withheld is not None  # noqa: S101  nobody calls it otherwise
        now = self.now()
        arrival_ms = self.latest_ms = int((now - self.opened_at) * 1000)
        self.withheld.add_chunk(chunk)
        self._numbered += chunk.sequence_number is not None
        self.latest = chunk
        if self.tap.has_subscribers:
            self.tap.publish(LiveChunk(chunk, arrival_ms))
        if self.withheld.is_due(now):
            self._flush_withheld()

    def pause(self, reason: str, until_ms: int) -> None:
        """Keep nothing from now on; a pause that lasts is replaced."""
        self._flush_withheld()
        before, self.withheld = self.withheld, Withheld(reason, until_ms)
        if before is not None:
            self.withheld.chunks, self.withheld.messages = before.chunks, before.messages
        self._append_counted(PauseRecord(self.arrival_ms(), reason, until_ms))
        self.live.publish(LivePause(b"", self.arrival_ms(), reason, until_ms))

    def resume(self, end: PauseEnd) -> None:
        """Keep again what comes."""
        ended = self.withheld
        if ended is not None:
            self._flush_withheld()
            self.withheld = None
            arrival_ms = self.arrival_ms()
            self._append_counted(ResumeRecord(arrival_ms, end, ended.chunks, ended.messages))
            over = LivePause(b"", arrival_ms, ended.reason, ended.until_ms, is_over=True)
            self.live.publish(over)

    def _flush_withheld(self) -> None:
        """Put into the journal what is known of everything that came during a pause."""
        if self.withheld is not None:
            rows, messages = self.withheld.drain(self.now())
            for row in rows:
                self._append_counted(row)
            if rows:
                self.keep(parse.omitted(None))  # when that was: a crash leaves nothing later
            for message in messages:
                self.keep(message)
                self.publish_message(message)

    def _append_counted(self, record: DroppedRecord | PauseRecord | ResumeRecord) -> None:
        """Append a record of a pause: replays of the past count these as messages."""
        self._pause_records += 1
        self.journal.append(records.encode(record))

    def keep(self, message: bytes) -> None:
        """Put a message other than media into the journal, verbatim."""
        self.messages += 1
        if self.messages <= MOST_MESSAGES:
            self._append_message(message)

    def _append_message(self, message: bytes) -> None:
        self.journal.append(records.encode(MessageRecord(self.arrival_ms(), message)))

    def keep_rejected(self, rejected: MessageRejected, message: bytes) -> None:
        """Put what is known of an unusable message into the journal.

        One of which nothing may be kept is empty.
        """
        self.rejected += 1
        self._numbered += bool(self.chunks)  # as most are
        if message and rejected.chunk is None and not rejected.audio:
            self.keep(message)  # verbatim, and rejected again whenever it is read
        else:
            record = RejectedRecord(
                self.arrival_ms(), rejected.code, rejected.chunk, rejected.label, rejected.audio
            )
            self.journal.append(records.encode(record))

    def note(self, code: str, detail: str, *, once: bool = False) -> None:
        """Put a finding of ours into the journal; with `once`, unless its code is there."""
        if once and code in self._noted:
            return
        self._noted.add(code)
        self.journal.append(records.encode(NoteRecord(self.arrival_ms(), code, detail)))

    def assume(self, start: Start) -> None:
        """Name a recording that no start message has named after the stream before it."""
        self.start = start
        self._append_message(self.early.start)
        self.note("start_assumed", "no start message came; that of the stream before was taken")

    @property
    def key(self) -> tuple[str, str] | None:
        """Return by what its stream is known again on another socket, if by anything."""
        start = self.start
        return (start.stream_sid, start.call_sid) if start and start.stream_sid else None

    def count_sequence(self, message: Message) -> None:
        """Count the sequence number of a message other than media."""
        if not isinstance(message, Connected) and message.sequence_number is not None:
            self.sequence_number = max(self.sequence_number, message.sequence_number)
            self._numbered += bool(self.chunks)

    def adopt_ids(self, stream_sid: str, call_sid: str, account_sid: str) -> bool:
        """Fill in ids that the start message lacks; return whether stream and call have one."""
        start = self.start or NAMELESS
        self.start = found = msgspec.structs.replace(
            start,
            stream_sid=start.stream_sid or stream_sid,
            call_sid=start.call_sid or call_sid,
            account_sid=start.account_sid or account_sid,
        )
        if found != start:
            ids = [found.stream_sid, found.call_sid, found.account_sid]
            self.note(records.REPEATED_IDS, msgspec.json.encode(ids).decode())
        return bool(found.stream_sid and found.call_sid)

    def as_part(
        self, latest: tuple[Chunk, ...] | None = None, reason: EndReason | None = None
    ) -> PreviousPart:
        """Return where the stream stands, for the recording in which it may go on.

        Args:
            latest: the latest chunk of each track; without it, those of the stream.
            reason: why the recording has ended, if it has.
        """
        start = self.start or NAMELESS
        latest = self.latest_of_tracks() if latest is None else latest
        own = {chunk.track: part_end(chunk, start.media_format) for chunk in latest}
        numbers = [chunk.sequence_number or 0 for chunk in latest]
        return PreviousPart(
            id=self.header.recording_id,
            stream_sid=start.stream_sid,
            latest_at_ms=self.header.started_at_ms + self.latest_ms,
            tracks={**self.previous_tracks, **own},
            sequence_number=max((self.sequence_number, *numbers)) or None,
            reason=reason,
        )

    def continue_part(self, previous: PreviousPart) -> None:
        """Go on where another recording of the same stream ended.

        What that one holds is neither lost nor missed here.
        """
        ends = (end.end_ms for end in previous.tracks.values() if end.end_ms is not None)
        self.continues_ms = max(ends, default=None)
        self.previous_tracks, self.previous = previous.tracks, previous
        self.note(records.PREVIOUS_PART, msgspec.json.encode(previous).decode())

    def publish_message(self, message: bytes) -> None:
        """Publish a message other than media."""
        self.live.publish(LiveMessage(message, self.arrival_ms()))

    def count_from(self, first: LiveChunk) -> None:
        """Count stream time and missing messages from the first chunk."""
        self.origin_ms = live_origin_ms(first.chunk, first.arrival_ms, self.continues_ms)
        self.first_sequence = first.chunk.sequence_number

    def close_tap(self) -> None:
        """End the stream for listeners, who were told a format that another message corrects."""
        self.live.publish(StreamEnded(EndReason.REPLACED, self.arrival_ms()))
        self.live = SILENT

    def end(self, reason: EndReason, detail: str, ended: Callable[[Path], None]) -> None:
        """Write the last records; `ended` is called, in a thread, once all is on disk."""
        self._flush_withheld()
        if self.messages > MOST_MESSAGES:
            text = f"{self.messages - MOST_MESSAGES} messages other than media"
            self.note("messages_not_kept", text)
        record = EndRecord(self.arrival_ms(), reason, detail)
        self.journal.end(record, ended)
        self.live.publish(StreamEnded(reason, record.arrival_ms))

    def position(self) -> StreamPosition:
        """Return the position of the stream, for those who start to listen."""
        self._flush_withheld()
        kept = min(self.messages, MOST_MESSAGES) + self._pause_records
        latest, tracks = self.latest, self.latest_of_tracks()
        others = tuple(chunk for chunk in tracks if latest and chunk.track is not latest.track)
        return StreamPosition(
            *(self.chunks, kept, self.arrival_ms(), latest, others, self.origin_ms),
            missing=self._missing(tracks),
            ticks_per_ms=self.ticks_per_ms,
            paused=(self.withheld.reason, self.withheld.until_ms) if self.withheld else None,
        )

    def _missing(self, latest: tuple[Chunk, ...]) -> int | None:
        """Return how many messages since the first chunk have not come, as far as numbers tell.

        What comes twice or late hides as many; the recording knows better when it is rendered.
        """
        if self.first_sequence is None:
            return None
        numbers = (chunk.sequence_number or 0 for chunk in latest)
        highest = max((self.sequence_number, *numbers))
        return max(0, highest - self.first_sequence + 1 - self.chunks - self._numbered)

    def announce(self, hub: Hub, start: Start) -> None:
        """Name the recording; the first time its stream is opened at the hub, or refused there."""
        self.start = start
        if self.live is not SILENT:
            return
        described = LiveStream(
            recording_id=self.header.recording_id,
            account_sid=start.account_sid,
            call_sid=start.call_sid,
            stream_sid=start.stream_sid,
            parameters=start.parameters,
            media_format=start.media_format,
            tracks=start.tracks,
            started_at=timestamp(self.header.started_at_ms),
            connected_message=self.early.connected,
            start_message=self.early.start,
            continues_ms=self.continues_ms,
        )
        refused = start.refused_format
        self.live = hub.refuse(described, refused) if refused else hub.open(described, self)
        if not isinstance(self.tap, _FirstChunksTap):
            self.tap = self.live

    def names(self) -> dict[str, str | None]:
        """Return what log lines name this recording by."""
        return names(self.header.recording_id, self.start)


def part_end(chunk: Chunk | ChunkRecord, media: MediaFormat) -> PartEnd:
    """Return where a track stands behind a chunk."""
    stamp = chunk.timestamp_ms
    end = None if stamp is None else stamp + len(chunk.payload) // media.bytes_per_ms
    return PartEnd(chunk.chunk, stamp, end)


class _FirstChunksTap:
    """The tap of the first chunks, so that no later one is asked what the clock counts.

    They are passed on. It is left once two of them show what timestamps count, or none does.
    """

    has_subscribers = True

    def __init__(self, recording: LiveRecording) -> None:
        self._recording = recording
        self._latest: dict[Track, LiveChunk] = {}
        self._count = 0

    def publish(self, event: LiveChunk | LiveMessage | StreamEnded) -> None:
        """Pass one of the first chunks on; nothing else is published here."""
        if not isinstance(event, LiveChunk):
            return
        recording, chunk = self._recording, event.chunk
        if not self._count:
            recording.count_from(event)
        self._count += 1
        before = self._latest.get(chunk.track)
        self._latest[chunk.track] = event
        shown = self._shown(before, event) if before else None
        recording.ticks_per_ms = shown or 1
        if shown or self._count >= MOST_FIRST:
            recording.tap = recording.live
        recording.live.publish(event)

    def _shown(self, before: LiveChunk, event: LiveChunk) -> int | None:
        """Return what two chunks show timestamps to count, if nothing is missing between them."""
        media = (self._recording.start or NAMELESS).media_format
        waited_ms = event.arrival_ms - before.arrival_ms
        return shown_ticks_per_ms(before.chunk, event.chunk, waited_ms, media)


def new_header(started_at_ms: int) -> Header:
    """Return the header of another recording's journal."""
    return Header(secrets.token_hex(8), started_at_ms, records.VERSION, receiver.__version__)


def names(recording_id: str | None, start: Start | None) -> dict[str, str | None]:
    """Return what log lines name a stream by."""
    return {
        "recording_id": recording_id,
        "stream_sid": start.stream_sid if start else None,
        "call_sid": start.call_sid if start else None,
    }
