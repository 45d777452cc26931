"""Watchers of all streams on real sockets."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from receiver.auth.tap_tokens import Scope, TapGrant
from receiver.media import Chunk, EndReason, Track
from receiver.tap.hub import RecordingPublished, StreamEnded, StreamPosition
from receiver.tap.listener import WatchRequest
from tests.bounds import at_most
from tests.receiver.helpers.serving import (
    FixedSource,
    TapServer,
    read_text,
    read_until_closed,
)
from tests.receiver.helpers.taps import live_stream

pytestmark = pytest.mark.integration


async def test_a_watcher_gets_every_lifecycle_event(server: TapServer) -> None:
    """As lifecycle events; it may leave whenever it likes."""
    async with server.connect("all?param.A=b") as watcher:
        await (await watcher.ping())
        server.open_stream(A="x").end()
        stream = server.open_stream(A="b")
        assert "started" == (await read_text(watcher))["event"]
        stream.end()
        assert "stopped" == (await read_text(watcher))["event"]
        server.hub.recording_published(
            RecordingPublished("id", "call", "stream", {"A": "b"}, False, "folder", 20.5, "No.")
        )
        assert {
            "event": "recorded",
            "recording_id": "id",
            "call_sid": "call",
            "stream_sid": "stream",
            "parameters": {"A": "b"},
            "complete": False,
            "folder": "folder",
            "duration_ms": 20.5,
            "verdict": "No.",
        } == await read_text(watcher)


async def test_watchers_count_as_listeners(server: TapServer) -> None:
    """While their sockets are open."""
    server.open_stream()
    async with server.connect("all") as watcher:
        await read_text(watcher)
        assert (1, 1) == (len(server.taps), server.taps.counters.watchers)
    async with server.connect("all") as watcher:
        await read_text(watcher)
        assert 1 == server.taps.counters.watchers


async def test_a_late_watcher_gets_every_stream(server: TapServer) -> None:
    """Also where the list is longer than a queue, and then of what happened meanwhile."""
    one = live_stream(Note="x" * 1000)
    several = [msgspec.structs.replace(one, recording_id=str(number)) for number in range(1500)]
    taps = [server.hub.open(live, FixedSource()) for live in several]
    async with server.connect("all", max_queue=1) as watcher:
        first = await read_text(watcher)
        taps[0].publish(StreamEnded(EndReason.STOP, 0))
        rest = [await read_text(watcher) for _ in range(1500)]
    assert ["started"] * 1500 + ["stopped"] == [document["event"] for document in [first, *rest]]
    assert [*range(1500), 0] == [int(document["recording_id"]) for document in [first, *rest]]


async def test_a_stuck_watcher_is_closed_with_1013(strict_server: TapServer) -> None:
    """It gets every event or none any more: what it missed is in the list."""
    kept = RecordingPublished("id", "call", "stream", {}, True, "x" * 10_000)
    async with strict_server.connect("all", max_queue=1) as stuck:
        await (await stuck.ping())
        stuck.transport.pause_reading()
        while not any(watcher.closed_slow for watcher in strict_server.taps.watchers):
            strict_server.hub.recording_published(kept)
            await asyncio.sleep(0)
        stuck.transport.resume_reading()
        with pytest.raises(ConnectionClosed, match="1013"):
            await read_until_closed(stuck)
    while len(strict_server.taps):  # noqa: ASYNC110  there is no event
        await asyncio.sleep(0)
    assert (1, 0) == (
        strict_server.taps.counters.closed_slow,
        strict_server.taps.counters.watchers,
    )


LOUD, SILENT = b"\x00" * 160, b"\xff" * 160


def standing(chunks: int, *latest: Chunk, missing: int | None = 0) -> StreamPosition:
    """Return a position whose latest chunks are these."""
    return StreamPosition(chunks, 1, 20 * chunks, latest[0], latest[1:], missing=missing)


def chunk(track: Track, payload: bytes) -> Chunk:
    """Return a chunk of a track."""
    return Chunk(track, None, None, None, payload)


async def test_a_watcher_gets_the_levels_that_it_asks_for(server: TapServer) -> None:
    """Of each track the loudest of its latest chunks, and what is missing; of silence none."""
    talking = standing(5, chunk(Track.INBOUND, LOUD), chunk(Track.OUTBOUND, SILENT), missing=3)
    unnumbered = standing(2, chunk(Track.OUTBOUND, LOUD), missing=None)
    stream = server.open_stream(talking, A="b")
    async with server.connect("all?levels=yes&param.A=b") as watcher:
        assert "started" == (await read_text(watcher))["event"]
        levels = await read_text(watcher)
        assert "levels" == levels["event"]
        ((recording_id, found),) = levels["streams"].items()
        expected = {"ms": 100, "inbound": -0.2, "outbound": -96.0, "lost_ms": 60, "listeners": 0}
        assert expected == found
        # The same chunks are not heard twice.
        nothing_came = (await read_text(watcher))["streams"][recording_id]
        assert {**expected, "inbound": None, "outbound": None} == nothing_came
    stream.end()
    async with server.connect("all?levels=yes&param.A=c") as watcher:
        server.hub.open(live_stream(A="c"), FixedSource(unnumbered))
        await read_text(watcher)
        (found,) = (await read_text(watcher))["streams"].values()
        assert (None, -0.2, None) == (found["inbound"], found["outbound"], found["lost_ms"])


async def test_levels_cost_nothing_where_nobody_asks(server: TapServer) -> None:
    """The meter stops with the last watcher, and subscribes to no stream while it runs."""
    stream = server.open_stream()
    async with server.connect("all?levels=yes") as watcher:
        assert ["started", "levels"] == [(await read_text(watcher))["event"] for _ in range(2)]
        assert server.taps.levels.is_running
        assert not stream.tap.has_subscribers
    async with asyncio.timeout(at_most(10)):
        while server.taps.levels.is_running:  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0)


async def test_a_watcher_that_does_not_read_is_sent_no_more_levels(server: TapServer) -> None:
    """What has become old is of no use; it is not closed for it."""
    measured = [(server.open_stream().live, {"many": "x" * 20_000})]
    async with server.connect("all?levels=yes", max_queue=1) as stuck:
        await read_text(stuck)
        stuck.transport.pause_reading()
        (watcher,) = server.taps.watchers
        async with asyncio.timeout(at_most(20)):
            while watcher.has_caught_up:
                watcher.on_levels(measured)
                await asyncio.sleep(0)
        for _ in range(1000):
            watcher.on_levels(measured)
        assert not watcher.closed_slow
        stuck.transport.resume_reading()
        async with asyncio.timeout(at_most(20)):
            while not watcher.has_caught_up:
                await read_text(stuck)


def test_a_watcher_sees_what_its_token_permits() -> None:
    """And asked for."""
    grant = TapGrant(scope=Scope(parameter=("A", "b")))
    about = live_stream(A="b", C="d")
    assert WatchRequest({}, False, grant).matches(about)
    assert not WatchRequest({"C": "x"}, False, grant).matches(about)
    assert not WatchRequest({}, False, grant).matches(live_stream(A="x"))
