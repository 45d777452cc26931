"""The hub of one process.

Publishing appends to a deque; the event loop delivers when it is through with what it has read.
A burst is delivered in parts with pauses between them:

    published within one read: 3,000 chunks (half a minute of both tracks)
    turn 1: 100 events        (a second of the call)
    25 ms later: 100 events   (forty times as fast as the call itself)
    ...
    of more than 4,000 that wait, one in forty is delivered in each turn
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import structlog

from receiver.media import EndReason
from receiver.tap.hub import (
    Callback,
    LifecycleEvent,
    LiveStream,
    PublishedEvent,
    RecordingPublished,
    StreamEnded,
    StreamEvent,
    StreamPosition,
    StreamRefused,
    StreamSource,
    StreamStarted,
    StreamStopped,
    Subscribed,
    Tap,
    Unsubscribe,
)

_AT_ONCE: Final = 100
"""Events that are delivered in one turn of the event loop: a second of a call."""
_PAUSE_SECONDS: Final = 0.025
"""Between two such turns: forty times as fast as the call itself, and slow enough to be read."""
_LARGEST_SHARE: Final = 1 / 40
"""Of what waits, delivered in one turn where that is more: all of it within a few seconds."""

log = structlog.get_logger("receiver.tap")


class Scheduler(Protocol):
    """What a hub needs of an event loop."""

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Run `callback` in the next turn."""
        ...

    def call_later(self, delay: float, callback: Callable[[], object], /) -> object:
        """Run `callback` after `delay` seconds."""
        ...


