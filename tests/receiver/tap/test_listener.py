"""Listeners on real sockets: slow ones, stuck ones, and their neighbours."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed

from receiver.tap.listener import ListenerLimits
from tests.receiver.helpers.serving import (
    TapServer,
    read_all,
    read_text,
    read_until_closed,
)

pytestmark = pytest.mark.integration


async def test_a_stuck_listener_is_closed_with_1013(strict_server: TapServer) -> None:
    """After the time for which it may stall; a neighbour that reads misses nothing."""
    stream = strict_server.open_stream()
    async with (
        strict_server.connect(stream.live.call_sid) as good,
        strict_server.connect(stream.live.call_sid, max_queue=1) as stuck,
    ):
        await read_text(good)
        await read_text(stuck)
        stuck.transport.pause_reading()
        while not any(listener.closed_slow for listener in strict_server.taps.listeners):
            stream.publish(50)
            received = [await good.recv(decode=False) for _ in range(50)]
            assert 50 * 320 == sum(map(len, received))
        stuck.transport.resume_reading()
        with pytest.raises(ConnectionClosed, match="1013"):
            await read_until_closed(stuck)
        stream.end()
        assert "stopped" == (await read_text(good))["event"]
    assert 1 == strict_server.taps.counters.closed_slow
    assert strict_server.taps.counters.dropped["slow_listener"]


def test_the_limits_are_the_documented_ones() -> None:
    """Two seconds, one MiB, thirty seconds."""
    limits = ListenerLimits()
    assert (2000, 2**20, 30) == (limits.queue_ms, limits.queue_bytes, limits.stall_seconds)


async def test_a_listener_that_wakes_up_goes_on(server: TapServer) -> None:
    """It gets what waited, a notice of what did not, and the present."""
    stream = server.open_stream()
    async with server.connect(stream.live.stream_sid, max_queue=1) as sleeper:
        await read_text(sleeper)
        sleeper.transport.pause_reading()
        while not server.taps.counters.dropped["slow_listener"]:
            stream.publish(50)
            await asyncio.sleep(0)  # the receiver's turn
        stream.publish(200)
        await asyncio.sleep(0)
        sleeper.transport.resume_reading()
        stream.end()
        sound, texts = await read_all(sleeper)
    missed = sum(event["duration_ms"] for event in texts if event["event"] == "gap")
    assert ["gap"] * (len(texts) - 1) + ["stopped"] == [event["event"] for event in texts]
    assert stream.chunks * 20 == len(sound) / 16 + missed
    assert missed


async def test_pings_of_a_listener_are_answered(server: TapServer) -> None:
    """Also while it is being sent audio."""
    stream = server.open_stream()
    async with server.connect(stream.live.recording_id) as listener:
        await read_text(listener)
        stream.publish(3)
        await (await listener.ping())
        stream.end()
        assert 3 * 320 == len((await read_all(listener))[0])


async def test_what_listeners_send_is_ignored(server: TapServer) -> None:
    """They listen; leaving early is their right."""
    stream = server.open_stream()
    for rest in (stream.live.call_sid, "all"):
        async with server.connect(rest) as listener:
            await read_text(listener)
            await listener.send("hello")
            await listener.send(b"\0")
    stream.publish(1)
    async with server.connect(stream.live.call_sid) as listener:
        await read_text(listener)
        stream.end()
        assert (b"", ["stopped"]) == (
            (got := await read_all(listener))[0],
            [event["event"] for event in got[1]],
        )


@pytest.mark.parametrize("rest", ["call", "all"])
async def test_a_listener_that_talks_too_much_is_closed(server: TapServer, rest: str) -> None:
    """Each message takes time from those who record."""
    stream = server.open_stream()
    async with server.connect(stream.live.call_sid if rest == "call" else rest) as listener:
        await read_text(listener)
        for _ in range(200):
            with suppress(ConnectionClosed):
                await listener.send("hello")
        with pytest.raises(ConnectionClosed, match="1008"):
            await read_until_closed(listener)


async def test_a_burst_alone_drops_nothing(server: TapServer) -> None:
    """What the network held back comes at once, and is longer than the queue."""
    stream = server.open_stream()
    async with server.connect(stream.live.call_sid) as listener:
        await read_text(listener)
        stream.publish(250)
        stream.end()
        sound, texts = await read_all(listener)
    assert (250 * 320, ["stopped"]) == (len(sound), [event["event"] for event in texts])
