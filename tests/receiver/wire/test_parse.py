"""Every shape in which a provider's messages arrive, and every way in which they can be wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.media import (
    SAMPLE_RATES,
    Chunk,
    Encoding,
    Finding,
    MediaFormat,
    RejectedChunk,
    Track,
)
from receiver.wire.messages import (
    Connected,
    DtmfMessage,
    MarkMessage,
    Message,
    MessageRejected,
    ProtocolViolation,
    Start,
    Stop,
    Unknown,
    UntrackedChunk,
)
from receiver.wire.parse import description, ids
from receiver.wire.parse import parse as parse_bytes

AUDIO = b"\xff\x7f\x00" * 40
PAYLOAD = base64.b64encode(AUDIO).decode()
EXACT = 2**53
PCMU, PCMA, L16 = Encoding.PCMU, Encoding.PCMA, Encoding.L16
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


def parse(document: object) -> Message:
    """Parse a message given as Python values."""
    return parse_bytes(json.dumps(document).encode())


def media(**fields: Any) -> dict[str, Any]:
    """Return a media message as SignalWire writes it; fields of its body replaced or added."""
    body = {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": PAYLOAD}
    return {"event": "media", "sequenceNumber": "3", "media": body | fields}


def start(**fields: Any) -> dict[str, Any]:
    """Return a start message as SignalWire writes it; fields of its body replaced or added."""
    body = {
        "streamSid": "7d56cc11",
        "accountSid": "b08dacad",
        "callSid": "76ac3c36",
        "tracks": ["inbound", "outbound"],
        "customParameters": {"FirstName": "Jane"},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    }
    return {"event": "start", "sequenceNumber": "1", "start": body | fields}


def rejection(message: object) -> MessageRejected:
    """Return what a message is refused with."""
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    with pytest.raises(MessageRejected) as caught:
        parse_bytes(content)
    return caught.value


# As documented


SIGNALWIRE_START = Start(
    "7d56cc11",
    "b08dacad",
    "76ac3c36",
    ("inbound", "outbound"),
    {"FirstName": "Jane"},
    MediaFormat(),
    1,
)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {"event": "connected", "protocol": "Call", "version": "0.2.0"},
            Connected("Call", "0.2.0"),
        ),
        (start(), SIGNALWIRE_START),
        (media(), Chunk(Track.INBOUND, 3, 1, 20, AUDIO)),
        (media(track="outbound"), Chunk(Track.OUTBOUND, 3, 1, 20, AUDIO)),
        (
            {"event": "dtmf", "sequenceNumber": "123", "dtmf": {"digit": "5", "duration": 2000}},
            DtmfMessage("5", 2000, 123),
        ),
        ({"event": "mark", "mark": {"name": "greeting"}}, MarkMessage("greeting")),
        ({"event": "stop", "sequenceNumber": "999"}, Stop(999)),
    ],
)
def test_signalwire(message: object, expected: Message) -> None:
    """Numbers as text, stream id inside start, stop without a body."""
    assert expected == parse(message)


SID = {"streamSid": "MZ0123"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {"event": "connected", "protocol": "Call", "version": "1.0.0"},
            Connected("Call", "1.0.0"),
        ),
        (
            {
                "event": "start",
                "sequenceNumber": "1",
                "start": {
                    "accountSid": "AC1",
                    "callSid": "CA1",
                    "tracks": ["inbound"],
                    "customParameters": {},
                    "mediaFormat": {
                        "encoding": "audio/x-mulaw",
                        "sampleRate": "8000",
                        "channels": "1",
                    },
                },
            }
            | SID,
            Start("MZ0123", "AC1", "CA1", ("inbound",), {}, MediaFormat(), 1),
        ),
        (media(timestamp="99") | SID, Chunk(Track.INBOUND, 3, 1, 99, AUDIO, "MZ0123")),
        (
            {"event": "dtmf", "sequenceNumber": "5", "dtmf": {"track": "inbound", "digit": "#"}}
            | SID,
            DtmfMessage("#", None, 5),
        ),
        (
            {"event": "mark", "sequenceNumber": "4", "mark": {"name": "m"}} | SID,
            MarkMessage("m", 4),
        ),
        (
            {"event": "stop", "sequenceNumber": "5", "stop": {"accountSid": "AC1"}} | SID,
            Stop(5),
        ),
    ],
)
def test_twilio(message: object, expected: Message) -> None:
    """The stream id on every message, ids with a prefix, stop with a body."""
    assert expected == parse(message)


# Counters


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (0, 0),
        ("0", 0),
        (7, 7),
        ("7", 7),
        (7.0, 7),
        (-3, -3),
        ("-3", -3),
        (EXACT - 1, EXACT - 1),
        (str(EXACT - 1), EXACT - 1),
        (EXACT, None),
        (str(EXACT), None),
        (-EXACT, None),
        (10**30, None),
        ("9" * 5000, None),
        (7.5, None),
        (True, None),
        (None, None),
        ("", None),
        ("seven", None),
        ("NaN", None),
        ([7], None),
        ({"a": 7}, None),
    ],
)
def test_counters_of_any_form(written: object, expected: int | None) -> None:
    """Text or number; what is no number, or too large to be exact, counts as missing."""
    message = media(chunk=written, timestamp=written) | {"sequenceNumber": written}
    assert Chunk(Track.INBOUND, expected, expected, expected, AUDIO) == parse(message)
    assert Stop(expected) == parse({"event": "stop", "sequenceNumber": written})


def test_counters_may_be_missing() -> None:
    """Each of them."""
    message = {"event": "media", "media": {"track": "inbound", "payload": PAYLOAD}}
    assert Chunk(Track.INBOUND, None, None, None, AUDIO) == parse(message)


def test_one_odd_counter_leaves_the_others_alone() -> None:
    """The careful reading of a message says the same as the quick one."""
    message = media(chunk=[], timestamp="40") | {"sequenceNumber": 3}
    assert Chunk(Track.INBOUND, 3, None, 40, AUDIO) == parse(message)


@given(
    track=st.sampled_from(Track),
    counters=st.tuples(*[st.none() | st.integers(-EXACT + 1, EXACT - 1)] * 3),
    spelling=st.sampled_from([str, int, float, lambda number: f" {number}"]),
    payload=st.binary(max_size=400),
    extra=st.dictionaries(TEXT.map("x-".__add__), JSON_VALUE, max_size=3),
)
def test_any_media_message_round_trips(
    track: Track,
    counters: tuple[int | None, int | None, int | None],
    spelling: Any,
    payload: bytes,
    extra: dict[str, Any],
) -> None:
    """However its numbers are spelt and whatever else it says."""
    sequence, chunk, timestamp = (None if n is None else spelling(n) for n in counters)
    body = {
        "track": track.value,
        "chunk": chunk,
        "timestamp": timestamp,
        "payload": base64.b64encode(payload).decode(),
    }
    message = {"event": "media", "sequenceNumber": sequence, "media": body | extra, **extra}
    assert Chunk(track, *counters, payload) == parse(message)


# Start


@pytest.mark.parametrize("absent", [{"customParameters": None}, {"customParameters": ["a"]}, {}])
def test_parameters_may_be_missing(absent: dict[str, Any]) -> None:
    """Or be no object."""
    body = {"streamSid": "s"} | absent
    found = parse({"event": "start", "start": body})
    assert isinstance(found, Start)
    assert ("s", {}) == (found.stream_sid, found.parameters)


@given(st.dictionaries(TEXT, JSON_VALUE, max_size=99))
def test_parameters_are_kept_exactly(parameters: dict[str, Any]) -> None:
    """Any names, any values."""
    found = parse(start(customParameters=parameters))
    assert isinstance(found, Start)
    assert json.loads(json.dumps(parameters)) == found.parameters


DEEP = {
    "lists": b"[" * 33 + b"]" * 33,
    "objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "a wide one": b'["]}", [], ' + b"[" * 40 + b'"\\\\", "\\"[[", \xc3\xa4' + b"]" * 40 + b", {}]",
    "700 levels": b"[ " * 700 + b"]" * 700,
    "7000 levels": b'{"a": [' * 3500 + b"]}" * 3500,
}


def in_start(*values: bytes) -> bytes:
    """Return a start message with parameters of these values, as JSON, by their places."""
    body = json.dumps(start(customParameters="?")).encode()
    named = b", ".join(b'"%d": %s' % named for named in enumerate(values))
    return body.replace(b'"?"', b"{%s}" % named)


def test_a_parameter_may_be_nested() -> None:
    """To 32 levels."""
    deepest = b'[{"a":' * 16 + b'"]"' + b"}]" * 16
    found = parse_bytes(in_start(deepest, deepest))
    assert isinstance(found, Start)
    assert {"0": json.loads(deepest), "1": json.loads(deepest)} == found.parameters


@pytest.mark.parametrize("deep", DEEP.values(), ids=DEEP)
def test_a_parameter_that_is_nested_too_deeply_is_kept_as_its_text(deep: bytes) -> None:
    """To the letter, and everything else of the message is what it is without it."""
    found = parse_bytes(in_start(b'"one"', deep, b"[2]", deep))
    assert isinstance(found, Start)
    assert {"0": "one", "1": deep.decode(), "2": [2], "3": deep.decode()} == found.parameters
    assert msgspec.structs.replace(found, parameters={}) == parse(start(customParameters={}))


def test_what_a_message_says_does_not_depend_on_who_asks() -> None:
    """A renderer may have made more calls than a live session, and reads the same."""
    message = in_start(b"[" * 700 + b"]" * 700)

    def parse_below(calls: int) -> Message:
        return parse_below(calls - 1) if calls else parse_bytes(message)

    assert parse_bytes(message) == parse_below(500)


def test_too_many_lists_and_objects_cost_the_parameters() -> None:
    """Also where none of them is deep."""
    assert isinstance(parse_bytes(in_start(b"[" + b"[]," * 16_000 + b"[]]")), Start)
    found = parse_bytes(in_start(b"[" + b"[]," * 17_000 + b"[]]"))
    assert isinstance(found, Start)
    left_out = [finding.code for finding in found.findings if finding.code != "format_assumed"]
    assert ({}, ["parameters_not_kept"]) == (found.parameters, left_out)
    assert "too_deep" == rejection(b'{"event":"mark","x":[' + b"[]," * 17_000 + b"[]]}").code
    brackets_in_text = json.dumps("[{" * 17_000).encode()
    assert isinstance(parse_bytes(in_start(brackets_in_text)), Start)


def test_ids_of_another_type_are_empty() -> None:
    """They are never guessed, and the audio is kept all the same."""
    odd = start(streamSid=5, accountSid=None, callSid=["c"], tracks="inbound", mediaFormat=None)
    found = parse(odd)
    assert isinstance(found, Start)
    assert ("", "", "", ("inbound",)) == (
        *(found.stream_sid, found.account_sid, found.call_sid),
        found.tracks,
    )


def test_tracks_that_are_no_text_are_left_out() -> None:
    """The list is only passed on, not used."""
    found = parse(start(tracks=["inbound", 5, None]))
    assert isinstance(found, Start)
    assert ("inbound",) == found.tracks


@pytest.mark.parametrize("rate", [16_000, "16000", 16_000.0])
def test_the_media_format_is_read(rate: object) -> None:
    """As numbers or as text."""
    wire = {"encoding": "audio/x-L16", "sampleRate": rate, "channels": 1}
    found = parse(start(mediaFormat=wire))
    assert isinstance(found, Start)
    assert MediaFormat(Encoding.L16, 16_000) == found.media_format


def _by_name(wire: dict[str, Any]) -> dict[str, Any]:
    return {name.lower(): value for name, value in reversed(wire.items())}


@pytest.mark.parametrize(
    "wire",
    [
        {"encoding": "opus", "sampleRate": 48_000, "channels": 1},
        {"encoding": "audio/x-mulaw", "sampleRate": 11_025},
        {"encoding": "audio/x-mulaw", "sampleRate": "many"},
        {"encoding": "audio/x-mulaw", "sampleRate": 0},
        {"encoding": "audio/x-mulaw", "sampleRate": True},
        {"encoding": "audio/x-mulaw", "channels": 2},
        {"encoding": "audio/x-mulaw", "channels": "stereo"},
    ],
)
def test_a_format_that_cannot_be_decoded_is_said(wire: dict[str, Any]) -> None:
    """Nothing is guessed, and the ids are read all the same."""
    found = parse(start(mediaFormat=wire))
    assert isinstance(found, Start)
    assert "unsupported" in found.refused_format
    said = f"{found.refused_format}: the start message says {json.dumps(_by_name(wire))}"
    assert [Finding("format_refused", said)] == list(found.findings)
    assert "76ac3c36" == found.call_sid


@pytest.mark.parametrize(
    ("fields", "expected", "assumed"),
    [
        ({}, (PCMU, 8000), "mu-law at 8000 Hz"),
        ({"mediaFormat": None}, (PCMU, 8000), "mu-law at 8000 Hz"),
        ({"mediaFormat": 7}, (PCMU, 8000), "mu-law at 8000 Hz"),
        ({"mediaFormat": {}}, (PCMU, 8000), "mu-law at 8000 Hz"),
        ({"mediaFormat": {"encoding": ["L16"]}}, (PCMU, 8000), "mu-law at 8000 Hz"),
        ({"mediaFormat": {"encoding": " "}}, (PCMU, 8000), "mu-law at 8000 Hz"),
        ({"mediaFormat": {"sampleRate": 16_000}}, (PCMU, 16_000), "mu-law"),
        ({"mediaFormat": {"encoding": "L16"}}, (L16, 8000), "8000 Hz"),
        ({"mediaFormat": "PCMA"}, (PCMA, 8000), "8000 Hz"),
        ({"mediaFormat": "L16@16000h"}, (L16, 16_000), ""),
        ({"media_format": {"encoding": "PCMA", "sample_rate": "8000"}}, (PCMA, 8000), ""),
        ({"MediaFormat": {"Encoding": "L16", "Sample-Rate": 16_000}}, (L16, 16_000), ""),
        ({"encoding": "audio/x-alaw", "sample_rate": 8000}, (PCMA, 8000), ""),
        ({"codec": "L16", "rate": 24_000}, (L16, 24_000), ""),
        ({"format": {"encoding": "PCMA", "rate": 8000}}, (PCMA, 8000), ""),
        ({"audio": {"codec": "PCMA", "sample_rate": 8000}}, (PCMA, 8000), ""),
        ({"customParameters": {"encoding": "PCMA"}}, (PCMU, 8000), "mu-law at 8000 Hz"),
    ],
)
def test_a_format_is_read_in_every_spelling_and_what_is_left_open_is_said(
    fields: dict[str, Any], expected: tuple[Encoding, int], assumed: str
) -> None:
    """In the start object, or at the top level of the message."""
    inner = parse_bytes(
        json.dumps({"event": "start", "start": {"callSid": "c", **fields}}).encode()
    )
    outer = parse_bytes(json.dumps({"event": "start", "callSid": "c", **fields}).encode())
    assert isinstance(inner, Start)
    assert isinstance(outer, Start)
    assert [MediaFormat(*expected)] * 2 == [inner.media_format, outer.media_format]
    said = [finding.detail for finding in inner.findings if finding.code == "format_assumed"]
    assert [assumed in text for text in said] == [True] * bool(assumed)
    assert (bool(assumed), inner.findings) == (inner.has_assumed_format, outer.findings)


@pytest.mark.parametrize(
    "message",
    [
        {"start": {"stream_sid": "s", "call_sid": "c", "account_sid": "a"}},
        {"start": {"streamId": "s", "callId": "c", "accountId": "a"}},
        {"stream_id": "s", "start": {"call_control_id": "c", "account_id": "a"}},
        {"streamSid": "s", "callSid": "c", "accountSid": "a", "start": {"streamSid": ""}},
        {"streamSid": "s", "callSid": "c", "accountSid": "a"},
    ],
)
def test_ids_of_a_start_are_read_in_every_spelling(message: dict[str, Any]) -> None:
    """Within `start` or beside it, and there may be no `start` object at all."""
    found = parse_bytes(json.dumps({"event": "start", **message}).encode())
    assert isinstance(found, Start)
    assert ("s", "c", "a") == (found.stream_sid, found.call_sid, found.account_sid)
    assert ("s", "c", "a") == ids(json.dumps({"event": "mark", **message}).encode()) or (
        "start" in message
    )


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["inbound_track", "Outbound"], ("inbound", "outbound")),
        ("both_tracks", ("inbound", "outbound")),
        ("outbound_track", ("outbound",)),
        (["mixed"], ("mixed",)),
        (["a"] * 1000, ("a",) * 16),
    ],
)
def test_tracks_of_a_start_are_read_in_every_spelling(
    written: object, read: tuple[str, ...]
) -> None:
    """Ours are named in one way; others stay as they are, and are few."""
    found = parse(start(tracks=written))
    assert isinstance(found, Start)
    assert read == found.tracks


def test_too_many_parameters_cost_the_parameters() -> None:
    """And nothing else of the start message."""
    most = {str(at): "" for at in range(4096)}
    whole = parse(start(customParameters=most))
    assert isinstance(whole, Start)
    assert (most, ()) == (whole.parameters, whole.findings)
    found = parse(start(customParameters=most | {"x": ""}))
    assert isinstance(found, Start)
    assert ({}, ["parameters_not_kept"]) == (found.parameters, [f.code for f in found.findings])
    assert "76ac3c36" == found.call_sid


def test_what_has_a_name_has_a_length() -> None:
    """Ids, names and digits are cut at 4 KiB, wherever a character ends there."""
    long = "é" * 5000
    found = parse(start(callSid=long, customParameters={long: long}))
    assert isinstance(found, Start)
    assert ("é" * 2048, {"é" * 2048: long}) == (found.call_sid, found.parameters)
    assert DtmfMessage("1" * 4096) == parse({"event": "dtmf", "dtmf": {"digit": "1" * 5000}})
    assert MarkMessage("1" * 4096) == parse({"event": "mark", "mark": {"name": "1" * 5000}})


@pytest.mark.parametrize("number", [7, "7"])
@pytest.mark.parametrize("name", ["sequenceNumber", "sequence_number"])
@pytest.mark.parametrize(
    ("track", "expected"),
    [("inbound", Track.INBOUND), ("outbound_track", Track.OUTBOUND), ("Outbound", Track.OUTBOUND)],
)
def test_media_messages_are_read_in_every_spelling(
    number: object, name: str, track: str, expected: Track
) -> None:
    """Snake case, and the longer names of tracks."""
    body = {"track": track, "chunk": number, "timestamp": "20", "payload": PAYLOAD}
    for sid in ("streamSid", "stream_sid", "stream_id", "streamId"):
        found = parse({"event": "media", name: number, sid: "s", "media": body})
        assert isinstance(found, Chunk)
        counters = (found.sequence_number, found.chunk, found.timestamp_ms)
        assert (expected, 7, 7, 20, AUDIO) == (found.track, *counters, found.payload)
        usual = (name, track) == ("sequenceNumber", "inbound")  # SignalWire's, with another's id
        assert found.stream_sid == ("s" if not usual or sid == "streamSid" else None)


def test_a_media_message_without_a_track_says_so() -> None:
    """It is the only one of the stream's; that is for others to know."""
    for track in ({}, {"track": ""}, {"track": None}):
        found = parse({"event": "media", "media": {"chunk": 1, "payload": PAYLOAD, **track}})
        assert UntrackedChunk(Track.INBOUND, None, 1, None, AUDIO) == found


