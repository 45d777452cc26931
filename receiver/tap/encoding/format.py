"""What a listener may ask for, and the messages that it gets: audio, and texts between."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from receiver.errors import PeerError
from receiver.media import Chunk, EndReason, GapReason, timestamp
from receiver.tap.hub import LiveMessage, LivePause, LiveStream, StreamEvent, Subscribed
from receiver.wire import parse
from receiver.wire.messages import Connected, DtmfMessage, MarkMessage

ORDER_WAIT_MS: Final = 60
"""How long a chunk waits for one before it of its own track."""
LONGEST_WAIT_MS: Final = 240
"""How long a chunk of one track waits for its counterpart of the other at the most, where the
tracks or the network are so uneven; the wait adapts to what is seen."""
LONGEST_CLOCK_MS: Final = 172_800_000
"""Two days: a later timestamp is no time since a call's start."""
_CONNECTED: Final = b'{"event":"connected","protocol":"Call","version":"0.2.0"}'
_SILENCE_BLOCK_BYTES: Final = 2**15


class Format(enum.StrEnum):
    """The shape of what is sent."""

    PCM16 = "pcm16"
    PAYLOAD = "payload"
    MESSAGES = "messages"


class OutputSpec(msgspec.Struct, frozen=True):
    """What a listener asked for. `rate` is `None` where it is the stream's own."""

    format: Format
    track: str  # inbound, outbound, stereo
    rate: int | None = None
    block_ms: int = 0  # of audio in each message; 0 is a message for each chunk

    @property
    def channels(self) -> int:
        """Return how many tracks are in each binary message."""
        return 2 if self.track == "stereo" else 1


