"""The call's past before its present: `since`, without a break between the two.

The journal is followed to its end at the listener's own pace. Only then does the channel join
the live stream: what comes from there on is held, the little that the journal lacks up to that
moment is awaited (a batch is written every 200 ms), and the held part follows. How much the
journal had been given when the stream was joined is known exactly, so nothing is heard twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from receiver.media import EndReason, MediaFormat
from receiver.tap.encoding.notices import begin_ms
from receiver.tap.events import LiveChunk, StreamEnded, StreamEvent, StreamPosition, Subscribed
from receiver.tap.feed import Feed
from receiver.tap.history import Heard, JournalTail
from receiver.tap.hub import Hub
from receiver.tap.listener import Listener

_PATIENCE_SECONDS: Final = 2.0
"""How long the journal may lack what has come; a failing disk does not hold up the present."""
_PAUSE_SECONDS: Final = 0.02
_EVERYTHING: Final = StreamPosition(2**62, 2**62, 2**62, None)
_MOST_HELD: Final = 1000
"""Of what comes while the past is played; then the listener's queue decides what is dropped."""


class Replay:
    """One listener's way from the past into the present."""

    def __init__(
        self, hub: Hub, channel: Callable[[float], Feed], *, flush: Callable[[], None]
    ) -> None:
        self._hub = hub
        self._make_channel = channel  # beginning at a moment of the stream's clock
        self._flush = flush  # has the journal written now
        self._hear: Callable[[StreamEvent], None] = lambda _: None
        self._leave: Callable[[], None] = lambda: None
        self._channel: Feed | None = None
        self._held: deque[StreamEvent] = deque()  # what came while the past was played

    async def play(
        self, listener: Listener, recording_id: str, *, since_seconds: float, journal: Path
    ) -> None:
        """Serve a listener the last `since_seconds`, and then what comes."""
        joined = await self._stand(recording_id)
        if not isinstance(joined, Subscribed):
            listener.end()
            return
        begin = max(0.0, begin_ms(joined) - since_seconds * 1000)
        since_ms = max(0.0, joined.position.arrival_ms - since_seconds * 1000)
        media, origin_ms = joined.live.media_format, joined.position.origin_ms
        past = JournalTail(journal, media, begin_ms=begin, since_ms=since_ms, origin_ms=origin_ms)
        channel = self._channel = self._make_channel(begin)
        player = _ReplayPacer(channel, listener, media, self._held)
        try:
            channel.add(listener)
            channel.hear(joined)
            await self._follow(past, player)
            await self._catch_up(past, player, recording_id)
            self._hear = channel.hear
            channel.reach_the_present(lambda: self._hub.is_behind(recording_id))
        finally:
            past.close()

    def stop(self) -> None:
        """Hear no more; idempotent."""
        self._leave()
        if self._channel is not None:
            self._channel.close()

    async def _stand(self, recording_id: str) -> StreamEvent:
        """Return where the stream stands, or that it has ended."""
        first: asyncio.Future[StreamEvent] = asyncio.get_running_loop().create_future()
        leave = self._hub.subscribe(
            recording_id, lambda event: None if first.done() else first.set_result(event)
        )
        try:
            return await first
        finally:
            leave()

    async def _follow(self, past: JournalTail, player: _ReplayPacer) -> None:
        """Play what the journal's file holds, no faster than the listener takes it."""
        while not past.at_end:
            for event in await _in_thread(past.read):
                await player.play(event)

    async def _catch_up(self, past: JournalTail, player: _ReplayPacer, recording_id: str) -> None:
        """Join the stream, and play what the journal lacked, then what came meanwhile."""
        held, heard = self._held, asyncio.Event()

        def hold(event: StreamEvent) -> None:
            held.append(event)
            heard.set()

        self._hear = hold
        self._leave = self._hub.subscribe(recording_id, lambda event: self._hear(event))
        await heard.wait()
        first = held.popleft()
        if isinstance(first, Subscribed):
            await self._await_rest(past, first.position, player)
        else:  # it ended meanwhile: its journal holds the rest, and tells why
            await self._await_rest(past, _EVERYTHING, player)
            held.append(StreamEnded(past.end_reason or EndReason.CLOSED, 0))
        while held:
            await player.play(held.popleft())

    async def _await_rest(
        self, past: JournalTail, until: StreamPosition, player: _ReplayPacer
    ) -> None:
        waited = 0.0  # for the journal, not for the listener
        while not past.has_reached(until) and waited < _PATIENCE_SECONDS:
            for event in await _in_thread(past.read, until):
                await player.play(event)
            if past.at_end and not past.has_reached(until):
                self._flush()
                await asyncio.sleep(_PAUSE_SECONDS)
                waited += _PAUSE_SECONDS


class _ReplayPacer:
    """Lets a listener hear the past at its own pace, unless the present waits for too long."""

    def __init__(self, channel: Feed, listener: Listener, media: MediaFormat, held: Sized) -> None:
        self._channel = channel
        self._listener = listener
        self._bytes_per_ms = media.bytes_per_ms
        self._held = held  # of the present

    async def play(self, event: StreamEvent) -> None:
        """Let the listener hear an event when what is before it has been taken."""
        while self._crowds(event) and len(self._held) < _MOST_HELD:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._rest()
                    break
        self._channel.hear(event)

    def _crowds(self, event: StreamEvent) -> bool:
        size = len(event.chunk.payload) if isinstance(event, LiveChunk) else 0
        coming_ms = self._channel.coming_ms + size / self._bytes_per_ms
        return self._listener.queue.is_crowded(coming_ms)

    async def _rest(self) -> None:
        await self._channel.settle()
        await self._listener.at_rest.wait()


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="past")


async def _in_thread(call: Callable[..., list[Heard]], *arguments: object) -> list[Heard]:
    """Read in a thread that all listeners share.

    Reading is Python: several threads of it would take the interpreter from the event loop by
    turns, and whoever else needs a thread would wait for them.
    """
    return await asyncio.get_running_loop().run_in_executor(_thread(), call, *arguments)
