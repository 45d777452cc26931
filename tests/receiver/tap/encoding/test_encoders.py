"""What listeners of one track, or of the provider's own messages, are sent."""

from __future__ import annotations

import base64
import json
import random

import numpy as np
import pytest

from receiver.audio import codec
from receiver.media import ByteOrder, Chunk, Encoding, MediaFormat, Track
from receiver.tap.encoding.encoders import dbfs, power
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec, opening, start_ms
from receiver.tap.hub import (
    LiveChunk,
    LiveMessage,
    PrecedingChunk,
    StreamEvent,
    StreamPosition,
    Subscribed,
)
from tests.receiver.helpers.g711 import MULAW
from tests.receiver.helpers.taps import (
    BEGINNING,
    audio_bytes,
    gaps,
    live_chunk,
    live_stream,
    make_encoder,
    pcm,
    samples,
    stream_ended,
    texts,
)

INBOUND = pcm("inbound")
MESSAGES = OutputSpec(Format.MESSAGES, "stereo")
CODES = bytes(range(160))
DTMF = b'{"event":"dtmf","sequenceNumber":"12","dtmf":{"digit":"5","duration":2000}}'
MARK = b'{"event":"mark","mark":{"name":"here"}}'


def test_each_chunk_is_one_message_of_samples() -> None:
    """Decoded, little endian, with its place on the stream's clock; the other track is not sent."""
    encoder = make_encoder(INBOUND)
    first = encoder.feed(live_chunk(1, CODES))
    assert [MULAW[code] for code in CODES] == samples(first)
    assert [("inbound", 0, 20)] == [(i.track, i.timestamp_ms, i.duration_ms) for i in first]
    assert [] == encoder.feed(live_chunk(1, CODES, track=Track.OUTBOUND))
    assert [20] == [item.timestamp_ms for item in encoder.feed(live_chunk(2, CODES))]
    assert (40, 0, None) == (encoder.position_ms, encoder.left_out, encoder.due_ms)
    assert [] == encoder.flush_due(10_000)


def test_silence_comes_where_the_time_line_has_it() -> None:
    """A notice first, then zeros, then the chunk: the listener's clock is the stream's."""
    encoder = make_encoder(INBOUND)
    encoder.feed(live_chunk(1, CODES))
    assert [] == encoder.feed(live_chunk(4, CODES))  # what is missing may still come
    items = encoder.flush_due(120)
    assert [
        {
            "event": "gap",
            "reason": "lost",
            "track": "inbound",
            "timestamp_ms": 20,
            "duration_ms": 40,
        }
    ] == texts(items)
    assert [0] * 320 + [MULAW[code] for code in CODES] == samples(items)


@pytest.mark.parametrize(
    ("encoding", "silence"),
    [(Encoding.PCMU, b"\xff"), (Encoding.PCMA, b"\xd5"), (Encoding.L16, b"\0")],
)
def test_payloads_come_as_they_were(encoding: Encoding, silence: bytes) -> None:
    """Encoded bytes untouched, and silence as the encoding writes it."""
    spec = OutputSpec(Format.PAYLOAD, "inbound")
    encoder = make_encoder(spec, live_stream(encoding))
    assert CODES == audio_bytes(encoder.feed(live_chunk(1, CODES, at_ms=0)))
    gap_bytes = 40 * (16 if encoding is Encoding.L16 else 8) - 160
    items = encoder.feed(live_chunk(2, CODES, at_ms=40))
    assert silence * gap_bytes + CODES == audio_bytes(items)


@pytest.mark.parametrize("order", [ByteOrder.BIG, ByteOrder.AUTO])
def test_the_byte_order_is_the_recordings(order: ByteOrder) -> None:
    """Big-endian samples are decoded as such, also where the order has to be found out."""
    wave = [n * 37 % 3000 for n in range(800)]
    payload = b"".join(n.to_bytes(2, "big") for n in wave)
    encoder = make_encoder(INBOUND, live_stream(Encoding.L16), byte_order=order)
    assert wave == samples(encoder.feed(live_chunk(1, payload)))
    for number in range(2, 40):
        encoder.feed(live_chunk(number, payload, at_ms=(number - 1) * 100))
    assert wave == samples(encoder.feed(live_chunk(40, payload, at_ms=3900)))


