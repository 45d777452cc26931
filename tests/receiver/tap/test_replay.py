"""The past of a stream before its present, at the pace of a real socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from receiver.auth.tap_tokens import TapGrant, TapTokens
from receiver.journal.records import ChunkRecord, MessageRecord
from receiver.media import ByteOrder, Chunk, EndReason
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec
from receiver.tap.feed import Feed, Feeds
from receiver.tap.hub import Callback, LiveStream, StreamEnded, StreamPosition, Unsubscribe
from receiver.tap.listener import Listener, ListenRequest
from receiver.tap.local_hub import LocalHub
from receiver.tap.query import TapQuery
from receiver.tap.replay import Replay
from receiver.tap.service import TapOptions, TapService
from tests.receiver.helpers.g711 import MULAW
from tests.receiver.helpers.journals import chunk, records, write
from tests.receiver.helpers.serving import (
    CHUNK,
    FixedSource,
    PublishedStream,
    TapServer,
    read_all,
    read_text,
    read_until_closed,
)
from tests.receiver.helpers.taps import ManualScheduler, audio_bytes, live_stream, texts

pytestmark = pytest.mark.integration


async def live_again(stream: PublishedStream) -> None:
    """Wait until a listener's past is at its end."""
    while not stream.tap.has_subscribers:  # noqa: ASYNC110  there is no event
        await asyncio.sleep(0)


def position_behind(chunks: list[ChunkRecord], *, messages: int = 1) -> StreamPosition:
    """Return where a stream stands whose journal holds these chunks."""
    last = chunks[-1]
    latest = Chunk(last.track, None, last.chunk, last.timestamp_ms, last.payload)
    return StreamPosition(len(chunks), messages, last.arrival_ms, latest)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("track", ["inbound", "stereo"])
async def test_a_minute_of_the_past_is_whole(server: TapServer, track: str, rate: int) -> None:
    """Through a queue of two seconds, into the present, at every rate."""
    seconds = 60
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, seconds * 50 + 1)]
    write(server.journal, records(chunks))
    stream = server.open_stream(position_behind(chunks))
    channels = 2 if track == "stereo" else 1
    url = f"{stream.live.call_sid}?track={track}&rate={rate}&since=1000"
    async with server.connect(url, max_size=None) as listener:
        assert 0 == (await read_text(listener))["timestamp_ms"]
        if track == "stereo":
            # The other track brings nothing, of which there is one notice.
            assert "sender_silence" == (await read_text(listener))["reason"]
        received = bytearray()  # which grows without being copied
        while len(received) < (seconds - 1) * rate * 2 * channels:
            received += await listener.recv(decode=False)
        await live_again(stream)
        stream.publish(50)
        stream.end()
        sound, texts = await read_all(listener)
    assert ["stopped"] == [event["event"] for event in texts]
    assert (seconds + 1) * rate * 2 * channels == len(received + sound)
    if (track, rate) == ("inbound", 8000):
        assert MULAW[CHUNK[0]].to_bytes(2, "little", signed=True) * 8000 * 61 == received + sound


def open_files() -> set[Path]:
    """Return the files that this process has open."""
    return {link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


async def test_a_listener_that_does_not_read_is_closed_with_1013(
    strict_server: TapServer,
) -> None:
    """As in the present; and the journal is closed."""
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, 3001)]
    write(strict_server.journal, records(chunks))
    stream = strict_server.open_stream(position_behind(chunks))
    url = f"{stream.live.call_sid}?track=stereo&rate=48000&since=60"
    async with strict_server.connect(url, max_queue=1, max_size=None) as stuck:
        await read_text(stuck)
        stuck.transport.pause_reading()
        while not any(listener.closed_slow for listener in strict_server.taps.listeners):  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.01)
        stuck.transport.resume_reading()
        with pytest.raises(ConnectionClosed, match="1013"):
            await read_until_closed(stuck)
    while strict_server.taps.listeners:  # noqa: ASYNC110  there is no event
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert strict_server.journal not in open_files()
    assert 0 == strict_server.taps.counters.dropped["slow_listener"]  # the past waits


