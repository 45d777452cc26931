"""One reading of a whole journal: everything that rendering needs to know but the samples.

Samples stay in the file: what is kept of a chunk is where its payload ends and how long it is,
44 bytes in all, so what grows with the length of a call is an index and nothing else.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from receiver.disk.files import blocks_of
from receiver.errors import JournalError, UnprovenError
from receiver.journal import records as journal
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
    Reader,
    Record,
    RejectedRecord,
    ResumeRecord,
)
from receiver.media import EndReason, Finding, GapKind, MediaFormat, PauseEnd, Track, lacking
from receiver.timeline.jumps import continued_origin_ms
from receiver.timeline.track_index import MISSING, Column, MessageIndex, TrackIndex
from receiver.timeline.track_timeline import EventPosition
from receiver.wire import parse
from receiver.wire.messages import (
    FORMAT_ASSUMED,
    FORMAT_REFUSED,
    OMITTED,
    OTHER_STREAM,
    DtmfMessage,
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


_NO_START = "no start message came; mu-law at 8000 Hz was assumed"
_BEGINNING = 50  # chunks, as in `timeline.clock`
_MOST_EVENT_TEXT = 4 * 2**20
"""Characters in the names of keys and marks; behind them names are cut to ..."""
_SHORT_NAME = 64
_MOST_STARTS = 100
"""So many streams of a journal are told from each other; only old journals have two."""
_MOST_LABELS = 32
"""Of refused audio so many tracks and streams are told from each other."""


@dataclass(slots=True)
class KeptAudio:
    """Where a journal has audio of one kind that has no place in a track: 12 bytes a chunk."""

    first_arrival_ms: int
    last_arrival_ms: int = 0
    end: array[int] = field(default_factory=lambda: array("q"))  # of each payload, in the journal
    size: array[int] = field(default_factory=lambda: array("i"))

    def add(self, arrival_ms: int, end: int, size: int) -> None:
        """Add a payload that ends at byte `end` of the journal."""
        self.last_arrival_ms = arrival_ms
        self.end.append(end)
        self.size.append(size)


_T = TypeVar("_T")


def _decoded(detail: str, kind: type[_T]) -> _T | None:
    """Return what a note says; nothing where a later version says it otherwise."""
    try:
        return msgspec.json.decode(detail, type=kind)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Joint:
    """What lies between a recording and the one that its stream began in."""

    gap_ms: int
    origin_ms: int | None = None  # where stream time begins; none where the clock began anew
    is_pause: bool = False  # by the chunks' numbers


def _earliest(column: Column) -> int | None:
    """Return the lowest counter of the first chunks: one may have overtaken another."""
    known = column[:_BEGINNING]
    known = known[known != MISSING]
    return int(known.min()) if len(known) else None


def _is_behind(index: TrackIndex, end: PartEnd) -> bool:
    """Return whether a track's counters are above those with which it ended before."""
    pairs = (
        (_earliest(index.number), end.number),
        (_earliest(index.timestamp), end.timestamp_ms),
    )
    return all(mine > last for mine, last in pairs if mine is not None and last is not None)


@dataclass(slots=True)
class ScannedPause:
    """A pause: behind which chunk it began, and from when to when it lasted by arrivals."""

    at: EventPosition
    since_ms: int
    reason: str
    ended_ms: int = 0
    end: PauseEnd | None = None  # none while it lasts


