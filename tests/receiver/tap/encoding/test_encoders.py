"""What listeners of one track, or of the provider's own messages, are sent."""

from __future__ import annotations

import base64
import json
import random

import pytest

from receiver.media import ByteOrder, Chunk, Encoding, Track
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec
from receiver.tap.encoding.notices import opening, start_ms
from receiver.tap.events import (
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
    an_encoder,
    ended,
    gaps,
    heard,
    live_stream,
    pcm,
    samples,
    sound,
    told,
)

INBOUND = pcm("inbound")
MESSAGES = OutputSpec(Format.MESSAGES, "stereo")
CODES = bytes(range(160))
DTMF = b'{"event":"dtmf","sequenceNumber":"12","dtmf":{"digit":"5","duration":2000}}'
MARK = b'{"event":"mark","mark":{"name":"here"}}'


def test_each_chunk_is_one_message_of_samples() -> None:
    """Decoded, little endian, with its place on the stream's clock; the other track is not sent."""
    listening = an_encoder(INBOUND)
    first = listening.feed(heard(1, CODES))
    assert [MULAW[code] for code in CODES] == samples(first)
    assert [("inbound", 0, 20)] == [(i.track, i.timestamp_ms, i.duration_ms) for i in first]
    assert [] == listening.feed(heard(1, CODES, track=Track.OUTBOUND))
    assert [20] == [item.timestamp_ms for item in listening.feed(heard(2, CODES))]
    assert (40, 0, None) == (listening.position_ms, listening.left_out, listening.waiting_since_ms)
    assert [] == listening.flush_due(10_000)


def test_silence_comes_where_the_time_line_has_it() -> None:
    """A notice first, then zeros, then the chunk: the listener's clock is the stream's."""
    listening = an_encoder(INBOUND)
    listening.feed(heard(1, CODES))
    assert [] == listening.feed(heard(4, CODES))  # what is missing may still come
    items = listening.flush_due(120)
    assert [
        {
            "event": "gap",
            "reason": "lost",
            "track": "inbound",
            "timestamp_ms": 20,
            "duration_ms": 40,
        }
    ] == told(items)
    assert [0] * 320 + [MULAW[code] for code in CODES] == samples(items)


@pytest.mark.parametrize(
    ("encoding", "silence"),
    [(Encoding.PCMU, b"\xff"), (Encoding.PCMA, b"\xd5"), (Encoding.L16, b"\0")],
)
def test_payloads_come_as_they_were(encoding: Encoding, silence: bytes) -> None:
    """Encoded bytes untouched, and silence as the encoding writes it."""
    kind = OutputSpec(Format.PAYLOAD, "inbound")
    listening = an_encoder(kind, live_stream(encoding))
    assert CODES == sound(listening.feed(heard(1, CODES, at_ms=0)))
    gap_bytes = 40 * (16 if encoding is Encoding.L16 else 8) - 160
    items = listening.feed(heard(2, CODES, at_ms=40))
    assert silence * gap_bytes + CODES == sound(items)


@pytest.mark.parametrize("order", [ByteOrder.BIG, ByteOrder.AUTO])
def test_the_byte_order_is_the_recordings(order: ByteOrder) -> None:
    """Big-endian samples are heard as such, also where the order has to be found out."""
    wave = [n * 37 % 3000 for n in range(800)]
    payload = b"".join(n.to_bytes(2, "big") for n in wave)
    listening = an_encoder(INBOUND, live_stream(Encoding.L16), byte_order=order)
    assert wave == samples(listening.feed(heard(1, payload)))
    for number in range(2, 40):
        listening.feed(heard(number, payload, at_ms=(number - 1) * 100))
    assert wave == samples(listening.feed(heard(40, payload, at_ms=3900)))


