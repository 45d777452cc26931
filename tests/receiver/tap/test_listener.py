"""Listeners on real sockets, behind every transport: slow ones, stuck ones, and neighbours."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from receiver.auth.tap_tokens import TapTokens
from receiver.journal.records import ChunkRecord, MessageRecord
from receiver.media import ByteOrder, Chunk, Encoding, EndReason, Track
from receiver.tap import resampler
from receiver.tap.encoding.notices import Format, OutputSpec
from receiver.tap.feed import Feed, Feeds
from receiver.tap.listener import Listener, ListenerLimits
from receiver.tap.local_hub import (
    Callback,
    LiveStream,
    LocalHub,
    RecordingPublished,
    StreamEnded,
    StreamPosition,
    Tap,
    Unsubscribe,
)
from receiver.tap.queue import OutMessage
from receiver.tap.replay import Replay
from receiver.tap.service import TapOptions, TapService
from receiver.transports import picows, websockets
from receiver.transports.interface import HttpAnswer, Limits, Peer, UpgradeRequest
from receiver.transports.interface import Listener as TransportListener
from tests.receiver.helpers.g711 import MULAW
from tests.receiver.helpers.journals import chunk, records, write
from tests.receiver.helpers.taps import BEGINNING, heard, live_stream, sound
from tests.receiver.helpers.taps import told as texts_of
from tests.receiver.transports.test_conformance import Listen

ADAPTERS = {"websockets": websockets.listen, "picows": picows.listen}
TOKEN = "a-tap-token-for-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
IMPATIENT = ListenerLimits(patience_seconds=0.3)
CHUNK = b"\x10" * 160


@dataclass
class Stream:
    """A live stream in the hands of the test."""

    live: LiveStream
    tap: Tap
    chunks: int = 0

    def say(self, count: int, *, track: Track = Track.INBOUND) -> None:
        """Publish chunks, as a session would."""
        for _ in range(count):
            self.chunks += 1
            if self.tap.wanted:
                self.tap.publish(heard(self.chunks, CHUNK, track=track))

    def end(self) -> None:
        """Publish the end."""
        self.tap.publish(StreamEnded(EndReason.STOP, self.chunks * 20))


@dataclass
class Source:
    """A session that says where its stream stands."""

    stands: StreamPosition = BEGINNING

    def standing(self) -> StreamPosition:
        """Say so."""
        return self.stands


@dataclass
class House:
    """A hub, and a listening transport that serves its taps."""

    hub: LocalHub
    taps: TapService
    listener: TransportListener
    journal: Path
    streams: list[Stream] = field(default_factory=list)

    def stream(self, **parameters: str) -> Stream:
        """Begin a stream."""
        return self.stream_at(Source(), **parameters)

    def stream_at(self, source: Source, **parameters: str) -> Stream:
        """Begin a stream that has come so far already."""
        live = live_stream(Encoding.PCMU, 8000, **parameters)
        return Stream(live, self.hub.open(live, source), source.stands.chunks)

    def hear(self, rest: str, **options: Any) -> Any:
        """Return a client's connection to be opened."""
        url = f"ws://127.0.0.1:{self.listener.port}/tap/{rest}"
        return connect(url, additional_headers=HEADERS, compression=None, proxy=None, **options)


@dataclass
class Entrance:
    """A gate with nothing but taps behind it."""

    taps: TapService

    def admit(self, request: UpgradeRequest) -> HttpAnswer | Peer:
        """Let the taps decide."""
        return self.taps.admit(request)

    def turned_away(self, reason: str, remote_address: str) -> None:
        """Need not know."""


@asynccontextmanager
async def a_house(
    listen: Listen,
    journal: Path,
    limits: ListenerLimits = ListenerLimits(),  # noqa: B008  frozen
) -> AsyncIterator[House]:
    """Serve taps until the end of the block."""
    hub = LocalHub(asyncio.get_running_loop().call_soon)
    options = TapOptions(journal_of=lambda _: journal, limits=limits)
    channels = Feeds(hub, byte_order=ByteOrder.LITTLE, figures=options.figures)
    taps = TapService(hub, channels, TapTokens([TOKEN]), options=options)
    listener = await listen(
        Entrance(taps),
        host="127.0.0.1",
        port=0,
        ssl_context=None,
        limits=Limits(close_timeout_seconds=5),
    )
    try:
        yield House(hub, taps, listener, journal)
    finally:
        await listener.close()