@dataclass(slots=True)
class JournalScan:
    """What a journal holds. `trusted_bytes` is how much of it counts, `sha256` is of these."""

    header: Header
    start: Start | None = None
    end: EndRecord | None = None
    tracks: dict[Track, TrackIndex] = field(default_factory=dict)
    events: list[tuple[EventPosition, DtmfMessage | MarkMessage]] = field(default_factory=list)
    pauses: list[ScannedPause] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    notes: list[Finding] = field(default_factory=list)
    unknown_events: int = 0
    restated: int = 0  # start messages of the same stream with other parameters
    reformatted: int = 0  # start messages of the same stream with another format
    starts: list[tuple[Start, int]] = field(default_factory=list)  # and how many chunks came before
    kept_aside: dict[tuple[str, str], KeptAudio] = field(default_factory=dict)  # by code and label
    previous: PreviousPart | None = None  # the recording in which the stream began
    first_chunk_ms: int = 0  # when the first chunk came
    repeated_ids: tuple[str, str, str] = ("", "", "")  # of stream, call and account
    token_call: str | None = None  # that no start message had named when the journal was opened
    calls: set[str] = field(default_factory=set)  # that start messages name
    required: tuple[str, ...] = ()  # parameters, as `NAME` or `NAME=VALUE`
    lacking: tuple[str, ...] = ()  # those that no start message had
    messages: MessageIndex = field(default_factory=MessageIndex)
    last_arrival_ms: int = 0
    trusted_bytes: int = 0
    sha256: str = ""
    damage: str | None = None
    _event_text: int = 0  # characters in the names of `events`
    _latest: Track | None = None  # the track of the latest chunk

    @property
    def media_format(self) -> MediaFormat:
        """Return the stream's format; mu-law at 8000 Hz, the default, where no start came."""
        return self.start.media_format if self.start else MediaFormat()

    @property
    def refused_format(self) -> str:
        """Return why the audio cannot be decoded; empty where it can."""
        return self.start.refused_format if self.start else ""

    @property
    def assumed_format(self) -> str:
        """Return what had to be assumed of the format; empty where nothing had."""
        if self.start is None:
            return _NO_START
        found = self.start.findings
        return next((each.detail for each in found if each.code == FORMAT_ASSUMED), "")

    @property
    def end_reason(self) -> EndReason:
        """Return why the recording ended; a journal without an end is a crash."""
        return self.end.reason if self.end else EndReason.CRASH

    @property
    def unproven(self) -> str:
        """Return why nothing of it may be kept; empty where it may."""
        if self.token_call is not None and self.token_call not in self.calls:
            return "no start message named the call of the token"
        if self.lacking:
            return f"no start message had the required parameters: {', '.join(self.lacking)}"
        return ""

    @property
    def consent(self) -> dict[str, Any] | None:
        """Return the parameters that were required, as they came; nothing where none were."""
        if not self.required or self.start is None:
            return None
        names = [wanted.partition("=")[0] for wanted in self.required]
        return {name: self.start.parameters.get(name) for name in names}

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
                self._feed_message(record.message, end)
            case RejectedRecord():
                self._feed_rejected(record, end)
            case EndRecord():
                self.end = record
            case DroppedRecord():
                self.track(record.track).add_not_kept(record)
            case PauseRecord():
                self._end_pause(record.arrival_ms, PauseEnd.RENEWED)
                self.pauses.append(ScannedPause(self._position(), record.arrival_ms, record.reason))
            case ResumeRecord():
                self._end_pause(record.arrival_ms, record.end)
            case NoteRecord():
                self._feed_note(record)
        arrival_ms = getattr(record, "arrival_ms", 0)
        self.last_arrival_ms = max(self.last_arrival_ms, arrival_ms)

    def _end_pause(self, arrival_ms: int, end: PauseEnd) -> None:
        """End the pause that lasts, if there is one."""
        if self.pauses and self.pauses[-1].end is None:
            self.pauses[-1].ended_ms, self.pauses[-1].end = arrival_ms, end

    def _feed_note(self, note: NoteRecord) -> None:
        """Add what a note is about; one of no known code is a finding."""
        match note.code:
            case journal.CLAIMED_CALL:
                self.token_call = note.detail
            case journal.REPEATED_IDS:
                self.repeated_ids = _decoded(note.detail, tuple[str, str, str]) or ("", "", "")
            case journal.REQUIRED_PARAMETERS:
                self.required = self.lacking = _decoded(note.detail, tuple[str, ...]) or ()
            case journal.PREVIOUS_PART:
                self.previous = _decoded(note.detail, PreviousPart)
            case _:
                self.notes.append(Finding(note.code, note.detail))

    def _feed_rejected(self, record: RejectedRecord, end: int) -> None:
        self.rejected[record.code] += 1
        if record.audio:
            label = record.label or (record.chunk.track.value if record.chunk else "")
            self._keep_aside((record.code, label), record, end)
        if record.chunk is not None and record.code != OTHER_STREAM:
            track, number, stamp = record.chunk.track, record.chunk.chunk, record.chunk.timestamp_ms
            row = DroppedRecord(GapKind.REJECTED, track, 1, number, number, stamp, stamp)
            self.track(track).add_not_kept(row)
            self.messages.add(record.chunk.sequence_number, end)
        else:
            self.messages.unnumbered += 1

    def _keep_aside(self, kind: tuple[str, str], record: RejectedRecord, end: int) -> None:
        """Add audio that was refused; of what has too many names, all that is left is one."""
        if kind not in self.kept_aside and len(self.kept_aside) >= _MOST_LABELS:
            kind = (record.code, "")
        kept = self.kept_aside.get(kind)
        if kept is None:
            kept = self.kept_aside[kind] = KeptAudio(record.arrival_ms)
        kept.add(record.arrival_ms, end, len(record.audio))

    def _feed_chunk(self, record: ChunkRecord, end: int) -> None:
        index = self.tracks.get(record.track) or self.track(record.track)
        if self._latest is None:
            self.first_chunk_ms = record.arrival_ms
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

    def _feed_message(self, message: bytes, end: int) -> None:
        try:
            parsed = parse.parse(message)
        except MessageRejected as rejected:
            self.rejected[rejected.code] += 1
            self.messages.unnumbered += 1
            return
        self.messages.add(getattr(parsed, "sequence_number", None), end)
        if isinstance(parsed, Start):
            self.calls.add(parsed.call_sid)
            self.lacking = lacking(self.lacking, parsed.parameters)
        match parsed:
            case Start():
                self._feed_start(parsed)
            case DtmfMessage() | MarkMessage():
                self.events.append((self._position(), self._affordable(parsed)))
            case Unknown(event=event):
                is_foreign = event != OMITTED
                self.unknown_events += is_foreign
                self.messages.unnumbered += is_foreign and parsed.sequence_number is None

    def _affordable(self, event: DtmfMessage | MarkMessage) -> DtmfMessage | MarkMessage:
        """Return a key or mark, with a short name once all names are more than memory is for."""
        name = event.digit if isinstance(event, DtmfMessage) else event.name
        self._event_text += len(name)
        if self._event_text <= _MOST_EVENT_TEXT or len(name) <= _SHORT_NAME:
            return event
        field_name = "digit" if isinstance(event, DtmfMessage) else "name"
        return msgspec.structs.replace(event, **{field_name: name[:_SHORT_NAME]})

    def _chunks(self) -> int:
        return sum(map(len, self.tracks.values()))

    def _feed_start(self, start: Start) -> None:
        """Add the first start message of a stream; later ones are only counted.

        One that names another format before any audio came corrects the one before it.
        """
        for known, chunks in self.starts:
            if known.is_of(start):
                if known is self.start and chunks == self._chunks() and not start.goes_on(known):
                    self.start, self.starts[-1] = start, (start, chunks)
                    return
                self.restated += known.parameters != start.parameters
                self.reformatted += not start.goes_on(known)
                return
        if len(self.starts) < _MOST_STARTS:
            self.starts.append((start, self._chunks()))
            self.start = start

    def finalize(self) -> None:
        """Name a recording that holds several streams after the one with most of the audio.

        Today each gets a journal of its own; older ones may hold stragglers of another stream.
        """
        self.messages.ended_ms = self.last_arrival_ms
        ended = PauseEnd.STREAM_ENDED if self.end else PauseEnd.CRASH
        self._end_pause(self.last_arrival_ms, ended)
        self.messages.incomplete = any(note.code == "messages_not_kept" for note in self.notes)
        if len(self.starts) > 1:
            self.start = self._start_with_most_audio()
        if self.start is not None:
            stream_sid, call_sid, account_sid = self.repeated_ids
            self.start = msgspec.structs.replace(
                self.start,
                stream_sid=self.start.stream_sid or stream_sid,
                call_sid=self.start.call_sid or call_sid,
                account_sid=self.start.account_sid or account_sid,
            )

    def _start_with_most_audio(self) -> Start:
        borders = [0, *(before for _, before in self.starts[1:]), self._chunks()]
        counts = [after - before for before, after in itertools.pairwise(borders)]
        return self.starts[counts.index(max(counts))][0]