def test_keys_and_marks_are_told_in_their_place() -> None:
    """With the moment on the stream's clock; other messages and broken ones are not."""
    for kind in (INBOUND, pcm("stereo")):
        listening = an_encoder(kind)
        for track in Track:
            listening.feed(heard(1, CODES, track=track))
        items = [
            item
            for message in (DTMF, MARK, b'{"event":"new"}', b"{", b'{"event":"stop"}')
            for item in listening.feed(LiveMessage(message, 20))
        ]
        assert [
            {"event": "dtmf", "digit": "5", "duration_ms": 2000, "timestamp_ms": 20},
            {"event": "mark", "name": "here", "timestamp_ms": 20},
        ] == told(items)
        last = told(listening.feed(ended()))
        assert [{"event": "stopped", "reason": "stop", "timestamp_ms": 20}] == last


def test_who_joins_late_begins_behind_the_latest_chunk() -> None:
    """`started` says where; what belongs before is not sent."""
    latest = heard(50, CODES).chunk
    joined = Subscribed(live_stream(), StreamPosition(50, 1, 990, latest))
    assert 1000 == start_ms(joined)
    listening = an_encoder(INBOUND, standing=joined.position)
    assert 1000 == listening.position_ms
    assert [] == listening.feed(heard(50, CODES))
    assert [1000] == [item.timestamp_ms for item in listening.feed(heard(51, CODES))]


@pytest.mark.parametrize("track", list(Track))
def test_what_is_lost_right_after_joining_is_told_as_lost(track: Track) -> None:
    """Where the stream stood says which number came last, of each track."""
    other, latest = (heard(50, CODES, track=name).chunk for name in Track)
    standing = StreamPosition(100, 1, 990, latest, (other,))
    listening = an_encoder(pcm(track.value), standing=standing)
    assert [] == listening.feed(heard(50, CODES, track=track))
    assert [] == listening.feed(heard(53, CODES, track=track))
    assert [("lost", track.value, 1000, 40)] == gaps(listening.flush_due(1100))
    assert 0 == listening.left_out


def test_the_first_chunk_after_joining_may_be_overtaken() -> None:
    """What came last before says that one is missing."""
    standing = StreamPosition(50, 1, 990, heard(50, CODES).chunk)
    listening = an_encoder(INBOUND, standing=standing)
    items = [item for n in (52, 51, 53) for item in listening.feed(heard(n, CODES))]
    assert ([], 1000, 1060) == (told(items), items[0].timestamp_ms, listening.position_ms)


def test_who_joins_begins_where_no_track_has_been() -> None:
    """Where the latest chunk was overtaken, or the tracks lag; not where one is far ahead."""
    latest = heard(49, CODES).chunk
    for other, begin in ((50, 1000), (48, 980), (52, 1040), (53, 980)):
        outbound = heard(other, CODES, track=Track.OUTBOUND).chunk
        standing = StreamPosition(98, 1, 990, latest, (outbound,))
        assert begin == start_ms(Subscribed(live_stream(), standing))


@pytest.mark.parametrize("track", ["inbound", "stereo"])
def test_what_came_before_the_past_tells_what_is_missing(track: str) -> None:
    """So its first chunk may be overtaken, or lost; it is not heard itself, nor sent as it came."""
    before = PrecedingChunk(heard(50, CODES).chunk, 980)
    mixed: list[StreamEvent] = [
        before,
        heard(52, CODES, arrival_ms=1000),
        heard(51, CODES, arrival_ms=1005),
    ]
    lossy: list[StreamEvent] = [before, heard(53, CODES)]
    for events, gaps_told in ((mixed, []), (lossy, [("lost", "inbound", 1000, 40)])):
        listening = an_encoder(pcm(track), since_ms=1000)
        items = [item for event in [*events, ended()] for item in listening.feed(event)]
        assert gaps_told == [gap for gap in gaps(items) if gap[1] == "inbound"]
        assert 40 + 20 * len(gaps_told) == listening.position_ms - 1000
    assert [] == an_encoder(MESSAGES).feed(before)


