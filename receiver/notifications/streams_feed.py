"""From a receiver's tap to the outbox: streams that begin and end, as soon as they do.

The console subscribes to `/tap/all` as others do, while somebody wants to be told of streams. What
it does not hear, because it or the line is down, is told when the recording is published
(`recordings_feed`): nothing is lost, it is late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
import structlog

from receiver.errors import DialError, LineClosed
from receiver.media import timestamp
from receiver.notifications import events
from receiver.notifications.events import OutboxEvent
from receiver.transports.client import Backoff, Line

Dial = Callable[[str], Awaitable[Line]]
"""Opens a socket of a receiver's taps, by its path. Raises DialError."""
PATH: Final = "/tap/all"
ANSWER_SECONDS: Final = 10.0
_STARTED_FIELDS: Final = (
    *("recording_id", "call_sid", "stream_sid", "account_sid", "parameters"),
    *("started_at", "tracks", "media_format"),
)
_STOPPED_FIELDS: Final = ("recording_id", "call_sid", "stream_sid", "parameters")

log = structlog.get_logger("receiver.notifications")


async def follow(dial: Dial, put: Callable[[OutboxEvent], Awaitable[None]]) -> None:
    """Put every event of one receiver's streams, and dial it again when the line breaks; for ever.

    Args:
        dial: Opens the line.
        put: Is awaited with each event.
    """
    backoff = Backoff(first_seconds=0.5, longest_seconds=10)
    told = ""
    while True:
        opened_at = time.monotonic()
        try:
            await _listen(dial, put)
        except (DialError, LineClosed, TimeoutError, msgspec.DecodeError, KeyError) as error:
            problem = str(error) or "it does not answer"
        if problem != told:
            told = problem
            log.warning("streams_not_followed", problem=problem)
        backoff.record_held(time.monotonic() - opened_at)
        await asyncio.sleep(backoff.next_seconds())


async def _listen(dial: Dial, put: Callable[[OutboxEvent], Awaitable[None]]) -> None:
    async with asyncio.timeout(ANSWER_SECONDS):
        line = await dial(PATH)
    try:
        while True:
            event = event_of(msgspec.json.decode(await line.receive()))
            if event is not None:
                await put(event)
    finally:
        line.abort()


def event_of(message: Mapping[str, Any]) -> OutboxEvent | None:
    """Return what a message of the tap means, or `None` where that is nothing to be told."""
    match message.get("event"):
        case "started":
            stream = {name: message.get(name) for name in _STARTED_FIELDS}
            return events.of_stream(events.STREAM_STARTED, stream, str(message["started_at"]))
        case "stopped":
            stream = {name: message.get(name) for name in _STOPPED_FIELDS}
            now = timestamp(time.time_ns() // 1_000_000)
            reason = message.get("reason")
            return events.of_stream(events.STREAM_ENDED, stream, now, reason=reason)
    return None
