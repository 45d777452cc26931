"""Both tracks as one: aligned by the clock, waiting for each other, equal to what is recorded."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.journal.records import ChunkRecord
from receiver.media import ByteOrder, Encoding, EndReason, Track
from receiver.recording.document import RenderOptions
from receiver.tap.encoding.format import Encoder, Format, OutMessage, OutputSpec
from receiver.tap.hub import LiveChunk, StreamPosition
from tests.bounds import examples
from tests.receiver.helpers import journals
from tests.receiver.helpers.taps import (
    audio_bytes,
    gaps,
    live_chunk,
    live_stream,
    make_encoder,
    pcm,
    recorded_chunk,
    samples,
    stream_ended,
    texts,
)

STEREO = pcm("stereo")
LOUD = b"\x00" * 160
SAMPLE = -32124  # of that code


def recorded(records: list[ChunkRecord], encoding: Encoding, rate: int) -> dict[str, bytes]:
    """Return what the files of a recording with these chunks hold."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "out")
        folder.mkdir()
        start = journals.start_message(encoding=encoding.value, sample_rate=rate)
        content = journals.records(records, start=start, reason=EndReason.STOP)
        journal = journals.write(Path(name, "journal"), content)
        journals.render(journal, folder, RenderOptions(ByteOrder.LITTLE, True))
        return {
            file.stem: soundfile.read(file, dtype="int16")[0].astype("<i2").tobytes()
            for file in folder.glob("*.wav")
        }


def tapped(
    records: list[ChunkRecord], encoding: Encoding, rate: int, track: str, since: float | None
) -> bytes:
    """Return what a listener from the start gets of these chunks."""
    encoder = make_encoder(pcm(track), live_stream(encoding, rate), since_ms=since)
    items: list[OutMessage] = []
    for record in records:
        while since is None and (due := encoder.due_ms) is not None:
            if record.arrival_ms < due:
                break
            items += encoder.flush_due(due)
            assert due != encoder.due_ms
        items += encoder.feed(recorded_chunk(record))
    items += encoder.feed(stream_ended())
    assert not [item for item in gaps(items) if item[0] == "late"]
    return audio_bytes(items)


@st.composite
def calls(draw: st.DrawFn) -> tuple[list[ChunkRecord], Encoding, int]:
    """Draw a call whose tracks lose chunks, mix them up, pause, and lag behind each other.

    By under 40 ms: a chunk's end may need the other track's next one, which is 20 ms later. Longer
    packets are waited for longer.
    """
    encoding = draw(st.sampled_from(list(Encoding)))
    rate = draw(st.sampled_from([8000, 16000])) if encoding is Encoding.L16 else 8000
    packet_ms = draw(st.sampled_from([20, 20, 40, 60, 100]))
    size = rate // 1000 * packet_ms * (2 if encoding is Encoding.L16 else 1)
    records = []
    for track in Track:
        lag_ms = draw(st.integers(0, 14))
        delayed = draw(st.sets(st.integers(1, 25)))  # so that the next one overtakes it
        first_ms = draw(st.integers(0, 200))
        pause_at, pause_ms = draw(st.integers(1, 30)), draw(st.sampled_from([0, 7, 500, 3000]))
        lost = draw(st.sets(st.integers(1, 25)))
        for number in range(1, draw(st.integers(2, 30)) + 1):
            at_ms = first_ms + (number - 1) * packet_ms + (pause_ms if number >= pause_at else 0)
            if number not in lost:
                payload = bytes([(number * 7 + len(track)) % 256]) * size
                arrival_ms = at_ms + lag_ms + (packet_ms + 5) * (number in delayed)
                chunk = journals.chunk(
                    number, payload, track=track, timestamp_ms=at_ms, arrival_ms=arrival_ms
                )
                records.append(chunk)
    records.sort(key=lambda record: record.arrival_ms)
    stamps = [record.timestamp_ms or 0 for record in records]
    if stamps and stamps[0] == min(stamps) and draw(st.booleans()):  # a clock that counts from afar
        records = [
            msgspec.structs.replace(r, timestamp_ms=s + 10**8)
            for r, s in zip(records, stamps, strict=True)
        ]
    return records, encoding, rate


@given(calls(), st.sampled_from([None, 0.0]))
@settings(max_examples=examples(60), deadline=None)
def test_it_equals_the_recording(
    call: tuple[list[ChunkRecord], Encoding, int], since: float | None
) -> None:
    """Sample for sample, whatever is lost, mixed up or lags, where nothing came too late."""
    records, encoding, rate = call
    kept = recorded(records, encoding, rate) if records else {}
    for name, samples_kept in kept.items():
        assert samples_kept == tapped(records, encoding, rate, name, since)


