"""The seam between sessions, which receive streams, and all who listen to them.

A session opens its stream on a `Hub` and publishes to the `Tap` that it is given. Listeners,
watchers and consumers know the `Hub` alone: they subscribe to one stream, or watch all of them,
and are called with events in the order in which these were published. `LocalHub` joins both
sides within one process. Another implementation may carry the same events, which are plain
values, between processes or machines; neither side can see a difference.

Who calls, and where: every method is called, and every callback is run, on the event loop's
thread. The journal's and the publishing threads never touch a hub.

What must never happen:

- A tap makes a session wait, or raises into it. `publish` returns at once, whoever subscribes;
  a callback that fails is logged and hurts neither the session nor other subscribers.
- A chunk costs anything where nobody subscribes: a session reads `Tap.has_subscribers` and
  does not even make the event.
- Events of one stream overtake each other, come twice, or come after `StreamEnded`.
- A burst is delivered in one turn of the event loop: what a stalled network held back is many
  seconds of audio, and would overflow the queues of readers that keep up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import msgspec

from receiver.media import Chunk, EndReason, MediaFormat, timestamp

_NOT_SHOWN: Final = ("connected_message", "start_message", "continues_ms")


class LiveStream(msgspec.Struct, frozen=True, kw_only=True):
    """One stream that is being received, as `GET /tap` shows it."""

    recording_id: str
    account_sid: str
    call_sid: str
    stream_sid: str
    parameters: dict[str, Any]
    media_format: MediaFormat
    tracks: tuple[str, ...]
    started_at: str
    connected_message: bytes = b""  # verbatim; empty where none came
    start_message: bytes = b""  # verbatim
    continues_ms: int | None = None  # the timestamp at which the recording before it ended

    def described(self) -> dict[str, Any]:
        """Return the fields that listeners may see, as JSON values."""
        fields = msgspec.to_builtins(self)
        shown = {name: fields[name] for name in fields if name not in _NOT_SHOWN}
        return shown if self.continues_ms is None else {**shown, "continues": True}


class StreamPosition(msgspec.Struct, frozen=True):
    """How far a stream had come when somebody subscribed to it.

    `chunks` and `messages` are how many of them its journal had been given; `latest` is the
    last chunk that came, `others` are the last ones of other tracks. `arrival_ms` counts from
    the recording's start; stream time is 0 where timestamps are `origin_ms`, which the first
    chunk decides. `missing` are messages whose sequence numbers have not come, up to now; `None`
    where the provider numbers none. Timestamps count so many ticks per millisecond: more than 1
    are samples. `paused` is the reason of a pause that lasts, and when it ends by itself, UTC in
    milliseconds since 1970.
    """

    chunks: int
    messages: int
    arrival_ms: int
    latest: Chunk | None
    others: tuple[Chunk, ...] = ()
    origin_ms: int = 0
    missing: int | None = None
    ticks_per_ms: int = 1
    paused: tuple[str, int] | None = None

    @property
    def pause(self) -> dict[str, str] | None:
        """Return the pause that lasts, as listeners see it: its reason, and when it ends."""
        if self.paused is None:
            return None
        return {"reason": self.paused[0], "until": timestamp(self.paused[1])}

    def stream_ms(self, stamp: int) -> float:
        """Return where on the stream's clock a timestamp is."""
        return (stamp - self.origin_ms) / self.ticks_per_ms


class Subscribed(msgspec.Struct, frozen=True, tag="subscribed"):
    """The first event of a subscription: everything after `position` follows."""

    live: LiveStream
    position: StreamPosition


class LiveChunk(msgspec.Struct, frozen=True, tag="chunk"):
    """A chunk came, `arrival_ms` after the recording's start."""

    chunk: Chunk
    arrival_ms: int


class PrecedingChunk(LiveChunk, frozen=True, tag="preceding"):
    """A chunk of the past that came before what was asked for.

    It is not sent; it shows whether anything is missing between it and the next one.
    """


class LiveMessage(msgspec.Struct, frozen=True, tag="message"):
    """A message other than media came, verbatim."""

    message: bytes
    arrival_ms: int


class LivePause(LiveMessage, frozen=True, tag="pause"):
    """From here on everything is silence, as somebody asked for; or that is over.

    `message` is empty: nothing of it came from the provider.
    """

    reason: str
    until_ms: int  # when it ends by itself, UTC in milliseconds since 1970
    is_over: bool = False


