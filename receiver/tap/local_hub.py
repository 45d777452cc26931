"""The live hub: what streams say while they live, and who hears it.

`Tap` and `Hub` are the seam. A session knows its `Tap` and publishes to it; a listener knows
the `Hub`, subscribes, and is called with events in order. `LocalHub` joins the two within one
process. Another implementation may carry the same events, which are plain values, between
machines; neither side can tell.

A tap never makes anyone wait. With no subscriber a session does not even call it; with any
number of them publishing is one append, and the rest is done later, when the event loop is
through with what it has read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec
import structlog

from receiver.media import Chunk, EndReason, MediaFormat

_AT_ONCE: Final = 100
"""Events that are told in one turn of the event loop: a second of a call."""
_PAUSE_SECONDS: Final = 0.025
"""Between two such turns: forty times as fast as the call itself, and slow enough to be read."""
_LARGEST_SHARE: Final = 1 / 40
"""Of what waits, told in one turn where that is more: all of it is told within a few seconds."""

log = structlog.get_logger("receiver.tap")


class LiveStream(msgspec.Struct, frozen=True, kw_only=True):
    """One stream that is being received; what `GET /tap` says of it."""

    recording_id: str
    account_sid: str
    call_sid: str
    stream_sid: str
    parameters: dict[str, Any]
    media_format: MediaFormat
    tracks: tuple[str, ...]
    started_at: str
    greeting: bytes = b""  # the connected message, verbatim; empty where none came
    start_message: bytes = b""  # verbatim

    def described(self) -> dict[str, Any]:
        """Return what a listener is told."""
        known = msgspec.to_builtins(self)
        return {name: known[name] for name in known if name not in ("greeting", "start_message")}


class StreamPosition(msgspec.Struct, frozen=True):
    """Where a stream stood when somebody began to listen.

    `chunks` and `messages` are how many of them its journal had been given; `latest` is the
    last chunk that came, `others` are the last ones of other tracks. Times count from the
    recording's start; stream time is 0 where timestamps are `origin_ms`, as the first chunk told.
    """

    chunks: int
    messages: int
    arrival_ms: int
    latest: Chunk | None
    others: tuple[Chunk, ...] = ()
    origin_ms: int = 0


class Subscribed(msgspec.Struct, frozen=True, tag="joined"):
    """The first event that a subscriber gets: everything after `standing` follows."""

    live: LiveStream
    standing: StreamPosition


class LiveChunk(msgspec.Struct, frozen=True, tag="chunk"):
    """A chunk came."""

    chunk: Chunk
    arrival_ms: int


class PrecedingChunk(LiveChunk, frozen=True, tag="before"):
    """A chunk of the past came before what was asked for: it tells what is missing behind it."""


class LiveMessage(msgspec.Struct, frozen=True, tag="message"):
    """A message other than media came, verbatim."""

    message: bytes
    arrival_ms: int


class StreamEnded(msgspec.Struct, frozen=True, tag="ended"):
    """The last event: nothing more comes."""

    reason: EndReason
    arrival_ms: int


class StreamStarted(msgspec.Struct, frozen=True, tag="began"):
    """A stream can be listened to from now on."""

    live: LiveStream


class StreamStopped(msgspec.Struct, frozen=True, tag="left"):
    """A stream can no longer be listened to."""

    live: LiveStream
    reason: EndReason


class RecordingPublished(msgspec.Struct, frozen=True, tag="kept"):
    """A recording was published: where it is, and whether anything is missing of it."""

    recording_id: str
    call_sid: str
    stream_sid: str
    parameters: dict[str, Any]
    complete: bool
    folder: str


Event = Subscribed | LiveChunk | LiveMessage | StreamEnded
Lifecycle = StreamStarted | StreamStopped | RecordingPublished
Callback = Callable[[Event], None]
Unsubscribe = Callable[[], None]
"""Ends a subscription; idempotent."""


class Source(Protocol):
    """What a hub may ask the session of a stream."""

    def standing(self) -> StreamPosition:
        """Return where the stream stands."""
        ...


class Tap(Protocol):
    """The session's end of one stream."""

    wanted: bool
    """Whether anybody listens; chunks need not be published where nobody does."""

    def publish(self, event: LiveChunk | LiveMessage | StreamEnded) -> None:
        """Tell an event, and return at once; after `StreamEnded` nothing may follow."""
        ...


