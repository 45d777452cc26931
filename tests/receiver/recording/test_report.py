"""What is said of a recording, and when it is complete."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import receiver
from receiver.journal import records as journal
from receiver.journal.records import (
    DroppedRecord,
    MessageRecord,
    NoteRecord,
    Record,
    RejectedRecord,
)
from receiver.media import (
    ByteOrder,
    ChunkCounts,
    ClockRule,
    EndReason,
    Finding,
    GapKind,
    RejectedChunk,
    Track,
    TrackGap,
)
from receiver.recording.document import RecordedTrack, Recording
from receiver.recording.journal_scan import scan
from receiver.recording.report import Rendered, report
from receiver.timeline import track_timeline
from tests.receiver.helpers.journals import HEADER, chunk, records, start_message

PACKAGE = Path(receiver.__file__).parent
CALL = [chunk(n, b"%04d" % n * 40, timestamp_ms=20 * n) for n in range(8)]
TRACK = RecordedTrack(Track.INBOUND, "inbound.wav", 0, 0, "", ChunkCounts(1, 1), 0, (), 0, None)
INBOUND = Track.INBOUND
NOTHING = Rendered((), (), 0)


def reported(*content: Record, rendered: Rendered = NOTHING) -> Recording:
    """Return the document of a journal, with what was rendered of it."""
    source = b"".join(journal.encode(record) for record in (HEADER, *content))
    return report(scan([source]), rendered)


def whole(chunks: list[Record] | None = None, **options: object) -> list[Record]:
    """Return the records behind the header of a stream that ended as it should."""
    return records(chunks or [], reason=EndReason.STOP)[1:]


def codes(document: Recording) -> list[str]:
    """Return the codes of a document's findings."""
    return [finding.code for finding in document.findings]


def test_a_document_has_ids_and_times() -> None:
    """Ids, times and parameters come from the stream; the rest from rendering."""
    start = MessageRecord(0, start_message(FirstName="Jane", Größe=3))
    document = reported(start, *whole()[1:], rendered=replace(NOTHING, length=16_080))
    assert "7d56cc11-0a3c-4a3e-9df2-6f0e9c0c1d2e" == document.stream_sid
    assert {"FirstName": "Jane", "Größe": 3} == document.parameters
    assert "2026-11-22T20:30:00.000Z" == document.started_at
    assert "2026-11-22T20:30:10.000Z" == document.ended_at
    assert (2010, receiver.__version__) == (document.duration_ms, document.receiver_version)
    source = b"".join(journal.encode(record) for record in (HEADER, start, *whole()[1:]))
    assert hashlib.sha256(source).hexdigest() == document.journal_sha256
    assert (True, (), EndReason.STOP) == (
        document.complete,
        document.findings,
        document.end_reason,
    )


@pytest.mark.parametrize(
    ("sid", "provider"),
    [("MZ" + "0a" * 16, "twilio"), ("MZ" + "0A" * 16, "signalwire"), ("", "signalwire")],
)
def test_the_provider_is_known_by_the_form_of_its_ids(sid: str, provider: str) -> None:
    """Twilio's are a prefix and 32 hex digits in small letters."""
    start = json.loads(start_message())
    start["start"]["streamSid"] = sid
    assert provider == reported(MessageRecord(0, json.dumps(start).encode())).provider


@pytest.mark.parametrize(
    ("finding", "complete"),
    [
        ("journal_rewritten", True),
        ("something_new", False),
    ],
)
def test_complete_means_that_a_listener_misses_nothing(finding: str, complete: bool) -> None:
    """A finding that nobody has thought about counts as something missed."""
    document = reported(*whole(), NoteRecord(0, finding, "why"))
    assert (complete, [finding]) == (document.complete, codes(document))


def test_rejected_messages_are_reported_but_nothing_is_missed() -> None:
    """Audio that was refused has its own finding."""
    document = reported(*whole(), RejectedRecord(0, "not_json", None))
    assert (True, ["messages_rejected"]) == (document.complete, codes(document))