@pytest.fixture(params=ADAPTERS)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """Run one house per transport."""
    async with a_house(ADAPTERS[request.param], tmp_path / "x.journal") as running:
        yield running


@pytest.fixture(params=ADAPTERS)
async def impatient(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """Run one house per transport that gives up soon, though it was the machine that stalled."""
    async with a_house(ADAPTERS[request.param], tmp_path / "x.journal", IMPATIENT) as running:
        yield running


async def text(connection: ClientConnection) -> dict[str, Any]:
    """Return the next message, which is a text."""
    message = await connection.recv(decode=True)
    document: dict[str, Any] = json.loads(message)
    return document


async def until_closed(connection: ClientConnection) -> None:
    """Read until the connection is closed, which is an error."""
    while True:
        await connection.recv()


async def everything(connection: ClientConnection) -> tuple[bytes, list[dict[str, Any]]]:
    """Return the sound and the texts up to the end of a connection."""
    sound, texts = b"", []
    async for message in connection:
        if isinstance(message, bytes):
            sound += message
        else:
            texts.append(json.loads(message))
    return sound, texts


async def test_a_stuck_listener_is_closed_with_1013(impatient: House) -> None:
    """After the patience is over; whoever reads beside it misses nothing."""
    stream = impatient.stream()
    async with (
        impatient.hear(stream.live.call_sid) as good,
        impatient.hear(stream.live.call_sid, max_queue=1) as stuck,
    ):
        await text(good)
        await text(stuck)
        stuck.transport.pause_reading()
        while not any(listener.slow for listener in impatient.taps.listeners):
            stream.say(50)
            received = [await good.recv(decode=False) for _ in range(50)]
            assert 50 * 320 == sum(map(len, received))
        stuck.transport.resume_reading()
        with pytest.raises(ConnectionClosed, match="1013"):
            await until_closed(stuck)
        stream.end()
        assert "stopped" == (await text(good))["event"]
    assert 1 == impatient.taps.figures.closed_slow
    assert impatient.taps.figures.dropped["slow_listener"]


def test_the_limits_are_the_documented_ones() -> None:
    """Two seconds, one MiB, thirty seconds."""
    limits = ListenerLimits()
    assert (2000, 2**20, 30) == (limits.queue_ms, limits.queue_bytes, limits.patience_seconds)


async def test_a_listener_that_wakes_up_goes_on(house: House) -> None:
    """It gets what waited, a notice of what did not, and the present."""
    stream = house.stream()
    async with house.hear(stream.live.stream_sid, max_queue=1) as sleeper:
        await text(sleeper)
        sleeper.transport.pause_reading()
        while not house.taps.figures.dropped["slow_listener"]:
            stream.say(50)
            await asyncio.sleep(0)  # the receiver's turn
        stream.say(200)
        await asyncio.sleep(0)
        sleeper.transport.resume_reading()
        stream.end()
        sound, texts = await everything(sleeper)
    missed = sum(event["duration_ms"] for event in texts if event["event"] == "gap")
    assert ["gap"] * (len(texts) - 1) + ["stopped"] == [event["event"] for event in texts]
    assert stream.chunks * 20 == len(sound) / 16 + missed
    assert missed


async def test_pings_of_a_listener_are_answered(house: House) -> None:
    """Also while it is being sent audio."""
    stream = house.stream()
    async with house.hear(stream.live.recording_id) as listener:
        await text(listener)
        stream.say(3)
        await (await listener.ping())
        stream.end()
        assert 3 * 320 == len((await everything(listener))[0])


async def test_what_listeners_say_is_ignored(house: House) -> None:
    """They listen; leaving early is their right."""
    stream = house.stream()
    for rest in (stream.live.call_sid, "all"):
        async with house.hear(rest) as listener:
            await text(listener)
            await listener.send("hello")
            await listener.send(b"\0")
    stream.say(1)
    async with house.hear(stream.live.call_sid) as listener:
        await text(listener)
        stream.end()
        assert (b"", ["stopped"]) == (
            (got := await everything(listener))[0],
            [event["event"] for event in got[1]],
        )


@pytest.mark.parametrize("rest", ["call", "all"])
async def test_a_listener_that_talks_too_much_is_closed(house: House, rest: str) -> None:
    """Each message takes time from those who record."""
    stream = house.stream()
    async with house.hear(stream.live.call_sid if rest == "call" else rest) as listener:
        await text(listener)
        for _ in range(200):
            with suppress(ConnectionClosed):
                await listener.send("hello")
        with pytest.raises(ConnectionClosed, match="1008"):
            await until_closed(listener)


async def test_strangers_learn_nothing_from_bad_queries(house: House) -> None:
    """The token comes first: 401 before any 400."""
    url = f"ws://127.0.0.1:{house.listener.port}/tap/x?" + "&".join(f"a{n}=" for n in range(200))
    for headers, status in ((None, 401), (HEADERS, 400)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers, proxy=None)
        assert status == refused.value.response.status_code


async def test_without_resampler_there_is_no_other_rate(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """501 names the extra that is missing; a stream's own rate needs none."""
    monkeypatch.setattr(resampler, "available", lambda: False)
    call = house.stream().live.call_sid
    with pytest.raises(InvalidStatus) as refused:
        await house.hear(f"{call}?rate=16000")
    assert 501 == refused.value.response.status_code
    assert b"tapreel[dsp]" in (refused.value.response.body or b"")
    async with house.hear(f"{call}?rate=8000") as listener:
        assert 8000 == (await text(listener))["rate"]


async def test_a_watcher_is_told_of_everything(house: House) -> None:
    """As lifecycle events; it may leave whenever it likes."""
    async with house.hear("all?param.A=b") as watcher:
        await (await watcher.ping())
        house.stream(A="x").end()
        stream = house.stream(A="b")
        assert "started" == (await text(watcher))["event"]
        stream.end()
        assert "stopped" == (await text(watcher))["event"]
        house.hub.kept(RecordingPublished("id", "call", "stream", {"A": "b"}, False, "folder"))
        assert {
            "event": "recorded",
            "recording_id": "id",
            "call_sid": "call",
            "stream_sid": "stream",
            "parameters": {"A": "b"},
            "complete": False,
            "folder": "folder",
        } == await text(watcher)


async def joined(stream: Stream) -> None:
    """Wait until a listener's past is at its end."""
    while not stream.tap.wanted:  # noqa: ASYNC110  nothing tells
        await asyncio.sleep(0)


async def test_watchers_count_as_listeners(house: House) -> None:
    """While their sockets are open."""
    house.stream()
    async with house.hear("all") as watcher:
        await text(watcher)
        assert (1, 1) == (len(house.taps), house.taps.figures.watchers)
    async with house.hear("all") as watcher:
        await text(watcher)
        assert 1 == house.taps.figures.watchers


async def test_whoever_watches_late_learns_of_every_stream(house: House) -> None:
    """Also where the list is longer than a queue, and then of what happened meanwhile."""
    one = live_stream(Note="x" * 1000)
    several = [msgspec.structs.replace(one, recording_id=str(number)) for number in range(1500)]
    taps = [house.hub.open(live, Source()) for live in several]
    async with house.hear("all", max_queue=1) as watcher:
        first = await text(watcher)
        taps[0].publish(StreamEnded(EndReason.STOP, 0))
        rest = [await text(watcher) for _ in range(1500)]
    assert ["started"] * 1500 + ["stopped"] == [told["event"] for told in [first, *rest]]
    assert [*range(1500), 0] == [int(told["recording_id"]) for told in [first, *rest]]


async def test_a_stuck_watcher_is_closed_with_1013(impatient: House) -> None:
    """It is told of everything or of nothing more: what it missed is in the list."""
    kept = RecordingPublished("id", "call", "stream", {}, True, "x" * 10_000)
    async with impatient.hear("all", max_queue=1) as stuck:
        await (await stuck.ping())
        stuck.transport.pause_reading()
        while not any(watcher.slow for watcher in impatient.taps._watchers._open):
            impatient.hub.kept(kept)
            await asyncio.sleep(0)
        stuck.transport.resume_reading()
        with pytest.raises(ConnectionClosed, match="1013"):
            await until_closed(stuck)
    while len(impatient.taps):  # noqa: ASYNC110  nothing tells
        await asyncio.sleep(0)
    assert (1, 0) == (impatient.taps.figures.closed_slow, impatient.taps.figures.watchers)


def standing_behind(chunks: list[ChunkRecord], *, messages: int = 1) -> StreamPosition:
    """Return where a stream stands whose journal holds these chunks."""
    last = chunks[-1]
    latest = Chunk(last.track, None, last.chunk, last.timestamp_ms, last.payload)
    return StreamPosition(len(chunks), messages, last.arrival_ms, latest)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("track", ["inbound", "stereo"])
async def test_a_minute_of_the_past_is_whole(house: House, track: str, rate: int) -> None:
    """Through a queue of two seconds, into the present, at every rate."""
    seconds = 60
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, seconds * 50 + 1)]
    write(house.journal, records(chunks))
    stream = house.stream_at(Source(standing_behind(chunks)))
    channels = 2 if track == "stereo" else 1
    url = f"{stream.live.call_sid}?track={track}&rate={rate}&since=1000"
    async with house.hear(url, max_size=None) as listener:
        assert 0 == (await text(listener))["timestamp_ms"]
        if track == "stereo":
            # The other track says nothing, and that is told once.
            assert "sender_silence" == (await text(listener))["reason"]
        received = bytearray()  # which grows without being copied
        while len(received) < (seconds - 1) * rate * 2 * channels:
            received += await listener.recv(decode=False)
        await joined(stream)
        stream.say(50)
        stream.end()
        sound, texts = await everything(listener)
    assert ["stopped"] == [event["event"] for event in texts]
    assert (seconds + 1) * rate * 2 * channels == len(received + sound)
    if (track, rate) == ("inbound", 8000):
        assert MULAW[CHUNK[0]].to_bytes(2, "little", signed=True) * 8000 * 61 == received + sound