def test_keys_and_marks_are_sent_in_their_place() -> None:
    """With their time on the stream's clock; other messages and broken ones are not."""
    for spec in (INBOUND, pcm("stereo")):
        encoder = make_encoder(spec)
        for track in Track:
            encoder.feed(live_chunk(1, CODES, track=track))
        items = [
            item
            for message in (DTMF, MARK, b'{"event":"new"}', b"{", b'{"event":"stop"}')
            for item in encoder.feed(LiveMessage(message, 20))
        ]
        assert [
            {"event": "dtmf", "digit": "5", "duration_ms": 2000, "timestamp_ms": 20},
            {"event": "mark", "name": "here", "timestamp_ms": 20},
        ] == texts(items)
        last = texts(encoder.feed(stream_ended()))
        assert [{"event": "stopped", "reason": "stop", "timestamp_ms": 20}] == last


def test_a_late_listener_starts_behind_the_latest_chunk() -> None:
    """`started` says where; what belongs before is not sent."""
    latest = live_chunk(50, CODES).chunk
    joined = Subscribed(live_stream(), StreamPosition(50, 1, 990, latest))
    assert 1000 == start_ms(joined)
    encoder = make_encoder(INBOUND, position=joined.position)
    assert 1000 == encoder.position_ms
    assert [] == encoder.feed(live_chunk(50, CODES))
    assert [1000] == [item.timestamp_ms for item in encoder.feed(live_chunk(51, CODES))]


@pytest.mark.parametrize("track", list(Track))
def test_what_is_lost_right_after_subscribing_is_noticed(track: Track) -> None:
    """The position says which number came last, of each track."""
    other, latest = (live_chunk(50, CODES, track=name).chunk for name in Track)
    position = StreamPosition(100, 1, 990, latest, (other,))
    encoder = make_encoder(pcm(track.value), position=position)
    assert [] == encoder.feed(live_chunk(50, CODES, track=track))
    assert [] == encoder.feed(live_chunk(53, CODES, track=track))
    assert [("lost", track.value, 1000, 40)] == gaps(encoder.flush_due(1100))
    assert 0 == encoder.left_out


def test_the_first_chunk_after_subscribing_may_be_overtaken() -> None:
    """What came last before says that one is missing."""
    position = StreamPosition(50, 1, 990, live_chunk(50, CODES).chunk)
    encoder = make_encoder(INBOUND, position=position)
    items = [item for n in (52, 51, 53) for item in encoder.feed(live_chunk(n, CODES))]
    assert ([], 1000, 1060) == (texts(items), items[0].timestamp_ms, encoder.position_ms)


def test_a_listener_starts_where_no_track_has_been() -> None:
    """Where the latest chunk was overtaken, or the tracks lag; not where one is far ahead."""
    latest = live_chunk(49, CODES).chunk
    for other, begin in ((50, 1000), (48, 980), (52, 1040), (53, 980)):
        outbound = live_chunk(other, CODES, track=Track.OUTBOUND).chunk
        position = StreamPosition(98, 1, 990, latest, (outbound,))
        assert begin == start_ms(Subscribed(live_stream(), position))


@pytest.mark.parametrize("track", ["inbound", "stereo"])
def test_what_came_before_the_past_shows_what_is_missing(track: str) -> None:
    """So its first chunk may be overtaken, or lost; what came before it is not sent itself."""
    before = PrecedingChunk(live_chunk(50, CODES).chunk, 980)
    mixed: list[StreamEvent] = [
        before,
        live_chunk(52, CODES, arrival_ms=1000),
        live_chunk(51, CODES, arrival_ms=1005),
    ]
    lossy: list[StreamEvent] = [before, live_chunk(53, CODES)]
    for events, expected_gaps in ((mixed, []), (lossy, [("lost", "inbound", 1000, 40)])):
        encoder = make_encoder(pcm(track), since_ms=1000)
        items = [item for event in [*events, stream_ended()] for item in encoder.feed(event)]
        assert expected_gaps == [gap for gap in gaps(items) if gap[1] == "inbound"]
        assert 40 + 20 * len(expected_gaps) == encoder.position_ms - 1000
    assert [] == make_encoder(MESSAGES).feed(before)