@pytest.mark.parametrize(
    "audio", [b"\xfb\xff", b"\xfb\xff\xbf", b"\xfb\xff\xbf\x00", b"\xfb" * 160]
)
def test_base64_is_read_in_every_usual_form(audio: bytes) -> None:
    """Without padding, in lines, and in the alphabet of URLs."""
    usual, in_urls = base64.b64encode(audio).decode(), base64.urlsafe_b64encode(audio).decode()
    for written in (usual.rstrip("="), in_urls, in_urls.rstrip("="), f"{usual[:2]}\r\n{usual[2:]}"):
        assert Chunk(Track.INBOUND, 3, 1, 20, audio) == parse(media(payload=written))


def test_refused_audio_is_handed_over() -> None:
    """What cannot be placed is kept as it came."""
    with pytest.raises(MessageRejected) as caught:
        parse({"event": "media", "media": {"track": "mixed", "payload": PAYLOAD}})
    assert (AUDIO, "mixed") == (caught.value.audio, caught.value.label)
    with pytest.raises(MessageRejected) as caught:
        parse({"event": "media", "media": {"track": "inbound", "payload": "!!"}})
    assert b"!!" == caught.value.audio


@pytest.mark.parametrize(
    ("message", "looks", "call"),
    [
        (b"\x00\xff\xfe", "binary", ""),
        (b"\x00\x00", "binary", ""),
        (b"GET / HTTP/1.1", "is not JSON", ""),
        (b"[]", "is not a JSON object", ""),
        (b'{"callId":"c"}', "it has no event", "c"),
        (
            b'{"type":"open","version":"2","serverseq":0,"parameters":{"conversationId":"c"}}',
            "Genesys AudioHook, its event is 'open'",
            "c",
        ),
        (
            b'{"eventType":"start","metadata":{"callId":"c"}}',
            "Bandwidth, its event is 'start'",
            "c",
        ),
        (
            b'{"event":"websocket:connected","content-type":"audio/l16"}',
            "Vonage, its event is 'websocket:connected'",
            "",
        ),
        (b'{"sampleRate":8000,"mixType":"mono","callSid":"c"}', "jambonz, it has no event", "c"),
    ],
)
def test_what_is_no_media_stream_is_described(message: bytes, looks: str, call: str) -> None:
    """So that the log shows what has connected."""
    assert (looks, call) == description(message)


