"""One stream in one shape: each event is encoded once, whoever listens, and put into each queue.

A channel subscribes to the hub while it has listeners. What it does per listener is one bounded
append; sockets are the listeners' own business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from receiver.counters import TapCounters
from receiver.media import ByteOrder
from receiver.tap.encoding import encoders
from receiver.tap.encoding.notices import LONGEST_WAIT_MS, Encoder, OutputSpec
from receiver.tap.events import LiveStream, StreamEnded, StreamEvent, Subscribed
from receiver.tap.hub import Hub, Unsubscribe
from receiver.tap.queue import OutMessage

if TYPE_CHECKING:
    from receiver.tap.resampler import Resampler

_TURN_SECONDS: Final = 0.005


class Sink(Protocol):
    """Where a channel puts what one listener gets."""

    def begin(self, live: LiveStream, timestamp_ms: float) -> None:
        """Learn what is listened to, and where on its clock it begins."""
        ...

    def put(self, item: OutMessage) -> None:
        """Take one item; never waits."""
        ...

    def end(self) -> None:
        """Learn that nothing more comes. Called without `begin` where there is no stream."""
        ...


class Feed:
    """Everything that listeners of one kind share. `begin_ms` is for one that hears the past."""

    def __init__(
        self,
        kind: OutputSpec,
        *,
        byte_order: ByteOrder,
        begin_ms: float | None = None,
        count: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self.kind = kind
        self._count = count  # is told of what listeners do not get, and why
        self._counted = {"late": 0, "slow_resampler": 0}
        self._byte_order = byte_order
        self._begin_ms = begin_ms
        self._loop = asyncio.get_running_loop()
        self._outlets: tuple[Sink, ...] = ()
        self._live: LiveStream | None = None
        self._encoder: Encoder | None = None
        self._resampling: Resampler | None = None
        self._epoch = 0.0  # when the clock of arrival times began
        self._due: asyncio.TimerHandle | None = None
        self._position_ms = 0.0  # where a listener begins that joins now
        self._ended = False
        self._in_the_past = begin_ms is not None
        self._leave: Callable[[], None] = lambda: None
        self._is_behind: Callable[[], bool] = lambda: False  # whether more has come already

    def __len__(self) -> int:
        return len(self._outlets)

    def subscribe(self, hub: Hub, recording_id: str) -> None:
        """Begin to hear a stream."""
        self._is_behind = lambda: hub.is_behind(recording_id)
        self._leave = hub.subscribe(recording_id, self.hear)

    def add(self, outlet: Sink) -> None:
        """Begin to serve one more listener."""
        self._outlets += (outlet,)
        if self._live is not None:
            outlet.begin(self._live, self._position_ms)
        if self._ended:
            outlet.end()

    def remove(self, outlet: Sink) -> None:
        """Serve a listener no longer; idempotent."""
        self._outlets = tuple(known for known in self._outlets if known is not outlet)

    def close(self) -> None:
        """Hear no more; idempotent."""
        self._leave()
        if self._due is not None:
            self._due.cancel()

    def hear(self, event: StreamEvent) -> None:
        """Take one event of the stream."""
        if isinstance(event, Subscribed):
            self._join(event)
            return
        last = isinstance(event, StreamEnded)
        if self._encoder is not None:
            self._deliver(self._encoder.take(event), last=last)
            self._look_at_waiting()
        elif last:
            self._end()

    @property
    def coming_ms(self) -> float:
        """Return how much audio is being resampled, and will be put soon."""
        return self._resampling.coming_ms if self._resampling is not None else 0

    async def settle(self) -> None:
        """Wait until all that was heard has been put."""
        if self._resampling is not None:
            await self._resampling.settled.wait()

    def reach_the_present(self, is_behind: Callable[[], bool] = lambda: False) -> None:
        """Learn that the past has been heard: from now on audio is due by the clock.

        `is_behind` says whether more has come that will be heard.
        """
        self._in_the_past = False
        self._is_behind = is_behind
        if self._encoder is not None and not self._ended:
            self._encoder.reach_the_present()
            self._look_at_waiting()

    def _join(self, joined: Subscribed) -> None:
        if self._encoder is not None:
            return  # it has heard the past, and now the present follows
        self._live = joined.live
        self._epoch = self._loop.time() - joined.position.arrival_ms / 1000
        self._encoder = encoders.encoder(
            self.kind, joined, byte_order=self._byte_order, since_ms=self._begin_ms
        )
        self._position_ms = self._encoder.position_ms
        rate, source_rate = self.kind.rate, joined.live.media_format.sample_rate
        if rate is not None and rate != source_rate:
            from receiver.tap.resampler import Resampler  # only here: it needs numpy

            self._resampling = Resampler(source_rate, self.kind, begin_ms=self._position_ms)
        for outlet in self._outlets:
            outlet.begin(joined.live, self._position_ms)

    def _deliver(self, items: Iterable[OutMessage], *, last: bool) -> None:
        if self._resampling is not None:
            self._resampling.submit(list(items), last=last, done=self._resampled)
            self._note("slow_resampler", self._resampling.dropped)
            return
        self._fan_out(items)
        if last:
            self._end()

    def _resampled(self, items: Iterable[OutMessage], last: bool) -> None:
        self._fan_out(items)
        if last:
            self._end()

    def _fan_out(self, items: Iterable[OutMessage]) -> None:
        for item in items:
            if item.duration_ms:
                self._position_ms = item.timestamp_ms + item.duration_ms
            for outlet in self._outlets:
                outlet.put(item)

    def _look_at_waiting(self) -> None:
        """Have audio that waits for its counterpart of the other track sent when it is due."""
        encoder = self._encoder
        assert encoder is not None  # noqa: S101  it has just been used
        self._note("late", encoder.left_out)
        since = encoder.waiting_since_ms
        if since is not None and self._due is None and not self._in_the_past:
            at = self._epoch + (since + LONGEST_WAIT_MS) / 1000 - _TURN_SECONDS
            self._due = self._loop.call_at(at, self._take_turn)

    def _take_turn(self) -> None:
        """Let sockets be read once more: after a stall, what is awaited may be there already."""
        self._due = self._loop.call_later(_TURN_SECONDS, self._send_due)

    def _note(self, reason: str, total: int) -> None:
        if total > self._counted[reason]:
            self._count(reason, total - self._counted[reason])
            self._counted[reason] = total

    def _send_due(self) -> None:
        self._due = None
        if self._is_behind():  # what is awaited may be there already
            self._due = self._loop.call_later(_TURN_SECONDS, self._send_due)
            return
        if self._encoder is not None and not self._ended:
            now_ms = int((self._loop.time() - self._epoch) * 1000) + 1
            self._deliver(self._encoder.due(now_ms), last=False)
            self._look_at_waiting()

    def _end(self) -> None:
        self._ended = True
        self.close()
        for outlet in self._outlets:
            outlet.end()


class Feeds:
    """All channels of a hub that begin in the present, each shared by whoever wants its kind."""

    def __init__(self, hub: Hub, *, byte_order: ByteOrder, figures: TapCounters) -> None:
        self._figures = figures
        self._hub = hub
        self._byte_order = byte_order
        self._channels: dict[tuple[str, OutputSpec], Feed] = {}

    def join(self, recording_id: str, kind: OutputSpec, outlet: Sink) -> Unsubscribe:
        """Serve an outlet from now on; its `begin` and `end` may be called before this returns."""
        key = (recording_id, kind)
        channel = self._channels.get(key)
        fresh = channel is None
        if channel is None:
            channel = self._channels[key] = Feed(
                kind, byte_order=self._byte_order, count=self.count
            )
        channel.add(outlet)
        if fresh:
            channel.subscribe(self._hub, recording_id)
        joined = channel
        return lambda: self._leave(key, joined, outlet)

    def count(self, reason: str, chunks: int) -> None:
        """Count pieces of audio that listeners of one kind do not get."""
        self._figures.dropped[reason] += chunks

    def _leave(self, key: tuple[str, OutputSpec], channel: Feed, outlet: Sink) -> None:
        channel.remove(outlet)
        if len(channel) or self._channels.get(key) is not channel:
            return
        channel.close()
        del self._channels[key]
