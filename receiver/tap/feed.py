"""One stream in one shape: each event is encoded once, whoever listens, and put into each queue.

A feed subscribes to the hub while it has listeners. What it does per listener is one bounded
append; sockets are the listeners' own business.

Encoding waits for nothing but audio that is late: a chunk of one track for its counterpart of
the other, or for a chunk before it. A timer sends what has waited long enough. Before it does,
the sockets are read once more and the hub's backlog is delivered: after a stall of our own, what
is waited for may have arrived already.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from receiver.counters import TapCounters
from receiver.media import ByteOrder, Chunk, Track
from receiver.tap.encoding import encoders
from receiver.tap.encoding.format import (
    LONGEST_WAIT_MS,
    Encoder,
    Format,
    OutMessage,
    OutputSpec,
    timed,
)
from receiver.tap.hub import (
    Hub,
    LiveStream,
    StreamEnded,
    StreamEvent,
    StreamPosition,
    Subscribed,
    Unsubscribe,
)

if TYPE_CHECKING:
    from receiver.tap.resampler import Resampler

_TURN_SECONDS: Final = 0.005


class Sink(Protocol):
    """Where a feed puts what one listener gets."""

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Start with a stream, at `timestamp_ms` on its clock."""
        ...

    def put(self, item: OutMessage) -> None:
        """Append one item; never waits."""
        ...

    def end(self) -> None:
        """Finish: nothing more comes. Called without `start` where there is no stream."""
        ...