def findings_of(scanned: JournalScan) -> list[Finding]:
    """Return what the journal as a whole has to report."""
    found = list(scanned.notes)
    if scanned.end is None:
        found.append(Finding("crashed", "the receiver ended without closing the journal"))
    elif scanned.end.reason in _CUT_SHORT:
        text = scanned.end.detail or _CUT_SHORT[scanned.end.reason]
        found.append(Finding("cut_short", text))
    elif scanned.end.detail:
        found.append(Finding("connection_lost", scanned.end.detail))
    if scanned.damage:
        found.append(Finding("journal_damaged", scanned.damage))
    if scanned.start is None:
        found.append(Finding("start_missing", _NO_START))
    else:
        found += scanned.start.findings
    if len(scanned.starts) > 1:
        text = f"start messages of {len(scanned.starts)} streams; the one with most audio counts"
        found.append(Finding("streams_mixed", text))
    if scanned.restated:
        text = "later start messages had other parameters; the first counts"
        found.append(Finding("start_restated", text))
    if scanned.reformatted:
        text = "later start messages named another format; the first one's is that of all audio"
        found.append(Finding("format_restated", text))
    if scanned.unknown_events:
        found.append(Finding("unknown_events", f"{scanned.unknown_events} times; ignored"))
    found += [
        Finding("messages_rejected", f"{count} times {code}")
        for code, count in sorted(scanned.rejected.items())
    ]
    return found