@pytest.mark.parametrize("track", ["inbound", "stereo"])
def test_a_clock_that_begins_far_from_0_is_counted_from_there(track: str) -> None:
    """By who heard the first chunk, who joins later, and who hears the past."""
    far_ms = 100_000
    standing = StreamPosition(50, 1, 990, heard(50, CODES, at_ms=far_ms + 980).chunk, (), far_ms)
    listeners = (
        an_encoder(pcm(track)),
        an_encoder(pcm(track), standing=standing),
        an_encoder(pcm(track), standing=standing, since_ms=500),
    )
    ends, begins = [], [listening.position_ms for listening in listeners]
    for first, listening in zip((1, 51, 26), listeners, strict=True):
        items = []
        for number in range(first, 61):
            at_ms = (number - 1) * 20
            items += listening.feed(heard(number, CODES, at_ms=far_ms + at_ms, arrival_ms=at_ms))
        items += listening.feed(ended())
        assert [] == [gap for gap in gaps(items) if gap[1] == "inbound"]
        ends.append(listening.position_ms)
    assert ([0, 1000, 500], [1200] * 3) == (begins, ends)


def test_nothing_is_missing_where_a_far_clock_begins() -> None:
    """Whatever its counter begins with: there is no room before its first chunk, also later on."""
    far_ms = 100_000
    first = heard(5, CODES, at_ms=far_ms, arrival_ms=0)
    standing = StreamPosition(1, 1, 0, first.chunk, (), far_ms)
    assert 160 == len(samples(an_encoder(INBOUND).feed(first)))
    assert 160 == len(samples(an_encoder(INBOUND, standing=standing, since_ms=0).feed(first)))


@pytest.mark.parametrize("stamp", [None, 10**12, -5])
def test_a_clock_that_is_none_is_replaced_by_ours(stamp: int | None) -> None:
    """Where timestamps say nothing, a late listener begins when it joined."""
    latest = Chunk(Track.INBOUND, 7, 7, stamp, CODES)
    standing = StreamPosition(7, 1, 5000, latest)
    listening = an_encoder(INBOUND, standing=standing)
    assert 5000 == listening.position_ms
    following = Chunk(Track.INBOUND, 8, 8, None if stamp is None else stamp + 20, CODES)
    assert [5000] == [item.timestamp_ms for item in listening.feed(LiveChunk(following, 5020))]


