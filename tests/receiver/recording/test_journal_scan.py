"""One reading of a journal: everything that rendering and the document need."""

from __future__ import annotations

import json

import pytest

from receiver.errors import JournalError
from receiver.journal import records as journal
from receiver.journal.records import (
    DroppedRecord,
    EndRecord,
    MessageRecord,
    NoteRecord,
    Record,
    RejectedRecord,
)
from receiver.media import Encoding, EndReason, Finding, GapKind, MediaFormat, RejectedChunk, Track
from receiver.recording.journal_scan import JournalScan, audio_aside, findings_of, scan
from receiver.timeline.track_timeline import EventPosition
from receiver.wire.messages import DtmfMessage, MarkMessage
from tests.receiver.helpers.journals import HEADER, STARTED_AT_MS, chunk, records, start_message


def scanned(*content: Record) -> JournalScan:
    """Return what is said of a journal of these records behind the header."""
    return scan([b"".join(journal.encode(record) for record in (HEADER, *content))])


def message(event: str, at_ms: int = 0, **body: object) -> MessageRecord:
    """Return the record of a message."""
    return MessageRecord(at_ms, json.dumps({"event": event, event: body}).encode())


def codes(found: JournalScan) -> list[str]:
    """Return the codes of a journal's findings."""
    return [finding.code for finding in findings_of(found)]


def test_a_whole_journal_has_nothing_to_report() -> None:
    """Header, start, chunks of two tracks, end."""
    chunks = [chunk(1, b"a", timestamp_ms=0), chunk(1, b"b", track=Track.OUTBOUND)]
    found = scanned(*records(chunks, reason=EndReason.STOP)[1:])
    assert [] == findings_of(found)
    assert (HEADER, EndReason.STOP) == (found.header, found.end_reason)
    assert {Track.INBOUND: 1, Track.OUTBOUND: 1} == {t: len(i) for t, i in found.tracks.items()}
    assert STARTED_AT_MS + 10_000 == found.ended_at_ms
    assert found.start is not None
    assert MediaFormat() == found.media_format


def test_sequence_numbers_of_all_messages_are_read() -> None:
    """Whatever they carry: they use numbers up, as refused chunks do."""
    others = [
        MessageRecord(40, json.dumps({"event": event, "sequenceNumber": number, **body}).encode())
        for event, number, body in [
            ("dtmf", "3", {"dtmf": {"digit": "1"}}),
            ("mark", "4", {"mark": {"name": "m"}}),
            ("new", 5, {}),
            ("mark", None, {"mark": {"name": "m"}}),
        ]
    ]
    refused = RejectedRecord(50, "bad_payload", RejectedChunk(Track.INBOUND, 6, 2, 20))
    first = chunk(1, b"a", sequence_number=2)
    stop = MessageRecord(60, b'{"event": "stop", "sequenceNumber": "8"}')
    found = scanned(*records([first, *others, refused, stop], reason=EndReason.STOP)[1:])
    assert [1, 3, 4, 5, 6, 8] == found.messages.sequences.tolist()
    end = int(found.tracks[Track.INBOUND].end[0])
    before, behind = found.messages.around(end, end)
    assert ([1], [3, 4, 5, 6, 8]) == (before.tolist(), behind.tolist())
    assert not found.messages.incomplete
    assert 10_000 == found.messages.ended_ms


def test_where_messages_were_left_out_their_numbers_are_incomplete() -> None:
    """Then sequence numbers are no ledger."""
    assert scanned(NoteRecord(0, "messages_not_kept", "5 messages")).messages.incomplete


def test_payloads_are_where_the_index_says() -> None:
    """The end and size of each are offsets into the journal."""
    payloads = [b"first", b"second one", b""]
    content = [journal.encode(HEADER)] + [
        journal.encode(chunk(n, payload)) for n, payload in enumerate(payloads)
    ]
    source = b"".join(content)
    index = scan([source]).tracks[Track.INBOUND]
    found = [source[e - s : e] for e, s in zip(index.end, index.size, strict=True)]
    assert payloads == found


def test_the_format_is_that_of_the_first_start() -> None:
    """A repeated start does not change how samples are read that came before it."""
    first = MessageRecord(0, start_message(encoding="audio/x-L16", sample_rate=16000))
    audio = chunk(1, b"x" * 320)
    found = scanned(first, audio, MessageRecord(1, start_message()), audio)
    assert MediaFormat(Encoding.L16, 16000) == found.media_format
    found = scanned(first, MessageRecord(1, start_message()), audio)
    assert MediaFormat() == found.media_format
    assert "format_restated" not in codes(found)


