"""Watchers of all streams on real sockets."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed

from receiver.media import EndReason
from receiver.tap.hub import RecordingPublished, StreamEnded
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
            RecordingPublished("id", "call", "stream", {"A": "b"}, False, "folder")
        )
        assert {
            "event": "recorded",
            "recording_id": "id",
            "call_sid": "call",
            "stream_sid": "stream",
            "parameters": {"A": "b"},
            "complete": False,
            "folder": "folder",
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