@pytest.mark.parametrize("kind", GapKind)
def test_gaps_are_summed_up_by_kind(kind: GapKind) -> None:
    """Silence of the sender was sent, and a pause was asked for; anything else is missing."""
    gaps = (TrackGap(0, 20, kind), TrackGap(100, 7.5, kind))
    track = replace_track(gaps=gaps)
    document = reported(*whole(), rendered=replace(NOTHING, tracks=(track,)))
    was_sent = kind is GapKind.SENDER_SILENCE
    text = "27.5 ms in 2 gaps"
    expected = () if was_sent else (Finding(f"audio_{kind.value}", text, Track.INBOUND),)
    complete = was_sent or kind is GapKind.PAUSED
    assert (complete, expected) == (document.complete, document.findings)


def replace_track(
    *, ledger: ChunkCounts = TRACK.chunks, gaps: tuple[TrackGap, ...] = ()
) -> RecordedTrack:
    """Return a recorded track with another ledger or gaps."""
    return RecordedTrack(Track.INBOUND, "inbound.wav", 0, 0, "", ledger, 0, gaps, 0, None)


@pytest.mark.parametrize(
    ("ledger", "expected"),
    [
        (ChunkCounts(5, 4, duplicate=1), []),
        (ChunkCounts(5, 4, conflict=1), ["chunk_conflicts"]),
        (ChunkCounts(5, 4), ["ledger_mismatch"]),
        (ChunkCounts(5, 5, late=3), []),
    ],
)
def test_a_ledger_that_does_not_balance_is_a_finding(
    ledger: ChunkCounts, expected: list[str]
) -> None:
    """So is a chunk that came again with other bytes; equal ones and late ones are fine."""
    rendered = replace(NOTHING, tracks=(replace_track(ledger=ledger),))
    document = reported(*whole(), rendered=rendered)
    assert (not expected, expected) == (document.complete, codes(document))


def test_a_track_of_which_nothing_was_kept_is_not_forgotten() -> None:
    """It has no file, so a finding says what would have been there."""
    refused = [
        RejectedRecord(0, "bad_base64", RejectedChunk(Track.INBOUND, chunk=n)) for n in (1, 2)
    ]
    rows = [DroppedRecord(GapKind.DISK, Track.OUTBOUND, n, None, None, None, None) for n in (3, 4)]
    document = reported(*whole(), *refused, *rows)
    assert {
        Finding("audio_rejected", "all 2 chunks were refused", Track.INBOUND),
        Finding("audio_disk", "all 7 chunks came while the disk took none", Track.OUTBOUND),
    } <= set(document.findings)
    assert not document.complete


def test_audio_of_no_known_track_is_missed() -> None:
    """It is on no track's time line, but somebody said it."""
    mixed = MessageRecord(0, b'{"event":"media","media":{"track":"mixed","payload":"eHg="}}')
    document = reported(*whole([*CALL, mixed, mixed]))
    assert not document.complete
    refused = Finding("audio_rejected", "2 chunks of no known track were refused")
    assert refused in document.findings
    assert Finding("messages_rejected", "2 times unknown_track") in document.findings


def test_what_no_gap_stands_for_is_reported_as_well() -> None:
    """Only what a gap stands for is not: complete would be a lie."""
    listed = DroppedRecord(GapKind.DISK, Track.INBOUND, 2, 8, 9, 160, 180)
    nowhere: list[Record] = [
        DroppedRecord(GapKind.DISK, Track.INBOUND, 5, None, None, None, None),
        RejectedRecord(0, "bad_base64", RejectedChunk(Track.INBOUND)),
    ]
    document = reported(*whole([listed, *nowhere]), rendered=placed(20, listed, *nowhere))
    assert {
        Finding("audio_disk", "5 chunks came while the disk took none; no gap says where", INBOUND),
        Finding("audio_rejected", "1 chunks were refused; no gap says where", INBOUND),
    } <= set(document.findings)
    assert not document.complete
    assert ["track_silent"] == codes(reported(*whole([listed]), rendered=placed(20, listed)))


SILENT = (
    "the start message names it, and nothing came; nothing is missing by sequence numbers",
    "the start message names it, and nothing came; it cannot be told by sequence numbers",
)


