"""The recording that is open on a session: its journal, its tap, and what was counted of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import receiver
from receiver.errors import MessageRejected
from receiver.journal import records
from receiver.journal.records import (
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    RejectedRecord,
)
from receiver.journal.writer import JournalWriter
from receiver.media import Chunk, EndReason, GapKind, Track, timestamp
from receiver.tap.events import LiveChunk, LiveMessage, LiveStream, StreamEnded, StreamPosition
from receiver.tap.hub import SILENT, Hub, Tap
from receiver.timeline.jumps import live_origin_ms
from receiver.wire.parse import Start

MOST_MESSAGES: Final = 10_000
"""Messages other than media that are kept of one recording; the rest is counted."""

MOST_EARLY: Final = 10
"""Messages that are kept until a recording opens which they belong into."""


@dataclass(slots=True)
class EarlyMessages:
    """What came before a recording opened, and what recordings to come need of it."""

    greeting: bytes = b""  # the latest connected message
    start: bytes = b""  # the latest start message
    _messages: list[bytes] = field(default_factory=list)
    _left_out: int = 0

    def keep(self, message: bytes) -> None:
        """Keep a message for the journal of the recording that opens next."""
        if len(self._messages) < MOST_EARLY:
            self._messages.append(message)
        else:
            self._left_out += 1

    def hand_over(self, recording: LiveRecording) -> None:
        """Put what was kept into a recording that has opened; the next begins as all do."""
        for message in self._messages:
            recording.keep(message)
        if self._left_out:
            recording.note("messages_not_kept", f"{self._left_out} messages before the recording")
        self._messages = [self.greeting] if self.greeting else []
        self._left_out = 0


@dataclass(slots=True)
class LiveRecording:
    """What a session keeps while a recording is open; where its stream stands, for the tap."""

    id: str
    journal: JournalWriter
    started_at_ms: int
    now: Callable[[], float]
    tracks: Mapping[Track, Chunk]  # the latest chunk of each, kept by others
    opened_at: float = field(init=False)
    tap: Tap = field(init=False)  # what hears the chunks
    live: Tap = SILENT  # until the stream has a name
    origin_ms: int = 0  # the timestamp at which stream time begins, as the first chunk tells
    start: Start | None = None  # names whose it is
    named: bool = False  # by a start message of its own
    latest: Chunk | None = None
    chunks: int = 0
    messages: int = 0
    rejected: int = 0

    def __post_init__(self) -> None:
        self.opened_at = self.now()
        self.tap = _FirstChunkTap(self)

    def arrival_ms(self) -> int:
        """Return what the clock of arrival times shows."""
        return int((self.now() - self.opened_at) * 1000)

    def keep(self, message: bytes) -> None:
        """Put a message other than media into the journal, verbatim."""
        self.messages += 1
        if self.messages <= MOST_MESSAGES:
            self.journal.append(records.encode(MessageRecord(self.arrival_ms(), message)))

    def keep_rejected(self, rejected: MessageRejected, message: bytes) -> None:
        """Put what is known of an unusable message into the journal."""
        self.rejected += 1
        if rejected.chunk is None:
            self.keep(message)  # verbatim, and rejected again whenever it is read
        else:
            record = RejectedRecord(self.arrival_ms(), rejected.code, rejected.chunk)
            self.journal.append(records.encode(record))

    def note(self, code: str, detail: str) -> None:
        """Put a finding of ours into the journal."""
        self.journal.append(records.encode(NoteRecord(self.arrival_ms(), code, detail)))

    def assume(self, start: Start, start_message: bytes) -> None:
        """Give a recording that no start message has named the name of the stream before it."""
        self.start = start
        self.journal.append(records.encode(MessageRecord(self.arrival_ms(), start_message)))
        self.note("start_assumed", "no start message came; that of the stream before was taken")

    def go_on(self, start_message: bytes) -> None:
        """Begin with the name of the stream that stopped, whose earlier chunks are elsewhere.

        They are neither lost nor missed: they are in the recording before this one.
        """
        self.keep(start_message)
        for track, chunk in self.tracks.items():
            number, stamp = chunk.chunk, chunk.timestamp_ms
            bounds = (None if number is None else 0, number, None if stamp is None else 0, stamp)
            row = DroppedRecord(GapKind.SENDER_SILENCE, track, 1 + max(0, number or 0), *bounds)
            self.journal.append(records.encode(row))

    def tell(self, message: bytes) -> None:
        """Have those who listen hear a message other than media."""
        self.live.publish(LiveMessage(message, self.arrival_ms()))

    def hear_first(self, event: LiveChunk) -> None:
        """Settle where stream time begins."""
        self.origin_ms = live_origin_ms(event.chunk, event.arrival_ms)
        self.tap = self.live
        self.live.publish(event)

    def end(self, reason: EndReason, detail: str, ended: Callable[[Path], None]) -> None:
        """Write the last records; `ended` is called, in a thread, once all is on disk."""
        if self.messages > MOST_MESSAGES:
            text = f"{self.messages - MOST_MESSAGES} messages other than media"
            self.note("messages_not_kept", text)
        record = EndRecord(self.arrival_ms(), reason, detail)
        self.journal.end(record, ended)
        self.live.publish(StreamEnded(reason, record.arrival_ms))

    def position(self) -> StreamPosition:
        """Return where the stream stands, for those who begin to listen."""
        kept = min(self.messages, MOST_MESSAGES)
        latest, tracks = self.latest, self.tracks.values()
        others = tuple(chunk for chunk in tracks if latest and chunk.track is not latest.track)
        return StreamPosition(self.chunks, kept, self.arrival_ms(), latest, others, self.origin_ms)

    def announce(self, hub: Hub, start: Start, *, greeting: bytes, message: bytes) -> None:
        """Have the stream be listened to, now that it has a name; once.

        `greeting` and `message` are the connected and start messages, verbatim.
        """
        self.start = start
        if self.live is not SILENT:
            return
        described = LiveStream(
            recording_id=self.id,
            account_sid=start.account_sid,
            call_sid=start.call_sid,
            stream_sid=start.stream_sid,
            parameters=start.parameters,
            media_format=start.media_format,
            tracks=start.tracks,
            started_at=timestamp(self.started_at_ms),
            greeting=greeting,
            start_message=message,
        )
        self.live = hub.open(described, self)
        if self.chunks:
            self.tap = self.live


class _FirstChunkTap:
    """The tap until the first chunk comes, so that none of the others is asked whether it is."""

    has_subscribers = True

    def __init__(self, recording: LiveRecording) -> None:
        self._recording = recording

    def publish(self, event: LiveChunk | LiveMessage | StreamEnded) -> None:
        """Hand on the first chunk; nothing else is told here."""
        if isinstance(event, LiveChunk):
            self._recording.hear_first(event)


def new_header(started_at_ms: int) -> Header:
    """Return how the journal of another recording begins."""
    return Header(secrets.token_hex(8), started_at_ms, records.VERSION, receiver.__version__)


def names(recording_id: str | None, start: Start | None) -> dict[str, str | None]:
    """Return what a log line calls a stream by."""
    return {
        "recording_id": recording_id,
        "stream_sid": start.stream_sid if start else None,
        "call_sid": start.call_sid if start else None,
    }