class OutMessage(msgspec.Struct, frozen=True):
    """One message to a listener, `str` as text and `bytes` as binary.

    Audio has a duration and the name of its track. Silence is `repeat` times the message: it
    takes no room in a queue, however long it is. It is sent `at_once` repeats at a time, if given.
    """

    message: bytes | str
    track: str = ""
    timestamp_ms: float = 0
    duration_ms: float = 0
    repeat: int = 1
    at_once: int = 0

    def messages(self) -> Iterator[bytes | str]:
        """Return what is to be sent."""
        if self.repeat == 1 or isinstance(self.message, str):
            return iter((self.message,))
        return self._blocks(self.message)

    def _blocks(self, message: bytes) -> Iterator[bytes]:
        at_a_time = self.at_once or max(1, _SILENCE_BLOCK_BYTES // len(message))
        whole, rest = divmod(self.repeat, at_a_time)
        block = message * at_a_time
        for _ in range(whole):
            yield block
        if rest:
            yield message * rest


class Encoder(Protocol):
    """Turns the events of one stream into what listeners of one spec get."""

    @property
    def position_ms(self) -> float:
        """Return where on the stream's clock a listener starts that subscribes now."""
        ...

    @property
    def due_ms(self) -> int | None:
        """Return when audio that is held back is due, on the clock of arrival times."""
        ...

    @property
    def late_ms(self) -> float:
        """Return how much later than its place in the stream audio comes, since the start."""
        ...

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        ...

    def feed(self, event: StreamEvent) -> list[OutMessage]:
        """Return what follows from an event."""
        ...

    def flush_due(self, now_ms: int) -> list[OutMessage]:
        """Return what has waited long enough at `now_ms`, on the clock of arrival times."""
        ...

    def reach_present(self) -> None:
        """Wait from now on as for live audio; called when a replay of the past is through."""
        ...


def start_ms(subscribed: Subscribed) -> float:
    """Return where on the stream's clock a subscription starts: at its latest chunk's end.

    The other track may be a little further, and what it brought will not come again. A track that
    was sent ahead of time is not waited for: the other one's present is what it starts with.
    """
    position = subscribed.position
    if position.latest is None:
        return 0
    end = _end_ms(subscribed, position.latest)
    if end is None:
        return position.arrival_ms
    others = [_end_ms(subscribed, other) for other in position.others]
    known = [other for other in others if other is not None]
    present = max((position.arrival_ms, *known))
    if known and end > present:
        return present
    return max((end, *(other for other in known if other <= end + ORDER_WAIT_MS)))


def _end_ms(subscribed: Subscribed, chunk: Chunk) -> float | None:
    """Return where a chunk ends, or `None` where its timestamp cannot be a time of the call."""
    if chunk.timestamp_ms is None:
        return None
    stamp = subscribed.position.stream_ms(chunk.timestamp_ms)
    if not 0 <= stamp < LONGEST_CLOCK_MS:
        return None
    return stamp + len(chunk.payload) / subscribed.live.media_format.bytes_per_ms


def json_text(document: dict[str, Any]) -> str:
    """Return an event as JSON text; whole milliseconds are integers."""
    for name, value in document.items():
        if isinstance(value, float):
            document[name] = int(value) if value.is_integer() else round(value, 3)
    return msgspec.json.encode(document).decode()


def timed(text: str, started_at: str, late_ms: float, now_s: float) -> str:
    """Return an event with the time at which its place in the stream came, and its latency.

    Args:
        text: the event, with its place on the stream's clock.
        started_at: when the recording started, in UTC.
        late_ms: how much later than its place audio comes.
        now_s: the time, in seconds since the epoch.
    """
    document = msgspec.json.decode(text)
    place_ms = document["timestamp_ms"] + late_ms
    came_ms = int(datetime.fromisoformat(started_at).timestamp() * 1000 + place_ms)
    document["wall_time"] = timestamp(came_ms)
    document["latency_ms"] = max(0, int(now_s * 1000) - came_ms)
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


def reanchored_notice(track: str, timestamp_ms: float, shift_ms: float) -> str:
    """Return the notice of a track that stands later than its own clock says, from now on."""
    return json_text(
        {
            "event": "clock_reanchored",
            "track": track,
            "timestamp_ms": timestamp_ms,
            "shift_ms": shift_ms,
        }
    )


def opening(
    spec: OutputSpec, live: LiveStream, *, listeners: int, timestamp_ms: float
) -> list[OutMessage]:
    """Return what a listener gets first: `started`, or the provider's own first messages."""
    if spec.format is Format.MESSAGES:
        connected = (live.connected_message or _CONNECTED).decode("utf-8", "replace")
        return [OutMessage(connected), OutMessage(start_message(live, spec.track))]
    started = {
        "event": "started",
        **live.described(),
        "listeners": listeners,
        "track": spec.track,
        "format": spec.format.value,
        "rate": spec.rate or live.media_format.sample_rate,
        "channels": spec.channels,
        "timestamp_ms": timestamp_ms,
    }
    return [OutMessage(json_text(started))]


def start_message(live: LiveStream, track: str) -> str:
    """Return the provider's `start`; of one track only, it names no other in its `tracks`."""
    if track == "stereo":
        return live.start_message.decode("utf-8", "replace")
    start = msgspec.json.decode(live.start_message)
    body = start["start"] if isinstance(start.get("start"), dict) else start
    body["tracks"] = [track]
    return msgspec.json.encode(start).decode()


def pause_notice(reason: str, until_ms: int, timestamp_ms: float, is_over: bool) -> str:
    """Return the notice that silence follows, as somebody asked for, or that it is over."""
    document: dict[str, Any] = {"event": "resumed"}
    if not is_over:
        document = {"event": "paused", "reason": reason, "until": timestamp(until_ms)}
    return json_text({**document, "timestamp_ms": timestamp_ms})


def event_notices(event: LiveMessage, timestamp_ms: float) -> list[OutMessage]:
    """Return the notice of a key press, a mark or a pause; none of any other message."""
    if isinstance(event, LivePause):
        return [OutMessage(pause_notice(event.reason, event.until_ms, timestamp_ms, event.is_over))]
    try:
        message = parse.parse(event.message)
    except PeerError:
        return []
    document: dict[str, Any] = {}
    if isinstance(message, DtmfMessage):
        document = {"event": "dtmf", "digit": message.digit, "duration_ms": message.duration_ms}
    elif isinstance(message, MarkMessage):
        document = {"event": "mark", "name": message.name}
    if not document:
        return []
    return [OutMessage(json_text(document | {"timestamp_ms": timestamp_ms}))]


def sequence_number(event: LiveMessage) -> int | None:
    """Return the sequence number of a message other than media, if it has one."""
    try:
        message = parse.parse(event.message)
    except PeerError:
        return None
    return None if isinstance(message, Connected) else message.sequence_number


def stopped_notice(reason: EndReason, timestamp_ms: float) -> OutMessage:
    """Return the last notice of a stream."""
    return OutMessage(
        json_text({"event": "stopped", "reason": reason.value, "timestamp_ms": timestamp_ms})
    )
