"""From a tap's messages to events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from receiver.errors import DialError, LineClosed
from receiver.notifications import events, streams_feed
from receiver.notifications.events import OutboxEvent
from receiver.transports.client import Line
from tests.bounds import at_most

STARTED = {
    "event": "started",
    "recording_id": "00112233aabbccdd",
    "call_sid": "c",
    "stream_sid": "s",
    "account_sid": "a",
    "parameters": {"queue": "sales"},
    "started_at": "2026-12-01T10:00:00.000Z",
    "tracks": ["inbound"],
    "media_format": {"encoding": "audio/x-mulaw", "sample_rate": 8000, "channels": 1},
    "listeners": 3,
}
STOPPED = {name: STARTED[name] for name in ("recording_id", "call_sid", "stream_sid", "parameters")}


def test_a_stream_that_starts_and_stops() -> None:
    """With ids and parameters; how many listen is nobody's business."""
    started = streams_feed.event_of(STARTED)
    stopped = streams_feed.event_of({"event": "stopped", "reason": "stop", **STOPPED})
    assert started is not None
    assert stopped is not None
    assert (events.STREAM_STARTED, STARTED["started_at"]) == (started.type, started.at)
    assert {"queue": "sales"} == started.data["parameters"] == stopped.data["parameters"]
    assert "listeners" not in started.data
    assert (events.STREAM_ENDED, "stop") == (stopped.type, stopped.data["reason"])


def test_the_same_stream_is_the_same_event_as_of_its_recording() -> None:
    """So whoever was told by the tap is not told again when it is published."""
    started = streams_feed.event_of(STARTED)
    later = events.of_stream(events.STREAM_STARTED, {"recording_id": "00112233aabbccdd"}, "later")
    assert started is not None
    assert later.id == started.id


def test_other_messages_are_nothing_to_be_told() -> None:
    """What was recorded is in the publication log; levels are of nobody's interest."""
    assert [None, None, None] == [
        streams_feed.event_of({"event": event}) for event in ("recorded", "levels", "new")
    ]


class OneLine:
    """A line that says something, and then is closed."""

    def __init__(self, *messages: str) -> None:
        self._messages = list(messages)

    async def receive(self) -> str:
        if not self._messages:
            raise LineClosed(1006, "")
        return self._messages.pop(0)

    def abort(self) -> None: ...


async def test_a_line_that_breaks_is_dialled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is no sense ends the line, not the following."""
    lines: list[OneLine | DialError] = [
        OneLine(json.dumps(STARTED)),
        DialError("away"),
        OneLine("{"),
        OneLine('{"event":"started"}'),
        OneLine(json.dumps({"event": "stopped", **STOPPED})),
    ]
    monkeypatch.setattr(streams_feed, "Backoff", NoWait)
    found: list[OutboxEvent] = []
    done = asyncio.Event()

    async def dial(path: str) -> Line:
        assert "/tap/all" == path
        line = lines.pop(0)
        if isinstance(line, DialError):
            raise line
        return line  # type: ignore[return-value]  # the part of it that is used

    async def put(event: OutboxEvent) -> None:
        found.append(event)
        if len(found) == 2:
            done.set()

    dialled: Callable[[str], Awaitable[Line]] = dial
    task = asyncio.create_task(streams_feed.follow(dialled, put))
    async with asyncio.timeout(at_most(10)):
        await done.wait()
    task.cancel()
    assert [events.STREAM_STARTED, events.STREAM_ENDED] == [event.type for event in found]


class NoWait:
    """A back-off without waits."""

    def __init__(self, **_: float) -> None: ...

    def next_seconds(self) -> float:
        return 0.0

    def record_held(self, _: float) -> None: ...
