"""One encoder for all listeners of a kind: what is late, and what is awaited."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from receiver.media import ByteOrder, Track
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec
from receiver.tap.feed import Feed
from receiver.tap.hub import LiveStream
from receiver.tap.local_hub import LocalHub
from tests.receiver.helpers.g711 import MULAW
from tests.receiver.helpers.serving import (
    CHUNK,
    FixedSource,
    TapServer,
    read_all,
    read_text,
)
from tests.receiver.helpers.taps import audio_bytes, live_chunk, live_stream, texts


@pytest.mark.integration
async def test_chunks_that_come_too_late_are_counted(server: TapServer) -> None:
    """Once for each kind of listeners, while they listen."""
    stream = server.open_stream()
    async with server.connect(stream.live.call_sid) as listener:
        await read_text(listener)
        stream.publish(3)
        stream.tap.publish(live_chunk(2, CHUNK))
        for _ in range(3):
            await listener.recv()
        stream.publish(1)
        await listener.recv()
        assert {"late": 1} == server.taps.counters.dropped


@pytest.mark.integration
async def test_silence_at_another_rate_takes_no_room(server: TapServer) -> None:
    """Half a minute on hold is no reason to lose any of it."""
    stream = server.open_stream()
    async with server.connect(f"{stream.live.call_sid}?rate=16000") as listener:
        await read_text(listener)
        stream.publish(1)
        stream.tap.publish(live_chunk(2, CHUNK, at_ms=30_000, arrival_ms=30_000))
        stream.end()
        sound, texts = await read_all(listener)
    assert ["gap", "stopped"] == [event["event"] for event in texts]
    assert "sender_silence" == texts[0]["reason"]
    assert 30_020 * 32 == len(sound)


@pytest.mark.integration
async def test_a_stereo_chunk_without_counterpart_is_sent_alone(server: TapServer) -> None:
    """By the clock, though nothing else comes."""
    stream = server.open_stream()
    async with server.connect(f"{stream.live.call_sid}?track=stereo") as listener:
        await read_text(listener)
        stream.publish(1)
        assert "sender_silence" == (await read_text(listener))["reason"]
        assert 640 == len(await listener.recv(decode=False))
        stream.end()
        assert "stopped" == (await read_text(listener))["event"]


@dataclass
class KeepingSink:
    """A sink that keeps everything."""

    items: list[OutMessage] = field(default_factory=list)

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Do nothing."""

    def put(self, item: OutMessage) -> None:
        """Keep it."""
        self.items.append(item)

    def end(self) -> None:
        """Do nothing."""