def test_a_chunk_waits_for_its_counterpart() -> None:
    """Nothing is sent of one track while the other may still come; then both at once."""
    encoder = make_encoder(STEREO)
    assert [] == encoder.feed(live_chunk(1, LOUD))
    assert 60 == encoder.due_ms
    assert [] == encoder.flush_due(59)
    both = encoder.feed(live_chunk(1, LOUD, track=Track.OUTBOUND, arrival_ms=59))
    assert [SAMPLE, SAMPLE] * 160 == samples(both)
    assert [(0, 20)] == [(item.timestamp_ms, item.duration_ms) for item in both]
    assert encoder.due_ms is None


@pytest.mark.parametrize("longest_ms", [40, 240, 2000])
def test_the_longest_wait_can_be_set(longest_ms: int) -> None:
    """A listener waits for it at first, while nothing is known of how tracks come."""
    encoder = make_encoder(STEREO, longest_wait_ms=longest_ms)
    assert [] == encoder.feed(live_chunk(1, LOUD))
    assert longest_ms == encoder.due_ms
    assert 20 == encoder.flush_due(longest_ms)[-1].duration_ms


def test_no_track_waits_longer_than_it_may() -> None:
    """Then the other track is silent; what comes of it far too late is left out, with a notice."""
    encoder = make_encoder(STEREO)
    encoder.feed(live_chunk(1, LOUD))
    silence, audio = encoder.flush_due(60)
    assert [("sender_silence", "outbound", 0, 20)] == gaps([silence])
    assert [SAMPLE, 0] * 160 == samples([audio])
    assert 20 == encoder.position_ms
    for number in range(2, 6):
        encoder.feed(live_chunk(number, LOUD, arrival_ms=60))
    encoder.flush_due(160)
    assert [] == encoder.feed(live_chunk(1, LOUD, track=Track.OUTBOUND, arrival_ms=161))
    assert 221 == encoder.due_ms  # when it is judged, unless another one comes
    following = live_chunk(2, LOUD, at_ms=100, track=Track.OUTBOUND, arrival_ms=162)
    late = encoder.feed(following)
    assert [("late", "outbound", 0, 20)] == gaps(late)[:1]
    assert 1 == encoder.left_out
    items = encoder.feed(live_chunk(6, LOUD, arrival_ms=163))
    assert [SAMPLE, SAMPLE] * 160 == samples(items)