@pytest.mark.parametrize("track", ["inbound", "stereo"])
def test_a_clock_that_starts_far_from_0_is_counted_from_there(track: str) -> None:
    """By a listener from the first chunk on, by a later one, and by one of the past."""
    far_ms = 100_000
    position = StreamPosition(
        50, 1, 990, live_chunk(50, CODES, at_ms=far_ms + 980).chunk, (), far_ms
    )
    listeners = (
        make_encoder(pcm(track)),
        make_encoder(pcm(track), position=position),
        make_encoder(pcm(track), position=position, since_ms=500),
    )
    ends, begins = [], [encoder.position_ms for encoder in listeners]
    for first, encoder in zip((1, 51, 26), listeners, strict=True):
        items = []
        for number in range(first, 61):
            at_ms = (number - 1) * 20
            items += encoder.feed(live_chunk(number, CODES, at_ms=far_ms + at_ms, arrival_ms=at_ms))
        items += encoder.feed(stream_ended())
        assert [] == [gap for gap in gaps(items) if gap[1] == "inbound"]
        ends.append(encoder.position_ms)
    assert ([0, 1000, 500], [1200] * 3) == (begins, ends)


def test_nothing_is_missing_where_a_far_clock_starts() -> None:
    """Whatever its counter begins with: there is no room before its first chunk, also later on."""
    far_ms = 100_000
    first = live_chunk(5, CODES, at_ms=far_ms, arrival_ms=0)
    position = StreamPosition(1, 1, 0, first.chunk, (), far_ms)
    assert 160 == len(samples(make_encoder(INBOUND).feed(first)))
    assert 160 == len(samples(make_encoder(INBOUND, position=position, since_ms=0).feed(first)))


@pytest.mark.parametrize("stamp", [None, 10**12, -5])
def test_a_clock_that_is_none_is_replaced_by_ours(stamp: int | None) -> None:
    """Where timestamps say nothing, a late listener starts when it subscribed."""
    latest = Chunk(Track.INBOUND, 7, 7, stamp, CODES)
    position = StreamPosition(7, 1, 5000, latest)
    encoder = make_encoder(INBOUND, position=position)
    assert 5000 == encoder.position_ms
    following = Chunk(Track.INBOUND, 8, 8, None if stamp is None else stamp + 20, CODES)
    assert [5000] == [item.timestamp_ms for item in encoder.feed(LiveChunk(following, 5020))]


def test_the_first_message_says_everything() -> None:
    """All that `GET /tap` says, and what comes: track, format, rate, channels, start."""
    live = live_stream(Encoding.L16, 16000, FirstName="Jane")
    document = json.loads(
        str(opening(pcm("stereo"), live, listeners=3, timestamp_ms=40.0)[0].message)
    )
    assert {
        "event": "started",
        "recording_id": live.recording_id,
        "account_sid": live.account_sid,
        "call_sid": live.call_sid,
        "stream_sid": live.stream_sid,
        "parameters": {"FirstName": "Jane"},
        "media_format": {"encoding": "audio/x-L16", "sample_rate": 16000, "channels": 1},
        "tracks": ["inbound", "outbound"],
        "started_at": live.started_at,
        "listeners": 3,
        "track": "stereo",
        "format": "pcm16",
        "rate": 16000,
        "channels": 2,
        "timestamp_ms": 40,
    } == document


