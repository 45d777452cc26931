"""What listeners may ask for, and the words that every kind of them is told."""

from __future__ import annotations

import enum
from typing import Any, Final, Protocol

import msgspec

from receiver.errors import PeerError
from receiver.media import Chunk, EndReason, GapReason
from receiver.tap.events import LiveMessage, LiveStream, StreamEvent, Subscribed
from receiver.tap.queue import OutMessage
from receiver.wire import parse
from receiver.wire.messages import Dtmf, Mark

LONGEST_WAIT_MS: Final = 60
"""How long a chunk of one track waits for its counterpart of the other, or for one before it."""
LONGEST_CLOCK_MS: Final = 172_800_000
"""Two days: a later timestamp is no time since a call's start."""
_GREETING: Final = b'{"event":"connected","protocol":"Call","version":"0.2.0"}'


class Format(enum.StrEnum):
    """The shape of what is sent."""

    PCM16 = "pcm16"
    PAYLOAD = "payload"
    MESSAGES = "messages"


class OutputSpec(msgspec.Struct, frozen=True):
    """What a listener asked for. `rate` is `None` where it is the stream's own."""

    format: Format
    track: str  # inbound, outbound, stereo; of messages, stereo
    rate: int | None = None

    @property
    def channels(self) -> int:
        """Return how many tracks are in each binary message."""
        return 2 if self.track == "stereo" else 1


class Encoder(Protocol):
    """Turns the events of one stream into what listeners of one kind get."""

    @property
    def position_ms(self) -> float:
        """Return where on the stream's clock a listener begins that joins now."""
        ...

    @property
    def waiting_since_ms(self) -> int | None:
        """Return when the audio that is held back came; it is due `LONGEST_WAIT_MS` later."""
        ...

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        ...

    def take(self, event: StreamEvent) -> list[OutMessage]:
        """Return what follows from an event."""
        ...

    def due(self, now_ms: int) -> list[OutMessage]:
        """Return what has waited long enough at `now_ms`, on the clock of arrival times."""
        ...

    def reach_the_present(self) -> None:
        """Learn that the past has been heard, where it began there."""
        ...


def begin_ms(joined: Subscribed) -> float:
    """Return where on the stream's clock it stood when somebody joined: its latest chunk's end.

    The other track may be a little further, and what it has said will not come again.
    """
    standing = joined.position
    if standing.latest is None:
        return 0
    end = _end_ms(joined, standing.latest)
    if end is None:
        return standing.arrival_ms
    others = (_end_ms(joined, other) for other in standing.others)
    near = [other for other in others if other is not None and other <= end + LONGEST_WAIT_MS]
    return max((end, *near))


def _end_ms(joined: Subscribed, chunk: Chunk) -> float | None:
    """Return where a chunk ends, unless the sender's clock is none."""
    if chunk.timestamp_ms is None:
        return None
    stamp = chunk.timestamp_ms - joined.position.origin_ms
    if not 0 <= stamp < LONGEST_CLOCK_MS:
        return None
    return stamp + len(chunk.payload) / joined.live.media_format.bytes_per_ms


def json_text(document: dict[str, Any]) -> str:
    """Return an event as JSON text; whole milliseconds are integers."""
    for name, value in document.items():
        if isinstance(value, float):
            document[name] = int(value) if value.is_integer() else round(value, 3)
    return msgspec.json.encode(document).decode()


def gap_notice(reason: GapReason, track: str, timestamp_ms: float, duration_ms: float) -> str:
    """Return the notice of audio that a listener does not get."""
    return json_text(
        {
            "event": "gap",
            "reason": reason.value,
            "track": track,
            "timestamp_ms": timestamp_ms,
            "duration_ms": duration_ms,
        }
    )


def opening(
    kind: OutputSpec, live: LiveStream, *, listeners: int, timestamp_ms: float
) -> list[OutMessage]:
    """Return what a listener gets first."""
    if kind.format is Format.MESSAGES:
        greeting = (live.greeting or _GREETING).decode("utf-8", "replace")
        return [OutMessage(greeting), OutMessage(live.start_message.decode("utf-8", "replace"))]
    started = {
        "event": "started",
        **live.described(),
        "listeners": listeners,
        "track": kind.track,
        "format": kind.format.value,
        "rate": kind.rate or live.media_format.sample_rate,
        "channels": kind.channels,
        "timestamp_ms": timestamp_ms,
    }
    return [OutMessage(json_text(started))]


def event_items(event: LiveMessage, timestamp_ms: float) -> list[OutMessage]:
    """Return a key press or a mark as listeners are told of it."""
    try:
        message = parse.parse(event.message)
    except PeerError:
        return []
    told: dict[str, Any] = {}
    if isinstance(message, Dtmf):
        told = {"event": "dtmf", "digit": message.digit, "duration_ms": message.duration_ms}
    elif isinstance(message, Mark):
        told = {"event": "mark", "name": message.name}
    return [OutMessage(json_text(told | {"timestamp_ms": timestamp_ms}))] if told else []


def stopped_notice(reason: EndReason, timestamp_ms: float) -> OutMessage:
    """Return the last thing that a listener is told."""
    return OutMessage(
        json_text({"event": "stopped", "reason": reason.value, "timestamp_ms": timestamp_ms})
    )
