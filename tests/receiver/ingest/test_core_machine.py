"""The whole pure core as one machine: sockets talk in any order, and nothing goes astray.

Messages become events (`messages`, `stream`), events become journals (`journal`), journals
become time lines and documents (`journal_scan`, `ordering`, `timeline`, `report`), all in memory.
Every payload names its socket, its recording's turn and its own number, so whatever ends up in
the wrong place is seen.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from receiver.errors import JournalError
from receiver.ingest.stream import (
    ChunkReceived,
    MessageReceived,
    ProtocolEvent,
    RecordingEnded,
    RecordingOpened,
    Stream,
)
from receiver.journal import records as journal
from receiver.journal.records import EndRecord, Header, MessageRecord, Reader, RejectedRecord
from receiver.media import Chunk, EndReason, MediaFormat, Track
from receiver.recording import document
from receiver.recording.document import RecordedTrack
from receiver.recording.journal_scan import JournalScan, scan
from receiver.recording.report import Rendered, report
from receiver.timeline import track_timeline
from receiver.timeline.track_timeline import Placement
from receiver.wire import parse
from receiver.wire.messages import Message, MessageRejected, ProtocolViolation, Start
from tests.bounds import examples
from tests.receiver.helpers.journals import STARTED_AT_MS

SOCKETS = 3
FORMATS = [None, ("audio/x-mulaw", 8000), ("audio/x-L16", 16000), ("PCMA", 8000)]

counters = st.none() | st.integers(-(2**54), 2**54) | st.sampled_from(["7", "x", "", 1.5, [], "٣"])
junk = st.binary(max_size=60) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["event", "media", "start", "track", "payload", "chunk", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))


@dataclass
class Book:
    """One recording as the machine expects it, and the journal that was written of it."""

    id: str
    records: list[bytes] = field(default_factory=list)
    payloads: dict[Track, list[bytes]] = field(default_factory=lambda: {t: [] for t in Track})
    rejected: int = 0
    sids: list[str] = field(default_factory=list)
    end: EndReason = EndReason.CRASH

    @property
    def bytes(self) -> bytes:
        """Return the journal."""
        return b"".join(self.records)


@dataclass
class Socket:
    """One connection: its protocol state and the recording that is open on it."""

    number: int
    stream: Stream = field(default_factory=Stream)
    book: Book | None = None
    connected_message: bytes = b""
    start: bytes = b""


def pieces(journal_bytes: bytes, size: int) -> Iterator[bytes]:
    """Yield a journal as a file gives it, in blocks."""
    for offset in range(0, len(journal_bytes), size):
        yield journal_bytes[offset : offset + size]


def read(journal_bytes: bytes, block: int = 97) -> tuple[list[journal.Record], str | None]:
    """Return a journal's records, and what is wrong with it."""
    reader = Reader(pieces(journal_bytes, block))
    return [record for _, record in reader], reader.damage


def drawn(scanned: JournalScan, placement: Placement, source: bytes, track: Track) -> bytes:
    """Return a track's line of payload bytes; what nothing covers is zero."""
    index, line = scanned.tracks[track], bytearray(placement.length)
    covered = 0
    for run in placement.runs:
        position = run.start
        assert position >= covered, "two chunks in one place"
        for chosen in placement.order.chosen[run.first : run.last]:
            end, size = int(index.end[chosen]), int(index.size[chosen])
            line[position : position + size] = source[end - size : end]
            position += size
        covered = position
    assert covered <= placement.length
    return bytes(line)