class Hub(Protocol):
    """Where taps and listeners meet."""

    def open(self, live: LiveStream, source: Source) -> Tap:
        """Begin a stream."""
        ...

    def kept(self, event: RecordingPublished) -> None:
        """Tell what became of a stream."""
        ...

    @property
    def listened(self) -> bool:
        """Whether anybody subscribes to any stream."""
        ...

    def streams(self) -> Iterable[LiveStream]:
        """Return the streams that live now."""
        ...

    def subscribe(self, recording_id: str, hear: Callback) -> Unsubscribe:
        """Have `hear` called with `Subscribed` and then with every event of one stream.

        The first call may come before this returns, the next when all that was published before
        has been told to others. Of a stream that has ended, or never was, only `StreamEnded` is
        heard.
        """
        ...

    def is_behind(self, recording_id: str) -> bool:
        """Whether something has come of a stream that its subscribers have yet to hear.

        Who waits for something to come must not give up before.
        """
        ...

    def tell_all(self) -> None:
        """Tell at once what waits: the sockets of listeners will be closed."""
        ...

    def watch(self, tell: Callable[[Lifecycle], None]) -> Unsubscribe:
        """Have `tell` called with what happens to any stream from now on."""
        ...


class _Silent:
    """The tap of a stream that cannot be listened to (yet)."""

    wanted = False

    def publish(self, event: object) -> None:
        """Do nothing."""


SILENT: Tap = _Silent()


class LocalHub:
    """The hub of one process.

    `soon` runs a call when the event loop gets to it, and `later` after so many seconds.
    """

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._soon = soon
        self._later = later or (lambda _, call: soon(call))
        self._taps: dict[str, _LocalTap] = {}
        self._ending: dict[str, _LocalTap] = {}  # of which not everything was told
        self._wanted: set[_LocalTap] = set()  # those with subscribers
        self._watchers: list[_Subscriber] = []

    def open(self, live: LiveStream, source: Source) -> Tap:
        """Begin a stream."""
        opened = self._taps[live.recording_id] = _LocalTap(self, live, source)
        self._tell(StreamStarted(live))
        return opened

    def kept(self, event: RecordingPublished) -> None:
        """Tell what became of a stream."""
        self._tell(event)

    @property
    def listened(self) -> bool:
        """Whether anybody subscribes to any stream."""
        return bool(self._wanted)

    def streams(self) -> Iterable[LiveStream]:
        """Return the streams that live now, oldest first."""
        return [tap.live for tap in self._taps.values()]

    def subscribe(self, recording_id: str, hear: Callback) -> Unsubscribe:
        """Have `hear` called with every event of one stream."""
        tap = self._taps.get(recording_id)
        if tap is None:
            hear(StreamEnded(EndReason.CLOSED, 0))
            return _nothing
        return tap.subscribe(hear)

    def watch(self, tell: Callable[[Lifecycle], None]) -> Unsubscribe:
        """Have `tell` called with what happens to any stream from now on."""
        watcher = _Subscriber(tell)
        self._watchers.append(watcher)

        def leave() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return leave

    def is_behind(self, recording_id: str) -> bool:
        """Whether something has come of a stream that its subscribers have yet to hear."""
        tap = self._taps.get(recording_id) or self._ending.get(recording_id)
        return tap is not None and tap.is_behind

    def tell_all(self) -> None:
        """Tell at once what waits of all streams."""
        for tap in (*self._taps.values(), *self._ending.values()):
            tap.tell_all()

    def ended(self, live: LiveStream, reason: EndReason) -> None:
        """Forget a stream; called by its tap."""
        tap = self._taps.pop(live.recording_id, None)
        if tap is None:
            return
        if tap.is_behind and tap.wanted:
            self._ending[live.recording_id] = tap
        self._tell(StreamStopped(live, reason))

    def note(self, tap: _LocalTap) -> None:
        """Learn whether a tap has subscribers; called by it."""
        if tap.wanted:
            self._wanted.add(tap)
        else:
            self._wanted.discard(tap)

    def told(self, live: LiveStream) -> None:
        """Forget a stream whose end was told; called by its tap."""
        self._ending.pop(live.recording_id, None)

    def soon(self, call: Callable[[], None]) -> None:
        """Run `call` when the event loop gets to it."""
        self._soon(call)

    def later(self, call: Callable[[], None]) -> None:
        """Run `call` when listeners have had the time to read what they were told."""
        self._later(_PAUSE_SECONDS, call)

    def _tell(self, event: Lifecycle) -> None:
        for tell in tuple(self._watchers):
            tell(event)