def test_messages_have_the_providers_shape() -> None:
    """connected, start, media of both tracks, keys and stop, as SignalWire writes them."""
    live = live_stream()
    connected, start = (
        str(i.message) for i in opening(MESSAGES, live, listeners=0, timestamp_ms=0)
    )
    assert {"event": "connected", "protocol": "Call", "version": "0.2.0"} == json.loads(connected)
    assert live.start_message.decode() == start
    encoder = make_encoder(MESSAGES, live)
    items = encoder.feed(live_chunk(1, CODES, sequence=2))
    items += encoder.feed(live_chunk(1, CODES, track=Track.OUTBOUND, at_ms=99))
    assert ["inbound", "outbound"] == [item.track for item in items]
    assert [20, 20] == [item.duration_ms for item in items]
    payload = base64.b64encode(CODES).decode()
    first = {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": payload}
    second = {"track": "outbound", "chunk": "1", "timestamp": "99", "payload": payload}
    assert [
        {"event": "media", "sequenceNumber": "2", "media": first},
        {"event": "media", "media": second},
    ] == texts(items)
    assert DTMF.decode() == encoder.feed(LiveMessage(DTMF, 0))[0].message
    assert [] == encoder.feed(LiveMessage(live.start_message, 0))
    assert [] == encoder.feed(LiveMessage(b"{", 0))
    assert [] == encoder.flush_due(1000)
    assert [{"event": "stop", "sequenceNumber": "13"}] == texts(encoder.feed(stream_ended()))


def the_stop_after(*events: StreamEvent, position: StreamPosition = BEGINNING) -> str:
    """Return the sequence number of a stop that is made up."""
    encoder = make_encoder(MESSAGES, position=position)
    for event in events:
        encoder.feed(event)
    (stop,) = texts(encoder.feed(stream_ended()))
    return str(stop["sequenceNumber"])


def test_a_made_up_stop_repeats_no_number() -> None:
    """It follows the highest that came before: of start, a chunk, a key, or an unknown event."""
    chunk = live_chunk(1, CODES, sequence=7)
    unknown = LiveMessage(b'{"event":"new","sequenceNumber":20}', 0)
    assert "2" == the_stop_after()
    assert "8" == the_stop_after(chunk, live_chunk(1, CODES, sequence=6, track=Track.OUTBOUND))
    assert "13" == the_stop_after(chunk, LiveMessage(DTMF, 0))
    assert "13" == the_stop_after(LiveMessage(DTMF, 0), chunk)
    assert "21" == the_stop_after(unknown)
    assert "8" == the_stop_after(position=StreamPosition(1, 1, 20, chunk.chunk))


def test_the_providers_own_stop_is_enough() -> None:
    """It is sent verbatim, and no second one is made up."""
    encoder = make_encoder(MESSAGES)
    assert 1 == len(encoder.feed(LiveMessage(b'{"event":"stop"}', 0)))
    assert [] == encoder.feed(stream_ended())


def test_twilios_messages_name_the_stream() -> None:
    """Where `start` has a streamSid outside its body, every message has."""
    known = live_stream()
    start = json.loads(known.start_message) | {"streamSid": known.stream_sid}
    live = live_stream().__class__(
        **{name: getattr(known, name) for name in known.__struct_fields__}
        | {"start_message": json.dumps(start).encode()}
    )
    encoder = make_encoder(MESSAGES, live)
    items = encoder.feed(live_chunk(1, CODES, sequence=2)) + encoder.feed(stream_ended())
    assert [known.stream_sid] * 2 == [document["streamSid"] for document in texts(items)]
    ids = {"accountSid": known.account_sid, "callSid": known.call_sid}
    assert ids == texts(items)[-1]["stop"]


def test_odd_payloads_do_not_tear_samples() -> None:
    """Chunks cut anywhere give the same samples as whole ones."""
    audio = random.Random(3).randbytes(1600)
    encoder = make_encoder(INBOUND, live_stream(Encoding.L16))
    received: list[int] = []
    position = 0
    for number, size in enumerate((159, 161, 320, 1, 799, 160), 1):
        chunk = live_chunk(number, audio[position : position + size], at_ms=position // 16)
        received += samples(encoder.feed(chunk))
        position += size
    whole = [int.from_bytes(audio[n : n + 2], "little", signed=True) for n in range(0, 1600, 2)]
    assert whole == received


def bytes_before_texts(items: list[OutMessage]) -> list[tuple[str, int]]:
    """Return each text's event, and how many bytes are sent before it."""
    found, position = [], 0
    for item in items:
        if isinstance(item.message, str):
            found.append((json.loads(item.message)["event"], position))
        position += len(audio_bytes([item]))
    return found


@pytest.mark.parametrize(
    ("spec", "bytes_per_ms"), [(INBOUND, 16), (OutputSpec(Format.PAYLOAD, "inbound"), 8)]
)
def test_the_other_track_drives_the_clock(spec: OutputSpec, bytes_per_ms: int) -> None:
    """Where a track is silent and the call goes on, silence is sent, live, up to the end."""
    encoder = make_encoder(spec)
    items = [item for n in range(1, 11) for item in encoder.feed(live_chunk(n, CODES))]
    assert 200 * bytes_per_ms == len(audio_bytes(items))
    first = encoder.feed(live_chunk(1, CODES, track=Track.OUTBOUND, at_ms=400))
    assert [] == first
    assert 460 == encoder.due_ms
    assert [] == encoder.flush_due(459)
    started = encoder.flush_due(460)
    assert [("sender_silence", "inbound", 200, 220)] == gaps(started)
    assert [("gap", 0)] == bytes_before_texts(started)
    assert 220 * bytes_per_ms == len(audio_bytes(started))
    items += started
    for number in range(2, 11):
        stamp = 380 + 20 * number
        items += encoder.feed(live_chunk(number, CODES, track=Track.OUTBOUND, at_ms=stamp))
        assert max(420, stamp - 40) == encoder.position_ms  # 60 ms behind, and no notice again
    items += encoder.feed(LiveMessage(DTMF, 595))
    items += encoder.feed(stream_ended(600))
    assert 600 * bytes_per_ms == len(audio_bytes(items))
    expected = [("gap", 200), ("dtmf", 600), ("stopped", 600)]
    assert [(name, at * bytes_per_ms) for name, at in expected] == bytes_before_texts(items)
    assert [600, 600] == [event["timestamp_ms"] for event in texts(items)[1:]]


def test_what_comes_of_a_silent_track_is_sent_again() -> None:
    """In its place, or as soon as can be; what comes far too late is left out, with a notice."""
    encoder = make_encoder(INBOUND)
    for number in range(1, 8):
        encoder.feed(live_chunk(number, CODES, track=Track.OUTBOUND))
    assert 80 == encoder.position_ms
    assert [] == encoder.feed(live_chunk(1, CODES, at_ms=10, arrival_ms=120))
    late, *half = encoder.feed(live_chunk(2, CODES, at_ms=70, arrival_ms=125))
    assert [("late", "inbound", 10, 20)] == gaps([late])
    assert 160 * 2 == len(audio_bytes(half))
    assert 100 == encoder.position_ms
    assert 320 == len(audio_bytes(encoder.feed(live_chunk(3, CODES, at_ms=90, arrival_ms=126))))
    following = encoder.feed(live_chunk(4, CODES, at_ms=140, arrival_ms=140))
    assert [("sender_silence", "inbound", 120, 20)] == gaps(following)
    assert 160 == encoder.position_ms
    assert 1 == encoder.left_out


def test_a_track_that_keeps_coming_is_not_silent() -> None:
    """However far it lags behind the other one: all of it is sent, and at once."""
    encoder = make_encoder(INBOUND)
    items = []
    for tick in range(100):
        items += encoder.feed(live_chunk(tick + 1, CODES, track=Track.OUTBOUND))
        if tick >= 2:
            items += encoder.feed(live_chunk(tick - 1, CODES, arrival_ms=tick * 20 + 9))
            assert (tick - 1) * 20 == encoder.position_ms
        items += encoder.flush_due(tick * 20 + 10)
    assert [] == texts(items)


def test_chunks_that_overtook_each_other_are_put_in_order() -> None:
    """Within 60 ms; nothing is lost, and there is no notice."""
    encoder = make_encoder(INBOUND)
    pieces = [bytes([number]) * 160 for number in range(9)]
    items = []
    for place, number in enumerate((1, 2, 4, 3, 5, 8, 7, 6)):
        items += encoder.feed(live_chunk(number, pieces[number], arrival_ms=place * 20))
    assert [MULAW[code] for piece in pieces[1:] for code in piece] == samples(items)
    assert ([], 0) == (texts(items), encoder.left_out)


@pytest.mark.parametrize("stamped", [True, False])
def test_what_is_held_is_not_made_silent(stamped: bool) -> None:
    """Where the other track is waited for no longer, it comes in its place; else it waits on."""
    encoder = make_encoder(pcm("stereo"))
    for track in Track:
        chunk = live_chunk(1, CODES, track=track) if stamped else unstamped(1, track)
        encoder.feed(chunk)
    other = live_chunk(3, CODES, at_ms=20, track=Track.OUTBOUND)
    assert [] == encoder.feed(other)
    encoder.feed(live_chunk(3, CODES, arrival_ms=50) if stamped else unstamped(3, Track.INBOUND))
    items = encoder.flush_due(80)
    assert ["lost"] == [reason for reason, *_ in gaps(items)]
    assert 40 == encoder.position_ms
    items = encoder.flush_due(110)
    assert 60 == encoder.position_ms


def unstamped(number: int, track: Track) -> LiveChunk:
    """Return a chunk without a timestamp."""
    return LiveChunk(Chunk(track, None, number, None, CODES), 20 * number - 20)


def test_what_comes_later_than_that_is_late() -> None:
    """It was noticed as lost; of coming twice there is no notice."""
    encoder = make_encoder(INBOUND)
    encoder.feed(live_chunk(1, CODES))
    encoder.feed(live_chunk(3, CODES))
    assert 100 == encoder.due_ms
    assert [("lost", "inbound", 20, 20)] == gaps(encoder.flush_due(100))
    assert [("late", "inbound", 20, 20)] == gaps(encoder.feed(live_chunk(2, CODES, arrival_ms=101)))
    assert [] == encoder.feed(live_chunk(2, CODES, arrival_ms=102))
    assert 2 == encoder.left_out


def test_the_past_is_in_order() -> None:
    """What came too late for live listeners is sent to a listener of the past."""
    encoder = make_encoder(INBOUND, since_ms=0)
    items = []
    for number, arrival_ms in ((1, 0), (3, 40), (4, 60), (2, 900), (5, 910)):
        items += encoder.feed(live_chunk(number, CODES, arrival_ms=arrival_ms))
    assert ([], 5 * 160) == (texts(items), len(samples(items)))
    encoder.feed(live_chunk(7, CODES, arrival_ms=920))
    encoder.reach_present()
    assert [("lost", "inbound", 100, 20)] == gaps(encoder.flush_due(980))


@pytest.mark.parametrize("track", list(Track))
def test_messages_of_one_track_are_those_of_a_stream_that_has_no_other(track: Track) -> None:
    """`start` names that track alone, and sequence numbers leave none out."""
    live, spec = live_stream(Queue="sales"), OutputSpec(Format.MESSAGES, track.value)
    start = opening(spec, live, listeners=0, timestamp_ms=0)[1].message
    before = json.loads(live.start_message)
    before["start"]["tracks"] = [track.value]
    assert before == json.loads(start)
    encoder = make_encoder(spec, live)
    sent: list[StreamEvent] = [
        *(live_chunk(1, CODES, track=name, sequence=n) for n, name in enumerate(Track, 2)),
        LiveMessage(b'{"event":"dtmf","sequenceNumber":"4","dtmf":{"digit":"5"}}', 20),
        *(live_chunk(2, CODES, track=name, sequence=n) for n, name in enumerate(Track, 5)),
        LiveMessage(b'{"event":"mark","mark":{"name":"here"}}', 40),
        LiveMessage(b'{"event":"stop","sequenceNumber":7}', 40),
    ]
    got = [json.loads(item.message) for event in sent for item in encoder.feed(event)]
    assert ["media", "dtmf", "media", "mark", "stop"] == [message["event"] for message in got]
    assert ["2", "3", "4", None, 5] == [message.get("sequenceNumber") for message in got]
    media = [message["media"] for message in got if message["event"] == "media"]
    assert [(track.value, "1"), (track.value, "2")] == [(m["track"], m["chunk"]) for m in media]


@pytest.mark.parametrize("encoding", [Encoding.PCMU, Encoding.PCMA])
def test_the_power_of_every_byte_is_that_of_its_sample(encoding: Encoding) -> None:
    """As the decoder of recordings has it."""
    every = bytes(range(256))
    samples = codec.decode(every, encoding, byte_order=ByteOrder.LITTLE).astype(float)
    found = [power(bytes([byte]), MediaFormat(encoding), ByteOrder.LITTLE) for byte in every]
    assert np.allclose((samples / 32768) ** 2, found, atol=2**-25)


@pytest.mark.parametrize("order", ByteOrder)
def test_the_power_of_linear_samples_is_that_of_their_byte_order(order: ByteOrder) -> None:
    """Which is found where it is not known; half a sample at the beginning is left out."""
    tone = (10_000 * np.sin(np.arange(320) / 5)).astype(">i2" if order is ByteOrder.BIG else "<i2")
    media = MediaFormat(Encoding.L16, 16000)
    expected = float((tone[-160:].astype(float) ** 2).mean()) / 32768**2
    assert pytest.approx(expected) == power(tone.tobytes(), media, order)
    assert pytest.approx(expected, rel=0.01) == power(b"\0" + tone.tobytes(), media, order)
    assert 0 == power(b"", media, order) == power(b"", MediaFormat(), order)


def test_levels_are_decibels_of_full_scale() -> None:
    """To a tenth, and never less than what one bit is."""
    assert [0.0, -3.0, -50.0, -96.0, -96.0] == [dbfs(p) for p in (1, 0.5, 1e-5, 1e-12, 0)]