def rendered(source: bytes) -> bytes:
    """Return the document of a journal, with the hash of each track's line."""
    scanned = scan(pieces(source, 1000))
    media = scanned.media_format
    placed = {
        track: track_timeline.place(index, media)
        for track, index in scanned.tracks.items()
        if len(index)
    }
    length = max((placement.length for placement in placed.values()), default=0)
    tracks = tuple(
        _recorded(scanned, placement, track, source, length) for track, placement in placed.items()
    )
    made = Rendered(tuple(placed.values()), tracks, length)
    positions = [position for position, _ in scanned.events]
    at_ms = track_timeline.at_ms(positions, scanned.tracks, made.placements, media)
    assert all(0 <= at <= length // media.bytes_per_ms for at in at_ms)
    return document.encode(report(scanned, replace(made, events_at_ms=at_ms)))


def _recorded(
    scanned: JournalScan, placement: Placement, track: Track, source: bytes, length: int
) -> RecordedTrack:
    media = scanned.media_format
    gaps = track_timeline.gaps_in_ms(placement, length, media)
    return RecordedTrack(
        track=track,
        file=f"{track}.wav",
        samples=length // media.bytes_per_sample,
        duration_ms=track_timeline.milliseconds(length, media),
        sha256=hashlib.sha256(drawn(scanned, placement, source, track)).hexdigest(),
        chunks=placement.ledger,
        silence_ms=sum(gap.duration_ms for gap in gaps),
        gaps=gaps,
        first_timestamp_ms=placement.first_timestamp_ms,
        drift_ppm=placement.drift_ppm,
    )


class Core(RuleBasedStateMachine):
    """Sockets that say anything, and the books of what they have said."""

    def __init__(self) -> None:
        super().__init__()
        self.sockets = [Socket(number) for number in range(SOCKETS)]
        self.books: list[Book] = []
        self.clock_ms = 0
        self.said = 0

    # What sockets do.

    @rule(socket=st.integers(0, SOCKETS - 1), sid=st.integers(0, 2), form=st.sampled_from(FORMATS))
    def starts(self, socket: int, sid: int, form: tuple[str, int] | None) -> None:
        body: dict[str, Any] = {"streamSid": f"{socket}-{sid}", "callSid": "c", "tracks": []}
        if form is not None:
            body["mediaFormat"] = {"encoding": form[0], "sampleRate": form[1], "channels": 1}
        self.receive(socket, json.dumps({"event": "start", "start": body}).encode())

    @rule(
        socket=st.integers(0, SOCKETS - 1),
        track=st.sampled_from(Track),
        count=st.integers(1, 6),
        skipped=st.integers(0, 3),
        size=st.sampled_from([1, 20, 160, 161]),
    )
    def talks(self, socket: int, track: Track, count: int, skipped: int, size: int) -> None:
        """Chunks as providers count them, after some that were lost."""
        book = self.sockets[socket].book
        first = 1 + skipped + (len(book.payloads[track]) if book else 0)
        for number in range(first, first + count):
            self.media(socket, track, size, chunk=number, timestamp=str(20 * number), sequence=None)
            self.clock_ms += 20

    @rule(
        socket=st.integers(0, SOCKETS - 1),
        track=st.sampled_from(Track),
        chunk=counters | st.integers(0, 20),
        timestamp=counters | st.integers(0, 400),
        sequence=counters,
    )
    def mumbles(
        self, socket: int, track: Track, chunk: object, timestamp: object, sequence: object
    ) -> None:
        """A chunk with any counters."""
        self.media(socket, track, 40, chunk=chunk, timestamp=timestamp, sequence=sequence)

    @rule(
        socket=st.integers(0, SOCKETS - 1),
        event=st.sampled_from(["connected", "dtmf", "mark", "stop", "later", "media"]),
    )
    def mentions(self, socket: int, event: str) -> None:
        """Everything else that providers say, and media without a payload."""
        body = {"digit": "5", "name": "m", "track": "inbound", "protocol": "Call", "chunk": 1}
        self.receive(socket, json.dumps({"event": event, event: body}).encode())

    @rule(socket=st.integers(0, SOCKETS - 1), message=junk)
    def raves(self, socket: int, message: bytes) -> None:
        """Any bytes at all."""
        self.receive(socket, message)

    @rule(
        socket=st.integers(0, SOCKETS - 1),
        reason=st.sampled_from([EndReason.CLOSED, EndReason.IDLE, EndReason.SHUTDOWN]),
    )
    def goes(self, socket: int, reason: EndReason) -> None:
        """The socket is gone, and another one takes its number."""
        place = self.sockets[socket]
        for event in place.stream.closed(reason):
            self.apply(place, event, b"")
        assert () == place.stream.closed(reason)
        assert place.book is None
        self.sockets[socket] = Socket(socket)

    @rule(ms=st.integers(0, 200_000))
    def waits(self, ms: int) -> None:
        """Time passes."""
        self.clock_ms += ms

    # What the receiver does, as `session` does it.

    def media(self, socket: int, track: Track, size: int, **fields: object) -> None:
        """Send a payload that names the socket and is unlike any other."""
        self.said += 1
        payload = (b"<%d:%06d>" % (socket, self.said) * 20)[:size].ljust(size, b"x")
        body = {"track": track.value, "payload": b64encode(payload).decode(), **fields}
        sequence = body.pop("sequence")
        message = {"event": "media", "sequenceNumber": sequence, "media": body}
        self.receive(socket, json.dumps(message).encode(), payload)

    def receive(self, socket: int, message: bytes, payload: bytes | None = None) -> None:
        """Receive one message as a session does; nothing but the two refusals may come of it."""
        place = self.sockets[socket]
        try:
            parsed = parse.parse(message)
        except MessageRejected as rejected:
            if place.book is not None:
                record = RejectedRecord(self.clock_ms, rejected.code, rejected.chunk)
                place.book.records.append(journal.encode(record))
                place.book.rejected += rejected.chunk is not None
            return
        except ProtocolViolation:
            self.goes(socket, EndReason.CLOSED)
            return
        if isinstance(parsed, Chunk) and payload is not None:
            assert payload == parsed.payload
        if isinstance(parsed, Start):
            place.start = message
        for event in place.stream.receive(parsed):
            self.apply(place, event, message)

    def apply(self, place: Socket, event: ProtocolEvent, message: bytes) -> None:
        """Write down what the stream says."""
        if isinstance(event, RecordingOpened):
            assert place.book is None
            place.book = self.opened(place, event)
        book = place.book
        assert book is not None, "something was said of no recording"
        if isinstance(event, ChunkReceived):
            book.payloads[event.chunk.track].append(event.chunk.payload)
            book.records.append(journal.encode_chunk(event.chunk, self.clock_ms))
        elif isinstance(event, MessageReceived):
            book.records.append(journal.encode(MessageRecord(self.clock_ms, message)))
        elif isinstance(event, RecordingEnded):
            book.records.append(journal.encode(EndRecord(self.clock_ms, event.reason, "")))
            book.end = event.reason
            place.book = None

    def opened(self, place: Socket, event: RecordingOpened) -> Book:
        """Begin a journal."""
        book = Book(f"{len(self.books):016x}")
        self.books.append(book)
        header = Header(book.id, STARTED_AT_MS, journal.VERSION, "0.1.0")
        book.records.append(journal.encode(header))
        if event.followed is not None:
            book.records.append(journal.encode(MessageRecord(self.clock_ms, place.start)))
        return book

    # What must be true at any time, also of recordings that are still open.

    @invariant()
    def every_socket_has_at_most_one_open_recording(self) -> None:
        """Whatever is open is open on one socket."""
        open_books = [id(socket.book) for socket in self.sockets if socket.book is not None]
        assert len(open_books) == len(set(open_books))

    @precondition(lambda self: self.books)
    @rule(choice=st.randoms(use_true_random=False))
    def a_recording_is_what_was_said(self, choice: Any) -> None:
        """Check one book: nothing is missing, foreign, overlapping or unaccounted for."""
        self.check(choice.choice(self.books))

    @precondition(lambda self: self.books)
    @rule(
        choice=st.randoms(use_true_random=False), share=st.floats(0, 1), block=st.integers(1, 500)
    )
    def a_cut_journal_is_a_prefix(self, choice: Any, share: float, block: int) -> None:
        """Wherever a crash ends the file, what came before is there and undamaged."""
        book = choice.choice(self.books)
        cut = round(share * len(book.bytes))
        records, damage = read(book.bytes[:cut], block)
        whole, _ = read(book.bytes)
        assert whole[: len(records)] == records
        assert damage is None
        complete = sum(sum(map(len, book.records[: n + 1])) <= cut for n in range(len(whole)))
        assert complete == len(records)
        if records:
            assert rendered(book.bytes[:cut])

    @precondition(lambda self: self.books)
    @rule(choice=st.randoms(use_true_random=False), share=st.floats(0, 1), bit=st.integers(0, 7))
    def a_spoilt_journal_is_a_prefix(self, choice: Any, share: float, bit: int) -> None:
        """A flipped bit never makes other records, is reported, and raises nothing.

        In the last record it cannot be told from a write that a power cut tore.
        """
        book = choice.choice(self.books)
        spoilt = bytearray(book.bytes)
        place = min(len(spoilt) - 1, round(share * len(spoilt)))
        spoilt[place] ^= 1 << bit
        whole, _ = read(book.bytes)
        records, damage = read(bytes(spoilt))
        assert whole[: len(records)] == records
        assert len(records) < len(whole)
        assert damage or place >= len(book.bytes) - len(book.records[-1])
        if records:
            assert rendered(bytes(spoilt))

    def check(self, book: Book) -> None:
        """Hold one journal to its book."""
        scanned = scan(pieces(book.bytes, 333))
        assert (None, len(book.bytes)) == (scanned.damage, scanned.trusted_bytes)
        assert (book.id, book.end) == (scanned.header.recording_id, scanned.end_reason)
        assert book.rejected == sum(index.rejected for index in scanned.tracks.values())
        for track, index in scanned.tracks.items():
            assert len(book.payloads[track]) == len(index)
            if len(index):
                self.check_track(book, scanned, track)
        assert rendered(book.bytes) == rendered(book.bytes)

    def check_track(self, book: Book, scanned: JournalScan, track: Track) -> None:
        """Hold one track's time line to what was said on it."""
        index, media = scanned.tracks[track], scanned.media_format
        placement = track_timeline.place(index, media)
        ledger, said = placement.ledger, book.payloads[track]
        assert ledger.balanced
        assert len(said) + index.rejected == ledger.received
        line = drawn(scanned, placement, book.bytes, track)
        written = [said[int(chosen)] for chosen in placement.order.chosen]
        assert len(set(map(int, placement.order.chosen))) == len(written) == ledger.written
        missing = sum(gap.stop - gap.start for gap in placement.gaps)
        # Half a sample at the end of a run is silenced with the gap behind it, and gaps that
        # then touch are one.
        slack = len(list(placement.runs)) * (media.bytes_per_sample - 1)
        assert abs(len(line) - missing - sum(map(len, written))) <= slack
        assert all(payload in line for payload in written if media == MediaFormat())

    def teardown(self) -> None:
        """Close everything and look at every book once more."""
        for socket in range(SOCKETS):
            self.goes(socket, EndReason.SHUTDOWN)
        for book in self.books:
            assert book.end is not EndReason.CRASH
            self.check(book)
            self.check_streams_are_apart(book)

    def check_streams_are_apart(self, book: Book) -> None:
        """No byte of one socket is in a recording of another, nor of one recording in two."""
        payloads = [
            payload for row in book.payloads.values() for payload in row if len(payload) > 8
        ]
        assert len({payload[:3] for payload in payloads}) <= 1
        others = [other.bytes for other in self.books if other is not book]
        assert not any(payload in other for payload in payloads for other in others)


Core.TestCase.settings = settings(max_examples=examples(40), stateful_step_count=40, deadline=None)
TestCore = pytest.mark.timeout(180)(Core.TestCase)


@given(junk)
def test_any_bytes_are_a_message_or_refused(message: bytes) -> None:
    """Parsing ends in a message, a rejected message or a protocol violation."""
    try:
        parsed = parse.parse(message)
    except (MessageRejected, ProtocolViolation):
        return
    assert isinstance(parsed, Message)


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_file_is_a_journal_or_refused(content: bytes, block: int) -> None:
    """Reading ends in a survey or in one kind of error, whatever the file holds."""
    header = journal.encode(Header("a", 0, journal.VERSION, "0.1.0"))
    records, _ = read(content, block)
    if not records:
        with pytest.raises(JournalError):
            scan([content])
    scanned = scan([header + content])
    assert len(header) <= scanned.trusted_bytes <= len(header) + len(content)