def open_files() -> set[Path]:
    """Return the files that this process has open."""
    return {link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


async def test_who_does_not_read_the_past_is_closed_with_1013(impatient: House) -> None:
    """As in the present; and the journal is given back."""
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, 3001)]
    write(impatient.journal, records(chunks))
    stream = impatient.stream_at(Source(standing_behind(chunks)))
    url = f"{stream.live.call_sid}?track=stereo&rate=48000&since=60"
    async with impatient.hear(url, max_queue=1, max_size=None) as stuck:
        await text(stuck)
        stuck.transport.pause_reading()
        while not any(listener.slow for listener in impatient.taps.listeners):  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.01)
        stuck.transport.resume_reading()
        with pytest.raises(ConnectionClosed, match="1013"):
            await until_closed(stuck)
    while impatient.taps.listeners:  # noqa: ASYNC110  nothing tells
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert impatient.journal not in open_files()
    assert 0 == impatient.taps.figures.dropped["slow_listener"]  # it waits for who can wait


async def test_the_end_of_a_long_past_is_found(house: House) -> None:
    """However much of the journal lies before what was asked for."""
    before = [MessageRecord(0, bytes(60_000)) for _ in range(400)]
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, 501)]
    write(house.journal, records([*before, *chunks]))
    stream = house.stream_at(Source(standing_behind(chunks, messages=401)))
    async with house.hear(f"{stream.live.call_sid}?since=5") as listener:
        assert 5000 == (await text(listener))["timestamp_ms"]
        received = b""
        while len(received) < 5 * 16000:
            received += await listener.recv(decode=False)
        await joined(stream)
        stream.say(1)
        stream.end()
        sound, texts = await everything(listener)
    assert (320, ["stopped"]) == (len(sound), [event["event"] for event in texts])


