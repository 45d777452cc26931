"""The document `recording.json`: what is written is what is read, and nothing else passes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import UnreadableError
from receiver.media import (
    ByteOrder,
    ChunkCounts,
    ClockRule,
    Encoding,
    EndReason,
    Finding,
    GapKind,
    MediaFormat,
    Track,
    TrackGap,
    visible,
)
from receiver.recording import document as recording
from receiver.recording.document import (
    DtmfPress,
    Level,
    MarkPassed,
    RecordedTrack,
    Recording,
    Timeline,
    TimelineEvent,
    timeline_of,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
TRACK = RecordedTrack(
    track=Track.INBOUND,
    file="inbound.wav",
    samples=8000,
    duration_ms=1000,
    sha256="0" * 64,
    chunks=ChunkCounts(received=50, written=48, duplicate=1, late=3, conflict=0, rejected=1),
    silence_ms=40.125,
    gaps=(TrackGap(100, 20, GapKind.LOST), TrackGap(200.125, 20.125, GapKind.REJECTED)),
    first_timestamp_ms=99,
    drift_ppm=-3.5,
    level_dbfs=Level(-23.4, -3.1),
    silence_share=0.25,
)
DOCUMENT = Recording(
    schema_version=1,
    id="00112233aabbccdd",
    provider="signalwire",
    account_sid="b08dacad",
    call_sid="76ac3c36",
    stream_sid="7d56cc11",
    started_at="2026-11-22T20:30:00.000Z",
    ended_at="2026-11-22T20:30:01.000Z",
    end_reason=EndReason.STOP,
    complete=False,
    findings=(Finding("audio_lost", "20 ms in 1 gaps", Track.INBOUND), Finding("crashed", "")),
    parameters={"FirstName": "Jane"},
    media_format=MediaFormat(Encoding.L16, 16_000),
    duration_ms=1000,
    clock_rule=ClockRule.TIMESTAMP,
    tracks=(TRACK,),
    dtmf=(DtmfPress(250, "5", None),),
    marks=(MarkPassed(500, "greeting"),),
    journal_sha256="f" * 64,
    receiver_version="0.1.0",
    byte_order=ByteOrder.BIG,
    stereo={"file": "stereo.wav", "sha256": "e" * 64},
    peaks={"file": "peaks.dat", "sha256": "d" * 64},
    timeline={"file": "timeline.json", "sha256": "c" * 64},
)


def test_the_document_round_trips() -> None:
    """Every field of it."""
    assert DOCUMENT == recording.decode(recording.encode(DOCUMENT))


def test_the_document_is_for_people_too() -> None:
    """Indented UTF-8 with a final newline; the same recording gives the same bytes."""
    encoded = recording.encode(msgspec.structs.replace(DOCUMENT, parameters={"Straße": "名"}))
    assert encoded.startswith(b'{\n  "schema_version": 1,\n  "id": "00112233aabbccdd",\n')
    assert encoded.endswith(b"\n}\n")
    assert '"Straße": "名"' in encoded.decode()


def test_the_fields_are_those_of_the_contract() -> None:
    """Programs read them by these names."""
    document = json.loads(recording.encode(DOCUMENT))
    assert (
        "schema_version id provider account_sid call_sid stream_sid started_at ended_at end_reason"
        " complete findings parameters media_format duration_ms clock_rule tracks dtmf marks"
        " journal_sha256 receiver_version byte_order stereo peaks timeline document_sha256"
    ) == " ".join(document)
    assert (
        "track file samples duration_ms sha256 chunks silence_ms gaps first_timestamp_ms drift_ppm"
        " level_dbfs silence_share"
    ) == " ".join(document["tracks"][0])
    assert "received written duplicate late conflict rejected" == " ".join(
        document["tracks"][0]["chunks"]
    )
    assert {"start_ms": 100, "duration_ms": 20, "kind": "lost"} == document["tracks"][0]["gaps"][0]
    assert [
        {"code": "audio_lost", "detail": "20 ms in 1 gaps", "track": "inbound"},
        {"code": "crashed", "detail": ""},
    ] == document["findings"]
    assert {"encoding": "audio/x-L16", "sample_rate": 16_000, "channels": 1} == document[
        "media_format"
    ]
    assert [{"at_ms": 250, "digit": "5", "duration_ms": None}] == document["dtmf"]


@given(st.data())
def test_no_changed_bit_of_a_document_goes_unseen(data: st.DataObject) -> None:
    """Wherever it is, in the hash and its name, too; a document without a hash is as it was."""
    document = bytearray(recording.encode(DOCUMENT))
    assert recording.is_intact(bytes(document))
    assert recording.has_hash(bytes(document))
    position = data.draw(st.integers(0, len(document) - 1) | st.integers(len(document) - 110))
    document[position % len(document)] ^= 1 << data.draw(st.integers(0, 7))
    assert not recording.is_intact(bytes(document))


@pytest.mark.parametrize("stereo", [None, {"file": "stereo.wav", "sha256": "0" * 64}])
def test_a_document_of_before_has_no_hash_and_is_intact(stereo: dict[str, str] | None) -> None:
    """Whatever its last field is."""
    plain = msgspec.structs.replace(DOCUMENT, stereo=stereo)
    before = msgspec.json.format(msgspec.json.encode(plain), indent=2) + b"\n"
    assert (False, True) == (recording.has_hash(before), recording.is_intact(before))
    assert plain == recording.decode(before)


def test_the_hash_of_a_document_can_be_checked_elsewhere() -> None:
    """As the page says: of the file with an empty text in place of the hash."""
    document = recording.encode(DOCUMENT)
    says = json.loads(document)["document_sha256"]
    assert says == hashlib.sha256(document.replace(says.encode(), b"")).hexdigest()


@given(st.dictionaries(TEXT, TEXT))
def test_what_a_terminal_would_obey_or_hide_is_escaped(parameters: dict[str, str]) -> None:
    """The file can be looked at with any program, and means the same."""
    parameters |= {"\x7f\u202e": "\U000e0041\u2066\ufe0f\x1b"}
    document = recording.encode(msgspec.structs.replace(DOCUMENT, parameters=parameters))
    lines = document.decode().split("\n")
    assert lines == [visible(line) for line in lines]
    assert parameters == recording.decode(document).parameters


def test_what_was_not_asked_for_is_left_out() -> None:
    """Byte order is for L16, the stereo file where it was asked for."""
    plain = msgspec.structs.replace(DOCUMENT, byte_order=None, stereo=None)
    document = json.loads(recording.encode(plain))
    assert not {"byte_order", "stereo"} & set(document)
    assert plain == recording.decode(recording.encode(plain))


@given(
    st.dictionaries(
        TEXT,
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
            max_leaves=5,
        ).filter(lambda value: "inf" not in repr(value)),
        max_size=99,
    )
)
def test_parameters_are_written_exactly(parameters: dict[str, Any]) -> None:
    """Any JSON that the start message may have held."""
    document = msgspec.structs.replace(DOCUMENT, parameters=parameters)
    encoded = recording.encode(document)
    assert parameters == json.loads(encoded)["parameters"]
    assert parameters == recording.decode(encoded).parameters


def test_fields_of_a_later_version_are_tolerated() -> None:
    """At every level."""
    later = json.loads(recording.encode(DOCUMENT))
    later["added"] = later["tracks"][0]["added"] = later["findings"][0]["added"] = {"a": [1]}
    assert DOCUMENT == recording.decode(json.dumps(later).encode())


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\0\0\0\0",
        b"{}",
        b"\xff",
        b'{"id": "\xff"}',
        b"[" * 100_000,
        b'{"parameters": ' + b"[" * 100_000,
        recording.encode(DOCUMENT)[:-10],
        recording.encode(DOCUMENT) * 2,
        recording.encode(DOCUMENT).replace(b'"stop"', b'"unheard of"'),
        recording.encode(DOCUMENT).replace(b"8000", b'"8000"'),
        recording.encode(DOCUMENT).replace(b'"call_sid"', b'"call_id"'),
    ],
)
def test_anything_else_is_unreadable(document: bytes) -> None:
    """One error, whatever is wrong."""
    with pytest.raises(UnreadableError, match=r"not a recording\.json"):
        recording.decode(document)


@given(st.binary())
def test_any_bytes_are_a_document_or_unreadable(document: bytes) -> None:
    """Never another exception."""
    with pytest.raises(UnreadableError):
        recording.decode(document)


@given(*[st.integers(0, 1000)] * 5)
def test_a_ledger_balances_when_every_chunk_is_accounted_for(
    written: int, duplicate: int, conflict: int, rejected: int, late: int
) -> None:
    """Late chunks are among the written ones; one chunk too many or too few is found."""
    received = written + duplicate + conflict + rejected
    for difference in (-1, 0, 1):
        ledger = ChunkCounts(received + difference, written, duplicate, late, conflict, rejected)
        assert (difference == 0) is ledger.balanced


TIMED = RecordedTrack(
    track=Track.OUTBOUND,
    file="outbound.wav",
    samples=80_000,
    duration_ms=10_000,
    sha256="0" * 64,
    chunks=ChunkCounts(500, 500),
    silence_ms=30.25,
    gaps=(TrackGap(100.125, 20.125, GapKind.LOST), TrackGap(500, 10.125, GapKind.PAUSED)),
    first_timestamp_ms=0,
    drift_ppm=None,
)


def test_events_stand_in_the_order_of_their_beginnings() -> None:
    """Of both tracks and of none, each with what is known of it."""
    timeline = timeline_of(
        (TIMED,),
        [(Track.OUTBOUND, 7008, 10_016)],
        [DtmfPress(250, "5", 80), DtmfPress(200, "#", None)],
        [MarkPassed(7008, "bye")],
    )
    found = json.loads(recording.encode_timeline(timeline))
    assert {
        "version": 1,
        "events": [
            {"t_ms": 100.125, "end_ms": 120.25, "track": "outbound", "kind": "lost"},
            {"t_ms": 200, "end_ms": 200, "track": None, "kind": "dtmf", "digit": "#"},
            {"t_ms": 250, "end_ms": 330, "track": None, "kind": "dtmf", "digit": "5"},
            {"t_ms": 500, "end_ms": 510.125, "track": "outbound", "kind": "paused"},
            {"t_ms": 7008, "end_ms": 7008, "track": None, "kind": "mark", "name": "bye"},
            {"t_ms": 7008, "end_ms": 10_000, "track": "outbound", "kind": "silence"},
        ],
    } == found


def test_each_event_has_a_line() -> None:
    """Nothing of it does anything to a terminal; nothing happened is a list, too."""
    timeline = timeline_of((), (), (), [MarkPassed(0, "a\u202e\x1b\nb"), MarkPassed(1, "c")])
    lines = recording.encode_timeline(timeline).decode().splitlines()
    assert 4 == len(lines)
    assert all(line.isprintable() for line in lines)
    assert "a\u202e\x1b\nb" == json.loads(lines[1].removesuffix(","))["name"]
    assert {"version": 1, "events": []} == json.loads(recording.encode_timeline(Timeline()))


EVENTS = st.builds(
    TimelineEvent,
    t_ms=st.floats(0, 1e9),
    end_ms=st.floats(0, 1e9),
    track=st.none() | st.sampled_from(Track),
    kind=st.sampled_from(["lost", "mark", "later"]),
    digit=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
)


@given(st.lists(EVENTS))
def test_what_is_written_is_what_is_read(events: list[TimelineEvent]) -> None:
    """Of kinds of later versions, too."""
    timeline = Timeline(events=tuple(events))
    assert timeline == recording.decode_timeline(recording.encode_timeline(timeline))


@pytest.mark.parametrize("content", [b"", b"null", b"{", b"\xff", b'{"events":5}', b"[" * 5000])
def test_what_is_none_is_refused(content: bytes) -> None:
    """Whatever a disk has made of it."""
    with pytest.raises(UnreadableError, match=r"timeline\.json"):
        recording.decode_timeline(content)


def test_fields_of_later_versions_are_passed_over() -> None:
    """A reader of this version shows what it knows."""
    event = {"t_ms": 0, "end_ms": 5, "track": None, "kind": "speech", "text": "hello"}
    found = recording.decode_timeline(msgspec.json.encode({"version": 2, "events": [event]}))
    assert (TimelineEvent(0, 5, None, "speech"),) == found.events
