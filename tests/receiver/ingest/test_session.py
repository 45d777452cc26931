"""One connection's life: messages in, records of a journal out; real spool, real files."""

from __future__ import annotations

import base64
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from receiver.auth.bearer import Grant
from receiver.counters import Counters
from receiver.ingest import live_recording, recordings, session, stream
from receiver.ingest.recorder import Recorder
from receiver.ingest.session import Session
from receiver.journal import records as journal
from receiver.journal.records import (
    ChunkRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    PartEnd,
    PreviousPart,
    Reader,
    Record,
    RejectedRecord,
)
from receiver.journal.spool import Spool
from receiver.media import Encoding, EndReason, Finding, GapKind, MediaFormat, Track, TrackGap
from receiver.recording.document import Recording, RefusedPart
from receiver.recording.journal_scan import findings_of, scan
from receiver.recording.verify import verify
from receiver.tap.hub import (
    LifecycleEvent,
    StreamEvent,
    StreamPosition,
    StreamStarted,
    Subscribed,
)
from receiver.tap.local_hub import LocalHub
from tests.bounds import at_most
from tests.receiver.helpers.journals import STARTED_AT_MS, render, start_message
from tests.receiver.helpers.taps import ManualScheduler

WAIT_SECONDS = at_most(20)
MEDIA = (
    b'{"event":"media","media":{"track":"inbound","chunk":"1","timestamp":"0","payload":"//8="}}'
)
STOP = b'{"event":"stop","sequenceNumber":"9"}'
CLOSINGS = (
    (1000, True, EndReason.CLOSED),
    (1009, True, EndReason.CLOSED),
    (1006, False, EndReason.CLOSED),
    (1008, False, EndReason.PROTOCOL_ERROR),
    (1009, False, EndReason.PROTOCOL_ERROR),
)
CALL_SID = "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff"