async def test_a_burst_is_not_the_listeners_fault(house: House) -> None:
    """What the network held back comes at once, and is longer than the queue."""
    stream = house.stream()
    async with house.hear(stream.live.call_sid) as listener:
        await text(listener)
        stream.say(250)
        stream.end()
        sound, texts = await everything(listener)
    assert (250 * 320, ["stopped"]) == (len(sound), [event["event"] for event in texts])


async def test_chunks_that_come_too_late_are_counted(house: House) -> None:
    """Once for each kind of listeners, while they listen."""
    stream = house.stream()
    async with house.hear(stream.live.call_sid) as listener:
        await text(listener)
        stream.say(3)
        stream.tap.publish(heard(2, CHUNK))
        for _ in range(3):
            await listener.recv()
        stream.say(1)
        await listener.recv()
        assert {"late": 1} == house.taps.figures.dropped


async def test_silence_at_another_rate_takes_no_room(house: House) -> None:
    """Half a minute on hold is no reason to lose any of it."""
    stream = house.stream()
    async with house.hear(f"{stream.live.call_sid}?rate=16000") as listener:
        await text(listener)
        stream.say(1)
        stream.tap.publish(heard(2, CHUNK, at_ms=30_000, arrival_ms=30_000))
        stream.end()
        sound, texts = await everything(listener)
    assert ["gap", "stopped"] == [event["event"] for event in texts]
    assert "sender_silence" == texts[0]["reason"]
    assert 30_020 * 32 == len(sound)