# What is refused


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "not_json"),
        (b"\0", "not_json"),
        (b"\0\0\0\0", "not_json"),
        (b'{"event":"stop"}\0', "not_json"),
        (b'{"event":"stop"} {"event":"stop"}', "not_json"),
        (b"\x89PNG\r\n\x1a\n", "not_utf8"),
        (b'{"event":"\xff\xfe"}', "not_utf8"),
        (b'{"event":"\xed\xa0\x80"}', "not_utf8"),
        (b"[" * 100_000, "too_deep"),
        (b'{"event":"stop","x":' + b'{"a":' * 100_000, "too_deep"),
        (b"[]", "not_object"),
        (b"null", "not_object"),
        (b'"stop"', "not_object"),
        (b"5", "not_object"),
        (b"{}", "no_event"),
        (b'{"event":null}', "no_event"),
        (b'{"event":{}}', "no_event"),
        ({"event": "start"}, "no_body"),
        ({"event": "start", "start": "now"}, "no_body"),
        ({"event": "media"}, "no_body"),
        ({"event": "media", "media": []}, "no_body"),
        ({"event": "dtmf"}, "no_body"),
        ({"event": "mark"}, "no_body"),
        ({"event": "dtmf", "dtmf": {}}, "bad_digit"),
        ({"event": "dtmf", "dtmf": {"digit": 5}}, "bad_digit"),
        ({"event": "dtmf", "dtmf": {"digit": ""}}, "bad_digit"),
        (media(track="sideways"), "unknown_track"),
        (media(track="mixed", payload=None), "unknown_track"),
    ],
)
def test_what_cannot_be_used_is_refused_by_a_stable_word(message: object, code: str) -> None:
    """The word is a counter's label; the stream lives on."""
    refused = rejection(message)
    assert code == refused.code
    assert refused.chunk is None


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ("QQ==QQ==", "bad_base64"),
        ("é", "bad_base64"),
        ("\0", "bad_base64"),
        (None, "no_payload"),
        (5, "no_payload"),
        (["QUJD"], "no_payload"),
    ],
)
def test_a_refused_chunk_keeps_its_place(payload: object, code: str) -> None:
    """Its numbers say where the silence belongs."""
    refused = rejection(media(payload=payload, track="outbound"))
    assert code == refused.code
    assert RejectedChunk(Track.OUTBOUND, 3, 1, 20) == refused.chunk


