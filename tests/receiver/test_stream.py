"""The life of a stream: which messages open, feed and end a recording."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.media import Chunk, EndReason, MediaFormat, Track
from receiver.messages import Connected, Dtmf, Mark, Message, Start, Stop, Unknown
from receiver.stream import (
    TRANSITIONS,
    ChunkReceived,
    Event,
    MessageReceived,
    RecordingEnded,
    RecordingOpened,
    State,
    Stream,
)

HELLO = Connected("Call", "0.2.0")
CHUNK = Chunk(Track.INBOUND, 2, 1, 0, b"\xff" * 160)
STOP = Stop(9)
DTMF = Dtmf("5")


def start(stream_sid: str) -> Start:
    """Return a start message of the named stream."""
    return Start(stream_sid, "account", "call", ("inbound",), {}, MediaFormat())


FIRST, SECOND = start("first"), start("second")
MESSAGES = [HELLO, FIRST, SECOND, CHUNK, STOP, DTMF, Mark("m"), Unknown("x")]


def events_of(*received: Message) -> list[Event]:
    """Return everything a new stream says to these messages."""
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
    """Audio that comes late opens a recording that knows whose it is."""
    assert [RecordingOpened(FIRST), ChunkReceived(CHUNK)] == events_of(FIRST, STOP, CHUNK)[-2:]


@pytest.mark.parametrize("reason", list(EndReason))
def test_closing_ends_an_open_recording_once(reason: EndReason) -> None:
    """The reason is passed on; a second close says nothing."""
    stream = Stream()
    stream.receive(FIRST)
    assert (RecordingEnded(reason),) == stream.closed(reason)
    assert () == stream.closed(reason)


def test_closing_without_a_recording_says_nothing() -> None:
    """A socket that only greeted leaves nothing behind."""
    stream = Stream()
    assert () == stream.receive(HELLO)
    assert () == stream.receive(DTMF)
    assert () == stream.receive(STOP)
    assert () == stream.closed(EndReason.CLOSED)


def test_the_table_covers_every_state_and_message() -> None:
    """No message can meet a state that does not know what to do."""
    kinds = {type(message) for message in MESSAGES}
    assert set(itertools.product(State, kinds)) == set(TRANSITIONS)


@given(st.lists(st.sampled_from(MESSAGES), max_size=40), st.sampled_from(list(EndReason)))
def test_any_order_of_messages_opens_and_ends_in_turn(
    received: list[Message], reason: EndReason
) -> None:
    """Everything kept belongs to exactly one open recording; no chunk is ever dropped."""
    stream = Stream()
    events = [event for message in received for event in stream.receive(message)]
    events += stream.closed(reason)
    is_open = False
    for event in events:
        if isinstance(event, RecordingOpened):
            assert not is_open
            is_open = True
        else:
            assert is_open
            is_open = not isinstance(event, RecordingEnded)
    assert not is_open
    assert received.count(CHUNK) == events.count(ChunkReceived(CHUNK))