class MovedRecorder(Recorder):
    """A recorder with a real spool and a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self.seconds = 100.0
        self.ended: queue.Queue[Path] = queue.Queue()
        hub = LocalHub(ManualScheduler())
        super().__init__(
            self.spool, hub, Counters(), journal_ended=self.ended.put, now=lambda: self.seconds
        )

    def utc_ms(self) -> int:
        return STARTED_AT_MS + round(1000 * (self.seconds - 100))

    def journal(self) -> list[Record]:
        """Return the records of the next journal that ends."""
        path = self.ended.get(timeout=WAIT_SECONDS)
        return [record for _, record in Reader([path.read_bytes()])]


class Socket:
    """A connection that remembers how it was closed."""

    remote_address = "192.0.2.7"

    def __init__(self) -> None:
        self.closings: list[tuple[int, str]] = []

    def close(self, code: int, reason: str) -> None:
        self.closings.append((code, reason))

    def abort(self) -> None:
        self.closings.append((1006, ""))

    def send(self, message: bytes | str) -> None:
        raise AssertionError("a stream's socket never gets a message")

    def unanswered_seconds(self, passed: float) -> float:
        return 7.0


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[MovedRecorder]:
    """A spool in an empty folder."""
    made = MovedRecorder(tmp_path / "spool")
    yield made
    made.spool.close()


def opened(recorder: MovedRecorder, grant: Grant | None = None) -> tuple[Session, Socket]:
    """Return a session on an open socket."""
    made, socket = Session(recorder, grant or Grant(), remote_address="192.0.2.7"), Socket()
    made.opened(socket)  # type: ignore[arg-type]  # it has what a session uses
    return made, socket


def test_only_a_recording_lives_as_long_as_its_socket(recorder: MovedRecorder) -> None:
    """A socket on which no call has begun, or none goes on, is no call on hold."""
    made, _ = opened(recorder)
    assert [40.0, 80.0] == [made.unanswered_seconds(40.0) for _ in range(2)]
    made.message_received(start_message())
    assert 7.0 == made.unanswered_seconds(40.0)
    made.message_received(STOP)
    assert 40.0 == made.unanswered_seconds(40.0)


def test_a_call_becomes_a_journal_with_everything_in_order(recorder: MovedRecorder) -> None:
    """Header, connected, start, chunk with its arrival time, stop, end."""
    made, socket = opened(recorder)
    hello = b'{"event":"connected","protocol":"Call","version":"0.2.0"}'
    for message in (hello, start_message(), MEDIA):
        recorder.seconds += 0.5
        made.message_received(message)
    made.message_received(STOP)
    header, *rest = recorder.journal()
    assert isinstance(header, Header)
    assert (STARTED_AT_MS + 1000, journal.VERSION) == (header.started_at_ms, header.version)
    assert [
        MessageRecord(0, hello),
        MessageRecord(0, start_message()),
        ChunkRecord("inbound", None, 1, 0, 500, b"\xff\xff"),  # type: ignore[arg-type]
        MessageRecord(500, STOP),
        EndRecord(500, EndReason.STOP, ""),
    ] == rest
    assert [] == socket.closings


def test_an_open_session_is_known_until_its_socket_is_gone(recorder: MovedRecorder) -> None:
    """The recorder has every live session, and no other."""
    made, _ = opened(recorder)
    assert {made} == recorder.sessions
    made.closed(code=1000, clean=True)
    made.closed(code=1000, clean=True)
    assert set() == recorder.sessions


@pytest.mark.parametrize(("clean", "detail"), [(True, ""), (False, "broke")])
def test_closing_without_stop_says_how_the_socket_went(
    recorder: MovedRecorder, clean: bool, detail: str
) -> None:
    """A broken connection ends otherwise than one that was closed."""
    made, _ = opened(recorder)
    made.message_received(start_message())
    made.closed(code=1000 if clean else 1006, clean=clean)
    end = recorder.journal()[-1]
    assert isinstance(end, EndRecord)
    assert end.reason is EndReason.CLOSED
    assert detail in end.detail
    assert bool(detail) == bool(end.detail)


def test_a_signed_token_for_another_call_keeps_nothing(recorder: MovedRecorder) -> None:
    """Audio that came before start goes too, and the socket closes with 1008."""
    made, socket = opened(recorder, Grant(call_sid="of another call"))
    made.message_received(MEDIA)
    made.message_received(start_message())
    made.closed(code=1008, clean=True)
    assert [(1008, "the token is for another call")] == socket.closings
    assert (1, {"protocol_error": 1}) == (recorder.counters.started, recorder.counters.ended)
    recorder.spool.close()
    assert [] == list(recorder.spool.folder.glob("*.journal"))
    assert recorder.ended.empty()


def test_what_came_for_the_tokens_call_is_kept_when_another_is_named(
    recorder: MovedRecorder,
) -> None:
    """A later start message for another call is refused, and ends a recording that is proven."""
    made, socket = opened(recorder, Grant(call_sid=CALL_SID))
    for message in (start_message(), MEDIA, other_start(), media(2, 1)):
        made.message_received(message)
    made.closed(code=1008, clean=True)
    text = "the token is for another call"
    assert [(1008, text)] == socket.closings
    *_, chunk, end = recorder.journal()
    assert isinstance(chunk, ChunkRecord)
    assert EndRecord(0, EndReason.PROTOCOL_ERROR, text) == end
    assert recorder.ended.empty()


def test_a_stream_that_starts_with_audio_is_logged(recorder: MovedRecorder) -> None:
    """One line when it starts, one when it has a name, one when it ends."""
    made, _ = opened(recorder)
    with capture_logs() as lines:
        for message in (MEDIA, start_message(), STOP):
            made.message_received(message)
    logged = [(line["event"], line["call_sid"]) for line in lines]
    expected = [("audio_before_start", None), ("stream_started", CALL_SID)]
    assert [*expected, ("stream_ended", CALL_SID)] == logged


def test_a_signed_token_for_this_call_records(recorder: MovedRecorder) -> None:
    """The call that the token names is recorded as any other."""
    made, _ = opened(recorder, Grant(call_sid=CALL_SID))
    made.message_received(start_message())
    made.message_received(STOP)
    assert EndRecord(0, EndReason.STOP, "") == recorder.journal()[-1]


def test_media_after_stop_keeps_the_name_of_its_stream(recorder: MovedRecorder) -> None:
    """Late audio opens another journal that starts with the same start message."""
    made, _ = opened(recorder)
    late = MEDIA.replace(b'"1"', b'"2"').replace(b'"0"', b'"20"')
    for message in (start_message(), MEDIA, STOP, late):
        made.message_received(message)
    made.closed(code=1000, clean=True)
    both = [recorder.journal(), recorder.journal()]
    audio = [records for records in both if not any(r == MessageRecord(0, STOP) for r in records)]
    assert 1 == len(audio)
    assert MessageRecord(0, start_message()) == audio[0][1]
    note = audio[0][2]
    assert isinstance(note, NoteRecord)
    ended = msgspec.json.decode(note.detail, type=PreviousPart)
    assert ("previous_part", EndReason.STOP) == (note.code, ended.reason)
    assert {Track.INBOUND: PartEnd(1, 0, 0)} == ended.tracks
    assert isinstance(audio[0][3], ChunkRecord)


@pytest.mark.parametrize("first", [0, 1])
def test_media_after_stop_misses_what_the_recording_before_it_has(
    recorder: MovedRecorder, tmp_path: Path, first: int
) -> None:
    """Only what neither of them has is lost."""
    chunks = [chunk_of(n + first, 20 * n) for n in range(53) if n not in (50, 51)]
    document = rendered_behind_stop(recorder, tmp_path, chunks[:50], chunks[50:])
    assert [TrackGap(0, 40, GapKind.LOST)] == list(document.tracks[0].gaps)
    assert (60, 40) == (document.duration_ms, document.previous and document.previous.gap_ms)
    lost = [finding for finding in document.findings if finding.track is Track.INBOUND]
    assert [Finding("audio_lost", "40 ms in 1 gaps", Track.INBOUND)] == lost


def test_a_late_chunk_after_stop_is_followed_by_nothing(
    recorder: MovedRecorder, tmp_path: Path
) -> None:
    """What came after it is in the recording before, and no silence here."""
    sid = json.loads(start_message())["start"]["streamSid"]
    chunks = [chunk_of(n + 1, 20 * n, sid) for n in range(50)]
    late = chunks.pop(30)
    document = rendered_behind_stop(recorder, tmp_path, chunks, [late])
    assert 31 * 20 == document.duration_ms
    assert document.complete


def rendered_behind_stop(
    recorder: MovedRecorder, folder: Path, before: list[bytes], after: list[bytes]
) -> Recording:
    """Return the recording of what comes after a stop message."""
    made, _ = opened(recorder)
    for message in (start_message(), *before, STOP, *after):
        made.message_received(message)
    made.closed(code=1000, clean=True)
    paths = [recorder.ended.get(timeout=WAIT_SECONDS) for _ in range(2)]
    (path,) = (path for path in paths if STOP not in path.read_bytes())
    (folder / "out").mkdir()
    return render(path, folder / "out")


def chunk_of(number: int, at_ms: int, stream_sid: str | None = None) -> bytes:
    """Return a chunk of 20 ms."""
    body = {"track": "inbound", "chunk": number, "timestamp": at_ms}
    body["payload"] = base64.b64encode(bytes(160)).decode()
    return json.dumps({"event": "media", "media": body, "streamSid": stream_sid}).encode()


def journals(recorder: MovedRecorder) -> list[list[Record]]:
    """Return the records of all journals that have ended, as they were opened."""
    return sorted((recorder.journal() for _ in range(recorder.counters.started)), key=_opened_as)


def _opened_as(records: list[Record]) -> int:
    seen = [r.payload for r in records if isinstance(r, ChunkRecord)]
    return int(seen[0].hex(), 16) if seen else -1


def media(number: int, order: int, stream_sid: str = "") -> bytes:
    """Return a chunk whose payload is its place in the order of messages."""
    body = {"track": "inbound", "chunk": number, "timestamp": 20 * number - 20}
    body["payload"] = base64.b64encode(order.to_bytes(4)).decode()
    message = {"event": "media", "media": body, "sequenceNumber": number + 1}
    return json.dumps(message | ({"streamSid": stream_sid} if stream_sid else {})).encode()


def other_start() -> bytes:
    """Return the start message of another stream, in another format."""
    message = json.loads(start_message(encoding="audio/x-L16", sample_rate=16000, who="B"))
    message["start"] |= {"streamSid": "B", "callSid": "call B"}
    return json.dumps(message).encode()


def test_audio_of_the_next_stream_is_never_the_last_ones(recorder: MovedRecorder) -> None:
    """A straggler, then audio before its start: three recordings, each with its own name."""
    made, _ = opened(recorder)
    messages = [
        media(1, 0),
        media(2, 1),
        STOP,
        media(3, 2),
        media(1, 3),
        other_start(),
        media(2, 4),
    ]
    started: list[tuple[str, MediaFormat]] = []

    def on_event(event: LifecycleEvent) -> None:
        if isinstance(event, StreamStarted):
            started.append((event.live.call_sid, event.live.media_format))

    recorder.hub.watch(on_event)
    with capture_logs() as lines:
        for message in (start_message(), *messages, STOP):
            made.message_received(message)
    found = [scan([b"".join(map(journal.encode, records))]) for records in journals(recorder)]
    rows = [
        (row.start.call_sid if row.start else "", row.end_reason, len(row.tracks[Track.INBOUND]))
        for row in found
    ]
    reasons = [EndReason.STOP, EndReason.REPLACED, EndReason.STOP]
    calls = [CALL_SID, CALL_SID, "call B"]
    assert list(zip(calls, reasons, [2, 1, 2], strict=True)) == rows
    assert {"who": "B"} == (found[2].start.parameters if found[2].start else None)
    assert [[], [], []] == [findings_of(row) for row in found]
    formats = [MediaFormat(), MediaFormat(), MediaFormat(Encoding.L16, 16000)]
    assert list(zip(calls, formats, strict=True)) == started
    assert calls == [line["call_sid"] for line in lines if line["event"] == "stream_ended"]


def position(recorder: MovedRecorder) -> StreamPosition:
    """Return the position of the only live stream, as a new listener gets it."""
    (live,) = recorder.hub.streams()
    events: list[StreamEvent] = []
    recorder.hub.subscribe(live.recording_id, events.append)()
    assert isinstance(events[0], Subscribed)
    return events[0].position


def test_a_position_has_the_latest_chunk_of_each_track(
    recorder: MovedRecorder,
) -> None:
    """Of none where none has come, and of none of a stream before it."""
    made, _ = opened(recorder)
    made.message_received(start_message())
    assert (None, ()) == (position(recorder).latest, position(recorder).others)
    for message in (media(1, 0), media(2, 1), media(2, 2).replace(b"inbound", b"outbound")):
        made.message_received(message)
    standing = position(recorder)
    assert (Track.OUTBOUND, 2) == (standing.latest and standing.latest.track, standing.chunks - 1)
    assert [(Track.INBOUND, 2)] == [(chunk.track, chunk.chunk) for chunk in standing.others]
    for message in (STOP, other_start(), media(1, 3)):
        made.message_received(message)
    assert () == position(recorder).others
    made.closed(code=1000, clean=True)


@pytest.mark.parametrize("stamp", [60_001, 60_000, None])
def test_a_position_has_the_origin_of_stream_time(
    recorder: MovedRecorder, stamp: int | None
) -> None:
    """At the first timestamp, where that is over 60 s ahead of us; whether it has a name or not."""
    for order in ([0, 1, 2], [1, 0, 2]):
        made, _ = opened(recorder)
        first = json.loads(media(1, 0))
        first["media"]["timestamp"] = stamp
        messages = (start_message(), json.dumps(first).encode(), media(2, 1))
        for place in order:
            made.message_received(messages[place])
        assert (60_001 if stamp == 60_001 else 0) == position(recorder).origin_ms
        made.closed(code=1000, clean=True)


@pytest.mark.parametrize(
    ("numbers", "missing"),
    [([1, 2, 3], 0), ([1, 4], 2), ([2, 1, 3], 0), ([5, 7], 1), ([1, 1, 4], 1)],
)
def test_a_position_has_how_many_messages_are_missing(
    recorder: MovedRecorder, numbers: list[int], missing: int
) -> None:
    """By sequence numbers, from the first chunk on; what came twice hides as many."""
    made, _ = opened(recorder)
    made.message_received(start_message())
    assert None is position(recorder).missing
    for number in numbers:
        made.message_received(media(number, 0))
    assert missing == position(recorder).missing
    made.closed(code=1000, clean=True)


def test_messages_other_than_chunks_are_not_missing(recorder: MovedRecorder) -> None:
    """A key takes a number, a mark none, and what cannot be used took one."""
    made, _ = opened(recorder)
    key = b'{"event":"dtmf","sequenceNumber":"4","dtmf":{"digit":"5","duration":100}}'
    mark = b'{"event":"mark","mark":{"name":"here"}}'
    bad = media(4, 0).replace(b'"payload": "', b'"payload": "!')
    for message in (start_message(), media(1, 0), media(2, 0), key, mark, bad, media(5, 0)):
        made.message_received(message)
    assert 0 == position(recorder).missing
    made.message_received(media(9, 0))
    assert 3 == position(recorder).missing
    made.closed(code=1000, clean=True)


def test_where_nothing_is_numbered_nobody_knows_what_is_missing(recorder: MovedRecorder) -> None:
    """Some providers number nothing."""
    made, _ = opened(recorder)
    for message in (start_message(), MEDIA, MEDIA):
        made.message_received(message)
    assert None is position(recorder).missing
    made.closed(code=1000, clean=True)


def test_audio_without_a_name_after_a_stop_has_a_finding(recorder: MovedRecorder) -> None:
    """It has the name of the stream before, and a finding that it was assumed."""
    made, _ = opened(recorder)
    for message in (start_message(), media(1, 0), STOP, media(1, 1)):
        made.message_received(message)
    with capture_logs() as lines:
        made.closed(code=1000, clean=True)
    assert [CALL_SID] == [line["call_sid"] for line in lines if line["event"] == "stream_ended"]
    found = scan([b"".join(map(journal.encode, journals(recorder)[1]))])
    assert CALL_SID == (found.start.call_sid if found.start else "")
    assert ["start_assumed"] == [finding.code for finding in findings_of(found)]


def test_a_chunk_of_another_stream_is_rejected_and_never_too_many(recorder: MovedRecorder) -> None:
    """It is counted in the journal, takes no place on the time line, and ends nothing."""
    made, socket = opened(recorder)
    sid = json.loads(start_message())["start"]["streamSid"]
    made.message_received(start_message())
    made.message_received(media(1, 1, sid))
    for number in range(2 * stream.MOST_REJECTED):
        made.message_received(media(number, 2, "another"))
    made.message_received(STOP)
    found = scan([b"".join(map(journal.encode, recorder.journal()))])
    assert [] == socket.closings
    assert 1 == len(found.tracks[Track.INBOUND])
    assert 0 == found.tracks[Track.INBOUND].rejected
    text = f"{2 * stream.MOST_REJECTED} times other_stream"
    assert [Finding("messages_rejected", text)] == findings_of(found)


@pytest.mark.parametrize("count", [3, 200])
def test_unknown_events_before_start_are_counted(recorder: MovedRecorder, count: int) -> None:
    """As they are later; only so many are kept, and the rest is a number."""
    made, _ = opened(recorder)
    made.message_received(b'{"event":"connected"}')
    for _ in range(count - 1):
        made.message_received(b'{"event":"later"}')
    made.message_received(start_message())
    made.message_received(STOP)
    found = scan([b"".join(map(journal.encode, recorder.journal()))])
    kept = min(count, live_recording.MOST_EARLY)
    expected = [Finding("unknown_events", f"{kept - 1} times; ignored")]
    if count > kept:
        text = f"{count - kept} messages before the recording"
        expected.insert(0, Finding("messages_not_kept", text))
    assert expected == findings_of(found)


def test_what_came_before_one_recording_is_not_in_the_next(recorder: MovedRecorder) -> None:
    """But the connected message is: every recording on this socket starts with it."""
    made, _ = opened(recorder)
    hello = b'{"event":"connected","protocol":"Call"}'
    for message in (hello, b'{"event":"later"}', start_message(), STOP, other_start(), STOP):
        made.message_received(message)
    found = [recorder.journal(), recorder.journal()]
    assert [True, True] == [MessageRecord(0, hello) in records for records in found]
    assert 1 == sum(MessageRecord(0, b'{"event":"later"}') in records for records in found)


def test_rejected_messages_are_in_the_journal(recorder: MovedRecorder) -> None:
    """What could not be used is listed with its reason and, where known, its chunk."""
    made, _ = opened(recorder)
    made.message_received(start_message())
    made.message_received(MEDIA.replace(b"//8=", b"//8*"))
    made.message_received(b"nonsense")
    made.message_received(STOP)
    records = recorder.journal()
    (rejected,) = [record for record in records if isinstance(record, RejectedRecord)]
    assert "bad_base64" == rejected.code
    assert rejected.chunk is not None
    assert 1 == rejected.chunk.chunk
    assert MessageRecord(0, b"nonsense") in records  # verbatim: it may have been anything


def test_rejected_messages_over_a_long_time_do_not_end_a_stream(recorder: MovedRecorder) -> None:
    """Only many within ten seconds do."""
    made, socket = opened(recorder)
    made.message_received(start_message())
    for _ in range(5 * stream.MOST_REJECTED):
        recorder.seconds += 1
        made.message_received(b"nonsense")
    assert [] == socket.closings
    for _ in range(stream.MOST_REJECTED + 1):
        made.message_received(b"nonsense")
    assert [(1008, "too many unusable messages")] == socket.closings[:1]


def test_many_bad_messages_count_wherever_ten_seconds_start(recorder: MovedRecorder) -> None:
    """The window slides: fifty-one within ten seconds are too many at any moment."""
    made, socket = opened(recorder)
    made.message_received(start_message())
    made.message_received(b"nonsense")
    recorder.seconds += 9.7
    for _ in range(48):
        made.message_received(b"nonsense")
    recorder.seconds += 0.5
    made.message_received(b"nonsense")
    assert [] == socket.closings
    made.message_received(b"nonsense")
    made.message_received(b"nonsense")
    assert 1008 == socket.closings[0][0]


def test_nothing_is_taken_after_we_have_closed(recorder: MovedRecorder) -> None:
    """What a peer still sends through our close opens no second recording."""
    made, socket = opened(recorder)
    made.message_received(start_message())
    made.close(EndReason.SHUTDOWN, code=1001, text="the receiver was stopped")
    for message in (MEDIA, start_message(), MEDIA):
        made.message_received(message)
    made.closed(code=1001, clean=True)
    recorder.journal()
    assert recorder.ended.empty()
    assert 1 == recorder.counters.started
    assert [1001] == [code for code, _ in socket.closings]


def test_a_start_for_another_call_is_the_end_whatever_follows(recorder: MovedRecorder) -> None:
    """A right start behind the wrong one, or audio, comes too late."""
    made, socket = opened(recorder, Grant(call_sid=CALL_SID))
    made.message_received(start_message().replace(CALL_SID.encode(), b"another"))
    for message in (start_message(), MEDIA, STOP):
        made.message_received(message)
    made.closed(code=1008, clean=True)
    recorder.spool.close()
    assert [1008] == [code for code, _ in socket.closings]
    assert [] == list(recorder.spool.folder.glob("*.journal"))


def test_audio_without_a_start_under_a_signed_token_is_not_kept(recorder: MovedRecorder) -> None:
    """Nothing ever showed that it belongs to the call that the token is for."""
    made, _ = opened(recorder, Grant(call_sid=CALL_SID))
    made.message_received(b'{"event":"start"}')
    made.message_received(MEDIA)
    with capture_logs() as lines:
        made.closed(code=1000, clean=True)
    recorder.spool.close()
    assert recorder.ended.empty()
    assert [] == list(recorder.spool.folder.glob("*.journal"))
    (line,) = [line for line in lines if line["event"] == "stream_ended"]
    assert ("closed", 1) == (line["reason"], line["chunks"])
    assert line["detail"].startswith("not kept: no start message")
    assert (1, {"closed": 1}) == (recorder.counters.started, recorder.counters.ended)


@pytest.mark.parametrize(("early", "notes"), [([MEDIA], 1), ([], 0)])
def test_a_journal_claims_the_tokens_call_until_a_start_names_it(
    recorder: MovedRecorder, early: list[bytes], notes: int
) -> None:
    """A crash must not make public what would have been discarded; a start has named it."""
    made, _ = opened(recorder, Grant(call_sid=CALL_SID))
    for message in (*early, start_message(), STOP):
        made.message_received(message)
    _, *records = recorder.journal()
    note = NoteRecord(0, journal.CLAIMED_CALL, CALL_SID)
    assert [note] * notes == [record for record in records if isinstance(record, NoteRecord)]
    assert not notes or note == records[0]


def test_a_start_that_cannot_be_used_is_in_the_journal(recorder: MovedRecorder) -> None:
    """It came before the recording opened, and is there to be looked at."""
    made, _ = opened(recorder)
    made.message_received(b'{"event":"start"}')
    made.message_received(MEDIA)
    made.message_received(STOP)
    assert MessageRecord(0, b'{"event":"start"}') in recorder.journal()


def test_a_repeated_start_is_logged_once(recorder: MovedRecorder) -> None:
    """Repeating it fills no log; another stream's start is logged again."""
    made, _ = opened(recorder)
    with capture_logs() as lines:
        for _ in range(3):
            made.message_received(start_message())
        for _ in range(3):
            made.message_received(start_message().replace(b"7d56cc11", b"00000000"))
    assert 2 == len([line for line in lines if line["event"] == "stream_started"])