def test_an_empty_payload_is_a_chunk() -> None:
    """Of no length."""
    assert Chunk(Track.INBOUND, 3, 1, 20, b"") == parse(media(payload=""))


def test_unknown_events_are_distinguished_and_bounded() -> None:
    """A later version of the provider may send them."""
    assert Unknown("telemetry") == parse({"event": "telemetry", "telemetry": {"a": [1, None]}})
    assert Unknown("") == parse({"event": ""})
    assert Unknown("x" * 100) == parse({"event": "x" * 100_000})


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_any_buffer_is_a_message(wrap: Any) -> None:
    """Transports hand over what they have."""
    assert Stop(9) == parse_bytes(wrap(b'{"event":"stop","sequenceNumber":9}'))
    assert Chunk(Track.INBOUND, 3, 1, 20, AUDIO) == parse_bytes(wrap(json.dumps(media()).encode()))


FIELDS = [
    "track",
    "chunk",
    "timestamp",
    "payload",
    "digit",
    "duration",
    "name",
    "streamSid",
    "callSid",
    "tracks",
    "mediaFormat",
    "customParameters",
]
EVENTS = ["connected", "start", "media", "dtmf", "mark", "stop", "else"]


def taken_or_refused(message: bytes) -> None:
    """Parse a message; fail on any exception but the two that are promised."""
    try:
        assert isinstance(parse_bytes(message), Message)
    except (MessageRejected, ProtocolViolation) as refused:
        assert refused.detail  # noqa: PT017  (both outcomes are right)


