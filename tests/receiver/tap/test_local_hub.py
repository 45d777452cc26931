"""The hub of one process: order, subscribing, unsubscribing, and callbacks that fail."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import msgspec

from receiver.media import EndReason
from receiver.tap.hub import (
    SILENT,
    LifecycleEvent,
    LiveChunk,
    RecordingPublished,
    StreamEnded,
    StreamEvent,
    StreamPosition,
    StreamRefused,
    StreamStarted,
    StreamStopped,
    Subscribed,
    Tap,
)
from receiver.tap.local_hub import LocalHub
from tests.receiver.helpers.taps import ManualScheduler, live_chunk, live_stream

LIVE = live_stream()
STOPPED = StreamEnded(EndReason.STOP, 40)


@dataclass
class CountingSource:
    """A stream that has had so many chunks."""

    chunks: int = 0

    def position(self) -> StreamPosition:
        """Return its position."""
        return StreamPosition(self.chunks, 1, self.chunks * 20, None)


def test_chunks_are_published_only_where_somebody_listens() -> None:
    """The session asks this before anything else is done."""
    loop = ManualScheduler()
    hub = LocalHub(loop)
    tap = hub.open(LIVE, CountingSource())
    assert (False, False) == (tap.has_subscribers, hub.has_subscribers)
    unsubscribe = hub.subscribe(LIVE.recording_id, lambda _: None)
    other = hub.subscribe(LIVE.recording_id, lambda _: None)
    unsubscribe()
    unsubscribe()
    assert (True, True) == (tap.has_subscribers, hub.has_subscribers)
    other()
    assert (False, False) == (tap.has_subscribers, hub.has_subscribers)
    tap.publish(live_chunk(1, b"x"))
    assert 0 == loop.run()


def test_publishing_is_one_append_whoever_listens() -> None:
    """Any number of chunks costs one call later, and nobody is called before."""
    loop, got = ManualScheduler(), list[StreamEvent]()
    hub = LocalHub(loop)
    tap = hub.open(LIVE, CountingSource(7))
    for _ in range(3):
        hub.subscribe(LIVE.recording_id, got.append)
    assert [Subscribed(LIVE, StreamPosition(7, 1, 140, None))] * 3 == got
    got.clear()
    chunks = [live_chunk(number, b"x") for number in range(5)]
    for chunk in chunks:
        tap.publish(chunk)
    assert [] == got
    assert 1 == loop.run()
    assert [chunk for chunk in chunks for _ in range(3)] == got


def test_a_subscription_starts_behind_what_was_published() -> None:
    """What was published and not yet delivered goes to earlier subscribers only."""
    loop, first, second = ManualScheduler(), list[StreamEvent](), list[StreamEvent]()
    hub = LocalHub(loop)
    tap = hub.open(LIVE, CountingSource())
    hub.subscribe(LIVE.recording_id, first.append)
    tap.publish(live_chunk(1, b"x"))
    hub.subscribe(LIVE.recording_id, second.append)
    tap.publish(live_chunk(2, b"x"))
    loop.run()
    assert [live_chunk(1, b"x"), live_chunk(2, b"x")] == first[1:]
    assert [live_chunk(2, b"x")] == second[1:]


def test_the_end_is_delivered_at_once() -> None:
    """The sockets of listeners may be closed next; afterwards there is no such stream."""
    loop, got, happened = ManualScheduler(), list[StreamEvent](), list[LifecycleEvent]()
    hub = LocalHub(loop)
    hub.watch(happened.append)
    tap = hub.open(LIVE, CountingSource())
    unsubscribe = hub.subscribe(LIVE.recording_id, got.append)
    tap.publish(live_chunk(1, b"x"))
    tap.publish(STOPPED)
    assert [live_chunk(1, b"x"), STOPPED] == got[1:]
    assert [] == list(hub.streams())
    late: list[StreamEvent] = []
    hub.subscribe(LIVE.recording_id, late.append)()
    unsubscribe()
    assert [StreamEnded(EndReason.CLOSED, 0)] == late
    assert [StreamStarted(LIVE), StreamStopped(LIVE, EndReason.STOP)] == happened


def a_burst(reason: EndReason) -> tuple[ManualScheduler, list[StreamEvent]]:
    """Publish six seconds of both tracks and the end, all within one read."""
    loop, events = ManualScheduler(), list[StreamEvent]()
    hub = LocalHub(loop)
    tap = hub.open(LIVE, CountingSource())
    hub.subscribe(LIVE.recording_id, events.append)
    for number in range(1, 601):
        tap.publish(live_chunk(number, b""))
    tap.publish(StreamEnded(reason, 0))
    assert [] == list(hub.streams())
    return loop, events


def test_a_burst_is_delivered_in_parts() -> None:
    """Sockets get a turn before a queue must overflow, and the end is the last all the same."""
    loop, events = a_burst(EndReason.STOP)
    assert [Subscribed] == [type(event) for event in events]
    counts = []
    while loop.run():
        counts.append(len(events))
    assert max(after - before for before, after in pairwise([1, *counts])) <= 151
    numbers = [event.chunk.chunk for event in events if isinstance(event, LiveChunk)]
    assert [*range(1, 601)] == numbers
    assert (StreamEnded(EndReason.STOP, 0), 602) == (events[-1], len(events))


def test_a_burst_is_handed_over_with_pauses() -> None:
    """A second of a call at a time, so that readers keep up; until then the hub is behind."""
    loop, got = ManualScheduler(), list[StreamEvent]()
    hub = LocalHub(loop)
    tap = hub.open(LIVE, CountingSource())
    hub.subscribe(LIVE.recording_id, got.append)
    assert not hub.is_behind(LIVE.recording_id)
    for number in range(1, 3001):
        tap.publish(live_chunk(number, b""))
    tap.publish(STOPPED)
    assert [] == list(hub.streams())
    turns = 0
    while hub.is_behind(LIVE.recording_id):
        before = len(got)
        loop.run()
        turns += 1
        assert 100 >= len(got) - before
    assert (3002, STOPPED, 0) == (len(got), got[-1], loop.run())
    assert turns == len(loop.delays) + 1
    assert 1 > sum(loop.delays)  # of half a minute


def test_a_burst_can_be_flushed() -> None:
    """Of streams that live and of those that have just ended: sockets may be closed next."""
    loop, got = ManualScheduler(), list[StreamEvent]()
    hub = LocalHub(loop)
    for live in (LIVE, msgspec.structs.replace(LIVE, recording_id="another")):
        tap = hub.open(live, CountingSource())
        hub.subscribe(live.recording_id, got.append)
        for number in range(1, 301):
            tap.publish(live_chunk(number, b""))
    tap.publish(STOPPED)
    hub.flush()
    assert (603, STOPPED) == (len(got), got[-1])
    assert not hub.is_behind("another")
    while loop.run():
        pass
    assert 603 == len(got)


def subscribed_within_a_burst() -> tuple[
    ManualScheduler, LocalHub, Tap, list[StreamEvent], list[StreamEvent]
]:
    """Subscribe while six seconds of both tracks wait to be delivered to another subscriber."""
    loop, first, second = ManualScheduler(), list[StreamEvent](), list[StreamEvent]()
    hub, source = LocalHub(loop), CountingSource()
    tap = hub.open(LIVE, source)
    hub.subscribe(LIVE.recording_id, first.append)
    for number in range(1, 601):
        tap.publish(live_chunk(number, b""))
    source.chunks = 600
    loop.run()
    hub.subscribe(LIVE.recording_id, second.append)
    return loop, hub, tap, first, second


def test_a_subscription_within_a_burst_delivers_nothing_faster() -> None:
    """It gets the position at once, and then what was published afterwards."""
    loop, hub, tap, first, second = subscribed_within_a_burst()
    assert 1 + 100 == len(first)
    assert [Subscribed(LIVE, StreamPosition(600, 1, 12_000, None))] == second
    tap.publish(live_chunk(601, b"x"))
    while hub.is_behind(LIVE.recording_id):
        before = len(first)
        loop.run()
        assert 100 >= len(first) - before
    assert (1 + 601, live_chunk(601, b"x")) == (len(first), first[-1])
    assert [live_chunk(601, b"x")] == second[1:]


def test_a_subscription_within_a_burst_gets_the_end() -> None:
    """Also where it comes while the burst is being delivered, or all is flushed."""
    for at_once in (False, True):
        loop, hub, tap, first, second = subscribed_within_a_burst()
        tap.publish(STOPPED)
        assert [Subscribed] == [type(event) for event in second]
        if at_once:
            hub.flush()
        while loop.run():
            pass
        assert (1 + 601, STOPPED) == (len(first), first[-1])
        assert [STOPPED] == second[1:]
        assert (False, False) == (tap.has_subscribers, hub.has_subscribers)


def test_a_subscription_within_a_burst_may_end_before_its_turn() -> None:
    """It gets no event, and delays none."""
    loop, hub, tap, first, _ = subscribed_within_a_burst()
    third: list[StreamEvent] = []
    hub.subscribe(LIVE.recording_id, third.append)()
    tap.publish(live_chunk(601, b"x"))
    while loop.run():
        pass
    assert (1 + 601, [Subscribed]) == (len(first), [type(event) for event in third])


def test_a_subscription_counts_before_its_turn() -> None:
    """Where all others have unsubscribed within a burst, chunks are published for the new one."""
    loop, got = ManualScheduler(), list[StreamEvent]()
    hub = LocalHub(loop)
    tap = hub.open(LIVE, CountingSource())
    unsubscribe = hub.subscribe(LIVE.recording_id, lambda _: None)
    for number in range(1, 301):
        tap.publish(live_chunk(number, b""))
    last = hub.subscribe(LIVE.recording_id, got.append)
    unsubscribe()
    assert tap.has_subscribers
    tap.publish(live_chunk(301, b"x"))
    while loop.run():
        pass
    assert [live_chunk(301, b"x")] == got[1:]
    last()
    assert not tap.has_subscribers


def test_a_burst_without_subscribers_is_forgotten() -> None:
    """Also where its end was delivered to nobody."""
    loop = ManualScheduler()
    hub = LocalHub(loop)
    tap = hub.open(LIVE, CountingSource())
    unsubscribe = hub.subscribe(LIVE.recording_id, lambda _: None)
    for number in range(1, 301):
        tap.publish(live_chunk(number, b""))
    unsubscribe()
    tap.publish(STOPPED)
    assert not hub.is_behind(LIVE.recording_id)
    while loop.run():
        pass


def test_a_burst_before_the_shutdown_is_delivered_at_once() -> None:
    """The sockets are closed next."""
    _, events = a_burst(EndReason.SHUTDOWN)
    assert (StreamEnded(EndReason.SHUTDOWN, 0), 602) == (events[-1], len(events))


def test_watchers_get_events_until_they_unsubscribe() -> None:
    """Also what became of a recording; unsubscribing twice does no harm."""
    hub = LocalHub(ManualScheduler())
    happened: list[LifecycleEvent] = []
    unsubscribe = hub.watch(happened.append)
    kept = RecordingPublished("id", "call", "stream", {}, True, "folder")
    hub.recording_published(kept)
    unsubscribe()
    unsubscribe()
    hub.recording_published(kept)
    assert [kept] == happened


def test_a_callback_that_fails_hurts_nobody() -> None:
    """Neither the others nor the session that publishes."""

    def fail(event: object) -> None:
        raise ValueError(event)

    loop, got = ManualScheduler(), list[StreamEvent]()
    hub = LocalHub(loop)
    hub.watch(fail)
    tap = hub.open(LIVE, CountingSource())
    hub.subscribe(LIVE.recording_id, fail)
    hub.subscribe(LIVE.recording_id, got.append)
    tap.publish(live_chunk(1, b"x"))
    loop.run()
    tap.publish(STOPPED)
    assert [live_chunk(1, b"x"), STOPPED] == got[1:]


def test_a_stream_without_a_name_has_no_subscribers() -> None:
    """Audio before `start` is published to nobody."""
    assert not SILENT.has_subscribers
    SILENT.publish(STOPPED)


def test_a_stream_that_nobody_can_listen_to_is_known_until_it_ends() -> None:
    """Watchers are told at once; it is none of those that can be subscribed to."""
    hub, seen = LocalHub(ManualScheduler()), list[LifecycleEvent]()
    hub.watch(seen.append)
    tap = hub.refuse(LIVE, "unsupported encoding")
    refused = StreamRefused(LIVE, "unsupported encoding")
    assert ([refused], [refused], []) == (seen, [*hub.refused()], [*hub.streams()])
    tap.publish(live_chunk(1, b"x"))
    assert ([refused], False) == ([*hub.refused()], tap.has_subscribers)
    tap.publish(STOPPED)
    assert ([refused], []) == (seen, [*hub.refused()])