async def test_the_past_that_is_nowhere_is_not_waited_for_long(house: House) -> None:
    """A journal that cannot be read leaves the present: here there is none, and no end either."""
    stream = house.stream()
    async with house.hear(f"{stream.live.call_sid}?since=5") as listener:
        assert 0 == (await text(listener))["timestamp_ms"]
        await joined(stream)
        stream.say(2)
        stream.end()
        sound, texts = await everything(listener)
    assert (640, "stopped") == (len(sound), texts[-1]["event"])


async def test_a_past_that_cannot_be_read_closes_with_1011(house: House, tmp_path: Path) -> None:
    """A link in the place of a journal is not followed."""
    house.journal.symlink_to(tmp_path)
    stream = house.stream()
    async with house.hear(f"{stream.live.call_sid}?since=5") as listener:
        await text(listener)
        with pytest.raises(ConnectionClosed, match="1011"):
            await until_closed(listener)


class EndingHub(LocalHub):
    """A hub whose streams end while their past is being read."""

    def __init__(self, subscriptions: int) -> None:
        super().__init__(lambda call: call())
        self.left = subscriptions

    def subscribe(self, recording_id: str, hear: Callback) -> Unsubscribe:
        """Answer so often; then the stream has ended."""
        self.left -= 1
        if self.left >= 0:
            return super().subscribe(recording_id, hear)
        return super().subscribe("another", hear)


@pytest.mark.parametrize(
    ("subscriptions", "told"), [(0, []), (1, [("started", None), ("stopped", "stop")])]
)
async def test_a_stream_may_end_while_its_past_is_read(
    tmp_path: Path, subscriptions: int, told: list[tuple[str, str | None]]
) -> None:
    """Then its journal holds the rest and the reason; nothing of it is missed."""
    hub, live = EndingHub(subscriptions), live_stream()
    hub.open(live, Source())
    chunks = [chunk(n, CHUNK, timestamp_ms=(n - 1) * 20) for n in range(1, 11)]
    journal = write(tmp_path / "journal", records(chunks, reason=EndReason.STOP))
    listener = Listener(OutputSpec(Format.PCM16, "inbound"), Nobody(), ListenerLimits())
    rewind = Replay(
        hub,
        lambda begin: Feed(listener.kind, byte_order=ByteOrder.LITTLE, begin_ms=begin),
        flush=lambda: None,
    )
    await rewind.play(listener, live.recording_id, since_seconds=60, journal=journal)
    rewind.stop()
    items = []
    while (item := listener.queue.take()) is not None:
        items.append(item)
    assert told == [(event["event"], event.get("reason")) for event in texts_of(items)]
    assert 3200 * len(told) // 2 == len(sound(items))