@given(st.binary())
@example(b"\xed\xa0\x80")
def test_any_bytes_are_a_message_or_refused(message: bytes) -> None:
    """Never another exception."""
    taken_or_refused(message)


@given(
    event=st.sampled_from(EVENTS),
    body=st.dictionaries(
        st.sampled_from(FIELDS),
        JSON_VALUE | st.sampled_from([*Track, PAYLOAD, {"encoding": "pcmu", "channels": 1}]),
    ),
    top=st.dictionaries(st.sampled_from(["sequenceNumber", "streamSid", "version"]), JSON_VALUE),
)
def test_any_values_are_a_message_or_refused(
    event: str, body: dict[str, Any], top: dict[str, Any]
) -> None:
    """The right fields with the wrong things in them."""
    taken_or_refused(json.dumps({"event": event, event: body, **top}).encode())


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b'"a\\ud800b"', "a\\ud800b"),
        (b'"\\ud83c\\udfa7"', "\N{HEADPHONE}"),
        (b"1e400", "1e400"),
        (b"NaN", "NaN"),
        (b"-Infinity", "-Infinity"),
        (b'["\\udfff"]', ["\\udfff"]),
        (b"1.5", 1.5),
    ],
)
def test_one_unusual_value_does_not_lose_a_start(written: bytes, read: object) -> None:
    """What only some JSON writers write keeps its message, and the rest of it, as they are."""
    message = b'{"event":"start","start":{"callSid":"c","customParameters":{"a":%s,"b":"x"}}}'
    parsed = parse_bytes(message % written)
    assert isinstance(parsed, Start)
    assert ("c", {"a": read, "b": "x"}) == (parsed.call_sid, parsed.parameters)
    assert parsed == parse_bytes(b"\xef\xbb\xbf" + message % written)
    msgspec.json.encode(parsed.parameters)