class Feed:
    """Everything that the listeners of one spec share.

    Args:
        spec: the shape in which the stream is sent.
        byte_order: of the samples of an L16 stream.
        start_ms: where on the stream's clock a replay starts; `None` starts at the present.
        longest_wait_ms: of one track for the other.
        on_drop: called with a reason and a number of pieces of audio that no listener gets.
    """

    def __init__(
        self,
        spec: OutputSpec,
        *,
        byte_order: ByteOrder,
        start_ms: float | None = None,
        longest_wait_ms: int = LONGEST_WAIT_MS,
        on_drop: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self._spec = spec
        self._on_drop = on_drop
        self._dropped = {"late": 0, "slow_resampler": 0}  # so many have been reported
        self._byte_order = byte_order
        self._start_ms = start_ms
        self._longest_wait_ms = longest_wait_ms
        self._loop = asyncio.get_running_loop()
        self._sinks: tuple[Sink, ...] = ()
        self._live: LiveStream | None = None
        self._encoder: Encoder | None = None
        self._resampler: Resampler | None = None
        self._blocks: encoders.Blocks | None = None
        self._epoch = 0.0  # when the clock of arrival times began
        self._timer: asyncio.TimerHandle | None = None  # for what the encoder holds back
        self._timer_at = 0.0  # when it is due; 0 in its last turn
        self._position_ms = 0.0  # where a listener starts that is added now
        self._ended = False
        self._in_the_past = start_ms is not None
        self._unsubscribe: Unsubscribe = lambda: None
        self._is_behind: Callable[[], bool] = lambda: False  # whether more has come already

    def __len__(self) -> int:
        return len(self._sinks)

    def subscribe(self, hub: Hub, recording_id: str) -> None:
        """Subscribe to a stream."""
        self._is_behind = lambda: hub.is_behind(recording_id)
        self._unsubscribe = hub.subscribe(recording_id, self.on_event)

    def add(self, sink: Sink) -> None:
        """Add a listener."""
        self._sinks += (sink,)
        if self._live is not None:
            sink.start(self._live, self._position_ms)
        if self._ended:
            sink.end()

    def remove(self, sink: Sink) -> None:
        """Remove a listener; idempotent."""
        self._sinks = tuple(known for known in self._sinks if known is not sink)

    def close(self) -> None:
        """Unsubscribe, and send nothing more of what is held back; idempotent."""
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()

    def on_event(self, event: StreamEvent) -> None:
        """Encode one event of the stream, and put the result into every sink."""
        if isinstance(event, Subscribed):
            self._start(event)
            return
        last = isinstance(event, StreamEnded)
        if self._encoder is not None:
            self._deliver(self._encoder.feed(event), last=last)
            self._schedule_due()
        elif last:
            self._end()

    @property
    def coming_ms(self) -> float:
        """Return how much audio is being resampled, and will be put soon."""
        return self._resampler.coming_ms if self._resampler is not None else 0

    async def drained(self) -> None:
        """Return when everything that was encoded has been put."""
        if self._resampler is not None:
            await self._resampler.idle.wait()

    def reach_present(self, is_behind: Callable[[], bool] = lambda: False) -> None:
        """Send audio when it is due by the clock from now on: the past is through.

        `is_behind` returns whether more was published that this feed has yet to get.
        """
        self._in_the_past = False
        self._is_behind = is_behind
        if self._encoder is not None and not self._ended:
            self._encoder.reach_present()
            self._schedule_due()

    def _start(self, subscribed: Subscribed) -> None:
        if self._encoder is not None:
            return  # it was replayed up to here
        self._live = live = subscribed.live
        self._epoch = self._loop.time() - subscribed.position.arrival_ms / 1000
        self._encoder = encoders.encoder(
            self._spec,
            subscribed,
            byte_order=self._byte_order,
            start_ms=self._start_ms,
            longest_wait_ms=self._longest_wait_ms,
        )
        self._position_ms = self._encoder.position_ms
        rate, source_rate = self._spec.rate, live.media_format.sample_rate
        if rate is not None and rate != source_rate:
            from receiver.tap.resampler import Resampler  # only here: it needs numpy

            self._resampler = Resampler(source_rate, self._spec, start_ms=self._position_ms)
        if self._spec.block_ms:
            frame_bytes = self._spec.channels * (
                2 if self._spec.format is Format.PCM16 else live.media_format.bytes_per_sample
            )
            self._blocks = encoders.Blocks(self._spec, rate or source_rate, frame_bytes)
        for sink in self._sinks:
            sink.start(live, self._position_ms)

    def _deliver(self, items: Iterable[OutMessage], *, last: bool) -> None:
        if self._resampler is None:
            self._put(items, last)
            return
        self._resampler.submit(list(items), last=last, done=self._put)
        self._count_dropped("slow_resampler", self._resampler.dropped)

    def _put(self, items: Iterable[OutMessage], last: bool) -> None:
        if self._blocks is not None:
            items = self._blocks.feed(items, last=last)
        for item in items:
            if isinstance(item.message, str) and self._spec.format is not Format.MESSAGES:
                item = self._timed(item.message)
            if item.duration_ms:
                self._position_ms = item.timestamp_ms + item.duration_ms
            for sink in self._sinks:
                sink.put(item)
        if last:
            self._end()

    def _timed(self, text: str) -> OutMessage:
        """Return an event with its time and latency."""
        assert self._live is not None and self._encoder is not None  # noqa: S101, PT018  it is theirs
        late_ms = self._encoder.late_ms
        return OutMessage(timed(text, self._live.started_at, late_ms, time.time()))

    def _schedule_due(self) -> None:
        """Schedule that audio is sent which waits for its counterpart of the other track."""
        encoder = self._encoder
        assert encoder is not None  # noqa: S101  it has just been used
        self._count_dropped("late", encoder.left_out)
        due = encoder.due_ms
        if due is None or self._in_the_past:
            return
        at = self._epoch + due / 1000 - _TURN_SECONDS
        if self._timer is not None and (self._timer_at <= at or self._timer_at == 0):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_at(at, self._wait_one_turn), at

    def _wait_one_turn(self) -> None:
        """Wait until sockets were read: after a stall, what is waited for may be there already."""
        self._timer, self._timer_at = self._loop.call_later(_TURN_SECONDS, self._send_due), 0.0

    def _send_due(self) -> None:
        self._timer = None
        if self._is_behind():  # what is waited for may be there already
            self._wait_one_turn()
            return
        if self._encoder is not None and not self._ended:
            now_ms = int((self._loop.time() - self._epoch) * 1000) + 1
            self._deliver(self._encoder.flush_due(now_ms), last=False)
            self._schedule_due()

    def _count_dropped(self, reason: str, total: int) -> None:
        if total > self._dropped[reason]:
            self._on_drop(reason, total - self._dropped[reason])
            self._dropped[reason] = total

    def _end(self) -> None:
        self._ended = True
        self.close()
        for sink in self._sinks:
            sink.end()


_SLICES: Final = 5
_SLICE_SECONDS: Final = 0.025
"""A fifth of all streams is measured in each turn, so each of them eight times a second."""
_LEVELS_AFTER: Final = 10
"""Turns: levels are sent every 250 ms."""
LevelsSink = Callable[[Sequence[tuple[LiveStream, dict[str, Any]]]], None]
"""Gets every stream and what was measured of it."""


class LevelMeter:
    """How loud both tracks of every stream are, for as long as anybody asks.

    It subscribes to no stream, so a chunk costs nothing: it looks at the latest chunk of each
    track, eight times a second. A sound of an eighth of a second is not missed.

    Of each stream it says `ms` (the recording's age), for each track the level in dBFS of the
    loudest chunk that it looked at (`None`: no chunk came), and `lost_ms`, how much audio has
    not come so far, by sequence numbers (`None`: the provider numbers nothing).
    """

    def __init__(self, hub: Hub, *, byte_order: ByteOrder) -> None:
        self._hub = hub
        self._byte_order = byte_order
        self._sinks: list[LevelsSink] = []
        self._timer: asyncio.TimerHandle | None = None
        self._turn = 0
        self._looked: dict[str, dict[Track, Chunk]] = {}  # the latest chunks, by recording
        self._loudest: dict[str, dict[str, float]] = {}  # since levels were sent

    @property
    def is_running(self) -> bool:
        """Whether somebody asks."""
        return self._timer is not None

    def subscribe(self, sink: LevelsSink) -> Unsubscribe:
        """Call `sink` with the levels of all streams, until it is unsubscribed."""
        self._sinks.append(sink)
        if self._timer is None:
            self._schedule()

        def unsubscribe() -> None:
            if sink in self._sinks:
                self._sinks.remove(sink)
            if not self._sinks and self._timer is not None:
                self._timer.cancel()
                self._timer = None
                self._looked.clear()
                self._loudest.clear()

        return unsubscribe

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_SLICE_SECONDS, self._take_turn)

    def _take_turn(self) -> None:
        self._schedule()
        streams = list(self._hub.streams())
        for live in streams[self._turn % _SLICES :: _SLICES]:
            self._look(live)
        self._turn += 1
        if self._turn % _LEVELS_AFTER == 0:
            self._send(streams)

    def _look(self, live: LiveStream) -> None:
        position = self._hub.position(live.recording_id)
        if position is None or position.latest is None:
            return
        looked = self._looked.setdefault(live.recording_id, {})
        loudest = self._loudest.setdefault(live.recording_id, {})
        for chunk in (position.latest, *position.others):
            if looked.get(chunk.track) is not chunk:
                looked[chunk.track] = chunk
                found = encoders.power(chunk.payload, live.media_format, self._byte_order)
                loudest[chunk.track.value] = max(found, loudest.get(chunk.track.value, 0.0))

    def _send(self, streams: Sequence[LiveStream]) -> None:
        measured = [(live, self._measured(live)) for live in streams]
        live_ids = {live.recording_id for live in streams}
        self._looked = {key: value for key, value in self._looked.items() if key in live_ids}
        self._loudest = {}
        for sink in tuple(self._sinks):
            sink(measured)

    def _measured(self, live: LiveStream) -> dict[str, Any]:
        position = self._hub.position(live.recording_id)
        assert position is not None  # noqa: S101  the hub has just named it
        loudest = self._loudest.get(live.recording_id, {})
        levels = {
            track.value: encoders.dbfs(loudest[track.value]) if track.value in loudest else None
            for track in Track
        }
        found = {"ms": position.arrival_ms, **levels, "lost_ms": _lost_ms(live, position)}
        return {**found, "paused": position.pause} if position.paused else found