class LocalHub:
    """The hub of one process; deliveries are scheduled on the running event loop."""

    def __init__(self, scheduler: Scheduler | None = None) -> None:
        self._scheduler = scheduler
        self._taps: dict[str, _LocalTap] = {}  # of streams that are being received
        self._ending: dict[str, _LocalTap] = {}  # ended, and not everything was delivered
        self._refused: dict[str, StreamRefused] = {}  # being received, and nobody can listen
        self._subscribed: set[_LocalTap] = set()  # those with subscribers
        self._watchers: list[_Subscriber] = []

    def open(self, live: LiveStream, source: StreamSource) -> Tap:
        """Make a stream known, and return the tap to publish to."""
        scheduler = self._scheduler or asyncio.get_running_loop()
        opened = self._taps[live.recording_id] = _LocalTap(self, live, source, scheduler)
        self._notify(StreamStarted(live))
        return opened

    def refuse(self, live: LiveStream, reason: str) -> Tap:
        """Make a stream known that nobody can listen to, until it has ended."""
        event = self._refused[live.recording_id] = StreamRefused(live, reason)
        self._notify(event)
        return _RefusedTap(lambda: self._refused.pop(live.recording_id, None))

    def recording_published(self, event: RecordingPublished) -> None:
        """Pass to watchers what became of a stream."""
        self._notify(event)

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody subscribes to any stream."""
        return bool(self._subscribed)

    def streams(self) -> Iterable[LiveStream]:
        """Return the streams that are being received, oldest first."""
        return [tap.live for tap in self._taps.values()]

    def refused(self) -> Iterable[StreamRefused]:
        """Return the streams that are being received and that nobody can listen to."""
        return tuple(self._refused.values())

    def position(self, recording_id: str) -> StreamPosition | None:
        """Return how far a stream has come that is being received."""
        tap = self._taps.get(recording_id)
        return None if tap is None else tap.position()

    def subscribe(self, recording_id: str, on_event: Callback) -> Unsubscribe:
        """Call `on_event` with every event of one stream."""
        tap = self._taps.get(recording_id)
        if tap is None:
            on_event(StreamEnded(EndReason.CLOSED, 0))
            return _nothing
        return tap.subscribe(on_event)

    def watch(self, on_event: Callable[[LifecycleEvent], None]) -> Unsubscribe:
        """Call `on_event` with what happens to any stream from now on."""
        watcher = _Subscriber(on_event)
        self._watchers.append(watcher)

        def unsubscribe() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return unsubscribe

    def is_behind(self, recording_id: str) -> bool:
        """Whether events of a stream were published that its subscribers have yet to get."""
        tap = self._taps.get(recording_id) or self._ending.get(recording_id)
        return tap is not None and tap.is_behind

    def flush(self) -> None:
        """Deliver everything of all streams now."""
        for tap in (*self._taps.values(), *self._ending.values()):
            tap.flush()

    # Called by the taps.

    def stream_ended(self, live: LiveStream, reason: EndReason) -> None:
        """Remove a stream, as soon as everything of it is delivered."""
        tap = self._taps.pop(live.recording_id, None)
        if tap is None:
            return
        if tap.is_behind and tap.has_subscribers:
            self._ending[live.recording_id] = tap
        self._notify(StreamStopped(live, reason))

    def end_delivered(self, live: LiveStream) -> None:
        """Remove a stream whose end was delivered."""
        self._ending.pop(live.recording_id, None)

    def subscribers_changed(self, tap: _LocalTap) -> None:
        """Record whether a tap has subscribers."""
        if tap.has_subscribers:
            self._subscribed.add(tap)
        else:
            self._subscribed.discard(tap)

    def _notify(self, event: LifecycleEvent) -> None:
        for watcher in tuple(self._watchers):
            watcher(event)


def _nothing() -> None:
    """Unsubscribe from a stream that is not there."""


class _Subscriber:
    """A callback with an identity of its own, so that one function may subscribe twice."""

    __slots__ = ("_on_event",)

    def __init__(self, on_event: Callable[[Any], None]) -> None:
        self._on_event = on_event

    def __call__(self, event: Any) -> None:
        try:
            self._on_event(event)
        except Exception:  # what fails for a listener must not fail for the recording
            log.exception("listener_failed")


class _RefusedTap:
    """The tap of a stream that nobody can listen to; `ended` is called at its end."""

    has_subscribers = False

    def __init__(self, ended: Callable[[], object]) -> None:
        self._ended = ended

    def publish(self, event: PublishedEvent) -> None:
        """Drop an event; the last one says that the stream has ended."""
        if isinstance(event, StreamEnded):
            self._ended()


class _LocalTap:
    """One stream of a `LocalHub`."""

    def __init__(
        self, hub: LocalHub, live: LiveStream, source: StreamSource, scheduler: Scheduler
    ) -> None:
        self.live = live
        self.has_subscribers = False
        self._hub = hub
        self._scheduler = scheduler
        self.position = source.position
        self._subscribed: set[_Subscriber] = set()
        self._receiving: tuple[_Subscriber, ...] = ()  # those who get what is delivered next
        # A subscriber among the events is where its subscription starts.
        self._pending: deque[StreamEvent | _Subscriber] = deque()
        self._is_scheduled = False

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be delivered."""
        return bool(self._pending)

    def publish(self, event: PublishedEvent) -> None:
        """Append an event to what will be delivered; the end is delivered now if it can be."""
        if self.has_subscribers:
            self._pending.append(event)
            if not self._is_scheduled:
                self._is_scheduled = True
                self._scheduler.call_soon(self._deliver_some)
        if type(event) is StreamEnded:
            self._end(event)

    def flush(self) -> None:
        """Deliver everything now."""
        self._deliver(len(self._pending))

    def subscribe(self, on_event: Callback) -> Unsubscribe:
        """Add a subscriber behind everything that was published before.

        It gets the stream's position at once. What waits is delivered no faster for it, or the
        others would get a whole burst in one turn.
        """
        subscriber = _Subscriber(on_event)
        subscriber(Subscribed(self.live, self.position()))
        self._subscribed.add(subscriber)
        self._subscribers_changed()
        if self._pending:
            self._pending.append(subscriber)
        else:
            self._start(subscriber)
        return lambda: self._unsubscribe(subscriber)

    def _start(self, subscriber: _Subscriber) -> None:
        if subscriber in self._subscribed:
            self._receiving += (subscriber,)

    def _unsubscribe(self, subscriber: _Subscriber) -> None:
        self._subscribed.discard(subscriber)
        self._receiving = tuple(one for one in self._receiving if one is not subscriber)
        self._subscribers_changed()

    def _subscribers_changed(self) -> None:
        self.has_subscribers = bool(self._subscribed)
        self._hub.subscribers_changed(self)

    def _end(self, event: StreamEnded) -> None:
        """Close the stream to new subscribers; deliver what waits, unless it is a burst."""
        if event.reason is EndReason.SHUTDOWN or len(self._pending) <= _AT_ONCE:
            self.flush()  # the sockets of listeners may be closed next
        self._hub.stream_ended(self.live, event.reason)

    def _deliver_some(self) -> None:
        """Deliver part of what waits, and schedule the rest for after the sockets' turn."""
        self._is_scheduled = False
        waiting = len(self._pending)
        self._deliver(min(waiting, max(_AT_ONCE, int(waiting * _LARGEST_SHARE))))
        if self._pending:
            self._is_scheduled = True
            self._scheduler.call_later(_PAUSE_SECONDS, self._deliver_some)

    def _deliver(self, count: int) -> None:
        for _ in range(count):
            event = self._pending.popleft()
            if isinstance(event, _Subscriber):
                self._start(event)
                continue
            for subscriber in self._receiving:
                subscriber(event)
            if type(event) is StreamEnded:
                self._receiving = ()
                self._subscribed.clear()
                self._subscribers_changed()
                self._hub.end_delivered(self.live)