def joint(scanned: JournalScan) -> Joint | None:
    """Return how a recording goes on where the one before it ended, if it does.

    All counters are higher then, and the sender's clock says what lies between. Where they are
    not, it is another stream that has the same ids, unless it came on the same socket.
    """
    previous = scanned.previous
    present = {track: index for track, index in scanned.tracks.items() if len(index)}
    if previous is None or not present:
        return None
    ends = [end.end_ms for end in previous.tracks.values() if end.end_ms is not None]
    stamps = [
        stamp for index in present.values() if (stamp := _earliest(index.timestamp)) is not None
    ]
    shared = {track: previous.tracks[track] for track in present if track in previous.tracks}
    goes_on = all(_is_behind(present[track], end) for track, end in shared.items())
    if ends and stamps and goes_on and (shared or min(stamps) >= max(ends)):
        first, latest = min(stamps), max(ends)
        follow = [
            end.number is not None and _earliest(present[track].number) == end.number + 1
            for track, end in shared.items()
        ]
        origin_ms = continued_origin_ms(first, latest)
        return Joint(max(0, first - latest), origin_ms, is_pause=bool(follow) and all(follow))
    if previous.same_socket or (goes_on and shared and not stamps):
        came_ms = scanned.header.started_at_ms + scanned.first_chunk_ms - previous.latest_at_ms
        return Joint(max(0, came_ms))
    return None


def audio_aside(scanned: JournalScan) -> dict[tuple[str, str], KeptAudio]:
    """Return the audio that has no place in a track, by why that is and by what it is of."""
    found = dict(scanned.kept_aside)
    if scanned.refused_format:
        for track, index in scanned.tracks.items():
            if len(index):
                first, last = int(index.arrival[0]), int(index.arrival[-1])
                places = array("q", index.end.tobytes()), array("i", index.size.tobytes())
                found[FORMAT_REFUSED, track.value] = KeptAudio(first, last, *places)
    return found


def scan_file(file: FileIO) -> JournalScan:
    """Return what the journal in `file` holds, which is read from its start, once.

    Raises:
        UnprovenError: nothing of it may be kept: see `JournalScan.unproven`.
        JournalError: it does not start with a header that this version can read.
    """
    file.seek(0)
    scanned = scan(blocks_of(file))
    if text := scanned.unproven:
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
