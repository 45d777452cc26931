"""The texts that listeners get: what they listen to, gaps, keys, marks and the end."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from receiver.errors import PeerError
from receiver.media import Chunk, EndReason, GapReason
from receiver.tap.encoding.format import LONGEST_WAIT_MS, Format, OutMessage, OutputSpec
from receiver.tap.events import LiveMessage, LiveStream, Subscribed
from receiver.wire import parse
from receiver.wire.messages import DtmfMessage, MarkMessage

LONGEST_CLOCK_MS: Final = 172_800_000
"""Two days: a later timestamp is no time since a call's start."""
_GREETING: Final = b'{"event":"connected","protocol":"Call","version":"0.2.0"}'


def start_ms(subscribed: Subscribed) -> float:
    """Return where on the stream's clock a subscription starts: at its latest chunk's end.

    The other track may be a little further, and what it brought will not come again.
    """
    position = subscribed.position
    if position.latest is None:
        return 0
    end = _end_ms(subscribed, position.latest)
    if end is None:
        return position.arrival_ms
    others = (_end_ms(subscribed, other) for other in position.others)
    near = [other for other in others if other is not None and other <= end + LONGEST_WAIT_MS]
    return max((end, *near))


def _end_ms(subscribed: Subscribed, chunk: Chunk) -> float | None:
    """Return where a chunk ends, or `None` where its timestamp cannot be a time of the call."""
    if chunk.timestamp_ms is None:
        return None
    stamp = chunk.timestamp_ms - subscribed.position.origin_ms
    if not 0 <= stamp < LONGEST_CLOCK_MS:
        return None
    return stamp + len(chunk.payload) / subscribed.live.media_format.bytes_per_ms


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
    spec: OutputSpec, live: LiveStream, *, listeners: int, timestamp_ms: float
) -> list[OutMessage]:
    """Return what a listener gets first: `started`, or the provider's own first messages."""
    if spec.format is Format.MESSAGES:
        greeting = (live.greeting or _GREETING).decode("utf-8", "replace")
        return [OutMessage(greeting), OutMessage(live.start_message.decode("utf-8", "replace"))]
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


def event_notices(event: LiveMessage, timestamp_ms: float) -> list[OutMessage]:
    """Return the notice of a key press or a mark; none of any other message."""
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


def stopped_notice(reason: EndReason, timestamp_ms: float) -> OutMessage:
    """Return the last notice of a stream."""
    return OutMessage(
        json_text({"event": "stopped", "reason": reason.value, "timestamp_ms": timestamp_ms})
    )