def test_a_new_socket_may_still_record(recorder: MovedRecorder) -> None:
    """For ten seconds; one that has recorded may no more once its recording has ended."""
    silent, talking = opened(recorder)[0], opened(recorder)[0]
    talking.message_received(start_message())
    recorder.seconds += session.LONGEST_UNSAID_SECONDS - 1
    assert (True, True) == (silent.may_still_record, talking.may_still_record)
    recorder.seconds += 1
    assert (False, True) == (silent.may_still_record, talking.may_still_record)
    talking.message_received(STOP)
    assert not talking.may_still_record
    cut = opened(recorder)[0]
    cut.close(EndReason.SHUTDOWN, code=1001, text="the receiver was stopped")
    assert not cut.may_still_record


def test_messages_other_than_media_are_bounded(recorder: MovedRecorder) -> None:
    """A flood of key presses does not fill the journal; audio goes on."""
    made, _ = opened(recorder)
    made.message_received(start_message())
    press = b'{"event":"dtmf","dtmf":{"digit":"5"}}'
    for _ in range(live_recording.MOST_MESSAGES + 100):
        recorder.seconds += 1 / stream.OTHERS_PER_SECOND
        made.message_received(press)
    made.message_received(MEDIA)
    made.message_received(STOP)
    records = recorder.journal()
    kept = [record for record in records if isinstance(record, MessageRecord)]
    assert live_recording.MOST_MESSAGES == len(kept)
    assert any(isinstance(record, ChunkRecord) for record in records)