def _lost_ms(live: LiveStream, position: StreamPosition) -> int | None:
    """Return how much audio has not come: what is missing is taken for chunks like the latest."""
    if position.missing is None or position.latest is None:
        return None
    return round(position.missing * len(position.latest.payload) / live.media_format.bytes_per_ms)


class Feeds:
    """All feeds of a hub that start at the present, each shared by all listeners of its spec."""

    def __init__(
        self,
        hub: Hub,
        *,
        byte_order: ByteOrder,
        counters: TapCounters,
        longest_wait_ms: int = LONGEST_WAIT_MS,
    ) -> None:
        self._counters = counters
        self._longest_wait_ms = longest_wait_ms
        self._hub = hub
        self._byte_order = byte_order
        self._feeds: dict[tuple[str, OutputSpec], Feed] = {}

    def subscribe(self, recording_id: str, spec: OutputSpec, sink: Sink) -> Unsubscribe:
        """Fill a sink from now on; `start` and `end` may be called before this returns."""
        key = (recording_id, spec)
        feed = self._feeds.get(key)
        if feed is not None:
            feed.add(sink)
        else:
            feed = Feed(
                spec,
                byte_order=self._byte_order,
                longest_wait_ms=self._longest_wait_ms,
                on_drop=self.count_dropped,
            )
            self._feeds[key] = feed
            feed.add(sink)
            feed.subscribe(self._hub, recording_id)
        subscribed = feed
        return lambda: self._unsubscribe(key, subscribed, sink)

    def count_dropped(self, reason: str, pieces: int) -> None:
        """Count pieces of audio that the listeners of one spec do not get."""
        self._counters.dropped[reason] += pieces

    def _unsubscribe(self, key: tuple[str, OutputSpec], feed: Feed, sink: Sink) -> None:
        feed.remove(sink)
        if len(feed) or self._feeds.get(key) is not feed:
            return
        feed.close()
        del self._feeds[key]