def another_start(encoding: str = "audio/x-L16") -> MessageRecord:
    """Return the start message of another stream."""
    start = json.loads(start_message(encoding=encoding, sample_rate=8000))
    start["start"] |= {"streamSid": "B", "callSid": "call B"}
    return MessageRecord(1, json.dumps(start).encode())


@pytest.mark.parametrize("late", [False, True])
def test_a_journal_of_two_streams_is_named_after_the_one_with_most_audio(late: bool) -> None:
    """The format of stragglers is not that of the next stream, and a finding says so."""
    one, many = [chunk(51, b"x")], [chunk(n, b"x" * 320) for n in range(5)]
    first, second = (many, one) if late else (one, many)
    found = scanned(
        MessageRecord(0, start_message()),
        *first,
        another_start(),
        *second,
        EndRecord(9, EndReason.STOP, ""),
    )
    encoding = Encoding.PCMU if late else Encoding.L16
    assert encoding is found.media_format.encoding
    assert late == (found.start is not None and found.start.call_sid != "call B")
    assert ["streams_mixed"] == codes(found)


def test_a_start_that_says_something_else_is_a_finding() -> None:
    """The first counts; the same words again are none."""
    end = EndRecord(9, EndReason.STOP, "")
    first = MessageRecord(0, start_message(a=1))
    assert [] == codes(scanned(first, first, end))
    for other, code in (
        (start_message(a=2), "start_restated"),
        (start_message(a=1, encoding="audio/x-alaw"), "format_restated"),
    ):
        found = scanned(first, chunk(1, b"x" * 160), MessageRecord(1, other), end)
        assert [code] == codes(found)
        assert {"a": 1} == (found.start.parameters if found.start else None)


def test_keys_and_marks_are_behind_the_chunk_before_them() -> None:
    """The provider gives them no time; where that chunk ends is known once all are placed."""
    found = scanned(
        MessageRecord(0, start_message()),
        message("mark", name="early"),
        chunk(1, b"x" * 160, timestamp_ms=480),
        chunk(1, b"x" * 160, track=Track.OUTBOUND),
        chunk(2, b"y" * 160, timestamp_ms=500),
        message("dtmf", digit="5", duration=120),
        message("mark", name="late"),
    )
    behind = EventPosition(Track.INBOUND, 2)
    expected = [
        (EventPosition(), MarkMessage("early")),
        (behind, DtmfMessage("5", 120)),
        (behind, MarkMessage("late")),
    ]
    assert expected == found.events


def test_a_journal_without_an_end_is_a_crash() -> None:
    """It ended when the last thing came, as far as we know."""
    found = scanned(MessageRecord(5, start_message()), chunk(1, b"x", arrival_ms=1234))
    assert (EndReason.CRASH, ["crashed"]) == (found.end_reason, codes(found))
    assert STARTED_AT_MS + 1234 == found.ended_at_ms


@pytest.mark.parametrize(
    ("reason", "detail", "expected"),
    [
        (EndReason.STOP, "", None),
        (EndReason.REPLACED, "", None),
        (EndReason.CLOSED, "", None),
        (EndReason.CLOSED, "broken", Finding("connection_lost", "broken")),
        (EndReason.IDLE, "", Finding("cut_short", "no audio came for too long")),
        (EndReason.SHUTDOWN, "stopped", Finding("cut_short", "stopped")),
        (EndReason.PROTOCOL_ERROR, "", Finding("cut_short", "the stream was cut")),
    ],
)
def test_an_end_that_was_not_the_senders_is_a_finding(
    reason: EndReason, detail: str, expected: Finding | None
) -> None:
    """What we or the network cut short may miss something."""
    found = scanned(MessageRecord(0, start_message()), EndRecord(9, reason, detail))
    assert ([expected] if expected else []) == findings_of(found)