@pytest.mark.parametrize("message", [b'{"event":"new"}', b'{"event":"connected"}'])
def test_too_many_messages_other_than_media_end_a_stream(
    recorder: MovedRecorder, message: bytes
) -> None:
    """A peer that sends next to nothing else is cut; its audio is kept."""
    made, socket = opened(recorder)
    made.message_received(start_message())
    made.message_received(MEDIA)
    for _ in range(stream.OTHERS_AT_ONCE - 1):
        made.message_received(message)
    assert not socket.closings
    made.message_received(message)
    assert (1008, "too many messages other than media") == socket.closings[0]
    records = recorder.journal()
    assert any(isinstance(record, ChunkRecord) for record in records)
    end = records[-1]
    assert isinstance(end, EndRecord)
    assert end.reason is EndReason.PROTOCOL_ERROR


@pytest.mark.parametrize("opening", [start_message(), MEDIA])
def test_recordings_of_one_connection_are_bounded(recorder: MovedRecorder, opening: bytes) -> None:
    """Pairs of start and stop without end do not fill the disk with empty recordings."""
    made, socket = opened(recorder)
    for _ in range(stream.RECORDINGS_AT_ONCE):
        made.message_received(opening)
        made.message_received(STOP)
    assert not socket.closings
    made.message_received(opening)
    assert (1008, "too many recordings on one connection") == socket.closings[0]
    assert stream.RECORDINGS_AT_ONCE == recorder.counters.started
    assert made.recording_id is None