class StreamEnded(msgspec.Struct, frozen=True, tag="ended"):
    """The last event of a subscription."""

    reason: EndReason
    arrival_ms: int


class StreamStarted(msgspec.Struct, frozen=True, tag="started"):
    """A stream can be subscribed to from now on."""

    live: LiveStream


class StreamStopped(msgspec.Struct, frozen=True, tag="stopped"):
    """A stream can no longer be subscribed to."""

    live: LiveStream
    reason: EndReason


class StreamRefused(msgspec.Struct, frozen=True, tag="refused"):
    """A stream came that nobody can listen to, and why: its audio cannot be decoded.

    It is recorded as it comes, and what `live` says of its format means nothing.
    """

    live: LiveStream
    reason: str


class RecordingPublished(msgspec.Struct, frozen=True, tag="published"):
    """A recording was published: in which folder, how long it is, and what is missing of it."""

    recording_id: str
    call_sid: str
    stream_sid: str
    parameters: dict[str, Any]
    complete: bool
    folder: str
    duration_ms: float = 0
    verdict: str = ""  # in words, as pages show it


PublishedEvent = LiveChunk | LiveMessage | StreamEnded
"""What a session publishes of its stream."""
StreamEvent = Subscribed | PublishedEvent
"""What a subscriber of one stream gets."""
LifecycleEvent = StreamStarted | StreamStopped | StreamRefused | RecordingPublished
"""What a watcher of all streams gets."""


Callback = Callable[[StreamEvent], None]
Unsubscribe = Callable[[], None]
"""Ends a subscription; idempotent. The callback is not called again."""


class StreamSource(Protocol):
    """What a hub may ask the session of a stream."""

    def position(self) -> StreamPosition:
        """Return how far the stream has come."""
        ...


class Tap(Protocol):
    """The session's end of one stream."""

    has_subscribers: bool
    """Chunks need not be published where this is false. Read once for every chunk."""

    def publish(self, event: PublishedEvent) -> None:
        """Pass an event to all subscribers, later, and return at once.

        Nothing may be published after `StreamEnded`.
        """
        ...


class Hub(Protocol):
    """Where taps and subscribers meet."""

    def open(self, live: LiveStream, source: StreamSource) -> Tap:
        """Make a stream known, and return the tap to publish to.

        Watchers are called with `StreamStarted` before this returns.
        """
        ...

    def refuse(self, live: LiveStream, reason: str) -> Tap:
        """Make a stream known that nobody can listen to, until `StreamEnded` is published to it.

        Watchers are called with `StreamRefused` before this returns; nobody gets what is
        published.
        """
        ...

    def recording_published(self, event: RecordingPublished) -> None:
        """Pass to watchers what became of a stream."""
        ...

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody subscribes to any stream."""
        ...

    def streams(self) -> Iterable[LiveStream]:
        """Return the streams that are being received, oldest first."""
        ...

    def refused(self) -> Iterable[StreamRefused]:
        """Return the streams that are being received and that nobody can listen to."""
        ...

    def position(self, recording_id: str) -> StreamPosition | None:
        """Return how far a stream has come that is being received; of others `None`."""
        ...

    def subscribe(self, recording_id: str, on_event: Callback) -> Unsubscribe:
        """Call `on_event` with `Subscribed`, and then with every event of one stream.

        The first call may come before this returns. What was published before is not part of
        the subscription, also where others have yet to get it. Of a stream that has ended, or
        never was, only `StreamEnded` comes.
        """
        ...

    def is_behind(self, recording_id: str) -> bool:
        """Whether events of a stream were published that its subscribers have yet to get.

        Nobody should stop waiting for a chunk before that.
        """
        ...

    def flush(self) -> None:
        """Deliver everything now, because the sockets of listeners will be closed."""
        ...

    def watch(self, on_event: Callable[[LifecycleEvent], None]) -> Unsubscribe:
        """Call `on_event` with what happens to any stream from now on."""
        ...


class _SilentTap:
    """The tap of a stream that cannot be subscribed to (yet)."""

    has_subscribers = False

    def publish(self, event: object) -> None:
        """Do nothing."""


SILENT: Final[Tap] = _SilentTap()