def test_what_was_rejected_is_counted_by_code_and_kept_by_track() -> None:
    """Chunks that could not be used belong to their track's ledger."""
    refused = RejectedChunk(Track.OUTBOUND, chunk=4, timestamp_ms=60)
    row = DroppedRecord(GapKind.REJECTED, Track.OUTBOUND, 1, 4, 4, 60, 60)
    found = scanned(
        *records([], reason=EndReason.STOP)[1:],
        RejectedRecord(1, "bad_base64", refused),
        RejectedRecord(2, "not_json", None),
        RejectedRecord(3, "not_json", None),
    )
    assert [row] == found.tracks[Track.OUTBOUND].not_kept
    assert 1 == found.tracks[Track.OUTBOUND].rejected
    assert [
        Finding("messages_rejected", "1 times bad_base64"),
        Finding("messages_rejected", "2 times not_json"),
    ] == findings_of(found)


def test_what_happened_to_the_journal_itself_is_passed_on() -> None:
    """Notes become findings; rows of dropped chunks belong to their track, also after the end."""
    row = DroppedRecord(GapKind.DISK, Track.INBOUND, 2, 4, 5, 80, 100)
    note = NoteRecord(0, "journal_rewritten", "why")
    found = scanned(*records([], reason=EndReason.STOP)[1:], note, row)
    assert [row] == found.tracks[Track.INBOUND].not_kept
    assert 0 == found.tracks[Track.INBOUND].rejected
    assert [Finding("journal_rewritten", "why")] == findings_of(found)


def test_a_stream_without_a_start_says_so() -> None:
    """Its format is assumed."""
    assert ["crashed", "start_missing"] == codes(scanned(chunk(1, b"x")))


def test_a_format_that_cannot_be_decoded_names_its_stream() -> None:
    """The ids of the audio count, whatever it is; a stream that is understood counts more."""
    odd = MessageRecord(0, start_message(encoding="audio/opus", who="A"))
    found = scanned(chunk(1, b"x"), odd)
    *_, last = findings_of(found)
    assert ("format_refused", True) == (last.code, "audio/opus" in last.detail)
    assert {"who": "A"} == (found.start.parameters if found.start else None)
    assert MediaFormat() == found.media_format
    assert {("format_refused", "inbound"): 1} == {
        kind: len(kept.end) for kind, kept in audio_aside(found).items()
    }


def test_the_names_of_marks_take_so_much_memory_and_no_more() -> None:
    """Each is cut at 4 KiB, and those behind the first few thousand at much less."""
    mark = json.dumps({"event": "mark", "mark": {"name": "m" * 10_000}}).encode()
    found = scanned(MessageRecord(0, start_message()), *[MessageRecord(1, mark)] * 3000)
    names = [event.name for _, event in found.events if isinstance(event, MarkMessage)]
    assert (3000, 4096, 64) == (len(names), len(names[0]), len(names[-1]))
    assert sum(map(len, names)) < 5 * 2**20


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ([NoteRecord(0, "ids_repeated", '["s","c","a"]')], ("s", "c", "a")),
        ([NoteRecord(0, "ids_repeated", "what a later version says")], ("", "", "")),
        ([], ("", "", "")),
    ],
)
def test_ids_that_messages_repeat_fill_in_those_of_the_start(
    notes: list[NoteRecord], expected: tuple[str, str, str]
) -> None:
    """As a note of the session has them."""
    start = b'{"event":"start","start":{"mediaFormat":"L16@8000h"}}'
    found = scanned(MessageRecord(0, start), *notes, EndRecord(1, EndReason.STOP, ""))
    assert found.start is not None
    assert expected == (found.start.stream_sid, found.start.call_sid, found.start.account_sid)
    assert [] == findings_of(found)


def test_a_kept_message_that_makes_no_sense_is_counted() -> None:
    """A later version may have kept what this one cannot read."""
    found = scanned(MessageRecord(0, start_message()), MessageRecord(1, b"{"))
    assert "messages_rejected" in codes(found)


def test_damage_ends_trust_and_is_reported() -> None:
    """What came before counts; what follows does not."""
    whole = [journal.encode(record) for record in records([chunk(1, b"x"), chunk(2, b"y")])]
    spoilt = b"".join([*whole[:-1], whole[-1][:-1] + b"?", whole[-1]])
    found = scan([spoilt])
    assert 1 == len(found.tracks[Track.INBOUND])
    assert sum(map(len, whole[:-1])) == found.trusted_bytes
    assert "journal_damaged" in codes(found)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 64, b"nonsense, in any case", journal.encode(chunk(1, b"x"))]
)
def test_what_has_no_header_is_no_journal(content: bytes) -> None:
    """Whatever else it is."""
    with pytest.raises(JournalError, match="not a journal"):
        scan([content])