async def test_the_end_of_a_long_past_is_found(server: TapServer) -> None:
    """However much of the journal lies before what was asked for."""
    before = [MessageRecord(0, bytes(60_000)) for _ in range(400)]
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, 501)]
    write(server.journal, records([*before, *chunks]))
    stream = server.open_stream(position_behind(chunks, messages=401))
    async with server.connect(f"{stream.live.call_sid}?since=5") as listener:
        assert 5000 == (await read_text(listener))["timestamp_ms"]
        received = b""
        while len(received) < 5 * 16000:
            received += await listener.recv(decode=False)
        await live_again(stream)
        stream.publish(1)
        stream.end()
        sound, texts = await read_all(listener)
    assert (320, ["stopped"]) == (len(sound), [event["event"] for event in texts])


async def test_the_past_that_is_nowhere_is_not_waited_for_long(server: TapServer) -> None:
    """A journal that cannot be read leaves the present: here there is none, and no end either."""
    stream = server.open_stream()
    async with server.connect(f"{stream.live.call_sid}?since=5") as listener:
        assert 0 == (await read_text(listener))["timestamp_ms"]
        await live_again(stream)
        stream.publish(2)
        stream.end()
        sound, texts = await read_all(listener)
    assert (640, "stopped") == (len(sound), texts[-1]["event"])


async def test_a_past_that_cannot_be_read_closes_with_1011(
    server: TapServer, tmp_path: Path
) -> None:
    """A link in the place of a journal is not followed."""
    server.journal.symlink_to(tmp_path)
    stream = server.open_stream()
    async with server.connect(f"{stream.live.call_sid}?since=5") as listener:
        await read_text(listener)
        with pytest.raises(ConnectionClosed, match="1011"):
            await read_until_closed(listener)


class EndingHub(LocalHub):
    """A hub whose streams end while their past is being read."""

    def __init__(self, subscriptions: int) -> None:
        super().__init__(ManualScheduler())
        self.left = subscriptions

    def subscribe(self, recording_id: str, on_event: Callback) -> Unsubscribe:
        """Subscribe so often; then the stream has ended."""
        self.left -= 1
        if self.left >= 0:
            return super().subscribe(recording_id, on_event)
        return super().subscribe("another", on_event)


def listening(hub: LocalHub, live: LiveStream, folder: Path) -> tuple[Replay, Listener, Path]:
    """Return what plays the past of a stream to a listener, and the journal of 10 chunks."""
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, 11)]
    journal = write(folder / "journal", records(chunks, reason=EndReason.STOP))
    options = TapOptions(journal_of=lambda _: journal)
    feeds = Feeds(hub, byte_order=ByteOrder.LITTLE, counters=options.counters)
    service = TapService(hub, feeds, TapTokens(), options=options)
    query = TapQuery(OutputSpec(Format.PCM16, "inbound"), since_seconds=60)
    listener = Listener(ListenRequest(live.call_sid, query, TapGrant()), service)
    replay = Replay(
        hub,
        lambda start_ms: Feed(query.spec, byte_order=ByteOrder.LITTLE, start_ms=start_ms),
        flush=lambda: None,
    )
    return replay, listener, journal


def sent(listener: Listener) -> list[OutMessage]:
    """Return all that waits for a listener."""
    items = []
    while (item := listener.queue.pop()) is not None:
        items.append(item)
    return items


@pytest.mark.parametrize(
    ("subscriptions", "expected"), [(0, []), (1, [("started", None), ("stopped", "stop")])]
)
async def test_a_stream_may_end_while_its_past_is_read(
    tmp_path: Path, subscriptions: int, expected: list[tuple[str, str | None]]
) -> None:
    """Then its journal holds the rest and the reason; nothing of it is missed."""
    hub, live = EndingHub(subscriptions), live_stream()
    hub.open(live, FixedSource())
    replay, listener, journal = listening(hub, live, tmp_path)
    await replay.play(listener, live.recording_id, since_seconds=60, journal=journal)
    replay.stop()
    items = sent(listener)
    assert expected == [(event["event"], event.get("reason")) for event in texts(items)]
    assert 3200 * len(expected) // 2 == len(audio_bytes(items))


async def test_a_stream_may_end_before_its_past_is_read(tmp_path: Path) -> None:
    """Its position was asked for in the turn in which the listener came, so all of it is played."""
    hub, live = LocalHub(), live_stream()
    tap = hub.open(live, FixedSource())
    replay, listener, journal = listening(hub, live, tmp_path)
    playing = replay.play(listener, live.recording_id, since_seconds=60, journal=journal)
    tap.publish(StreamEnded(EndReason.STOP, 200))
    await playing
    replay.stop()
    items = sent(listener)
    assert ["started", "stopped"] == [event["event"] for event in texts(items)]
    assert 3200 == len(audio_bytes(items))