@pytest.mark.parametrize(
    ("unclaimed", "finding", "complete"),
    [
        (0, Finding("track_silent", SILENT[0], Track.OUTBOUND), True),
        (None, Finding("track_silent", SILENT[1], Track.OUTBOUND), True),
        (3, Finding("audio_lost", "all 3 chunks never came", Track.OUTBOUND), False),
    ],
)
def test_a_track_of_which_nothing_came_is_told(
    unclaimed: int | None, finding: Finding, complete: bool
) -> None:
    """It was lost where numbers are missing that the other track has not lost, or else silent."""
    rendered = replace(placed(20), unclaimed=unclaimed)
    document = reported(*whole([*CALL]), rendered=rendered)
    assert (complete, (finding,)) == (document.complete, document.findings)


def test_a_call_of_which_no_audio_came_is_complete_if_none_was_sent() -> None:
    """What was lost before anybody was heard is told without a track."""
    document = reported(*whole(), rendered=replace(NOTHING, unclaimed=0))
    assert (True, ()) == (document.complete, document.findings)
    document = reported(*whole(), rendered=replace(NOTHING, unclaimed=300))
    lost = Finding("audio_lost", "300 messages never came, and no audio did")
    assert (False, (lost,)) == (document.complete, document.findings)


def placed(step_ms: int, *more: Record) -> Rendered:
    """Return a placement of the call with a clock of that step."""
    rows: list[Record] = [chunk(n, b"%04d" % n * 40, timestamp_ms=step_ms * n) for n in range(8)]
    rows += more
    scanned = scan([b"".join(journal.encode(record) for record in (HEADER, *rows))])
    placement = track_timeline.place(scanned.tracks[Track.INBOUND], scanned.media_format)
    return replace(NOTHING, placements=(placement,))


@pytest.mark.parametrize(
    ("step_ms", "rule"),
    [(20, ClockRule.TIMESTAMP), (160, ClockRule.SAMPLES), (1, ClockRule.CHUNKS)],
)
def test_the_clock_that_was_used_is_reported(step_ms: int, rule: ClockRule) -> None:
    """Of several tracks, the least exact one; how a time line was built costs nobody audio."""
    document = reported(*whole(), rendered=placed(step_ms))
    assert (rule, True) == (document.clock_rule, document.complete)
    both = placed(step_ms).placements + placed(20).placements  # type: ignore[operator]  # tuples
    assert rule is reported(*whole(), rendered=replace(NOTHING, placements=both)).clock_rule


def test_a_byte_order_that_was_chosen_by_sound_is_reported() -> None:
    """One that was set is only written down."""
    chosen = replace(NOTHING, byte_order=ByteOrder.BIG, byte_order_chosen=True)
    document = reported(*whole(), rendered=chosen)
    assert (ByteOrder.BIG, ["byte_order_chosen"], True) == (
        document.byte_order,
        codes(document),
        document.complete,
    )
    document = reported(*whole(), rendered=replace(NOTHING, byte_order=ByteOrder.BIG))
    assert (ByteOrder.BIG, []) == (document.byte_order, codes(document))


CODE = re.compile(r'(?:Finding|note|NoteRecord\(0|NoteRecord)[(,] ?"([a-z_]+)"')


def table_of_findings() -> dict[str, bool]:
    """Return the codes in the package's page, and whether a listener misses something."""
    text = (PACKAGE / "recording" / "README.md").read_text("utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    answers = {"yes": True, "no": False}
    return {
        code: answers[row[-1]]
        for row in rows
        if row[-1] in answers
        for code in re.findall(r"`([a-z_]+)`", row[0])
    }


def test_the_page_knows_every_finding_and_what_it_means_for_a_listener() -> None:
    """Every code can be looked up, and `complete` is what the page says."""
    table = table_of_findings()
    sources = [path.read_text("utf-8") for path in PACKAGE.rglob("*.py")]
    codes = {code for source in sources for code in CODE.findall(source)}
    told_elsewhere = {GapKind.SENDER_SILENCE, GapKind.ERASED}  # the document's `erased` says so
    codes |= {f"audio_{kind.value}" for kind in GapKind if kind not in told_elsewhere}
    assert codes == set(table)
    for code, missed in table.items():
        assert missed != reported(*whole(), NoteRecord(0, code, "why")).complete, code