@pytest.mark.parametrize("track", ["inbound", "outbound", "stereo"])
@pytest.mark.parametrize(("packet_ms", "apart_ms"), [(20, 5), (60, 59), (100, 20), (100, 99)])
def test_long_packets_are_waited_for(track: str, packet_ms: int, apart_ms: int) -> None:
    """Of a call that comes as it should, nothing is late and nothing silent but its ends."""
    encoder = make_encoder(pcm(track))
    payload, items = LOUD * (packet_ms // 20), []
    for number in range(1, 21):
        for other_ms, name in ((0, Track.INBOUND), (apart_ms, Track.OUTBOUND)):
            at_ms = (number - 1) * packet_ms + other_ms
            now_ms = at_ms + packet_ms  # a packet is sent when its last sample is there
            items += encoder.flush_due(now_ms)
            items += encoder.feed(
                live_chunk(number, payload, track=name, at_ms=at_ms, arrival_ms=now_ms)
            )
    items += encoder.feed(stream_ended())
    ends = [(0, "outbound"), (20 * packet_ms, "inbound")]
    assert [end for end in ends if track in (end[1], "stereo")] == [
        (at_ms, name) for _, name, at_ms, _ in gaps(items)
    ]
    assert 0 == encoder.left_out


@pytest.mark.parametrize("lost", [{5}, {5, 6}, {5, 6, 9}])
def test_what_is_lost_of_a_track_is_noticed_once(lost: set[int]) -> None:
    """As lost, though its place is due before what is behind it has waited long enough."""
    encoder = make_encoder(STEREO)
    items: list[OutMessage] = []
    for number in range(1, 21):
        items += encoder.flush_due(number * 20)
        for track in Track:
            if track is Track.OUTBOUND or number not in lost:
                items += encoder.feed(live_chunk(number, LOUD, track=track, arrival_ms=number * 20))
    items += encoder.feed(stream_ended())
    assert {"lost"} == {reason for reason, *_ in gaps(items)}
    starts = [(at_ms, at_ms + long_ms) for _, _, at_ms, long_ms in gaps(items)]
    assert [(n * 20 - 20, n * 20) for n in sorted(lost)] == starts


@pytest.mark.parametrize("packets", [1, 2])
def test_a_chunk_that_is_a_little_late_is_whole(packets: int) -> None:
    """It is sent behind the silence that was sent in its place; the next pause is shorter."""
    encoder = make_encoder(STEREO)
    encoder.feed(live_chunk(1, LOUD))
    encoder.flush_due(60)
    chunk = live_chunk(1, LOUD * packets, track=Track.OUTBOUND, arrival_ms=70)
    items = encoder.feed(chunk)
    items += encoder.feed(live_chunk(7, LOUD, track=Track.OUTBOUND, arrival_ms=120))
    items += encoder.feed(stream_ended())
    sent = samples(items)[1::2]  # behind 20 ms of silence
    assert [SAMPLE] * 160 * packets == sent[: 160 * packets]
    assert [SAMPLE] * 160 == sent[100 * 8 :]
    assert "late" not in {reason for reason, *_ in gaps(items)}


def test_a_track_that_never_comes_is_silence() -> None:
    """Every chunk of the one that does is sent after 60 ms, as one message; there is one notice."""
    encoder = make_encoder(STEREO)
    items: list[OutMessage] = []
    for number in range(1, 20):
        items += encoder.feed(live_chunk(number, LOUD))
    items += encoder.feed(stream_ended())
    assert [SAMPLE, 0] * 160 * 19 == samples(items)
    assert ["gap", "stopped"] == [event["event"] for event in texts(items)]
    assert [("sender_silence", "outbound", 0, 20)] == gaps(items)


def test_a_track_far_ahead_waits_no_longer() -> None:
    """What is over half a minute ahead by the stream's clock is sent, however fast it came."""
    encoder = make_encoder(STEREO)
    items: list[OutMessage] = []
    for number in range(1, 1552):
        items += encoder.feed(live_chunk(number, LOUD, arrival_ms=0))
    assert 51 * 160 * 2 == len(samples(items))


def test_a_long_silence_of_both_takes_no_memory() -> None:
    """Half a minute on hold is one item of a few bytes."""
    encoder = make_encoder(STEREO)
    for track in Track:
        encoder.feed(live_chunk(1, LOUD, track=track))
    items = encoder.feed(live_chunk(2, LOUD, at_ms=30_000))
    items += encoder.feed(live_chunk(2, LOUD, track=Track.OUTBOUND, at_ms=30_000))
    assert 1000 > sum(len(item.message) for item in items if item.repeat > 1)
    assert 2 * 8000 * 30 == len(samples(items))


@pytest.mark.parametrize(("encoding", "unit"), [(Encoding.PCMA, 1), (Encoding.L16, 2)])
def test_payloads_are_interleaved_as_they_came(encoding: Encoding, unit: int) -> None:
    """Encoded samples alternate; a track that is missing is its encoding's silence."""
    encoder = make_encoder(OutputSpec(Format.PAYLOAD, "stereo"), live_stream(encoding))
    payload = bytes(range(80)) * 2 * unit
    encoder.feed(live_chunk(1, payload))
    sent = audio_bytes(encoder.flush_due(60))
    silence = b"\xd5" if unit == 1 else b"\0\0"
    assert silence == sent[unit : 2 * unit]
    assert payload == b"".join(sent[n : n + unit] for n in range(0, len(sent), 2 * unit))


@pytest.mark.parametrize("size", [319, 321, 641])
@pytest.mark.parametrize("spec", [STEREO, OutputSpec(Format.PAYLOAD, "stereo")])
def test_a_loss_between_odd_payloads_tears_no_sample(spec: OutputSpec, size: int) -> None:
    """Whatever is lost is sent as whole samples, and nothing of it is sent beyond the end."""
    encoder = make_encoder(spec, live_stream(Encoding.L16))
    sent: list[OutMessage] = []
    for number in range(1, 21):
        at_ms = (number - 1) * size // 16
        for track in Track:
            if track is Track.OUTBOUND or number not in (5, 6, 12):
                chunk = live_chunk(number, bytes(size), track=track, at_ms=at_ms)
                sent += encoder.feed(chunk)
    sent += encoder.feed(stream_ended(1000))
    assert 4 * (20 * size // 2) == len(audio_bytes(sent))
    assert {"lost"} <= {reason for reason, *_ in gaps(sent)}


def alternating(
    count: int, *, first: int = 1, outbound: bool = True, skipped: int = 1
) -> list[LiveChunk]:
    """Return chunks of both tracks by turns, 20 ms each, of one counter of messages.

    Args:
        count: of chunks of each track.
        first: the number of the first chunk.
        outbound: whether those of the outbound track come.
        skipped: how many sequence numbers each of them uses, also where it does not come.
    """
    chunks = []
    for number in range(first, first + count):
        at = 2 + (number - 1) * 2 if skipped else 2 * first + number - first
        chunks.append(live_chunk(number, LOUD, sequence=at, arrival_ms=number * 20))
        if outbound:
            other = live_chunk(
                number, LOUD, track=Track.OUTBOUND, sequence=at + 1, arrival_ms=number * 20
            )
            chunks.append(other)
    return chunks


def heard(encoder: Encoder, chunks: list[LiveChunk]) -> list[OutMessage]:
    """Return what a listener gets of chunks when they are due, and at the end behind them."""
    items: list[OutMessage] = []
    for chunk in chunks:
        while (due := encoder.due_ms) is not None and due <= chunk.arrival_ms:
            items += encoder.flush_due(due)
        items += encoder.feed(chunk)
    return [*items, *encoder.feed(stream_ended(chunks[-1].arrival_ms))]


@pytest.mark.parametrize("track", ["stereo", "outbound"])
def test_a_track_that_only_sequence_numbers_show_to_be_lost(track: str) -> None:
    """It is told as it begins and as it goes on, and in sum it is all that never came."""
    chunks = [*alternating(30), *alternating(150, first=31, outbound=False)]
    found = gaps(heard(make_encoder(pcm(track)), chunks))
    assert {("lost", "outbound")} == {gap[:2] for gap in found}
    assert 600 == found[0][2]
    assert [start + length for _, _, start, length in found[:-1]] == [
        start for _, _, start, _ in found[1:]
    ]
    assert 3000 == sum(gap[3] for gap in found)
    assert 4 >= len(found)


def test_a_track_whose_messages_were_never_sent_pauses() -> None:
    """Sequence numbers that follow each other exclude a loss."""
    chunks = [*alternating(20), *alternating(50, first=21, outbound=False, skipped=0)]
    assert [("sender_silence", "outbound")] == [
        gap[:2] for gap in gaps(heard(make_encoder(STEREO), chunks))
    ]


def test_what_is_behind_a_loss_is_a_pause() -> None:
    """As much is lost as numbers are missing, and hardly more."""
    lost = alternating(25, first=31, outbound=False)
    pause = [
        msgspec.structs.replace(
            each, chunk=msgspec.structs.replace(each.chunk, sequence_number=111 + at)
        )
        for at, each in enumerate(alternating(50, first=56, outbound=False))
    ]
    found = gaps(heard(make_encoder(STEREO), [*alternating(30), *lost, *pause]))
    assert ["lost", "lost", "sender_silence"] == [gap[0] for gap in found]
    lost_ms = sum(gap[3] for gap in found if gap[0] == "lost")
    assert 500 <= found[-1][2] - 600 <= 560
    assert lost_ms <= 560


def test_what_the_other_track_lost_is_not_lost_twice() -> None:
    """Its own chunk numbers say whose the missing messages were."""
    chunks = alternating(60)
    silent = [each for each in chunks if each.chunk.track == Track.INBOUND or each.arrival_ms < 400]
    numbered = []
    for at, each in enumerate(silent, start=2):
        number = each.chunk.chunk or 0
        chunk = msgspec.structs.replace(each.chunk, sequence_number=at)
        if not (chunk.track == Track.INBOUND and 30 <= number < 40):
            numbered.append(msgspec.structs.replace(each, chunk=chunk))
    found = gaps(heard(make_encoder(STEREO), numbered))
    assert {"inbound"} == {gap[1] for gap in found if gap[0] == "lost"}
    assert {"sender_silence"} == {gap[0] for gap in found if gap[1] == "outbound"}


def test_a_listener_who_joins_in_a_loss_is_told_of_it() -> None:
    """The position says how steady the sequence numbers were, and what each track sent last."""
    chunks = [*alternating(100), *alternating(50, first=101, outbound=False)]
    latest, other = chunks[-1].chunk, chunks[199].chunk
    position = StreamPosition(250, 1, 3000, latest, (other,), missing=49)
    later = alternating(50, first=151, outbound=False)
    found = gaps(heard(make_encoder(STEREO, position=position), later))
    assert {("lost", "outbound")} == {gap[:2] for gap in found}
    assert 980 <= sum(gap[3] for gap in found) <= 1000