@pytest.mark.parametrize(("code", "clean", "reason"), CLOSINGS)
def test_why_a_connection_ended_is_kept(
    recorder: MovedRecorder, code: int, clean: bool, reason: EndReason
) -> None:
    """Why a transport broke off is in the recording."""
    made, _ = opened(recorder)
    made.message_received(start_message())
    made.closed(code=code, clean=clean)
    end = recorder.journal()[-1]
    assert isinstance(end, EndRecord)
    assert end.reason is reason
    assert clean is (not end.detail)


@pytest.mark.parametrize("grant", [Grant(), Grant(call_sid=CALL_SID)])
def test_audio_of_an_unknown_encoding_is_kept_and_told(
    recorder: MovedRecorder, grant: Grant, tmp_path: Path
) -> None:
    """As it came, from before and behind the start message; nobody can listen to it."""
    made, socket = opened(recorder, grant)
    with capture_logs() as lines:
        for message in (MEDIA, start_message(encoding="audio/G722", who="A"), MEDIA):
            made.message_received(message)
        (refused,) = recorder.hub.refused()
        assert (CALL_SID, True) == (refused.live.call_sid, "unsupported" in refused.reason)
        made.message_received(STOP)
    named = [line["call_sid"] for line in lines if line["event"] == "format_refused"]
    assert ([CALL_SID], [], []) == (named, socket.closings, list(recorder.hub.streams()))
    assert [] == list(recorder.hub.refused())
    path = recorder.ended.get(timeout=WAIT_SECONDS)
    folder = tmp_path / "rendered"
    folder.mkdir(0o700)
    found = render(path, folder)
    assert ((CALL_SID, {"who": "A"}), ()) == ((found.call_sid, found.parameters), found.tracks)
    assert ["format_refused", "audio_kept_aside"] == [one.code for one in found.findings]
    assert (False, b"\xff\xff" * 2) == (found.complete, (folder / "refused.raw").read_bytes())
    assert found.refused is not None
    assert [RefusedPart("format_refused", "inbound", 2, 0, 4, 0, 0)] == [*found.refused.parts]
    assert () == verify(folder, found)


