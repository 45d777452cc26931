"""What a hub says of streams: plain values, which may also be carried to another process."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from receiver.media import Chunk, EndReason, MediaFormat

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
        return {name: fields[name] for name in fields if name not in _NOT_SHOWN}


class StreamPosition(msgspec.Struct, frozen=True):
    """How far a stream had come when somebody subscribed to it.

    `chunks` and `messages` are how many of them its journal had been given; `latest` is the
    last chunk that came, `others` are the last ones of other tracks. `arrival_ms` counts from
    the recording's start; stream time is 0 where timestamps are `origin_ms`, which the first
    chunk decides.
    """

    chunks: int
    messages: int
    arrival_ms: int
    latest: Chunk | None
    others: tuple[Chunk, ...] = ()
    origin_ms: int = 0


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


class RecordingPublished(msgspec.Struct, frozen=True, tag="published"):
    """A recording was published: in which folder, and whether nothing of it is missing."""

    recording_id: str
    call_sid: str
    stream_sid: str
    parameters: dict[str, Any]
    complete: bool
    folder: str


PublishedEvent = LiveChunk | LiveMessage | StreamEnded
"""What a session publishes of its stream."""
StreamEvent = Subscribed | PublishedEvent
"""What a subscriber of one stream gets."""
LifecycleEvent = StreamStarted | StreamStopped | RecordingPublished
"""What a watcher of all streams gets."""
