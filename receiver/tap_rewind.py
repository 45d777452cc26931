"""The call's past before its present: `since`, without a break between the two.

The journal is followed to its end at the listener's own pace. Only then does the channel join
the live stream: what comes from there on is held, the little that the journal lacks up to that
moment is awaited (a batch is written every 200 ms), and the held part follows. How much the
journal had been given when the stream was joined is known exactly, so nothing is heard twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from receiver.listeners import Listener
from receiver.tap import Event, Hub, Joined, Standing
from receiver.tap_channels import Channel
from receiver.tap_kinds import begin_ms
from receiver.tap_past import Past

_PATIENCE_SECONDS: Final = 2.0
"""How long the journal may lack what has come; a failing disk does not hold up the present."""
_PAUSE_SECONDS: Final = 0.02
_MOST_HELD: Final = 1000
"""Of what comes while the past is played; then the listener's queue decides what is dropped."""


class Rewind:
    """One listener's way from the past into the present."""

    def __init__(
        self, hub: Hub, channel: Callable[[float], Channel], *, flush: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._make_channel = channel  # beginning at a moment of the stream's clock
        self._flush = flush  # has the journal written now
        self._hear: Callable[[Event], None] = lambda _: None
        self._leave: Callable[[], None] = lambda: None
        self._channel: Channel | None = None

    async def play(
        self, listener: Listener, recording_id: str, *, since_seconds: float, journal: Path
    ) -> None:
        """Serve a listener the last `since_seconds`, and then what comes."""
        joined = await self._stand(recording_id)
        if not isinstance(joined, Joined):
            listener.end()
            return
        begin = max(0.0, begin_ms(joined) - since_seconds * 1000)
        since_ms = max(0.0, joined.standing.arrival_ms - since_seconds * 1000)
        media = joined.live.media_format
        past = Past(journal, media, begin_ms=begin, since_ms=since_ms)
        channel = self._channel = self._make_channel(begin)
        try:
            channel.add(listener)
            channel.hear(joined)
            await self._follow(past, channel, listener)
            await self._catch_up(past, channel, listener, recording_id)
        finally:
            past.close()

    def stop(self) -> None:
        """Hear no more; idempotent."""
        self._leave()
        if self._channel is not None:
            self._channel.close()

    async def _stand(self, recording_id: str) -> Event:
        """Return where the stream stands, or that it has ended."""
        first: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        leave = self._hub.subscribe(
            recording_id, lambda event: None if first.done() else first.set_result(event)
        )
        try:
            return await first
        finally:
            leave()

    async def _follow(self, past: Past, channel: Channel, listener: Listener) -> None:
        """Play what the journal's file holds, no faster than the listener takes it."""
        while events := await asyncio.to_thread(past.read):
            for event in events:
                channel.hear(event)
                if listener.queue.crowded:
                    await listener.at_rest.wait()

    async def _catch_up(
        self, past: Past, channel: Channel, listener: Listener, recording_id: str
    ) -> None:
        held: deque[Event] = deque()
        heard = asyncio.Event()

        def hold(event: Event) -> None:
            held.append(event)
            heard.set()

        self._hear = hold
        self._leave = self._hub.subscribe(recording_id, lambda event: self._hear(event))
        await heard.wait()
        first = held.popleft()
        if isinstance(first, Joined):
            await self._await_rest(past, first.standing, lambda e: self._play(e, listener, held))
        else:  # it ended meanwhile: its journal holds the rest, up to the end
            everything = Standing(2**62, 2**62, 2**62, None)
            await self._await_rest(past, everything, lambda e: self._play(e, listener, held))
            held.append(first)
        while held:
            await self._play(held.popleft(), listener, held)
        self._hear = channel.hear
        channel.reach_the_present()

    async def _play(self, event: Event, listener: Listener, held: deque[Event]) -> None:
        """Let a listener hear an event, at its own pace, unless the present waits for too long."""
        assert self._channel is not None  # noqa: S101  it was made before anything is played
        self._channel.hear(event)
        while listener.queue.crowded and len(held) < _MOST_HELD:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await listener.at_rest.wait()

    async def _await_rest(
        self, past: Past, until: Standing, play: Callable[[Event], Awaitable[None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_SECONDS
        while not past.has_reached(until) and loop.time() < deadline:
            events = await asyncio.to_thread(past.read, until)
            for event in events:
                await play(event)
            if not events:
                self._flush()
                await asyncio.sleep(_PAUSE_SECONDS)