def test_refused_audio_is_kept_whatever_it_is_called(
    recorder: MovedRecorder, tmp_path: Path
) -> None:
    """Of tracks and streams that are not this one's, and of as much as ever comes."""
    made, socket = opened(recorder)
    made.message_received(start_message())
    made.message_received(media(1, 1, "7d56cc11-0a3c-4a3e-9df2-6f0e9c0c1d2e"))
    for number in range(300):
        mixed = MEDIA.replace(b'"inbound"', b'"mixed"').replace(b"//8=", b"%03dA" % number)
        made.message_received(mixed)
        made.message_received(media(number, number, "another stream"))
    made.message_received(STOP)
    assert [] == socket.closings
    folder = tmp_path / "rendered"
    folder.mkdir(0o700)
    found = render(recorder.ended.get(timeout=WAIT_SECONDS), folder)
    assert found.refused is not None
    assert [("other_stream", "another stream", 300), ("unknown_track", "mixed", 300)] == [
        (part.code, part.label, part.chunks) for part in found.refused.parts
    ]
    raw, (_, mixed_part) = (folder / "refused.raw").read_bytes(), found.refused.parts
    expected = b"".join(base64.b64decode(b"%03dA" % number) for number in range(300))
    assert expected == raw[mixed_part.offset :]
    assert () == verify(folder, found)
    (folder / "refused.raw").write_bytes(raw[:-1] + b"?")
    assert ("refused.raw: its SHA-256 is not the document's",) == verify(folder, found)
    (folder / "refused.raw").write_bytes(raw[:-1])
    assert (f"refused.raw: {len(raw) - 1} bytes instead of {len(raw)}",) == verify(folder, found)


def test_another_format_of_the_same_stream_begins_another_recording(
    recorder: MovedRecorder,
) -> None:
    """Each part is decoded by its own; a start that says none keeps the one that is known."""
    made, _ = opened(recorder)
    odd = json.loads(start_message(encoding="audio/x-L16", sample_rate=8000))
    del odd["start"]["mediaFormat"]
    for message in (
        start_message(encoding="audio/x-L16", sample_rate=8000),
        media(1, 1),
        json.dumps(odd).encode(),
        media(2, 2),
        start_message(encoding="audio/x-L16", sample_rate=16_000),
        media(3, 3),
        STOP,
    ):
        made.message_received(message)
    found = [scan([b"".join(map(journal.encode, rows))]) for rows in journals(recorder)]
    assert {(8000, 2, EndReason.REPLACED), (16_000, 1, EndReason.STOP)} == {
        (one.media_format.sample_rate, len(one.tracks[Track.INBOUND]), one.end_reason)
        for one in found
    }


def test_a_format_that_is_corrected_before_any_audio_leaves_no_empty_recording(
    recorder: MovedRecorder, tmp_path: Path
) -> None:
    """All is one recording of the right format; listeners are told of the right one."""
    made, _ = opened(recorder)
    odd = json.loads(start_message())
    del odd["start"]["mediaFormat"]
    lives: list[LifecycleEvent] = []
    recorder.hub.watch(lives.append)
    right = start_message(encoding="audio/x-L16", sample_rate=16_000)
    for message in (json.dumps(odd).encode(), right, media(1, 1), STOP):
        made.message_received(message)
    (path,) = [recorder.ended.get(timeout=WAIT_SECONDS)]
    assert recorder.ended.empty()
    folder = tmp_path / "rendered"
    folder.mkdir(0o700)
    found = render(path, folder)
    assert (True, MediaFormat(Encoding.L16, 16_000)) == (found.complete, found.media_format)
    heard = [event.live.media_format for event in lives if isinstance(event, StreamStarted)]
    assert [MediaFormat(), MediaFormat(Encoding.L16, 16_000)] == heard
    assert [] == list(recorder.hub.streams())


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        (["outbound_track"], Track.OUTBOUND),
        (["inbound"], Track.INBOUND),
        (["inbound", "outbound"], Track.INBOUND),
        ([], Track.INBOUND),
    ],
)
def test_a_missing_track_is_the_only_one_of_the_start(
    recorder: MovedRecorder, tracks: list[str], expected: Track
) -> None:
    """Or else inbound; a finding says so, once."""
    made, _ = opened(recorder)
    odd = json.loads(start_message())
    odd["start"]["tracks"] = tracks
    without = MEDIA.replace(b'"track":"inbound",', b"")
    for message in (json.dumps(odd).encode(), without, without, STOP):
        made.message_received(message)
    found = scan([b"".join(map(journal.encode, recorder.journal()))])
    assert {expected: 2} == {track: len(index) for track, index in found.tracks.items()}
    text = f"messages name no track; {expected.value} was assumed"
    assert [Finding("track_assumed", text)] == findings_of(found)


