"""One reading of a whole journal: everything that rendering needs to know but the samples.

Samples stay in the file: what is kept of a chunk is where its payload ends and how long it is,
44 bytes in all, so what grows with the length of a call is an index and nothing else.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from receiver.disk.files import blocks_of
from receiver.errors import JournalError, UnprovenError
from receiver.journal import records as journal
from receiver.journal.reader import Reader
from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    Record,
    RejectedRecord,
)
from receiver.media import EndReason, Finding, GapKind, MediaFormat, Track
from receiver.timeline.event_positions import EventPosition
from receiver.timeline.track_index import TrackIndex
from receiver.wire import parse
from receiver.wire.messages import (
    OTHER_STREAM,
    DtmfMessage,
    FormatRefused,
    MarkMessage,
    MessageRejected,
    Start,
    Unknown,
)

if TYPE_CHECKING:
    from io import FileIO

_CUT_SHORT = {
    EndReason.IDLE: "no audio came for too long",
    EndReason.SHUTDOWN: "the receiver was stopped during the stream",
    EndReason.PROTOCOL_ERROR: "the stream was cut",
}


@dataclass(slots=True)
class JournalScan:
    """What a journal holds. `trusted_bytes` is how much of it counts, `sha256` is of these."""

    header: Header
    start: Start | None = None
    end: EndRecord | None = None
    tracks: dict[Track, TrackIndex] = field(default_factory=dict)
    events: list[tuple[EventPosition, DtmfMessage | MarkMessage]] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    notes: list[Finding] = field(default_factory=list)
    unknown_events: int = 0
    restated: int = 0  # start messages of the same stream that say something else
    starts: list[tuple[Start, int]] = field(default_factory=list)  # and how many chunks came before
    refused_format: str = ""  # why the audio of `start` cannot be decoded
    token_call: str | None = None  # that no start message had named when the journal was opened
    calls: set[str] = field(default_factory=set)  # that start messages name
    last_arrival_ms: int = 0
    trusted_bytes: int = 0
    sha256: str = ""
    damage: str | None = None
    _latest: Track | None = None  # the track of the latest chunk

    @property
    def media_format(self) -> MediaFormat:
        """Return the stream's format; mu-law at 8000 Hz, the default, where no start came."""
        return self.start.media_format if self.start else MediaFormat()

    @property
    def end_reason(self) -> EndReason:
        """Return why the recording ended; a journal without an end is a crash."""
        return self.end.reason if self.end else EndReason.CRASH

    @property
    def unproven(self) -> bool:
        """Whether no start message named the call that the stream's token is for."""
        return self.token_call is not None and self.token_call not in self.calls

    @property
    def ended_at_ms(self) -> int:
        """Return when it ended, UTC in milliseconds since 1970."""
        return self.header.started_at_ms + self.last_arrival_ms

    def track(self, track: Track) -> TrackIndex:
        """Return the index of one track."""
        return self.tracks.setdefault(track, TrackIndex(track))

    def feed(self, record: Record, end: int) -> None:
        """Add one record, which ends at byte `end` of the journal."""
        if type(record) is ChunkRecord:
            self._feed_chunk(record, end)
            return
        match record:
            case MessageRecord():
                self._feed_message(record.message)
            case RejectedRecord():
                self._feed_rejected(record)
            case EndRecord():
                self.end = record
            case DroppedRecord():
                self.track(record.track).add_not_kept(record)
            case NoteRecord(code=journal.CLAIMED_CALL):
                self.token_call = record.detail
            case NoteRecord():
                self.notes.append(Finding(record.code, record.detail))
        arrival_ms = getattr(record, "arrival_ms", 0)
        self.last_arrival_ms = max(self.last_arrival_ms, arrival_ms)

    def _feed_rejected(self, record: RejectedRecord) -> None:
        self.rejected[record.code] += 1
        if record.chunk is not None and record.code != OTHER_STREAM:
            track, number, stamp = record.chunk.track, record.chunk.chunk, record.chunk.timestamp_ms
            row = DroppedRecord(GapKind.REJECTED, track, 1, number, number, stamp, stamp)
            self.track(track).add_not_kept(row)

    def _feed_chunk(self, record: ChunkRecord, end: int) -> None:
        index = self.tracks.get(record.track) or self.track(record.track)
        index.add(record, end)
        if record.arrival_ms > self.last_arrival_ms:
            self.last_arrival_ms = record.arrival_ms
        self._latest = record.track

    def _position(self) -> EventPosition:
        return (
            EventPosition(self._latest, len(self.tracks[self._latest]))
            if self._latest
            else EventPosition()
        )

    def _feed_message(self, message: bytes) -> None:
        try:
            parsed = parse.parse(message)
        except MessageRejected as rejected:
            self.rejected[rejected.code] += 1
            return
        except FormatRefused as refused:
            self._feed_refused_start(refused)
            return
        if isinstance(parsed, Start):
            self.calls.add(parsed.call_sid)
        match parsed:
            case Start():
                self._feed_start(parsed)
            case DtmfMessage() | MarkMessage():
                self.events.append((self._position(), parsed))
            case Unknown():
                self.unknown_events += 1

    def _feed_refused_start(self, refused: FormatRefused) -> None:
        """Add the name of a stream of which the audio cannot be decoded."""
        self.calls.add(refused.start.call_sid)
        if self.start is None:
            self.start, self.refused_format = refused.start, refused.detail

    def _chunks(self) -> int:
        return sum(map(len, self.tracks.values()))

    def _feed_start(self, start: Start) -> None:
        """Add the first start message of a stream; later ones are only counted."""
        for known, _ in self.starts:
            if known.is_of(start):
                same = (known.parameters, known.media_format)
                self.restated += same != (start.parameters, start.media_format)
                return
        self.starts.append((start, self._chunks()))
        self.start, self.refused_format = start, ""

    def finalize(self) -> None:
        """Name a recording that holds several streams after the one with most of the audio.

        Today each gets a journal of its own; older ones may hold stragglers of another stream.
        """
        if len(self.starts) < 2:
            return
        borders = [0, *(before for _, before in self.starts[1:]), self._chunks()]
        counts = [after - before for before, after in itertools.pairwise(borders)]
        self.start = self.starts[counts.index(max(counts))][0]

    def findings(self) -> list[Finding]:
        """Return what the journal as a whole has to report."""
        found = list(self.notes)
        if self.end is None:
            found.append(Finding("crashed", "the receiver ended without closing the journal"))
        elif self.end.reason in _CUT_SHORT:
            text = self.end.detail or _CUT_SHORT[self.end.reason]
            found.append(Finding("cut_short", text))
        elif self.end.detail:
            found.append(Finding("connection_lost", self.end.detail))
        if self.damage:
            found.append(Finding("journal_damaged", self.damage))
        if self.start is None:
            text = "no start message came; mu-law at 8000 Hz was assumed"
            found.append(Finding("start_missing", text))
        if self.refused_format:
            text = f"{self.refused_format}; reading it as mu-law at 8000 Hz is only a guess"
            found.append(Finding("format_refused", text))
        if len(self.starts) > 1:
            text = f"start messages of {len(self.starts)} streams; the one with most audio counts"
            found.append(Finding("streams_mixed", text))
        if self.restated:
            text = "later start messages had other parameters or another format; the first counts"
            found.append(Finding("start_restated", text))
        if self.unknown_events:
            found.append(Finding("unknown_events", f"{self.unknown_events} times; ignored"))
        found += [
            Finding("messages_rejected", f"{count} times {code}")
            for code, count in sorted(self.rejected.items())
        ]
        return found


def scan_file(file: FileIO) -> JournalScan:
    """Return what the journal in `file` holds, which is read from its start, once.

    Raises:
        UnprovenError: nothing of it may be kept: it may not be the call of its token.
        JournalError: it does not start with a header that this version can read.
    """
    file.seek(0)
    scanned = scan(blocks_of(file))
    if scanned.unproven:
        text = "no start message named the call of the token"
        if scanned.damage:  # it may be behind the damage
            raise JournalError(f"{text} up to {scanned.damage}")
        raise UnprovenError(text)
    return scanned


def scan(blocks: Iterable[bytes]) -> JournalScan:
    """Return what the journal that `blocks` make up holds, whether or not it may be kept.

    Raises:
        JournalError: it does not start with a header that this version can read.
    """
    reader = Reader(blocks, hashing=True)
    records = iter(reader)
    first = next(records, None)
    if first is None or not isinstance(first[1], Header):
        raise JournalError(f"not a journal: {reader.damage or 'it holds no header'}")
    scanned = JournalScan(first[1])
    for end, record in records:
        scanned.feed(record, end)
    scanned.finalize()
    scanned.trusted_bytes = reader.trusted_bytes
    scanned.sha256 = reader.sha256
    scanned.damage = reader.damage
    return scanned