def media_format(spelling: str, sample_rate: int | None, channels: int | None) -> Start:
    """Return a start message with this format."""
    wire = {"encoding": spelling, "sampleRate": sample_rate, "channels": channels}
    found = parse(start(mediaFormat=wire))
    assert isinstance(found, Start)
    return found


# Media formats


@pytest.mark.parametrize(
    ("spelling", "sample_rate", "expected"),
    [
        ("audio/x-mulaw", 8000, (PCMU, 8000)),
        ("audio/x-mulaw", None, (PCMU, 8000)),
        ("AUDIO/X-MULAW", None, (PCMU, 8000)),
        (" audio/x-mulaw ", None, (PCMU, 8000)),
        ("audio/mulaw", None, (PCMU, 8000)),
        ("mulaw", None, (PCMU, 8000)),
        ("audio/x-ulaw", None, (PCMU, 8000)),
        ("audio/basic", None, (PCMU, 8000)),
        ("PCMU", None, (PCMU, 8000)),
        ("pcmu", None, (PCMU, 8000)),
        ("audio/PCMU", None, (PCMU, 8000)),
        ("PCMU@40i", None, (PCMU, 8000)),
        ("PCMU@8000h@20i", None, (PCMU, 8000)),
        ("audio/x-alaw", 8000, (PCMA, 8000)),
        ("PCMA", None, (PCMA, 8000)),
        ("PCMA@40i", None, (PCMA, 8000)),
        ("audio/x-L16", 16_000, (L16, 16_000)),
        ("audio/x-l16", 24_000, (L16, 24_000)),
        ("audio/L16", 8000, (L16, 8000)),
        ("audio/l16;rate=16000", None, (L16, 16_000)),
        ("audio/L16; channels=1; rate=24000", None, (L16, 24_000)),
        ("audio/l16;rate=16000", 24_000, (L16, 24_000)),
        ("L16", None, (L16, 8000)),
        ("L16@16000h", None, (L16, 16_000)),
        ("L16@24000h", None, (L16, 24_000)),
        ("L16@24000h@40i", None, (L16, 24_000)),
        ("l16@16000H@20I", None, (L16, 16_000)),
        ("audio/x-L16", 48_000, (L16, 48_000)),
        ("mu-law", None, (PCMU, 8000)),
        ("g711_ulaw", None, (PCMU, 8000)),
        ("G.711u", None, (PCMU, 8000)),
        ("pcm_mulaw", None, (PCMU, 8000)),
        ("A-law", None, (PCMA, 8000)),
        ("g711_alaw", None, (PCMA, 8000)),
        ("audio/pcm-alaw", None, (PCMA, 8000)),
        ("linear-16", 16_000, (L16, 16_000)),
        ("pcm16", 24_000, (L16, 24_000)),
    ],
)
def test_every_known_spelling(
    spelling: str, sample_rate: int | None, expected: tuple[Encoding, int]
) -> None:
    """Case, prefix, packet time: one encoding is written in many ways."""
    assert MediaFormat(*expected, 1) == media_format(spelling, sample_rate, None).media_format
    assert MediaFormat(*expected, 1) == media_format(spelling, sample_rate, 1).media_format