class Nobody:
    """An attendant without other listeners."""

    def opened(self, listener: Listener) -> None:
        """Never called: there is no socket."""

    def closed(self, listener: Listener) -> None:
        """Never called: there is no socket."""

    def missed(self) -> None:
        """Count nothing."""

    def listening_to(self, recording_id: str) -> int:
        """Count nobody."""
        return 0


async def test_a_stereo_chunk_without_counterpart_is_sent_after_60_ms(house: House) -> None:
    """By the clock, though nothing else comes."""
    stream = house.stream()
    async with house.hear(f"{stream.live.call_sid}?track=stereo") as listener:
        await text(listener)
        stream.say(1)
        assert "sender_silence" == (await text(listener))["reason"]
        assert 640 == len(await listener.recv(decode=False))
        stream.end()
        assert "stopped" == (await text(listener))["event"]


@dataclass
class Basket:
    """An outlet that keeps everything."""

    items: list[OutMessage] = field(default_factory=list)

    def begin(self, live: LiveStream, timestamp_ms: float) -> None:
        """Need not know."""

    def put(self, item: OutMessage) -> None:
        """Keep it."""
        self.items.append(item)

    def end(self) -> None:
        """Need not know."""


class WatchedHub(LocalHub):
    """A hub that goes on with a burst when the test says so, and tells when it is asked."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go_on: Callable[[], None] = lambda: None
        super().__init__(asyncio.get_running_loop().call_soon, self._remember)

    def _remember(self, _: float, call: Callable[[], None]) -> None:
        self.go_on = call

    def is_behind(self, recording_id: str) -> bool:
        """Say so, and remember the question."""
        self.asked.set()
        return super().is_behind(recording_id)


async def test_nobody_gives_up_while_chunks_wait_to_be_told() -> None:
    """A burst is handed over with pauses; what has arrived is not too late, however long those."""
    hub, live, basket = WatchedHub(), live_stream(), Basket()
    tap = hub.open(live, Source())
    channel = Feed(OutputSpec(Format.PCM16, "stereo"), byte_order=ByteOrder.LITTLE)
    channel.add(basket)
    channel.subscribe(hub, live.recording_id)
    for number in range(100):
        tap.publish(heard(number + 1, CHUNK, arrival_ms=0))
    for number in range(100):
        tap.publish(heard(number + 1, CHUNK, track=Track.OUTBOUND, arrival_ms=0))
    await hub.asked.wait()  # the 60 ms are over
    assert hub.is_behind(live.recording_id)
    assert [] == basket.items
    hub.go_on()
    channel.close()
    sample = MULAW[CHUNK[0]].to_bytes(2, "little", signed=True)
    assert 100 * 160 * 2 * sample == sound(basket.items)
    assert [] == texts_of(basket.items)


def test_a_stall_of_ours_makes_no_chunk_late() -> None:
    """After it, sockets are read before anybody stops waiting, whatever the loop does first."""
    uvloop = pytest.importorskip("uvloop")

    async def stalled() -> list[OutMessage]:
        loop = asyncio.get_running_loop()
        hub, live, basket = LocalHub(loop.call_soon), live_stream(), Basket()
        tap = hub.open(live, Source())
        channel = Feed(OutputSpec(Format.PCM16, "stereo"), byte_order=ByteOrder.LITTLE)
        channel.add(basket)
        channel.subscribe(hub, live.recording_id)
        tap.publish(heard(1, CHUNK))
        await asyncio.sleep(0)
        ours, theirs = socket.socketpair()
        with ours, theirs:

            def read() -> None:
                loop.remove_reader(ours)
                tap.publish(heard(1, CHUNK, track=Track.OUTBOUND, arrival_ms=100))

            loop.add_reader(ours, read)
            theirs.send(b"x")
            time.sleep(0.1)  # noqa: ASYNC251  the stall
            while not basket.items:  # noqa: ASYNC110  nothing tells
                await asyncio.sleep(0.001)
        channel.close()
        return basket.items

    sample = MULAW[CHUNK[0]].to_bytes(2, "little", signed=True)
    assert 160 * 2 * sample == sound(uvloop.run(stalled()))