class WatchedHub(LocalHub):
    """A hub that goes on with a burst when the test says so, and shows when it was asked."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on: Callable[[], object] = lambda: None
        super().__init__(self)

    def call_soon(self, callback: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        self.go_on = callback

    def is_behind(self, recording_id: str) -> bool:
        """Record that this was asked."""
        self.asked.set()
        return super().is_behind(recording_id)


async def test_no_chunk_is_late_that_waits_to_be_delivered() -> None:
    """A burst is delivered with pauses, however long; what has arrived is not too late."""
    hub, live, sink = WatchedHub(), live_stream(), KeepingSink()
    tap = hub.open(live, FixedSource())
    feed = Feed(OutputSpec(Format.PCM16, "stereo"), byte_order=ByteOrder.LITTLE)
    feed.add(sink)
    feed.subscribe(hub, live.recording_id)
    for number in range(100):
        tap.publish(live_chunk(number + 1, CHUNK, arrival_ms=0))
    for number in range(100):
        tap.publish(live_chunk(number + 1, CHUNK, track=Track.OUTBOUND, arrival_ms=0))
    await hub.asked.wait()  # the 60 ms are over
    assert hub.is_behind(live.recording_id)
    assert [] == sink.items
    hub.go_on()
    feed.close()
    sample = MULAW[CHUNK[0]].to_bytes(2, "little", signed=True)
    assert 100 * 160 * 2 * sample == audio_bytes(sink.items)
    assert [] == texts(sink.items)


def test_a_stall_of_ours_makes_no_chunk_late() -> None:
    """After it, sockets are read before the wait is over, whatever the loop does first."""
    uvloop = pytest.importorskip("uvloop")

    async def stalled() -> list[OutMessage]:
        loop = asyncio.get_running_loop()
        hub, live, sink = LocalHub(), live_stream(), KeepingSink()
        tap = hub.open(live, FixedSource())
        feed = Feed(OutputSpec(Format.PCM16, "stereo"), byte_order=ByteOrder.LITTLE)
        feed.add(sink)
        feed.subscribe(hub, live.recording_id)
        tap.publish(live_chunk(1, CHUNK))
        await asyncio.sleep(0)
        ours, theirs = socket.socketpair()
        with ours, theirs:

            def read() -> None:
                loop.remove_reader(ours)
                tap.publish(live_chunk(1, CHUNK, track=Track.OUTBOUND, arrival_ms=100))

            loop.add_reader(ours, read)
            theirs.send(b"x")
            time.sleep(0.1)  # noqa: ASYNC251  the stall
            while not sink.items:  # noqa: ASYNC110  there is no event
                await asyncio.sleep(0.001)
        feed.close()
        return sink.items

    sample = MULAW[CHUNK[0]].to_bytes(2, "little", signed=True)
    assert 160 * 2 * sample == audio_bytes(uvloop.run(stalled()))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("query", "frame_bytes", "block"),
    [
        ("block_ms=32", 2, 256),
        ("block_ms=10&format=payload", 1, 80),
        ("block_ms=50&rate=16000", 2, 800),
        ("block_ms=32&track=stereo", 4, 256),
    ],
)
async def test_blocks_have_one_size(
    server: TapServer, query: str, frame_bytes: int, block: int
) -> None:
    """Whatever the chunks and the silence; only what is left at the end is shorter."""
    stream = server.open_stream()
    async with server.connect(f"{stream.live.call_sid}?{query}") as listener:
        await read_text(listener)
        stream.publish(3)
        stream.tap.publish(live_chunk(4, CHUNK, at_ms=30_007, arrival_ms=30_007))
        stream.end()
        pieces = [message async for message in listener if isinstance(message, bytes)]
    sizes = [len(piece) // frame_bytes for piece in pieces]
    assert {block} == set(sizes[:-1])
    assert block >= sizes[-1] > 0
    assert 30_027 * (block // int(query[9:11])) == sum(sizes)


@pytest.mark.integration
async def test_events_say_when_they_were_and_how_late_they_are(server: TapServer) -> None:
    """In UTC, from the start of the recording on; the first says whose call it is, too."""
    stream = server.open_stream()
    async with server.connect(stream.live.call_sid) as listener:
        first = await read_text(listener)
        stream.publish(1)
        stream.tap.publish(live_chunk(2, CHUNK, at_ms=90_500, arrival_ms=90_520))
        stream.end()
        _, (gap, last) = await read_all(listener)
    assert stream.live.started_at == first["wall_time"]
    fields = ("account_sid", "tracks", "media_format")
    described = json.loads(json.dumps(stream.live.described()))
    assert {name: described[name] for name in fields} == {name: first[name] for name in fields}
    started = datetime.fromisoformat(stream.live.started_at)
    for event in (gap, last):
        came = datetime.fromisoformat(event["wall_time"])
        place = timedelta(milliseconds=event["timestamp_ms"])
        # Chunks of the test come when they begin, 20 ms before real ones would.
        assert timedelta(milliseconds=-20) <= came - started - place <= timedelta(milliseconds=60)
        assert event["wall_time"].endswith("Z")
        late_ms = (datetime.now(UTC) - came) / timedelta(milliseconds=1)
        assert 0 <= event["latency_ms"] <= max(0, late_ms)