def test_ids_that_every_message_repeats_are_ids(recorder: MovedRecorder) -> None:
    """Where the start message lacks them: in the recording, and for listeners."""
    made, _ = opened(recorder)
    odd = json.loads(start_message())
    for name in ("streamSid", "callSid"):
        del odd["start"][name]
    named = json.loads(MEDIA) | {"streamSid": "s", "call_sid": "c"}
    made.message_received(json.dumps(odd).encode())
    assert [] == list(recorder.hub.streams())
    made.message_received(json.dumps(named).encode())
    assert [("s", "c")] == [(live.stream_sid, live.call_sid) for live in recorder.hub.streams()]
    made.message_received(json.dumps(named).encode())
    made.message_received(STOP)
    found = scan([b"".join(map(journal.encode, recorder.journal()))])
    assert found.start is not None
    assert ("s", "c", 2) == (
        *(found.start.stream_sid, found.start.call_sid),
        len(found.tracks[Track.INBOUND]),
    )
    assert [] == findings_of(found)


def sent(track: str, number: int | None, at_ms: int) -> bytes:
    """Return a media message of 20 ms, with a number or without."""
    body = {"track": track, "chunk": number, "timestamp": at_ms}
    payload = base64.b64encode(bytes(range(1, 161))).decode()
    return json.dumps({"event": "media", "media": body | {"payload": payload}}).encode()


def two_parts(
    recorder: MovedRecorder,
    *,
    start_ms: int = 0,
    gap_ms: int = 1000,
    numbered: bool = True,
    skew_ms: int = 0,
    half_open: bool = False,
) -> None:
    """Send two seconds of both tracks on one socket, and one on another, `gap_ms` later."""
    sockets, place = [], 0
    for chunks in (100, 50):
        made, _ = opened(recorder)
        made.message_received(start_message())
        for _ in range(chunks):
            for track in Track:
                skew = skew_ms if track is Track.OUTBOUND else 0
                number = place + 1 if numbered else None
                made.message_received(sent(track.value, number, start_ms + 20 * place - skew))
            recorder.seconds += 0.02
            place += 1
        if not half_open:
            made.closed(code=1006, clean=False)
        sockets.append(made)
        recorder.seconds += gap_ms / 1000
        place += gap_ms // 20
    for made in sockets:
        made.closed(code=1006, clean=False)


def rendered_parts(recorder: MovedRecorder, folder: Path) -> list[Recording]:
    """Return the two parts of a stream, the first one first."""
    parts = []
    for name in ("a", "b"):
        (folder / name).mkdir(0o700)
        parts.append(render(recorder.ended.get(timeout=WAIT_SECONDS), folder / name))
    return sorted(parts, key=lambda part: part.previous is not None)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"half_open": True},
        {"numbered": False},
        {"start_ms": 70_000},
        {"start_ms": 3_600_000, "gap_ms": 30_000},
        {"start_ms": 1_705_312_200_000},
        {"gap_ms": 0},
        {"skew_ms": 60},
        {"skew_ms": 60, "numbered": False},
    ],
)
def test_a_stream_that_goes_on_on_another_socket_misses_only_what_no_part_has(
    recorder: MovedRecorder, tmp_path: Path, how: dict[str, Any]
) -> None:
    """In the first minute and behind it, also where nobody has noticed the end of the first."""
    two_parts(recorder, **how)
    first, second = rendered_parts(recorder, tmp_path)
    gap_ms, skew_ms = how.get("gap_ms", 1000), how.get("skew_ms", 0)
    assert second.previous is not None
    assert (first.id, first.stream_sid) == (second.previous.id, second.previous.stream_sid)
    assert gap_ms - skew_ms == second.previous.gap_ms
    assert (2000, gap_ms + 1000) == (first.duration_ms, second.duration_ms)
    for track in second.tracks:
        told = sum(gap.duration_ms for gap in track.gaps if gap.kind is GapKind.LOST)
        assert gap_ms - (skew_ms if track.track is Track.OUTBOUND else 0) == told
    assert {"audio_lost"} >= {finding.code for finding in second.findings} - {"connection_lost"}


def test_a_long_break_between_two_parts_is_told_and_is_no_silence(
    recorder: MovedRecorder, tmp_path: Path
) -> None:
    """It may be longer than any file should be."""
    two_parts(recorder, gap_ms=120_000)
    _, second = rendered_parts(recorder, tmp_path)
    assert (1000, False) == (second.duration_ms, second.complete)
    assert "between_parts" in [finding.code for finding in second.findings]


def test_a_stream_that_begins_anew_elsewhere_is_another_one(
    recorder: MovedRecorder, tmp_path: Path
) -> None:
    """Some senders give all their streams the same ids: nothing of it is missing."""
    for _ in range(2):
        made, _ = opened(recorder)
        for message in (start_message(), sent("inbound", 1, 0), sent("inbound", 2, 20), STOP):
            made.message_received(message)
        made.closed(code=1006, clean=False)
        recorder.seconds += 5
    documents = rendered_parts(recorder, tmp_path)
    found = [(document.previous, [f.code for f in document.findings]) for document in documents]
    assert [(None, ["track_silent"])] * 2 == found


