"""The life of a stream: which messages open, feed and end a recording."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.ingest.stream import (
    TRANSITIONS,
    ChunkOwner,
    ChunkReceived,
    ChunkRefused,
    MessageReceived,
    ProtocolEvent,
    RecordingEnded,
    RecordingOpened,
    State,
    Stream,
)
from receiver.media import Chunk, EndReason, MediaFormat, Track
from receiver.wire.messages import (
    Connected,
    DtmfMessage,
    MarkMessage,
    Message,
    Start,
    Stop,
    Unknown,
)

HELLO = Connected("Call", "0.2.0")
CHUNK = Chunk(Track.INBOUND, 2, 1, 0, b"\xff" * 160)
STOP = Stop(9)
DTMF = DtmfMessage("5")


def chunk(number: int, stream_sid: str | None = None) -> Chunk:
    """Return a chunk as providers count them."""
    return Chunk(Track.INBOUND, number + 1, number, 20 * number - 20, b"\xff" * 160, stream_sid)


def start(stream_sid: str) -> Start:
    """Return a start message of the named stream."""
    return Start(stream_sid, "account", "call", ("inbound",), {}, MediaFormat())


FIRST, SECOND = start("first"), start("second")
MESSAGES = [HELLO, FIRST, SECOND, CHUNK, STOP, DTMF, MarkMessage("m"), Unknown("x")]


def events_of(*received: Message) -> list[ProtocolEvent]:
    """Return all events of a new stream that receives these messages."""
    stream = Stream()
    return [event for message in received for event in stream.receive(message)]


def test_a_stream_as_documented_is_one_recording() -> None:
    """Connected, start, media, dtmf, stop."""
    expected = [
        RecordingOpened(),
        MessageReceived(FIRST),
        ChunkReceived(CHUNK),
        MessageReceived(DTMF),
        MessageReceived(STOP),
        RecordingEnded(EndReason.STOP),
    ]
    assert expected == events_of(HELLO, FIRST, CHUNK, DTMF, STOP)


def test_media_before_start_is_kept_in_the_same_recording() -> None:
    """A recording opens with the first audio; the start message joins it."""
    expected = [
        RecordingOpened(),
        ChunkReceived(CHUNK),
        MessageReceived(FIRST),
        ChunkReceived(CHUNK),
    ]
    assert expected == events_of(CHUNK, FIRST, CHUNK)


def test_another_stream_on_the_same_socket_replaces_the_first() -> None:
    """A start of another stream ends one recording and opens the next."""
    expected = [
        RecordingOpened(),
        MessageReceived(FIRST),
        RecordingEnded(EndReason.REPLACED),
        RecordingOpened(),
        MessageReceived(SECOND),
    ]
    assert expected == events_of(FIRST, SECOND)


def test_a_repeated_start_changes_nothing() -> None:
    """The same stream saying start again is kept as a message."""
    expected = [RecordingOpened(), MessageReceived(FIRST), MessageReceived(FIRST)]
    assert expected == events_of(FIRST, FIRST)


def test_media_after_stop_is_kept_under_the_same_name() -> None:
    """Audio that comes late opens a recording that has its name."""
    late = chunk(2)
    expected = [RecordingOpened(FIRST), ChunkReceived(late)]
    assert expected == events_of(FIRST, CHUNK, STOP, late)[-2:]


def ended(stream: Stream) -> list[ProtocolEvent]:
    """Return what the end of the connection means."""
    return list(stream.closed(EndReason.CLOSED))


@pytest.mark.parametrize("following", [(SECOND, chunk(1)), (chunk(1), SECOND)])
def test_stragglers_and_the_stream_that_follows_are_told_apart(
    following: tuple[Start | Chunk, ...],
) -> None:
    """What continues the old stream is the old one's, what starts over is the new one's."""
    late = chunk(2)
    expected = [
        RecordingOpened(FIRST),
        ChunkReceived(late),
        RecordingEnded(EndReason.REPLACED),
        RecordingOpened(),
        *(ChunkReceived(m) if isinstance(m, Chunk) else MessageReceived(m) for m in following),
    ]
    assert expected == events_of(FIRST, CHUNK, STOP, late, *following)[-6:]


def test_audio_that_starts_over_waits_for_its_start() -> None:
    """After a stop it is never given the name of the stream before, but that of the next."""
    new = [chunk(1), chunk(2)]
    events = events_of(FIRST, chunk(1), chunk(2), STOP, *new, SECOND)
    expected = [RecordingOpened(), *map(ChunkReceived, new), MessageReceived(SECOND)]
    assert expected == events[-4:]


def test_audio_without_a_name_is_assumed_to_be_of_the_stream_before() -> None:
    """Where no start comes; the event has the start that was assumed."""
    stream = Stream()
    for message in (FIRST, CHUNK, STOP, CHUNK):
        stream.receive(message)
    assert [RecordingEnded(EndReason.CLOSED, FIRST)] == ended(stream)


@pytest.mark.parametrize(
    ("late", "continues"),
    [
        (Chunk(Track.INBOUND, None, None, 20, b""), True),
        (Chunk(Track.INBOUND, None, None, 0, b""), False),
        (Chunk(Track.INBOUND, 3, None, None, b""), True),
        (Chunk(Track.INBOUND, 2, 2, 20, b""), False),
        (Chunk(Track.INBOUND, None, None, None, b""), True),
        (Chunk(Track.OUTBOUND, 3, 1, 20, b""), True),
        (Chunk(Track.OUTBOUND, 3, 1, 0, b""), False),
        (Chunk(Track.OUTBOUND, 2, 1, 20, b""), False),
        (Chunk(Track.OUTBOUND, None, 1, None, b""), True),
    ],
)
def test_a_straggler_is_known_by_all_its_counters(late: Chunk, continues: bool) -> None:
    """Those of its track, and the sequence number of the stream; none at all is no objection."""
    assert RecordingOpened(FIRST if continues else None) in events_of(FIRST, CHUNK, STOP, late)[3:]


def test_a_name_on_a_chunk_says_more_than_counters() -> None:
    """Every message of Twilio names its stream."""
    named = start("MZ1")
    ours, others = chunk(1, "MZ1"), chunk(2, "MZ2")
    assert RecordingOpened(named) in events_of(named, ours, STOP, ours)[4:]
    stream = Stream()
    events = [e for m in (named, ours, STOP, others) for e in stream.receive(m)]
    assert [RecordingOpened(), ChunkReceived(others)] == events[-2:]
    assert [RecordingEnded(EndReason.CLOSED)] == ended(stream), "it has another name"


def test_early_audio_of_another_name_is_not_the_new_streams() -> None:
    """What calls itself neither the old stream nor the new one stays without a name."""
    others = chunk(1, "MZ3")
    expected = [
        RecordingOpened(),
        ChunkReceived(others),
        RecordingEnded(EndReason.REPLACED),
        RecordingOpened(),
        MessageReceived(start("MZ2")),
    ]
    assert expected == events_of(start("MZ1"), STOP, others, start("MZ2"))[-5:]
    assert expected == events_of(others, start("MZ2"))


def test_a_chunk_of_another_stream_is_refused() -> None:
    """Neither a late one of the stream before, nor one of a stream that never started."""
    ours = chunk(1, "MZ2")
    for others in (chunk(11, "MZ1"), chunk(11, "MZ9")):
        events = events_of(start("MZ1"), start("MZ2"), ours, others, ours)
        assert [ChunkReceived(ours), ChunkRefused(others), ChunkReceived(ours)] == events[-3:]
    late = chunk(11, "MZ1")
    early = events_of(start("MZ1"), STOP, chunk(1, "MZ2"), late)
    assert ChunkRefused(late) == early[-1]
    assert ("other_stream", 11) == (ChunkRefused(late).rejection.code, late.chunk)


def test_a_provider_with_two_names_for_a_stream_loses_nothing() -> None:
    """The name around `start` counts too, and any where no chunk comes under a name of `start`."""
    both = Start("inner", "account", "call", (), {}, MediaFormat(), outer_sid="outer")
    for named in (start("inner"), both):
        chunks = [chunk(n, "outer") for n in range(3)]
        assert list(map(ChunkReceived, chunks)) == events_of(named, *chunks)[-3:]


def test_a_start_of_another_call_is_another_stream() -> None:
    """Also where the provider gives the stream the same name, or none."""
    other = Start("first", "account", "another call", ("inbound",), {}, MediaFormat())
    assert RecordingEnded(EndReason.REPLACED) in events_of(FIRST, other)


@pytest.mark.parametrize("reason", list(EndReason))
def test_closing_ends_an_open_recording_once(reason: EndReason) -> None:
    """The reason is passed on; a second close has no events."""
    stream = Stream()
    stream.receive(FIRST)
    assert (RecordingEnded(reason),) == stream.closed(reason)
    assert () == stream.closed(reason)


def test_closing_without_a_recording_says_nothing() -> None:
    """A socket that sent only `connected` leaves nothing behind."""
    stream = Stream()
    assert () == stream.receive(HELLO)
    assert () == stream.receive(DTMF)
    assert () == stream.receive(STOP)
    assert () == stream.closed(EndReason.CLOSED)


def test_the_table_covers_every_state_and_message() -> None:
    """No message can meet a state that does not know what to do."""
    kinds: set[object] = {type(message) for message in MESSAGES if message is not CHUNK}
    kinds |= set(ChunkOwner)
    assert set(itertools.product(State, kinds)) == set(TRANSITIONS)


STRANGERS = [start("MZ1"), start("MZ2"), chunk(1, "MZ1"), chunk(2, "MZ1"), chunk(1, "MZ2")]


@given(
    st.lists(st.sampled_from(MESSAGES + STRANGERS), max_size=40), st.sampled_from(list(EndReason))
)
def test_any_order_of_messages_opens_and_ends_in_turn(
    received: list[Message], reason: EndReason
) -> None:
    """Everything kept belongs to exactly one open recording; no chunk is dropped in silence.

    A recording has the name of one stream at most, and no chunk that names another.
    """
    stream = Stream()
    events = [event for message in received for event in stream.receive(message)]
    events += stream.closed(reason)
    is_open = False
    starts: set[str] = set()
    for event in events:
        if isinstance(event, RecordingOpened):
            assert not is_open
            is_open = True
            starts = {event.followed.stream_sid} if event.followed else set()
            continue
        assert is_open
        is_open = not isinstance(event, RecordingEnded)
        if isinstance(event, MessageReceived) and isinstance(event.message, Start):
            starts.add(event.message.stream_sid)
        elif isinstance(event, RecordingEnded) and event.assumed:
            starts.add(event.assumed.stream_sid)
        assert len(starts) <= 1
    assert not is_open
    chunks = [message for message in received if isinstance(message, Chunk)]
    kept = [event.chunk for event in events if isinstance(event, ChunkReceived | ChunkRefused)]
    assert chunks == kept
    refused = [event.chunk for event in events if isinstance(event, ChunkRefused)]
    assert all(chunk.stream_sid for chunk in refused)
