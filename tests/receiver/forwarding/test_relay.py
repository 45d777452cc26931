"""Relays on real sockets: a consumer that does not read is treated as a listener would be."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from receiver.counters import TapCounters
from receiver.forwarding.relay import Consumer, Forwarder, ForwardOptions
from receiver.media import ByteOrder, EndReason, Track
from receiver.tap.feed import Feeds
from receiver.tap.hub import StreamEnded, Tap
from receiver.tap.listener import ListenerLimits
from receiver.tap.local_hub import LocalHub
from receiver.transports import client
from tests.bounds import at_most
from tests.receiver.helpers.serving import FixedSource
from tests.receiver.helpers.taps import live_chunk, live_stream

pytestmark = pytest.mark.integration

CHUNK = b"\x10" * 160


@dataclass
class ForwardedStream:
    """A hub with one live stream, and its forwarder."""

    tap: Tap
    counters: TapCounters
    forwarder: Forwarder
    chunks: int = 0

    def publish(self, seconds: int) -> None:
        """Publish chunks of both tracks, as a session would."""
        for _ in range(seconds * 50):
            self.chunks += 1
            for track in Track.INBOUND, Track.OUTBOUND:
                if self.tap.has_subscribers:
                    self.tap.publish(live_chunk(self.chunks, CHUNK, track=track))

    def end(self) -> None:
        """Publish the end."""
        self.tap.publish(StreamEnded(EndReason.STOP, self.chunks * 20))


@asynccontextmanager
async def forwarding(url: str, *, stall_seconds: float) -> AsyncIterator[ForwardedStream]:
    """Forward one stream to one consumer."""
    hub = LocalHub()
    counters = TapCounters()
    feeds = Feeds(hub, byte_order=ByteOrder.LITTLE, counters=counters)
    options = ForwardOptions(limits=ListenerLimits(stall_seconds=stall_seconds), counters=counters)
    forwarder = Forwarder(hub, feeds, (Consumer(url),), options)
    tap = hub.open(live_stream(), FixedSource())
    forwarder.start()
    try:
        yield ForwardedStream(tap, counters, forwarder)
    finally:
        await forwarder.close()


@dataclass
class StalledConsumer:
    """A consumer that reads nothing until it is woken."""

    woken: asyncio.Event
    calls: asyncio.Queue[ServerConnection]

    async def accept(self, connection: ServerConnection) -> None:
        """Accept a call and read nothing."""
        connection.transport.pause_reading()
        self.calls.put_nowait(connection)
        await self.woken.wait()
        await connection.wait_closed()


@asynccontextmanager
async def stalled_consumer() -> AsyncIterator[tuple[StalledConsumer, str]]:
    """Run a consumer whose kernel, too, takes little."""
    consumer = StalledConsumer(asyncio.Event(), asyncio.Queue())
    with closing(socket.create_server(("127.0.0.1", 0))) as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        async with serve(consumer.accept, sock=tcp, compression=None, max_queue=None):
            try:
                yield consumer, f"ws://127.0.0.1:{tcp.getsockname()[1]}/x"
            finally:
                consumer.woken.set()


async def stall(stream: ForwardedStream, consumer: StalledConsumer) -> ServerConnection:
    """Publish until a consumer that reads nothing is closed; return its connection."""
    stuck = await asyncio.wait_for(consumer.calls.get(), at_most(10))
    async with asyncio.timeout(at_most(10)):
        while not stream.counters.closed_slow:
            stream.publish(1)
            await asyncio.sleep(0)  # the relay's turn
    return stuck


async def everything(connection: ServerConnection) -> list[dict[str, Any]]:
    """Return what a consumer receives until it is closed."""
    messages = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(json.loads(await connection.recv()))
    return messages


async def test_a_consumer_that_reads_nothing_is_closed_with_1013() -> None:
    """After the time for which listeners may stall; what it misses is counted."""
    async with (
        stalled_consumer() as (consumer, url),
        forwarding(url, stall_seconds=0.2) as stream,
    ):
        stuck = await stall(stream, consumer)
        stuck.transport.resume_reading()
        messages = await everything(stuck)
        assert 1013 == stuck.close_code
        again = await asyncio.wait_for(consumer.calls.get(), at_most(10))
        again.transport.resume_reading()
        stream.end()
        await everything(again)
    media = sum(message["event"] == "media" for message in messages)
    dropped = stream.counters.dropped
    assert 2 * stream.chunks == media + dropped.total()
    assert dropped["slow_consumer"] > dropped["absent_consumer"] > 0
    assert media * len(json.dumps(messages[-1])) < 400_000  # no kernel holds half a minute


async def test_the_kernel_of_a_consumer_may_be_large() -> None:
    """Its pongs say what it has read, so its backlog is bounded all the same."""
    reading, asleep = asyncio.Event(), asyncio.Queue[ServerConnection]()

    async def take(connection: ServerConnection) -> None:
        received = 0
        while received < 60_000:
            received += len(await connection.recv())
        connection.transport.pause_reading()
        with suppress(TimeoutError):  # what the library has read, its pongs have confirmed as read
            while True:
                async with asyncio.timeout(0):
                    await connection.recv()
        asleep.put_nowait(connection)
        await reading.wait()

    with closing(socket.create_server(("127.0.0.1", 0))) as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
        url = f"ws://127.0.0.1:{tcp.getsockname()[1]}/x"
        async with (
            serve(take, sock=tcp, compression=None, max_queue=None),
            forwarding(url, stall_seconds=30) as stream,
        ):
            async with asyncio.timeout(at_most(10)):
                while asleep.empty():
                    stream.publish(1)
                    await asyncio.sleep(0)  # the consumer's turn
                sleeper = await asleep.get()
                while stream.counters.dropped["slow_consumer"] < 3000:
                    stream.publish(1)
                    await asyncio.sleep(0)
            sleeper.transport.resume_reading()
            stream.end()
            media = [one for one in await everything(sleeper) if one["event"] == "media"]
            reading.set()
    assert len(media) * len(json.dumps(media[0])) < 220_000  # what may be unread, and a queue


async def test_a_consumer_that_never_reads_is_dropped_and_dialled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does not even read that it is closed."""
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_SECONDS", 0.1)
    async with (
        stalled_consumer() as (consumer, url),
        forwarding(url, stall_seconds=0.2) as stream,
    ):
        stuck = await stall(stream, consumer)
        again = await asyncio.wait_for(consumer.calls.get(), at_most(10))
        again.transport.resume_reading()
        stream.publish(1)
        stream.end()
        stuck.transport.abort()
        events = [message["event"] for message in await everything(again)]
    assert ["connected", "start"] == events[:2]
    assert ["media", "stop"] == events[-2:]