@pytest.mark.parametrize(("step", "ticks_per_ms"), [(20, 1), (160, 8), (0, 1)])
@pytest.mark.parametrize("named_first", [True, False])
def test_a_position_says_what_timestamps_count(
    recorder: MovedRecorder, step: int, ticks_per_ms: int, named_first: bool
) -> None:
    """Samples, where two of the first chunks show it, and milliseconds otherwise."""
    made, _ = opened(recorder)
    chunks = [sent("inbound", n, (n - 1) * step) for n in range(1, 121)]
    messages = [start_message(), *chunks] if named_first else [*chunks[:2], start_message()]
    for message in messages:
        made.message_received(message)
        recorder.seconds += 0.02
    assert ticks_per_ms == position(recorder).ticks_per_ms
    made.closed(code=1000, clean=True)


def test_listeners_of_a_later_part_are_where_its_file_is(recorder: MovedRecorder) -> None:
    """Stream time begins where the part before ended."""
    two_parts(recorder)
    made, _ = opened(recorder)
    made.message_received(start_message())
    (live,) = recorder.hub.streams()
    made.message_received(sent("inbound", 301, 6000))
    assert (5000 - 20 * 50, 5000 - 20 * 50) == (
        live.continues_ms,
        position(recorder).origin_ms,
    )


def test_refused_audio_from_before_a_recording_is_kept_too(
    recorder: MovedRecorder, tmp_path: Path
) -> None:
    """It has no place; what is known of it goes into the recording that opens next."""
    made, _ = opened(recorder)
    for _ in range(100):
        made.message_received(MEDIA.replace(b'"inbound"', b'"mixed"'))
    for message in (start_message(), STOP):
        made.message_received(message)
    found = render(recorder.ended.get(timeout=WAIT_SECONDS), tmp_path)
    assert found.refused is not None
    assert [("mixed", 100)] == [(part.label, part.chunks) for part in found.refused.parts]


def test_a_stream_without_ids_can_be_listened_to_all_the_same(recorder: MovedRecorder) -> None:
    """Once enough messages have said none."""
    made, _ = opened(recorder)
    made.message_received(b'{"event":"start","start":{"tracks":["inbound"]}}')
    for _ in range(recordings.SEARCHED_FOR_IDS):
        made.message_received(MEDIA)
    assert 1 == len(list(recorder.hub.streams()))


@pytest.mark.parametrize(
    "first",
    [
        b'{"type":"open","serverseq":0,"version":"2","parameters":{"conversationId":"c"}}',
        b'{"event":"else"}',
        b"\x00\xff\xfe\x01",
        b"not JSON\x1b[31m",
        b"[]",
    ],
)
def test_what_is_no_media_stream_is_closed_at_once(recorder: MovedRecorder, first: bytes) -> None:
    """With a reason, and one line in the log however often it comes again."""
    closings, lines = [], []
    for _ in range(3):
        made, socket = opened(recorder)
        with capture_logs() as logged:
            made.message_received(first)
        closings += socket.closings
        lines += logged
    (line,) = lines
    assert ("not_a_media_stream", len(first)) == (line["event"], line["length"])
    assert line["beginning"].isprintable()
    assert line["call_sid"] in (None, "c")
    assert [1003] * 3 == [code for code, _ in closings]
    assert all(reason.startswith("no media stream: ") for _, reason in closings)
    assert [] == journals(recorder)


def test_refusals_of_a_peer_that_comes_again_are_logged_once_and_name_the_call(
    recorder: MovedRecorder,
) -> None:
    """The call is the one that the refused start message names."""
    with capture_logs() as lines:
        for _ in range(5):
            made, _ = opened(recorder, Grant(call_sid="another"))
            made.message_received(start_message())
    assert [CALL_SID] == [line["call_sid"] for line in lines if line["event"] == "stream_refused"]


def test_each_call_that_is_refused_is_named_once(recorder: MovedRecorder) -> None:
    """All calls of a provider come from one address."""
    calls = [f"call-{number}" for number in (1, 2, 1, 3, 2, 1)]
    with capture_logs() as lines:
        for call in calls:
            made, _ = opened(recorder, Grant(call_sid="another"))
            made.message_received(start_message().replace(CALL_SID.encode(), call.encode()))
        for call in calls:
            made, _ = opened(recorder)
            made.message_received(b'{"type":"open","callId":"%s"}' % call.encode())
    for event in ("stream_refused", "not_a_media_stream"):
        named = [line["call_sid"] for line in lines if line["event"] == event]
        assert ["call-1", "call-2", "call-3"] == named


def test_a_start_for_another_call_that_cannot_be_used_keeps_nothing(
    recorder: MovedRecorder,
) -> None:
    """Its token is for a call which no start message has named."""
    made, _ = opened(recorder, Grant(call_sid="another"))
    made.message_received(MEDIA)
    made.message_received(start_message(encoding="audio/opus"))
    recorder.spool.close()
    assert [] == list(recorder.spool.folder.glob("*.journal"))


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=200),
            st.sampled_from([MEDIA, STOP, start_message(), b'{"event":"mark"}', b"[]"]),
            st.fixed_dictionaries(
                {
                    "event": st.sampled_from(["start", "media", "dtmf", "stop", "mark", "x"]),
                    "media": st.none() | st.dictionaries(st.text(), st.integers() | st.text()),
                    "start": st.none() | st.dictionaries(st.text(), st.text()),
                }
            ).map(lambda message: json.dumps(message).encode()),
        ),
        max_size=20,
    )
)
def test_any_bytes_leave_a_readable_journal(
    tmp_path_factory: pytest.TempPathFactory, received: list[bytes]
) -> None:
    """Whatever a peer sends, nothing is raised and what was kept can be read."""
    recorder = MovedRecorder(tmp_path_factory.mktemp("spool") / "spool")
    made, _ = opened(recorder)
    for message in received:
        made.message_received(message)
    made.closed(code=1006, clean=False)
    recorder.spool.close()
    while not recorder.ended.empty():
        reader = Reader([recorder.ended.get().read_bytes()])
        records = [record for _, record in reader]
        assert reader.damage is None
        assert isinstance(records[0], Header)
        assert isinstance(records[-1], EndRecord)