def _nothing() -> None:
    """Leave what was never joined."""


class _Subscriber:
    """A call with an identity of its own, so that one function may watch twice."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[Any], None]) -> None:
        self._call = call

    def __call__(self, event: Any) -> None:
        try:
            self._call(event)
        except Exception:  # a listener's trouble is never the recording's
            log.exception("listener_failed")


class _LocalTap:
    """One stream of a `LocalHub`."""

    def __init__(self, hub: LocalHub, live: LiveStream, source: Source) -> None:
        self.live = live
        self.wanted = False
        self._hub = hub
        self._source = source
        self._joined: set[_Subscriber] = set()  # and not left
        self._subscribers: tuple[_Subscriber, ...] = ()  # those who hear what is told now
        self._waiting: deque[Event | _Subscriber] = deque()  # a subscriber stands where it begins
        self._awake = False

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._waiting)

    def publish(self, event: LiveChunk | LiveMessage | StreamEnded) -> None:
        """Tell an event: one append, whoever listens."""
        if self.wanted:
            self._waiting.append(event)
            if not self._awake:
                self._awake = True
                self._hub.soon(self._distribute)
        if type(event) is StreamEnded:
            self._end(event)

    def tell_all(self) -> None:
        """Tell at once what waits."""
        self._tell(len(self._waiting))

    def subscribe(self, hear: Callback) -> Unsubscribe:
        """Add a subscriber behind everything that was published before.

        It knows at once where it stands, but what waits is told no faster for it: others would
        have to hear a whole burst in one turn.
        """
        subscriber = _Subscriber(hear)
        subscriber(Subscribed(self.live, self._source.standing()))
        self._joined.add(subscriber)
        self._note_wanted()
        if self._waiting:
            self._waiting.append(subscriber)
        else:
            self._begin(subscriber)
        return lambda: self._leave(subscriber)

    def _begin(self, subscriber: _Subscriber) -> None:
        if subscriber in self._joined:
            self._subscribers += (subscriber,)

    def _leave(self, subscriber: _Subscriber) -> None:
        self._joined.discard(subscriber)
        self._subscribers = tuple(s for s in self._subscribers if s is not subscriber)
        self._note_wanted()

    def _note_wanted(self) -> None:
        self.wanted = bool(self._joined)
        self._hub.note(self)

    def _end(self, event: StreamEnded) -> None:
        """Begin no more; what waits is told now, or where it is a burst, by and by."""
        if event.reason is EndReason.SHUTDOWN or len(self._waiting) <= _AT_ONCE:
            self._tell(len(self._waiting))  # the sockets of listeners may be closed next
        self._hub.ended(self.live, event.reason)

    def _distribute(self) -> None:
        """Tell some of what waits, and the rest when listeners have had their turn.

        What comes after a stalled network is many seconds of audio within one read, and would
        overflow queues whose readers are as fast as they should be.
        """
        self._awake = False
        waiting = len(self._waiting)
        self._tell(min(waiting, max(_AT_ONCE, int(waiting * _LARGEST_SHARE))))
        if self._waiting:
            self._awake = True
            self._hub.later(self._distribute)

    def _tell(self, count: int) -> None:
        for _ in range(count):
            event = self._waiting.popleft()
            if isinstance(event, _Subscriber):
                self._begin(event)
                continue
            for subscriber in self._subscribers:
                subscriber(event)
            if type(event) is StreamEnded:
                self._subscribers = ()
                self._joined.clear()
                self._note_wanted()
                self._hub.told(self.live)