@pytest.mark.parametrize(
    "spelling",
    [
        "opus",
        "audio/opus",
        "audio/x-",
        "audio/",
        "G722",
        "L24",
        "mulaw2",
        "video/x-mulaw",
        "PCMU PCMA",
        "audio/x-mulaw\0",
        "PCMU,PCMA",
        "l16rate=8000",
        "g711",
        "pcm_s24le",
        "é",
        "x" * 10_000,
    ],
)
def test_other_encodings_are_refused(spelling: str) -> None:
    """Never guessed, and the reason stays short."""
    refused = media_format(spelling, 8000, 1).refused_format
    assert refused.startswith("unsupported encoding")
    assert len(refused) < 120


@pytest.mark.parametrize("rate", [0, -8000, 7999, 8001, 11_025, 22_050, 44_100, 96_000, 2**52])
def test_rates_without_whole_samples_per_millisecond_are_refused(rate: int) -> None:
    """Placing by milliseconds would not be exact."""
    assert f"unsupported sample rate {rate}" == media_format("L16", rate, 1).refused_format


def test_a_rate_in_the_name_is_checked_too() -> None:
    """As the one beside it."""
    found = media_format("audio/l16;rate=11025", None, 1)
    assert "unsupported sample rate 11025" == found.refused_format


@pytest.mark.parametrize("channels", [0, 2, -1])
def test_other_channels_than_one_are_refused(channels: int) -> None:
    """Each track is mono, always."""
    refused = media_format("audio/x-mulaw", 8000, channels).refused_format
    assert f"unsupported number of channels {channels}" == refused


@given(st.text(), st.none() | st.integers(), st.none() | st.integers())
def test_any_text_is_a_format_or_refused(
    spelling: str, sample_rate: int | None, channels: int | None
) -> None:
    """Never an exception, never a format that cannot be decoded."""
    found = media_format(spelling, sample_rate, channels)
    assert found.media_format.sample_rate in SAMPLE_RATES