def test_the_first_message_says_everything() -> None:
    """All that `GET /tap` says, and what comes: track, format, rate, channels, beginning."""
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
    greeting, start = (str(i.message) for i in opening(MESSAGES, live, listeners=0, timestamp_ms=0))
    assert {"event": "connected", "protocol": "Call", "version": "0.2.0"} == json.loads(greeting)
    assert live.start_message.decode() == start
    listening = an_encoder(MESSAGES, live)
    items = listening.feed(heard(1, CODES, sequence=2))
    items += listening.feed(heard(1, CODES, track=Track.OUTBOUND, at_ms=99))
    assert ["inbound", "outbound"] == [item.track for item in items]
    assert [20, 20] == [item.duration_ms for item in items]
    payload = base64.b64encode(CODES).decode()
    first = {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": payload}
    second = {"track": "outbound", "chunk": "1", "timestamp": "99", "payload": payload}
    assert [
        {"event": "media", "sequenceNumber": "2", "media": first},
        {"event": "media", "media": second},
    ] == told(items)
    assert DTMF.decode() == listening.feed(LiveMessage(DTMF, 0))[0].message
    assert [] == listening.feed(LiveMessage(live.start_message, 0))
    assert [] == listening.feed(LiveMessage(b"{", 0))
    assert [] == listening.flush_due(1000)
    assert [{"event": "stop", "sequenceNumber": "13"}] == told(listening.feed(ended()))


def the_stop_after(*events: StreamEvent, standing: StreamPosition = BEGINNING) -> str:
    """Return the sequence number of a stop that is made up."""
    listening = an_encoder(MESSAGES, standing=standing)
    for event in events:
        listening.feed(event)
    (stop,) = told(listening.feed(ended()))
    return str(stop["sequenceNumber"])


def test_a_made_up_stop_repeats_no_number() -> None:
    """It follows the highest that came before: of start, a chunk, a key, or an unknown event."""
    chunk = heard(1, CODES, sequence=7)
    unknown = LiveMessage(b'{"event":"new","sequenceNumber":20}', 0)
    assert "2" == the_stop_after()
    assert "8" == the_stop_after(chunk, heard(1, CODES, sequence=6, track=Track.OUTBOUND))
    assert "13" == the_stop_after(chunk, LiveMessage(DTMF, 0))
    assert "13" == the_stop_after(LiveMessage(DTMF, 0), chunk)
    assert "21" == the_stop_after(unknown)
    assert "8" == the_stop_after(standing=StreamPosition(1, 1, 20, chunk.chunk))


def test_the_providers_own_stop_is_enough() -> None:
    """It is sent verbatim, and no second one is made up."""
    listening = an_encoder(MESSAGES)
    assert 1 == len(listening.feed(LiveMessage(b'{"event":"stop"}', 0)))
    assert [] == listening.feed(ended())


def test_twilios_messages_name_the_stream() -> None:
    """Where `start` has a streamSid outside its body, every message has."""
    known = live_stream()
    start = json.loads(known.start_message) | {"streamSid": known.stream_sid}
    live = live_stream().__class__(
        **{name: getattr(known, name) for name in known.__struct_fields__}
        | {"start_message": json.dumps(start).encode()}
    )
    listening = an_encoder(MESSAGES, live)
    items = listening.feed(heard(1, CODES, sequence=2)) + listening.feed(ended())
    assert [known.stream_sid] * 2 == [document["streamSid"] for document in told(items)]
    ids = {"accountSid": known.account_sid, "callSid": known.call_sid}
    assert ids == told(items)[-1]["stop"]


def test_odd_payloads_do_not_tear_samples() -> None:
    """Chunks cut anywhere give the same samples as whole ones."""
    audio = random.Random(3).randbytes(1600)
    listening = an_encoder(INBOUND, live_stream(Encoding.L16))
    received: list[int] = []
    position = 0
    for number, size in enumerate((159, 161, 320, 1, 799, 160), 1):
        chunk = heard(number, audio[position : position + size], at_ms=position // 16)
        received += samples(listening.feed(chunk))
        position += size
    whole = [int.from_bytes(audio[n : n + 2], "little", signed=True) for n in range(0, 1600, 2)]
    assert whole == received


def bytes_before_texts(items: list[OutMessage]) -> list[tuple[str, int]]:
    """Return each text's event, and how many bytes are sent before it."""
    found, position = [], 0
    for item in items:
        if isinstance(item.message, str):
            found.append((json.loads(item.message)["event"], position))
        position += len(sound([item]))
    return found


@pytest.mark.parametrize(
    ("kind", "bytes_per_ms"), [(INBOUND, 16), (OutputSpec(Format.PAYLOAD, "inbound"), 8)]
)
def test_the_other_track_drives_the_clock(kind: OutputSpec, bytes_per_ms: int) -> None:
    """Where a track is silent and the call goes on, silence is sent, live, up to the end."""
    listening = an_encoder(kind)
    items = [item for n in range(1, 11) for item in listening.feed(heard(n, CODES))]
    assert 200 * bytes_per_ms == len(sound(items))
    first = listening.feed(heard(1, CODES, track=Track.OUTBOUND, at_ms=400))
    assert [] == first
    assert 400 == listening.waiting_since_ms
    assert [] == listening.flush_due(459)
    begun = listening.flush_due(460)
    assert [("sender_silence", "inbound", 200, 220)] == gaps(begun)
    assert [("gap", 0)] == bytes_before_texts(begun)
    assert 220 * bytes_per_ms == len(sound(begun))
    items += begun
    for number in range(2, 11):
        stamp = 380 + 20 * number
        items += listening.feed(heard(number, CODES, track=Track.OUTBOUND, at_ms=stamp))
        assert max(420, stamp - 40) == listening.position_ms  # 60 ms behind, and no notice again
    items += listening.feed(LiveMessage(DTMF, 595))
    items += listening.feed(ended(600))
    assert 600 * bytes_per_ms == len(sound(items))
    texts = [("gap", 200), ("dtmf", 600), ("stopped", 600)]
    assert [(name, at * bytes_per_ms) for name, at in texts] == bytes_before_texts(items)
    assert [600, 600] == [event["timestamp_ms"] for event in told(items)[1:]]


def test_what_comes_of_a_silent_track_is_heard_again() -> None:
    """In its place; what was given as silence already is late, in whole or in part."""
    listening = an_encoder(INBOUND)
    for number in range(1, 8):
        listening.feed(heard(number, CODES, track=Track.OUTBOUND))
    assert 80 == listening.position_ms
    late = listening.feed(heard(1, CODES, at_ms=40, arrival_ms=120))
    assert [("late", "inbound", 40, 20)] == gaps(late)
    half = listening.feed(heard(2, CODES, at_ms=70, arrival_ms=125))
    assert [("late", "inbound", 70, 10)] == gaps(half)
    assert 80 * 2 == len(sound(half))
    assert 90 == listening.position_ms
    following = listening.feed(heard(3, CODES, at_ms=90, arrival_ms=126))
    assert 110 == listening.position_ms
    assert [] == gaps(following)
    assert 1 == listening.left_out


def test_a_track_that_keeps_coming_is_not_silent() -> None:
    """However far it lags behind the other one: all of it is heard, and at once."""
    listening = an_encoder(INBOUND)
    items = []
    for tick in range(100):
        items += listening.feed(heard(tick + 1, CODES, track=Track.OUTBOUND))
        if tick >= 2:
            items += listening.feed(heard(tick - 1, CODES, arrival_ms=tick * 20 + 9))
            assert (tick - 1) * 20 == listening.position_ms
        items += listening.flush_due(tick * 20 + 10)
    assert [] == told(items)


def test_chunks_that_overtook_each_other_are_put_in_order() -> None:
    """Within 60 ms; nothing is lost, nothing is told."""
    listening = an_encoder(INBOUND)
    pieces = [bytes([number]) * 160 for number in range(9)]
    items = []
    for place, number in enumerate((1, 2, 4, 3, 5, 8, 7, 6)):
        items += listening.feed(heard(number, pieces[number], arrival_ms=place * 20))
    assert [MULAW[code] for piece in pieces[1:] for code in piece] == samples(items)
    assert ([], 0) == (told(items), listening.left_out)


@pytest.mark.parametrize("stamped", [True, False])
def test_what_is_held_is_not_made_silent(stamped: bool) -> None:
    """Where the other track is waited for no longer, it comes in its place; else it waits on."""
    listening = an_encoder(pcm("stereo"))
    for track in Track:
        chunk = heard(1, CODES, track=track) if stamped else unstamped(1, track)
        listening.feed(chunk)
    other = heard(3, CODES, at_ms=20, track=Track.OUTBOUND)
    assert [] == listening.feed(other)
    listening.feed(heard(3, CODES, arrival_ms=50) if stamped else unstamped(3, Track.INBOUND))
    items = listening.flush_due(80)
    assert ["lost"] == [reason for reason, *_ in gaps(items)]
    assert 40 == listening.position_ms
    items = listening.flush_due(110)
    assert 60 == listening.position_ms


def unstamped(number: int, track: Track) -> LiveChunk:
    """Return a chunk without a timestamp."""
    return LiveChunk(Chunk(track, None, number, None, CODES), 20 * number - 20)


def test_what_comes_later_than_that_is_late() -> None:
    """It was told as lost; coming twice is not told at all."""
    listening = an_encoder(INBOUND)
    listening.feed(heard(1, CODES))
    listening.feed(heard(3, CODES))
    assert 40 == listening.waiting_since_ms
    assert [("lost", "inbound", 20, 20)] == gaps(listening.flush_due(100))
    assert [("late", "inbound", 20, 20)] == gaps(listening.feed(heard(2, CODES, arrival_ms=101)))
    assert [] == listening.feed(heard(2, CODES, arrival_ms=102))
    assert 2 == listening.left_out


def test_the_past_is_in_order() -> None:
    """What came too late for the live part is heard by who listens to the past."""
    listening = an_encoder(INBOUND, since_ms=0)
    items = []
    for number, arrival_ms in ((1, 0), (3, 40), (4, 60), (2, 900), (5, 910)):
        items += listening.feed(heard(number, CODES, arrival_ms=arrival_ms))
    assert ([], 5 * 160) == (told(items), len(samples(items)))
    listening.feed(heard(7, CODES, arrival_ms=920))
    listening.reach_present()
    assert [("lost", "inbound", 100, 20)] == gaps(listening.flush_due(980))
